"""Who of a fleet is to give how much: a new target is shared out anew, what is missing later moves as few as it can."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import median
from typing import Final

import msgspec

from gateway.steering.fleet.allocation import Member, allocate
from gateway.steering.fleet.mate import Mate
from gateway.steering.fleet.settings import FleetSettings

LEAST: Final = 1e-3
"""Of the rated power: a share that is not below 0 for those that have no weight of their own."""
SMALL: Final = 0.0005
"""Of the fleet's rated power: errors below it are noise whatever the target is."""


class Ask(msgspec.Struct, frozen=True):
    """What is asked of a fleet."""

    power: float
    """W, all together."""
    is_cap: bool = False
    """It is the most that they may give, not what they are to give."""
    of_batteries: bool = False
    """Only members with a battery are meant."""


class Part(msgspec.Struct, frozen=True):
    """What one member is to give."""

    mate: Mate
    power: float
    """W."""
    free: bool
    """Nothing of it is held back."""
    bound: str = ""
    """What keeps it from more, or from less, in words; "" where nothing does."""


class Round(msgspec.Struct, frozen=True):
    """What came of one look."""

    parts: Sequence[Part]
    """Those that are to be told something else."""
    unplaced: float = 0.0
    """W that can't be had."""


class Planner:
    """Shares out, and corrects. Knows the members, and asks nobody."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self.mates: dict[str, Mate] = {}
        """Serial number → member."""

    @property
    def rated(self) -> float:
        """W, all together."""
        return sum(mate.rated for mate in self.mates.values())

    def deadband(self, target: float) -> float:
        """Return the W within which nothing is corrected."""
        return max(self._settings.deadband / 100 * abs(target), SMALL * self.rated)

    def asked(self, ask: Ask) -> list[Mate]:
        """Return the members that something is asked of."""
        return [mate for mate in self.mates.values() if mate.stores or not ask.of_batteries]

    def measured(self, ask: Ask | None = None) -> float:
        """Return the power of all, or of those that something is asked of, as it was measured last, W."""
        return sum(mate.power or 0.0 for mate in (self.mates.values() if ask is None else self.asked(ask)))

    def bounds(self, mates: Iterable[Mate], now: datetime) -> list[Member]:
        """Return what each can take now, without weights."""
        sky = self._sky()
        everywhere = median(sky.values()) if sky else None
        least, most = self._settings.reserve_soc, self._settings.max_soc
        return [mate.bounds(now, sky.get(mate.device.plant, everywhere), least, most) for mate in mates]

    def share_out(self, ask: Ask, now: datetime) -> Round:
        """Share what is asked out anew."""
        mates = [mate for mate in self.asked(ask) if mate.counts(now)]
        out = sum(mate.believed() for mate in self.asked(ask) if not mate.counts(now))
        bounds = self.bounds(mates, now)
        wanted = ask.power - out
        if ask.is_cap:
            wanted = min(wanted, sum(member.high for member in bounds))
        draws = wanted < sum(min(max(0.0, member.low), member.high) for member in bounds)
        weighed = [
            msgspec.structs.replace(member, weight=self._weight(mate, member, draws=draws))
            for mate, member in zip(mates, bounds, strict=True)
        ]
        share = allocate(wanted, weighed)
        parts = [_part(*each) for each in zip(mates, weighed, share.powers, strict=True)]
        return Round(parts, share.unplaced)

    def correct(self, ask: Ask, now: datetime) -> Round:
        """Move the fewest members by which the error comes within the deadband, those with most room first.

        What each has is measured where that is newer than what it was told, and told where it is not.
        """
        mates, within = self.asked(ask), self.deadband(ask.power)
        error = ask.power - sum(mate.believed() for mate in mates)
        if ask.is_cap and error > 0:
            error = min(error, sum(self._held_back(mate, now) for mate in mates))
        if abs(error) <= within:
            return Round([])
        able = [mate for mate in mates if self._may_move(mate, now)]
        rooms: list[tuple[float, Mate, Member]] = []
        for mate, member in zip(able, self.bounds(able, now), strict=True):
            at = mate.believed()
            room = member.high - at if error > 0 else at - member.low
            if room > max(member.step, LEAST * mate.rated):
                rooms.append((room, mate, member))
        rooms.sort(key=lambda each: each[0], reverse=True)
        parts: list[Part] = []
        left = error
        for room, mate, member in rooms:
            if abs(left) <= within / 2:
                break
            moved = min(room, abs(left)) * (1 if left > 0 else -1)
            power = _on_step(mate.believed() + moved, member)
            parts.append(_part(mate, member, power))
            left -= power - mate.believed()
        return Round(parts, left if abs(left) > within else 0.0)

    def _may_move(self, mate: Mate, now: datetime) -> bool:
        return (
            mate.counts(now) and not mate.pending and not mate.trouble and mate.writes < self._settings.writes_per_day
        )

    def _held_back(self, mate: Mate, now: datetime) -> float:
        if mate.is_free or not mate.counts(now):
            return 0.0
        (member,) = self.bounds([mate], now)
        return max(0.0, member.high - mate.believed())

    def _weight(self, mate: Mate, member: Member, *, draws: bool) -> float:
        match self._settings.share:
            case "headroom":
                weight = -member.low if draws else member.high
            case "rating":
                weight = mate.rated
            case "soc":
                reserve, most = self._settings.reserve_soc, self._settings.max_soc
                weight = mate.energy(draws=draws, reserve_soc=reserve, max_soc=most)
            case _:
                weight = 1.0
        return max(weight, LEAST * mate.rated, LEAST) * self._settings.weights.get(mate.device.serial, 1.0)

    def _sky(self) -> dict[str, float]:
        """Return what free PV gives now, as a part of rated power, by plant."""
        parts: dict[str, list[float]] = defaultdict(list)
        for mate in self.mates.values():
            if mate.good and not mate.stores and mate.is_free and not mate.limited and mate.rated:
                parts[mate.device.plant].append(min(1.0, max(0.0, (mate.power or 0.0) / mate.rated)))
        return {plant: median(values) for plant, values in parts.items()}


def _on_step(power: float, member: Member) -> float:
    if member.step:
        power = round(power / member.step) * member.step
    return min(max(power, member.low), member.high)


def _part(mate: Mate, member: Member, power: float) -> Part:
    near = max(member.step / 2, LEAST)
    at_most, at_least = power >= member.high - near, power <= member.low + near
    bound = "gives all it can" if at_most else "can't give less" if at_least else ""
    if mate.stores and at_least and not at_most:
        bound = "draws all it can" if member.low < 0 else "can't give less"
    return Part(mate, power, free=at_most and not mate.stores, bound=bound)
