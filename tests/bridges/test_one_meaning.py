"""One meaning at every door: sign, unit and "not there" of a point are those of the point table wherever it is shown.

What a sign means is written here once more, and not taken from the table. The maps `sunspec` and `goodwe`, which have
signs of their own, are in tests/bridges/modbus/test_numbers.py.
"""

import json
import math
import struct
import subprocess
from datetime import UTC, datetime

import msgspec
import pytest

from gateway.bridges.kafka.schema import encode, of_snapshot
from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.fields import device_fields
from gateway.bridges.modbus.image import Image
from gateway.bridges.modbus.lasting import lasting
from gateway.bridges.modbus.maps.native import FLOATS, SCALED
from gateway.bridges.modbus.maps.native_family import NativeFamily
from gateway.bridges.mqtt import payloads
from gateway.bridges.mqtt.home_assistant.entities import shown
from gateway.bridges.mqtt.sparkplug import metrics, payload
from gateway.core.model import Device, DeviceKind, DeviceState, Quality, Snapshot
from gateway.core.points import POINTS
from tests.bridges.mqtt.homeassistant import validator
from tests.kit.sparkplug import need_host

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)
RATINGS = (3_000.0, 25_000.0, 50_000.0, 110_000.0, 5_000_000.0)

MEANING = {
    # point: unit, what the table must say of its sign
    "ac_power": ("W", "> 0 feeds in"),
    "ac_reactive_power": ("var", "> 0 is given (over-excited)"),
    "ac_apparent_power": ("VA", ""),
    "ac_power_factor": ("", "< 0 under-excited"),
    "pv_power": ("W", ""),
    "grid_power": ("W", "> 0 imports"),
    "battery_power": ("W", "> 0 discharges"),
    "battery_current": ("A", "> 0 discharges"),
    "battery_soc": ("%", ""),
    "l1_voltage": ("V", ""),
    "energy_total": ("kWh", ""),
}
HOME_ASSISTANT = {
    # device class → units that Home Assistant takes for it (developers.home-assistant.io, sensor, device classes)
    "power": {"mW", "W", "kW", "MW"},
    "reactive_power": {"var", "kvar"},
    "apparent_power": {"VA", "kVA"},
    "power_factor": {None, "%"},
    "current": {"A", "mA"},
    "voltage": {"V", "mV", "kV"},
    "battery": {"%"},
    "energy": {"Wh", "kWh", "MWh"},
}


def flows(rated, active, reactive, battery):
    """Return what a device shows in a quadrant: parts of its rating, > 0 as MEANING says."""
    apparent = math.hypot(active, reactive)
    return {
        "ac_power": active * rated,
        "ac_reactive_power": reactive * rated,
        "ac_apparent_power": round(apparent * rated, 1),
        "ac_power_factor": round(math.copysign(abs(active) / apparent, reactive), 3),
        "pv_power": max(0.0, active) * rated,
        "grid_power": -active * rated,
        "battery_power": battery * rated,
        "battery_current": battery * 40.0,
        "battery_soc": 55.0,
        "l1_voltage": 230.4,
        "energy_total": rated * 10.0,
        "load_power": None,
    }


CASES = [
    (rated, flows(rated, active, reactive, battery))
    for rated in RATINGS
    for active, reactive in ((0.6, 0.3), (-0.6, 0.3), (-0.6, -0.3), (0.6, -0.3))
    for battery in (0.4, -0.4)
]


def state_of(rated, values):
    device = Device(serial="1", kind=DeviceKind.STORAGE, model="GW-ET", rated_power=rated)
    return DeviceState(device=device, quality=Quality.GOOD, time=NOON, source="sems", values=values)


def test_the_table_says_the_unit_and_which_way_it_counts():
    assert {point: POINTS[point].unit for point in MEANING} == {point: unit for point, (unit, _) in MEANING.items()}
    assert {point for point, (_, sign) in MEANING.items() if sign not in POINTS[point].description} == set()


