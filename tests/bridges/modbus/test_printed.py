"""B3: what `sems-gateway registers` prints is what is served, and what it exports is what others import."""

import asyncio
import csv
import io
import json
import struct
import sys
import tomllib

import msgspec
import pytest
import yaml

from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus.exports import EXPORTS, KEPWARE, ExportError
from gateway.bridges.modbus.printed import PRINTERS, SHORT, Filter, served
from gateway.bridges.modbus.registers import COLUMNS, holding
from gateway.bridges.modbus.units import Place
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import SETPOINTS
from tests.bridges.modbus.conftest import serving

ABLE = dict.fromkeys(SETPOINTS, Range())
SMALL = Device(serial="SMALL", kind=DeviceKind.INVERTER, name="Roof", rated_power=3_000.0, setpoints=ABLE)
LARGE = Device(serial="LARGE", kind=DeviceKind.STORAGE, name="Hall", rated_power=110_000.0, setpoints=ABLE)
METER = Device(serial="METER", kind=DeviceKind.METER, name="Meter")
DEVICES = {device.serial: device for device in (SMALL, LARGE, METER)}
VALUES = {"ac_power": 2_345, "l1_voltage": 230.5, "l1_frequency": 50.02, "energy_total": 12_345.6, "temperature": 31.5}
PLACES = {"SMALL": Place(0, 1), "LARGE": Place(0, 2), "METER": Place(1, 9)}
CODES = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "acc32": ">I",
    "float32": ">f",
    "uint64": ">Q",
    "acc64": ">Q",
}
SETTINGS = {"maps": ["native", "sunspec", "goodwe"], "port": 5020}


def lines(devices=DEVICES, places=PLACES, **settings):
    return list(served("scada", ModbusSettings(**(SETTINGS | settings)), places, devices, "gw"))


@pytest.mark.parametrize("order", ["abcd", "cdab"])
async def test_each_number_that_is_printed_is_read_as_printed(tmp_path, order):
    maps = ["native", "sunspec"]
    async with serving(tmp_path, devices=(SMALL, LARGE), maps=maps, word_order=order) as gate, gate.client() as client:
        for device in (SMALL, LARGE):
            await gate.publish(device.serial, **VALUES)
        printed = list(served("modbus", gate.bridge._settings, gate.bridge.places, DEVICES, "gw"))
        compared = 0
        for line in printed:
            value = VALUES.get(line.point)
            if value is None or line.unit == 255:
                continue
            raw = await client.raw(line.address, line.count, unit=line.unit)
            if line.word_order == "cdab":
                raw = b"".join(raw[at : at + 2] for at in range(len(raw) - 2, -1, -2))
            (number,) = struct.unpack(CODES[line.type], raw)
            assert number * float(line.scale) == pytest.approx(value, abs=float(line.scale)), line
            compared += 1
        assert compared > 20
        scales = {(line.serial, line.scale) for line in printed if line.point == "ac_power" and line.map == "sunspec"}
        assert len(scales) >= 2
        assert len({scale for _, scale in scales}) == 2, "3 kW and 110 kW have scales of their own"


def test_no_address_is_printed_twice_for_a_unit_and_each_line_says_whose_it_is():
    printed = lines()
    taken = [
        (line.port, line.unit, address)
        for line in printed
        for address in range(line.address, line.address + line.count)
    ]
    assert len(taken) == len(set(taken))
    assert {(x.port, x.unit, x.serial, x.name, x.kind) for x in printed if x.serial} == {
        (5020, 1, "SMALL", "Roof", "inverter"),
        (5020, 2, "LARGE", "Hall", "storage"),
        (5021, 9, "METER", "Meter", "meter"),
    }
    assert {(x.port, x.unit, x.name) for x in printed if not x.serial} == {(5020, 255, "gw"), (5021, 255, "gw")}
    assert "goodwe" not in {x.map for x in printed if x.serial == "METER"}


