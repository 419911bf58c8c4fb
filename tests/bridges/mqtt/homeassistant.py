"""What Home Assistant makes of discovery: configs checked against its documents, and entities that stand for it."""

import json
import re
from functools import cache
from pathlib import Path

import jsonschema

TOPIC = re.compile(r"^homeassistant/device/[A-Za-z0-9_-]+/config$")


@cache
def validator():
    schema = json.loads(Path(__file__).with_name("home_assistant_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check(config):
    """Fail where a config breaks the documents; return it."""
    problems = [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator().iter_errors(config)]
    assert not problems, problems
    ids = [c["unique_id"] for c in config["components"].values() if len(c) > 1]
    assert len(ids) == len(set(ids))
    return config


def configs(peer):
    """The newest config of every discovery topic that a peer saw, checked; None for one that was cleared."""
    found = {}
    for message in list(peer.messages):
        if message.topic.startswith("homeassistant/device/"):
            assert TOPIC.match(message.topic), message.topic
            found[message.topic.split("/")[2]] = check(json.loads(message.payload)) if message.payload else None
    return found


def entity(config, key):
    """A component with what it shares with the others."""
    component = config["components"][key]
    shared = {name: config[name] for name in ("availability", "availability_mode", "state_topic")}
    return shared | component
