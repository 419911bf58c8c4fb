"""A wrong configuration is told file, line, what is wrong and what to write instead."""

import json
from pathlib import Path

import pytest

from gateway.api.registry import installed
from gateway.run.settings import Config, ConfigError
from tests.kit.mosquitto import Certificates

GOOD = """\
gateway:
  id: plant-7
bridges:
  sems:
    type: open_api
    account: me
    password: secret-text
  mqtt:
    type: mqtt
    host: broker
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        file = tmp_path / "config.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Config.load(file, installed())

    return load


def test_a_good_one(load, tmp_path):
    config = load(GOOD)
    assert [(b.name, b.type) for b in config.bridges] == [("sems", "open_api"), ("mqtt", "mqtt")]
    assert config.data_dir == tmp_path / "data"
    assert not config.root.control.enabled
    assert "secret-text" not in repr(config)


def problems(load, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert "secret-text" not in str(caught.value)
    return [f"{p.line}: {p.where}: {p.text}" for p in caught.value.problems]


ALIASES = "[&a0 [x]" + "".join(f", &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]" for n in range(1, 9)) + "]"
"""A line of YAML that is 9 to the power of 8 values long once its aliases are followed."""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("type: mqtt", "type: mqqt", "9: bridges.mqtt.type: there is no bridge type 'mqqt'; did you mean 'mqtt'?"),
        ("    type: mqtt\n", "", "8: bridges.mqtt: add `type:`, one of"),
        ("host: broker", "hosst: broker", "10: bridges.mqtt.hosst: unknown key 'hosst'; did you mean 'host'?"),
        ("host: broker", "hosst: broker", "8: bridges.mqtt.host: 'host' is missing here; add it (name or address"),
        ("host: broker", "host: broker\n    port: many", "11: bridges.mqtt.port: input should be a valid integer"),
        ("host: broker", "host: broker\n    base: a/#", "11: bridges.mqtt.base: 'a/#' contains a wildcard"),
        ("gateway:", "gatevay:", "1: gatevay: unknown key 'gatevay'; did you mean 'gateway'?"),
        ("id: plant-7", "id: plant 7", "2: gateway.id: string should match pattern"),
        ("id: plant-7", "idd: x", "2: gateway.idd: unknown key 'idd'; did you mean 'id'?"),
        ("id: plant-7", "id: [", "4: this is no YAML:"),
        ("id: plant-7", f"id: {ALIASES}", "2: this is no YAML: with its aliases (*name) followed it has more than"),
        (
            "  id: plant-7",
            "\tid: x",
            "2: this is no YAML: found character that cannot start any token; indent with",
        ),
        (
            "id: plant-7",
            "id: a: b",
            "2: this is no YAML: mapping values are not allowed in this context; check the",
        ),
        ("account: me", "account: me\n    account: you", "7: bridges.sems.account: stands on line 6 already"),
        ("password: secret-text", "password: 1234", "7: bridges.sems.password: put the secret in quotes"),
        ("password: secret-text", "password: {file: /nowhere}", "7: bridges.sems.password: the secret file /nowhere"),
        ("password: secret-text", "password: {env: NOT_SET}", "7: bridges.sems.password: the environment variable"),
        ("password: secret-text", "password: {vault: x}", "7: bridges.sems.password: a secret is a text, {file: PATH}"),
        ("account: me", "account: me\n    time_zone: Mars/Base", "7: bridges.sems.time_zone: 'Mars/Base' is no time"),
        ("  sems:", "  cli:", "4: bridges.cli: the bridge name 'cli' is taken"),
        ("  sems:", "  'a b':", "4: bridges.a b: bridge name 'a b': use letters"),
    ],
)
def test_what_is_wrong_and_where(load, old, new, expected):
    assert old in GOOD
    found = problems(load, GOOD.replace(old, new))
    expected_line, expected_rest = expected.split(": ", 1)
    assert any(f.startswith(expected_line + ":") and expected_rest in f for f in found), found


CONTROL = """\
control:
  enabled: true
  order: [semms]
  allow:
    - devices: ["*"]
      setpoints: [active_power]
    - devices: ["*"]
      setpoints: [running]
      origins: [mqqt, "m*"]
