"""B3: what others take in of what is exported, by their own sources, for every map, word order and encoding.

Telegraf 1.39.3, plugins/inputs/modbus: configuration_request.go (`check`, `newFieldFromDefinition`), configuration.go.
Home Assistant 2026, components/modbus: schemas.py (SENSOR_SCHEMA), validators.py (`struct_validator`, `check_config`),
entity.py; components/sensor/const.py (DEVICE_CLASS_UNITS, DEVICE_CLASS_STATE_CLASSES). `device_address` since 2023.10
(its pull request 100399), and `slave` is to go.
Ignition 8.1.26: a `modbus-config.csv` as its gateway exports it (cstremblay2000/Capstone_Project, ignition_solutions);
names of types, limits of a prefix and reserved ones from Inductive Automation's ModbusDriver2 (AddressType.java,
ModbusConfigurationUI.java); manual 8.1, "Modbus Address Mapping".
KEPServerEX: kepware.com "CSV import and export" (columns and what they take), PTC's manual "Modbus Addressing".
Not seen in a source that can be read here: that a text's length in a KEPServerEX address is in bytes, 2 to 240.
"""

import csv
import io
import re
import tomllib

import msgspec
import pytest
import yaml

from gateway.bridges.modbus.codec import Encoding
from gateway.bridges.modbus.exports import EXPORTS
from tests.bridges.modbus.test_printed import given

REGISTERS = {
    "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "acc32": 2, "float32": 2, "uint64": 4, "acc64": 4, "string": 16,
}  # fmt: skip
SCALES = ("1", "0.1", "0.001", "10")

TELEGRAF_REQUEST = {
    "slave_id", "byte_order", "register", "measurement", "optimization", "optimization_max_register_fill", "fields",
    "tags",
}  # fmt: skip
TELEGRAF_FIELD = {"address", "name", "type", "length", "scale", "output", "measurement", "omit", "bit"}
TELEGRAF_REGISTERS = {"INT16": 1, "UINT16": 1, "INT32": 2, "UINT32": 2, "INT64": 4, "UINT64": 4, "FLOAT32": 2}
TELEGRAF_ORDERS = {"ABCD", "DCBA", "BADC", "CDAB"}

HA_SENSOR = {
    "name", "address", "device_address", "scan_interval", "unique_id", "input_type", "count", "data_type", "structure",
    "scale", "offset", "precision", "swap", "device_class", "state_class", "unit_of_measurement", "virtual_count",
    "min_value", "max_value", "nan_value", "zero_suppress",
}  # fmt: skip
HA_SWAPPED = {"int32", "uint32", "float32", "int64", "uint64", "float64"}
"""Types that take `swap: word`."""
HA_TYPES = HA_SWAPPED | {"int16", "uint16", "float16", "string"}
HA_UNITS = {
    "power": {"W", "kW", "MW", "GW", "TW"}, "reactive_power": {"var"}, "apparent_power": {"VA"},
    "voltage": {"V", "mV"}, "current": {"A", "mA"}, "frequency": {"Hz", "kHz", "MHz", "GHz"},
    "temperature": {"°C", "°F", "K"}, "energy": {"Wh", "kWh", "MWh"}, "irradiance": {"W/m²"},
    "wind_speed": {"m/s", "km/h"},
}  # fmt: skip

IGNITION = {
    "HoldingRegister": 1, "HoldingRegisterUInt16": 1, "HoldingRegisterInt32": 2, "HoldingRegisterUInt32": 2,
    "HoldingRegisterInt64": 4, "HoldingRegisterUInt64": 4, "HoldingRegisterFloat": 2,
}  # fmt: skip
"""Types that a mapping takes: none for text."""
IGNITION_RESERVED = {"HR", "IR", "C", "DI"}

KEPWARE = (
    "Tag Name,Address,Data Type,Respect Data Type,Client Access,Scan Rate,Scaling,Raw Low,Raw High,Scaled Low,"
    "Scaled High,Scaled Data Type,Clamp Low,Clamp High,Eng Units,Description,Negate Value"
)
KEPWARE_TYPES = {"Short", "Word", "Long", "DWord", "LLong", "QWord", "Float", "Double", "String"}


def made(sample, order):
    """Return a register of each encoding with each scale, as a custom map may have them."""
    for n, (type_, scale) in enumerate((type_, scale) for type_ in Encoding for scale in SCALES):
        yield msgspec.structs.replace(
            sample, map="own", address=50_000 + 20 * n, count=REGISTERS[type_], type=type_,
            scale="" if type_ == "string" else scale, point=f"own_value_{n}", word_order=order, units="kWh",
        )  # fmt: skip


@pytest.fixture(params=["abcd", "cdab"], scope="module")
def lines(request):
    found = given(word_order=request.param)
    found += made(found[0], request.param)
    assert {line.map for line in found} >= {"native", "sunspec", "goodwe", "gateway", "own"}
    return found


def by_address(lines):
    return {(line.port, line.unit, line.address): line for line in lines}