async def test_a_plant_is_printed_with_the_models_of_its_inverters(tmp_path):
    home = Device(serial="PLANT", kind=DeviceKind.PLANT, name="Hill House")
    roof = msgspec.structs.replace(SMALL, plant="PLANT", setpoints={"active_power_limit": Range()})
    inverters = [roof, msgspec.structs.replace(LARGE, plant="PLANT")]
    known = {device.serial: device for device in (home, *inverters)}
    async with serving(tmp_path, devices=known.values(), maps=["sunspec"]) as gate, gate.client() as client:
        for serial in known:
            await gate.publish(serial, ac_power=1.0)
        printed = list(served("modbus", gate.bridge._settings, gate.bridge.places, known, "gw"))
        its = {line.description: line for line in printed if line.serial == "PLANT"}
        for what, number in (("model 121, WMax", 113_000), ("model 124, WChaMax", 110_000)):
            line = its[what]
            (read,) = await client.words(line.address, unit=line.unit)
            assert read * float(line.scale) == pytest.approx(number, abs=float(line.scale))
        for what in ("model 123, WMaxLimPct", "model 124, StorCtl_Mod", "model 704, VarSetPct", "model 802, SoCRsvMin"):
            assert its[what].access == "RW", what
    limit = its["model 123, WMaxLimPct"].address
    for name, export in EXPORTS.items():
        text = export([msgspec.structs.replace(line, port=5020) for line in its.values()], "gw.local")
        # Ignition maps addresses, the others have names of points.
        assert "123_WMaxLimPct" in text or "123.WMaxLimPct" in text or str(limit) in text, name


def test_the_4xxxx_notation_has_six_digits_where_five_do_not_do():
    assert [holding(address) for address in (0, 9998, 9999, 40_000, 65_535)] == [
        40_001,
        49_999,
        410_000,
        440_001,
        465_536,
    ]


def test_what_is_not_known_is_marked_as_a_sample():
    printed = lines(devices={})
    assert {x.map for x in printed if x.serial == "SMALL"} == {"native"}
    assert {(x.serial, x.unit) for x in printed if x.map == "sunspec"} == {("sample", None)}
    assert all("sample" in x.name for x in printed if x.serial == "sample")


def test_one_header_and_a_short_form_for_80_columns():
    printed = lines()
    rows = list(csv.reader(io.StringIO(PRINTERS["csv"](printed, COLUMNS))))
    assert rows[0] == list(COLUMNS)
    assert len(rows) == len(printed) + 1
    native = [line for line in printed if line.map == "native" and line.unit == 2]
    table = PRINTERS["table"](native, SHORT)
    assert max(map(len, table.splitlines())) <= 80
    assert table.split("\n")[0].split() == list(SHORT)
    rows = [line.split() for line in table.splitlines()[1:]]
    assert (rows[0][0], rows[0][-2], rows[0][-1]) == ("2", "R", "data.map_version")
    assert len({row[-1] for row in rows}) == len({line.point for line in native}), (
        "points that are cut can be told apart"
    )
    assert all(row[-1].endswith(line.point[-10:]) for row, line in zip(rows, native, strict=True)), "the end tells most"
    assert [row[-2] for row in rows] == [line.access for line in native]
    assert json.loads(PRINTERS["json"](native, COLUMNS))["registers"][0]["serial"] == "LARGE"
    assert {x.unit for x in printed if Filter(device="Hall", map="sunspec").takes(x)} == {2}
    assert {x.serial for x in printed if Filter(unit=9).takes(x)} == {"METER"}


# what others import


def given(word_order="abcd", **wanted):
    served = lines(word_order=word_order)
    return [line for line in served if line.unit is not None and Filter(**wanted).takes(line)]


def test_kepware():
    rows = list(csv.DictReader(io.StringIO(EXPORTS["kepware"](given(unit=1, map="native"), "gw"))))
    assert tuple(rows[0]) == KEPWARE
    tags = {row["Tag Name"]: row for row in rows}
    assert len(tags) == len(rows)
    power, voltage, serial = tags["ac_power"], tags["l1_voltage"], tags["device_serial"]
    assert (power["Address"], power["Data Type"], power["Client Access"], power["Scaling"]) == (
        "401021",
        "Long",
        "RO",
        "",
    )
    assert (voltage["Scaling"], voltage["Scaled High"], voltage["Scaled Data Type"]) == (
        "Linear",
        "214748364.7",
        "Double",
    )
    assert serial["Address"] == "400005.32H"
    assert tags["active_power_limit"]["Client Access"] == "R/W"
    with pytest.raises(ExportError, match="--unit"):
        EXPORTS["kepware"](given(), "gw")


