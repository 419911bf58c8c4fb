"""From modes of 2030.5 to setpoints of the device: which, and which value."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.bridges.csip.events import Held
from gateway.bridges.csip.resources import MODES, Unit
from gateway.core.model import Device, Range, Value
from gateway.core.points import SETPOINTS, Point, Type

DEFAULTS: Final[Mapping[str, Sequence[str]]] = {
    "opModExpLimW": ("export_limit",),
    "opModImpLimW": ("import_limit",),
    "opModGenLimW": ("active_power_limit",),
    "opModLoadLimW": (),
    "opModMaxLimW": ("active_power_limit",),
    "opModFixedW": ("power_target",),
    "opModTargetW": ("power_target",),
    "opModStorageTargetW": ("power_target",),
    "opModEnergize": ("running",),
    "opModConnect": ("running",),
}
"""Mode → setpoints that it sets where nothing else is configured: the first that the device has."""
LIMITS: Final = frozenset({"opModExpLimW", "opModImpLimW", "opModGenLimW", "opModLoadLimW", "opModMaxLimW"})
"""Modes that say "at most": rounded down, and of two for one setpoint the tighter counts. The others are targets."""


class Wish(msgspec.Struct, frozen=True):
    """What a setpoint is to be."""

    value: Value
    events: frozenset[str] = frozenset()
    """mRIDs of those that ask for it; none: a default does."""
    until: float | None = None
    """When the first of them ends."""
    is_short: bool = False
    """The device does not go as low as the limit says: it gets its lowest value, which is more."""


def setpoints_for(device: Device, configured: Mapping[str, str], rated: float | None) -> dict[str, str]:
    """Return which setpoint each mode sets, of those that the device has and the mode's value can be turned into."""
    found: dict[str, str] = {}
    for mode, defaults in DEFAULTS.items():
        names = (configured[mode],) if mode in configured else defaults
        usable = (each for each in names if each in device.setpoints and each in SETPOINTS)
        first = next((each for each in usable if _fits(MODES[mode], SETPOINTS[each], rated)), None)
        if first is not None:
            found[mode] = first
    return found


def _fits(unit: Unit, point: Point, rated: float | None) -> bool:
    if unit is Unit.SWITCH:
        return point.type is Type.BOOLEAN
    if point.type not in {Type.FLOAT, Type.INTEGER} or point.unit not in {"W", "%"}:
        return False
    return point.unit == unit or bool(rated)


def wishes(
    in_force: Mapping[str, Held], setpoints: Mapping[str, str], ranges: Mapping[str, Range], rated: float | None
) -> dict[str, Wish]:
    """Return, by setpoint, what modes in force ask for. `ranges` are those that the device takes."""
    found: dict[str, Wish] = {}
    for mode, setpoint in setpoints.items():
        held = in_force.get(mode)
        if held is None:
            continue
        value, is_short = _converted(mode, held.value, SETPOINTS[setpoint], ranges.get(setpoint), rated)
        wish = Wish(value, frozenset({held.event} if held.event else ()), held.until, is_short)
        before = found.get(setpoint)
        found[setpoint] = wish if before is None else _both(before, wish, is_target=mode not in LIMITS)
    return found


def _both(one: Wish, other: Wish, *, is_target: bool) -> Wish:
    """Return what two modes for one setpoint come to: the tighter limit, off where one says off, the first target."""
    first, second = one.value, other.value
    value: Value = first
    if isinstance(first, bool) and isinstance(second, bool):
        value = first and second
    elif isinstance(first, int | float) and isinstance(second, int | float) and not is_target:
        value = min(first, second)
    ends = [each for each in (one.until, other.until) if each is not None]
    return Wish(value, one.events | other.events, min(ends, default=None), one.is_short or other.is_short)


def _converted(
    mode: str, value: float | bool, point: Point, given: Range | None, rated: float | None
) -> tuple[Value, bool]:
    """Return the setpoint's value, and whether it is more than the mode permits."""
    if MODES[mode] is Unit.SWITCH:
        return bool(value), False
    number = float(value)
    if point.unit != MODES[mode] and rated:
        number = number / rated * 100 if point.unit == "%" else number * rated / 100
    if mode not in LIMITS:
        # A target that is out of reach is for policy, and for who carries it out, to refuse or to meet in part.
        return _on_step(number, given, round), False
    lows = [each for each in (point.low, given.low if given else None) if each is not None]
    highs = [each for each in (point.high, given.high if given else None) if each is not None]
    found = _on_step(min([number, *highs]), given, math.floor)
    lowest = max(lows, default=found)
    return max(found, lowest), lowest > number


def _on_step(number: float, given: Range | None, rounded: Callable[[float], int]) -> float:
    if given is None or not given.step:
        return number
    # What binary fractions take away must not cost a whole step.
    return rounded(round(number / given.step, 9)) * given.step
