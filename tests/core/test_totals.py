"""Totals that never lie: a table of cases, and Home Assistant's sum over days with everything that a cloud does."""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.model import Device, DeviceKind, Snapshot
from gateway.core.points import POINTS, Kind
from gateway.core.router import Router
from gateway.core.totals import GUARDED, Totals
from gateway.core.totals_file import FILE, TotalsFile
from tests.kit.clock import FakeClock, virtual
from tests.kit.sums import summed

BERLIN = "Europe/Berlin"
NOON = datetime(2026, 6, 21, 10, tzinfo=UTC)
"""In Berlin."""
MIDNIGHT = NOON + timedelta(hours=12)
EVENING = MIDNIGHT - timedelta(minutes=5)
ONES16, ONES32 = 6553.5, 429496729.5


class Meter:
    """One total of one device, read every so often."""

    def __init__(self, point="energy_today", zone=BERLIN, rated=10_000.0, kind=DeviceKind.INVERTER, start=NOON):
        self.point, self.time, self.totals = point, start, Totals()
        self.device = Device(serial="x", kind=kind, time_zone=zone, rated_power=rated)

    def reads(self, *values, every=5.0, **others):
        """Return what is shown of these values, one each `every` minutes."""
        shown = []
        for value in values:
            given = {self.point: value, **others}
            shown.append(self.totals.judge(self.device, given, self.time, self.time)[self.point])
            self.time += timedelta(minutes=every)
        return shown

    def at(self, time):
        self.time = time
        return self


def lasting(value, minutes, every=5.0):
    return [value] * round(minutes / every)


def rising(first, last, count):
    return [round(first + (last - first) * step / (count - 1), 3) for step in range(count)]


