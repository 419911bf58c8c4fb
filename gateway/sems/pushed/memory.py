"""What was pushed lately, so that what comes twice is known. Bounded: the oldest is forgotten first."""

from collections import OrderedDict
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec

from gateway.sems.catalogue import Json

REMEMBERED: Final = 50_000
STORED: Final = 0
"""Instead of a number: whoever keeps history has it."""

_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Known(msgspec.Struct):
    """A push that has come before."""

    number: int
    """By which the router knows it while it may not be stored yet; else STORED."""
    came: float
    """Monotonic seconds."""


class Memory:
    """Pushes by what is in them."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @staticmethod
    def mark(interface: str, serial: str, time: datetime | None, content: Json) -> bytes:
        """Return what identifies a push: interface, serial number, time and content."""
        return blake2b(_encode([interface, serial, time, content]), digest_size=16).digest()

    def get(self, mark: bytes) -> Known | None:
        """Return the push with this mark, if it came lately."""
        return self._known.get(mark)

    def note(self, mark: bytes, number: int, came: float) -> None:
        """Remember that a push came, and by which number the router knows it."""
        self._known[mark] = Known(number, came)
        self._known.move_to_end(mark)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def stored(self, mark: bytes) -> None:
        """Remember that a push is where nothing is lost any more."""
        known = self._known.get(mark)
        if known is not None:
            known.number = STORED

    def forget(self, mark: bytes) -> None:
        """Take a push for new when it comes again: it was lost."""
        self._known.pop(mark, None)
