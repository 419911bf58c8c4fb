"""Nothing is published that a supported version of Home Assistant refuses, the oldest or the newest.

`home_assistant_rules.json` has the tables; the checks below are what components/mqtt/{number,sensor,select}.py and
components/sensor/__init__.py refuse or complain of in either version.
"""

import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from gateway.bridges.mqtt.home_assistant import entities, payloads
from gateway.bridges.mqtt.home_assistant.names import MAX_NAME
from gateway.bridges.mqtt.topics import Topics
from gateway.core.model import BridgeStatus, Device, DeviceKind, Range
from gateway.core.points import POINTS, SETPOINTS, Type
from tests.bridges.mqtt.homeassistant import check
from tests.kit.process import ROOT

OLDEST, NEWEST = "2024.11.0", "2026.11.0"
ENTITY = re.compile(r"^[a-z_]+\.[a-z0-9]+(_[a-z0-9]+)*$")
EVERYWHERE = ("sensor", "number", "binary_sensor", "button", "select", "switch")


@cache
def rules():
    return json.loads(Path(__file__).with_name("home_assistant_rules.json").read_text())


def refusals(config, version):
    """Return what a version refuses of a config, or complains of."""
    found = []
    for key, it in config["components"].items():
        platform, here = it["platform"], rules()[version].get(it["platform"], {})
        look, unit = it.get("device_class"), it.get("unit_of_measurement")
        wrong = {
            "platform": platform not in EVERYWHERE,
            "device class": look is not None and look not in here.get("classes", ()),
            "unit": look in here.get("units", {}) and unit not in here["units"][look],
            "entity id": not ENTITY.match(it["default_entity_id"]) or len(it["default_entity_id"]) > 255,
            "unique id": not 0 < len(it["unique_id"]) <= 255,
            "name": not it["name"] or len(config["device"]["name"]) + len(it["name"]) > 250,
            "category": it.get("entity_category") == "config" and platform in ("sensor", "binary_sensor"),
        }
        if platform == "sensor":
            state_class, options = it.get("state_class"), it.get("options")
            wrong["state class"] = state_class is not None and (
                state_class not in here["all_state_classes"]
                or (look in here["state_classes"] and state_class not in here["state_classes"][look])
            )
            wrong["options"] = options is not None and not (options and look == "enum" and not (state_class or unit))
            wrong["enum"] = look == "enum" and (options is None or state_class is not None or unit is not None)
            wrong["number"] = (
                look is not None
                and look not in ("enum", "timestamp")
                and not (unit or None in here["units"].get(look, [None]))
            )
        if platform == "number":
            wrong["bounds"] = not it["min"] < it["max"]
            wrong["step"] = not it["step"] >= 0.001
        if platform == "select":
            wrong["options"] = not it["options"] or len(set(it["options"])) < len(it["options"])
        for field in ("value_template", "command_template"):
            if field in it:
                Environment().parse(it[field])
        found += [f"{key}: {what} ({look}, {unit}, {it.get('state_class')})" for what, is_so in wrong.items() if is_so]
    return found


def config(device, points, permitted, *, dated=False, firmware=""):
    """Return a device's config as it is published."""
    shared = payloads.availability("sems/bridge/state")
    components = {
        **entities.shown(points, permitted),
        **entities.health(points, shared),
        **entities.controls("sems/X", permitted, dated=dated),
    }
    block = payloads.about_device("gw_X", device, firmware, "gw")
    body = payloads.of_device(Topics("sems"), "sems/X", "gw_X", payloads.slug(device.name) or "x", block, components)
    return check(json.loads(body))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("kind", DeviceKind)
def test_whatever_a_device_has_and_takes_both_versions_take(version, kind):
    device = Device(serial="X", kind=kind, name="House")
    everything = {setpoint: Range() for setpoint in SETPOINTS}
    limits = {setpoint: Range(point.low, point.high) for setpoint, point in SETPOINTS.items()}
    for permitted in ({}, everything, limits):
        for dated in (False, True):
            made = config(device, set(POINTS), permitted, dated=dated, firmware="1")
            assert refusals(made, version) == []
            assert len(made["components"]) > len(POINTS) - len(SETPOINTS)


BOUND = st.none() | st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([0.0, 50.0, 100.0])


