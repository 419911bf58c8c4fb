"""The past of a device, page by page, with what calls are left."""

from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import yaml

from gateway.bridges.open_api.history import TRIES, History, midnight, pages
from gateway.core.errors import RefusedError
from gateway.core.model import Page, RateLimitWait, Resolution
from gateway.sems.budget import Priority
from gateway.sems.catalogue import load
from gateway.sems.errors import (
    BadAnswerError,
    NoAnswerError,
    NoListError,
    RateLimitedError,
    SemsRefusedError,
    TimeUnreadableError,
    UnreachableError,
    understood,
)
from gateway.sems.overrides import CatalogueOverrides, overridden
from tests.bridges.open_api.kit import DEVELOPER, HOUSE, LOGGER, cloud, connected, target
from tests.kit.clock import NOON, FakeClock, virtual

BERLIN = ZoneInfo("Europe/Berlin")
JUNE = datetime(2026, 5, 31, 22, tzinfo=UTC)


def one(args, time="12:00:00", **values):
    return {"records": [{"time": f"{args['day']:%Y-%m-%d} {time}"} | (values or {"pac": 1.0})]}


class Asked:
    """SEMS as a session that answers as it is told."""

    def __init__(self, answer=None):
        self.calls = []
        self.troubles = []
        """Raised in turn; None for an answer."""
        self.answer = answer or (lambda name, args: one(args))

    def reading(self, name, *_):
        return understood(name)

    async def call(self, name, args, *, priority):
        assert priority is Priority.HISTORY
        self.calls.append((name, args))
        if self.troubles and (trouble := self.troubles.pop(0)) is not None:
            raise trouble
        return self.answer(name, args)


class Desk:
    def __init__(self):
        self.clock = FakeClock()


def history_provider(session, *targets, api="open_api"):
    known = {t.serial: t for t in targets or (target("SN", "inverter"), target("p", "plant"), target("M", "meter"))}
    return History(load(api), session, Desk(), known)


async def told(history, serial="SN", days=3, resolution=Resolution.MINUTES, start=JUNE):
    return [part async for part in history.history(serial, start, start + timedelta(days=days), resolution)]


@pytest.mark.parametrize(
    ("span", "start", "end", "expected"),
    [
        ("day", "2026-06-21T00:30", "2026-06-22T21:59", [("2026-06-21", "2026-06-22"), ("2026-06-22", "2026-06-23")]),
        ("day", "2026-06-21T22:00", "2026-06-22T22:00", [("2026-06-22", "2026-06-23")]),
        ("day", "2026-10-24T22:00", "2026-10-25T23:00", [("2026-10-25", "2026-10-26")]),
        ("month", "2026-01-31T22:59", "2026-02-28T22:59", [("2026-01-01", "2026-02-01"), ("2026-02-01", "2026-03-01")]),
        ("month", "2026-12-31T23:00", "2027-01-01T00:00", [("2027-01-01", "2027-02-01")]),
        ("year", "2027-12-31T22:59", "2028-01-01T00:00", [("2027-01-01", "2028-01-01"), ("2028-01-01", "2029-01-01")]),
        ("day", "2026-06-21T12:00", "2026-06-21T12:00", [("2026-06-21", "2026-06-22")]),
        ("day", "2026-06-21T22:00", "2026-06-21T22:00", []),
    ],
)
def test_pages_are_whole_local_days_months_and_years(span, start, end, expected):
    moments = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    found = list(pages(span, *moments, BERLIN))
    assert [(str(first), str(after)) for first, after in found] == expected


def test_a_day_is_as_long_as_the_clocks_make_it():
    lengths = [
        midnight(date(2026, m, d + 1), BERLIN) - midnight(date(2026, m, d), BERLIN) for m, d in ((3, 29), (10, 25))
    ]
    assert lengths == [timedelta(hours=23), timedelta(hours=25)]
    gap = midnight(date(2026, 9, 6), ZoneInfo("America/Santiago"))
    assert gap.astimezone(ZoneInfo("America/Santiago")).hour == 1, "that day has no midnight"


@virtual
async def test_each_page_is_one_call_for_one_local_day():
    session = Asked()
    parts = await told(history_provider(session))
    assert [str(args["day"].date()) for _, args in session.calls] == ["2026-06-01", "2026-06-02", "2026-06-03"]
    assert {name for name, _ in session.calls} == {"GetInverterHistory"}
    assert [part.start for part in parts] == [JUNE + timedelta(days=n) for n in range(3)]
    assert [part.end for part in parts] == [JUNE + timedelta(days=n + 1) for n in range(3)]
    assert [s.time.hour for part in parts for s in part.samples] == [10, 10, 10]


