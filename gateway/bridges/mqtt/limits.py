"""What a broker takes: as it says itself in CONNACK, as the settings say, and as known brokers publish it.

MQTT 3.1.1 has no place where a broker could say so, and even MQTT 5 has none for the depth of topics or the number of
filters in one SUBSCRIBE. A known broker is one row of `BROKERS`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from pydantic import ByteSize, Field

from gateway.config.settings import Settings

MAX_UNACKNOWLEDGED: Final = 500
"""Messages of QoS 1 and 2 under way, where the broker takes as many."""
MAX_PACKET: Final = 268_435_455 + 5
"""Bytes of the largest packet there can be (MQTT 5.0 §1.5.5), with its fixed header."""
MAX_TOPIC: Final = 65_535
"""Bytes of the longest topic there can be (MQTT 5.0 §1.5.4)."""
_PACKET_HEAD: Final = 5
_SUBSCRIBE_HEAD: Final = _PACKET_HEAD + 2 + 1
"""Bytes of a SUBSCRIBE besides its filters: fixed header, packet id, no properties."""
_EACH_FILTER: Final = 3
"""Bytes of a filter besides its text: length and options."""


class Why(StrEnum):
    """Why the broker does not get something."""

    TOO_LARGE = "too_large"
    TOPIC = "topic"
    """Too long, or too many levels."""
    WILDCARD = "wildcard"
    """A filter, where the broker knows no wildcards."""
    HUNG_UP = "hung_up"
    """The broker has ended two connections right after it."""
    REFUSED = "refused"
    """It was sent, and the broker said no."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What may be sent over one connection."""

    packet: int = MAX_PACKET
    """Bytes of a whole packet."""
    payload: int = MAX_PACKET
    """Bytes of the payload of a PUBLISH."""
    qos: int = 2
    retain: bool = True
    topic_bytes: int = MAX_TOPIC
    topic_levels: int = MAX_TOPIC
    filters: int = MAX_TOPIC
    """In one SUBSCRIBE."""
    wildcards: bool = True
    in_flight: int = MAX_UNACKNOWLEDGED
    """Messages of QoS 1 and 2 that may wait for their acknowledgement."""
    rate: float = 0.0
    """Messages a second; 0: as many as go."""

    def told(self, properties: Any) -> "Limits":
        """Return these, bounded by what a CONNACK says (MQTT 5.0 §3.2.2.3). Of 3.1.1 it says nothing."""
        return Limits(
            packet=min(self.packet, getattr(properties, "MaximumPacketSize", MAX_PACKET)),
            payload=self.payload,
            qos=min(self.qos, getattr(properties, "MaximumQoS", 2)),
            retain=self.retain and bool(getattr(properties, "RetainAvailable", 1)),
            topic_bytes=self.topic_bytes,
            topic_levels=self.topic_levels,
            filters=self.filters,
            wildcards=self.wildcards and bool(getattr(properties, "WildcardSubscriptionAvailable", 1)),
            in_flight=min(self.in_flight, getattr(properties, "ReceiveMaximum", MAX_UNACKNOWLEDGED)),
            rate=self.rate,
        )

    def room(self, topic: str, correlation: bytes | None = None) -> int:
        """Return the most bytes that a payload at this topic may have. Below 0 where not even the topic fits."""
        # Packet id, properties with their length, and, in correlation data, identifier and length.
        overhead = _PACKET_HEAD + 2 + _bytes(topic) + 2 + 1 + (0 if correlation is None else 5 + len(correlation))
        return min(self.payload, self.packet - overhead)

    def against(self, topic: str, size: int, correlation: bytes | None = None) -> Why | None:
        """Return why a message with a payload of `size` bytes can't be sent; None when it can."""
        if self.topic_forbidden(topic):
            return Why.TOPIC
        return Why.TOO_LARGE if size > self.room(topic, correlation) else None

    def topic_forbidden(self, topic: str) -> bool:
        """Return whether a topic, or a filter, is too long or too deep."""
        return _bytes(topic) > self.topic_bytes or topic.count("/") >= self.topic_levels

    def against_filter(self, filter_: str) -> Why | None:
        """Return why a filter can't be subscribed to; None when it can."""
        if self.topic_forbidden(filter_):
            return Why.TOPIC
        if not self.wildcards and any(char in filter_ for char in "+#"):
            return Why.WILDCARD
        return Why.TOO_LARGE if _SUBSCRIBE_HEAD + _bytes(filter_) + _EACH_FILTER > self.packet else None

    def packets(self, filters: Iterable[str]) -> Iterator[Sequence[str]]:
        """Yield filters by the SUBSCRIBE that takes them."""
        some: list[str] = []
        size = _SUBSCRIBE_HEAD
        for filter_ in filters:
            more = _bytes(filter_) + _EACH_FILTER
            if some and (len(some) >= self.filters or size + more > self.packet):
                yield some
                some, size = [], _SUBSCRIBE_HEAD
            some.append(filter_)
            size += more
        if some:
            yield some


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


BROKERS: Final[Mapping[str, Limits]] = {
    # docs.aws.amazon.com/general/latest/gr/iot-core.html, "AWS IoT Core message broker and protocol limits and quotas":
    # 128 KB of payload, 256 bytes and 7 slashes of a topic, 8 filters in a SUBSCRIBE, 100 unacknowledged messages,
    # 100 publishes a second and connection; QoS 2 is not supported.
    "aws-iot": Limits(payload=131_072, qos=1, topic_bytes=256, topic_levels=8, filters=8, in_flight=100, rate=100.0),
    # docs.emqx.com/en/cloud/latest/create/restriction.html, Serverless: messages of 1 MB, topics of 10 levels.
    "emqx-serverless": Limits(packet=1_048_576, topic_levels=10),
}
"""Brokers whose limits are published, by the name that `broker:` takes."""


class LimitSettings(Settings):
    """`limits:`. What the broker does not say itself; the narrower of both counts."""

    packet: ByteSize | None = Field(default=None, ge=200, description="bytes of a whole packet")
    payload: ByteSize | None = Field(default=None, ge=100, description="bytes of the payload of a message")
    qos: int | None = Field(default=None, ge=0, le=2, description="highest QoS")
    retain: bool | None = Field(default=None, description="false for a broker that takes no retained messages")
    topic_bytes: int | None = Field(default=None, ge=16, le=MAX_TOPIC, description="bytes of a topic")
    topic_levels: int | None = Field(default=None, ge=2, description="levels of a topic; a/b has two")
    filters: int | None = Field(default=None, ge=1, description="topic filters in one SUBSCRIBE")
    wildcards: bool | None = Field(default=None, description="false for a broker without + and # in subscriptions")
    in_flight: int | None = Field(default=None, ge=1, le=MAX_UNACKNOWLEDGED, description="unacknowledged messages")
    rate: float | None = Field(default=None, ge=1, le=100_000, description="messages a second")

    def over(self, preset: Limits) -> Limits:
        """Return a preset with what is said here in its place."""
        return msgspec.structs.replace(preset, **self.model_dump(exclude_none=True))
