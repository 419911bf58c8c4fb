"""Scale factors. Chosen from a device's rated power and kind, so that they stay as they are while it lives."""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

import msgspec

from gateway.core.model import Device, DeviceKind

LIFETIME: Final = 25 * 8766.0
"""Hours of a device's life. At rated power all the time, a 32-bit counter of energy lasts that long."""
INT16_MOST: Final = 32_767.0
UINT16_MOST: Final = 65_534.0
ACC32_MOST: Final = 4_294_967_295.0

_MARGINS: Final[Mapping[DeviceKind, float]] = {DeviceKind.METER: 3.0, DeviceKind.PLANT: 3.0}
"""How far a device's power may exceed its rating: at a grid point the load may well be larger than the generation."""
_MARGIN: Final = 1.25
_ASSUMED: Final[Mapping[DeviceKind, float]] = {DeviceKind.PLANT: 1e6}
_ASSUMED_RATING: Final = 1e5
"""W, where a device's rated power is not known."""
_LEAST_VOLTAGE: Final = 40.0
"""V, of a battery: the lower, the larger its current."""
_LEAST_AC_VOLTAGE: Final = 100.0
_LONGEST_STORAGE: Final = 10.0
"""Hours for which a battery gives its rated power."""


class Scale(Enum):
    """What a scale factor is for."""

    POWER = auto()
    """W, VA, var."""
    CURRENT = auto()
    """A, AC."""
    BATTERY_CURRENT = auto()
    STRING_CURRENT = auto()
    VOLTAGE = auto()
    CELL_VOLTAGE = auto()
    FREQUENCY = auto()
    FACTOR = auto()
    """Power factor, -1 to 1."""
    FACTOR_PERCENT = auto()
    """Power factor, -100 to 100."""
    PERCENT = auto()
    TEMPERATURE = auto()
    ENERGY = auto()
    """Wh in 32 bits."""
    WHOLE = auto()
    """Wh in 64 bits, var in 32."""
    CAPACITY = auto()
    """Wh of a battery in 16 bits."""


class Ratings(msgspec.Struct, frozen=True):
    """What the choice rests on."""

    power: float
    """W, the most a device is expected to show."""
    rated: float
    """W, known or assumed."""

    @classmethod
    def of(cls, device: Device) -> "Ratings":
        """Return a device's."""
        rated = device.rated_power or _ASSUMED.get(device.kind, _ASSUMED_RATING)
        return cls(rated * _MARGINS.get(device.kind, _MARGIN), rated)


_CHOICES: Final[Mapping[Scale, Callable[[Ratings], int]]] = {
    Scale.POWER: lambda ratings: _fitting(ratings.power, INT16_MOST, 0),
    Scale.CURRENT: lambda ratings: _fitting(ratings.power / _LEAST_AC_VOLTAGE, INT16_MOST, -2),
    Scale.BATTERY_CURRENT: lambda ratings: _fitting(ratings.power / _LEAST_VOLTAGE, INT16_MOST, -2),
    Scale.STRING_CURRENT: lambda _: -2,
    Scale.VOLTAGE: lambda _: -1,
    Scale.CELL_VOLTAGE: lambda _: -3,
    Scale.FREQUENCY: lambda _: -2,
    Scale.FACTOR: lambda _: -3,
    Scale.FACTOR_PERCENT: lambda _: -2,
    Scale.PERCENT: lambda _: -2,
    Scale.TEMPERATURE: lambda _: -1,
    Scale.ENERGY: lambda ratings: _fitting(ratings.rated * LIFETIME, ACC32_MOST, 0),
    Scale.WHOLE: lambda _: 0,
    Scale.CAPACITY: lambda ratings: _fitting(ratings.rated * _LONGEST_STORAGE, UINT16_MOST, 0),
}


def scale_factors(device: Device) -> Mapping[Scale, int]:
    """Return the scale factors of a device: the finest with which what it may show fits."""
    ratings = Ratings.of(device)
    return {scale: choose(ratings) for scale, choose in _CHOICES.items()}


def _fitting(most: float, largest: float, finest: int) -> int:
    """Return the smallest exponent from `finest` on with which `most` is written as no more than `largest`."""
    exponent = finest
    while most > largest * 10.0**exponent and exponent < 10:
        exponent += 1
    return exponent
