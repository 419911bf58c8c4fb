"""What Prometheus may know of store and forward."""

from collections.abc import Sequence
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.core.metrics import BridgeMetrics, Family, Samples

PREFIX: Final = "sems_gateway_mqtt_history"


class Watched(Protocol):
    """What has such numbers."""

    @property
    def waiting(self) -> int:
        """How many snapshots wait on disk."""
        ...

    @property
    def dropped(self) -> int:
        """How many were dropped."""
        ...


class HistoryMetrics(BridgeMetrics[Watched]):
    """One for all bridges of the type."""

    families = (
        Family(GaugeMetricFamily, f"{PREFIX}_waiting", "snapshots on disk that the broker has yet to get", ("bridge",)),
        Family(CounterMetricFamily, f"{PREFIX}_dropped", "snapshots dropped, the oldest first", ("bridge",)),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Watched) -> None:
        """See `BridgeMetrics.fill`."""
        waiting, dropped = families
        waiting.add_metric((bridge,), watched.waiting)
        dropped.add_metric((bridge,), watched.dropped)


METRICS: Final = HistoryMetrics()
