"""The point table, and what its rows take."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.points import POINTS, SETPOINTS, BadValueError, Kind, OutOfRangeError, Type, range_text

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
        ("fault_code", "7", 7),
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
        ("battery_mode", 3, "idle, charge, discharge"),
        ("battery_mode", "²", "idle, charge, discharge"),
        ("battery_mode", True, "idle, charge, discharge"),
        ("active_power_limit", "NaN", "finite"),
        ("active_power_limit", [], "a number"),
        ("active_power_limit", "1_0", "a number"),
        ("fault_code", 1.5, "whole"),
        ("fault_text", 1, "text"),
    ],
)
def test_what_is_refused_says_what_would_do(id_, raw, says):
    with pytest.raises(BadValueError, match=says):
        POINTS[id_].parse(raw)


def test_out_of_range_says_the_range_and_the_unit():
    with pytest.raises(OutOfRangeError, match="active_power_limit takes 0 to 100 %, not 101"):
        POINTS["active_power_limit"].parse(101)
    with pytest.raises(OutOfRangeError, match="at least 0 W, not -1"):
        POINTS["export_limit"].parse(-1)


def test_ranges_in_words():
    assert [range_text(*r) for r in [(None, None), (0, None), (None, 5), (0, 1)]] == [
        "any number",
        "at least 0",
        "at most 5",
        "0 to 1",
    ]
