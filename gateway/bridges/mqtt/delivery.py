"""With which quality of service and retain flag each class of topics is published."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, TypeVar

import msgspec
from pydantic import Field

from gateway.config.settings import Settings


class TopicClass(StrEnum):
    """Topics that are delivered alike."""

    STATE = "state"
    """`<base>/<device>`."""
    POINTS = "points"
    AVAILABILITY = "availability"
    DEVICE = "device"
    BRIDGE = "bridge"
    """`<base>/bridge/state`, the will too, `info` and `health`."""
    DISCOVERY = "discovery"
    """What Home Assistant finds devices by."""
    RESULT = "result"
    """`<base>/<device>/result`, and the response topic of a set message."""
    RESPONSE = "response"
    """`<base>/bridge/response/…`."""


class Sending(msgspec.Struct, frozen=True):
    """How to publish."""

    qos: int
    retain: bool


class Delivery(Settings):
    """A line of `delivery:`."""

    qos: Literal[0, 1, 2] | None = Field(default=None, description="0, 1 or 2")
    retain: bool | None = Field(default=None, description="let the broker keep the newest for later subscribers")


class DeliverySettings(Settings):
    """`delivery:`. What is not said here follows `qos` and `retain` of the bridge."""

    state: Delivery = Field(default=Delivery(), description="default: as qos and retain say")
    points: Delivery = Field(default=Delivery(), description="default: as qos and retain say")
    availability: Delivery = Field(default=Delivery(), description="default: retained")
    device: Delivery = Field(default=Delivery(), description="default: retained")
    bridge: Delivery = Field(default=Delivery(), description="default: retained")
    discovery: Delivery = Field(default=Delivery(), description="default: retained")
    result: Delivery = Field(default=Delivery(), description="default: QoS 1, not retained")
    response: Delivery = Field(default=Delivery(), description="default: QoS 1, not retained")

    def sending(self, what: TopicClass, qos: int, retain: bool) -> Sending:
        """Return how a class is published; `qos` and `retain` are the bridge's own."""
        line: Delivery = getattr(self, what.value)
        default_qos, default_retain = _DEFAULTS[what]
        return Sending(
            qos=_first(line.qos, default_qos, qos),
            retain=_first(line.retain, default_retain, retain),
        )


T = TypeVar("T")


def _first(*said: T | None) -> T:
    return next(value for value in said if value is not None)


# QoS and retain flag; None: as the bridge's `qos` and `retain` say.
_DEFAULTS: Final[Mapping[TopicClass, tuple[int | None, bool | None]]] = {
    TopicClass.STATE: (None, None),
    TopicClass.POINTS: (None, None),
    TopicClass.AVAILABILITY: (None, True),
    TopicClass.DEVICE: (None, True),
    TopicClass.BRIDGE: (None, True),
    TopicClass.DISCOVERY: (None, True),
    TopicClass.RESULT: (1, False),
    TopicClass.RESPONSE: (1, False),
}
