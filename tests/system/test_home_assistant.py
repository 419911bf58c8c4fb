"""Home Assistant's part played by mosquitto's tools; the gateway, the simulated SEMS and mosquitto are processes."""

import json

import pytest

from tests.bridges.mqtt.homeassistant import check
from tests.kit.process import ROOT, eventually
from tests.system.conftest import CONFIG, INVERTER

pytestmark = pytest.mark.system

FINDABLE = CONFIG.replace("port: {mqtt}", "port: {mqtt}, home_assistant: true")
PREFIX = "homeassistant/device/system-test"


@pytest.fixture
def found(plant):
    plant.configure(text=FINDABLE)
    with plant.everything(), plant.subscribe("homeassistant/#") as watcher:
        yield plant, watcher


def configs(watcher):
    """Topic → the configs that came, oldest first; None for one that was cleared."""
    found = {}
    for line in list(watcher.lines):
        topic, _, payload = line.partition(" ")
        if topic.endswith("/config"):
            found.setdefault(topic, []).append(check(json.loads(payload)) if payload.startswith("{") else None)
    return found


def test_a_simulated_plant_is_found_a_limit_set_and_all_comes_anew_after_a_birth(found):
    plant, watcher = found
    topic = f"{PREFIX}_{INVERTER}/config"
    house = eventually(
        lambda: next((c for c in configs(watcher).get(topic, []) if c and "energy_today" in c["components"]), None)
    )
    via = house["device"]["via_device"]
    assert via != "system-test"
    assert configs(watcher)[f"homeassistant/device/{via}/config"][-1]["device"]["via_device"] == "system-test"

    energy = house["components"]["energy_today"]
    assert "state_topic" not in energy, "the device's own"
    assert json.loads(plant.retained(house["state_topic"]))["energy_today"] >= 0

    number = house["components"]["set_active_power_limit"]
    assert {"set_battery_mode"}.isdisjoint(house["components"]), "not permitted"
    with plant.subscribe(f"sems/{INVERTER}/result") as results:
        command = number["command_template"].replace("{{ value }}", "40")
        plant.publish(number["command_topic"], command)
        eventually(lambda: '"succeeded"' in results.text and '"value":40.0' in results.text)
    assert plant.true_limit() == 40.0

    eventually(lambda: len(configs(watcher).get("homeassistant/device/system-test/config", [])) >= 1)
    count = len(configs(watcher)[topic])
    plant.publish("homeassistant/status", "online")
    eventually(lambda: len(configs(watcher)[topic]) > count)


def test_switched_off_the_gateway_takes_everything_back(plant):
    plant.configure(text=FINDABLE)
    topic = f"{PREFIX}_{INVERTER}/config"
    with plant.broker(), plant.simulator():
        with plant.gateway():
            eventually(lambda: plant.retained(topic))
        plant.configure()
        with plant.gateway():
            plant.wait_for_data()
            eventually(lambda: plant.retained("homeassistant/#") is None)


@pytest.mark.parametrize("name", ["gateway.yaml", "automation.yaml", "energy.yaml", "dashboard.yaml"])
def test_the_examples_are_yaml_and_speak_of_entities_that_there_are(name, tmp_path):
    import re

    import yaml

    from gateway.api.registry import installed
    from gateway.core.points import POINTS
    from gateway.run.settings import Config

    text = (ROOT / "examples" / "home-assistant" / name).read_text()
    assert yaml.safe_load(text)
    for domain, entity in re.findall(r"\b(sensor|number|binary_sensor|button)\.house_(\w+)", text):
        known = {"binary_sensor": {"data", "fault"}}.get(domain, POINTS.keys())
        assert entity.removeprefix("reset_") in known, entity
    if name == "gateway.yaml":
        file = tmp_path / "config.yaml"
        file.write_text(text.replace("{env: SEMS_PASSWORD}", "x").replace("{env: MQTT_PASSWORD}", "y"))
        assert Config.load(file, installed()).bridges[1].settings.home_assistant.enabled