@virtual
async def test_what_lies_outside_is_left_out():
    session = Asked(
        lambda *_: {"records": [{"time": f"2026-06-01 {hour}", "pac": 1} for hour in ("11:00", "12:00", "13:00")]}
    )
    history = history_provider(session)
    start = JUNE + timedelta(hours=12)
    (page,) = [p async for p in history.history("SN", start, start + timedelta(hours=1), Resolution.MINUTES)]
    assert [s.time for s in page.samples] == [start]
    assert (page.start, page.end) == (start, start + timedelta(hours=1))


@virtual
async def test_the_first_interface_that_answers_tells_it_all():
    def answer(name, args):
        if name == "GetInverterHistory":
            raise SemsRefusedError("9", "no such interface")
        return {"pv": [{"x": "12:00", "y": 5}]}

    session = Asked(answer)
    parts = await told(history_provider(session))
    assert [name for name, _ in session.calls] == ["GetInverterHistory"] + ["GetInverterPower"] * 3
    assert [dict(s.values) for part in parts for s in part.samples] == [{"ac_power": 5.0}] * 3


EMPTY = ({"records": []}, [], {}, {"records": [{"time": "2026-06-01 12:00:00", "pac": None}]})


@virtual
@pytest.mark.parametrize("empty", EMPTY)
async def test_a_page_that_one_interface_has_nothing_for_is_told_by_the_next(empty):
    def answer(name, args):
        if name == "GetInverterPower":
            return {"pv": [{"x": "12:00", "y": 5}]}
        return empty if args["day"].day == 2 else one(args)

    session = Asked(answer)
    parts = await told(history_provider(session))
    names = [name for name, _ in session.calls]
    assert names == ["GetInverterHistory", "GetInverterHistory", "GetInverterPower", "GetInverterHistory"]
    assert [dict(s.values) for part in parts for s in part.samples] == [{"ac_power": v} for v in (1.0, 5.0, 1.0)]


def elsewhere(args):
    return {"total": 1, "page": {"list": one(args)["records"]}}


@virtual
async def test_a_series_in_another_list_is_told_by_the_next_interface():
    session = Asked(
        lambda name, args: {"pv": [{"x": "12:00", "y": 5}]} if name == "GetInverterPower" else elsewhere(args)
    )
    parts = await told(history_provider(session))
    assert [dict(sample.values) for part in parts for sample in part.samples] == [{"ac_power": 5.0}] * 3


@virtual
async def test_a_series_in_another_list_is_no_nothing_and_names_what_to_write():
    for other in (lambda args: {}, elsewhere):
        session = Asked(
            lambda name, args, other=other: elsewhere(args) if name == "GetInverterHistory" else other(args)
        )
        with pytest.raises(NoListError) as failed:
            await told(history_provider(session))
        said = str(failed.value)
        remedy = yaml.safe_load(said[said.index("overrides: ") :])
        catalogue = overridden(load("open_api"), CatalogueOverrides.model_validate(remedy["overrides"]))
        history = History(catalogue, session, Desk(), {"SN": target("SN", "inverter")})
        assert [len(part.samples) for part in await told(history)] == [1, 1, 1]


@virtual
async def test_where_sems_has_nothing_the_page_is_empty_and_the_rest_follows():
    def answer(name, args):
        told_of = (name, args["day"].day) == ("GetInverterPower", 3)
        return [{"date": "2026-06-03 12:00", "pac": 3}] if told_of else []

    session = Asked(answer)
    parts = await told(history_provider(session))
    assert [len(part.samples) for part in parts] == [0, 0, 1]
    assert len(session.calls) == 6


@virtual
async def test_refused_and_empty_is_nothing_and_failed_and_empty_is_an_error():
    def answer(name, args):
        if name == "GetInverterHistory":
            raise trouble
        return []

    trouble = SemsRefusedError("9", "no such interface")
    session = Asked(answer)
    assert [part.samples for part in await told(history_provider(session))] == [[], [], []]
    assert [name for name, _ in session.calls].count("GetInverterHistory") == 1, "it would be refused again"
    trouble = BadAnswerError("a web page")
    with pytest.raises(BadAnswerError, match="a web page"):
        await told(history_provider(Asked(answer)))


@virtual
async def test_times_that_cannot_be_read_are_an_error_that_shows_one():
    session = Asked(lambda name, args: {"records": [{"time": "3. Brumaire", "pac": 5}]} if "History" in name else [])
    with pytest.raises(TimeUnreadableError, match=r"'3\. Brumaire'; set date_format"):
        await told(history_provider(session))
    session.answer = lambda name, args: {"records": [{"pac": 5}]} if "History" in name else []
    with pytest.raises(TimeUnreadableError, match=r"none of which has a time .time."):
        await told(history_provider(session))


@virtual
async def test_where_the_times_of_one_interface_cannot_be_read_the_next_tells_it():
    session = Asked(
        lambda name, _: (
            {"records": [{"time": "?", "pac": 5}]} if "History" in name else {"pv": [{"x": "12:00", "y": 7}]}
        )
    )
    parts = await told(history_provider(session))
    assert [dict(s.values) for part in parts for s in part.samples] == [{"ac_power": 7.0}] * 3


