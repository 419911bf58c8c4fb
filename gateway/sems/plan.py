"""The hour's plan: which interfaces are called how often, and what calls are kept for everything else. Pure; no I/O.

The sum of a plan never exceeds what polling may spend: intervals follow from the calls there are, not the other way
round.
"""

from enum import StrEnum
from typing import Final

import msgspec

from gateway.sems.budget import HOUR

Unit = tuple[str, ...]
"""Serials that one call asks about."""

DISCOVERY_SHARE: Final = 0.1
"""Of what polling may spend; discovery takes less where it needs less."""
SOON_SHARE: Final = 0.03
"""The same for what can't wait its turn: alarms of a new fault, reading back, halves of a batch that was refused."""
LOGIN_SHARE: Final = 0.1
LOGINS: Final = 2.0
"""Logins an hour: a token lasts one hour or two (SEMS.md, seen)."""


class Role(StrEnum):
    """What a row of the plan is for."""

    LIVE = "live"
    """Keeps devices fresh."""
    SIDE = "side"
    """Changes slowly: income, statistics, weather, details, alarms."""
    DETAIL = "detail"
    """Devices' own interfaces, where a list keeps them fresh."""


class Row(msgspec.Struct, frozen=True):
    """One interface, and all its calls of one round."""

    interface: str
    role: Role
    units: tuple[Unit, ...]
    """What each call asks about: devices, or plants."""
    reaches: int
    """How many plants and devices the calls bring values of, or alarms."""
    interval: float
    """Seconds from one call about a unit to the next."""
    type: str = ""
    """Of these devices, where each type has a row of its own."""
    pushed: bool = False
    """Whether it is for devices that another bridge brings fresh data of."""

    @property
    def live(self) -> bool:
        """Whether it keeps devices fresh."""
        return self.role is Role.LIVE

    @property
    def calls(self) -> int:
        """Calls a round."""
        return len(self.units)

    @property
    def per_hour(self) -> float:
        """Calls an hour."""
        return self.calls * HOUR / self.interval


class Plan(msgspec.Struct, frozen=True):
    """What is called in an hour."""

    rows: tuple[Row, ...]
    limit: float
    """Calls an hour that polling may spend."""
    interval: float
    """Seconds between live readings of a device."""
    discovery_calls: int
    """Of one look for new devices."""
    discovery_interval: float
    """Seconds from one look to the next; longer than wanted where it would cost too much."""
    discovery_per_hour: float
    logins: float
    """Calls an hour kept for logging in."""
    soon: int
    """Calls an hour kept for what can't wait its turn."""
    unreached: frozenset[str] = frozenset()
    """Types of devices that no interface reads."""

    @property
    def per_hour(self) -> float:
        """Calls an hour, of everything."""
        return sum(row.per_hour for row in self.rows) + self.discovery_per_hour + self.logins + self.soon

    @property
    def round(self) -> int:
        """Calls of one round of everything."""
        return sum(row.calls for row in self.rows)

    @property
    def at_once(self) -> bool:
        """Whether the first round may be made at once: there are calls enough to make it besides the rest."""
        return self.round + self.per_hour <= self.limit

    @property
    def oldest(self) -> float:
        """Seconds that what is live is old at most, when polled."""
        return max((row.interval for row in self.rows if row.live), default=self.interval)

    @property
    def detail_interval(self) -> float:
        """Seconds between readings of a device by its own interface, where a list stands in; 0 where none does."""
        return min((row.interval for row in self.rows if row.role is Role.DETAIL), default=0.0)


class PollIntervals(msgspec.Struct, frozen=True):
    """What the configuration asks for."""

    interval: float = 60.0
    pushed_interval: float = 900.0
    discovery_interval: float = 3600.0


def reserve(limit: float, look: int, every: float) -> Plan:
    """Return a plan without rows yet: what is kept for all but reading, of `limit` calls an hour.

    `look` are the calls of one look for devices, wanted `every` so many seconds.
    """
    per_hour = min(look * HOUR / every, DISCOVERY_SHARE * limit)
    interval = max(every, look * HOUR / per_hour) if look else every
    logins, soon = min(LOGINS, LOGIN_SHARE * limit), int(SOON_SHARE * limit)
    return Plan((), limit, every, look, interval, per_hour, logins, soon)
