"""Plugins by entry point."""

from importlib.metadata import EntryPoint

import pytest

from gateway.api.bridge import Sink
from gateway.api.registry import (
    GROUP,
    BrokenPluginError,
    DuplicatePluginError,
    PluginVersionError,
    Registry,
    UnknownPluginError,
    installed,
)
from gateway.api.version import API_VERSION, unfit
from gateway.core.controller import Controller


def entry(name, value="gateway.bridges.local:LocalBridge"):
    return EntryPoint(name, value, GROUP)


def test_ours_are_installed():
    assert set(installed().types) >= {"local", "modbus", "mqtt", "open_api"}


@pytest.mark.parametrize("type_", ["local", "modbus", "mqtt", "open_api"])
def test_each_is_a_bridge_with_a_documented_setting_or_more(type_):
    bridge = installed().load(type_)
    assert all(field.description for field in bridge.Settings.model_fields.values())
    assert bridge.Settings.model_config["extra"] == "forbid"


@pytest.mark.parametrize("type_", installed().types)
def test_settings_that_are_loaded_alone_are_those_of_the_bridge(type_):
    assert installed().settings(type_) is installed().load(type_).Settings


def test_settings_of_a_bridge_that_can_not_be_used_are_none():
    """Of a stranger's, nothing but its import says so, however well its settings alone could be had."""
    registry = Registry([entry("theirs", "tests.api.test_registry:NoBridge"), entry("gone", "no_such_package:Bridge")])
    with pytest.raises(BrokenPluginError, match="no start"):
        registry.settings("theirs")
    with pytest.raises(BrokenPluginError, match="fails to import"):
        registry.settings("gone")
    with pytest.raises(DuplicatePluginError):
        Registry([entry("mqtt"), entry("mqtt", "other:Bridge")]).settings("mqtt")


class NoBridge:
    api_version = API_VERSION
    Settings = object


def test_capabilities_are_told_by_what_is_implemented():
    open_api, mqtt = installed().load("open_api"), installed().load("mqtt")
    assert issubclass(open_api, Controller)
    assert not issubclass(open_api, Sink)
    assert issubclass(mqtt, Sink)
    assert not issubclass(mqtt, Controller)


def test_unknown_names_the_nearest():
    with pytest.raises(UnknownPluginError, match="did you mean 'mqtt'"):
        Registry([entry("mqtt"), entry("modbus")]).load("mqqt")
    with pytest.raises(UnknownPluginError, match="known here: modbus"):
        Registry([entry("modbus")]).load("xyz")


def test_duplicates_are_loud_to_who_uses_them_and_harm_nobody_else():
    registry = Registry([entry("mqtt"), entry("mqtt", "other:Bridge"), entry("local")])
    assert registry.load("local")
    with pytest.raises(DuplicatePluginError, match="uninstall all but one"):
        registry.load("mqtt")
    assert [p.entry_point for p in registry.listed() if "uninstall" in p.error] == [entry("mqtt").value, "other:Bridge"]


def test_the_same_one_found_twice_is_one():
    registry = Registry([entry("mqtt"), entry("mqtt")])
    assert registry.types == ["mqtt"]
    assert registry.load("mqtt")


STRANGE = """
from typing import ClassVar
from gateway.api import BridgeSettings
class Bridge:
    {says}
    Settings: ClassVar = {settings}
    def __init__(self, settings, context): pass
    async def start(self): pass
    async def stop(self): pass
"""


@pytest.fixture
def strange(tmp_path, monkeypatch):
    def strange(name, says="", settings="BridgeSettings", text=STRANGE):
        (tmp_path / f"{name}.py").write_text(text.format(says=says, settings=settings))
        monkeypatch.syspath_prepend(tmp_path)
        return Registry([entry("theirs", f"{name}:Bridge"), entry("local")])

    return strange


@pytest.mark.parametrize("version", [API_VERSION, "1.0"])
def test_a_strangers_that_fits_is_used(strange, version):
    registry = strange(f"strange_{version.replace('.', '_')}", f'api_version = "{version}"')
    assert registry.load("theirs").__name__ == "Bridge"
    assert [(p.name, p.api_version, p.error) for p in registry.listed()] == [
        ("local", API_VERSION, ""),
        ("theirs", version, ""),
    ]


@pytest.mark.parametrize(
    ("name", "says", "error", "do"),
    [
        ("strange_silent", "", PluginVersionError, "add api_version"),
        ("strange_old", 'api_version = "0.9"', PluginVersionError, "upgrade the plug-in"),
        ("strange_new", 'api_version = "2.0"', PluginVersionError, "upgrade sems-gateway"),
        ("strange_minor", 'api_version = "1.999"', PluginVersionError, "upgrade sems-gateway"),
        ("strange_number", 'api_version = "one"', PluginVersionError, "write api_version"),
        ("strange_dies", "raise RuntimeError('no such thing')", BrokenPluginError, "no such thing.*uninstall it"),
        ("strange_exits", "import no_such_module_here", BrokenPluginError, "no_such_module_here"),
    ],
)
def test_one_that_does_not_fit_says_what_to_do_and_harms_nobody_else(strange, name, says, error, do):
    registry = strange(name, says)
    with pytest.raises(error, match=do):
        registry.load("theirs")
    assert registry.load("local")
    ours, theirs = registry.listed()
    assert (ours.error, bool(theirs.error)) == ("", True)


def test_what_is_no_bridge_is_told(strange):
    with pytest.raises(BrokenPluginError, match="no BridgeSettings"):
        strange("strange_settings", 'api_version = "1.0"', settings="dict").load("theirs")
    with pytest.raises(BrokenPluginError, match="no start and no stop"):
        strange("strange_empty", text="class Bridge:\n    api_version = '1.0'\n    Settings = dict\n").load("theirs")


def test_versions():
    major, minor = map(int, API_VERSION.split("."))
    assert not unfit(API_VERSION)
    assert not unfit(f"{major}.0")
    for other in (f"{major + 1}.0", f"{major - 1}.0", f"{major}.{minor + 1}", "", "1", "1.0.0", "x.y"):
        assert unfit(other), other


def test_the_face_has_what_it_names():
    import gateway.api as face

    assert len(set(face.__all__)) == len(face.__all__)
    assert all(hasattr(face, name) for name in face.__all__)
