"""Which zone a plant's times are in: what SEMS says of it, and what its newest times show where SEMS says nothing."""

from collections import deque
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

import msgspec

from gateway.core.text import plain
from gateway.core.zones import EASTERNMOST, WESTERNMOST, fixed, zone_named
from gateway.sems.normalise import Reading
from gateway.sems.times import AHEAD, MAX_SHOWN

QUARTER: Final = timedelta(minutes=15)
"""Zones differ by whole quarters of an hour."""
LOOKED_WITHIN: Final = timedelta(minutes=10)
"""News that came between two looks no further apart than this is new; or nobody knows how old."""
DELAY: Final = timedelta(minutes=1)
"""By how much an upload may be later than the one before it, and no backlog be suspected."""
VOTES: Final = 8
"""How many of a plant's news are remembered."""
SET_BACK: Final = (timedelta(hours=1), timedelta(minutes=30))
"""By how much clocks are set back in autumn, on Lord Howe Island by half an hour."""
AGREEING: Final = 3
"""How many of them must say the same."""


def said_zone(reading: Reading) -> tzinfo | None:
    """Return the zone that an answer names; None where it names none that there is.

    `time_span` counts hours with the sign reversed: -8 is UTC+08:00 (SEMS.md, seen).
    """
    zone = zone_named(reading.text("time_zone")) or zone_named(reading.text("time_span"))
    span = reading.number("time_span")
    if zone is None and span is not None and abs(span) <= EASTERNMOST / timedelta(hours=1):
        return fixed(round(timedelta(hours=-span) / QUARTER) * QUARTER)
    return zone


def odd_zone(reading: Reading) -> str:
    """Return how an answer names its zone where `said_zone` does not know it; empty where it says nothing."""
    said = (reading.attributes.get(name) for name in ("time_zone", "time_span"))
    return next((text for value in said if (text := plain(value, MAX_SHOWN))), "")


class Seen(msgspec.Struct):
    """The newest local time of one device."""

    local: datetime
    since: datetime
    """When it was first seen: about when it was measured, whatever the zone."""
    looked: datetime
    """When it was last seen."""
    fits_utc: bool
    """Whether it was of right then, if it is UTC."""
    moved: bool = False
    """Whether there was an earlier one."""


class Offsets:
    """How far plants' clocks are ahead of UTC, by the newest times of their devices.

    A device's newest time can't be later than now. So each that comes, as news, while we look often, says how far its
    clock is ahead of ours at the least; and, where uploads are not late, in quarters of an hour at the most too. What
    does not move on proves nothing: it may be dead.
    """

    def __init__(self) -> None:
        self.known: dict[str, timedelta] = {}
        """Plant → what was found out."""
        self._seen: dict[str, Seen] = {}
        self._votes: dict[str, deque[timedelta]] = {}

    def take(self, plant: str, serial: str, local: datetime, now: datetime) -> bool:
        """Take in a device's newest local time. Returns whether the plant's offset is another with it."""
        utc = now.replace(tzinfo=None)
        before = self._seen.get(serial)
        if before is None:
            # It may be from any time. In no zone it is later than now, though.
            first_seen = now if local > utc else local.replace(tzinfo=UTC)
            self._seen[serial] = Seen(local, first_seen, now, _is_new(local, utc))
            return False
        gap, before.looked = now - before.looked, now
        moved, elapsed = local - before.local, now - before.since
        late = gap + DELAY
        was_set_back = moved < timedelta() and any(abs(moved - elapsed + back) <= late for back in SET_BACK)
        if moved <= timedelta() and not was_set_back:
            return False
        before.local, before.since, before.fits_utc, before.moved = local, now, _is_new(local, utc), True
        if gap > LOOKED_WITHIN or moved > elapsed + late:
            return False  # who knows how old; or a backlog, which is
        return self._vote(plant, -(-(local - utc - AHEAD) // QUARTER) * QUARTER)

    def seen(self, serial: str) -> Seen:
        """Return the newest that was seen of a device. Raises KeyError."""
        return self._seen[serial]

    def forget(self, serial: str) -> None:
        """Forget a device."""
        self._seen.pop(serial, None)
        self._votes.pop(serial, None)

    def _vote(self, plant: str, offset: timedelta) -> bool:
        if not WESTERNMOST <= offset <= EASTERNMOST:
            return False
        votes = self._votes.setdefault(plant, deque(maxlen=VOTES))
        votes.append(offset)
        # Late news look further west; so the easternmost is right that several agree about.
        agreed = max((vote for vote in votes if votes.count(vote) >= AGREEING), default=None)
        known = self.known.get(plant)
        if agreed is None or agreed == known:
            return False
        if known is not None and agreed < known:
            # Clocks were set back, or else all is late: to believe that takes all of them.
            enough = AGREEING if known - agreed in SET_BACK else VOTES
            if len(votes) < enough or max(list(votes)[-enough:]) >= known:
                return False
        self.known[plant] = agreed
        return True


def _is_new(local: datetime, utc: datetime) -> bool:
    return -AHEAD <= utc - local <= QUARTER
