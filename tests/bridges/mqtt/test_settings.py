import pytest
from pydantic import ValidationError

from gateway.bridges.mqtt.settings import MqttSettings


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
        ({"tls": {"ca": "/no/such/file"}}, "not point to a file"),
        ({"topic": "x"}, "Extra inputs"),
        ({"host": ""}, "at least 1 character"),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(ValidationError, match=words):
        MqttSettings(**{"host": "x"} | settings)


def test_a_password_does_not_print_itself():
    assert "hush" not in repr(MqttSettings(host="x", username="u", password="hush"))
