"""Where an MQTT 5 requester wants answers, besides the topic that everybody sees.

The gateway publishes there with its own rights, and with text of the requester's, so only where the configuration
permits answers: else who may set a power limit could speak to anything on the broker.
"""

from typing import Final, NoReturn

import msgspec
import structlog
from msgspec.structs import replace

from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.topics import TOPIC_LIMIT, Topics
from gateway.commands.requests import NAME_LIMIT, RequestError
from gateway.core.model import Reason

CORRELATION_LIMIT: Final = 1_024
"""Bytes."""
LEVELS_LIMIT: Final = 32
"""Of a response topic. Some brokers hang up on who publishes at a longer one, and requesters choose it, not we:
mosquitto takes 200 levels, others far fewer, and 256 bytes."""


class Reply(msgspec.Struct, frozen=True):
    """Response topic and correlation data (MQTT 5.0 §3.3.2.3.5 and .6)."""

    topic: str
    correlation: bytes | None


def put_answer(outbox: Outbox, message: Message, reply: Reply | None, *, bulk: bool = False) -> None:
    """Queue an answer for the topic that everybody sees, and for the requester's own; see `Outbox.put_result`."""
    outbox.put_result(message, bulk=bulk)
    if reply is not None:
        outbox.put_result(replace(message, topic=reply.topic, correlation=reply.correlation, retain=False))


class Replies:
    """Judges what requesters ask for."""

    def __init__(self, topics: Topics, log: structlog.stdlib.BoundLogger) -> None:
        self._topics = topics
        self._log = log
        self._told: set[str] = set()
        """Users of whom a refused response topic was logged."""

    def of(self, message: Message, user: str) -> Reply | None:
        """Return where a message of this user, or "", wants answers; None for nowhere else than where they always are.

        Raises RequestError for where the gateway does not answer.
        """
        topic, correlation = message.response_topic, message.correlation
        if topic is None:
            return None
        levels = topic.split("/")
        # What is printable has no control characters, and encodes.
        if any(char in topic for char in "+#") or not topic.isprintable() or "" in levels:
            self._refuse(Reason.BAD_REQUEST, "the response topic is no topic to publish to", topic, user)
        if len(levels) > LEVELS_LIMIT or len(topic.encode()) > TOPIC_LIMIT:
            self._refuse(
                Reason.BAD_REQUEST,
                f"the response topic has more than {LEVELS_LIMIT} levels or {TOPIC_LIMIT} bytes", topic, user,
            )  # fmt: skip
        if topic.startswith("$") or not self._topics.may_answer(topic, user):
            self._refuse(
                Reason.NOT_PERMITTED, "the gateway does not answer at this response topic; see response_topics:",
                topic, user,
            )  # fmt: skip
        if correlation is not None and len(correlation) > CORRELATION_LIMIT:
            raise RequestError(
                Reason.BAD_REQUEST, f"the correlation data have {len(correlation)} bytes; at most {CORRELATION_LIMIT}"
            )
        return Reply(topic, correlation)

    def _refuse(self, reason: Reason, detail: str, topic: str, user: str) -> NoReturn:
        # Once for each user: the result says so each time, and a flood must not fill the log.
        if user not in self._told:
            self._told.add(user)
            self._log.warning(
                "a request is refused: the gateway does not answer at its response topic; see response_topics:",
                topic=topic[:NAME_LIMIT],
                user=user,
            )
        raise RequestError(reason, detail)