def test_telegraf(lines):
    served = by_address(lines)
    inputs = tomllib.loads(EXPORTS["telegraf"](lines, "gw"))["inputs"]["modbus"]
    seen = set()
    for each in inputs:
        port = int(each["controller"].rpartition(":")[2])
        for request in each["request"]:
            assert request.keys() <= TELEGRAF_REQUEST
            assert 0 <= request["slave_id"] <= 255
            assert request["byte_order"] in TELEGRAF_ORDERS
            assert request["register"] == "holding"
            assert request["optimization"] == "max_insert"
            assert 1 <= request["optimization_max_register_fill"] <= 125, "it has no default"
            assert all(isinstance(value, str) for value in request["tags"].values())
            assert request["fields"]
            for field in request["fields"]:
                line = served[port, request["slave_id"], field["address"]]
                id_ = port, request["slave_id"], tuple(sorted(request["tags"].items())), field["name"]
                assert id_ not in seen, "a second one stops Telegraf"
                seen.add(id_)
                _telegraf_takes(field)
                assert line.word_order.upper() == request["byte_order"]
                assert line.count == TELEGRAF_REGISTERS.get(field["type"], field.get("length"))


def _telegraf_takes(field):
    assert field.keys() <= TELEGRAF_FIELD
    assert field["name"]
    if field["type"] == "STRING":
        assert field["length"] >= 1
        assert not field.keys() & {"scale", "bit", "output"}
        count = field["length"]
    else:
        count = TELEGRAF_REGISTERS[field["type"]]
        assert not field.keys() & {"length", "bit"}
        assert field.get("output", "FLOAT64") in {"INT64", "UINT64", "FLOAT64"}
    assert field["address"] <= 65_535 - count


class OnlyOnce(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, as Home Assistant complains of it."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


def test_home_assistant(lines):
    served = by_address(lines)
    hubs = yaml.load(EXPORTS["home-assistant"](lines, "gw"), OnlyOnce)["modbus"]
    assert len({hub["name"] for hub in hubs}) == len({(hub["host"], hub["port"]) for hub in hubs}) == len(hubs)
    sensors = [(hub["port"], sensor) for hub in hubs for sensor in hub["sensors"]]
    for key in ("name", "unique_id"):
        assert len({sensor[key] for _, sensor in sensors}) == len(sensors), f"a second {key} is not loaded"
    for port, sensor in sensors:
        line = served[port, sensor["device_address"], sensor["address"]]
        type_ = sensor["data_type"]
        assert sensor.keys() <= HA_SENSOR
        assert type_ in HA_TYPES
        assert sensor["input_type"] in {"holding", "input"}
        assert sensor["scan_interval"] >= 5
        assert sensor.get("precision", 0) >= 0
        assert sensor.get("scale", 1) != 0
        assert ("count" in sensor) == (type_ == "string")
        assert sensor.get("count", REGISTERS[line.type]) == line.count
        assert sensor.get("swap") == ("word" if type_ in HA_SWAPPED and line.word_order == "cdab" else None)
        class_ = sensor.get("device_class")
        if class_:
            assert sensor["unit_of_measurement"] in HA_UNITS[class_]
            states = {None, "total", "total_increasing"} if class_ == "energy" else {None, "measurement"}
            assert sensor.get("state_class") in states


def test_home_assistant_names_devices_of_one_name_apart(lines):
    twins = [msgspec.structs.replace(line, name="Roof") for line in lines]
    sensors = [
        sensor for hub in yaml.safe_load(EXPORTS["home-assistant"](twins, "gw"))["modbus"] for sensor in hub["sensors"]
    ]
    assert len({sensor["name"] for sensor in sensors}) == len(sensors)


def test_ignition(lines):
    served = by_address(lines)
    for port in {line.port for line in lines}:
        here = [line for line in lines if line.port == port]
        base, *rows = csv.reader(io.StringIO(EXPORTS["ignition"](here, "gw")))
        assert base == ["10"], "the base of the numbers, and no header"
        names = set()
        for prefix, start, end, step, unit, type_, address in rows:
            assert re.fullmatch(r"[A-Za-z0-9_]{1,12}", prefix)
            assert prefix.upper() not in IGNITION_RESERVED
            assert start == end
            assert step == "false"
            assert 0 <= int(start) <= 65_535
            assert 0 <= int(address) <= 65_535
            names.add((unit, prefix, start))
            line = served[port, int(unit), int(address) - 1]
            assert IGNITION[type_] == line.count
            assert ("U" in type_) == line.type.startswith(("u", "acc"))
        assert len(names) == len(rows)
        mapped = {(int(unit), int(address) - 1) for *_, unit, _, address in rows}
        assert not any(served[port, *place].type == "string" for place in mapped)
        assert {line.point for line in here if line.type != "string"} == {served[port, *at].point for at in mapped}


def test_kepware(lines):
    for port, unit in {(line.port, line.unit) for line in lines}:
        here = [line for line in lines if (line.port, line.unit) == (port, unit)]
        text = EXPORTS["kepware"](here, "gw")
        assert text.splitlines()[0] == KEPWARE
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len({row["Tag Name"].lower() for row in rows}) == len(rows)
        for row in rows:
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,255}", row["Tag Name"])
            assert row["Data Type"] in KEPWARE_TYPES
            assert row["Client Access"] in {"RO", "R/W", "WO"}
            assert row["Respect Data Type"] in {"0", "1"}
            assert row["Scaling"] in {"", "Linear", "Square Root"}
            number, _, length = row["Address"].partition(".")
            assert 400_001 <= int(number) <= 465_536
            assert bool(length) == (row["Data Type"] == "String")
            if length:
                assert 2 <= int(length.removesuffix("H")) <= 240
                assert row["Scaling"] == ""
            if row["Scaling"]:
                assert float(row["Raw Low"]) < float(row["Raw High"])
                assert row["Clamp Low"] == row["Clamp High"] == row["Negate Value"] == "0"
