"""The device table: each kind shows what one looks at first, and a narrow terminal loses columns, never letters."""

import io
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.console import Console

from gateway.core.model import Alarm, Device, DeviceKind, DeviceState, Quality, Severity
from gateway.terminal import show

NOW = datetime(2026, 6, 21, 12, tzinfo=UTC)


def state(serial, kind, *, quality=Quality.GOOD, plant="p", name="", **values):
    device = Device(serial=serial, kind=kind, plant="" if kind is DeviceKind.PLANT else plant, name=name, model="M-1")
    time = NOW - timedelta(seconds=3)
    return DeviceState(device=device, quality=quality, time=time, source="sems", values=values)


STATES = [
    state("WS", DeviceKind.WEATHER_STATION, status="normal", irradiance=892.4, ambient_temperature=21.26),
    state("EV", DeviceKind.EV_CHARGER, status="normal", ev_status="charging", ev_power=4140.0, ev_session_energy=3.24),
    state("SEC", DeviceKind.DATA_LOGGER, status="normal", ac_power=182_880.0, active_power_limit=60.0),
    state("MET", DeviceKind.METER, status="normal", grid_power=-1479.0),
    state("BAT", DeviceKind.BATTERY, status="normal", battery_power=-2033.0, battery_soc=57.4),
    state("INV", DeviceKind.INVERTER, status="normal", pv_power=5270.0, ac_power=5140.0, active_power_limit=100.0),
    state("p", DeviceKind.PLANT, name="Park", status="normal", pv_power=5270.0),
]


def printed(states, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(show.device_table(states, NOW, width=width))
    return console.export_text().splitlines()


def row(lines, word):
    return next(" ".join(line.split()) for line in lines if line.strip().startswith(word))


def test_each_kind_shows_what_one_looks_at_first():
    lines = printed(STATES, 200)
    assert row(lines, "WS") == "WS M-1 892 W/m² 21 °C normal 3 s"
    assert row(lines, "EV") == "EV M-1 4.14 kW 3.2 kWh charging 3 s"
    assert row(lines, "SEC") == "SEC M-1 182.88 kW 60 % normal 3 s"
    assert row(lines, "MET") == "MET M-1 -1.48 kW normal 3 s"
    assert row(lines, "BAT") == "BAT M-1 -2.03 kW 57 % normal 3 s"
    assert row(lines, "INV") == "INV M-1 5.27 kW 5.14 kW 100 % normal 3 s"


def test_a_plant_comes_before_its_devices_and_inverters_before_the_rest():
    firsts = [line.split()[0] for line in printed(STATES, 200)[1:]]
    assert firsts == ["Park", "INV", "BAT", "MET", "EV", "SEC", "WS"]


@pytest.mark.parametrize("width", range(40, 130, 6))
def test_whatever_the_width_no_cell_is_cut_and_status_stays(width):
    lines = printed(STATES, width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    assert row(lines, "EV").endswith("charging 3 s")


def test_a_plant_shows_its_zone_where_there_is_room():
    park = STATES[-1]
    zoned = msgspec.structs.replace(park, device=msgspec.structs.replace(park.device, time_zone="UTC+10:00"))
    lines = printed([*STATES[:-1], zoned], 200)
    assert row(lines, "Park") == "Park M-1 UTC+10:00 5.27 kW normal 3 s"
    assert "UTC" not in row(lines, "INV")
    without = printed(STATES, 200)
    width = max(map(len, without))
    assert [line.split() for line in printed([*STATES[:-1], zoned], width)] == [line.split() for line in without]


def test_what_is_offline_shows_no_values():
    lines = printed(
        [state("EV", DeviceKind.EV_CHARGER, quality=Quality.OFFLINE, ev_status="charging", ev_power=1.0)], 200
    )
    assert row(lines, "EV") == "EV M-1 offline 3 s"


def test_an_alarm_is_one_line():
    alarm = Alarm(serial="INV", id="1", code="512", text="Isolation [Failure]", severity=Severity.FAULT, raised=NOW)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(show.alarm(alarm))
    cleared = Alarm(serial="INV", id="1", raised=NOW, cleared=NOW + timedelta(minutes=1))
    console.print(show.alarm(cleared))
    assert [line.rstrip() for line in console.export_text().splitlines()] == [
        "2026-06-21T12:00:00.000Z  raised     INV fault 512 Isolation [Failure]",
        "2026-06-21T12:01:00.000Z  cleared    INV fault",
    ]
