"""A fleet as others see it: a device, its values, and what came of a command in words."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from gateway.core.controller import Outcome
from gateway.core.model import Command, CommandState, Device, DeviceKind, Range, Value
from gateway.core.points import NONE
from gateway.core.verdict import Foreseen, Foretold
from gateway.steering.fleet.mate import LIMIT, MODE, POWER, Mate
from gateway.steering.fleet.planner import Ask, Part, Planner, Sight, meant, measured, rated
from gateway.steering.fleet.settings import PREFIX

RUNNING: Final = "running"
SPREAD: Final = (RUNNING, "reactive_power")
"""Setpoints that each member is given as they are."""
SPENT: Final = "without writes left today"
MOST_FORETOLD: Final = 500
"""Members that are named one by one where it is asked what a command would come to."""


def device(serial: str, mates: Iterable[Mate], size: tuple[float, float]) -> Device:
    """Return the fleet as a device: with the rated power of all, and the setpoints that some member takes.

    `size`: W that all can draw by their batteries, and feed in.
    """
    mates, (drawn, gives) = list(mates), size
    # While no member is known, what they take is not either: nothing is refused for that, it is tried again.
    setpoints: dict[str, Range] = {"power_target": Range(-drawn, gives) if mates else Range()}
    if not mates or any(LIMIT in mate.takes for mate in mates):
        setpoints[LIMIT] = Range(0, 100)
    if drawn:
        setpoints |= {MODE: Range(), POWER: Range(0, drawn)}
    for each in SPREAD:
        ranges = [mate.takes[each] for mate in mates if each in mate.takes]
        if ranges:
            lows, highs = [r.low for r in ranges if r.low is not None], [r.high for r in ranges if r.high is not None]
            setpoints[each] = Range(max(lows, default=None), min(highs, default=None))
    return Device(
        serial=serial,
        kind=DeviceKind.FLEET,
        name=serial.removeprefix(PREFIX),
        model="fleet",
        rated_power=sum(mate.rated for mate in mates),
        setpoints=setpoints,
    )


async def values(
    planner: Planner, sights: Sequence[Sight], ask: Ask | None, unplaced: float, now: datetime
) -> Mapping[str, Value]:
    """Return what a fleet measures, reckoned in several turns of the loop."""
    mates = [sight.mate for sight in sights]
    counted = [sight for sight in sights if sight.counts]
    able = [sight for sight in counted if not sight.mate.spent]
    believed = sum(sight.believed for sight in able)
    ages = sorted((now - m.state.time).total_seconds() for m in mates if m.state is not None and m.state.time)
    await asyncio.sleep(0)
    error = 0.0 if ask is None else ask.missing(measured(meant(ask, sights)))
    running = _running(mates)
    shown: dict[str, Value] = {
        "status": "waiting" if running is False else "normal",
        "ac_power": round(measured(sights), 1),
        "fleet_state": state(planner, sights, ask, error, unplaced),
        "available_up": round(max(0.0, sum(s.member.high for s in able) - believed), 1),
        "available_down": round(max(0.0, believed - sum(s.member.low for s in able)), 1),
        "members": len(mates),
        "members_out": len(mates) - len(counted),
        "tracking_error": None if ask is None else round(-error, 1) or 0.0,
        "unplaced_power": round(unplaced, 1),
        "data_age_p50": _part(ages, 0.5),
        "data_age_p95": _part(ages, 0.95),
        "writes_today": sum(mate.writes for mate in mates),
    }
    if running is not None:
        shown[RUNNING] = running
    for point in ("pv_power", "battery_power"):
        await asyncio.sleep(0)
        known = [value for mate in mates if (value := mate.value(point)) is not None]
        if known:
            shown[point] = round(sum(known), 1)
    await asyncio.sleep(0)
    soc, capacity = _soc(mates)
    if soc is not None:
        shown |= {"battery_soc": round(soc, 1), "battery_capacity": capacity}
    return shown


def state(planner: Planner, sights: Sequence[Sight], ask: Ask | None, error: float, unplaced: float) -> str:
    """Return where a fleet stands: idle, moving, holding or partial."""
    if ask is None:
        return "idle"
    if abs(error) <= planner.near(ask.power, rated(sights)):
        return "partial" if ask.is_limited and not ask.is_cap else "holding"
    return "partial" if unplaced else "moving"


def _running(mates: Collection[Mate]) -> bool | None:
    """Return whether one runs, of members that tell it and can be told; None where none tells it."""
    able = [mate for mate in mates if mate.good and RUNNING in mate.takes]
    told = [runs for mate in able if mate.state and isinstance(runs := mate.state.values.get(RUNNING), bool)]
    return any(told) if told else None


def _soc(mates: Collection[Mate]) -> tuple[float | None, float | None]:
    """Return the state of charge of all, by capacity, and that capacity in kWh where every member tells its own."""
    known = [(soc, mate) for mate in mates if (soc := mate.value("battery_soc")) is not None]
    if not known:
        return None, None
    capacities = [mate.value("battery_capacity") for _, mate in known]
    told = [capacity for capacity in capacities if capacity]
    weights = told if len(told) == len(known) else [mate.rated or 1.0 for _, mate in known]
    soc = sum(soc * weight for (soc, _), weight in zip(known, weights, strict=True)) / sum(weights)
    return soc, sum(told) if len(told) == len(known) else None


def _part(ordered: Sequence[float], part: float) -> float | None:
    return round(max(0.0, ordered[min(len(ordered) - 1, int(part * len(ordered)))]), 1) if ordered else None


# what a command would come to


def foretold(parts: Sequence[Part], mates: Collection[Mate], unplaced: float, cost: str, command: Command) -> Foretold:
    """Return it, the largest changes first."""
    ordered = sorted(parts, key=lambda part: abs(part.power - part.mate.believed()), reverse=True)
    told = {part.mate.device.serial for part in parts}
    out = Counter(_why_out(mate) for mate in mates if mate.device.serial not in told)
    text = f"{cost}; {counted(out) + ' out at their last power' if out else 'all members count'}"
    if unplaced:
        text += f"; {abs(unplaced):.0f} W can't be placed"
    return Foretold(tuple(_foreseen(part, command) for part in ordered[:MOST_FORETOLD]), text)


def _why_out(mate: Mate) -> str:
    if mate.trouble or not mate.rated:
        return mate.trouble or "not rated"
    return SPENT if mate.spent else "left alone to spare their writes"


def _foreseen(part: Part, command: Command) -> Foreseen:
    mate = part.mate
    if command.setpoint in SPREAD:
        return Foreseen(mate.device.serial, part.power, f"{command.setpoint} {command.value}")
    orders = mate.release() if command.value == NONE else mate.orders(part.power, free=part.free, capped=part.capped)
    how = ", ".join(f"{setpoint} {_short(value)}" for setpoint, value in orders.items())
    return Foreseen(mate.device.serial, part.power, f"{how}; {part.bound}" if part.bound else how)


def _short(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# what came of a command


def outcome(
    word: str,
    asked: float,
    measured: float,
    missing: float,
    mates: Iterable[Mate],
    children: Counter[str],
    why: str = "",
) -> Outcome:
    """Return what came of a target: holding is a success that was read back, partial one that was not."""
    text = f"{word}: asked {asked:.0f} W, confirmed {measured:.0f} W"
    if abs(missing) >= 1:
        text += f", {abs(missing):.0f} W {'missing' if missing > 0 else 'too much'}"
    if why:
        text += f" {why}"
    text += f"; {members_in_words(mates, children)}"
    if word == "failed":
        return Outcome(CommandState.FAILED, text)
    return Outcome(CommandState.SUCCEEDED, text, verified=word == "holding")


def released(children: Counter[str]) -> Outcome:
    """Return what came of letting all go."""
    if children["refused"] and not children["ok"]:
        return Outcome(CommandState.FAILED, f"nobody was let go: {counted(children)}")
    return Outcome(CommandState.SUCCEEDED, f"all are let go: {counted(children) or 'none was held'}")


def spread_outcome(children: Counter[str]) -> Outcome:
    """Return what came of a setpoint that each was given as it is."""
    text = counted(children) or "no member takes it"
    if children.total() and children["ok"] == children.total():
        return Outcome(CommandState.SUCCEEDED, text)
    if children["doubtful"]:
        return Outcome(CommandState.UNKNOWN, text)
    return Outcome(CommandState.FAILED, text)


def members_in_words(mates: Iterable[Mate], children: Counter[str]) -> str:
    """Return how many members do what they were told, and how many do not, and why."""
    mates = list(mates)
    troubles = Counter(mate.trouble for mate in mates if mate.trouble)
    parts = [f"{len(mates) - troubles.total()} of {len(mates)} members well"]
    parts += [f"{count} {word}" for word, count in sorted(troubles.items())]
    if children["late"]:
        parts.append(f"{children['late']} late")
    if spent := sum(mate.spent for mate in mates):
        parts.append(f"{spent} {SPENT}")
    return ", ".join(parts)


def counted(children: Counter[str]) -> str:
    """Return how commands to members ended, in words."""
    return ", ".join(f"{count} {word}" for word, count in sorted(children.items()) if count)
