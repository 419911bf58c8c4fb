"""What a kind of bridge tells Prometheus: registered while at least one of the kind runs."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

T = TypeVar("T")

Samples = CounterMetricFamily | GaugeMetricFamily


class Family(msgspec.Struct, frozen=True):
    """A metric without samples."""

    make: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    text: str
    labels: tuple[str, ...]


class BridgeMetrics(Collector, Generic[T]):
    """One for all bridges of a kind, since a metric's samples must stand together."""

    families: Sequence[Family]

    def __init__(self) -> None:
        self._watched: dict[str, T] = {}

    def watch(self, bridge: str, watched: T) -> None:
        """Show a bridge from now on."""
        if not self._watched:
            REGISTRY.register(self)
        self._watched[bridge] = watched

    def forget(self, bridge: str) -> None:
        """Show it no more."""
        if self._watched.pop(bridge, None) is not None and not self._watched:
            REGISTRY.unregister(self)

    def describe(self) -> list[Samples]:
        """Return the metrics without samples."""
        return [family.make(family.name, family.text, labels=family.labels) for family in self.families]

    def collect(self) -> Iterator[Samples]:
        """Yield the metrics as of now."""
        families = self.describe()
        for bridge, watched in self._watched.items():
            self.fill(families, bridge, watched)
        yield from families

    def fill(self, families: Sequence[Samples], bridge: str, watched: T) -> None:
        """Add a bridge's samples to `families`, which are in their order."""
        raise NotImplementedError
