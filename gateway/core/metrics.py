"""Metrics for Prometheus: a table of rows beside what is counted, registered while at least one bridge has it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cache
from typing import Any, Final, Generic, TypeVar

import msgspec
from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector
from prometheus_client.samples import Sample

T = TypeVar("T")

COMMANDS: Final = Counter(
    "sems_gateway_commands",
    "Commands that have ended, by how, and by the bridge that carried them or would have",
    ["state", "bridge"],
)
COMMAND_SECONDS: Final = Histogram(
    "sems_gateway_command_seconds",
    "Seconds from acceptance to the end of a command, by the bridge that carried it or would have, and by how it ended",
    ["bridge", "state"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600),
)
"""Without those that were rejected: they were never accepted."""


@cache
def count_ended(state: str, bridge: str) -> Callable[[float], None]:
    """Return what counts a command that has ended so, given its seconds: to look both up takes longer than to count."""
    count, seconds = COMMANDS.labels(state, bridge), COMMAND_SECONDS.labels(bridge, state)

    def ended(took: float) -> None:
        count.inc()
        seconds.observe(took)

    return ended


Family = CounterMetricFamily | GaugeMetricFamily
Numbers = Mapping[Any, float]
"""Value of the label, or a tuple of values → number."""
Later = Callable[[], Iterable[tuple[Any, float]]]
"""Returns the same as pairs. It is called on another thread than the loop's, so it has to hold all that it needs."""
Read = Callable[[T], float | Numbers | Later]
"""Returns a metric's number as of now; numbers where it has labels; what returns them where each device has one."""


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
                if callable(read):
                    family.samples = _Later(family, own, read)
                else:
                    _add(family, own, (read if isinstance(read, Mapping) else {(): read}).items())
            yield family


class _Later(list[Sample]):
    """Samples that are made when somebody looks at them, one after another: thousands at once are for nobody."""

    def __init__(self, family: Family, own: tuple[str, ...], read: Later) -> None:
        self._family = copy(family)
        self._own = own
        self._read = read

    def __iter__(self) -> Iterator[Sample]:
        """Make them, after those that were there before, and before those that were added since."""
        yield from self._family.samples
        family = copy(self._family)
        for pair in self._read():
            family.samples = []
            _add(family, self._own, (pair,))
            yield from family.samples
        yield from super().__iter__()


def _add(family: Family, own: tuple[str, ...], numbers: Iterable[tuple[Any, float]]) -> None:
    for labels, number in numbers:
        family.add_metric((*own, *(labels if isinstance(labels, tuple) else (labels,))), number)
