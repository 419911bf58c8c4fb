"""The sunspec map's tables: what SunSpec's own model definitions say, and nothing that shifts."""

import json
from pathlib import Path

import msgspec
import pytest
import sunspec2
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bridges.modbus import ModbusSettings, printed
from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Image
from gateway.bridges.modbus.lasting import is_lasting
from gateway.bridges.modbus.maps.chosen import Choice, MapsError, build
from gateway.bridges.modbus.maps.sunspec import SunSpecFamily, basic, battery, der, inverter, meter, weather
from gateway.bridges.modbus.maps.sunspec.ac import SIGNS
from gateway.bridges.modbus.maps.sunspec.controls import CONTROLS, LIMITS
from gateway.bridges.modbus.maps.sunspec.expressions import EXPRESSIONS
from gateway.bridges.modbus.maps.sunspec.facts import facts, fixed_fields, is_single_phase
from gateway.bridges.modbus.maps.sunspec.layouts import models
from gateway.bridges.modbus.maps.sunspec.nominal import Nominal
from gateway.bridges.modbus.maps.sunspec.points import Model, Type, own
from gateway.bridges.modbus.maps.sunspec.scales import scale_factors
from gateway.core.model import Device, DeviceKind, DeviceState, Quality, Range
from gateway.core.points import POINTS, SETPOINTS
from tests.kit.bench import INVERTER

DEFINITIONS = Path(sunspec2.__file__).parent / "models" / "json"
SERVED = [
    model
    for module in (basic, battery, der, inverter, meter, weather)
    for model in vars(module).values()
    if isinstance(model, Model)
]
PHASE_KINDS = (DeviceKind.INVERTER, DeviceKind.STORAGE, DeviceKind.METER)


def definition(id_):
    return json.loads((DEFINITIONS / f"model_{id_}.json").read_text())["group"]


def defined_points(group, repeats, prefix=""):
    """All points of a definition, flat and in order, as (name, definition)."""
    for point in group["points"]:
        yield prefix + point["name"], point
    for inner in group.get("groups", []):
        # Groups that repeat have their points by plain names; groups that stand once are told apart by theirs.
        name = "" if "count" in inner else f"{inner['name']}."
        for _ in range(repeats if "count" in inner else 1):
            yield from defined_points(inner, 1, name)


@pytest.mark.parametrize("model", SERVED, ids=lambda model: str(model.id))
def test_a_model_is_as_sunspec_defines_it(model):
    modules = next((point.constant for point in model.points if point.type is Type.COUNT), 1)
    expected = list(defined_points(definition(model.id), modules))
    assert [name for name, _ in expected[:2]] == ["ID", "L"]
    offset = 2
    assert len(expected) - 2 == len(model.points)
    for (name, point), ours in zip(expected[2:], model.points, strict=True):
        assert (ours.name, ours.type) == (name, point["type"]), f"at {offset}"
        assert ours.registers == point["size"], f"{name} at {offset}"
        scaled_by = point.get("sf", "")
        assert (ours.sf or ours.exponent or "") == scaled_by, name
        assert ours.unit == point.get("units", "") or ours.type in {Type.STRING, Type.SUNSSF}, name
        offset += ours.registers
    assert offset == model.length + 2
    fixed = definition(model.id)["points"][1].get("value")
    assert fixed is None or fixed == model.length
    assert definition(model.id)["points"][0]["value"] == model.id


def test_every_model_the_issue_asks_for_is_served():
    assert sorted({model.id for model in SERVED}) == [
        1, 101, 102, 103, 111, 112, 113, 120, 121, 122, 123, 124, 160, 201, 202, 203, 204, 211, 212, 213, 214, 302, 303,
        307, 701, 702, 703, 704, 713, 802,
    ]  # fmt: skip


@pytest.mark.parametrize("model", SERVED, ids=lambda model: str(model.id))
def test_what_is_shown_has_a_scale_and_a_source(model):
    factors = {point.name: point.scale for point in model.points if point.type is Type.SUNSSF}
    written = {register for control in CONTROLS for register in control.registers}
    able = msgspec.structs.replace(INVERTER, setpoints=dict.fromkeys(SETPOINTS, Range()))
    fixed = {**fixed_fields(able, facts(able)), **Nominal().fields(facts(able)), **SIGNS["eei"]}
    for point in model.points:
        if point.shows or own(f"{model.id}.{point.name}") in written:
            assert not point.sf or factors[point.sf] is not None, point.name
        if point.shows.startswith("sunspec."):
            assert point.shows in {*EXPRESSIONS, *fixed, *written, own("time")}


def test_measured_points_lie_behind_the_gate():
    """What is shown outside is no measurement, or an expression that is hidden with them."""
    for model in SERVED:
        offset = 2
        for point in model.points:
            measured = point.shows in POINTS and point.shows not in SETPOINTS and not is_lasting(point.shows)
            assert not measured or (model.gate is not None and offset >= model.gate), (model.id, point.name)
            offset += point.registers


def test_every_register_of_a_control_is_a_point_of_a_model():
    fields = {own(f"{model.id}.{point.name}") for model in SERVED for point in model.points}
    assert {register for control in CONTROLS for register in control.registers} <= fields
    assert LIMITS.keys() <= fields


