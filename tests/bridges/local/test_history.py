"""A device's past through the command line's door."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from gateway.bridges.local import LocalBridge, LocalClient, LocalSettings
from gateway.bridges.local.protocol import (
    Failed,
    History,
    HistoryEnd,
    HistoryPage,
    HistoryPlanned,
    HistoryWait,
    Refused,
)
from gateway.core.clock import Clock
from gateway.core.errors import RefusedError, UnsureError
from gateway.core.model import DeviceKind, HistoryPlan, Page, RateLimitWait, Resolution, Sample
from tests.kit.bench import INVERTER, Bench, until
from tests.kit.clock import NOON

SN = INVERTER.serial


class Now(Clock):
    """It is noon of the longest day."""

    def now(self):
        return NOON

    def monotonic(self):
        return asyncio.get_running_loop().time()


class Past:
    """A bridge that remembers days, of the inverter alone."""

    def __init__(self):
        self.asked = []
        self.trouble = None

    def keeps(self, serial):
        return serial == SN

    def history_plan(self, serial, start, end, resolution):
        if resolution is Resolution.MONTH:
            raise RefusedError("there is none by month")
        self.asked.append((start, end))
        return HistoryPlan(2, ("ac_power",))

    async def history(self, serial, start, end, resolution):
        yield Page(start, end, [Sample(start, {"ac_power": 1.5})])
        yield RateLimitWait(end, "used up")
        if self.trouble:
            raise self.trouble


@asynccontextmanager
async def door(tmp_path, **device):
    async with Bench(tmp_path, clock=Now()) as bench:
        past = bench.services.historians["past"] = Past()
        bench.announce(**({"time_zone": "Europe/Berlin"} | device))
        bench.announce(serial="METER", kind=DeviceKind.METER)
        bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: any(s.up for s in bench.router.bridges()))
        yield bench, past


async def ask(tmp_path, start="2026-06-01", end="2026-06-02", serial=SN, **more):
    return [reply async for reply in LocalClient(tmp_path).ask(History(serial, start, end, **more))]


async def test_outline_pages_pauses_and_the_end(tmp_path):
    async with door(tmp_path) as (_, past):
        history_plan, page, pause, end = await ask(tmp_path)
        assert history_plan == HistoryPlanned(HistoryPlan(2, ("ac_power",)))
        assert isinstance(page, HistoryPage)
        assert page.page.samples == [Sample(datetime(2026, 5, 31, 22, tzinfo=UTC), {"ac_power": 1.5})]
        assert pause == HistoryWait(RateLimitWait(page.page.end, "used up"))
        assert end == HistoryEnd()
        assert past.asked == [(datetime(2026, 5, 31, 22, tzinfo=UTC), datetime(2026, 6, 2, 22, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-06-21", "2026-06-21", ("2026-06-20T22:00", "2026-06-21T12:00")),  # today, until now
        ("2026-06-01T04:00:00Z", "2026-06-01T06:30:00+02:00", ("2026-06-01T04:00", "2026-06-01T04:30")),
        ("2026-03-29", "2026-03-29", ("2026-03-28T23:00", "2026-03-29T22:00")),
    ],
)
async def test_dates_are_local_and_included_times_are_neither(tmp_path, start, end, expected):
    async with door(tmp_path) as (_, past):
        await ask(tmp_path, start, end)
        assert past.asked == [tuple(datetime.fromisoformat(t).replace(tzinfo=UTC) for t in expected)]


async def test_what_is_there_already_is_not_told_again(tmp_path):
    async with door(tmp_path) as (_, past):
        since = datetime(2026, 6, 1, 22, tzinfo=UTC)
        await ask(tmp_path, since=since)
        assert past.asked == [(since, datetime(2026, 6, 2, 22, tzinfo=UTC))]


async def test_without_a_zone_the_plants_counts_and_then_utc(tmp_path):
    async with door(tmp_path, time_zone="") as (bench, past):
        await ask(tmp_path)
        bench.announce(serial="plant-1", kind=DeviceKind.PLANT, plant="", time_zone="America/New_York")
        await ask(tmp_path)
        assert [start.hour for start, _ in past.asked] == [0, 4]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"serial": SN[:-1]}, f"there is no device '{SN[:-1]}'; the nearest: {SN}"),
        ({"serial": "?"}, "there is no device '?'; `sems-gateway devices` lists those there are"),
        ({"serial": "METER"}, "there is no history of METER (meter); there is one of: storage"),
        ({"start": "2026-06-03"}, "--from 2026-06-03 is not before --to 2026-06-02"),
        ({"end": "2026-06-22"}, "--to 2026-06-22 is in the future; where the plant is, it is 2026-06-21"),
        ({"start": "2027-06-22", "end": "2028-01-01"}, "--from 2027-06-22 is in the future"),
        ({"start": "yesterday"}, "--from 'yesterday' is no date like 2026-06-21, and no time like"),
        ({"start": "2026-02-30"}, "--from '2026-02-30' is no date"),
        ({"end": "9999-12-31"}, "--to '9999-12-31' is no date"),
        ({"end": "2026-06-01T00:00:00"}, "--to '2026-06-01T00:00:00' is no date"),
        ({"resolution": Resolution.MONTH}, "there is none by month"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_hint(tmp_path, changes, expected):
    async with door(tmp_path) as _:
        (reply,) = await ask(tmp_path, **changes)
        assert isinstance(reply, Refused)
        assert expected in reply.detail


async def test_before_any_device_is_known_it_says_what_is_down(tmp_path):
    async with Bench(tmp_path) as bench:
        runner = bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: any(s.up for s in bench.router.bridges()))
        runner.report(up=False, detail="SEMS is away")
        (reply,) = await ask(tmp_path)
        assert reply == Refused(f"there is no device '{SN}'; none is known yet; cli is down: SEMS is away")


async def test_a_history_that_breaks_off_says_so(tmp_path):
    async with door(tmp_path) as (_, past):
        past.trouble = UnsureError("SEMS answers nothing")
        assert (await ask(tmp_path))[-1] == Failed("SEMS answers nothing")


async def test_a_gateway_that_stops_hangs_up(tmp_path):
    async with door(tmp_path) as (bench, past):
        held = asyncio.Event()

        async def history(*_):
            held.set()
            await asyncio.Event().wait()
            yield

        past.history = history
        asking = asyncio.create_task(ask(tmp_path))
        await held.wait()
        await bench.runners[0].stop()
        (history_plan,) = await asyncio.wait_for(asking, 120)
        assert isinstance(history_plan, HistoryPlanned)


def test_pages_go_over_the_socket_as_they_are():
    page = Page(NOON, NOON + timedelta(days=1), [Sample(NOON, {"a": 1.0, "b": "x", "c": None, "d": True})])
    assert msgspec.json.decode(msgspec.json.encode(HistoryPage(page)), type=HistoryPage) == HistoryPage(page)
