"""What Prometheus may know of the polling: registered while at least one bridge runs. Calls are the session's."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from gateway.bridges.open_api.polling import Poller

PREFIX: Final = "sems_gateway_open_api"
FAMILIES: Final = (
    ("devices_in_trouble", "plants and devices that can't be read now", ("bridge",)),
    ("poll_interval_seconds", "seconds between live readings of a device, by the plan", ("bridge",)),
    ("planned_calls_per_hour", "calls an hour that the plan makes", ("bridge", "interface")),
)


class OpenApiMetrics(Collector):
    """One for all bridges, since a metric's samples must stand together."""

    def __init__(self) -> None:
        self._watched: dict[str, Poller] = {}

    def watch(self, bridge: str, poller: Poller) -> None:
        """Show a bridge from now on."""
        if not self._watched:
            REGISTRY.register(self)
        self._watched[bridge] = poller

    def forget(self, bridge: str) -> None:
        """Show it no more."""
        if self._watched.pop(bridge, None) is not None and not self._watched:
            REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as of now."""
        troubled, interval, planned = families = _families()
        for bridge, poller in self._watched.items():
            troubled.add_metric((bridge,), poller.troubled)
            interval.add_metric((bridge,), poller.interval)
            calls: dict[str, float] = {}
            for row in poller.plan.rows:
                calls[row.interface] = calls.get(row.interface, 0.0) + row.per_hour
            for interface, per_hour in calls.items():
                planned.add_metric((bridge, interface), per_hour)
        yield from families


def _families() -> list[GaugeMetricFamily]:
    return [GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels) for name, text, labels in FAMILIES]


METRICS: Final = OpenApiMetrics()