"""


def test_rules_are_checked_too(load):
    found = problems(load, GOOD + CONTROL)
    assert found == [
        "16: control.allow[0].setpoints[0]: there is no setpoint 'active_power'; did you mean 'active_power_limit'?"
    ]
    found = problems(load, GOOD + CONTROL.replace("active_power]", "active_power_limit]"))
    assert found == [
        "13: control.order[0]: there is no bridge 'semms'; did you mean 'sems'?",
        "19: control.allow[1].origins[0]: there is no bridge 'mqqt'; did you mean 'mqtt'?",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'bridges' is missing"),
        ("- a list", "write `key: value` lines"),
        ("just text", "write `key: value` lines"),
        ("bridges: {}", "there is no bridge; name at least one"),
        ("bridges: 5", "bridges"),
        ("bridges: {mqtt: 5}", "bridges.mqtt"),
        (b"\xff\xfe\x00", "can't be read"),
        ("bridges: " + "[" * 5000, "YAML"),
    ],
)
def test_files_that_are_no_configuration(load, text, says):
    assert says in problems(load, text)[0]


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.example\.yaml"):
        Config.load(tmp_path / "none.yaml", installed())


def test_a_directory_is_no_configuration_and_that_is_said_in_plain_words(tmp_path):
    with pytest.raises(ConfigError, match=r"can't be read \(Is a directory\); name another file") as told:
        Config.load(tmp_path, installed())
    assert "Errno" not in str(told.value)


def test_the_environment_overrides_and_secrets_may_come_from_files(load, monkeypatch, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("from-file\n")
    monkeypatch.setenv("SEMS_GATEWAY_BRIDGES__MQTT__PORT", "1884")
    monkeypatch.setenv("SEMS_GATEWAY_GATEWAY__ID", "from-env")
    monkeypatch.setenv("PW", "from-env")
    config = load(GOOD.replace("secret-text", f"{{file: {secret}}}"))
    sems, mqtt = (bridge.settings for bridge in config.bridges)
    assert (config.root.gateway.id, mqtt.port) == ("from-env", 1884)
    assert sems.password.get_secret_value() == "from-file"
    sems, _ = (bridge.settings for bridge in load(GOOD.replace("secret-text", "{env: PW}")).bridges)
    assert sems.password.get_secret_value() == "from-env"


def test_every_relative_path_starts_at_the_configuration_wherever_the_gateway_is_started(tmp_path, monkeypatch):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    (site / "tls").mkdir(parents=True)
    elsewhere.mkdir()
    made = Certificates(site / "tls")
    (site / "secret").write_text("a-secret-of-16-characters")
    (site / "numbers.txt").write_text("9010KETU218W0001")
    (site / "overrides.yaml").write_text("{}")
    (site / "own.csv").write_text("address,type,scale,point,access\n40000,int32,1,ac_power,r\n")
    names = {path: f"tls/{path.name}" for path in (made.ca, made.cert, made.key)}
    server = {"certificate": names[made.cert], "key": names[made.key]}
    kafka = {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "sasl": {"username": "u", "password": {"file": "secret"}},
        "tls": {"ca": names[made.ca]} | server,
    }
    bridges = {
        "sems": {"type": "open_api", "account": "me", "password": {"file": "secret"}, "overrides": "overrides.yaml"},
        "mqtt": {
            "type": "mqtt", "host": "broker", "password": {"file": "secret"}, "username": "u",
            "tls": {"ca": names[made.ca], "certfile": names[made.cert], "keyfile": names[made.key]},
        },
        "modbus": {
            "type": "modbus", "maps": ["own.csv"],
            "tls": server | {"client_ca": names[made.ca]},
        },
        "web": {"type": "web", "tokens": {"page": {"token": {"file": "secret"}}}, "tls": server},
        "push": {"type": "push", "secret": {"file": "secret"}, "tls": server},
        "batch": {"type": "batch", "connection": kafka, "supplier": "x", "whitelist": {"file": "numbers.txt"}},
    }  # fmt: skip
    (site / "config.yaml").write_text(json.dumps({"gateway": {"data_dir": "kept"}, "bridges": bridges}))
    monkeypatch.chdir(elsewhere)
    config = Config.load(Path("../site/config.yaml"), installed())
    found = {bridge.name: bridge.settings for bridge in config.bridges}
    assert config.data_dir == site / "kept"
    assert found["sems"].password.get_secret_value() == "a-secret-of-16-characters"
    assert found["batch"].connection.sasl.password_file.read_text() == "a-secret-of-16-characters"
    assert "9010KETU218W0001" in found["batch"].whitelist
    assert all(path.is_file() for path in config.secret_files)
    (site / "secret").unlink()
    with pytest.raises(ConfigError, match=r"the secret file \.\./site/secret can't be read"):
        Config.load(Path("../site/config.yaml"), installed())


@pytest.mark.parametrize("name", ["revert", "gateway", "cli", "Revert", "GATEWAY", "Cli"])
def test_no_bridge_has_a_name_under_which_somebody_else_commands(tmp_path, name):
    file = tmp_path / "config.yaml"
    file.write_text(f"bridges:\n  {name}: {{type: mqtt, host: 127.0.0.1}}\n")
    with pytest.raises(ConfigError, match=f"{name}' is taken") as raised:
        Config.load(file, installed())
    assert [problem.line for problem in raised.value.problems] == [2]


@pytest.mark.parametrize("line", ["x\\e[31m\\nfake", "x\\u2028fake", "x\\u202efake", "x y", "x.y", "x/y", ""])
def test_a_name_of_a_bridge_is_letters_digits_and_dashes_and_is_shown_in_one_line(tmp_path, line):
    file = tmp_path / "config.yaml"
    file.write_text(f'bridges: {{"{line}": {{type: web, port: 0}}}}\n')
    with pytest.raises(ConfigError) as raised:
        Config.load(file, installed())
    (told,) = raised.value.lines()
    assert "use letters, digits, - and _ only" in told
    assert told.isprintable()


def test_whatever_is_odd_elsewhere_is_shown_in_one_line_too(tmp_path):
    odd = r'"x\e[31m\nfake"'
    file = tmp_path / "config.yaml"
    file.write_text(
        f"{odd}: 1\ncontrol: {{order: [{odd}]}}\n"
        f"bridges: {{web: {{type: {odd}}}, mqtt: {{type: mqtt, host: h, {odd}: 1}}}}\n"
    )
    with pytest.raises(ConfigError) as raised:
        Config.load(file, installed())
    assert len(raised.value.lines()) >= 3
    assert all(line.isprintable() for line in raised.value.lines())
