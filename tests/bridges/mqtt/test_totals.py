"""Totals as a statistic wants them."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.bridges.mqtt.home_assistant.totals import GUARDED, Totals
from gateway.core.model import Device, DeviceKind, DeviceState, Quality
from gateway.core.points import POINTS, Kind

BERLIN = "Europe/Berlin"


class Meter:
    """Says one total at times of Berlin in summer; local midnight is 22:00 UTC."""

    def __init__(self, point="energy_today", zone=BERLIN):
        self.point = point
        self.device = Device(serial="x", kind=DeviceKind.INVERTER, time_zone=zone)
        self.totals = Totals()

    def says(self, time, value, day=21):
        hour, minute = map(int, time.split(":"))
        local = datetime(2026, 6, day, hour, minute, tzinfo=UTC) - timedelta(hours=2)
        values = {self.point: value, "ac_power": 1.0}
        state = DeviceState(device=self.device, quality=Quality.GOOD, time=local, source="x", values=values)
        return self.totals.update(state)[self.point]


def test_a_rounding_within_the_day_is_not_passed_on():
    meter = Meter()
    assert [meter.says("12:00", 10.0), meter.says("12:01", 9.9), meter.says("12:02", 9.1)] == [10, 10, 10]
    assert meter.says("12:03", 10.1) == 10.1


def test_midnight_is():
    meter = Meter()
    assert [meter.says("23:59", 20.0), meter.says("00:01", 0.0, 22), meter.says("00:02", 0.1, 22)] == [20, 0, 0.1]


def test_a_cloud_that_notices_midnight_in_the_morning_is_believed_at_once():
    meter = Meter()
    assert [meter.says("23:59", 20.0), meter.says("00:01", 20.0, 22), meter.says("06:00", 0.1, 22)] == [20, 20, 0.1]


def test_zero_for_a_moment_is_not_believed():
    meter = Meter()
    assert [meter.says("12:00", 10.0), meter.says("12:01", 0.0), meter.says("12:02", 10.1)] == [10, 10, 10.1]
    # Nor is the next one, with the first one's patience.
    assert [meter.says("12:20", 0.0), meter.says("12:21", 10.2)] == [10.1, 10.2]


def test_zero_for_a_moment_is_not_believed_on_a_day_that_began_with_zero():
    meter = Meter()
    assert [meter.says("23:00", 0.0), meter.says("00:01", 0.0, 22)] == [0, 0]
    assert [meter.says("12:00", 5.0, 22), meter.says("12:01", 0.0, 22), meter.says("12:02", 5.1, 22)] == [5, 5, 5.1]


def test_a_counter_that_began_anew_by_itself_is_believed_after_a_quarter_of_an_hour():
    meter = Meter()
    assert [meter.says("12:00", 10.0), meter.says("12:05", 0.0), meter.says("12:15", 0.2)] == [10, 10, 10]
    assert meter.says("12:20", 0.3) == 0.3


@pytest.mark.parametrize("zone", ["", "Mars/Base"])
def test_an_unknown_zone_costs_patience_only(zone):
    meter = Meter(zone=zone)
    assert [meter.says("23:59", 20.0), meter.says("00:01", 0.0, 22), meter.says("00:16", 0.1, 22)] == [20, 20, 0.1]


def test_a_day_that_a_clock_set_back_makes_longer_has_one_reset():
    meter = Meter()
    meter.device = Device(serial="x", kind=DeviceKind.INVERTER, time_zone=BERLIN)
    began = datetime(2026, 10, 24, 22, 30, tzinfo=UTC)
    shown = []
    for step in range(25 * 4):
        # Rises by 1 kWh an hour, and is rounded down now and then.
        value = 0.5 + step / 4 - (0.01 if step % 3 else 0)
        time = began + timedelta(minutes=15 * step)
        state = DeviceState(
            device=meter.device, quality=Quality.GOOD, time=time, source="x", values={"energy_today": value}
        )
        if time < datetime(2026, 10, 25, 23, 0, tzinfo=UTC):
            shown.append(meter.totals.update(state)["energy_today"])
    assert shown == sorted(shown)


@pytest.mark.parametrize(("point", "days", "passed"), [("energy_month", 30, True), ("energy_total", 30, False)])
def test_a_month_ends_and_a_lifetime_does_not(point, days, passed):
    meter = Meter(point)
    meter.says("12:00", 500.0, 30)
    july = meter.totals.update(
        DeviceState(
            device=meter.device,
            quality=Quality.GOOD,
            time=datetime(2026, 7, 1, 3, tzinfo=UTC),
            source="x",
            values={point: 1.0},
        )
    )[point]
    assert july == (1.0 if passed else 500.0)


def test_a_lifetime_that_stays_low_for_a_day_is_another_device():
    meter = Meter("energy_total")
    assert [meter.says("12:00", 9000.0), meter.says("13:00", 0.0), meter.says("12:00", 3.0, 22)] == [9000, 9000, 9000]
    assert meter.says("13:00", 4.0, 22) == 4


def test_a_charging_session_begins_at_any_time():
    meter = Meter("ev_session_energy")
    assert [meter.says("12:00", 9.0), meter.says("12:01", 8.9), meter.says("12:02", 0.1)] == [9, 9, 0.1]


def test_what_is_not_there_is_none_and_loses_nothing():
    meter = Meter()
    assert [meter.says("12:00", 10.0), meter.says("12:01", None), meter.says("12:02", 9.9)] == [10, None, 10]


def test_a_state_without_data_has_no_totals():
    device = Device(serial="x", kind=DeviceKind.INVERTER)
    for values in ({}, {"energy_today": 1.0}):
        state = DeviceState(device=device, quality=Quality.STALE, time=None, source="x", values=values)
        assert Totals().update(state) == {}


def test_every_total_is_guarded():
    assert GUARDED.keys() == {point.id for point in POINTS.values() if point.kind is Kind.TOTAL}
    assert not GUARDED["ev_session_time"].patience
    assert GUARDED["operating_hours"].patience == timedelta(days=1)
