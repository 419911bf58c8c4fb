"""Where an MQTT 5 requester wants answers, besides the topic that everybody sees."""

from typing import Final, Self

import msgspec

from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.topics import Topics
from gateway.core.model import Reason
from gateway.core.requests import RequestError

CORRELATION_LIMIT: Final = 1_024
"""Bytes."""


class Reply(msgspec.Struct, frozen=True):
    """Response topic and correlation data (MQTT 5.0 §3.3.2.3.5 and .6)."""

    topic: str
    correlation: bytes | None

    @classmethod
    def of(cls, message: Message, topics: Topics) -> Self | None:
        """Return what a message asks for, if it does. Raises RequestError where nobody could answer there."""
        topic, correlation = message.response_topic, message.correlation
        if topic is None:
            return None
        if not topic or any(char in topic for char in "+#"):
            raise RequestError(Reason.BAD_REQUEST, "the response topic is no topic to publish to")
        if topics.is_ours(topic):
            raise RequestError(Reason.BAD_REQUEST, f"the response topic must lie outside {topics.base}/")
        if correlation is not None and len(correlation) > CORRELATION_LIMIT:
            raise RequestError(
                Reason.BAD_REQUEST, f"the correlation data have {len(correlation)} bytes; at most {CORRELATION_LIMIT}"
            )
        return cls(topic, correlation)
