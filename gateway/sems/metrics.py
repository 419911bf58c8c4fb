"""What Prometheus may know of the sessions: registered while at least one runs. No account is named."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from gateway.sems.budget import Budget

PREFIX: Final = "sems_gateway_sems"

FAMILIES: Final[tuple[tuple[type[CounterMetricFamily] | type[GaugeMetricFamily], str, str, tuple[str, ...]], ...]] = (
    (CounterMetricFamily, "calls", "calls made to SEMS", ("bridge", "interface")),
    (CounterMetricFamily, "errors", "calls to SEMS that did not work out; see docs/errors.md", ("bridge", "error")),
    (GaugeMetricFamily, "budget_used", "calls the account made within the last hour", ("bridge",)),
    (GaugeMetricFamily, "budget_calls", "calls the account may make within an hour", ("bridge",)),
)


class Watched(msgspec.Struct, frozen=True):
    """A session's numbers."""

    calls: Counter[str]
    """By interface."""
    errors: Mapping[str, int]
    """By kind."""
    budget: Budget


class SemsMetrics(Collector):
    """One for all sessions, since a metric's samples must stand together."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}

    def watch(self, bridge: str, session: Watched) -> None:
        """Show a session from now on."""
        if not self._watched:
            REGISTRY.register(self)
        self._watched[bridge] = session

    def forget(self, bridge: str) -> None:
        """Show it no more."""
        if self._watched.pop(bridge, None) is not None and not self._watched:
            REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples."""
        return [make(f"{PREFIX}_{name}", text, labels=labels) for make, name, text, labels in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as of now."""
        families = [make(f"{PREFIX}_{name}", text, labels=labels) for make, name, text, labels in FAMILIES]
        calls, errors, used, allowed = families
        for bridge, session in self._watched.items():
            for interface, count in session.calls.items():
                calls.add_metric((bridge, interface), count)
            for kind, count in session.errors.items():
                errors.add_metric((bridge, kind), count)
            used.add_metric((bridge,), session.budget.used)
            allowed.add_metric((bridge,), session.budget.per_hour)
        yield from families


METRICS: Final = SemsMetrics()
