"""The native map: complete, free of contradictions, and where it always was."""

import pytest

from gateway.bridges.modbus import codes
from gateway.bridges.modbus.codec import Encoding
from gateway.bridges.modbus.maps.native import FLEET_POINTS, NATIVE, UNSIGNED
from gateway.bridges.modbus.maps.row import Block, MapError, RegisterMap, Row
from gateway.core.model import CommandState, DeviceKind, Quality, Reason
from gateway.core.points import ALARM_SEVERITIES, POINTS, SETPOINTS, STATUS_OPTIONS, Type

OF_FLEETS = (
    {point for _, point, _, _ in FLEET_POINTS}
    - {"ac_power", "pv_power"}
    - {point for point in POINTS if point.startswith("battery_")}
)
"""Those that only a fleet has stand in its own block alone."""
NUMERIC = ({point.id for point in POINTS.values() if point.type is not Type.TEXT} | UNSIGNED) - OF_FLEETS


def shown(first, last, *encodings):
    return {row.field for row in NATIVE.rows if first <= row.address < last and row.encoding in encodings}


def test_every_point_that_is_no_text_has_a_scaled_and_a_float_row():
    assert shown(1000, 1250, Encoding.INT32, Encoding.UINT32) == NUMERIC - SETPOINTS.keys()
    assert shown(3000, 3250, Encoding.FLOAT32) == NUMERIC - SETPOINTS.keys() - UNSIGNED


def test_every_setpoint_is_writable_in_three_ways():
    assert shown(5000, 5050, Encoding.INT32) == SETPOINTS.keys()
    assert shown(5500, 5550, Encoding.FLOAT32) == SETPOINTS.keys()
    assert shown(5800, 5825, Encoding.INT16, Encoding.UINT16) == SETPOINTS.keys()
    assert {row.field for row in NATIVE.rows if row.writable} == SETPOINTS.keys()
    assert all(row.address >= 5000 for row in NATIVE.rows if row.writable)


def test_a_float_lies_2000_above_its_integer():
    floats = {row.field: row.address for row in NATIVE.rows if 3000 <= row.address < 3250}
    integers = {row.field: row.address for row in NATIVE.rows if 1000 <= row.address < 1250}
    assert all(floats[field] == integers[field] + 2000 for field in floats)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (codes.KINDS, DeviceKind),
        (codes.QUALITIES, Quality),
        (codes.STATES, CommandState),
        (codes.REASONS, Reason),
        (codes.REFUSALS, Reason),
        (codes.SETPOINT_INDEX, SETPOINTS),
        (codes.STATUSES, STATUS_OPTIONS),
        (codes.SEVERITIES, ALARM_SEVERITIES),
    ],
)
def test_every_word_has_a_number(numbers, words):
    assert set(numbers) == set(words)
    assert numbers is codes.REFUSALS or len(set(numbers.values())) == len(numbers)


def test_the_status_is_numbered_like_the_point():
    assert [codes.STATUSES[word] for word in STATUS_OPTIONS] == list(range(len(STATUS_OPTIONS)))
    assert [codes.SEVERITIES[word] for word in ALARM_SEVERITIES] == list(range(len(ALARM_SEVERITIES)))


def row(address, field="ac_power", encoding=Encoding.INT32, **more):
    return Row(address=address, field=field, encoding=encoding, **more)


BLOCK = Block(start=0, count=10, title="one")


@pytest.mark.parametrize(
    ("blocks", "rows", "complaint"),
    [
        ((BLOCK,), (row(0), row(1, "pv_power")), "ac_power at 0 runs into pv_power"),
        ((BLOCK,), (row(0, "ac_pwoer"),), "no point 'ac_pwoer'"),
        ((BLOCK,), (row(9),), "at 9 is in no block"),
        ((BLOCK,), (row(0, "firmware", Encoding.STRING),), "needs a length"),
        ((BLOCK, Block(start=9, count=1, title="two")), (), "blocks 'one' and 'two' overlap"),
    ],
)
def test_a_map_that_contradicts_itself_is_an_error(blocks, rows, complaint):
    with pytest.raises(MapError, match=complaint):
        RegisterMap("mine", blocks, rows)
