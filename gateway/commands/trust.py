"""Whether the wall clock may be believed after a start of the machine.

A box without a clock of its own wakes up with any time, often hours behind, until somebody sets it. What was promised
before can only be reckoned by the wall clock then; so it may not be, until the clock is known to be right.
"""

from datetime import datetime, timedelta
from typing import Final

from gateway.core.clock import Clock

SLACK: Final = timedelta(seconds=2)
"""What the whole seconds of a Date header, and its way here, may make it differ."""


class WallTrust:
    """Knows the wall clock to be right once it was set, or agrees with a far side's, and is not behind either."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._floor: datetime | None = None
        self._was_set = False

    def begin(self, last_word: datetime | None) -> None:
        """Take in the time of the newest thing that was written before this start."""
        self._floor = last_word

    def note_set(self) -> None:
        """Take in that the clock was set."""
        self._was_set = True

    @property
    def known(self) -> bool:
        """Whether it is known to be right."""
        now, far = self._clock.now(), self._clock.far
        if self._floor is not None and now < self._floor - SLACK:
            return False
        if far is not None:
            return now >= far - SLACK
        return self._was_set
