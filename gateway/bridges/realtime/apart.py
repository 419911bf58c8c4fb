"""What a division of a batch has found: which numbers share no batch any more, for one of them spoils it.

A cloud that refuses a whole call for one number is asked in halves. What is found so must outlive the round, and a
restart, or it would be looked for each time and the calls would never suffice: halves that are still refused stay
batches of their own, and a number that spoils every batch is asked alone, less and less often.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

PAUSE_FIRST: Final = 300.0
MAX_PAUSE_SECONDS: Final = 86_400.0
"""Seconds until a number that spoils its batches is asked about again, alone."""


class Alone(msgspec.Struct, frozen=True):
    """A number that spoils every batch of an interface."""

    pause: float
    retry: datetime


class Apart(msgspec.Struct):
    """Of each interface, by its name."""

    groups: dict[str, dict[str, int]] = {}
    """Interface → serial → number of the half it is in, where that is a batch of its own."""
    alone: dict[str, dict[str, Alone]] = {}
    """Interface → serial → when it is asked again."""

    def divide(self, interface: str, *parts: Sequence[str]) -> None:
        """Have these be batches of their own from now on."""
        known = self.groups.setdefault(interface, {})
        for part in parts:
            number = max(known.values(), default=0) + 1
            known.update(dict.fromkeys(part, number))

    def is_alone(self, interface: str, serial: str) -> bool:
        """Return whether a number is asked about alone."""
        return serial in self.alone.get(interface, {})

    def put_alone(self, interface: str, serial: str, now: datetime) -> None:
        """Ask about a number alone: after a while, and each time this is called after twice as long."""
        known = self.alone.setdefault(interface, {})
        before = known.get(serial)
        pause = PAUSE_FIRST if before is None else min(before.pause * 2, MAX_PAUSE_SECONDS)
        known[serial] = Alone(pause, now + timedelta(seconds=pause))

    def is_well(self, interface: str, serials: Iterable[str]) -> bool:
        """Have these share batches again, for an answer came; returns whether any did not."""
        found = False
        for serial in serials:
            for known in (self.groups.get(interface), self.alone.get(interface)):
                if known:
                    found = known.pop(serial, None) is not None or found
        return found

    def due(self, now: datetime) -> Iterator[tuple[str, str]]:
        """Yield interface and serial of those that are to be asked about, alone."""
        for interface, known in self.alone.items():
            for serial, alone in known.items():
                # One further away than its pause: the wall clock was set back.
                if not now < alone.retry <= now + timedelta(seconds=alone.pause):
                    yield interface, serial

    def lots(self, interface: str, serials: Iterable[str]) -> list[list[str]]:
        """Return the numbers in lots that may share batches, without those that are asked alone."""
        groups, alone = self.groups.get(interface, {}), self.alone.get(interface, {})
        found: dict[int, list[str]] = {}
        for serial in serials:
            if serial not in alone:
                found.setdefault(groups.get(serial, 0), []).append(serial)
        return list(found.values())

    def keep(self, serials: Iterable[str]) -> None:
        """Forget all numbers but these."""
        wanted = set(serials)
        self.groups = {name: {s: n for s, n in known.items() if s in wanted} for name, known in self.groups.items()}
        self.alone = {name: {s: a for s, a in known.items() if s in wanted} for name, known in self.alone.items()}
