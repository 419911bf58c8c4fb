"""What people write and do not mean is refused or doubted, with what to write instead, and where."""

import pytest

from gateway.api.registry import installed
from gateway.run.settings import Config, ConfigError

GOOD = """\
bridges:
  sems:
    type: open_api
    account: me@firma.de
    password: secret-text
  mqtt:
    type: mqtt
    host: 192.168.1.20
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        file.chmod(0o600)
        return Config.load(file, installed())

    return load


def refused(load, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert "secret-text" not in str(caught.value)
    return [line.removeprefix(f"{caught.value.file.parent}/") for line in caught.value.lines()]


def doubted(load, text):
    found = load(text).warnings()
    assert not any("secret-text" in line for line in found)
    return [line.rpartition("config.yaml:")[2] for line in found]


def test_nothing_is_wrong_with_a_good_one(load):
    assert doubted(load, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("secret-text", "${SEMS_PASSWORD}", "config.yaml:5: bridges.sems.password: ${SEMS_PASSWORD} is not replaced"),
        ("me@firma.de", "${ACCOUNT}", "config.yaml:4: bridges.sems.account: ${ACCOUNT} is not replaced"),
        (
            "192.168.1.20",
            "localhost:1883",
            "config.yaml:8: bridges.mqtt.host: write `host: localhost` and `port: 1883`",
        ),
        ("192.168.1.20", "'[::1]:1883'", "config.yaml:8: bridges.mqtt.host: write `host: ::1` and `port: 1883`"),
        ("192.168.1.20", "mqtt://localhost", "config.yaml:8: bridges.mqtt.host: write the name or address alone"),
        ("192.168.1.20", "mqtts://a.b:8883", "config.yaml:8: bridges.mqtt.host: write the name or address alone"),
        ("192.168.1.20", "broker/sems", "config.yaml:8: bridges.mqtt.host: this is no name or address of a host"),
        ("192.168.1.20", "my broker", "config.yaml:8: bridges.mqtt.host: this is no name or address of a host"),
        (
            "secret-text",
            "secret-text\n    url: https://eu.semsportal.com/api/OpenApi/",
            "config.yaml:6: bridges.sems.url: write the host alone, https://eu.semsportal.com;",
        ),
        ("192.168.1.20", "b\n  web: {type: web, host: 'http://0.0.0.0'}", "config.yaml:9: bridges.web.host: write the"),
    ],
)
def test_what_can_not_work_is_refused(load, old, new, expected):
    (line,) = refused(load, GOOD.replace(old, new))
    assert line.startswith(expected)


@pytest.mark.parametrize("host", ["192.168.1.20", "broker", "mqtt.firma.de", "::1", "fe80::1%eth0", "bröker.local"])
def test_hosts_are_taken(load, host):
    assert doubted(load, GOOD.replace("192.168.1.20", f"'{host}'")) == []


@pytest.mark.parametrize(
    "url", ["https://eu.semsportal.com", "https://10.0.0.1:8443/", "http://127.0.0.1:8080", "http://[::1]:8080"]
)
def test_urls_are_taken(load, url):
    assert doubted(load, GOOD.replace("secret-text", f"secret-text\n    url: {url}")) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("secret-text", "CHANGE_ME", "5: bridges.sems.password: this still is what the example says"),
        ("secret-text", "your password", "5: bridges.sems.password: this still is what the example says"),
        ("secret-text", "change-me", "5: bridges.sems.password: this still is what the example says"),
        ("me@firma.de", "you@example.com", "4: bridges.sems.account: this still is what the example says"),
        ("192.168.1.20", "mqtt.example.com", "8: bridges.mqtt.host: this still is what the example says"),
        ("secret-text", "se #cret", "5: bridges.sems.password: YAML takes what follows ` #` for a comment"),
        (
            "secret-text",
            "secret-text\n    url: http://eu.semsportal.com",
            "6: bridges.sems.url: with http:// the login crosses",
        ),
        ("bridges:", "control: {enabled: true}\nbridges:", "1: control.enabled: no rule lets anything be written"),
    ],
)
def test_what_is_hardly_meant_is_told(load, old, new, expected):
    (line,) = doubted(load, GOOD.replace(old, new))
    assert line.startswith(expected)


@pytest.mark.parametrize("secret", ["'se #cret'", '"se #cret"', "secret-text   # from the vault", "se#cret"])
def test_a_secret_in_quotes_and_a_comment_are_no_reason_for_doubt(load, secret):
    assert doubted(load, GOOD.replace("secret-text", secret)) == []


@pytest.mark.parametrize(
    ("bridges", "expected"),
    [
        ("a: {type: modbus}\n  b: {type: modbus}", "bridges.b.port: TCP port 5020 is that of bridges.a already"),
        (
            "a: {type: modbus, host: 0.0.0.0}\n  b: {type: web, port: 5020}",
            "bridges.b.port: TCP port 5020 is that of bridges.a already",
        ),
        (
            "a: {type: modbus, ports: 3}\n  b: {type: push, port: 5022, secret: 0123456789abcdef}",
            "bridges.b.port: TCP port 5022 is that of bridges.a already",
        ),
        (
            "a: {type: modbus, listeners: [{port: 802}]}\n  b: {type: modbus, port: 802}",
            "bridges.b.port: TCP port 802 is that of bridges.a already",
        ),
        (
            "a: {type: modbus, maps: [goodwe], udp: {}}\n  b: {type: modbus, port: 5, maps: [goodwe], udp: {}}",
            "bridges.b.udp[0].port: UDP port 8899 is that of bridges.a already",
        ),
        (
            "a: {type: modbus, host: localhost}\n  b: {type: modbus}",
            "bridges.b.port: TCP port 5020 is that of bridges.a already",
        ),
        (
            "again: {type: mqtt, host: 192.168.1.20}",
            "bridges.again.client_id: client id sems-gateway-sems-gateway at 192.168.1.20:1883 is that of bridges.mqtt",
        ),
    ],
)
def test_what_one_alone_can_have_is_not_given_to_two(load, bridges, expected):
    (line,) = refused(load, f"{GOOD}  {bridges}\n")
    assert expected in line
    assert line.startswith("config.yaml:")


@pytest.mark.parametrize(
    "bridges",
    [
        "a: {type: modbus, host: 127.0.0.1}\n  b: {type: modbus, host: 127.0.0.2}",
        "a: {type: modbus, port: 0}\n  b: {type: modbus, port: 0}",
        "a: {type: modbus, host: 0.0.0.0}\n  b: {type: modbus, host: '::'}",
        "a: {type: modbus, port: 8899, maps: [goodwe], udp: {port: 8899}}",
        "again: {type: mqtt, host: 192.168.1.20, client_id: another}",
        "other: {type: mqtt, host: 192.168.1.21}",
    ],
)
def test_what_does_not_meet_is_taken(load, bridges):
    assert doubted(load, f"{GOOD}  {bridges}\n") == []


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SEMS_GATEWAY_LOGG__LEVEL", "debug", "SEMS_GATEWAY_LOGG__LEVEL: there is no section 'logg'; did you mean"),
        ("SEMS_GATEWAY_LOG__LEVEL", "loud", "SEMS_GATEWAY_LOG__LEVEL: log.level: input should be 'debug'"),
        ("SEMS_GATEWAY_LOG__LEVELL", "info", "SEMS_GATEWAY_LOG__LEVELL: log.levell: unknown key"),
        ("SEMS_GATEWAY_LOG", "info", "SEMS_GATEWAY_LOG: a whole section is written in JSON"),
        ("SEMS_GATEWAY_BRIDGES__MQTT__PORT", "x", "SEMS_GATEWAY_BRIDGES__MQTT__PORT: bridges.mqtt.port: input should"),
        ("SEMS_GATEWAY_BRIDGES__MQTT__HOST", "a:1", "SEMS_GATEWAY_BRIDGES__MQTT__HOST: bridges.mqtt.host: write"),
        (
            "SEMS_GATEWAY_BRIDGES__MQTTT__PORT",
            "1",
            "SEMS_GATEWAY_BRIDGES__MQTTT__PORT: bridges.mqttt: the file has no such bridge; did you",
        ),
    ],
)  # fmt: skip
def test_a_variable_is_blamed_for_what_it_sets(load, monkeypatch, variable, value, expected):
    monkeypatch.setenv(variable, value)
    (line,) = refused(load, GOOD)
    assert line.startswith(expected)


def test_a_doubt_about_a_variable_names_it(load, monkeypatch):
    monkeypatch.setenv("SEMS_GATEWAY_BRIDGES__SEMS__PASSWORD", "change-me")
    assert load(GOOD).warnings()[0].startswith("SEMS_GATEWAY_BRIDGES__SEMS__PASSWORD: bridges.sems.password: this")


def test_other_variables_with_our_prefix_are_nobodys_mistake(load, monkeypatch):
    monkeypatch.setenv("SEMS_GATEWAY_NO_SKIP", "1")
    assert doubted(load, GOOD) == []


def test_a_variable_that_names_a_file_as_the_file_would_is_doubted(load, monkeypatch):
    monkeypatch.setenv("SEMS_GATEWAY_BRIDGES__SEMS__PASSWORD", '{"file": "/run/secrets/sems"}')
    assert "this is taken for the secret itself" in load(GOOD).warnings()[0]


def test_a_section_of_which_all_is_commented_out_is_none(load):
    assert doubted(load, GOOD + "control:\nlog:\n") == []
