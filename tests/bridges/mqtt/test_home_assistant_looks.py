"""Every point of the table looks like something to Home Assistant, a new one too."""

import pytest

from gateway.bridges.mqtt.home_assistant import entities, looks, names, payloads
from gateway.bridges.mqtt.home_assistant.looks import look, name
from gateway.bridges.mqtt.topics import Topics
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.points import POINTS, SETPOINTS, Kind, Point, Type
from tests.bridges.mqtt.homeassistant import check, validator

ROOT = "sems/X"


def config(components):
    device = Device(serial="X", kind=DeviceKind.INVERTER, model="GW10K")
    block = payloads.about_device("gw_X", device, "", "gw")
    body = payloads.of_device(Topics("sems"), ROOT, "gw_X", "x", block, components)
    import json

    return check(json.loads(body))


@pytest.mark.parametrize("point", POINTS)
def test_every_point_is_a_valid_sensor(point):
    (component,) = config(entities.shown({point}, {}))["components"].values()
    assert component["unique_id"] == f"gw_X_{point}"
    assert point in component["value_template"]
    row = POINTS[point]
    if row.unit:
        assert component["unit_of_measurement"] == row.unit


@pytest.mark.parametrize("setpoint", SETPOINTS)
def test_every_setpoint_has_a_valid_control(setpoint):
    for dated in (False, True):
        components = config(entities.controls(ROOT, {setpoint: Range()}, dated=dated))["components"]
        control = components[f"set_{setpoint}"]
        assert control["command_topic"] == f"sems/X/set/{setpoint}"
        assert ("utcnow" in control["command_template"]) is dated


@pytest.mark.parametrize(
    "row",
    [
        Point("tilt", "°", Kind.MEASUREMENT, Type.FLOAT, "made up"),
        Point("flow", "l/min", Kind.MEASUREMENT, Type.FLOAT, "made up"),
        Point("heat_power", "kW", Kind.MEASUREMENT, Type.FLOAT, "made up"),
        Point("heat_today", "kWh", Kind.TOTAL, Type.FLOAT, "made up"),
        Point("starts", "", Kind.TOTAL, Type.INTEGER, "made up"),
        Point("mood", "", Kind.STATE, Type.ENUM, "made up", options=("good", "bad")),
        Point("note", "", Kind.STATE, Type.TEXT, "made up"),
        Point("open", "", Kind.STATE, Type.BOOLEAN, "made up"),
    ],
    ids=lambda row: row.id,
)
def test_a_new_point_needs_no_row(row):
    assert row.id not in POINTS
    component = entities._shown(row) | {"unique_id": "x", "default_entity_id": f"{platform(row)}.x"}
    body = {"device": {"identifiers": ["x"], "name": "x"}, "origin": {"name": "x"}, "components": {"x": component}}
    assert not list(validator().iter_errors(body))


def platform(row):
    return "binary_sensor" if row.type is Type.BOOLEAN else "sensor"


def test_no_row_is_left_over_from_a_point_that_is_no_more():
    assert looks._SPECIAL.keys() <= POINTS.keys()


@pytest.mark.parametrize("point", [p for p in POINTS.values() if p.unit == "kWh" and p.kind is Kind.TOTAL], ids=str)
def test_the_energy_dashboard_takes_every_energy_total(point):
    # homeassistant/components/energy/validate.py: device class energy, a unit of energy, total or total_increasing.
    assert (look(point).device_class, look(point).state_class) == ("energy", "total_increasing")


@pytest.mark.parametrize(
    ("point", "text"),
    [
        ("ac_power", "AC power"),
        ("pv1_voltage", "PV1 voltage"),
        ("l3_frequency", "L3 frequency"),
        ("battery_target_soc", "Battery target SoC"),
        ("load_power", "Load power"),
        ("ev_session_time", "EV session time"),
    ],
)
def test_names_are_for_people(point, text):
    assert name(point) == text


@pytest.mark.parametrize(
    ("text", "slug"),
    [("Größe 1", "grosse_1"), ("  Sunny -- Höhe ", "sunny_hohe"), ("日本", ""), ("GW10K-ET", "gw10k_et")],
)
def test_slugs(text, slug):
    assert names.slug(text) == slug


def test_object_ids_are_of_the_characters_that_home_assistant_takes_and_differ():
    serials = ["a/b", "a_b", "a-b", "a b", "a_2Fb", "日", "9010KETU000W0001"]
    made = [names.object_id("gw", serial) for serial in serials]
    assert len(set(made)) == len(serials)
    assert all(set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for one in made)
    assert names.object_id("gw") == "gw"


def test_a_device_without_a_name_or_model_is_called_by_what_is_known():
    block = payloads.about_device("x", Device(serial="S1", kind=DeviceKind.EV_CHARGER), "", "gw")
    assert (block["name"], block["model"]) == ("S1", "Ev charger")


@pytest.mark.parametrize(
    "broken",
    [
        {"platform": "sensor", "name": "x", "unique_id": "x", "default_entity_id": "sensor.x", "device_class": "power"},
        {"platform": "sensor", "name": "x", "unique_id": "x", "default_entity_id": "sensor.X"},
        {"platform": "sensor", "name": "x", "default_entity_id": "sensor.x"},
        {"platform": "sensor", "name": "x", "unique_id": "x", "default_entity_id": "sensor.x", "options": ["a"]},
        {"platform": "number", "name": "x", "unique_id": "x", "default_entity_id": "number.x"},
        {"platform": "sensor", "name": "x", "unique_id": "x", "default_entity_id": "sensor.x", "colour": "red"},
        {"platform": "toaster"},
        {"name": "x"},
    ],
)
def test_the_schema_finds_what_home_assistant_would_not_take(broken):
    body = {"device": {"identifiers": ["x"], "name": "x"}, "origin": {"name": "x"}, "components": {"x": broken}}
    assert list(validator().iter_errors(body))
