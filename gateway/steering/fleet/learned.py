"""What members taught a fleet by what they refused, kept over restarts: to learn it again would take their refusals."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.kept_file import KeptFile
from gateway.core.model import day_of
from gateway.steering.fleet.mate import Lesson, Mate

WRITTEN_EVERY: Final = 10.0
"""Seconds between writes, at least: thousands may refuse at once."""


class Kept(msgspec.Struct, frozen=True):
    """The file."""

    day: int
    """The day (UTC) that it is of, as `day_of` counts."""
    members: dict[str, Lesson]
    """Serial number → what it taught; those that taught nothing are left out."""
    draws: float = 0.0
    """W that all together can draw by their batteries."""
    gives: float = 0.0
    """W that all together can feed in: their rated power."""


class Learned:
    """Keeps the lessons of one fleet's members."""

    def __init__(self, directory: Path, fleet: str, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._clock = clock
        self._file = KeptFile(
            directory / f"{fleet.replace(':', '-')}-learned.json", Kept, log,
            unreadable="what members of the fleet refuse is not known; it is found out anew",
            unwritable="what members of the fleet refuse can't be kept over a restart",
        )  # fmt: skip
        self._unclaimed: dict[str, Lesson] = {}
        """Serial number → what those taught that are no members yet since the start."""
        self._written: Kept | None = None
        self.draws = self.gives = 0.0
        """See `Kept`: as it was before the start."""
        self._next = 0.0

    async def start(self) -> None:
        """Take up what is kept."""
        self._written = await asyncio.to_thread(self._file.read)
        self._unclaimed = {}
        if self._written is not None:
            self.draws, self.gives = self._written.draws, self._written.gives
            self._unclaimed = dict(self._written.members)
            if self._written.day != day_of(self._clock.now()):
                self._unclaimed = {serial: lesson.aged() for serial, lesson in self._unclaimed.items()}

    def claim(self, mate: Mate) -> None:
        """Give a member back what it taught before the start."""
        lesson = self._unclaimed.pop(mate.device.serial, None)
        if lesson is not None:
            mate.learn(lesson)

    def forget(self) -> None:
        """Leave out those that have not come since the start."""
        self._unclaimed.clear()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at all members for what they taught."""
        return self._clock.monotonic() >= self._next

    async def keep(self, mates: Iterable[Mate], size: tuple[float, float], now: datetime) -> None:
        """Write what is known now, where that is not what was written last. `size`: W drawn and given at most."""
        self._next = self._clock.monotonic() + WRITTEN_EVERY
        taught = {mate.device.serial: lesson for mate in mates if (lesson := mate.lesson) is not None}
        kept = Kept(day_of(now), self._unclaimed | taught, *size)
        before = self._written or Kept(0, {})
        is_same = (kept.members, kept.draws, kept.gives) == (before.members, before.draws, before.gives)
        if not is_same and await self._file.write(msgspec.json.encode(kept)):
            self._written = kept
