"""`sems-gateway init`: from nothing to a configuration that works, by questions or by options."""

import signal
import stat

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from gateway.api.registry import installed
from gateway.cli import app
from gateway.run.schema import json_schema
from gateway.run.settings import Config
from tests.kit.mosquitto import Mosquitto
from tests.kit.ports import free_port
from tests.kit.process import eventually, sems_gateway
from tests.kit.terminal import on_terminal


def init(*words):
    return CliRunner().invoke(app, ["init", *map(str, words)])


@pytest.fixture
def secret(tmp_path):
    def secret(name, text):
        file = tmp_path / name
        file.write_text(f"{text}\n")
        file.chmod(0o600)
        return file

    return secret


@pytest.fixture
def file(tmp_path):
    return tmp_path / "plant" / "config.yaml"


def loaded(file):
    config = Config.load(file, installed())
    assert config.warnings() == []
    assert not [*Draft202012Validator(json_schema(installed())).iter_errors(yaml.safe_load(file.read_text()))]
    return config


def test_options_alone_make_a_whole_one(file, secret):
    password, broker = secret("a", "geheim: #1"), secret("b", "for the broker")
    file.parent.mkdir()
    done = init(
        file, "--yes", "--no-try", "--kind", "classic", "--account", "me@firma.de", "--password-file", password,
        "--mqtt", "192.168.1.20:1884", "--mqtt-username", "gw", "--mqtt-password-file", broker, "--home-assistant",
        "--modbus", "0.0.0.0:502", "--control", "active_power_limit", "--control", "running",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    config = loaded(file)
    sems, mqtt, modbus = (bridge.settings for bridge in config.bridges)
    assert (sems.account, sems.password.get_secret_value()) == ("me@firma.de", "geheim: #1")
    assert (mqtt.host, mqtt.port, mqtt.username) == ("192.168.1.20", 1884, "gw")
    assert (mqtt.password.get_secret_value(), mqtt.home_assistant.enabled) == ("for the broker", True)
    assert (modbus.host, modbus.port) == ("0.0.0.0", 502)
    (rule,) = config.root.control.allow
    assert [*rule.setpoints] == ["active_power_limit", "running"]
    assert "geheim" not in file.read_text()
    for made in file.parent.glob("config.*"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o600, made


LONG = "firstname.lastname@a-solar-park-of-a-long-name.de"
FAR = "a3k7odshaiipe8-ats.iot.eu-central-1.amazonaws.com"


def test_long_answers_are_written_whole(file, secret):
    done = init(
        file, "--yes", "--no-try", "--account", LONG, "--password-file", secret("s", "x"), "--mqtt", f"{FAR}:8883",
        "--modbus", "[::1]:1502",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    sems, mqtt, modbus = (bridge.settings for bridge in loaded(file).bridges)
    assert (sems.account, mqtt.host, mqtt.port, modbus.host, modbus.port) == (LONG, FAR, 8883, "::1", 1502)


@pytest.mark.parametrize(
    "words",
    [
        ["--mqtt", "mqtt://h:1883"],
        ["--mqtt", "h:99999"],
        ["--mqtt", "h:abc"],
        ["--mqtt", ""],
        ["--mqtt", "h ost"],
        ["--modbus", "70000"],
        ["--url", "ftp://h"],
        ["--url", "https://user:pw@h"],
        ["--kind", "developer", "--region", "xx"],
        ["--home-assistant"],
        ["--mqtt-username", "me"],
    ],
)
def test_what_check_would_refuse_is_not_written_though_nothing_is_tried(file, secret, words):
    done = init(file, "--yes", "--no-try", "--account", "a", "--password-file", secret("s", "x"), *words)
    assert done.exit_code == 2, done.output
    assert not [*file.parent.glob("*config*")]


@pytest.mark.parametrize("text", ["", "two\nlines", "\n"])
def test_a_secret_is_one_line(file, secret, text):
    done = init(file, "--yes", "--no-try", "--account", "a", "--password-file", secret("s", text))
    assert (done.exit_code, "one line" in " ".join(done.output.split())) == (2, True)


def test_a_secret_that_is_there_is_kept_and_what_can_not_be_written_leaves_nothing(file, secret):
    file.parent.mkdir()
    kept = file.with_name("config.sems-password")
    kept.write_text("old")
    words = ["--yes", "--no-try", "--account", "a", "--password-file", secret("s", "x")]
    done = init(file, *words)
    assert (done.exit_code, kept.read_text(), file.exists()) == (2, "old", False)
    kept.unlink()
    file.mkdir()
    done = init(file, "--force", *words)
    assert done.exit_code == 2
    assert [*file.parent.iterdir()] == [file]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--kind", "developer", "--region", "au"], {"platform": "developer", "region": "au"}),
        (["--kind", "realtime", "--whitelist", "SN1, SN2"], {"region": "eu"}),
        (["--kind", "realtime", "--url", "https://10.0.0.1"], {}),
    ],
)
def test_the_other_accesses(file, secret, words, settings):
    done = init(file, "--yes", "--no-try", "--account", "id", "--password-file", secret("s", "x"), *words)
    assert done.exit_code == 0, done.output
    config = loaded(file)
    (bridge,) = config.bridges
    assert bridge.settings.client_id == "id"
    assert bridge.settings.client_secret.get_secret_value() == "x"
    assert {name: str(getattr(bridge.settings, name)) for name in settings} == settings
    assert not config.root.control.enabled


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "say --account"),
        (["--account", "a"], "say --password-file FILE"),
        (["--kind", "clasic"], "did you mean 'classic'?"),
        (["--account", "a", "--password-file", "/nowhere"], "there is no file /nowhere"),
    ],
)
def test_without_a_terminal_what_is_missing_is_named(file, words, says):
    done = init(file, "--no-try", *words)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())
    assert not file.exists()