def test_ignition():
    base, *rows = csv.reader(io.StringIO(EXPORTS["ignition"](given(device="LARGE"), "gw")))
    assert base == ["10"]
    assert ["ac_power_", "1021", "1021", "false", "2", "HoldingRegisterInt32", "1021"] in rows
    limits = [row[1:] for row in rows if row[0] == "active_powe_"]
    assert ["5003", "5003", "false", "2", "HoldingRegisterInt32", "5003"] in limits
    with pytest.raises(ExportError, match="one port"):
        EXPORTS["ignition"](given(), "gw")


def test_telegraf():
    inputs = tomllib.loads(EXPORTS["telegraf"](given(), "gw"))["inputs"]["modbus"]
    assert [each["controller"] for each in inputs] == ["tcp://gw:5020", "tcp://gw:5021"]
    request = inputs[0]["request"][0]
    assert request["tags"] == {"serial": "SMALL", "device": "Roof", "kind": "inverter"}
    fields = {field["name"]: field for field in request["fields"]}
    assert fields["l1_voltage"] | {"address": 0} == {
        "address": 0, "name": "l1_voltage", "type": "INT32", "scale": 0.1, "output": "FLOAT64",
    }  # fmt: skip


def test_home_assistant():
    (first, _) = yaml.safe_load(EXPORTS["home-assistant"](given(), "gw"))["modbus"]
    assert (first["type"], first["host"], first["port"]) == ("tcp", "gw", 5020)
    total = next(x for x in first["sensors"] if x["name"] == "Roof energy_total")
    assert (total["scale"], total["nan_value"], total["state_class"]) == (0.1, -(2**31), "total_increasing")


def test_node_red_reads_no_more_than_a_read_brings():
    nodes = json.loads(EXPORTS["node-red"](given(), "gw"))
    ids = {node["id"] for node in nodes}
    assert len(ids) == len(nodes)
    for node in nodes:
        assert all(to in ids for output in node.get("wires", []) for to in output)
        if node["type"] == "modbus-read":
            assert 1 <= int(node["quantity"]) <= 125
            assert node["server"] in ids


async def test_the_command_asks_the_running_gateway(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "gateway: {data_dir: data}\nbridges:\n"
        "  modbus: {type: modbus, port: 5020, maps: [sunspec], units: {LARGE: 77}}\n"
        "  sems: {type: open_api, account: a, password: p}\n"
    )

    async def command(*options):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "registers", str(config), *options,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return out.decode(), err.decode()

    async with serving(tmp_path / "data", devices=(LARGE,), maps=("sunspec",), units={"LARGE": 77}) as gate:
        gate.bench.run(LocalBridge, LocalSettings(), "cli")
        await asyncio.sleep(0)
        out, err = await command("--format", "csv", "--device", "Hall")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert {(row["unit"], row["serial"], row["kind"]) for row in rows} == {("77", "LARGE", "storage")}
        assert "sample" not in err
    out, err = await command("--format", "csv", "--map", "sunspec")
    assert {row["serial"] for row in csv.DictReader(io.StringIO(out))} == {"sample"}
    assert "No gateway runs" in err


@pytest.mark.parametrize(
    ("wanted", "wrong", "known", "other"),
    [
        ({"unit": 7}, "unit 7", ["1", "2", "9", "255"], "SMALL"),
        ({"device": "SMALI"}, "device SMALI", ["SMALL"], "255"),
        ({"map": "sunspeck"}, "map sunspeck", ["sunspec"], "SMALL"),
        ({"device": "Roof", "unit": 9}, "unit 9", ["device Roof", "1"], "255"),
        ({"unit": 255, "map": "native"}, "map native", ["unit 255", "gateway"], "sunspec"),
    ],
)
def test_what_nobody_has_is_named_with_what_there_is(wanted, wrong, known, other):
    text = Filter(**wanted).why_none(lines())
    assert wrong in text
    assert all(name in text for name in known)
    assert other not in text
