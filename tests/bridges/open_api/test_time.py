"""What a cloud's times do to the quality of data, over real HTTP: rows S3, S4, S5, S6 and S18 of the trials.

Intervals are of a second, so three without news make a device stale.
"""

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.core.clock import SystemClock
from gateway.core.model import Quality
from tests.bridges.open_api.kit import CLASSIC, DEVELOPER, HOUSE, cloud, order, settings, status
from tests.kit.bench import Bench, until
from tests.sems.kit import http, serving

OWN = {"poll_interval": 0.1, "calls_per_hour": 10_000_000}
STALE_WITHIN = 12.0
"""Seconds; three intervals of one, and a look of the router's in between."""


class Shifted(SystemClock):
    """The machine's clock, set to another day."""

    def __init__(self):
        super().__init__()
        self.ahead = timedelta()

    def now(self):
        return super().now() + self.ahead

    def set(self, wall):
        self.ahead = wall - super().now()


class Small:
    """A cloud with one plant and some inverters. What it says of them is what a test says."""

    def __init__(self, server, serials):
        self.server = server
        self.serials = serials
        self.detail = {"plant_name": "Roof"}
        self.time = lambda serial: ""
        self.pac = lambda serial: 1000
        refused = {"code": "100025", "msg": "no right"}
        server.scripts = {interface.name: [refused] for interface in server.catalogue.interfaces}
        server.scripts |= {
            "GetToken": [_data({"token": "t"})],
            "GetUserPlantList": [_data({"list": [{"plant_id": "p1", "plant_name": "Roof"}]})],
            "GetPlantDetail": [lambda _: self._said(self.detail)],
            "GetInverterList": [_data([{"sn": serial, "type": "inverter"} for serial in serials])],
            "GetInverterBySN": [lambda call: self._said(self._inverter(call.query["invertersn"]))],
        }

    def _inverter(self, serial):
        time = self.time(serial)
        text = f"{time:%Y-%m-%d %H:%M:%S}" if isinstance(time, datetime) else time
        return {"sn": serial, "status": 1, "pac": self.pac(serial), "last_refresh_time": text}

    @staticmethod
    def _said(data):
        return http(_data(data), keep=True)


def _data(data):
    return {"code": 0, "msg": "success", "data": data}


@asynccontextmanager
async def plant(tmp_path, *serials, clock=None, **changes):
    async with serving() as (server, url), Bench(tmp_path, clock=clock) as bench:
        small = Small(server, serials or ("A",))

        def begin(**more):
            bench.run(OpenApiBridge, OpenApiSettings(**(CLASSIC | OWN | {"url": url} | changes | more)), "sems")

        aging = asyncio.create_task(_age(bench.router))
        try:
            yield bench, small, begin
        finally:
            aging.cancel()


async def _age(router):
    while True:
        await asyncio.sleep(0.1)
        router.age()


def is_good(bench, serial="A"):
    state = bench.router.state(serial)
    return state is not None and state.quality is Quality.GOOD


def is_stale(bench, serial="A"):
    state = bench.router.state(serial)
    return state is not None and bool(state.values) and state.quality is Quality.STALE


OF_TIMES = {"date_order", "time_unreadable", "zone_inferred", "zone_unknown"}


def findings(bench):
    said = status(bench)
    found = {(finding.code.value, finding.subject) for finding in said.findings} if said else set()
    return {each for each in found if each[0] in OF_TIMES}


async def test_s3_two_days_old_in_the_accounts_own_format_is_old(tmp_path):
    async with plant(tmp_path) as (bench, small, begin):
        last_month = bench.clock.now().replace(day=1) - timedelta(days=1)
        small.detail["time_zone"] = "Europe/Berlin"
        small.time = lambda _: f"{last_month.replace(day=22):%d.%m.%Y} 17:02:36"
        begin()
        await until(lambda: is_stale(bench))
        local = bench.router.state("A").time.astimezone(UTC)
        assert (local.day, local.month) == (22, last_month.month)
        assert findings(bench) == {("date_order", "")}


async def test_s3_of_what_cannot_be_read_frozen_values_go_stale_and_changing_ones_do_not(tmp_path):
    async with plant(tmp_path, "A", "B") as (bench, small, begin):
        changing = iter(range(1_000_000))
        small.detail["time_zone"] = "Europe/Berlin"
        small.time = lambda _: "the 22nd of June"
        small.pac = lambda serial: 1000 if serial == "A" else next(changing)
        begin()
        await until(lambda: is_good(bench) and is_good(bench, "B"))
        assert findings(bench) == {("time_unreadable", "GetInverterBySN")}
        (finding,) = (each for each in status(bench).findings if each.code in OF_TIMES)
        assert "the 22nd of June" in finding.text
        assert "bridges.sems.date_format" in finding.remedy
        await until(lambda: is_stale(bench), timeout=STALE_WITHIN)
        assert is_good(bench, "B")
        small.pac = lambda serial: next(changing)
        await until(lambda: is_good(bench))


