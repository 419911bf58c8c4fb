"""Places for the commands of a fleet, so that who commands one device does not wait behind all of them.

Every queue on the way of a command serves who comes first: the loop, the journal, the sender, the broker. So of a
fleet's commands only few are let into all of them together, and the next one when one of these has left; all others
need no place. What a command waits behind is bounded by that, whatever it is that takes long.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Generic, TypeVar

from gateway.core.timer import Timer

T = TypeVar("T")

PLACES: Final = 32
"""Commands of fleets that are worked on at a time, at one place: with more the others wait longer, and with fewer
each commit and each message of Kafka has less to carry."""
LONGEST: Final = 2.0
"""Seconds after which a place is free again: a place is for work, and who takes longer waits for somebody else."""


class Places(Generic[T]):
    """Lets in what has come first. `begin` is called with each that has got a place, at once or later."""

    def __init__(self, begin: Callable[[T], None], most: int = PLACES) -> None:
        self._begin = begin
        self._free = most
        self._waiting: deque[T] = deque()
        self._taken: dict[T, Timer] = {}
        self._holding = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def enter(self, what: T) -> None:
        """Have it begun when there is a place."""
        self._waiting.append(what)
        self._let_in()

    def leave(self, what: T) -> None:
        """Give its place back; harmless where it has none, or not any more."""
        alarm = self._taken.pop(what, None)
        if alarm is not None:
            alarm.cancel()
            self._free += 1
            self._let_in()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody in for a while."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
            self._let_in()

    def close(self) -> None:
        """Forget all that wait."""
        self._waiting.clear()
        for alarm in self._taken.values():
            alarm.cancel()
        self._free += len(self._taken)
        self._taken.clear()

    def _let_in(self) -> None:
        if self._holding:
            return
        self._holding += 1  # who is begun may leave at once
        try:
            while self._waiting and self._free:
                what = self._waiting.popleft()
                if what not in self._taken:
                    self._free -= 1
                    alarm = self._taken[what] = Timer(partial(self.leave, what))
                    alarm.set(LONGEST)
                    self._begin(what)
        finally:
            self._holding -= 1
