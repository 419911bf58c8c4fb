"""Plugins by entry point."""

from importlib.metadata import EntryPoint

import pytest

from gateway.core.bridge import Controller, Sink
from gateway.core.registry import GROUP, DuplicateBridgeError, Registry, UnknownBridgeError, installed


def entry(name, value="gateway.bridges.local:LocalBridge"):
    return EntryPoint(name, value, GROUP)


def test_ours_are_installed():
    assert set(installed().types) >= {"local", "modbus", "mqtt", "open_api"}


@pytest.mark.parametrize("type_", ["local", "modbus", "mqtt", "open_api"])
def test_each_is_a_bridge_with_a_documented_setting_or_more(type_):
    bridge = installed().load(type_)
    assert all(field.description for field in bridge.Settings.model_fields.values())
    assert bridge.Settings.model_config["extra"] == "forbid"


def test_capabilities_are_told_by_what_is_implemented():
    open_api, mqtt = installed().load("open_api"), installed().load("mqtt")
    assert issubclass(open_api, Controller)
    assert not issubclass(open_api, Sink)
    assert issubclass(mqtt, Sink)
    assert not issubclass(mqtt, Controller)


def test_unknown_names_the_nearest():
    with pytest.raises(UnknownBridgeError, match="did you mean 'mqtt'"):
        Registry([entry("mqtt"), entry("modbus")]).load("mqqt")
    with pytest.raises(UnknownBridgeError, match="known types: modbus"):
        Registry([entry("modbus")]).load("xyz")


def test_duplicates_are_loud():
    with pytest.raises(DuplicateBridgeError, match="uninstall one"):
        Registry([entry("mqtt"), entry("mqtt", "other:Bridge")])


def test_the_same_one_found_twice_is_one():
    assert Registry([entry("mqtt"), entry("mqtt")]).types == ["mqtt"]
