"""Metrics for Prometheus: a table of rows beside what is counted, registered while at least one bridge has it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

T = TypeVar("T")

COMMANDS: Final = Counter(
    "sems_gateway_commands",
    "Commands that have ended, by how, and by the bridge that carried them or would have",
    ["state", "bridge"],
)

Family = CounterMetricFamily | GaugeMetricFamily
Read = Callable[[T], float | Mapping[Any, float]]
"""Returns a metric's number as of now; where it has labels, their value (or a tuple of values) → number."""


class Row(msgspec.Struct, Generic[T], frozen=True):
    """A metric of a `T`."""

    make: type[Family]
    name: str
    text: str
    read: Read[T]
    labels: tuple[str, ...]


def counter(name: str, text: str, read: Read[T], *labels: str) -> Row[T]:
    """Return a row that only grows."""
    return Row(CounterMetricFamily, name, text, read, labels)


def gauge(name: str, text: str, read: Read[T], *labels: str) -> Row[T]:
    """Return a row that goes up and down."""
    return Row(GaugeMetricFamily, name, text, read, labels)


class Metrics(Collector, Generic[T]):
    """The metrics of all bridges of a kind, since a metric's samples must stand together.

    Each sample is labelled `bridge`, and then as its row says; `whole` metrics are the gateway's, and lack the former.
    """

    def __init__(self, *rows: Row[T], whole: bool = False) -> None:
        self._rows = rows
        self._whole = whole
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

    def describe(self) -> list[Family]:
        """Return the metrics without samples."""
        own = () if self._whole else ("bridge",)
        return [row.make(row.name, row.text, labels=(*own, *row.labels)) for row in self._rows]

    def collect(self) -> Iterator[Family]:
        """Yield the metrics as of now."""
        for row, family in zip(self._rows, self.describe(), strict=True):
            # What is the gateway's is the same in each bridge that shows it.
            for bridge, watched in list(self._watched.items())[: 1 if self._whole else None]:
                own = () if self._whole else (bridge,)
                read = row.read(watched)
                numbers = read if isinstance(read, Mapping) else {(): read}
                for labels, number in numbers.items():
                    family.add_metric((*own, *(labels if isinstance(labels, tuple) else (labels,))), number)
            yield family
