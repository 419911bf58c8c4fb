"""What Prometheus may know of pushes: registered while at least one bridge runs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from gateway.bridges.push.refusal import Outcome


class PushMetrics(Collector):
    """One for all bridges, since a metric's samples must stand together."""

    def __init__(self) -> None:
        self._watched: dict[str, Counter[Outcome]] = {}

    def watch(self, bridge: str, counts: Counter[Outcome]) -> None:
        """Show a bridge from now on."""
        if not self._watched:
            REGISTRY.register(self)
        self._watched[bridge] = counts

    def forget(self, bridge: str) -> None:
        """Show it no more."""
        if self._watched.pop(bridge, None) is not None and not self._watched:
            REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Return the metric without samples."""
        return [_family()]

    def collect(self) -> Iterator[Metric]:
        """Yield the metric as of now."""
        family = _family()
        for bridge, counts in self._watched.items():
            for outcome in Outcome:
                family.add_metric((bridge, outcome), counts[outcome])
        yield family


def _family() -> CounterMetricFamily:
    return CounterMetricFamily(
        "sems_gateway_pushes", "what GoodWe has pushed, by what became of it", labels=("bridge", "outcome")
    )


METRICS: Final = PushMetrics()
