"""`sems-gateway interfaces`: what there is, and how far each line can be relied on."""

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gateway import cli
from gateway.cli.interfaces import FORMS, chosen, field_lines
from gateway.sems.catalogue import load

CONFIG = """\
bridges:
  classic:
    type: open_api
    account: a
    password: b
    overrides: {interfaces: {GetPlantIncome: null, GetInverterBySN: {path: v2/inverter, fields: {pac: {scale: 1000}}}}}
  newer: {type: open_api, platform: developer, client_id: a, client_secret: b}
  mqtt: {type: mqtt, host: broker}
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr("gateway.cli.interfaces.out", Console(width=240, highlight=False, soft_wrap=True))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        done = CliRunner().invoke(cli.app, ["interfaces", *arguments])
        return done.exit_code, done.output

    return run


@pytest.mark.parametrize(
    ("form", "names"),
    [("plant", 9), ("device", 10), ("remote control", 8), ("data logger", 4), ("session", 1), (None, 32)],
)
def test_31_in_4_forms_and_the_one_to_enter(form, names):
    catalogue = load("open_api")
    assert len(chosen(catalogue, form)) == names
    assert [i.form for i in chosen(catalogue, None)] == [f for f in (*FORMS, "session") for _ in chosen(catalogue, f)]


def test_the_list_says_of_each_where_it_comes_from(run):
    code, text = run()
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == "SEMS Open API, classic, below /api/OpenApi/"
    assert sum(line.split()[-1] in {"intro", "seen", "assumed"} for line in lines[2:34]) == 32
    assert next(line for line in lines if line.startswith("SetWorkMode ")).split()[-1] == "assumed"
    assert lines[34].startswith("31 interfaces and the one to enter: 10 seen, 22 assumed. ")
    assert "assumed: our own choice, not GoodWe's word" in lines[35]


def test_one_form_and_one_interface(run):
    _, text = run("--form", "data logger")
    assert [line.split()[0] for line in text.splitlines()[2:6]] == [
        "GetDataLoggerList", "GetWeatherStation", "GetSEC1000", "GetHomeKit"
    ]  # fmt: skip
    assert "4 interfaces: 4 assumed." in text
    _, text = run("--name", "SetInverterSwitch")
    assert "SetInverterSwitch: POST /api/OpenApi/SetInverterSwitch, assumed" in text
    assert 'InverterStatusSettingMark  "1"' in text
    assert "false = 2, true = 4" in text
    _, text = run("--api", "developer", "--name", "EvChargerTelemetry")
    assert next(x for x in text.splitlines() if "activePower" in x).split()[2:] == ["ev_power", "W", "1000", "seen"]


def test_a_configuration_shows_the_overrides_in_force(run):
    _, text = run("config.yaml")
    assert "30 interfaces and the one to enter" in text
    assert "GoodWe developer platform" in text
    bysn = next(line for line in text.splitlines() if line.startswith("GetInverterBySN "))
    assert (bysn.split()[3], bysn.split()[-1]) == ("v2/inverter", "config")
    _, text = run("config.yaml", "--api", "open_api", "--name", "GetInverterBySN")
    assert next(x for x in text.splitlines() if " pac " in x).split() == [
        "answered", "pac", "ac_power", "W", "1000", "config"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--form", "plnt"], "there is no form 'plnt'; did you mean 'plant'?"),
        (["--name", "GetMeter"], "there is no interface 'GetMeter'; did you mean 'GetMeterBySN'?"),
        (["mqtt.yaml"], "mqtt.yaml has no bridge that speaks to SEMS"),
        (["classic.yaml", "--api", "developer"], "classic.yaml has no bridge that speaks to SEMS over developer"),
        (["nowhere.yaml"], "there is no such file"),
    ],
)
def test_what_there_is_not(run, tmp_path, arguments, expected):
    (tmp_path / "mqtt.yaml").write_text("bridges: {mqtt: {type: mqtt, host: broker}}")
    (tmp_path / "classic.yaml").write_text("bridges: {sems: {type: open_api, account: a, password: b}}")
    code, text = run(*arguments)
    assert code == 2
    assert expected in text


def test_the_7_data_types_of_the_real_time_data_api(run):
    _, text = run("--api", "realtime", "--form", "data")
    assert [line.split()[0] for line in text.splitlines()[2:9]] == [
        "inverter", "storage", "battery", "meter", "ev_charger", "data_logger", "alarm"
    ]  # fmt: skip
    assert "7 interfaces: 7 assumed." in text


def test_json(run):
    _, text = run("--format", "json")
    whole = json.loads(text)
    assert whole["api"] == "open_api"
    assert len(whole["interfaces"]) == 32
    _, text = run("--format", "json", "--name", "GetMeterBySN")
    assert json.loads(text)["response"][0]["field"] == "last_refresh_time"


def test_markdown(run):
    _, text = run("--format", "markdown", "--name", "GetInverterPower")
    rows = [line for line in text.splitlines() if line.startswith("| answered")]
    assert rows[0] == "| answered | x | time |  |  | as local time; in pv | seen |"
    assert rows[3] == "| answered | pac | ac_power | W |  | in a bare list; unit and sign assumed | seen |"


@pytest.mark.parametrize("api", ["open_api", "developer", "realtime"])
def test_every_field_has_a_meaning(api):
    for interface in load(api).interfaces:
        assert all(line.meaning for line in field_lines(interface))