def test_a_setpoint_that_there_is_not_is_named(file, secret):
    done = init(
        file, "--yes", "--no-try", "--account", "a", "--password-file", secret("s", "x"), "--control", "activ_power_li"
    )  # fmt: skip
    assert (done.exit_code, "did you mean 'active_power_limit'?" in done.output) == (2, True)
    assert not file.exists()


def test_a_file_that_is_there_is_kept(tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    done = init(tmp_path / "config.yaml", "--yes", "--account", "a")
    assert (done.exit_code, "--force" in done.output) == (2, True)
    assert (tmp_path / "config.yaml").read_text() == "mine"


@pytest.fixture
def simulator():
    with sems_gateway("simulate", "--port", "0") as program:
        yield program.line(r"ready sems=(\S+)")[1]


@pytest.mark.system
def test_each_answer_is_tried_and_what_fails_writes_nothing(file, secret, simulator):
    words = ["--yes", "--account", "demo", "--url", simulator]
    done = init(file, *words, "--password-file", secret("wrong", "no"))
    assert done.exit_code == 1
    assert "refused the login" in done.output
    assert not [*file.parent.iterdir()]
    done = init(file, *words, "--password-file", secret("right", "demo"), "--modbus", free_port())
    assert done.exit_code == 0, done.output
    assert "inverters" in done.output
    assert "is free" in done.output
    loaded(file)
    assert [*(file.parent / "data").glob("*-session.json")], "the gateway would have to log in again"


@pytest.mark.system
async def test_at_a_terminal_it_asks_and_asks_again(file, simulator, tmp_path):
    broker = Mosquitto(tmp_path)
    await broker.start()
    try:
        with on_terminal("init", file, "--url", simulator) as it:
            it.says("Which access to SEMS do you have?")
            it.type("classic")
            it.says("SEMS account")
            it.type("demo")
            it.says("Its password")
            it.type("wrong")
            it.says("Answer again?")
            assert "refused the login" in it.written
            it.type("y")
            it.says("SEMS account")
            it.type("demo")
            it.says("Its password")
            it.type("demo")
            it.says("MQTT, for Home Assistant")
            assert "inverters" in it.written
            it.type("y")
            it.says("Broker")
            it.type(f"127.0.0.1:{broker.port}")
            it.says("User at the broker")
            it.type("")
            it.says("Let Home Assistant find the devices?")
            it.type("y")
            it.says("Modbus TCP, for SCADA")
            assert "lets us in" in it.written
            it.type("n")
            it.says("Which may be set?")
            it.type("active_power_limit, battery_mode")
            it.says("Next:")
            eventually(lambda: it.process.poll() == 0)
    finally:
        await broker.stop()
    config = loaded(file)
    assert [bridge.name for bridge in config.bridges] == ["sems", "mqtt"]
    assert config.bridges[1].settings.home_assistant.enabled
    assert [*config.root.control.allow[0].setpoints] == ["active_power_limit", "battery_mode"]


@pytest.mark.system
def test_at_a_terminal_each_wrong_answer_says_what_it_takes_and_is_asked_again(file):
    with on_terminal("init", file, "--no-try") as it:
        it.says("Which access to SEMS do you have?")
        it.type("1")
        it.says("Which access to SEMS do you have?")
        assert "there is no access of the kind '1'; known here: classic, developer, realtime" in it.written
        it.type("developer")
        for asked, answer in [("Client id", "id"), ("Client secret", "x"), ("Region (", "mars"), ("Region (", "au")]:
            it.says(asked)
            if answer == "au":
                assert "there is no region 'mars'; known here: eu, au" in it.written
            it.type(answer)
        it.says("MQTT, for Home Assistant")
        it.type("no")
        it.says("Modbus TCP, for SCADA")
        it.type("")
        it.says("Reached from other machines?")
        it.type("127.0.0.1:25920")
        it.says("Reached from other machines?")
        assert "answer y for yes, or n for no" in it.written
        it.type("N")
        for wrong in ("port", "0", "65536"):
            it.says("Port [5020]")
            it.type(wrong)
            it.says("Port [5020]")
            assert f"'{wrong}' is no port; write a number from 1 to 65535" in it.written
            assert "Reached" not in it.written
        it.type("1502")
        it.says("Which may be set?")
        it.type("activ_power_limit")
        it.says("Which may be set?")
        assert "did you mean 'active_power_limit'?" in it.written
        it.type("active_power_limit")
        it.says("Next:")
        eventually(lambda: it.process.poll() == 0)
    sems, modbus = (bridge.settings for bridge in loaded(file).bridges)
    assert (sems.client_id, str(sems.region), modbus.host, modbus.port) == ("id", "au", "127.0.0.1", 1502)


@pytest.mark.system
def test_broken_off_at_a_terminal_it_leaves_nothing(file, simulator):
    with on_terminal("init", file, "--url", simulator, "--account", "demo", "--kind", "classic") as it:
        it.says("Its password")
        it.type("demo")
        it.says("MQTT, for Home Assistant")
        assert "inverters" in it.written
        assert not [*file.parent.iterdir()]
        it.process.send_signal(signal.SIGINT)
        eventually(lambda: it.process.poll() is not None)
    assert it.process.returncode != 0
    assert not [*file.parent.iterdir()]
