"""`type: kafka`, as the configuration has it."""

import re
from typing import Any, Final, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gateway.api.bridge import BridgeSettings
from gateway.config.settings import Settings
from gateway.kafka.settings import KafkaConnection
from gateway.sems.catalogue import Catalogue, load
from gateway.sems.overrides import NO_OVERRIDES, OVERRIDES_HELP, CatalogueOverrides, Overrides, checked, overridden
from gateway.sems.platform import (
    CLASSIC,
    DATE_FORMAT_HELP,
    TIME_ZONE_HELP,
    DateFormat,
    Platform,
    ZoneName,
)
from gateway.sems.times import AUTO

TOPIC: Final = r"^[A-Za-z0-9._-]{1,249}$"
"""What Kafka takes for a topic's name."""
KINDS: Final = ("devices", "snapshots", "alarms", "events", "commands")


def _topic(name: Any) -> str:
    if not isinstance(name, str) or not re.match(TOPIC, name) or name in (".", ".."):
        raise ValueError(f"{name!r} is no topic's name; use letters, digits, . _ and -, 249 at most")
    return name


class TelemetrySettings(Settings):
    """`telemetry:`, what GoodWe sends to a topic."""

    topics: list[str] = Field(min_length=1, description="topics that GoodWe writes its telemetry to")
    platform: Platform = Field(default=CLASSIC, description="which API's bodies are sent")
    overrides: Overrides = Field(default=NO_OVERRIDES, description=OVERRIDES_HELP)
    devices: list[str] = Field(default=["*"], description="serial numbers, or patterns, that are taken")
    time_zone: ZoneName = Field(default="", description=TIME_ZONE_HELP)
    date_format: DateFormat = Field(default=AUTO, description=DATE_FORMAT_HELP)
    interval: float = Field(default=300, ge=1, le=86_400, description="seconds that usually lie between two messages")

    @field_validator("topics")
    @classmethod
    def _names(cls, topics: list[str]) -> list[str]:
        return [_topic(topic) for topic in topics]

    @field_validator("overrides")
    @classmethod
    def _fit(cls, overrides: CatalogueOverrides, info: ValidationInfo) -> CatalogueOverrides:
        platform = info.data.get("platform")
        return overrides if platform is None else checked(overrides, platform.api)

    @property
    def catalogue(self) -> Catalogue:
        """Interfaces as the user's GoodWe has them."""
        return overridden(load(self.platform.api), self.overrides)


class TopicNames(Settings):
    """Names of the topics of one's own. Left out, each is `<prefix>.<what>`."""

    prefix: str = Field(default="sems", pattern=TOPIC, description="first part of the names below")
    devices: str = Field(default="", description="what devices are; compacted")
    snapshots: str = Field(default="", description="everything that was read")
    alarms: str = Field(default="", description="active alarms; compacted")
    events: str = Field(default="", description="every step of every command")
    commands: str = Field(default="", description="what other gateways want to be set")

    @model_validator(mode="after")
    def _named_well(self) -> Self:
        names = [self.name(kind) for kind in KINDS]
        for name in names:
            _topic(name)
        if len(set(names)) < len(names):
            raise ValueError("two topics have the same name; each needs one of its own")
        return self

    def name(self, kind: str) -> str:
        """Return a topic's name."""
        return getattr(self, kind) or f"{self.prefix}.{kind}"


class CreateSettings(Settings):
    """`create:`, for topics that are not there."""

    partitions: int = Field(
        default=12, ge=1, le=10_000, description="the same for all; at most so many members share them"
    )
    replication: int = Field(default=1, ge=1, le=32, description="copies in the cluster; 3 is usual")
    retention: float = Field(default=168, gt=0, le=87_600, description="hours for which snapshots and events are kept")


class PublishSettings(Settings):
    """`publish:`, what the gateway writes to topics of one's own."""

    topics: TopicNames = Field(default=TopicNames(), description="names of the topics")
    create: CreateSettings | None = Field(default=None, description="{} to create topics that are missing")
    backlog: int = Field(default=50_000, ge=100, le=10_000_000, description="snapshots that wait while Kafka is away")
    linger_ms: float = Field(default=20, ge=0, le=1000, description="how long messages are gathered")
    commands: bool = Field(default=False, description="carry out what gateways that joined ask for; policy decides")
    max_ttl: float = Field(
        default=300, gt=0, le=86_400, description="seconds a joined gateway's command may wait at most"
    )


class JoinSettings(Settings):
    """`join:`, for a gateway that serves what another one publishes."""

    topics: TopicNames = Field(default=TopicNames(), description="names of the topics; as that gateway has them")
    commands: bool = Field(default=False, description="send commands for these devices to the gateway that polls them")
    rebuild: float = Field(
        default=900, ge=0, le=86_400, description="seconds of snapshots read again for devices that are taken over"
    )


class KafkaSettings(BridgeSettings):
    """What stands under a bridge of `type: kafka`."""

    connection: KafkaConnection = Field(description="the Kafka cluster: bootstrap_servers, sasl, tls, options")
    group: str = Field(
        default="sems-gateway",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="consumer group; its members share the devices",
    )
    member: str | None = Field(
        default=None, pattern=TOPIC, description="this gateway's name in the group; default: <gateway.id>.<bridge>"
    )
    session_timeout: float = Field(
        default=10, ge=0.5, le=300, description="seconds after which a silent member's devices are taken over"
    )
    max_bytes: int = Field(
        default=1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="of a message; larger ones are skipped"
    )
    telemetry: TelemetrySettings | None = Field(default=None, description="GoodWe's telemetry: {topics: [...]}")
    publish: PublishSettings | None = Field(default=None, description="{} to write to topics of one's own")
    join: JoinSettings | None = Field(default=None, description="{} to serve what another gateway publishes")

    @property
    def roles(self) -> frozenset[str] | None:
        """See `BridgeSettings.roles`: who asks over a topic says by which bridge of its own."""
        return None if self.publish is not None and self.publish.commands else frozenset()

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.telemetry is None and self.publish is None and self.join is None:
            raise ValueError("it would do nothing; add telemetry, publish or join")
        if self.join is not None and self.publish is not None:
            ours = {self.publish.topics.name(kind) for kind in KINDS}
            if ours & {self.join.topics.name(kind) for kind in KINDS}:
                raise ValueError("publish and join must not have a topic in common, or a gateway would talk to itself")
        if self.join is not None and self.telemetry is not None:
            raise ValueError("telemetry and join read in groups of their own; write two bridges of type kafka")
        return self