@virtual
async def test_when_all_refuse_the_first_refusal_is_told():
    session = Asked()
    session.troubles = [SemsRefusedError("9", "first"), SemsRefusedError("9", "second")]
    with pytest.raises(SemsRefusedError, match="first"):
        await told(history_provider(session))


@virtual
async def test_it_waits_for_the_call_budget_and_goes_on():
    session = Asked()
    history = history_provider(session)
    session.troubles = [None, RateLimitedError("used up", 240.0), UnreachableError("away", 60.0)]
    first, pause, another, *rest = await told(history)
    assert (type(first), [type(p) for p in rest]) == (Page, [Page, Page])
    assert (pause.reason, pause.until) == ("used up", NOON + timedelta(seconds=240))
    assert (another.reason, another.until) == ("away", NOON + timedelta(seconds=300))
    assert history._context.clock.now() == NOON + timedelta(seconds=300)


@virtual
async def test_no_answer_is_tried_again_a_few_times():
    session = Asked(lambda *_: {"pv": [{"x": "12:00", "y": 5}]})
    history = history_provider(session, target("W", "plant"))
    session.troubles = [NoAnswerError("HTTP 500")] * (TRIES - 1)
    *pauses, page = await told(history, "W", days=1)
    assert ([type(p) for p in pauses], type(page)) == ([RateLimitWait] * (TRIES - 1), Page)
    assert pauses[0].reason == "HTTP 500; trying again"
    session.troubles = [BadAnswerError("a web page")] * TRIES
    with pytest.raises(BadAnswerError):
        await told(history, "W", days=1)
    assert not session.troubles


@virtual
async def test_what_there_is_none_of_is_refused():
    history = history_provider(Asked())
    assert [history.keeps(serial) for serial in ("SN", "p", "M", "nobody")] == [True, True, False, False]
    with pytest.raises(RefusedError, match=r"no history by month of SN .inverter.; there is one by minutes, day"):
        history.history_plan("SN", JUNE, NOON, Resolution.MONTH)
    with pytest.raises(RefusedError, match=r"no history by day of M .meter.; nor any other"):
        await told(history, "M", resolution=Resolution.DAY)
    with pytest.raises(RefusedError, match="there is no device nobody"):
        history.history_plan("nobody", JUNE, NOON, Resolution.DAY)


@virtual
async def test_the_outline_counts_pages_and_names_all_points():
    history_plan = history_provider(Asked()).history_plan("SN", JUNE, JUNE + timedelta(days=30), Resolution.MINUTES)
    assert history_plan.pages == 30
    assert history_plan.points[:3] == ("status", "ac_power", "pv_power")
    assert len(history_plan.points) == len(set(history_plan.points)) == 10


@virtual
async def test_a_platform_that_asks_for_days_gets_both_included():
    session = Asked(lambda *_: {"records": []})
    history = history_provider(session, target("SN", "inverter"), api="developer")
    await told(history, days=45, resolution=Resolution.DAY)
    assert [(f"{a['start']:%m-%d}", f"{a['end']:%m-%d}") for _, a in session.calls] == [
        ("06-01", "06-30"), ("07-01", "07-15")
    ]  # fmt: skip


@asynccontextmanager
async def simulated(tmp_path, login=None):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        yield bench, bench.runners[0].bridge


async def test_over_http_minutes_and_days_agree_with_the_world(tmp_path):
    async with simulated(tmp_path) as (_, bridge):
        assert bridge.keeps(HOUSE)
        assert not bridge.keeps(LOGGER)
        parts = [p async for p in bridge.history(HOUSE, JUNE, JUNE + timedelta(days=2), Resolution.MINUTES)]
        times = [s.time for part in parts for s in part.samples]
        assert times == [JUNE + timedelta(minutes=5 * n) for n in range(2 * 288)]
        totals = [s.values["energy_total"] for part in parts for s in part.samples]
        assert totals == sorted(totals)
        (month,) = [p async for p in bridge.history(HOUSE, JUNE, JUNE + timedelta(days=2), Resolution.DAY)]
        assert [s.time for s in month.samples] == [JUNE, JUNE + timedelta(days=1)]
        last = [part.samples[-1].values["energy_today"] for part in parts]
        assert [s.values["energy_today"] for s in month.samples] == pytest.approx(last, rel=0.02)


async def test_over_http_the_developer_platform(tmp_path):
    async with simulated(tmp_path, DEVELOPER) as (bench, bridge):
        serial = next(s.device.serial for s in bench.router.states() if bridge.keeps(s.device.serial))
        (page,) = [p async for p in bridge.history(serial, JUNE, JUNE + timedelta(days=5), Resolution.DAY)]
        assert len(page.samples) == 5
