"""A time ahead, as it outlives a restart: until when nobody may call.

Within one boot of the machine the monotonic clock has it exactly, whatever is done to the wall clock. Across a reboot
only the wall clock is left, which a box without a clock of its own has wrong: so what is left is never more than it
was when it was written down, and where the wall clock stands before that moment, it is all of that.
"""

from datetime import datetime, timedelta
from typing import Annotated

import msgspec

Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Ahead(msgspec.Struct, frozen=True):
    """A time ahead, by both clocks."""

    boot: str
    """Of which boot of the machine the monotonic time is; "" where that is unknown."""
    at: float
    """Monotonic seconds of when this was written."""
    written: Aware
    """The same by the wall clock."""
    left: Annotated[float, msgspec.Meta(ge=0)]
    """Seconds from then on."""

    def remaining(self, boot: str, now: float, wall: datetime) -> float:
        """Return how many seconds are left now: 0 where it is over."""
        if boot and boot == self.boot and now >= self.at:
            gone = now - self.at
        else:
            gone = max(0.0, (wall - self.written) / timedelta(seconds=1))
        return max(0.0, self.left - gone)