@settings(max_examples=50, deadline=None)
@given(
    low=BOUND,
    high=BOUND,
    step=st.none() | st.sampled_from([0.0005, 0.0003, 0.001, 0.0015, 1e-6, 1.0, 500.0]) | st.floats(1e-5, 1e4),
    setpoint=st.sampled_from(sorted(SETPOINTS)),
    name=st.text(max_size=300),
)
def test_whatever_range_and_name_a_device_has_both_versions_take_it(low, high, step, setpoint, name):
    if low is not None and high is not None and low > high:
        low, high = high, low
    device = Device(serial="X", kind=DeviceKind.INVERTER, name=name.strip())
    made = config(device, {setpoint}, {setpoint: Range(low, high, step)})
    for version in (OLDEST, NEWEST):
        assert refusals(made, version) == []
    number = made["components"].get(f"set_{setpoint}", {})
    if step and "step" in number:
        assert number["step"] / step == pytest.approx(round(number["step"] / step)), "the device takes it"


def test_one_value_alone_is_no_number_but_shown():
    made = config(
        Device(serial="X", kind=DeviceKind.INVERTER), {"active_power_limit"}, {"active_power_limit": Range(60, 60)}
    )
    assert made["components"].keys() == {"active_power_limit", "data", "measured"}
    assert made["components"]["active_power_limit"]["platform"] == "sensor"


def test_a_step_too_fine_is_the_least_that_both_take():
    made = config(Device(serial="X", kind=DeviceKind.INVERTER), (), {"power_factor": Range(-1, 1, 0.0003)})
    assert made["components"]["set_power_factor"]["step"] == pytest.approx(0.0012)


@pytest.mark.parametrize("point", [p.id for p in POINTS.values() if p.type is Type.TEXT])
def test_a_long_text_is_cut_to_what_a_state_may_be(point):
    (component,) = entities.shown({point}, {}).values()
    template = Environment().from_string(component["value_template"])
    assert template.render(value_json={point: "x" * 1000}) == "x" * 255
    assert [template.render(value_json=value) for value in ({}, {point: None}, {point: ""})] == ["None"] * 3


def test_a_long_name_is_cut_so_that_ids_of_it_are_short_enough():
    made = config(Device(serial="X", kind=DeviceKind.PLANT, name="Größe " * 100), set(POINTS), {})
    assert len(made["device"]["name"]) == MAX_NAME
    assert max(len(c["default_entity_id"]) for c in made["components"].values()) < 150


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_gateways_own_config(version):
    now = datetime(2026, 6, 21, tzinfo=UTC)
    statuses = [BridgeStatus(name=name, type="mqtt", up=True, since=now) for name in ("mqtt", "cloud-2")]
    components = payloads.bridges(Topics("sems"), statuses, may_restart=True)
    block = payloads.about_gateway("gw", "gw")
    body = payloads.of_gateway(Topics("sems"), "gw", "gw", block, components)
    assert refusals(check(json.loads(body)), version) == []


@pytest.mark.parametrize(
    ("wrong", "version", "what"),
    [
        ({"platform": "sensor", "device_class": "wind_direction", "unit_of_measurement": "°"}, OLDEST, "device class"),
        ({"platform": "sensor", "state_class": "measurement_angle"}, OLDEST, "state class"),
        ({"platform": "sensor", "device_class": "power", "unit_of_measurement": "MW"}, OLDEST, "unit"),
        ({"platform": "sensor", "device_class": "enum", "state_class": "measurement"}, NEWEST, "state class"),
        ({"platform": "number", "min": 5, "max": 5, "step": 1}, OLDEST, "bounds"),
        ({"platform": "number", "min": 5, "max": 6, "step": 0.0005}, NEWEST, "step"),
        ({"platform": "select", "options": []}, OLDEST, "options"),
    ],
)  # fmt: skip
def test_these_are_refused(wrong, version, what):
    component = {"name": "x", "unique_id": "x", "default_entity_id": f"{wrong['platform']}.x"} | wrong
    assert what in str(refusals({"device": {"name": "x"}, "components": {"x": component}}, version))


def test_the_documents_name_both_versions():
    text = (ROOT / "docs" / "home-assistant.md").read_text()
    assert OLDEST.removesuffix(".0") in text
    assert NEWEST.removesuffix(".0") in text
