"""The hour's plan of calls: which data types are asked how often, for how many numbers. Pure; no I/O.

The interval follows from the calls there are: it becomes longer rather than that the account's calls are overrun.
"""

from collections.abc import Mapping
from math import ceil
from typing import Final

import msgspec

from gateway.sems.budget import HOUR
from gateway.sems.catalogue import Catalogue, Interface, Use

LOGINS: Final = 2.0
"""An hour: a token lasts an hour (SEMS.md, seen)."""
SOON_SHARE: Final = 0.03
"""Of the calls, kept for finding out types, refused numbers, and halves of a batch that was refused."""
KEPT_MOST: Final = 0.25
"""Of the calls, that all of this but reading may take."""
PAGE_SIZE: Final = 100


class Row(msgspec.Struct, frozen=True):
    """One data type."""

    interface: str
    calls: int
    """A round."""
    interval: float
    """Seconds from one round to the next."""
    numbers: int

    @property
    def per_hour(self) -> float:
        """Calls an hour."""
        return self.calls * HOUR / self.interval


class Plan(msgspec.Struct, frozen=True):
    """What is called in an hour."""

    rows: tuple[Row, ...]
    limit: float
    """Calls an hour that may be planned with."""
    interval: float
    """Seconds between readings of a device; longer than wanted where the calls are too few."""
    list_calls: int
    """Of one look at the list of devices."""
    list_per_hour: float
    logins: float
    soon: int
    """Calls an hour kept for what is asked out of turn."""

    @property
    def list_interval(self) -> float:
        """Seconds between looks at the list."""
        return self.list_calls * HOUR / self.list_per_hour if self.list_per_hour else 0.0

    @property
    def per_hour(self) -> float:
        """Calls an hour, of everything."""
        return sum(row.per_hour for row in self.rows) + self.list_per_hour + self.logins + self.soon

    @property
    def round(self) -> int:
        """Calls of one round of everything."""
        return sum(row.calls for row in self.rows)


def plan(counts: Mapping[str, int], catalogue: Catalogue, limit: float, interval: float, list_interval: float) -> Plan:
    """Return the plan for so many numbers of each type within `limit` calls an hour, at `interval` if possible."""
    lists = any(catalogue.using(Use.DEVICES))
    list_calls = ceil(sum(counts.values()) / PAGE_SIZE) + 1 if lists else 0
    most = limit * KEPT_MOST / 3
    listing = min(list_calls * HOUR / list_interval, most)
    logins, soon = min(LOGINS, most), int(min(limit * SOON_SHARE, most))
    drafts = [(interface, numbers) for interface, numbers in _drafts(counts, catalogue) if numbers]
    weight = sum(ceil(numbers / interface.batch) / interface.rounds for interface, numbers in drafts)
    every = max(interval, HOUR * weight / (limit - listing - logins - soon))
    rows = tuple(
        Row(interface.name, ceil(numbers / interface.batch), every * interface.rounds, numbers)
        for interface, numbers in drafts
    )
    return Plan(rows, limit, every, list_calls, listing, logins, soon)


def reading(catalogue: Catalogue, type_: str) -> Interface | None:
    """Return the interface that reads a type of device."""
    return next(catalogue.using(Use.LIVE, type_), None)


def _drafts(counts: Mapping[str, int], catalogue: Catalogue) -> list[tuple[Interface, int]]:
    reads = [(i, sum(n for type_, n in counts.items() if reading(catalogue, type_) is i))
             for i in catalogue.using(Use.LIVE)]  # fmt: skip
    tells = [(i, sum(n for type_, n in counts.items() if type_ in i.of)) for i in catalogue.using(Use.ALARMS)]
    return [*reads, *tells]
