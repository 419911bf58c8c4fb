"""How often, and how far, within a minute."""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Final

from gateway.core.clock import Clock
from gateway.core.model import Range

MINUTE: Final = 60.0
"""Seconds. A window that slides, so that no burst passes at its edge."""


class Rates:
    """Counts what was accepted within the last minute, by any key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: dict[Hashable, deque[float]] = {}

    def count(self, key: Hashable) -> None:
        """Remember that one was accepted."""
        self._recent.setdefault(key, deque()).append(self._clock.monotonic())

    def used(self, key: Hashable) -> int:
        """Return how many were accepted within the last minute."""
        recent = self._recent.get(key)
        if recent is None:
            return 0
        minute_ago = self._clock.monotonic() - MINUTE
        while recent and recent[0] <= minute_ago:
            recent.popleft()
        if not recent:
            del self._recent[key]
        return len(recent)

    def wait(self, key: Hashable, most: int, along: int = 0) -> float:
        """Return in how many seconds one more fits into `most` a minute, beside `along` that are being judged with it.

        0 for now; infinity where it never does, because those beside it take all.
        """
        used = self.used(key)
        if used + along < most:
            return 0.0
        if along >= most:
            return float("inf")
        return self._recent[key][used + along - most] + MINUTE - self._clock.monotonic()


class Ramps:
    """Knows the numbers that were in force within the last minute, or may have been, of each setpoint of a device."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: dict[tuple[str, str], deque[tuple[float, float]]] = {}
        """Key → since when, and what: in this order, each until the next."""

    def note(self, key: tuple[str, str], value: float, in_force: float | None) -> None:
        """Take in that a value was accepted, while `in_force` was so (None: nobody knows)."""
        now = self._clock.monotonic()
        values = self._values.setdefault(key, deque())
        if in_force is not None and (not values or values[-1][1] != in_force):
            values.append((now, in_force))
        values.append((now, value))
        self._drop_old(values, now)

    def allowed(self, key: tuple[str, str], ramp: float, in_force: float | None, along: Iterable[float] = ()) -> Range:
        """Return what a value may be now, so that within any minute it moves by no more than `ramp`.

        It must be near what is in force, then near what was accepted of late, newest first, and near `along`, which
        is judged with it. Somebody else may have set the device: what contradicts the newer is left out then.
        """
        values = self._values.get(key, deque())
        self._drop_old(values, self._clock.monotonic())
        low, high = float("-inf"), float("inf")
        newest_first = [*reversed(list(along)), *(value for _, value in reversed(values))]
        for value in newest_first if in_force is None else [in_force, *newest_first]:
            tighter = max(low, value - ramp), min(high, value + ramp)
            if tighter[0] > tighter[1]:
                break
            low, high = tighter
        return Range() if low == float("-inf") else Range(low, high)

    @staticmethod
    def _drop_old(values: deque[tuple[float, float]], now: float) -> None:
        while len(values) > 1 and values[1][0] <= now - MINUTE:
            values.popleft()
