"""A timer that keeps its due time itself: no handle of the loop is ever asked anything.

Loops differ in what they return: uvloop gives a plain handle for a time that has come already, one without `when()`.
They also round: uvloop to the millisecond, so that it may call half of one too early. A `Timer` never acts early.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

MAX_WAIT: Final = 3600.0
"""Seconds that the loop is asked to wait at a time: what is due later is looked at again, also where it never is."""
MIN_WAIT: Final = 0.001
"""Seconds, likewise, where the loop came a little early."""


class Timer:
    """Calls something once its time has come, and not again until it is set again."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.due = math.inf
        """On the loop's clock; infinite while nothing is due."""
        self._action = action
        self._handle: asyncio.Handle | None = None

    @property
    def is_set(self) -> bool:
        """Whether it will act."""
        return self.due < math.inf

    def set(self, seconds: float) -> None:
        """Have it act in so many seconds, whatever it was set to. Never within this call."""
        self._stop()
        self.due = asyncio.get_running_loop().time() + max(0.0, seconds)
        self._wait(0.0)

    def within(self, seconds: float) -> None:
        """Have it act in so many seconds, or sooner where that is due already."""
        if asyncio.get_running_loop().time() + max(0.0, seconds) < self.due:
            self.set(seconds)

    def cancel(self) -> None:
        """Let nothing be due."""
        self.due = math.inf
        self._stop()

    def _wait(self, least: float) -> None:
        loop = asyncio.get_running_loop()
        left = min(max(least, self.due - loop.time()), MAX_WAIT)
        self._handle = loop.call_later(left, self._look)

    def _look(self) -> None:
        self._handle = None
        if asyncio.get_running_loop().time() < self.due:
            self._wait(MIN_WAIT)
            return
        self.due = math.inf
        self._action()

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
