"""What Prometheus may know of Kafka clients."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.core.metrics import BridgeMetrics, Family, Samples
from gateway.kafka.health import Health


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


class Watched(msgspec.Struct, frozen=True):
    """A bridge's clients."""

    meters: Mapping[str, Meter]
    health: Health


class KafkaMetrics(BridgeMetrics[Watched]):
    """One for all bridges that speak Kafka, whatever their type."""

    families = (
        Family(GaugeMetricFamily, "sems_gateway_kafka_connected", "1: a broker is connected", ("bridge", "client")),
        Family(CounterMetricFamily, "sems_gateway_kafka_sent", "messages confirmed", ("bridge", "client")),
        Family(CounterMetricFamily, "sems_gateway_kafka_failed", "messages not confirmed", ("bridge", "client")),
        Family(CounterMetricFamily, "sems_gateway_kafka_received", "messages received", ("bridge", "client")),
        Family(CounterMetricFamily, "sems_gateway_kafka_oversize", "messages too large to read", ("bridge", "client")),
        Family(GaugeMetricFamily, "sems_gateway_kafka_waiting", "messages not confirmed yet", ("bridge", "client")),
        Family(GaugeMetricFamily, "sems_gateway_kafka_lag", "messages not read yet", ("bridge", "client")),
        Family(CounterMetricFamily, "sems_gateway_kafka_troubles", "errors, by kind", ("bridge", "kind")),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Watched) -> None:
        """See `BridgeMetrics.fill`."""
        figures = ("connected", "sent", "failed", "received", "oversize", "waiting", "lag")
        *of_clients, troubles = families
        for client, meter in watched.meters.items():
            for family, figure in zip(of_clients, figures, strict=True):
                value: Any = getattr(meter, figure)
                family.add_metric((bridge, client), float(value))
        for kind, count in watched.health.counts.items():
            troubles.add_metric((bridge, kind), count)


METRICS: Final = KafkaMetrics()
