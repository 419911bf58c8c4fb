"""What an order for a battery comes to: mode, power and target go to SEMS by one call, with a window in which it holds.

An order is made of what people have set. What they left open is filled in for this one call, and remembered nowhere:
a target of 100 % that `charge` had must not follow into `discharge`.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from gateway.core.errors import RefusedError
from gateway.core.model import Command, Device, Value
from gateway.core.points import AUTO, BATTERY, NONE, SETPOINTS
from gateway.sems.catalogue import ORDERED

MODE: Final = "battery_mode"
POWER: Final = "battery_power_target"
TARGET: Final = "battery_target_soc"
FULL: Final = 100.0
CLOSED: Final = (None, AUTO)
"""Modes in which no order runs."""


def together(command: Command, in_force: Mapping[str, Value], device: Device) -> dict[str, Value]:
    """Return the value of every setpoint that the call for a command carries.

    `in_force` are the other setpoints of its group as people have set them; what they have not is None or absent.
    Raises RefusedError for a power or a target where no order runs: by itself it starts none.
    """
    if SETPOINTS[command.setpoint].group != BATTERY:
        return {command.setpoint: command.value}
    asked = {**in_force, command.setpoint: command.value}
    mode = asked.get(MODE)
    if mode in CLOSED and command.setpoint != MODE:
        raise RefusedError(f"{command.setpoint} changes an order for the battery, and none runs; set {MODE} as well")
    power, target = asked.get(POWER), asked.get(TARGET)
    return {
        ORDERED: mode != AUTO,
        MODE: mode,
        POWER: _power(str(mode), device) if power in (None, NONE) else power,
        TARGET: _target(str(mode), device) if target in (None, NONE) else target,
    }


def window(command: Command, now: datetime, seconds: float) -> dict[str, int]:
    """Return from when to when, POSIX seconds, SEMS is to hold an order: as long as its dead-man's timer, if any.

    `seconds` is how long where it has none. After its end the battery is free again, even where no gateway lives then.
    """
    begins = now.timestamp()
    return {"begins": math.floor(begins), "ends": math.ceil(begins + (command.revert_after or seconds))}


def _power(mode: str, device: Device) -> float:
    """Return W for an order that names no power: as much as the battery takes, or else the inverter's rated power."""
    if mode not in ("charge", "discharge"):
        return 0.0
    limits = device.setpoints.get(POWER)
    most = (limits.high if limits else None) or device.rated_power
    if not most:
        raise RefusedError(f"the rated power of {device.serial} is not known, so say {POWER} with {MODE} {mode}")
    return most


def _target(mode: str, device: Device) -> float:
    """Return the state of charge, %, at which an order ends that names none: full, or the lowest the device takes."""
    limits = device.setpoints.get(TARGET)
    low, high = (limits.low, limits.high) if limits else (None, None)
    if mode == "charge":
        return FULL if high is None else high
    return low or 0.0
