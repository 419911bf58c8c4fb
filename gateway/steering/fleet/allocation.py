"""How a power is shared out over members: pure functions, exact, O(n log n).

The shares x minimise Σ (x - wish)² / weight with Σ x = target and low ≤ x ≤ high: x = clip(wish + λ·weight, low, high).
A member with a minimum stands still or gives at least that. Steps are dealt out last. All powers are in W; > 0 feeds
in.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec

LOOKS: Final = 20_000
"""How many choices of who stands still are looked at, at most, where the plain one can't meet the target."""
NOISE: Final = 1e-6
"""W. What binary fractions add."""


class Member(msgspec.Struct, frozen=True, gc=False):
    """What one device can take of a target, in W."""

    low: float
    high: float
    weight: float = 1.0
    """Its share beside the others', > 0: rated power, headroom, energy."""
    wish: float = 0.0
    """Where it would be if nothing were asked."""
    step: float = 0.0
    """Its power is a multiple of this; 0: any."""
    minimum: float = 0.0
    """Its power is 0, or at least this, in or out; 0: any. Only where 0 lies within its bounds."""


class Share(msgspec.Struct, frozen=True):
    """What came of it."""

    powers: list[float]
    """W, a member each, in their order."""
    unplaced: float
    """W of the target that the members can't take; 0 where no more than half of the largest step is left."""


def allocate(target: float, members: Sequence[Member]) -> Share:
    """Share a target in W out. What the members can't take stands in `unplaced`, and they are at their bounds."""
    fitted = [_fitted(member) for member in members]
    turn = target < sum(_within(member, 0.0) for member in fitted)
    if turn:  # they draw: the same with all signs turned
        target, fitted = -target, [_turned(member) for member in fitted]
    price, still = _level(target, fitted)
    if still and target > NOISE + math.fsum(each.high for n, each in enumerate(fitted) if n not in still):
        fitted = _searched(target, fitted)
        price, still = _level(target, fitted)
    for n, each in enumerate(fitted):
        if each.minimum:
            low, high = (0.0, 0.0) if n in still else (each.minimum, each.high)
            fitted[n] = msgspec.structs.replace(each, low=low, high=high)
    powers = _in_steps(target, fitted, [min(max(m.wish + price * m.weight, m.low), m.high) for m in fitted])
    unplaced = target - math.fsum(powers)
    half = max((member.step for member in fitted), default=0.0) / 2
    if abs(unplaced) <= half + NOISE:
        unplaced = 0.0
    return Share([-power or 0.0 for power in powers], -unplaced or 0.0) if turn else Share(powers, unplaced)


def _level(target: float, members: Sequence[Member]) -> tuple[float, set[int]]:
    """Return the λ whose shares sum up to the target, or come nearest, and who stands still.

    λ rises from bend to bend of the sum. A member with a minimum begins where its share reaches that; one that would
    lift the sum beyond the target by it stands still.
    """
    count = len(members)
    bends = [((each.minimum or each.low) - each.wish) / each.weight for each in members]
    bends += [(each.high - each.wish) / each.weight for each in members]
    still = {n for n, each in enumerate(members) if each.minimum}
    placed, slope = math.fsum(each.low for each in members if not each.minimum), 0.0
    price = min(bends, default=0.0)
    for n in sorted(range(2 * count), key=bends.__getitem__):
        reached = placed + slope * (bends[n] - price)
        if reached >= target:
            return (price + max(0.0, target - placed) / slope if slope > 0 else price), still
        placed, price = reached, bends[n]
        each = members[n % count]
        if n >= count:  # the second half are ends
            slope -= 0.0 if n - count in still else each.weight
        elif not each.minimum or (placed + each.minimum <= target + NOISE and each.high >= each.minimum):
            placed, slope = placed + each.minimum, slope + each.weight
            still.discard(n)
    return price, still


def _within(member: Member, power: float) -> float:
    return min(max(power, member.low), member.high)


