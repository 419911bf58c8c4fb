"""What Prometheus may know of the `kafka` bridge, beside its clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.bridges.kafka.skipped import Skipped
from gateway.core.metrics import BridgeMetrics, Family, Samples
from gateway.core.model import Device
from gateway.sems.pushed import Outcome


class Watched(msgspec.Struct, frozen=True):
    """A bridge's own figures."""

    skipped: Skipped
    telemetry: Counter[Outcome]
    served: Mapping[str, Device]


class OwnMetrics(BridgeMetrics[Watched]):
    """One for all bridges of the type."""

    families = (
        Family(CounterMetricFamily, "sems_gateway_kafka_skipped", "messages that can't be used", ("bridge", "topic")),
        Family(
            CounterMetricFamily,
            "sems_gateway_kafka_telemetry",
            "what GoodWe has sent, by what became of it",
            ("bridge", "outcome"),
        ),
        Family(GaugeMetricFamily, "sems_gateway_kafka_served", "devices of a joined gateway served here", ("bridge",)),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Watched) -> None:
        """See `BridgeMetrics.fill`."""
        skipped, telemetry, served = families
        for topic, count in watched.skipped.counts.items():
            skipped.add_metric((bridge, topic), count)
        for outcome, count in watched.telemetry.items():
            telemetry.add_metric((bridge, outcome), count)
        served.add_metric((bridge,), len(watched.served))


METRICS: Final = OwnMetrics()
