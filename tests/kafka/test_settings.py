"""How to reach a cluster: what is taken, and what is refused before anything starts."""

import pytest
from pydantic import ValidationError

from gateway.kafka import KafkaConnection
from tests.kit.certificates import Authority

SERVER = "kafka.example.com:9093"
SECRET = "nobody-may-see-this"


def connection(**settings):
    return KafkaConnection.model_validate({"bootstrap_servers": [SERVER]} | settings)


def refused(**settings):
    with pytest.raises(ValidationError) as caught:
        connection(**settings)
    return str(caught.value)


def test_servers_are_a_list_or_a_text_with_commas():
    assert connection(bootstrap_servers="a:1, b:2").config("x")["bootstrap.servers"] == "a:1,b:2"
    assert connection(bootstrap_servers=["[::1]:9092"]).bootstrap_servers == ["[::1]:9092"]


@pytest.mark.parametrize("server", ["kafka", "kafka:", "http://kafka:9092", "kafka:9092/x", ""])
def test_a_server_without_a_port_is_refused(server):
    assert "write e.g. kafka.example.com:9093" in refused(bootstrap_servers=[server])


SASL = {"mechanism": "SCRAM-SHA-256", "username": "alice", "password": SECRET}


@pytest.mark.parametrize(
    ("settings", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": {}}, "SSL"),
        ({"sasl": SASL}, "SASL_PLAINTEXT"),
        ({"sasl": SASL, "tls": {}}, "SASL_SSL"),
    ],
)
def test_what_protects_the_connection_follows_from_the_settings(settings, protocol):
    assert connection(**settings).config("x")["security.protocol"] == protocol


def test_a_password_goes_to_librdkafka_and_nowhere_else():
    made = connection(sasl=SASL)
    assert made.config("x")["sasl.password"] == SECRET
    assert SECRET not in repr(made) + str(made.model_dump())


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def test_good_files_are_taken_beside_the_configuration(tmp_path, authority):
    certificate, key = authority.sign("device")
    tls = {"ca": authority.pem.name, "certificate": certificate.name, "key": key.name, "verify_hostname": False}
    data = {"bootstrap_servers": [SERVER], "tls": tls}
    made = KafkaConnection.model_validate(data, context={"directory": tmp_path}).config("x")
    assert made["ssl.ca.location"] == str(authority.pem)
    assert made["ssl.key.location"] == str(key)
    assert made["ssl.endpoint.identification.algorithm"] == "none"


def test_files_that_can_not_be_used_are_refused(tmp_path, authority):
    certificate, _ = authority.sign("device")
    _, other = authority.sign("other")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    assert "can't be read" in refused(tls={"ca": "/not/there.pem"})
    assert "no certificate in PEM form" in refused(tls={"ca": rubbish})
    assert "belong together" in refused(tls={"certificate": certificate})
    assert "can't be used" in refused(tls={"certificate": certificate, "key": other})
    assert "can't be used" in refused(tls={"certificate": certificate, "key": rubbish})
    assert "key_password needs tls.key" in refused(tls={"key_password": SECRET})


def test_options_reach_librdkafka_in_its_own_words():
    made = connection(options={"socket.keepalive.enable": True, "fetch.wait.max.ms": 10}).config("x")
    assert made["socket.keepalive.enable"] == "true"
    assert made["fetch.wait.max.ms"] == 10


@pytest.mark.parametrize(
    "option", ["acks", "group.id", "sasl.password", "ssl.key.pem", "error_cb", "enable.idempotence"]
)
def test_what_the_gateway_promises_by_can_not_be_set_away(option):
    assert f"the option {option} is the gateway's own" in refused(options={option: "1"})


@pytest.mark.parametrize("options", [{"no.such.option": 1}, {"socket.timeout.ms": "soon"}])
def test_options_that_librdkafka_does_not_know_are_refused(options):
    assert "librdkafka does not take these options" in refused(options=options)
