"""The call budget of one account: calls in any hour never exceed what SEMS allows.

Control goes before polling: a share of the hour's calls is kept free for it.
"""

from collections import deque
from typing import Final

from gateway.core.clock import Clock

HOUR: Final = 3600.0
CONTROL_SHARE: Final = 0.1


class Budget:
    """Counts calls over a sliding hour."""

    def __init__(self, per_hour: int, clock: Clock) -> None:
        self.per_hour = per_hour
        self._clock = clock
        self._calls: deque[float] = deque()

    @property
    def for_polling(self) -> int:
        """Calls an hour that polling may plan with."""
        return max(1, int(self.per_hour * (1 - CONTROL_SHARE)))

    def wait(self, *, control: bool) -> float:
        """Return the seconds until a call may be made; 0 when it may be made now."""
        now = self._clock.monotonic()
        while self._calls and self._calls[0] <= now - HOUR:
            self._calls.popleft()
        allowed = self.per_hour if control else self.for_polling
        excess = len(self._calls) - allowed
        return 0.0 if excess < 0 else self._calls[excess] + HOUR - now

    def spend(self) -> None:
        """Count a call."""
        self._calls.append(self._clock.monotonic())

    @property
    def used(self) -> int:
        """Calls made within the last hour."""
        self.wait(control=True)
        return len(self._calls)
