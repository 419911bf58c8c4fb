"""What is counted of a Kafka client."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.core.metrics import Metrics, counter, gauge


class Meter(msgspec.Struct):
    """Figures of one client, from librdkafka's statistics and our own counting."""

    connected: bool = False
    sent: int = 0
    received: int = 0
    failed: int = 0
    """Messages that were not confirmed."""
    oversize: int = 0
    waiting: int = 0
    """Messages handed over that are not confirmed yet."""
    lag: int = 0
    """Messages in the partitions assigned to us that have not been handed over yet."""


class _Broker(msgspec.Struct):
    state: str = ""


class _Partition(msgspec.Struct):
    consumer_lag: int = -1


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition] = {}


class Statistics(msgspec.Struct):
    """The part of librdkafka's statistics that is used (STATISTICS.md)."""

    brokers: dict[str, _Broker] = {}
    topics: dict[str, _Topic] = {}
    msg_cnt: int = 0

    @property
    def connected(self) -> bool:
        """Whether any broker is there."""
        return any(broker.state == "UP" for broker in self.brokers.values())

    @property
    def lag(self) -> int:
        """Messages that wait in the partitions that are consumed."""
        return sum(max(0, p.consumer_lag) for topic in self.topics.values() for p in topic.partitions.values())


STATISTICS: Final = msgspec.json.Decoder(Statistics)


def _each(figure: Callable[[Meter], float]) -> Callable[[Mapping[str, Meter]], Mapping[str, float]]:
    return lambda meters: {client: figure(meter) for client, meter in meters.items()}


METERS: Final = Metrics[Mapping[str, Meter]](
    gauge("sems_gateway_kafka_connected", "1: a broker is connected", _each(lambda m: m.connected), "client"),
    counter("sems_gateway_kafka_sent", "messages confirmed", _each(lambda m: m.sent), "client"),
    counter("sems_gateway_kafka_failed", "messages not confirmed", _each(lambda m: m.failed), "client"),
    counter("sems_gateway_kafka_received", "messages received", _each(lambda m: m.received), "client"),
    counter("sems_gateway_kafka_oversize", "messages too large to read", _each(lambda m: m.oversize), "client"),
    gauge("sems_gateway_kafka_waiting", "messages not confirmed yet", _each(lambda m: m.waiting), "client"),
    gauge("sems_gateway_kafka_lag", "messages not read yet", _each(lambda m: m.lag), "client"),
)
"""By client."""
