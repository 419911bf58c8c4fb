"""Who of a fleet is to give how much: a new target is shared out anew, what is missing later moves as few as it can.

Pure. All that is known of the members at one time is put together once, in `Sight`s; the rest reckons with these.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from datetime import datetime
from statistics import median
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.steering.fleet.allocation import NOISE, Member, allocate
from gateway.steering.fleet.mate import LIMIT, Mate
from gateway.steering.fleet.settings import FleetSettings

FAR: Final = 0.02
"""Of rated power: a battery that stands nearer to its share than this is not told anew, for that costs writes."""
HOLDS: Final = 0.02
"""Of a target: as near as this it is held."""
LEAST: Final = 1e-3
"""Of the rated power: a share that is not below it for those that have no weight of their own."""
MANY: Final = 0.1
"""Of the rated power. More of it in doubt at once is no fault of single members."""
ROOMY: Final = 1.25
"""Of a change: the room that those have together that are told of it, where the others' writes are spared."""
COARSE: Final = 0.02
"""Of the rated power: steps in which a ramp is followed."""
SMALL: Final = 0.0005
"""Of the fleet's rated power: errors below it are noise whatever the target is."""


class Ask(msgspec.Struct, frozen=True):
    """What is asked of a fleet."""

    power: float
    """W, all together."""
    is_cap: bool = False
    """It is the most that they may give, not what they are to give."""
    is_limited: bool = False
    """It is as little as this because of a limit, which holds whatever it costs in writes."""
    of_batteries: bool = False
    """Only members with a battery are meant."""
    of_others: bool = False
    """Only members without one are meant."""
    cut: float = 0.0
    """W less than was ordered, for a limit holds on the fleet."""
    moves: bool = False
    """It is on its way along a ramp: followed in coarser steps, for each is a write."""

    def missing(self, power: float) -> float:
        """Return the W that are missing where they give this; < 0: too much. Less than a cap is as asked."""
        return min(0.0, self.power - power) if self.is_cap else self.power - power


class Sight(msgspec.Struct, frozen=True, gc=False):
    """One member at one time. Powers in W."""

    mate: Mate
    counts: bool
    """Power can be shared out to it."""
    measured: float
    believed: float
    """Measured where that is newer than what it was told, else told."""
    member: Member
    """What it can take of a target, without its weight."""
    capped: bool = False
    """It is to be told by its limit alone."""
    limited: bool = False
    """It is to be told by its limit too."""


class Part(msgspec.Struct, frozen=True):
    """What one member is to give."""

    mate: Mate
    power: float
    """W."""
    free: bool
    """Nothing of it is held back."""
    bound: str = ""
    """What keeps it from more, or from less, in words; "" where nothing does."""
    capped: bool = False
    """It is told by its limit, though it may have a battery."""
    limited: bool = False
    """It is told by its limit too."""


class Round(msgspec.Struct, frozen=True):
    """What came of one look."""

    parts: Sequence[Part]
    """Those that are to be told something else."""
    unplaced: float = 0.0
    """W that can't be had."""


Sky = Mapping[str, float]
"""Plant → what free PV there gives now, as a part of rated power; "" for everywhere."""