MODELS_OF = [
    ("GW10K-ET", DeviceKind.STORAGE, (1, 103, 120, 121, 122, 123, 160, 701, 702, 703, 704, 124, 713, 802)),
    ("GW5048-EH", DeviceKind.STORAGE, (1, 101, 120, 121, 122, 123, 160, 701, 702, 703, 704, 124, 713, 802)),
    ("GW10K-DT", DeviceKind.INVERTER, (1, 103, 120, 121, 122, 123, 160, 701, 702, 703, 704)),
    ("GW3000-XS", DeviceKind.INVERTER, (1, 101, 120, 121, 122, 123, 160, 701, 702, 703, 704)),
    ("", DeviceKind.BATTERY, (1, 713, 802)),
    ("GM3000", DeviceKind.METER, (1, 203)),
    ("GM1000D", DeviceKind.METER, (1, 201)),
    ("GW9600-ES-US20", DeviceKind.STORAGE, (1, 102, 120, 121, 122, 123, 160, 701, 702, 703, 704, 124, 713, 802)),
    ("GW7600A-MS", DeviceKind.INVERTER, (1, 102, 120, 121, 122, 123, 160, 701, 702, 703, 704)),
    ("", DeviceKind.PLANT, (1, 203)),
    ("", DeviceKind.WEATHER_STATION, (1, 307, 302, 303)),
    ("", DeviceKind.EV_CHARGER, (1,)),
    ("", DeviceKind.DATA_LOGGER, (1,)),
    ("", DeviceKind.FLEET, (1, 103, 120, 121, 122, 123, 701, 702, 703, 704)),
]


@pytest.mark.parametrize(("model", "kind", "ids"), MODELS_OF)
def test_the_models_of_a_device(model, kind, ids):
    device = Device(serial="1", kind=kind, model=model)
    assert tuple(found.id for found in models(device, as_float=False)) == ids
    floats = {101: 111, 102: 112, 103: 113, 201: 211, 203: 213}
    assert tuple(found.id for found in models(device, as_float=True)) == tuple(floats.get(id_, id_) for id_ in ids)


@pytest.mark.parametrize(
    ("model", "single"),
    [
        ("GW5000-EH", True),
        ("gw3000-xs", True),
        ("GW4200D-NS", True),
        ("GW10K-ET", False),
        ("", False),
        ("GMK110", True),
    ],
)
def test_phases_are_known_by_the_model(model, single):
    assert is_single_phase(Device(serial="1", kind=DeviceKind.INVERTER, model=model)) is single


@settings(deadline=None)
@given(rated=st.floats(100, 1e9), kind=st.sampled_from(DeviceKind))
def test_scale_factors_fit_what_a_device_may_show(rated, kind):
    device = Device(serial="1", kind=kind, rated_power=rated)
    factors = {scale.name: factor for scale, factor in scale_factors(device).items()}
    assert rated * 1.25 <= 32_767 * 10.0 ** factors["POWER"]
    assert rated * 2 <= 32_767 * 10.0 ** factors["DC_POWER"]
    assert rated * 25 * 8766 <= 0xFFFF_FFFF * 10.0 ** factors["ENERGY"]
    assert rated * 10 <= 65_534 * 10.0 ** factors["CAPACITY"]
    finer = rated * 3 * 10
    assert factors["POWER"] == 0 or finer > 32_767 * 10.0 ** factors["POWER"] / 10, "one finer would do as well"
    assert factors == {scale.name: factor for scale, factor in scale_factors(device).items()}
    assert all(-10 <= factor <= 10 for factor in factors.values())


def test_devices_of_one_shape_share_their_layout():
    family = SunSpecFamily(WordOrder.ABCD)
    first = family.layout(INVERTER)
    assert family.layout(msgspec.structs.replace(INVERTER, serial="other", name="other", plant="x")) is first
    assert family.layout(msgspec.structs.replace(INVERTER, rated_power=100_000.0)) is not first
    assert family.layout(INVERTER) is first
    again = SunSpecFamily(WordOrder.CDAB).layout(INVERTER)
    assert again.map == first.map
    assert again.blank == first.blank


def test_addresses_do_not_depend_on_what_a_device_takes():
    family = SunSpecFamily(WordOrder.ABCD)
    least = family.layout(msgspec.structs.replace(INVERTER, setpoints={}))
    most = family.layout(msgspec.structs.replace(INVERTER, setpoints=dict.fromkeys(SETPOINTS, Range())))
    assert not least.writable
    assert [(row.address, row.field) for row in least.map.rows] == [(row.address, row.field) for row in most.map.rows]


def test_the_map_stands_beside_the_others():
    families = build([Choice(map="native"), Choice(map="goodwe"), Choice(map="sunspec", as_float=True)], WordOrder.CDAB)
    assert [family.name for family in families] == ["native", "goodwe", "sunspec"]
    served = printed.served("scada", ModbusSettings(maps=["native", "goodwe", "sunspec"]), {}, {}, "gw")
    assert ("sunspec", "weather_station") in {(line.map, line.kind) for line in served}
    with pytest.raises(MapsError, match="twice"):
        build([Choice(map="sunspec"), Choice(map="sunspec", as_float=True)], WordOrder.ABCD)
    with pytest.raises(ValueError, match="as_float"):
        Choice(map="sunspec", as_flot=True)


