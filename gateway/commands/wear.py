"""How often setpoints were written: inverters keep them in a memory that wears out."""

from collections.abc import Iterator, Mapping

from gateway.core.clock import Clock
from gateway.core.model import Command, Written, day_of
from gateway.journal.journal import Journal


def spent(serial: str, most: int) -> str:
    """Return in words that a device takes no more today."""
    return (
        f"{serial} has taken {most} writes today, and its memory wears out (control.writes_per_day); it takes more "
        "after midnight UTC"
    )


class Wear:
    """Counts what was handed over, for life and by day (UTC). The journal counts the same."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._counts: dict[str, dict[str, Written]] = {}

    async def load(self) -> None:
        """Take up what the journal has."""
        self._counts.clear()
        for written in await self._journal.written():
            self._counts.setdefault(written.serial, {})[written.setpoint] = written

    def count(self, command: Command, by: int = 1) -> None:
        """Take in that a command is about to be handed over; with -1, that it was not."""
        found = self._counts.setdefault(command.serial, {})
        written = found.setdefault(command.setpoint, Written(command.serial, command.setpoint))
        day = day_of(self._clock.now())
        if written.day != day:
            written.day, written.today = day, 0
        written.life, written.today = max(0, written.life + by), max(0, written.today + by)

    def today(self, serial: str) -> int:
        """Return how many writes a device has taken today."""
        day = day_of(self._clock.now())
        return sum(written.today for written in self.of(serial).values() if written.day == day)

    def of(self, serial: str) -> Mapping[str, Written]:
        """Return what a device has taken, by setpoint."""
        return self._counts.get(serial, {})

    def __iter__(self) -> Iterator[Written]:
        return (written for found in self._counts.values() for written in found.values())
