"""`type: batch`, as the configuration has it."""

import re
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from gateway.api.bridge import BridgeSettings
from gateway.bridges.batch.interfaces import Interfaces
from gateway.kafka import KafkaConnection
from gateway.sems.catalogue import Catalogue, load
from gateway.sems.overrides import NO_OVERRIDES, OVERRIDES_HELP, CatalogueOverrides, Overrides, checked, overridden
from gateway.sems.whitelist import WHITELIST_HELP, Whitelist

API: Final = "batch"
_TOPIC_PART: Final = r"^[A-Za-z0-9._-]+$"
_TOPIC: Final = re.compile(r"^[A-Za-z0-9._-]{1,249}$")
MAX_RESULT_SECONDS: Final = 120.0
"""Seconds that the gateway waits for the result of a command at most, whatever the bridge."""


class BatchSettings(BridgeSettings):
    """`type: batch`."""

    connection: KafkaConnection = Field(description="the Kafka cluster: bootstrap_servers, sasl, tls, options")
    supplier: str = Field(
        min_length=1, max_length=64, pattern=_TOPIC_PART, description="your name in GoodWe's topics, as they gave it"
    )
    prefix: str = Field(
        default="goodwe",
        min_length=1,
        max_length=64,
        pattern=_TOPIC_PART,
        description="what GoodWe's topics begin with",
    )
    whitelist: Whitelist = Field(description=WHITELIST_HELP)
    announce: Literal["inverter", "storage"] | None = Field(
        default=None,
        description="what listed numbers are that no other bridge finds; without it such a device is not there",
    )
    group: str = Field(
        default="",
        max_length=128,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="group that keeps where results are read to, ours alone; default: <gateway.id>.<bridge>.<supplier>",
    )
    linger_ms: float = Field(
        default=50, ge=0, le=5_000, description="how long commands are gathered for one message, at most; 0: not at all"
    )
    items_most: int = Field(default=500, ge=1, le=10_000, description="devices in one message, at most")
    send_within: float = Field(
        default=5, ge=0.5, le=60, description="seconds in which the cluster has to confirm a message"
    )
    result_within: float = Field(
        default=60,
        ge=0.1,
        le=MAX_RESULT_SECONDS,
        description="seconds after which a command without a result ends as unknown",
    )
    overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides: CatalogueOverrides) -> CatalogueOverrides:
        return checked(overrides, API)

    @model_validator(mode="after")
    def _topics_are_good(self) -> "BatchSettings":
        for name, topic in self.interfaces.topics:
            if not _TOPIC.match(topic):
                raise ValueError(
                    f"{topic!r} of the interface {name} is no name of a Kafka topic; write letters, digits, . _ - and, "
                    "where they belong, {prefix} and {supplier}"
                )
        if self.announce and self.whitelist.everything:
            raise ValueError('announce needs a list of numbers; the whitelist "*" names none')
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The interfaces, as the user corrects them."""
        return overridden(load(API), self.overrides)

    @property
    def interfaces(self) -> Interfaces:
        """The interfaces with the names of their topics filled in."""
        return Interfaces(self.catalogue, self.prefix, self.supplier)
