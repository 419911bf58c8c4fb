"""A part of the account's calls, for one purpose: never more than so many in any hour."""

from collections import deque

from gateway.core.clock import Clock
from gateway.sems.budget import HOUR


class Allowance:
    """Counts over a sliding hour."""

    def __init__(self, per_hour: int, clock: Clock) -> None:
        self.per_hour = per_hour
        """May be changed at any time."""
        self._clock = clock
        self._taken: deque[float] = deque()

    @property
    def taken(self) -> int:
        """How many were taken within the last hour."""
        now = self._clock.monotonic()
        while self._taken and self._taken[0] <= now - HOUR:
            self._taken.popleft()
        return len(self._taken)

    def wait(self, calls: int = 1) -> float:
        """Return the seconds until there are so many to take; 0 when there are now."""
        excess = self.taken + calls - 1 - self.per_hour
        if excess < 0:
            return 0.0
        return HOUR if excess >= len(self._taken) else self._taken[excess] + HOUR - self._clock.monotonic()

    def take(self) -> None:
        """Count one."""
        self._taken.append(self._clock.monotonic())
