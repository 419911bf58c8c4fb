"""What the settings' registers say together, in setpoints; and what registers say the setpoints in force.

Registers that belong together act together, as in the real inverter: the export limit while its switch is on,
the power while the mode of energy management orders something, the schedules while the work mode is eco.
"""

from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.maps.goodwe.registers import (
    ACTIVE_POWER,
    ECO,
    EMS_MODE,
    EMS_ORDERS,
    EMS_POWER,
    EMS_SHOWN,
    EXPORT_LIMIT,
    EXPORT_SWITCH,
    SCHEDULE,
    SCHEDULE_WORDS,
    SCHEDULES,
    SHUTDOWN,
    WORK_MODE,
)
from gateway.core.model import Device, Value
from gateway.core.points import AUTO, NONE, WORK_MODES

Words = Mapping[int, int]
"""Register → number."""

MAX_REGISTER: Final = 0xFFFE
FULL: Final = 100.0
"""% state of charge."""
WHOLE_DAY: Final = (0x0000, 0x173B)
"""From 00:00 to 23:59, hour and minute a byte each."""
EVERY_DAY: Final = 0x7F
EVERY_MONTH: Final = (0x0000, 0x0FFF)
PER_HUNDRED: Final[Mapping[int, int]] = {0xFF: 1, 0xF9: 10}
"""What a schedule is switched on with → steps of its power in a percent. Two generations of inverters."""
MOVING: Final = frozenset({"charge", "discharge"})
"""Orders that have a power."""
ON: Final = 0x80
"""The bit of that byte that says on."""


def meaning(words: Words, device: Device | None) -> dict[str, Value]:
    """Return setpoint → value, for what these registers decide. What is not known decides nothing."""
    means: dict[str, Value] = {}
    if WORK_MODE in words:
        means["work_mode"] = WORK_MODES[words[WORK_MODE]]
    if SHUTDOWN in words:
        means["running"] = not words[SHUTDOWN]
    if ACTIVE_POWER in words:
        means["active_power_limit"] = words[ACTIVE_POWER] / 10
    limit = NONE if words.get(EXPORT_SWITCH) == 0 else words.get(EXPORT_LIMIT)
    if limit is not None:
        means["export_limit"] = limit if isinstance(limit, str) else at_most(device, "export_limit", limit)
    return means | _battery(words, device)


def orders(words: Words) -> bool:
    """Return whether energy management itself orders something."""
    return EMS_ORDERS[words[EMS_MODE]] is not None


def moves(words: Words) -> bool:
    """Return whether energy management charges or discharges, so that its power acts."""
    return EMS_ORDERS.get(words[EMS_MODE]) in MOVING


def powered(words: Words) -> bool:
    """Return whether it does so with some power."""
    return moves(words) and bool(words[EMS_POWER])


def scheduled(words: Words) -> bool:
    """Return whether the first schedule orders something, and acts."""
    return not orders(words) and words.get(WORK_MODE) == ECO and _order(words) is not None


def limits(words: Words) -> bool:
    """Return whether the export limit acts. It does until it is known to be off."""
    return words.get(EXPORT_SWITCH) != 0


def impossible(words: Words) -> str | None:
    """Return why the schedules can't be: SEMS takes an order for the battery, not a timetable."""
    for group in range(SCHEDULES):
        start = SCHEDULE + SCHEDULE_WORDS * group
        if words[start + 2] >> 8 & ON and (group or _order(words) is None):
            return f"schedule {group + 1}: only the first may be on, and only all day, every day"
    return None


def words_of(values: Mapping[str, Value]) -> dict[int, int]:
    """Return register → number, for the setpoints in force as far as they are known."""
    words: dict[int, int] = {}
    mode, running, order = values.get("work_mode"), values.get("running"), values.get("battery_mode")
    if mode in WORK_MODES:
        words[WORK_MODE] = WORK_MODES.index(str(mode))
    if running is not None:
        words[SHUTDOWN] = int(not running)
    if order in EMS_SHOWN:
        words[EMS_MODE] = EMS_SHOWN[str(order)]
    if order not in MOVING:
        # The power of an order that is over must not be that of the next one, which names its mode first.
        values = {**values, "battery_power_target": None}
    limit = values.get("export_limit")
    if limit is not None:
        words[EXPORT_SWITCH] = int(limit != NONE)
    for register, setpoint, scale in (
        (EXPORT_LIMIT, "export_limit", 1),
        (EMS_POWER, "battery_power_target", 1),
        (ACTIVE_POWER, "active_power_limit", 10),
    ):
        value = values.get(setpoint)
        if isinstance(value, (int, float)):
            words[register] = max(0, min(MAX_REGISTER, round(value * scale)))
    return words


def _battery(words: Words, device: Device | None) -> dict[str, Value]:
    percent = _order(words)
    if percent is not None and scheduled(words):
        return _scheduled(words, percent, device)
    order = EMS_ORDERS[words[EMS_MODE]]
    if order is None or not moves(words):
        return {"battery_mode": order or AUTO}
    power = at_most(device, "battery_power_target", words[EMS_POWER])
    if not power:
        # "From PV alone" (2), and no power in any other mode: not to discharge, nor to take from the grid.
        return {"battery_mode": "idle"}
    return {"battery_mode": order, "battery_power_target": power, **_until(device, NONE)}


def at_most(device: Device | None, setpoint: str, value: float) -> float:
    """Return a power as the device does: no more than it has."""
    taken = device.setpoints.get(setpoint) if device else None
    return value if taken is None or taken.high is None else min(value, taken.high)


def _order(words: Words) -> float | None:
    """Return the power that the first schedule orders, % of rated, < 0 to charge; None where it orders nothing."""
    start, end, days, power, _, months = (words[SCHEDULE + n] for n in range(SCHEDULE_WORDS))
    steps = PER_HUNDRED.get(days >> 8)
    always = (start, end) == WHOLE_DAY and days & EVERY_DAY == EVERY_DAY and months in EVERY_MONTH
    if steps is None or not always:
        return None
    signed = power - 0x10000 if power >= 0x8000 else power
    return signed / steps if signed and abs(signed) <= 100 * steps else None


def _scheduled(words: Words, percent: float, device: Device | None) -> dict[str, Value]:
    order = "charge" if percent < 0 else "discharge"
    means: dict[str, Value] = {"battery_mode": order}
    taken = device.setpoints if device else {}
    if device is not None and device.rated_power is not None:
        power = device.rated_power * abs(percent) / 100
        high = taken["battery_power_target"].high if "battery_power_target" in taken else None
        # 100 % is "as much as it can" there; the battery may take less than the inverter is rated for.
        means["battery_power_target"] = float(round(power if high is None else min(power, high)))
    soc = float(words[SCHEDULE + 4]) if order == "charge" else NONE
    return means | _until(device, soc)


def _until(device: Device | None, soc: Value) -> dict[str, Value]:
    """Return the state of charge to stop at, where the device takes one; NONE: the order's own."""
    return {"battery_target_soc": soc} if device is not None and "battery_target_soc" in device.setpoints else {}


def lowest_or_full(device: Device | None, order: str) -> float:
    """Return the state of charge at which an order ends that names none."""
    taken = device.setpoints.get("battery_target_soc") if device else None
    low, high = (taken.low, taken.high) if taken else (None, None)
    if order == "charge":
        return FULL if high is None else high
    return low or 0.0