def _turned(member: Member) -> Member:
    return Member(-member.high, -member.low, member.weight, -member.wish, member.step, member.minimum)


def _fitted(member: Member) -> Member:
    """Return the member with bounds that are steps; one that has no step within its bounds moves without."""
    low, high, step = member.low, member.high, member.step
    minimum = member.minimum if low <= 0 <= high else 0.0
    if step > 0:
        least, most = _up(low / step) * step, _down(high / step) * step
        if least <= most:
            low, high, minimum = least, most, _up(minimum / step) * step
        else:
            step = 0.0
    return Member(low, high, member.weight, member.wish, step, minimum)


def _down(count: float) -> int:
    """Return the whole steps in so many; a hair beside a whole number is that one."""
    return math.floor(count + 1e-9 + 1e-12 * abs(count))


def _up(count: float) -> int:
    return -_down(-count)


def _searched(target: float, members: Sequence[Member]) -> list[Member]:
    """Return the members with each that has a minimum held at 0, or at its minimum or beyond, to meet the target."""
    free = [each for each in members if not each.minimum]
    choosy = [n for n, each in enumerate(members) if each.minimum]
    least, most = math.fsum(each.low for each in free), math.fsum(each.high for each in free)
    found = list(members)
    for n, run in zip(choosy, _who_runs(target, [members[n] for n in choosy], least, most), strict=True):
        each = members[n]
        low, high = ((0.0, 0.0), (each.minimum, each.high), (each.low, -each.minimum))[run]
        found[n] = msgspec.structs.replace(each, low=low, high=high, minimum=0.0)
    return found


def _who_runs(target: float, choosy: Sequence[Member], least: float, most: float) -> Sequence[int]:
    """Return of each whether it gives (1), stands still (0) or takes (-1), to miss the target by the least.

    All others together can give from `least` to `most`.
    """
    more = [0.0, *accumulate(max(0.0, each.high) for each in reversed(choosy))][::-1]
    less = [0.0, *accumulate(min(0.0, each.low) for each in reversed(choosy))][::-1]
    best, nearest = math.inf, (0,) * len(choosy)
    stack: list[tuple[tuple[int, ...], float, float]] = [((), least, most)]
    for _ in range(LOOKS):
        if not stack or best <= NOISE:
            break
        runs, low, high = stack.pop()
        count = len(runs)
        missed = max(low - target, target - high, 0.0)
        if missed < best:
            best, nearest = missed, (*runs, *(0,) * (len(choosy) - count))
        hopeless = max(low + less[count] - target, target - high - more[count]) >= best
        if count < len(choosy) and not hopeless:
            each = choosy[count]
            if each.low <= -each.minimum:
                stack.append(((*runs, -1), low + each.low, high - each.minimum))
            stack.append(((*runs, 0), low, high))
            if each.high >= each.minimum:
                stack.append(((*runs, 1), low + each.minimum, high + each.high))
    return nearest


def _in_steps(target: float, members: Sequence[Member], shares: Sequence[float]) -> list[float]:
    """Return the shares in whole steps, whose sum is at most half of the largest step off, where bounds allow it."""
    powers = [
        _within(member, _down(share / member.step) * member.step) if member.step else share
        for member, share in zip(members, shares, strict=True)
    ]
    beyond = [power - share for power, share in zip(powers, shares, strict=True)]
    order = sorted(range(len(members)), key=beyond.__getitem__)
    order.sort(key=lambda n: members[n].step, reverse=True)
    left, moved = target - math.fsum(powers), True
    while moved:
        moved = False
        for n in order:
            low, high, step = members[n].low, members[n].high, members[n].step
            if abs(left) <= max(step / 2, NOISE):
                continue
            power = powers[n] + math.copysign(step, left) if step else _within(members[n], powers[n] + left)
            if low - NOISE <= power <= high + NOISE and power != powers[n]:
                left -= power - powers[n]
                powers[n], moved = power, True
    return powers
