"""`sems-gateway plugins`."""

import json
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner

from gateway.api.registry import GROUP, installed
from gateway.api.version import API_VERSION
from gateway.cli import app


def run(*words):
    done = CliRunner().invoke(app, ["plugins", *map(str, words)])
    return done.exit_code, done.stdout


def plugins(*words):
    code, out = run("--json", *words)
    listed = json.loads(out)
    assert listed["api_version"] == API_VERSION
    return code, {(each["kind"], each["name"]): each for each in listed["plugins"]}


@pytest.fixture
def broken(monkeypatch):
    entry = EntryPoint("acme", "no_such_module_[red]:Bridge", GROUP)
    monkeypatch.setitem(installed()._found, "acme", [entry])


def test_all_that_is_installed_is_listed_with_whence():
    code, found = plugins()
    assert code == 0
    assert {name for kind, name in found if kind == "bridge"} == set(installed().types)
    assert {name for kind, name in found if kind == "map"} >= {"native", "sunspec", "goodwe"}
    assert {name for kind, name in found if kind == "payload"} >= {"json", "sparkplug"}
    mqtt = found["bridge", "mqtt"]
    assert (mqtt["package"], mqtt["entry_point"]) == ("sems-gateway", "gateway.bridges.mqtt:MqttBridge")
    assert (mqtt["api_version"], mqtt["error"]) == (API_VERSION, "")


def test_one_that_is_broken_is_told_and_the_others_are_listed(broken):
    code, found = plugins()
    assert code == 1
    assert "no_such_module" in found["bridge", "acme"]["error"]
    assert [name for (_, name), each in found.items() if each["error"]] == ["acme"]
    code, text = run()
    assert code == 1
    assert "no_such_module_[red]" in text


def test_with_a_configuration_what_it_names_also_what_is_not_there(broken, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "bridges:\n  a: {type: mqtt, payload: jsn}\n  b: {type: modbus, maps: [native, {map: nativ}, x.csv]}\n"
    )
    code, found = plugins(file)
    assert code == 1
    assert set(found) == {
        ("bridge", "mqtt"), ("bridge", "modbus"), ("payload", "jsn"), ("map", "native"), ("map", "nativ"),
    }  # fmt: skip
    assert "did you mean 'json'" in found["payload", "jsn"]["error"]
    assert run(tmp_path / "none.yaml")[0] == 2
