"""The map as documentation, and docs/modbus.md."""

import csv
import io
import json
from pathlib import Path

import pytest

from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus.codes import REFUSALS
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.registers import COLUMNS, Format, assigned_units, cells, registers, render
from gateway.bridges.modbus.units import units_path

DOCUMENT = Path(__file__).parents[3] / "docs" / "modbus.md"
BEGIN, END = "<!-- registers:begin -->\n", "<!-- registers:end -->"


def line(point, address):
    return next(register for register in registers() if (register.point, register.address) == (point, address))


def test_a_register_says_all_a_client_needs():
    limit = line("active_power_limit", 5002)
    assert (limit.holding, limit.count, limit.type, limit.scale, limit.unit, limit.access, limit.absent) == (
        45003, 2, "int32", "0.1", "%", "RW", "0x80000000",
    )  # fmt: skip
    assert limit.description == "Limit of active power, of rated power"
    assert line("export_limit", 5804).scale == "10"
    assert line("battery_mode", 5806).description.endswith("0 idle, 1 charge, 2 discharge")
    assert line("running", 5800).description.endswith("0 no, 1 yes")
    assert all(register.description for register in registers())


def test_csv():
    lines = list(csv.reader(io.StringIO(render(Format.CSV))))
    assert lines == cells()
    assert len(lines) == len(NATIVE.rows) + 1


def test_json():
    whole = json.loads(render(Format.JSON, {"SN1": 3}))
    assert whole["units"] == {"SN1": 3}
    assert len(whole["registers"]) == len(NATIVE.rows)
    assert tuple(whole["registers"][0]) == COLUMNS


def test_markdown():
    text = render(Format.MARKDOWN, {"SN1": 3})
    assert "| 3 | SN1 |" in text
    assert "### Setpoints, float32 (5500 to 5549)" in text
    assert render(Format.MARKDOWN).count("\n| ") == len(NATIVE.rows) + 2 * len(NATIVE.blocks)


def test_table():
    first, *rest = render(Format.TABLE).splitlines()
    assert first.split() == list(COLUMNS)
    assert len(rest) == len(NATIVE.rows)


def test_units_given_so_far_come_with_the_pins(tmp_path):
    units_path(tmp_path, "scada").write_text('{"version":1,"units":{"a":1}}')
    assert assigned_units(tmp_path, "scada", ModbusSettings(units={"b": 7})) == {"a": 1, "b": 7}
    assert assigned_units(tmp_path, "other", ModbusSettings()) == {}


def test_the_document_has_the_map_of_today():
    text = DOCUMENT.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    assert text[begin:end].strip() == render(Format.MARKDOWN).strip(), (
        "docs/modbus.md is out of date: put the output of `render(Format.MARKDOWN)` between its markers"
    )


@pytest.mark.parametrize("reason", REFUSALS)
def test_the_document_says_how_each_refusal_is_answered(reason):
    rows = [line for line in DOCUMENT.read_text().splitlines() if f"`{reason}`" in line]
    assert any(f"| {REFUSALS[reason]:02X} |" in row for row in rows)
