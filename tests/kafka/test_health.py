"""One line when a trouble begins, one when it is over."""

import pytest
from confluent_kafka import KafkaError

from gateway.kafka import Health, error_messages


class Reports(list):
    def __call__(self, *, up, detail=""):
        if not self or self[-1] != (up, detail):
            self.append((up, detail))

    @property
    def ups(self):
        return [up for up, _ in self]


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def health(reports):
    return Health(reports)


def test_it_is_up_when_all_clients_are_connected(health, reports):
    health.expect("a")
    health.expect("b")
    health.connected("a")
    assert reports.ups == [None]
    health.connected("b")
    assert reports.ups == [None, True]


def test_a_lost_connection_is_down_until_it_is_back(health, reports):
    health.expect("a")
    health.connected("a")
    for _ in range(3):
        health.met("a", "away", "can't be reached")
    health.connected("a")
    assert reports[1:] == [(True, ""), (False, "can't be reached"), (True, "")]
    assert health.counts == {"away": 3}


def test_a_refused_login_is_not_covered_by_the_broken_connection_that_follows(health, reports):
    health.met("a", "authentication", "refuses our login")
    health.met("a", "away", "can't be reached")
    assert reports[-1] == (False, "refuses our login")


def test_a_topic_that_is_missing_is_well_by_itself(health, reports):
    health.expect("a")
    health.connected("a")
    health.met("a", "unknown_topic", "has no topic t", "t")
    health.connected("a")
    assert reports[-1] == (False, "has no topic t")
    assert health.trouble("a", "t") == "has no topic t"
    assert health.trouble("a", "other") == ""
    health.well("a", "t")
    assert reports[-1] == (True, "")


def test_two_clients_with_the_same_trouble_say_it_once(health, reports):
    health.met("a", "away", "can't be reached")
    health.met("b", "away", "can't be reached")
    assert reports[-1] == (False, "can't be reached")
    health.forget(["a", "b"])
    assert health.trouble("a") == ""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (KafkaError._ALL_BROKERS_DOWN, "can't be reached"),
        (KafkaError._AUTHENTICATION, "refuses our login"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "has no topic t"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "does not let us use topic t"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "does not let us use group t"),
        (KafkaError.FENCED_INSTANCE_ID, "gateway.id"),
        (KafkaError.COORDINATOR_NOT_AVAILABLE, "says:"),
    ],
)
def test_errors_are_sentences(code, said):
    _, text = error_messages.of(KafkaError(code), "t")
    assert text.startswith("the Kafka cluster ")
    assert said in text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        # As librdkafka 2 said both, of a broker that went in the midst and of a wrong password.
        ("SASL SCRAM-SHA-512 mechanism handshake failed: Local: Broker transport failure: broker's (n/a)", "away"),
        (
            "SASL authentication error: Authentication failed during authentication due to invalid credentials",
            "authentication",
        ),
    ],
)
def test_a_connection_that_ends_in_a_handshake_is_no_refused_login(text, kind):
    word, sentence = error_messages.of(KafkaError(KafkaError._AUTHENTICATION, text))
    assert word.kind == kind
    assert text[:40] in sentence
