"""An editor that knows the JSON Schema takes what the gateway takes, and marks what it refuses."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from gateway.api.registry import installed
from gateway.cli import app
from gateway.run.schema import json_schema
from tests.test_examples import COMMENTED, CONFIGURATION, instead, uncommented

EVERYTHING = instead(
    COMMENTED.sub(
        lambda match: uncommented(match[0]), COMMENTED.sub(lambda match: uncommented(match[0]), CONFIGURATION)
    )
)
GOOD = """
bridges:
  sems: {type: open_api, account: a, password: b}
  mqtt: {type: mqtt, host: broker}
"""


@pytest.fixture(scope="module")
def marked():
    schema = json_schema(installed())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)

    def marked(text):
        return sorted(".".join(map(str, error.absolute_path)) for error in validator.iter_errors(yaml.safe_load(text)))

    return marked


@pytest.mark.parametrize("text", [CONFIGURATION, EVERYTHING, GOOD], ids=["example", "everything", "good"])
def test_what_is_in_order_is_not_marked(marked, text):
    assert marked(text) == []


@pytest.mark.parametrize(
    "setting",
    [
        "password: {file: /run/secrets/sems}",
        "password: {env: NAME}",
        "devices: [SN1, {sn: SN2, type: battery}]",
        "overrides: catalogue.yaml",
        "overrides: {success: [0, '200']}",
    ],
)
def test_short_forms_are_known(marked, setting):
    assert marked(f"bridges: {{sems: {{type: open_api, account: a, {setting}}}}}") == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("host: broker", "hosst: broker", ["bridges.mqtt", "bridges.mqtt"]),
        ("host: broker", "host: broker, port: many", ["bridges.mqtt.port"]),
        ("host: broker", "host: broker, qos: 3", ["bridges.mqtt.qos"]),
        ("host: broker", "host: broker, protocol: 4", ["bridges.mqtt.protocol"] * 2),
        ("type: mqtt", "type: mqqt", ["bridges.mqtt.type"]),
        ("type: mqtt, ", "", ["bridges.mqtt"]),
        ("password: b", "password: {fill: b}", ["bridges.sems.password"]),
        ("bridges:", "log: {level: loud}\nbridges:", ["log.level"]),
        ("bridges:", "bridgess:", ["", ""]),
        (
            "bridges:",
            "fleets: {north: {members: {kinds: [plant]}, share: half}}\nbridges:",
            ["fleets.north.members.kinds", "fleets.north.share"],
        ),
        ("bridges:", "limits: {grid: {device: SN1, failsave: 0}}\nbridges:", ["limits.grid", "limits.grid"]),
    ],
)
def test_mistakes_are_marked_where_they_stand(marked, old, new, where):
    found = marked(GOOD.replace(old, new))
    assert set(found) >= set(where)
    assert all(any(one.startswith(place) for place in where) for one in found)


def test_every_setting_is_explained():
    def walk(schema, path):
        for name, one in schema.get("properties", {}).items():
            if not ({"description", "$ref", "const"} & one.keys()):
                yield (*path, name)
        for name, one in schema.get("$defs", {}).items():
            yield from walk(one, (*path, name))

    assert list(walk(json_schema(installed()), ())) == []


def test_the_command_prints_it():
    done = CliRunner().invoke(app, ["schema"])
    assert json.loads(done.stdout) == json_schema(installed())
