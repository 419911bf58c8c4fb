"""Watches that powers fit what a device is rated for: a unit that was assumed wrong is wrong by a factor of 1000.

A device can't give three times what it is rated for, and what its phases carry can't be a hundred times what it says.
Nothing is changed or left out here: a person is told, with what would put it right.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.core.model import Device, DeviceKind, Value

MAX_TIMES_RATING: Final[Mapping[str, float]] = {
    "ac_power": 3.0,
    "pv_power": 4.0,
    "battery_power": 4.0,
    "ac_reactive_power": 3.0,
}
"""Point → how many times the rating can't be. More modules than the inverter can use are common, hence the room."""
KINDS: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE)
LITTLE: Final = 100.0
"""What the phases' U·I may not be of the power that is said: the power is in kW, then."""
ENOUGH: Final = 0.05
"""Part of the rating that U·I must be for that, so that it is no noise."""
IN_A_ROW: Final = 2
"""Answers that must say it: garbage comes alone."""


class Odd(msgspec.Struct, frozen=True):
    """A value that can't be."""

    point: str
    text: str


class RatingWatch:
    """What does not fit, of the devices of every source."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}
        """Source and serial → answers in a row that did not fit."""

    def judge(self, source: str, device: Device, values: Mapping[str, Value]) -> Odd | None:
        """Take in an answer; return what does not fit in it, where that was so in the last ones too."""
        key = source, device.serial
        odd = find(device, values)
        if odd is None:
            self._seen.pop(key, None)
            return None
        self._seen[key] = self._seen.get(key, 0) + 1
        return odd if self._seen[key] >= IN_A_ROW else None

    def forget(self, source: str, device: Device) -> None:
        """Forget a device that is withdrawn."""
        self._seen.pop((source, device.serial), None)


def find(device: Device, values: Mapping[str, Value]) -> Odd | None:
    """Return the first value that does not fit the device's rating."""
    rated = device.rated_power
    if not rated or device.kind not in KINDS:
        return None
    for point, most in MAX_TIMES_RATING.items():
        value = _number(values, point)
        if value is not None and abs(value) > most * rated:
            return Odd(point, f"{point} is {value:g}, of a device of {rated:g} W")
    power, carried = _number(values, "ac_power"), _carried(values)
    if power is not None and ENOUGH * rated < carried < 3 * rated and 0 < LITTLE * abs(power) < carried:
        return Odd("ac_power", f"ac_power is {power:g} W, while its phases carry {carried:.0f} VA")
    return None


def _carried(values: Mapping[str, Value]) -> float:
    """Return U·I of the phases."""
    pairs = ((_number(values, f"l{n}_voltage"), _number(values, f"l{n}_current")) for n in (1, 2, 3))
    return sum(abs(volts * amps) for volts, amps in pairs if volts is not None and amps is not None)


def _number(values: Mapping[str, Value], point: str) -> float | None:
    value = values.get(point)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
