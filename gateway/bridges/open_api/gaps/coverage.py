"""Which times of each device were read, and which gaps are between them. Pure; no I/O. Times are POSIX seconds.

A gap lies between two measurements that were read live, where in between nothing could be read. A device that was read
all the while and had no news, e.g. an inverter at night, has none.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

INTERVALS: Final = 2
"""Intervals without a reading from which on one was missed."""
SHORTEST: Final = 600.0
"""Seconds of a gap: SEMS keeps a sample every five minutes, so of shorter ones it may have none."""
SETTLE: Final = 10.0
SETTLE_INTERVALS: Final = 1.5
MAX_SETTLE_SECONDS: Final = 300.0
"""From the first gap on, filling waits for SETTLE seconds and SETTLE_INTERVALS, but no longer than this: until then
live data of all devices are there again, and all gaps are known, so that the oldest can come first."""
MINUTE: Final = 60.0
MAX_GAPS: Final = 8
"""Of one device. Past that its oldest is given up."""
STEP: Final = 0.001
"""Two times that differ by less are one."""

Row = tuple[str, str, float, float]
"""A line of the file: what it says (`READ`, `GAP`, `DONE`), the serial, and two times."""
READ: Final = "r"
"""A measurement's time, and when it was read."""
GAP: Final = "g"
"""A gap's start and end."""
DONE: Final = "d"
"""Until when nothing is missing any more; the second is 0."""


class Gap(msgspec.Struct):
    """Nothing was read of what was measured between these, both excluded."""

    start: float
    end: float
    tries: int = 0
    """How often SEMS had nothing for it."""
    due: float = 0.0
    """When it is to be tried again."""


class _Read(msgspec.Struct):
    """What was read last of a device."""

    time: float
    """Of the newest measurement."""
    at: float
    """When it was read."""
    interval: float = 0.0
    """Seconds until it was to be read again; 0 where that is not known, as after a restart."""


class Coverage:
    """Of all devices of one account."""

    def __init__(self, within: float, note: Callable[[Row], None]) -> None:
        self.given_up = 0
        """Gaps that were too many, or too old."""
        self._within = within
        self._note = note
        """Called with what changes, as a line for the file."""
        self._read: dict[str, _Read] = {}
        self._gaps: dict[str, list[Gap]] = {}
        """Serial → its gaps, oldest first."""
        self._ready: list[tuple[float, str]] = []
        """A heap of the start of each device's first gap; may have such as are no more."""
        self._later: list[tuple[float, str]] = []
        """A heap of those that are due later, by when."""
        self._from = 0.0
        """When filling begins."""
        self.waiting = 0
        """How many gaps there are."""

    # the file

    def restore(self, rows: Iterable[Row]) -> None:
        """Take up what was known."""
        for kind, serial, first, second in rows:
            match kind:
                case "r":
                    self._read[serial] = _Read(first, second)
                case "g":
                    self._add(serial, Gap(first, second))
                case "d":
                    self._trim(serial, first)
                case _:
                    pass

    def rows(self) -> Iterator[Row]:
        """Return all that is known, for a new file."""
        yield from [(READ, serial, known.time, known.at) for serial, known in self._read.items()]
        yield from [(GAP, serial, gap.start, gap.end) for serial, gaps in self._gaps.items() for gap in gaps]

    # what is read

    def read(self, serial: str, time: float, at: float, interval: float) -> Gap | None:
        """Take in that a measurement was read live; return the gap that ends with it, if any."""
        known = self._read.get(serial)
        if known is None:
            self._read[serial] = _Read(time, at, interval)
            self._note((READ, serial, time, at))
            return None
        gap = self._between(known, time, at, interval)
        if gap is not None:
            self._add(serial, gap)
            self._note((GAP, serial, gap.start, gap.end))
        known.time, known.at, known.interval = max(known.time, time), at, interval
        self._note((READ, serial, known.time, at))
        return gap

    def _between(self, known: _Read, time: float, at: float, interval: float) -> Gap | None:
        shortest = max(SHORTEST, INTERVALS * max(interval, known.interval))
        # A series may have times by the minute, so what is of the minute of a live one is that one.
        start, end = max(known.time, at - self._within), time - time % MINUTE
        if at - known.at <= shortest or end - start <= shortest:
            return None
        if not self.waiting:
            self._from = at + min(SETTLE + SETTLE_INTERVALS * interval, MAX_SETTLE_SECONDS)
        return Gap(start, end)

    # what is missing

    def gaps(self, serial: str) -> Sequence[Gap]:
        """Return the gaps of a device, oldest first."""
        return self._gaps.get(serial, ())

    @property
    def devices(self) -> int:
        """How many devices have gaps."""
        return len(self._gaps)

    @property
    def oldest(self) -> float | None:
        """Start of the oldest gap. Walks all devices that have some."""
        return min((gaps[0].start for gaps in self._gaps.values()), default=None)

    def next(self, now: float) -> str | None:
        """Return the device whose gap is to be filled now: the oldest gap of those that are due."""
        if now < self._from:
            return None
        while self._later and self._later[0][0] <= now:
            _, serial = heapq.heappop(self._later)
            if serial in self._gaps:
                heapq.heappush(self._ready, (self._gaps[serial][0].start, serial))
        while self._ready:
            start, serial = self._ready[0]
            gaps = self._gaps.get(serial)
            if gaps and gaps[0].start == start and gaps[0].due <= now:
                return serial
            heapq.heappop(self._ready)
            if gaps and gaps[0].start == start:
                heapq.heappush(self._later, (gaps[0].due, serial))
        return None

    def next_due(self) -> float | None:
        """Return when the next gap is due that is not yet; None where there is none."""
        if not self._later:
            return self._from if self._ready else None
        return max(self._from, self._later[0][0])

    def done(self, serial: str, until: float) -> None:
        """Say that nothing before `until` is missing any more, itself included."""
        self._trim(serial, until)
        self._note((DONE, serial, until, 0.0))

    def postpone(self, serial: str, due: float, *, tried: bool) -> int:
        """Have a device's first gap wait until `due`; return how often it was tried."""
        gap = self._gaps[serial][0]
        gap.due = due
        gap.tries += tried
        heapq.heappush(self._later, (due, serial))
        return gap.tries

    def forget_old(self, now: float) -> int:
        """Give up what is older than there is interest in; return how many gaps end by that."""
        before, limit = self.waiting, now - self._within
        for serial in [serial for serial, gaps in self._gaps.items() if gaps[0].start < limit - MINUTE]:
            self.done(serial, limit)
        self.given_up += before - self.waiting
        return before - self.waiting

    def _add(self, serial: str, gap: Gap) -> None:
        known = self._gaps.get(serial, ())
        if len(known) >= MAX_GAPS:
            self.given_up += 1
            self.done(serial, known[0].end)
        gaps = self._gaps.setdefault(serial, [])
        gaps.append(gap)
        self.waiting += 1
        if len(gaps) == 1:
            heapq.heappush(self._ready, (gap.start, serial))

    def _trim(self, serial: str, until: float) -> None:
        gaps = self._gaps.get(serial)
        if gaps is None:
            return
        left = [gap for gap in gaps if gap.end > until + STEP]
        self.waiting -= len(gaps) - len(left)
        if not left:
            del self._gaps[serial]
            return
        self._gaps[serial] = left
        if left[0] is not gaps[0] or left[0].start < until:
            left[0].start = max(left[0].start, until)
            heapq.heappush(self._ready, (left[0].start, serial))
