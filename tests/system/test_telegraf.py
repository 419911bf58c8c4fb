"""examples/telegraf against what gateway, simulated SEMS and mosquitto really send. There is no Telegraf here."""

import json
import tomllib
from collections import defaultdict
from datetime import datetime

import pytest
from paho.mqtt.client import topic_matches_sub

from tests.kit.process import ROOT, eventually
from tests.system.conftest import INVERTER

pytestmark = pytest.mark.system
INPUTS = tomllib.loads((ROOT / "examples" / "telegraf" / "telegraf.conf").read_text())["inputs"]["mqtt_consumer"]
CONSUMERS = {topic: consumer for consumer in INPUTS for topic in consumer["topics"] if topic != "sems/+/alarm"}
"""Alarms are rare: nothing here raises one. tests/test_examples.py has their fields."""


@pytest.fixture(scope="module")
def messages(shared):
    """Return (topic, payload) of all that came, a command with all its steps among it."""
    with shared.subscribe("sems/#") as watcher:
        shared.publish(f"sems/{INVERTER}/set/active_power_limit", 60)
        watcher.line(rf'^sems/{INVERTER}/result .*"succeeded"')
        shared.publish(f"sems/{INVERTER}/set/running", "nonsense")
        watcher.line(rf'^sems/{INVERTER}/result .*"rejected"')
        eventually(lambda: any(line.startswith("sems/bridge/health ") for line in list(watcher.lines)))
        return [tuple(line.partition(" ")[::2]) for line in list(watcher.lines)]


@pytest.mark.parametrize("topic", CONSUMERS)
def test_what_it_subscribes_to_comes_and_can_be_read(topic, messages):
    came = [payload for each, payload in messages if topic_matches_sub(topic, each)]
    assert came
    if CONSUMERS[topic]["data_format"] == "value":
        assert set(came) <= {"online", "offline"}
        return
    (parser,) = CONSUMERS[topic]["json_v2"]
    types = defaultdict(set)
    # Telegraf leaves out what has no time; only states before the first data have none.
    timed = [payload for payload in map(json.loads, came) if payload["time"] or topic != "sems/+"]
    assert timed
    for payload in timed:
        for each in parser.get("object", []):
            assert datetime.fromisoformat(payload[each["timestamp_key"]]).tzinfo
            assert all(payload[tag] is None or isinstance(payload[tag], str) for tag in each["tags"])
            for key, value in payload.items():
                assert not isinstance(value, (dict, list)), key
                if value is not None and key not in {*each.get("fields", {}), *each["tags"]}:
                    types[key].add("number" if type(value) in {int, float} else type(value).__name__)
        for field in parser.get("field", []):
            value = payload
            for key in field["path"].split("."):
                value = value[key]
            assert type(value).__name__ == field["type"]
    # A database takes a field in one type only.
    assert all(len(found) == 1 for found in types.values()), dict(types)
