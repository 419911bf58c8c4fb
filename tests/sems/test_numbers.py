"""Numbers as text, with units: what is read, what is not, and that it is said."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.points import POINTS
from gateway.sems import numbers
from gateway.sems.catalogue import Interface, ResponseField, Standing, Use, load
from gateway.sems.normalise import read
from gateway.sems.unreadable import Unreadable
from tests.bridges.open_api.kit import CLASSIC, DEVELOPER, HOUSE, Desk, cloud, connected, order
from tests.kit.bench import until
from tests.kit.clock import NOON, FakeClock

UTC = ZoneInfo("UTC")


def value(point, raw, **row):
    """What a field with that value gives the point, and whether it is said to be unreadable."""
    field = ResponseField(field="x", standing=Standing.ASSUMED, point=point, **row)
    interface = Interface(
        name="X", form="", method="POST", path="x", use=Use.LIVE, standing=Standing.ASSUMED, response=(field,)
    )
    reading = read(interface, {"x": raw}, UTC, NOON)
    return reading.values[point], bool(reading.unreadable)


@pytest.mark.parametrize(
    ("point", "raw", "expected"),
    [
        # as public client code has seen them
        ("ac_power", "1234W", 1234),
        ("energy_today", "30.3kWh", 30.3),
        ("battery_soc", "45%", 45),
        ("pv_power", "1.23(kW)", 1230),
        # and their like
        ("pv_power", "1.23 [kW]", 1230),
        ("pv_power", "1.23\uff08kW\uff09", 1230),
        ("pv_power", "0.5 MW", 500_000),
        ("pv_power", "500 mW", 0.5),
        ("capacity", "9.9kWp", 9.9),
        ("capacity", "9900W", 9.9),
        ("energy_total", "12.5 MWh", 12_500),
        ("energy_total", "800Wh", 0.8),
        ("energy_total", "3.2度", 3.2),
        ("energy_total", "3.2 KWH", 3.2),
        ("energy_total", "3.2 kW·h", 3.2),
        ("temperature", "12.5 ℃", 12.5),
        ("temperature", "-12.5°C", -12.5),
        ("temperature", "\u221212.5\u00baC", -12.5),
        ("temperature", "50°F", 10),
        ("l1_voltage", "230.1V", 230.1),
        ("l1_current", "1500 mA", 1.5),
        ("l1_frequency", "50.01Hz", 50.01),
        ("ac_reactive_power", "1.2 kVar", 1200),
        ("ac_apparent_power", "1.2 kVA", 1200),
        ("ev_session_time", "5400 s", 1.5),
        ("ev_session_time", "90 min", 1.5),
        ("operating_hours", "12 h", 12),
        ("irradiance", "812 W/㎡", 812),
        ("irradiance", "0.812 kW/m²", 812),
        ("wind_speed", "36 km/h", 10),
        ("wind_direction", "270°", 270),
        ("signal_strength", "-67dBm", -67),
        ("income_today", "12.30 EUR", 12.3),
        ("income_today", "€ 12.30", 12.3),
        ("humidity", "61 %RH", 61),
        # marks between digits
        ("ac_power", "1,234.5 W", 1234.5),
        ("ac_power", "1.234,5 W", 1234.5),
        ("ac_power", "1 234,5 W", 1234.5),
        ("ac_power", "1'234.5 W", 1234.5),
        ("ac_power", "1,234,567", 1_234_567),
        ("ac_power", "1.234.567,8", 1_234_567.8),
        ("ac_power", "1,5", 1.5),
        ("ac_power", "0,234", 0.234),
        ("ac_power", "1234,567", 1234.567),
        ("ac_power", "+5", 5),
        ("ac_power", "1.5e3 W", 1500),
    ],
)
def test_what_is_read(point, raw, expected):
    found, odd = value(point, raw)
    assert found == pytest.approx(expected)
    assert not odd


@pytest.mark.parametrize(
    ("point", "raw"),
    [
        ("ac_power", "1,234"),
        ("ac_power", "12.5 ℃"),
        ("ac_power", "12 kWh"),
        ("ac_power", "12 kVA"),
        ("battery_soc", "45 W"),
        ("ac_power_factor", "98%"),
        ("ac_power_factor", "0.98 EUR"),
        ("income_today", "12 W"),
        ("ac_power", "€ 12"),
        ("ac_power", "5 mw"),
        ("ac_power", "5 parsecs"),
        ("ac_power", "12 34"),
        ("ac_power", "1,23,4"),
        ("ac_power", "1.2.3"),
        ("ac_power", "10²"),
        ("ac_power", "1_000"),
        ("ac_power", "\u0663 W"),
        ("ac_power", "full"),
        ("ac_power", "1" * 100 + " W"),
        ("ac_power", {"v": 1}),
        ("ac_power", [1]),
        ("ac_power", True),
        ("ev_session_time", "01:30:00"),
    ],
)
def test_what_is_not_read_is_nothing_and_said(point, raw):
    assert value(point, raw) == (None, True)


@pytest.mark.parametrize("raw", [None, "", "-", "--", "--kWh", "-- (kW)", "N/A", "null", "NaN", "—", " / "])
def test_what_is_not_there_is_nothing_and_not_said(raw):
    assert value("ac_power", raw) == (None, False)


def test_the_scale_is_for_numbers_without_a_unit_and_its_sign_for_all():
    assert value("pv_power", "1.5", scale=1000) == (1500, False)
    assert value("pv_power", "1.5 kW", scale=1000) == (1500, False)
    assert value("pv_power", "1500W", scale=1000) == (1500, False)
    assert value("grid_power", "-2337W", scale=-1) == (2337, False)
    assert value("grid_power", "2.337kW", scale=-1000) == (-2337, False)


def test_sentinels_and_none_are_known_with_a_unit_too():
    assert value("l1_voltage", "6553.5V", absent=(6553.5,)) == (None, False)
    assert value("l1_voltage", "6553.5", absent=(6553.5,)) == (None, False)
    assert value("export_limit", "-1 W", none=-1) == ("none", False)
    assert value("export_limit", "4.2 kW", none=-1) == (4200, False)
    assert value("battery_soc", "536%") == (None, False)


@pytest.mark.parametrize("raw", ["E-G3-12-0", "512", 512, 512.0, "0", 0])
def test_a_fault_code_is_text(raw):
    assert value("fault_code", raw) == (str(int(raw)) if isinstance(raw, (int, float)) else raw, False)


@example(text="·0")
@given(st.text(max_size=80))
def test_no_text_raises(text):
    said = numbers.parse(text)
    numbers.is_nothing(text)
    for point in POINTS.values():
        if said is not None:
            numbers.converted(said, point.unit)


@given(st.floats(min_value=-1e9, max_value=1e9, allow_nan=False), st.sampled_from(sorted(numbers.UNITS)))
def test_what_is_written_with_a_unit_is_read_with_it(number, unit):
    said = numbers.parse(f"{number:.6f} {unit}")
    assert said is not None
    assert (said.number, numbers.UNITS[said.unit]) == (pytest.approx(number, abs=1e-6), numbers.UNITS[unit])


def test_of_two_fields_for_one_point_only_both_unreadable_are_said():
    interface = load("open_api").interface("GetInverterBySN")
    assert read(interface, {"eday": "soon", "daily_generation": "3 kWh"}, UTC, NOON).unreadable == {}
    both = read(interface, {"eday": "soon", "daily_generation": "later"}, UTC, NOON)
    assert both.unreadable == {"eday": "soon", "daily_generation": "later"}


async def test_a_field_is_said_until_nobodys_is_unreadable():
    desk = Desk(FakeClock())
    notes = Unreadable(desk)
    for serial in "ab":
        notes.note("X", serial, {"pac": "much", "soc": "\x1b"})
    assert list(desk.findings) == [("value_unreadable", "X")]
    assert "pac 'much'" in desk.findings["value_unreadable", "X"]
    notes.note("X", "a", {})
    assert desk.findings
    notes.note("X", "b", {"soc": "?"})
    assert desk.findings
    notes.forget("b")
    assert not desk.findings


@pytest.mark.parametrize("login", [CLASSIC, DEVELOPER], ids=["classic", "developer"])
async def test_over_http_units_are_read_and_what_can_not_be_is_found_and_settled(tmp_path, login):
    """SEMS's own answers, with texts put in where numbers were."""
    name, power, soc, fault = (
        ("GetInverterBySN", "pac", "soc", "fault_code")
        if login is CLASSIC
        else ("DeviceTelemetry", "activePower", "batterySoc", "faultCode")
    )
    said = {power: "1.5(kW)", soc: "full", fault: "E-G3-12-0"}
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        says = [{"interfaces": [name], "says": said}]
        simulator.cloud.spoil(order({"answers": says}))
        await until(lambda: bench.router.state(HOUSE).values.get("ac_power") == 1500)
        await until(lambda: bench.router.state(HOUSE).values.get("fault_code") == "E-G3-12-0")
        assert bench.router.state(HOUSE).values["battery_soc"] is None
        await until(lambda: found(bench))
        (finding,) = found(bench)
        assert (finding.subject, "'full'" in finding.text, soc in finding.text) == (name, True, True)
        simulator.cloud.spoil(order({"answers": [{"interfaces": [name], "says": {soc: "45%"}}]}))
        await until(lambda: not found(bench))
        await until(lambda: bench.router.state(HOUSE).values.get("battery_soc") == 45)


def found(bench):
    (status,) = [status for status in bench.router.bridges() if status.name == "sems"]
    return [finding for finding in status.findings if finding.code == "value_unreadable"]
