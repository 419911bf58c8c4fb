"""Faults by share: of a fleet of thousands, so many are offline, refuse, contradict or are late. Which: by the seed."""

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import NormalDist
from typing import Annotated, Final

import msgspec

from gateway.simulator.noise import derive

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]

OFFLINE: Final = "offline"
REFUSE: Final = "refuse"
CONTRADICT: Final = "contradict"
LATE: Final = "late"

_NORMAL: Final = NormalDist()


class Late(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices whose results come late, for every command."""

    share: Share = 0.0
    seconds: tuple[Seconds, Seconds] = (30.0, 300.0)
    """Shortest and longest from command to result; each command has its own."""
    result_only: bool = False
    """The device obeys as soon as any other, and only its result on the topic is late; else it obeys late."""


class Shares(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parts of all inverters that have a fault. No inverter has two."""

    offline: Share = 0.0
    """The cloud does not hear of it, and commands fail."""
    refuse: Share = 0.0
    """It does not obey, and the result says so."""
    contradict: Share = 0.0
    """The result says done, and it was not."""
    late: Late = Late()
    seed: int | None = None
    """Chooses which; None: the simulator's."""

    def __post_init__(self) -> None:
        """Raise ValueError where they come to more than all."""
        if self.offline + self.refuse + self.contradict + self.late.share > 1:
            raise ValueError("shares come to more than 1")

    def choose(self, serials: Sequence[str], seed: int) -> dict[str, str]:
        """Return serial number → fault, exactly as many of each as its share says, to the nearest whole number."""
        chosen = self.seed if self.seed is not None else seed
        ranked = sorted(serials, key=lambda serial: derive(chosen, serial, "shares"))
        faults: dict[str, str] = {}
        shares: Mapping[str, float] = {
            OFFLINE: self.offline, REFUSE: self.refuse, CONTRADICT: self.contradict, LATE: self.late.share,
        }  # fmt: skip
        for fault, share in shares.items():
            first = len(faults)
            faults.update((serial, fault) for serial in ranked[first : first + round(share * len(ranked))])
        return faults


class Delays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long devices take to obey: log-normal, which most measured delays resemble."""

    median: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    p95: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    """Seconds."""
    most: Seconds = 3600.0

    def __post_init__(self) -> None:
        """Raise ValueError where they are not in this order."""
        if not self.median <= self.p95 <= self.most:
            raise ValueError("median, p95 and most have to be in this order")

    def at(self, part: float) -> float:
        """Return the seconds within which this part of all commands, 0 to 1, is done."""
        sigma = log(self.p95 / self.median) / _NORMAL.inv_cdf(0.95)
        return min(self.median * exp(sigma * _NORMAL.inv_cdf(min(max(part, 1e-9), 1 - 1e-9))), self.most)