@pytest.mark.parametrize(("rated", "values"), CASES)
def test_mqtt_http_and_kafka_show_the_number_as_it_is(rated, values):
    state = state_of(rated, values)
    read = json.loads(payloads.state(state))
    assert {point: read[point] for point in values} == values, "null is not there"
    assert json.loads(msgspec.json.encode({"values": state.values}))["values"] == values
    snapshot = Snapshot(serial="1", time=NOON, source="sems", interval=60, values=values)
    found = json.loads(encode(of_snapshot("gateway", snapshot)))["values"]
    assert found == {point: value for point, value in values.items() if value is not None}


def test_sparkplug_is_read_by_another_decoder():
    """Tahu's schema, as pysparkplug brings it, in a process of its own."""
    born = [
        payload.birth(NOON, 0, metrics.of_device(state_of(*case), {}, {}, {}, NOON), lambda _: None) for case in CASES
    ]
    script = (
        "import sys, json\n"
        "from google.protobuf.json_format import MessageToDict\n"
        "from pysparkplug._protobuf import Payload\n"
        "for line in sys.stdin:\n"
        "    read = Payload.FromString(bytes.fromhex(line))\n"
        "    print(json.dumps(MessageToDict(read, preserving_proto_field_name=True)))\n"
    )
    told = "".join(f"{each.hex()}\n" for each in born)
    done = subprocess.run([need_host(), "-I", "-c", script], input=told, capture_output=True, text=True, check=True)
    for (_, values), line in zip(CASES, done.stdout.splitlines(), strict=True):
        found = {metric["name"]: metric for metric in json.loads(line)["metrics"]}
        for point, value in values.items():
            metric = found[point]
            properties = dict(zip(metric["properties"]["keys"], metric["properties"]["values"], strict=True))
            if value is None:
                assert metric["is_null"], point
                assert properties["Quality"].get("int_value", 0) == 0, "bad"
            else:
                assert metric["double_value"] == value, point
            unit = properties.get("engUnit", {}).get("string_value", "")
            assert unit == (MEANING[point][0] if point in MEANING else "W")


def test_home_assistant_takes_the_units_for_what_they_measure():
    components = shown(list(MEANING), {})
    for point, (unit, _) in MEANING.items():
        component = components[point]
        assert component.get("unit_of_measurement") == (unit or None), point
        assert component.get("unit_of_measurement") in HOME_ASSISTANT[component["device_class"]], point
        assert point in component["value_template"]
    assert validator()


@pytest.mark.parametrize(("rated", "values"), CASES)
def test_the_native_map_has_the_number_scaled_and_as_a_float(rated, values):
    state, family = state_of(rated, values), NativeFamily(WordOrder.ABCD)
    image = Image("1", family.layout(state.device), dict)
    image.show({**device_fields(state, 1), **lasting(state), **family.fields(state)})
    for row in image.layout.map.rows:
        point = row.field.removeprefix("native.")
        measured = SCALED <= row.address < FLOATS + 250 or 6300 <= row.address < 6460
        if point not in values or not measured:
            continue
        start, end, _ = image.layout.slots[row.field][
            [slot.start for slot in image.layout.slots[row.field]].index(_at(image, row))
        ]
        raw = bytes(image.data[start:end])
        number = struct.unpack({"int32": ">i", "int16": ">h", "uint16": ">H", "float32": ">f"}[row.encoding], raw)[0]
        value = values[point]
        if value is None:
            assert raw in {b"\x80\0\0\0", b"\x7f\xc0\0\0", b"\x80\0"}, "not there"
        elif row.encoding == "float32":
            assert number == pytest.approx(value, rel=1e-6), row.field
        else:
            assert number * 10.0**row.exponent == pytest.approx(value, abs=10.0**row.exponent / 2 + 1e-9), row.field


def _at(image, row):
    return 2 * row.address + image.layout.spans[row.address].shift
