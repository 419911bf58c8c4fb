"""Scale factors. Chosen from what is known of a device's rating, so that they stay as they are while it lives."""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

import msgspec

from gateway.core.model import Device, DeviceKind

LIFETIME: Final = 25 * 8766.0
"""Hours of a device's life. At rated power all the time, a 32-bit counter of energy lasts that long."""
MAX_INT16: Final = 32_767.0
MAX_UINT16: Final = 65_534.0
MAX_ACC32: Final = 4_294_967_295.0

AT_THE_GRID: Final = frozenset({DeviceKind.METER, DeviceKind.PLANT, DeviceKind.DATA_LOGGER})
"""These show what a plant exchanges with the grid."""
_MARGIN: Final = 1.25
"""How far a device's power may exceed its rating."""
_GRID_MARGIN: Final = 3.0
"""The same at a grid point, where the load may well be larger than the generation."""
_HOUSE: Final = 26_000.0
"""W up to which a plant is a house: what flows there fits 32,767 W, and its 34 W at night want to be seen."""
_DC_MARGIN: Final = 2.0
"""PV modules are often half as much again as the inverter, and charge a battery beside what is fed in."""
_ASSUMED: Final[Mapping[DeviceKind, float]] = {DeviceKind.PLANT: 1e6}
_ASSUMED_RATING: Final = 1e5
"""W, where a rated power is not known."""
_MIN_BATTERY_VOLTS: Final = 40.0
"""V, of a battery: the lower, the larger its current."""
_MIN_AC_VOLTS: Final = 100.0
_LONGEST_STORAGE: Final = 10.0
"""Hours for which a battery gives its rated power."""


class Scale(Enum):
    """What a scale factor is for."""

    POWER = auto()
    """W, VA, var."""
    DC_POWER = auto()
    """W of all strings, or of a battery."""
    MODULE_POWER = auto()
    """W of one string, without a sign."""
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
    CHARGE = auto()
    """Ah of a battery."""


class Ratings(msgspec.Struct, frozen=True):
    """What the choice rests on."""

    power: float
    """W, the most a device is expected to show."""
    rated: float
    """W, known or assumed."""

    @classmethod
    def of(cls, device: Device, rated: float | None = None, inverters: float | None = None) -> "Ratings":
        """Return a device's. `rated` is what is known of its rating from others, in W: its plant's, say.

        `inverters`: what those of a plant are rated for. Its own rating is that of its PV, and may be less.
        """
        known = device.rated_power or rated
        if inverters and device.kind is DeviceKind.PLANT:
            known = max(known or 0.0, inverters)
        assumed = known or _ASSUMED.get(device.kind, _ASSUMED_RATING)
        if device.kind not in AT_THE_GRID:
            return cls(assumed * _MARGIN, assumed)
        if known is None:
            # Nothing says how large it is. Most plants are houses, and one watt is one watt there.
            return cls(MAX_INT16, assumed)
        return cls(MAX_INT16 if known <= _HOUSE else known * _GRID_MARGIN, known)


_CHOICES: Final[Mapping[Scale, Callable[[Ratings], int]]] = {
    Scale.POWER: lambda ratings: _fitting(ratings.power, MAX_INT16, 0),
    Scale.DC_POWER: lambda ratings: _fitting(ratings.rated * _DC_MARGIN, MAX_INT16, 0),
    Scale.MODULE_POWER: lambda ratings: _fitting(ratings.rated * _DC_MARGIN, MAX_UINT16, 0),
    Scale.CURRENT: lambda ratings: _fitting(ratings.power / _MIN_AC_VOLTS, MAX_INT16, -2),
    Scale.BATTERY_CURRENT: lambda ratings: _fitting(ratings.rated * _DC_MARGIN / _MIN_BATTERY_VOLTS, MAX_INT16, -2),
    Scale.STRING_CURRENT: lambda ratings: _fitting(ratings.rated * _DC_MARGIN / _MIN_BATTERY_VOLTS, MAX_UINT16, -2),
    Scale.VOLTAGE: lambda _: -1,
    Scale.CELL_VOLTAGE: lambda _: -3,
    Scale.FREQUENCY: lambda _: -2,
    Scale.FACTOR: lambda _: -3,
    Scale.FACTOR_PERCENT: lambda _: -2,
    Scale.PERCENT: lambda _: -2,
    Scale.TEMPERATURE: lambda _: -1,
    Scale.ENERGY: lambda ratings: _fitting(ratings.rated * LIFETIME, MAX_ACC32, 0),
    Scale.WHOLE: lambda _: 0,
    Scale.CAPACITY: lambda ratings: _fitting(ratings.rated * _LONGEST_STORAGE, MAX_UINT16, 0),
    Scale.CHARGE: lambda ratings: _fitting(ratings.rated * _LONGEST_STORAGE / _MIN_BATTERY_VOLTS, MAX_UINT16, -1),
}


def scale_factors(device: Device, rated: float | None = None, inverters: float | None = None) -> Mapping[Scale, int]:
    """Return the scale factors of a device: the finest with which what it may show fits. See `Ratings.of`."""
    ratings = Ratings.of(device, rated, inverters)
    return {scale: choose(ratings) for scale, choose in _CHOICES.items()}


def _fitting(most: float, largest: float, finest: int) -> int:
    """Return the smallest exponent from `finest` on with which `most` is written as no more than `largest`."""
    exponent = finest
    while most > largest * 10.0**exponent and exponent < 10:
        exponent += 1
    return exponent
