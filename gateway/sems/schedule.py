"""Which call is next: the units of each row of a plan, spread evenly over its interval, and what is out of turn."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from math import inf
from typing import Final

import msgspec

from gateway.core.clock import Clock
from gateway.sems.catalogue import Catalogue, Interface
from gateway.sems.plan import Row, Unit

IDLE: Final = 600.0
"""Seconds after which one looks again, though nothing is due."""
TICK: Final = 0.01
"""Seconds that are not worth dividing: sums of times are not exact."""


class Job(msgspec.Struct, eq=False):
    """A call to make."""

    interface: Interface
    unit: Unit
    interval: float = 0.0
    """Seconds until the next one about the same; 0 where it is out of turn."""
    live: bool = False
    """Whether it keeps devices fresh."""
    pushed: bool = False
    """Whether another bridge brings fresh data of these."""
    first: bool = False
    """Whether it is the first that is to keep these fresh."""
    since: float = 0.0
    """Monotonic seconds at which the whole was refused that this is a part of; 0 where it is none."""

    @property
    def who(self) -> Hashable:
        """What it asks, and about whom: what is slow of that costs that alone."""
        return self.interface.name, self.unit


class Line(msgspec.Struct, eq=False):
    """A row of the plan under way."""

    row: Row
    interface: Interface
    units: deque[Unit]
    due: float
    """When its next call is due, on the monotonic clock."""

    @property
    def spacing(self) -> float:
        """Seconds from one of its calls to the next."""
        return self.row.interval / len(self.units)


class Schedule:
    """Deals out the calls of a plan."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self.lines: list[Line] = []
        self._asked: dict[tuple[str, str], float] = {}
        """Interface and serial → when it was last asked."""
        self.at_once = False
        """Whether what was never asked yet is asked without a pause."""
        self.soon: deque[Job] = deque()
        """What is out of turn."""

    @property
    def begun(self) -> bool:
        """Whether each unit has been asked about once, or there are not calls enough to do so at once."""
        return not self.at_once or not any(
            self._is_new(line.interface, unit) for line in self.lines if line.row.live for unit in line.units
        )

    def follow(self, rows: Sequence[Row], known: Callable[[str], object]) -> None:
        """Go by these from now on: in each, those whose turn is longest ago come first.

        What was asked of serials that are not `known` any more is forgotten.
        """
        now = self._clock.monotonic()
        before = {_key(line.row): line.due for line in self.lines}
        self._asked = {key: at for key, at in self._asked.items() if known(key[1])}
        self.lines = []
        for position, row in enumerate(rows, 1):
            interface = self._catalogue.interface(row.interface)
            units = deque(sorted(row.units, key=lambda unit, interface=interface: self._age(interface, unit)))  # type: ignore[misc]
            line = Line(row, interface, units, now)
            self.lines.append(line)
            if not (self.at_once and self._is_new(interface, units[0])):
                due = before.get(_key(row))
                first = line.spacing * position / (len(rows) + 1)
                line.due = now + first if due is None else min(due, now + line.spacing)

    def next(self, is_open: Callable[[Hashable], bool]) -> Job | float:
        """Return the next call, or the seconds until it is due. One whose lane is not open is left out this time."""
        if self.soon:
            return self.soon.popleft()
        now = self._clock.monotonic()
        while True:
            line = min(self.lines, key=lambda line: line.due, default=None)
            if line is None:
                return IDLE
            if line.due > now:
                return line.due - now
            unit = line.units[0]
            line.units.rotate(-1)
            row = line.row
            first = row.live and self._is_new(line.interface, unit)
            job = Job(line.interface, unit, row.interval, row.live, row.pushed, first)
            if not is_open(job.who):
                line.due = now + max(TICK, line.spacing)
                continue
            for serial in unit:
                self._asked[line.interface.name, serial] = now
            at_once = self.at_once and self._is_new(line.interface, line.units[0])
            line.due = now if at_once else max(line.due + line.spacing, now)
            return job

    def again(self, job: Job) -> None:
        """Make a call that could not be made now as the next one."""
        self.soon.appendleft(job)

    def _is_new(self, interface: Interface, unit: Unit) -> bool:
        return self._age(interface, unit) == -inf

    def _age(self, interface: Interface, unit: Unit) -> float:
        name, asked = interface.name, self._asked
        return min([asked.get((name, serial), -inf) for serial in unit])


def _key(row: Row) -> Hashable:
    """Return what the same row of the next plan has, too."""
    return row.interface, row.type, row.pushed


def batched(serials: Sequence[str], size: int) -> Iterator[Unit]:
    """Yield serials in lots of that size at most."""
    return (tuple(serials[start : start + size]) for start in range(0, len(serials), size))
