"""Places for the commands of a fleet, so that who commands one device does not wait behind all of them.

Every queue on the way of a command serves who comes first: the loop, the journal, the sender, the broker. So of a
fleet's commands only few are let into all of them together, and the next one when one of these has left; all others
need no place. What a command waits behind is bounded by that, whatever it is that takes long.

Each commit, each message of Kafka and each turn of the loop costs the same for one command as for many. So they are
few only where somebody else commands devices, or did a moment ago.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Generic, TypeVar

from gateway.core.timer import Timer

T = TypeVar("T")

FEW: Final = 32
"""Commands of fleets that are worked on at a time, at one place, while there are others: with more these wait longer,
and with fewer the fleet takes longer and costs more."""
MANY: Final = 128
"""The same while there are none: with more a turn of the loop is too long for what else the gateway does."""
A_TURN: Final = 16
"""Of these, how many begin in one turn of the loop."""
LATELY: Final = 1.0
"""Seconds after a command of no fleet for which others are expected."""
LONGEST: Final = 2.0
"""Seconds after which a place is free again: a place is for work, and who takes longer waits for somebody else."""


class Others:
    """Knows whether there are commands of no fleet."""

    def __init__(self) -> None:
        self._until = -math.inf

    def came(self) -> None:
        """Take in that one came, or went on."""
        self._until = asyncio.get_running_loop().time() + LATELY

    def room(self) -> int:
        """Return how many of fleets' commands there may be at a time, at one place."""
        return FEW if asyncio.get_running_loop().time() < self._until else MANY


class Places(Generic[T]):
    """Lets in what has come first, as many as `room` says. `begin` is called with each, at once or later."""

    def __init__(self, begin: Callable[[T], None], room: Callable[[], int]) -> None:
        self._begin = begin
        self._room = room
        self._waiting: deque[T] = deque()
        self._taken: dict[T, Timer] = {}
        self._holding = 0
        self._begun = 0
        """In this turn of the loop."""

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
        self._taken.clear()

    def _let_in(self) -> None:
        if self._holding:
            return
        self._holding += 1  # who is begun may leave at once
        try:
            while self._waiting and self._begun < A_TURN and len(self._taken) < self._room():
                what = self._waiting.popleft()
                if what not in self._taken:
                    if not self._begun:
                        asyncio.get_running_loop().call_soon(self._next_turn)
                    self._begun += 1
                    alarm = self._taken[what] = Timer(partial(self.leave, what))
                    alarm.set(LONGEST)
                    self._begin(what)
        finally:
            self._holding -= 1

    def _next_turn(self) -> None:
        self._begun = 0
        self._let_in()