class Planner:
    """Shares out, and corrects, by the settings of one fleet."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings

    def deadband(self, power: float, rated: float) -> float:
        """Return the W within which nothing is corrected."""
        return max(self._settings.deadband / 100 * abs(power), SMALL * rated)

    def near(self, power: float, rated: float) -> float:
        """Return the W within which a target is held."""
        return max(HOLDS * abs(power), self.deadband(power, rated))

    def see(
        self, mates: Iterable[Mate], sky: Sky, now: datetime, *, capped: bool, limited: bool = False
    ) -> list[Sight]:
        """Put together what is known of these members.

        `capped`: what is asked is the most that they may give; `limited`: such a limit holds beside what is asked.
        """
        everywhere, least, most = sky.get(""), self._settings.reserve_soc, self._settings.max_soc
        return [
            Sight(
                mate,
                mate.counts(now) and (not capped or LIMIT in mate.takes),
                mate.power or 0.0,
                mate.believed(),
                mate.bounds(now, sky.get(mate.device.plant, everywhere), least, most, capped=capped, limited=limited),
                capped,
                limited,
            )
            for mate in mates
        ]

    def share_out(self, ask: Ask, sights: Sequence[Sight]) -> Round:
        """Share what is asked out anew, over all that have writes to spare and as many others as it takes."""
        asked = meant(ask, sights)
        able = _able(ask, asked)
        if self._settings.share == "soc" and not ask.is_cap:
            return self._share_out_by_charge(ask, asked, able)
        some = _with_writes_to_spare(ask, asked, able)
        found = self._shared(ask, asked, some)
        return self._shared(ask, asked, able) if found.unplaced and len(some) < len(able) else found

    def _share_out_by_charge(self, ask: Ask, asked: Sequence[Sight], able: Sequence[Sight]) -> Round:
        """Share out over batteries what the sun does not give, to those that are far from their share.

        Of the sun is held back only what no battery takes, at as few members as can be.
        """
        batteries = [sight for sight in able if sight.mate.stores]
        suns = [sight for sight in able if not sight.mate.stores]
        parts = {sight.mate.device.serial: _part(sight, sight.member.high) for sight in suns}
        others = replace(ask, power=ask.power - sum(sight.member.high - sight.believed for sight in suns))
        fair = self._shared(others, asked, batteries)
        found, left = fair, fair.unplaced
        if left < 0:
            within = self.deadband(ask.power, rated(asked))
            left = self._move(ask, left, within, suns, parts)
            if abs(left) > within:
                return self._shared(ask, asked, able)
            left = 0.0
        elif not left and not ask.is_limited:
            far = self._far(batteries, fair.parts)
            some = self._shared(others, asked, far) if len(far) < len(batteries) else fair
            found = fair if some.unplaced else some
        return Round([*found.parts, *parts.values()], left)

    def _far(self, batteries: Sequence[Sight], fair: Sequence[Part]) -> Sequence[Sight]:
        """Return those to tell that they are to come to their fair shares, and as many others as it takes.

        Far from it first, of those that have writes to spare, or go the other way.
        """
        gaps = [part.power - sight.believed for sight, part in zip(batteries, fair, strict=True)]
        change = sum(gaps)
        order = []
        for number, (sight, gap) in enumerate(zip(batteries, gaps, strict=True)):
            wish, mate = self._wish(sight), sight.mate
            turns = (sight.believed - wish) * (sight.believed + gap - wish) < 0
            is_far = mate.is_free or sight.limited or abs(gap) > FAR * mate.rated
            is_due = is_far and (turns or not mate.rests)
            order.append((not is_due, mate.rests, -gap if change > 0 else gap, number))
        return _enough(change, [(not later, batteries[number]) for later, _, _, number in sorted(order)])

    def _shared(self, ask: Ask, asked: Sequence[Sight], counted: Sequence[Sight]) -> Round:
        wanted = ask.power - sum(sight.believed for sight in asked) + sum(sight.believed for sight in counted)
        if ask.is_cap:
            wanted = min(wanted, sum(sight.member.high for sight in counted))
        wishes = [self._wish(sight) for sight in counted]
        draws = wanted < sum(min(max(w, s.member.low), s.member.high) for s, w in zip(counted, wishes, strict=True))
        weighed = [
            replace(sight.member, weight=self._weight(sight, draws=draws), wish=wish)
            for sight, wish in zip(counted, wishes, strict=True)
        ]
        share = allocate(wanted, weighed)
        powers = _below(wanted, weighed, share.powers) if ask.is_cap else share.powers
        parts = [_part(sight, power) for sight, power in zip(counted, powers, strict=True)]
        return Round(parts, share.unplaced)

    def correct(self, ask: Ask, sights: Sequence[Sight]) -> Round:
        """Where the error is beyond the deadband, move the fewest members that take it away, most room first."""
        asked = meant(ask, sights)
        within = max(self.deadband(ask.power, rated(sights)), COARSE * rated(sights) if ask.moves else 0.0)
        error = _certain(ask.power - sum(sight.believed for sight in asked), asked)
        if ask.is_cap and error > 0:
            held_back = (s.member.high - s.believed for s in asked if s.counts and not s.mate.is_free)
            error = min(error, sum(max(0.0, room) for room in held_back))
        if abs(error) <= within:
            return Round([])
        parts: dict[str, Part] = {}
        left = self._move(ask, error, within, _able(ask, asked), parts)
        return Round(list(parts.values()), left if abs(left) > within else 0.0)

    def _move(
        self, ask: Ask, left: float, within: float, sights: Iterable[Sight], parts: MutableMapping[str, Part]
    ) -> float:
        """Move the fewest members that take an error of W away; return what is left of it.

        `parts`: serial number → what is to be told already, and what comes of this.
        """
        for room, sight in self._with_room(sights, up=left > 0):
            if abs(left) <= within / 10:
                break
            serial = sight.mate.device.serial
            stands = parts[serial].power if serial in parts else sight.believed
            moved = min(room, abs(left)) * (1 if left > 0 else -1)
            part = _part(sight, _on_step(stands + moved, sight.member, down=ask.is_cap))
            if ask.is_cap and left > 0 and part.power <= stands:
                continue  # a step would be beyond what they may give
            parts[serial] = part
            left -= part.power - stands
        return left

    def _with_room(self, sights: Iterable[Sight], *, up: bool) -> list[tuple[float, Sight]]:
        """Return the members that may be moved, and by how much, in the order in which they are."""
        rooms = [
            (room, sight)
            for sight in sights
            if not sight.mate.pending
            and not sight.mate.trouble
            and (room := sight.member.high - sight.believed if up else sight.believed - sight.member.low)
            > max(sight.member.step, LEAST * sight.mate.rated)
        ]
        rooms.sort(key=lambda each: self._turn(*each, up=up), reverse=True)
        return rooms

    def _turn(self, room: float, sight: Sight, *, up: bool) -> tuple[bool, bool, float]:
        """Return what says whose turn it is to be moved, the greatest first.

        First who goes the other way: no battery is charged while another is discharged for it. Last who rests. Most
        room first; by state of charge the fullest is discharged and the emptiest charged, and the sun held back last.
        """
        fit, mate = not sight.mate.rests, sight.mate
        if self._settings.share != "soc" or sight.capped:
            return fit, sight.believed < 0 if up else sight.believed > 0, room
        wish = self._wish(sight)
        other_way = sight.believed < wish - sight.member.step if up else sight.believed > wish + sight.member.step
        return other_way, fit and (up or mate.stores), room * self._weight(sight, draws=not up)

    def _wish(self, sight: Sight) -> float:
        """Return the power, W, from which its share counts.

        By state of charge is shared what goes into batteries or comes out of them; the sun gives what it gives.
        """
        if self._settings.share != "soc":
            return 0.0
        mate = sight.mate
        by_battery = mate.stores and not sight.capped
        return mate.sun if by_battery else sight.member.high

    def _weight(self, sight: Sight, *, draws: bool) -> float:
        mate, member = sight.mate, sight.member
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


def _below(most: float, members: Sequence[Member], powers: Sequence[float]) -> list[float]:
    """Return the shares with steps taken back until their sum is no more than `most`, the largest share first."""
    lowered = list(powers)
    over = sum(lowered) - most
    for n in sorted(range(len(lowered)), key=lambda n: lowered[n], reverse=True):
        if over <= NOISE:
            break
        less = max(members[n].low, lowered[n] - (members[n].step or over))
        over -= lowered[n] - less
        lowered[n] = less
    return lowered


def _certain(error: float, sights: Sequence[Sight]) -> float:
    """Return the part of an error that is there whether or not those in doubt have obeyed, where they are many.

    A few are taken not to have: the others make up for them until they are read back. Of many it is the cloud that is
    slow, and what all the others did instead would have to be undone.
    """
    doubted = [(sight, other) for sight in sights if (other := sight.mate.otherwise) is not None]
    if rated(sight for sight, _ in doubted) <= MANY * rated(sights):
        return error
    otherwise = error - sum(other - sight.believed for sight, other in doubted)
    return 0.0 if error * otherwise <= 0 else min(error, otherwise, key=abs)


def _able(ask: Ask, sights: Iterable[Sight]) -> list[Sight]:
    """Return the members that can be told something."""
    return [sight for sight in sights if sight.counts and (ask.is_limited or not sight.mate.spent)]


def _with_writes_to_spare(ask: Ask, asked: Iterable[Sight], able: Sequence[Sight]) -> Sequence[Sight]:
    """Return those that are not ahead of the pace of their writes, and as many of the others as a change takes."""
    if ask.is_limited or not any(sight.mate.rests for sight in able):
        return able
    change = ask.power - sum(sight.believed for sight in asked)
    order = sorted(able, key=lambda sight: (sight.mate.rests, sight.mate.writes))
    return _enough(change, [(not sight.mate.rests, sight) for sight in order])


def _enough(change: float, order: Iterable[tuple[bool, Sight]]) -> list[Sight]:
    """Return those that are to be told in any case, which come first, and as many of the others as a change takes."""
    rooms, some = 0.0, []
    for is_due, sight in order:
        if not is_due and rooms >= ROOMY * abs(change):
            break
        rooms += sight.member.high - sight.believed if change > 0 else sight.believed - sight.member.low
        some.append(sight)
    return some


def meant(ask: Ask, sights: Sequence[Sight]) -> Sequence[Sight]:
    """Return the members that something is asked of."""
    if ask.of_batteries or ask.of_others:
        return [sight for sight in sights if sight.mate.stores == ask.of_batteries]
    return sights


def rated(sights: Iterable[Sight]) -> float:
    """Return the rated power of all, W."""
    return sum(sight.mate.rated for sight in sights)


def measured(sights: Iterable[Sight]) -> float:
    """Return the power of all as it was measured last, W."""
    return sum(sight.measured for sight in sights)


def sky(mates: Iterable[Mate]) -> Sky:
    """Return what free PV gives now."""
    parts: dict[str, list[float]] = defaultdict(list)
    for mate in mates:
        if mate.is_free and not mate.stores and mate.rated and mate.good and not mate.limited:
            parts[mate.device.plant].append(min(1.0, max(0.0, (mate.power or 0.0) / mate.rated)))
    found = {plant: median(values) for plant, values in parts.items()}
    return found | {"": median(found.values())} if found else {}


def _on_step(power: float, member: Member, *, down: bool) -> float:
    if member.step:
        power = (math.floor if down else round)(power / member.step) * member.step
    return min(max(power, member.low), member.high)


def _part(sight: Sight, power: float) -> Part:
    mate, member = sight.mate, sight.member
    near = max(member.step / 2, LEAST)
    at_most, at_least = power >= member.high - near, power <= member.low + near
    bound = "gives all it can" if at_most else "can't give less" if at_least else ""
    by_battery = mate.stores and not sight.capped
    if by_battery and at_least and not at_most:
        bound = "draws all it can" if member.low < 0 else "can't give less"
    return Part(mate, power, free=at_most and not by_battery, bound=bound, capped=sight.capped, limited=sight.limited)
