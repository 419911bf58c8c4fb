"""How long it takes to read again what an outage left out. Pure; no I/O."""

from collections.abc import Iterable
from math import ceil
from typing import Final

import msgspec

from gateway.core.model import Resolution
from gateway.sems.budget import HOUR, TRANSIT
from gateway.sems.catalogue import Catalogue, Use
from gateway.sems.plants import Target

DAY: Final = 24 * HOUR
CALL: Final = 1.0
"""Seconds of a call: they are made one after another."""


class Estimate(msgspec.Struct, frozen=True):
    """What filling takes."""

    calls: int
    """One for each plant or device, and each of its days that the outage touches, on average."""
    seconds: float


def types(catalogue: Catalogue) -> frozenset[str]:
    """Return the types of devices of which SEMS keeps the minutes."""
    every = (i for i in catalogue.using(Use.SERIES) if i.step == Resolution.MINUTES.value)
    return frozenset(type_ for interface in every for type_ in interface.of)


def estimate(targets: Iterable[Target], catalogue: Catalogue, outage: float, per_hour: int) -> Estimate:
    """Return what an outage of so many seconds takes, with so many calls an hour for history."""
    kept = types(catalogue)
    calls = ceil(sum(target.type in kept for target in targets) * (1 + outage / DAY))
    hours, left = divmod(max(calls - 1, 0), max(1, per_hour))
    # What one hour has is made at once, and then it takes until that hour is over.
    return Estimate(calls, hours * (HOUR + TRANSIT) + min(left * CALL + CALL, HOUR) if calls else 0.0)