# What is read, and what is shown: each row is a rule of `gateway.core.totals`.
CASES = {
    "a rounding": (Meter(), [10.0, 9.9, 9.1, 10.1], [10, 10, 10, 10.1]),
    "zero for a moment": (Meter(), [10.0, 0.0, 10.1, 0.0, 0.0, 10.2], [10, 10, 10.1, 10.1, 10.1, 10.2]),
    "midnight": (Meter(start=EVENING), [20.0, 0.0, 0.1], [20, 0, 0.1]),
    "M5: midnight, back and forth": (
        Meter(start=EVENING), [40.0, 0.0, 40.0, 0.0, 0.5], [40, 0, 0, 0, 0.5],
    ),
    "the old one for a long time after midnight": (
        Meter(start=EVENING),
        [40.0, 0.0, *lasting(40.0, 300), 0.0, 0.5], [40, *lasting(0.0, 305), 0, 0.5],
    ),
    "the old one, small": (
        Meter(start=EVENING), [0.8, 0.0, 0.8, 0.0, 0.1], [0.8, 0, 0, 0, 0.1],
    ),
    "midnight is noticed in the morning": (
        Meter(start=EVENING), [20.0, *lasting(20.0, 360), 0.1, 0.2], [20, *lasting(20, 360), 0.1, 0.2],
    ),
    "midnight is late, and the value rises": (
        Meter("load_energy_today", start=EVENING), [20.0, 20.1, 20.2, 0.1], [20, 20.1, 20.2, 0.1],
    ),
    "the device's midnight is early": (
        Meter(start=MIDNIGHT - timedelta(minutes=10)), [20.0, 0.0, 0.0, 0.1], [20, 20, 0, 0.1],
    ),
    "zeros at noon of a day that began with zero": (
        Meter(start=EVENING),
        [0.0, *lasting(0.0, 360), *rising(0.0, 5.0, 20), 0.0, 5.1], [0, *lasting(0, 360), *rising(0, 5, 20), 5, 5.1],
    ),
    "zeros for hours at noon": (Meter(), [10.0, *lasting(0.0, 180), 10.5], [10, *lasting(10, 180), 10.5]),
    "a counter that begins anew at noon": (
        Meter(), [10.0, *rising(0.1, 2.0, 20)], [10, *lasting(10, 60), *rising(0.1, 2.0, 20)[12:]],
    ),
    "M6: all ones": (Meter("energy_total"), [12345.0, ONES32, 12345.2], [12345, 12345, 12345.2]),
    "M6: all ones of today": (Meter(), [20.0, ONES16, 20.1], [20, 20, 20.1]),
    "all ones for hours": (Meter(), [20.0, *lasting(ONES16, 180), 20.5], [20, *lasting(20, 180), 20.5]),
    "all ones, unknown rating": (Meter(rated=None), [20.0, ONES16, 20.1], [20, 20, 20.1]),
    "all ones of a plant, unknown rating": (
        Meter("energy_total", rated=None, kind=DeviceKind.PLANT), [12345.0, ONES32, 12345.2], [12345, 12345, 12345.2],
    ),
    "all ones first of all": (Meter("energy_total"), [ONES32, 12345.0], [None, 12345]),
    "zero first of all": (Meter("energy_total"), [0.0, 12345.0], [None, 12345]),
    "a new device": (Meter("energy_total"), [*lasting(0.0, 20), 0.0, 0.1], [*lasting(None, 20), 0, 0.1]),
    "below zero": (Meter(), [20.0, -1.0, 20.1], [20, 20, 20.1]),
    "garbage, a fall, and garbage": (
        Meter("energy_total"), [500.0, 90_000.0, 0.0, 90_000.0, 500.5], [500, 500, 500, 500, 500.5],
    ),
    "another meter": (
        Meter("energy_total"), [500.0, *lasting(9000.0, 25), 9000.1], [500, *lasting(500, 20), 9000, 9000.1],
    ),
    "a cloud that is late, and catches up": (Meter(), [2.0, *lasting(2.0, 120), 18.0], [2, *lasting(2, 120), 18]),
    "a lifetime that is lower and rises for a day": (
        Meter("energy_total"), [9000.0, *rising(0.0, 28.9, 290)], [9000, *lasting(9000, 1440), 28.8, 28.9],
    ),
    "a lifetime that is zero for two days": (Meter("energy_total"), [9000.0, *lasting(0.0, 2880)], [9000] * 577),
    "a charging session": (
        Meter("ev_session_energy", kind=DeviceKind.EV_CHARGER, rated=11_000.0),
        [9.0, 8.9, 0.1, 0.3, 0.0, 0.5], [9, 9, 9, 0.3, 0.3, 0.5],
    ),
    "not there": (Meter(), [10.0, None, 9.9], [10, None, 10]),
    "a month ends": (
        Meter("energy_month", start=datetime(2026, 6, 30, 21, 55, tzinfo=UTC)), [900.0, 0.0, 0.1], [900, 0, 0.1],
    ),
    "a day ends and the month does not": (
        Meter("energy_month", start=EVENING), [500.0, 0.0, 500.1], [500, 500, 500.1],
    ),
    "hours": (Meter("operating_hours"), [100.0, 101.0, 109.0, 101.1], [100, 101, 101, 101.1]),
    "zone unknown": (
        Meter(zone="Mars/Base", start=MIDNIGHT), [20.0, *rising(0.0, 0.4, 5)], [20, 20, 20, 20, 20, 0.4],
    ),
    "zone unknown, zero for a moment": (Meter(zone=""), [20.0, 0.0, 0.0, 20.1], [20, 20, 20, 20.1]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_and_what_is_shown(case):
    meter, read, shown = CASES[case]
    assert meter.reads(*read) == shown


def test_the_true_sum_about_midnight_is_half_a_kilowatt_hour():
    assert summed([40, 0, 40, 0, 0.5]) == 40.5, "what Home Assistant makes of it by itself"
    assert summed(Meter(start=MIDNIGHT - timedelta(minutes=5)).reads(40, 0, 40, 0, 0.5)) == 0.5


def test_the_same_answer_read_again_and_again_is_one_reading():
    meter = Meter("energy_total")
    meter.reads(500.0)
    assert meter.reads(*[9000.0] * 100, every=0) == [500.0] * 100


def test_after_a_silence_a_fall_is_believed_once_it_has_stood_and_rises():
    meter = Meter()
    meter.reads(10.0)
    meter.time += timedelta(hours=2)
    assert meter.reads(0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.3)[-3:] == [0.1, 0.2, 0.3]
    meter = Meter()
    meter.reads(10.0)
    meter.time += timedelta(hours=2)
    assert meter.reads(*[0.0] * 10, 10.3) == [10.0] * 10 + [10.3]


def test_a_day_whose_first_hours_nobody_read_begins_at_zero_all_the_same():
    meter = Meter(start=MIDNIGHT - timedelta(hours=6))
    meter.reads(30.0)
    shown = meter.at(MIDNIGHT + timedelta(hours=16)).reads(35.0, 35.2, 35.8, 36.0, 36.2)
    assert shown == [30.0, 30.0, 0.0, 36.0, 36.2]
    assert summed([30.0, *shown]) == pytest.approx(36.2)


def test_the_old_one_is_no_new_day_in_the_morning():
    meter = Meter(start=MIDNIGHT - timedelta(hours=6))
    meter.reads(30.0)
    shown = meter.at(MIDNIGHT + timedelta(hours=5)).reads(30.4, 30.3, 30.4, 30.4, 0.1)
    assert summed([30.0, *shown]) == pytest.approx(0.5, abs=0.5)


def test_a_plants_own_capacity_is_its_rating():
    known, unknown = Meter(rated=None, kind=DeviceKind.PLANT), Meter(rated=None, kind=DeviceKind.PLANT)
    assert unknown.reads(10.0, 500.0) == [10.0, 500.0]
    assert known.reads(10.0, 500.0, 10.1, capacity=12.0) == [10.0, 10.0, 10.1]


def test_what_a_wrong_clock_saw_in_the_future_does_not_hold_the_present_up():
    meter = Meter(start=NOON + timedelta(days=4000))
    meter.reads(10.0)
    assert meter.at(NOON).reads(11.0, 11.1)[-1] == 11.1


def test_every_total_is_guarded():
    assert GUARDED.keys() == {point.id for point in POINTS.values() if point.kind is Kind.TOTAL}


@virtual
async def test_every_door_is_shown_what_is_believed_and_the_file_keeps_it_over_a_restart(tmp_path):
    clock = FakeClock()
    device = Device(serial="x", kind=DeviceKind.INVERTER, time_zone=BERLIN, rated_power=10_000.0)

    async def run(*values):
        router = Router(clock)
        file = TotalsFile(router.totals, tmp_path)
        file.restore(clock.now())
        history = router.attach("history", backlog=100)
        router.announce("a", device)
        shown = []
        for value in values:
            await asyncio.sleep(60)
            router.publish(
                Snapshot(serial="x", time=clock.now(), source="a", interval=60, values={"energy_total": value})
            )
            shown.append(router.state("x").values["energy_total"])
        assert [s.values["energy_total"] for s in (await history.take()).snapshots] == shown
        await file.save()
        return shown

    assert await run(12345.0, ONES32, 12345.1) == [12345.0, 12345.0, 12345.1]
    assert await run(0.0, ONES32, 12345.2) == [12345.1, 12345.1, 12345.2]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["{", '{"version":2,"devices":{}}', '{"version":1,"devices":{"x":[{},-5,0,0]}}'])
def test_a_file_that_cannot_be_read_counts_as_lost(tmp_path, content, capsys):
    (tmp_path / FILE).write_text(content)
    totals = Totals()
    TotalsFile(totals, tmp_path).restore(NOON)
    assert totals.known == {}
    assert "can't be read" in capsys.readouterr().out


# Days as a plant has them, and what a cloud makes of them.

EVERY = timedelta(minutes=5)
DAYS = 3
STEPS = DAYS * 288
BURST = 4
"""Readings in a row that are wrong, at most: more are another matter, see the table."""
LASTS = {"silence": 3, "outage": 36}
"""Readings that are missing, for each of a burst."""


def clean(start, zone, step):
    """Return what the counters truly say then: kWh of today and of a lifetime, of a plant that makes 60 kWh a day."""
    time = start + step * EVERY
    local = time.astimezone(zone)

    def made(hour):
        return 60.0 * min(1.0, max(0.0, (hour - 6) / 12))

    days = (local.date() - start.astimezone(zone).date()).days
    hour = local.hour + local.minute / 60
    today = round(made(hour), 1)
    return time, today, round(12_000 + 60.0 * days + made(hour), 1)


WHAT = ["zero", "ones", "ones32", "dip", "yesterday", "none", "negative", "silence", "outage", "restart", "twice"]
STARTS = [datetime(2026, month, day, 9, tzinfo=UTC) for month, day in ((3, 28), (6, 20), (10, 24))]
"""Before both changes of Berlin's clocks, and far from them."""
EVENTS = st.lists(
    st.tuples(
        st.integers(3, STEPS - 20),
        st.integers(1, BURST),
        st.sampled_from(
            ["zero", "ones", "ones32", "dip", "yesterday", "none", "negative", "silence", "outage", "restart", "twice"]
        ),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@example(start=STARTS[1], zone=BERLIN, events=[(157, 4, "outage"), (300, 4, "outage")], rated=10_000.0)
@given(
    start=st.sampled_from(STARTS),
    zone=st.sampled_from([BERLIN, "Australia/Lord_Howe", "America/St_Johns"]),
    events=EVENTS,
    rated=st.sampled_from([10_000.0, 12_000.0, None]),
)
def test_home_assistants_sum_is_within_one_reading_of_the_truth(start, zone, events, rated, tmp_path_factory):
    directory = tmp_path_factory.mktemp("totals")
    what = {}
    for at, count, event in sorted(events, key=lambda it: it[2] in LASTS):
        what |= dict.fromkeys(range(at, min(at + count * LASTS.get(event, 1), STEPS - 16)), event)
    device = Device(serial="x", kind=DeviceKind.INVERTER, time_zone=zone, rated_power=rated)
    totals, zone_info = Totals(), ZoneInfo(zone)
    days, lifetimes = {}, []
    """What was truly read last of each day, and of a lifetime."""
    shown, last = {"energy_today": [], "energy_total": []}, (None, None)
    for step in range(STEPS):
        time, *truth = clean(start, zone_info, step)
        today, lifetime = truth
        event = what.get(step)
        if event in LASTS:
            continue
        if event == "restart":
            file = TotalsFile(totals, directory)
            totals.changed = True
            asyncio.run(file.save())
            totals = Totals()
            TotalsFile(totals, directory).restore(time)
        else:
            today, lifetime = {
                "zero": (0.0, 0.0), "ones": (ONES16, ONES16), "ones32": (ONES32, ONES32),
                "dip": (today * 0.95, lifetime * 0.95), "yesterday": (60.0 if today < 30 else today, lifetime),
                "none": (None, None), "negative": (-1.0, -1.0), "twice": (last[0], last[1]),
            }.get(event, (today, lifetime))  # fmt: skip
        values = {"energy_today": today, "energy_total": lifetime}
        believed = totals.judge(device, values, time, time)
        for point, series in shown.items():
            series.append(believed.get(point))
        day = time.astimezone(zone_info).date()
        if event == "dip":
            days[day] = max(days.get(day, 0.0), today)
        if [today, lifetime] == truth:
            last = (today, lifetime)
            lifetimes.append(lifetime)
            days[day] = today
    first = next(value for value in shown["energy_today"] if value)
    step = 0.5  # kWh in 5 minutes
    assert summed(shown["energy_total"]) == pytest.approx(lifetimes[-1] - lifetimes[0], abs=step)
    assert summed(shown["energy_today"]) == pytest.approx(sum(days.values()) - first, abs=step)
