"""Which call is next: the batches of each data type, spread evenly over its interval, and what is out of turn."""

from collections import deque
from collections.abc import Iterator, Sequence
from math import inf
from typing import Final

import msgspec

from gateway.bridges.realtime.plan import Plan, reading
from gateway.bridges.realtime.roster import Roster
from gateway.core.clock import Clock
from gateway.sems.catalogue import Catalogue, Interface, Use

IDLE: Final = 600.0
"""Seconds after which one looks again, though nothing is due."""

Batch = tuple[str, ...]


class Job(msgspec.Struct):
    """A call to make."""

    interface: Interface
    batch: Batch
    interval: float = 0.0
    """Seconds until the next one about the same; 0 where it is out of turn."""


class _Line(msgspec.Struct):
    """A row of the plan under way."""

    interface: Interface
    batches: deque[Batch]
    interval: float
    due: float
    first: int
    """Batches of which none was ever asked."""


class Schedule:
    """Deals out the calls of a plan."""

    def __init__(self, catalogue: Catalogue, roster: Roster, clock: Clock) -> None:
        self._catalogue = catalogue
        self._roster = roster
        self._clock = clock
        self._lines: list[_Line] = []
        self._asked: dict[tuple[str, str], float] = {}
        self._at_once = False
        self.soon: deque[Job] = deque()
        """What is out of turn."""

    @property
    def begun(self) -> bool:
        """Whether each number has been asked about once, or there are not calls enough to do so at once."""
        return not any(line.first and line.interface.use is Use.LIVE for line in self._lines) or not self._at_once

    def follow(self, plan: Plan, *, at_once: bool) -> None:
        """Go by a plan, and by the numbers as they are: those whose turn is longest ago come first.

        `at_once`: those never asked yet without a pause.
        """
        now = self._clock.monotonic()
        before = {line.interface.name: line for line in self._lines}
        self._asked = {key: at for key, at in self._asked.items() if key[1] in self._roster}
        self._at_once = at_once
        self._lines = []
        by_type = self._roster.read()
        for position, row in enumerate(plan.rows, 1):
            interface = self._catalogue.interface(row.interface)
            batches = sorted(self._batches(interface, by_type), key=lambda batch: self._age(interface, batch))
            if not batches:
                continue
            first = sum(self._age(interface, batch) == -inf for batch in batches)
            spacing = row.interval / len(batches)
            known = before.get(row.interface)
            due = min(known.due, now + spacing) if known else now + spacing * position / (len(plan.rows) + 1)
            line = _Line(interface, deque(batches), row.interval, now if first and at_once else due, first)
            self._lines.append(line)

    def next(self) -> Job | float:
        """Return the next call, or the seconds until it is due."""
        if self.soon:
            return self.soon.popleft()
        now = self._clock.monotonic()
        line = min(self._lines, key=lambda line: line.due, default=None)
        if line is None:
            return IDLE
        if line.due > now:
            return line.due - now
        batch = line.batches.popleft()
        line.batches.append(batch)
        for serial in batch:
            self._asked[line.interface.name, serial] = now
        line.first = max(0, line.first - 1)
        at_once = line.first and self._at_once
        line.due = now if at_once else max(line.due + line.interval / len(line.batches), now)
        return Job(line.interface, batch, line.interval)

    def again(self, job: Job) -> None:
        """Make a call that could not be made now as the next one."""
        self.soon.appendleft(job)

    def _batches(self, interface: Interface, by_type: dict[str, list[str]]) -> Iterator[Batch]:
        live = interface.use is Use.LIVE
        serials = [
            serial
            for type_, some in by_type.items()
            if (reading(self._catalogue, type_) is interface if live else type_ in interface.of)
            for serial in some
        ]
        return batched(serials, interface.batch)

    def _age(self, interface: Interface, batch: Batch) -> float:
        return min(self._asked.get((interface.name, serial), -inf) for serial in batch)


def batched(serials: Sequence[str], size: int) -> Iterator[Batch]:
    """Yield the numbers in lots of that size at most."""
    return (tuple(serials[start : start + size]) for start in range(0, len(serials), size))