async def test_s4_the_order_is_learned_kept_and_no_day_is_read_as_a_month(tmp_path):
    clock = Shifted()
    async with plant(tmp_path, clock=clock) as (bench, small, begin):
        clock.set(datetime(2026, 11, 5, 12, tzinfo=UTC))
        small.detail["time_zone"] = "UTC"
        small.time = lambda _: f"{clock.now():%d/%m/%Y %H:%M:%S}"
        begin()
        await until(lambda: ("time_unreadable", "GetInverterBySN") in findings(bench) or is_good(bench))
        assert bench.router.state("A") is None or bench.router.state("A").time > clock.now() - timedelta(days=1)
        clock.set(datetime(2026, 11, 13, 12, tzinfo=UTC))
        await until(lambda: findings(bench) == {("date_order", "")})
        await until(lambda: is_good(bench))
        await bench.runners.pop().stop()
        clock.set(datetime(2026, 12, 20, 12, tzinfo=UTC))
        small.time = lambda _: "10/12/2026 11:00:00"  # to October it would be as good
        begin()
        await until(lambda: is_stale(bench) and bench.router.state("A").time == datetime(2026, 12, 10, 11, tzinfo=UTC))


async def test_s5_one_answer_from_tomorrow_keeps_out_none_after_it(tmp_path):
    async with plant(tmp_path) as (bench, small, begin):
        small.detail["time_zone"] = "UTC"
        small.time = lambda _: bench.clock.now() + timedelta(hours=10)
        begin()
        await until(lambda: is_good(bench))
        small.time, small.pac = (lambda _: bench.clock.now()), (lambda _: 2000)
        await until(lambda: bench.router.state("A").values["ac_power"] == 2000)
        assert bench.router.state("A").time <= bench.clock.now()


@pytest.mark.parametrize("said", [{"time_zone": "UTC+10:00"}, {"time_span": -10}], ids=["offset", "span"])
async def test_s6_dead_data_of_a_zone_said_as_an_offset_are_stale(tmp_path, said):
    async with plant(tmp_path, "A", "B") as (bench, small, begin):
        small.detail |= said
        dead = bench.clock.now() + timedelta(hours=10) - timedelta(minutes=5)
        small.time = lambda serial: dead if serial == "A" else bench.clock.now() + timedelta(hours=10)
        begin()
        await until(lambda: is_stale(bench) and is_good(bench, "B"))
        assert bench.router.state("A").device.time_zone == "UTC+10:00"
        assert findings(bench) == set()


@pytest.mark.parametrize("said", [{"time_zone": "East of here"}, {"time_zone": 10}, {"time_span": 480}])
async def test_a_zone_that_may_be_any_is_shown_as_it_was_said(tmp_path, said):
    async with plant(tmp_path, "A") as (bench, small, begin):
        small.detail |= said
        begin()
        await until(lambda: ("zone_unknown", "p1") in findings(bench))
        (found,) = (each for each in status(bench).findings if each.code == "zone_unknown")
        assert repr(str(next(iter(said.values())))) in found.text


@pytest.mark.parametrize("hours", [10, -5, 5.75])
async def test_s6_the_zone_that_nobody_says_is_found_and_until_then_dead_data_are_stale(tmp_path, hours):
    async with plant(tmp_path, "A", "B", "C") as (bench, small, begin):
        offset = timedelta(hours=hours)
        dead = bench.clock.now() + offset
        small.time = lambda serial: dead
        begin()
        await until(lambda: is_stale(bench) and is_stale(bench, "B") and is_stale(bench, "C"))
        assert findings(bench) == {("zone_unknown", "p1")}
        assert any("time_zone" in finding.remedy for finding in status(bench).findings)
        small.time = lambda serial: dead if serial == "A" else bench.clock.now() + offset
        await until(lambda: is_good(bench, "B") and is_good(bench, "C"))
        await until(lambda: ("zone_inferred", "p1") in findings(bench))
        assert is_stale(bench)
        name = {10: "UTC+10:00", -5: "UTC-05:00", 5.75: "UTC+05:45"}[hours]
        assert {bench.router.state(serial).device.time_zone for serial in "ABC"} == {name}
        # With the zone known, the dead one's time is right too.
        await until(lambda: abs(bench.router.state("B").time - bench.clock.now()) < timedelta(seconds=3))


def seldom(simulator, since):
    """Whether the second account has asked again, after a pause in which only the first did."""
    calls = [call for call in simulator.cloud.calls if call.interface == "DeviceTelemetry" and call.time > since]
    asked = [call.time for call in calls if HOUSE in str(call.params)]
    return len(asked) > 1 and asked[-1] - asked[-2] > timedelta(seconds=3)


async def test_s18_after_outages_a_device_of_two_accounts_goes_stale_as_soon_as_before(tmp_path):
    down = order({"answers": [{"answer": "html", "times": None}]})
    async with cloud() as simulator, Bench(tmp_path) as bench:
        fast = {"poll_interval": 0.5, "pushed_poll_interval": 6}
        bench.run(OpenApiBridge, settings(simulator, CLASSIC, **fast), "classic")
        bench.run(OpenApiBridge, settings(simulator, DEVELOPER, **fast), "developer")
        aging = asyncio.create_task(_age(bench.router))
        try:
            since = bench.clock.now()
            # On a machine so busy that the first falls behind too, the second never asks seldom for long.
            with suppress(TimeoutError):
                await until(lambda: seldom(simulator, since), timeout=15)
            for _ in range(2):
                await until(lambda: is_good(bench, HOUSE))
                simulator.cloud.spoil(down)
                await until(lambda: is_stale(bench, HOUSE), timeout=STALE_WITHIN)
                simulator.cloud.spoil(order({"clear": True}))
        finally:
            aging.cancel()
