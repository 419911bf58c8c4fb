"""The point table, and what its rows take."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.points import NONE, POINTS, SETPOINTS, BadValueError, Kind, OutOfRangeError, Type, range_text

FLOATS = [point for point in POINTS.values() if point.type is Type.FLOAT]


def test_ids_are_topic_and_environment_safe():
    assert all(id_.isascii() and id_.replace("_", "").isalnum() and id_ == id_.lower() for id_ in POINTS)


def test_every_point_says_what_it_is():
    for point in POINTS.values():
        assert point.description, point.id
        assert (point.type is Type.ENUM) == bool(point.options), point.id
        assert (point.kind is Kind.SETPOINT) == (point.id in SETPOINTS)


def test_neutral_values_are_values_their_point_takes():
    for point in SETPOINTS.values():
        if point.neutral is not None:
            assert point.parse(point.neutral) == point.neutral


@given(st.sampled_from(FLOATS), st.floats(allow_nan=True, allow_infinity=True) | st.text() | st.none() | st.booleans())
def test_a_number_is_finite_and_in_range_or_refused(point, raw):
    try:
        value = point.parse(raw)
    except BadValueError:
        return
    if value == NONE:
        assert point.nullable
        assert raw is None or raw.strip().lower() in {"none", "null"}
        return
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert point.low is None or value >= point.low
    assert point.high is None or value <= point.high


@pytest.mark.parametrize(
    ("id_", "raw", "value"),
    [
        ("active_power_limit", " 50 ", 50.0),
        ("active_power_limit", 50, 50.0),
        ("running", "ON", True),
        ("running", 0, False),
        ("running", 1.0, True),
        ("battery_mode", "Charge", "charge"),
        ("battery_mode", 2, "discharge"),
        ("battery_mode", "1", "charge"),
        ("fault_code", "7", "7"),
        ("fault_code", "E-G3-12-0", "E-G3-12-0"),
        ("fault_text", " relay ", "relay"),
    ],
)
def test_what_is_taken(id_, raw, value):
    assert POINTS[id_].parse(raw) == value


@pytest.mark.parametrize(
    ("id_", "raw", "says"),
    [
        ("running", "maybe", "true or false"),
        ("battery_mode", "explode", "idle, charge, discharge"),
        ("battery_mode", 4, "idle, charge, discharge"),
        ("battery_mode", "²", "idle, charge, discharge"),
        ("battery_mode", True, "idle, charge, discharge"),
        ("active_power_limit", "NaN", "finite"),
        ("active_power_limit", [], "a number"),
        ("active_power_limit", "1_0", "a number"),
        ("active_power_limit", "\u0665\u0660", "a number"),
        ("active_power_limit", "\uff15\uff10", "a number"),
        ("battery_mode", "\u0661", "idle, charge, discharge"),
        ("running", "\uff11", "true or false"),
        ("fault_code", 1.5, "text"),
        ("signal_strength", 1.5, "whole"),
        ("fault_text", 1, "text"),
    ],
)
def test_what_is_refused_says_what_would_do(id_, raw, says):
    with pytest.raises(BadValueError, match=says):
        POINTS[id_].parse(raw)


def test_out_of_range_says_the_range_and_the_unit():
    with pytest.raises(OutOfRangeError, match="active_power_limit takes 0 to 100 %, not 101"):
        POINTS["active_power_limit"].parse(101)
    with pytest.raises(OutOfRangeError, match="at least 0 W, or none, not -1"):
        POINTS["export_limit"].parse(-1)


@pytest.mark.parametrize(
    "id_",
    [
        "export_limit",
        "battery_power_target",
        "battery_target_soc",
        "battery_reserve_soc",
        "power_target",
        "import_limit",
    ],
)
def test_no_limit_is_said_by_null_and_none_and_never_by_nothing(id_):
    point = SETPOINTS[id_]
    assert {point.parse(raw) for raw in (None, "none", " None ", "null", NONE)} == {NONE}
    for raw in ("", " ", "nan", "inf", False):
        with pytest.raises(BadValueError):
            point.parse(raw)


def test_only_what_can_be_without_a_limit_takes_none():
    nullable = {point.id for point in SETPOINTS.values() if point.nullable}
    assert nullable == {
        "export_limit",
        "battery_power_target",
        "battery_target_soc",
        "battery_reserve_soc",
        "power_target",
        "import_limit",
    }
    for point in SETPOINTS.values():
        if not point.nullable:
            for raw in (None, "none", "null"):
                with pytest.raises(BadValueError):
                    point.parse(raw)


@pytest.mark.parametrize("factor", [0, 0.79, -0.79, -0.0, 0.5])
def test_a_power_factor_that_no_inverter_takes_is_refused(factor):
    with pytest.raises(OutOfRangeError, match=re.escape("-1 to -0.8 and 0.8 to 1")):
        SETPOINTS["power_factor"].parse(factor)


@pytest.mark.parametrize("factor", [-1, -0.8, 0.8, 0.95, 1])
def test_a_power_factor_that_inverters_take(factor):
    assert SETPOINTS["power_factor"].parse(factor) == factor


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1, -1, True), (-1, 1, True), (0.998, -0.998, True), (0.99, -0.99, False), (0.9, 0.905, True), (0.9, -0.9, False)],
)
def test_a_power_factor_of_1_and_of_minus_1_is_one_value(one, other, same):
    assert SETPOINTS["power_factor"].same(float(one), float(other)) is same


def test_the_numbers_of_battery_modes_in_registers_stay():
    assert [SETPOINTS["battery_mode"].parse(n) for n in range(4)] == ["idle", "charge", "discharge", "auto"]


def test_ranges_in_words():
    assert [range_text(*r) for r in [(None, None), (0, None), (None, 5), (0, 1)]] == [
        "any number",
        "at least 0",
        "at most 5",
        "0 to 1",
    ]
