"""The map as documentation, and docs/reference/modbus-exceptions.md."""

from pathlib import Path

import pytest

from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus.codes import REFUSALS
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.registers import assigned, markdown, registers
from gateway.bridges.modbus.units import Place, units_path

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "modbus-exceptions.md"


def line(point, address):
    return next(register for register in registers() if (register.point, register.address) == (point, address))


def test_a_register_says_all_a_client_needs():
    limit = line("active_power_limit", 5002)
    assert (limit.holding, limit.count, limit.type, limit.scale, limit.units, limit.access, limit.absent) == (
        45003, 2, "int32", "0.1", "%", "RW", "0x80000000",
    )  # fmt: skip
    assert limit.description == "Limit of active power, of rated power"
    assert line("export_limit", 5804).scale == "10"
    assert line("battery_mode", 5806).description.endswith("0 idle, 1 charge, 2 discharge, 3 auto")
    assert line("running", 5800).description.endswith("0 no, 1 yes")
    assert all(register.description for register in registers())


def test_markdown():
    text = markdown()
    assert "### Setpoints, float32 (5500 to 5549)" in text
    assert text.count("\n| ") == len(NATIVE.rows) + 2 * len(NATIVE.blocks)


def test_units_given_so_far_come_with_the_pins(tmp_path):
    units_path(tmp_path, "scada").write_text('{"version":1,"units":{"a":1}}')
    given = assigned(tmp_path, "scada", ModbusSettings(units={"b": 7}))
    assert given == {"a": Place(0, 1), "b": Place(0, 7)}
    assert assigned(tmp_path, "other", ModbusSettings()) == {}


@pytest.mark.parametrize("reason", REFUSALS)
def test_the_document_says_how_each_refusal_is_answered(reason):
    rows = [line for line in DOCUMENT.read_text().splitlines() if f"`{reason}`" in line]
    assert any(f"| {REFUSALS[reason]:02X} |" in row for row in rows)
