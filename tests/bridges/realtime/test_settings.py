"""`type: realtime` in a configuration: what is taken, what is refused, and that it can't be made to control."""

import io
from importlib.metadata import EntryPoint

import pytest
from rich.console import Console

from gateway.api.registry import GROUP, Registry
from gateway.bridges.open_api import OpenApiBridge
from gateway.bridges.realtime import RealtimeBridge
from gateway.cli import plan as show_plan
from gateway.run.settings import Config, ConfigError

GOOD = """\
bridges:
  supply:
    type: realtime
    client_id: me
    client_secret: hidden-text
    whitelist: [9010KETU218W0001]
"""


BRIDGES = {"realtime": RealtimeBridge, "open_api": OpenApiBridge}
REGISTRY = Registry(
    [
        EntryPoint(name, f"{bridge.__module__.removesuffix('.bridge')}:{bridge.__name__}", GROUP)
        for name, bridge in BRIDGES.items()
    ]
)


@pytest.fixture
def load(tmp_path):
    def load(text):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return Config.load(file, REGISTRY)

    return load


def problems(load, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert "hidden-text" not in str(caught.value)
    return [f"{p.line}: {p.where}: {p.text}" for p in caught.value.problems]


def test_a_good_one(load):
    settings = load(GOOD).bridges[0].settings
    assert settings.host == "https://eu-gateway.semsportal.com"
    assert settings.calls == 3600
    assert load(GOOD + "    url: http://127.0.0.1:1\n").bridges[0].settings.host == "http://127.0.0.1:1/"
    assert load(GOOD + "    calls_per_hour: 100\n").bridges[0].settings.calls == 100
    assert load(GOOD.replace("[9010KETU218W0001]", '"*"')).bridges[0].settings.whitelist.everything


def test_a_file_of_numbers_relative_to_the_configuration(load, tmp_path):
    (tmp_path / "numbers.txt").write_text("\ufeff# ours\n9010KETU218W0001\n\n9020KDTU219W0001 # roof\n")
    whitelist = load(GOOD.replace("[9010KETU218W0001]", "{file: numbers.txt}")).bridges[0].settings.whitelist
    assert whitelist.numbers == ("9010KETU218W0001", "9020KDTU219W0001")
    assert whitelist.file == tmp_path / "numbers.txt"
    (tmp_path / "numbers.csv").write_text('Serial number;Owner\n"9010KETU218W0001";Ann\n9020KDTU219W0001;Bob\n')
    whitelist = load(GOOD.replace("[9010KETU218W0001]", "{file: numbers.csv}")).bridges[0].settings.whitelist
    assert whitelist.numbers == ("9010KETU218W0001", "9020KDTU219W0001")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    client_id: me\n", "", "'client_id' is missing here"),
        ("    whitelist: [9010KETU218W0001]\n", "", "'whitelist' is missing here"),
        ("[9010KETU218W0001]", "[]", "no serial number is listed"),
        ("[9010KETU218W0001]", "{file: nowhere.txt}", "nowhere.txt can't be read"),
        ("[9010KETU218W0001]", '["9010*"]', "patterns are not taken"),
        (
            "client_id: me\n",
            "client_id: me\n    types: {A: invertor}\n",
            "there is no data type 'invertor'; did you mean 'inverter'?",
        ),
        ("client_id: me\n", "client_id: me\n    time_zone: Mars/Base\n", "is no time zone"),
        ("client_id: me\n", "client_id: me\n    take_dispatch: true\n", "unknown key 'take_dispatch'"),
        ("[9010KETU218W0001]", '"*"\n    overrides: {interfaces: {devices: null}}', "write the serial numbers"),
    ],
)
def test_what_is_wrong(load, old, new, expected):
    assert old in GOOD
    found = problems(load, GOOD.replace(old, new))
    assert any(expected in problem for problem in found), found


def test_it_cannot_be_given_commands_to_carry_out(load):
    found = problems(load, GOOD + "control: {enabled: true, order: [supply]}\n")
    assert found == [
        "7: control.order[0]: bridge 'supply' (realtime) carries no commands out; take it out, or name one that does"
    ]


def test_overrides_are_in_force(load):
    text = GOOD + "    overrides: {codes: {X1: unauthorised}, interfaces: {inverter: {path: v2/inv}}}\n"
    catalogue = load(text).bridges[0].settings.catalogue
    assert catalogue.interface("inverter").path == "v2/inv"
    assert catalogue.error_of("X1") == "unauthorised"


def test_the_plan_for_so_many_inverters(load):
    settings = load(GOOD).bridges[0].settings
    console = Console(width=200, record=True, quiet=False, file=io.StringIO())
    show_plan.show_realtime(console, "supply", settings, [], 5000)
    show_plan.show_realtime(console, "supply", settings, [], None)
    text = console.export_text()
    assert "supply: 5000 numbers, 3600 calls an hour" in text
    assert "at most 74" in text
    assert "supply: 1 number, 3600 calls an hour" in text
    assert "at most 60 s old" in text
