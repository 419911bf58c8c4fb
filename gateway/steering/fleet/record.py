"""What a fleet gave in each minute, kept by the gateway itself: SEMS keeps no minutes of many devices.

A file a day (UTC), a line a minute: the minute's number since 1970, W of the members that are known, how many these
are, and how many there are; and a semicolon, which half a line lacks.
"""

import asyncio
import math
import os
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core import files

KEPT: Final = 40
"""Days. A proof is of 31 days at most."""
WRITTEN_EVERY: Final = 15
"""Minutes that are written at a time: a card wears out."""
MOST_WAITING: Final = 1_440
"""Minutes that wait for a disk that takes nothing."""


class Given(msgspec.Struct, frozen=True):
    """One minute."""

    power: float
    """W, of the members that are known."""
    known: int
    members: int


class Record:
    """Keeps the minutes of one fleet."""

    def __init__(self, directory: Path, fleet: str, log: structlog.stdlib.BoundLogger) -> None:
        self._directory = directory
        self._fleet = fleet
        self._log = log
        self._waiting: dict[int, Given] = {}
        """Minute → what was given at its begin, or as soon after that as was looked."""
        self._newest = -1
        self._is_broken = False

    def lacks(self, now: datetime) -> bool:
        """Return whether nothing is known of this minute yet."""
        return _minute(now) > self._newest

    def take(self, now: datetime, given: Given) -> None:
        """Take in what is given in this minute."""
        self._newest = _minute(now)
        self._waiting[self._newest] = given
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    async def write(self, *, all_: bool = False) -> None:
        """Write what waits, where it is enough for that."""
        if self._waiting and (all_ or len(self._waiting) >= WRITTEN_EVERY):
            written = dict(self._waiting)
            try:
                await asyncio.to_thread(self._append, written)
            except OSError as error:
                if not self._is_broken:
                    self._log.warning("what the fleet gives can't be kept; it is tried again", error=str(error))
                self._is_broken = True
                return
            self._is_broken = False
            for minute in written:
                self._waiting.pop(minute, None)

    def _append(self, given: dict[int, Given]) -> None:
        files.make_directory(self._directory)
        by_file: dict[Path, list[str]] = {}
        for minute, each in given.items():
            line = f"{minute},{each.power:.1f},{each.known},{each.members};\n"
            by_file.setdefault(_file(self._directory, self._fleet, minute), []).append(line)
        for file, lines in by_file.items():
            descriptor = files.open_own(file, os.O_WRONLY | os.O_APPEND)
            try:
                # A power cut may have left half a line: what follows begins a new one.
                os.write(descriptor, ("\n" + "".join(lines)).encode("ascii"))
            finally:
                os.close(descriptor)
        oldest = _file(self._directory, self._fleet, max(given) - KEPT * 1_440).name
        for file in self._directory.glob(_file(self._directory, self._fleet, 0).name.replace("1970-01-01", "*")):
            if file.name < oldest:
                file.unlink(missing_ok=True)


def recorded(directory: Path, fleet: str, start: datetime, end: datetime) -> dict[int, Given]:
    """Return what is on record: number of the minute after `start` → what was given. Raises OSError."""
    first, last = _minute(start), _minute(end)
    days = {_file(directory, fleet, minute) for minute in [*range(first, last, 1_440), last]}
    return {
        minute - first: given
        for file in sorted(days)
        if file.exists()
        for minute, given in _lines(file.read_text("ascii", errors="replace"))
        if first <= minute < last
    }


def _lines(text: str) -> Iterator[tuple[int, Given]]:
    """Yield what the lines say; half a line says nothing."""
    for line in text.splitlines():
        try:
            body, mark = line[:-1], line[-1:]
            minute, power, known, members = body.split(",")
            found = int(minute), Given(float(power), int(known), int(members))
        except ValueError:
            continue
        if mark == ";" and math.isfinite(found[1].power):
            yield found


def _minute(time: datetime) -> int:
    return int(time.timestamp() // 60)


def _file(directory: Path, fleet: str, minute: int) -> Path:
    day = date(1970, 1, 1) + timedelta(days=minute // 1_440)
    return directory / f"{fleet.replace(':', '-')}-minutes-{day}.csv"
