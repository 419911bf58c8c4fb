"""What Kafka's errors mean for a person, and for what is done next."""

from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException


class Word(msgspec.Struct, frozen=True):
    """A kind of trouble."""

    kind: str
    """For metrics: few of them."""
    text: str
    """The end of a sentence about the cluster; `{subject}` is a topic or a group, `{error}` Kafka's own words."""
    certain: bool = False
    """A message that met it certainly did not get into a topic."""
    final: bool = False
    """It would be met again with the same message."""


AWAY: Final = Word("away", "can't be reached ({error})")
UNKNOWN_TOPIC: Final = Word("unknown_topic", "has no topic {subject}; have it created, or check the name", certain=True)
NO_TOPIC_RIGHT: Final = Word(
    "not_authorised", "does not let us use topic {subject}; ask for the right in its ACLs", certain=True
)
LOGIN: Final = Word("authentication", "refuses our login ({error}); check sasl, its username and its password")
TLS: Final = Word("tls", "does not agree on TLS ({error}); check tls.ca, and whether the port speaks TLS")

TOO_LARGE: Final = Word("too_large", "takes no message of this size in topic {subject}", certain=True, final=True)
FENCED: Final = Word(
    "fenced", "has another member of the same name in group {subject}; give each gateway its own gateway.id"
)

_E: Final[Any] = KafkaError
WORDS: Final[dict[int, Word]] = {
    _E._ALL_BROKERS_DOWN: AWAY,  # noqa: SLF001 - librdkafka's own codes are named so
    _E._TRANSPORT: AWAY,  # noqa: SLF001
    _E._RESOLVE: AWAY,  # noqa: SLF001
    _E._TIMED_OUT: AWAY,  # noqa: SLF001
    _E._MSG_TIMED_OUT: Word("timed_out", "did not confirm in time"),  # noqa: SLF001
    _E._PURGE_QUEUE: Word("timed_out", "did not confirm in time"),  # noqa: SLF001
    _E._PURGE_INFLIGHT: Word("timed_out", "did not confirm in time"),  # noqa: SLF001
    _E._AUTHENTICATION: LOGIN,  # noqa: SLF001
    _E.SASL_AUTHENTICATION_FAILED: LOGIN,
    _E.UNSUPPORTED_SASL_MECHANISM: Word("authentication", "does not take this sasl.mechanism ({error})"),
    _E._SSL: TLS,  # noqa: SLF001
    _E._UNKNOWN_TOPIC: UNKNOWN_TOPIC,  # noqa: SLF001
    _E._UNKNOWN_PARTITION: UNKNOWN_TOPIC,  # noqa: SLF001
    _E.UNKNOWN_TOPIC_OR_PART: UNKNOWN_TOPIC,
    _E.TOPIC_AUTHORIZATION_FAILED: NO_TOPIC_RIGHT,
    _E.GROUP_AUTHORIZATION_FAILED: Word("not_authorised", "does not let us use group {subject}; ask for the right"),
    _E.CLUSTER_AUTHORIZATION_FAILED: Word(
        "not_authorised",
        "does not let us write idempotently; ask for the right to WRITE to the topics, or IdempotentWrite",
        certain=True,
    ),
    _E.MSG_SIZE_TOO_LARGE: TOO_LARGE,
    _E.INVALID_RECORD: Word("bad_record", "does not take this message in topic {subject}", True, True),
    _E.POLICY_VIOLATION: Word("policy", "forbids this ({error})", True, True),
    _E.FENCED_INSTANCE_ID: FENCED,
    _E.INCONSISTENT_GROUP_PROTOCOL: Word(
        "group", "has members in group {subject} that work otherwise; give this bridge a group of its own"
    ),
}
BROKEN_HANDSHAKE: Final = "handshake failed: Local: Broker transport failure"
OTHER: Final = Word("other", "says: {error}")


def of(error: KafkaError, subject: str = "") -> tuple[Word, str]:
    """Return what an error means, and the sentence about it."""
    word = WORDS.get(error.code(), OTHER)
    if error.code() == _E._FATAL and "fenced" in error.str():  # noqa: SLF001
        # The code of what was fatal is told in words alone.
        word = FENCED
    if word is LOGIN and BROKEN_HANDSHAKE in error.str():
        # Nobody has refused anything: the connection ended in the midst, as it does when a broker goes.
        word = AWAY
    return word, sentence(word, subject, error.str())


def of_thread(error: BaseException, client: str) -> tuple[str, str]:
    """Return of what kind is what has ended the thread of a client, and the sentence about it."""
    met = error.args[0] if isinstance(error, KafkaException) and error.args else None
    if isinstance(met, KafkaError):
        # What is fatal for a client is raised out of its poll, too.
        word, text = of(met, client)
        return word.kind, text
    return "thread", f"the thread of the Kafka client {client} has ended: {error or type(error).__name__}"


def sentence(word: Word, subject: str = "", error: str = "") -> str:
    """Return the sentence about the cluster."""
    return f"the Kafka cluster {word.text.format(subject=subject or '?', error=_brief(error))}"


def _brief(text: str) -> str:
    """Leave out the addresses and threads that librdkafka puts before, and how long it was in which state."""
    for mark in (" (after ", " (add "):
        text = text.partition(mark)[0]
    return text[:300]
