"""What Prometheus may know of store and forward: registered while at least one bridge runs."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

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


class HistoryMetrics(Collector):
    """One for all bridges, since a metric's samples must stand together."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}

    def watch(self, bridge: str, history: Watched) -> None:
        """Show a bridge from now on."""
        if not self._watched:
            REGISTRY.register(self)
        self._watched[bridge] = history

    def forget(self, bridge: str) -> None:
        """Show it no more."""
        if self._watched.pop(bridge, None) is not None and not self._watched:
            REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as of now."""
        waiting, dropped = _families()
        for bridge, history in self._watched.items():
            waiting.add_metric([bridge], history.waiting)
            dropped.add_metric([bridge], history.dropped)
        yield waiting
        yield dropped


def _families() -> tuple[GaugeMetricFamily, CounterMetricFamily]:
    return (
        GaugeMetricFamily(f"{PREFIX}_waiting", "snapshots on disk that the broker has yet to get", labels=["bridge"]),
        CounterMetricFamily(f"{PREFIX}_dropped", "snapshots dropped, the oldest first", labels=["bridge"]),
    )


METRICS: Final = HistoryMetrics()
