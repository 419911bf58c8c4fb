import pytest
from pydantic import ValidationError

from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.settings import MqttSettings
from tests.kit.certificates import Authority


def test_a_host_is_enough():
    settings = MqttSettings(host="broker")
    assert (settings.port, settings.base, settings.qos, settings.retain) == (1883, "sems", 1, True)
    assert (settings.protocol, settings.keepalive, settings.points, settings.ttl) == ("5", 60, False, 60)


def test_protocol_may_be_a_number_as_yaml_reads_it():
    assert MqttSettings(host="x", protocol=5).protocol == "5"
    assert MqttSettings(host="x", protocol="3.1.1").protocol == "3.1.1"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base": "/sems"}, "without / at an end"),
        ({"base": "sems/"}, "without / at an end"),
        ({"base": "a//b"}, "without / at an end"),
        ({"base": ""}, "without / at an end"),
        ({"base": "sems/#"}, "wildcard"),
        ({"base": "+/sems"}, "wildcard"),
        ({"base": "$SYS/x"}, "broker's own"),
        ({"base": "a\nb"}, "control character"),
        ({"protocol": "4"}, "3.1.1"),
        ({"protocol": True}, "3.1.1"),
        ({"qos": 3}, "0, 1 or 2"),
        ({"password": "x"}, "needs username"),
        ({"tls": {"keyfile": __file__}}, "needs certfile"),
        ({"tls": {"ca": "/no/such/file"}}, "there is no file"),
        ({"topic": "x"}, "Extra inputs"),
        ({"host": ""}, "at least 1 character"),
        ({"base": "x" * 501}, "at most 500 characters"),
        ({"tls": {"keyfile_password": "x"}}, "needs keyfile"),
        ({"tls": {"insecure": True}}, "Extra inputs"),
        ({"tls": {"alpn": [""]}}, "at least 1 character"),
        ({"path": "/x"}, "need transport: websockets"),
        ({"headers": {"a": "b"}}, "need transport: websockets"),
        ({"transport": "websockets", "path": "x"}, "pattern"),
        ({"transport": "websockets", "path": "/x y"}, "pattern"),
        ({"transport": "websockets", "headers": {"a:b": "c"}}, "pattern"),
        ({"transport": "websockets", "headers": {"a": "b\r\nc: d"}}, "control character"),
        ({"session_expiry": 60, "protocol": "3.1.1"}, "needs protocol: 5"),
        ({"session_expiry": 60, "qos": 2}, "needs QoS 0 or 1"),
        ({"session_expiry": 60, "delivery": {"result": {"qos": 2}}}, "needs QoS 0 or 1"),
        ({"session_expiry": -1}, "greater than or equal to 0"),
        ({"delivery": {"states": {"qos": 1}}}, "Extra inputs"),
        ({"delivery": {"state": {"qos": 3}}}, "0, 1 or 2"),
        ({"response_topics": ["#"]}, "wildcard"),
        ({"response_topics": ["a/+/b"]}, "wildcard"),
        ({"response_topics": ["a#"]}, "wildcard"),
        ({"response_topics": ["/#"]}, "must be one or more levels"),
        ({"response_topics": ["$share/x"]}, "broker's own"),
        ({"response_topics": ["sems/#"]}, "must not lie in each other"),
        ({"response_topics": ["sems/SN/set"]}, "must not lie in each other"),
        ({"response_topics": ["site/#"], "base": "site/7/sems"}, "must not lie in each other"),
        ({"response_topics": ["spBv1.0/x/#"]}, "must not lie in each other"),
        ({"response_topics": ["homeassistant/#"], "home_assistant": True}, "must not lie in each other"),
        ({"requests": ["reboot"]}, "'devices', 'health', 'restart', 'log_level', 'halt' or 'resume'"),
        ({"home_assistant": {"enabled": True, "prefix": "sems"}}, "must not lie in each other"),
        ({"home_assistant": {"enabled": True, "prefix": "sems/ha"}}, "must not lie in each other"),
        ({"home_assistant": True, "base": "homeassistant/sems"}, "must not lie in each other"),
        ({"home_assistant": {"enabled": True, "status_topic": "sems/x"}}, "must not lie under base"),
        ({"home_assistant": {"enabled": True, "prefix": "a/#"}}, "wildcard"),
        ({"home_assistant": True, "payload": "sparkplug"}, "needs payload: json"),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(ValidationError, match=words):
        MqttSettings(**{"host": "x"} | settings)


def test_a_password_does_not_print_itself():
    assert "hush" not in repr(MqttSettings(host="x", username="u", password="hush"))


def test_home_assistant_is_turned_on_by_true():
    assert not MqttSettings(host="x").home_assistant.enabled
    assert not MqttSettings(host="x", home_assistant=False, base="homeassistant").home_assistant.enabled
    assert MqttSettings(host="x", home_assistant=True).home_assistant.prefix == "homeassistant"


def test_a_class_of_topics_follows_the_bridges_own_settings_where_it_says_nothing():
    settings = MqttSettings(host="x", qos=2, retain=False, delivery={"state": {"qos": 0}, "bridge": {"retain": False}})
    sent = {what: (settings.sending(what).qos, settings.sending(what).retain) for what in TopicClass}
    assert sent == {
        "state": (0, False), "points": (2, False), "availability": (2, True), "device": (2, True),
        "bridge": (2, False), "discovery": (2, True), "result": (1, False), "response": (1, False),
    }  # fmt: skip


def test_headers_and_key_passwords_do_not_print_themselves(tmp_path):
    certificate, key = Authority(tmp_path).sign("gateway")
    settings = MqttSettings(
        host="x",
        transport="websockets",
        headers={"Authorization": "hush"},
        tls={"certfile": certificate, "keyfile": key, "keyfile_password": "hush"},
    )
    assert "hush" not in repr(settings)