# values, without a server

READINGS = {
    point.id: st.none() | st.sampled_from(point.options) if point.options
    else st.none() | st.booleans() if point.type == "boolean"
    else st.none() | st.text(max_size=40) if point.type == "text"
    else st.none() | st.floats(-1e12, 1e12) | st.integers(-(10**12), 10**12)
    for point in POINTS.values()
}  # fmt: skip


def shown(device, values, quality=Quality.GOOD, family=None):
    family = family or SunSpecFamily(WordOrder.ABCD)
    layout = family.layout(device)
    image = Image(device.serial, layout, dict)
    state = DeviceState(device=device, quality=quality, time=None, source="test", values=values)
    image.show({**values, **family.fields(state)})
    return layout, image


def register(layout, image, field, size=1):
    start, end, _ = layout.slots[own(field)][0]
    return int.from_bytes(image.data[start:end], "big")


@settings(deadline=None)
@given(kind=st.sampled_from(DeviceKind), values=st.fixed_dictionaries(READINGS))
def test_any_values_are_encoded_without_touching_the_structure(kind, values):
    device = msgspec.structs.replace(INVERTER, kind=kind, setpoints=dict.fromkeys(SETPOINTS, Range()))
    layout, image = shown(device, values)
    assert len(image.data) == len(layout.blank)
    for row in layout.map.rows:
        if row.constant is not None:
            start = 2 * (row.address - 40_000)
            assert image.data[start : start + 2 * row.count] == layout.blank[start : start + 2 * row.count], row.field


@settings(deadline=None)
@given(kind=st.sampled_from(PHASE_KINDS), values=st.fixed_dictionaries(READINGS))
def test_nothing_measured_is_readable_outside_the_gates_while_stale(kind, values):
    device = msgspec.structs.replace(INVERTER, kind=kind)
    family = SunSpecFamily(WordOrder.ABCD)
    kept = {k: v for k, v in values.items() if k in SETPOINTS or k == "firmware" or is_lasting(k)}
    layout, with_values = shown(device, values, Quality.STALE, family)
    _, without = shown(device, dict.fromkeys(values) | kept, Quality.STALE, family)
    gates = layout.map.blocks[0].gates
    for address in range(40_000, layout.map.blocks[0].end):
        if not any(start <= address < end for start, end in gates):
            at = 2 * (address - 40_000)
            assert with_values.data[at : at + 2] == without.data[at : at + 2], address


def test_accumulators_start_again_after_their_highest_value():
    device = msgspec.structs.replace(INVERTER, kind=DeviceKind.METER)
    layout, image = shown(device, {"grid_import_total": (2**32 + 5) / 1000})
    (slot,) = layout.slots["grid_import_total"]
    assert image.data[slot.start : slot.end].hex() == "00000005"


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({}, "charge_state", 0xFFFF),
        ({"battery_power": 500}, "charge_state", 3),
        ({"battery_power": -500}, "charge_state", 4),
        ({"battery_power": 0, "battery_soc": 100}, "charge_state", 5),
        ({"battery_power": 0, "battery_soc": 50}, "charge_state", 6),
        ({"status": "normal"}, "inverter_state", 4),
        ({"status": "fault"}, "inverter_state", 7),
        ({"status": "fault"}, "alarm", 1 << 16),
        ({"status": "offline"}, "storage_connection", 0),
        ({"status": "normal", "battery_soc": 5}, "storage_connection", 7),
        ({"battery_soc": 30}, "depth_of_discharge", 7000),
        ({"battery_capacity": 10, "battery_soc": 50}, "energy_available", 500),
        ({"battery_capacity": 10, "battery_soc": 50, "battery_soh": 90}, "energy_available", 450),
        ({"l1_current": 1.5, "l3_current": 2}, "amps", 350),
        ({"l1_voltage": 230, "l2_voltage": 231}, "volts", 2305),
        ({"l2_frequency": 50.01}, "frequency", 5001),
        ({"pv1_voltage": 400, "pv1_current": 2.5}, "pv1_power", 1000),
        ({"active_power_limit": 50, "reactive_power": 5, "power_factor": 0.9}, "active_controls", 7),
        ({"active_power_limit": 100, "power_factor": 1}, "active_controls", 0),
    ],
)  # fmt: skip
def test_what_follows_from_points(values, field, expected):
    assert register(*shown(INVERTER, values), field) == expected


def test_a_meter_without_a_grid_point_shows_the_opposite_of_what_it_feeds_in():
    meter_ = msgspec.structs.replace(INVERTER, kind=DeviceKind.METER)
    assert register(*shown(meter_, {"ac_power": 500}), "meter_power") == 0x10000 - 500
    assert register(*shown(meter_, {"ac_power": 500, "grid_power": 700}), "meter_power") == 700
