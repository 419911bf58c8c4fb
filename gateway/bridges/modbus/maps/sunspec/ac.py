"""Apparent power, reactive power and power factor, in the signs that the models want.

In the point table reactive power and power factor are > 0 where reactive power is given (over-excited), < 0 where it
is drawn. Of an inverter, W > 0 feeds in, so that quadrants are: 1 feeds in and gives, 2 takes and gives, 3 takes and
draws, 4 feeds in and draws. A meter's models count what comes from the grid: there both signs are the other way round.
"""

from collections.abc import Callable, Mapping
from math import copysign, hypot
from typing import Final, NamedTuple

from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.core.model import Value

Values = Mapping[str, Value]
Expression = Callable[[Values], Value]


class Power(NamedTuple):
    """What flows at a device's terminals: W > 0 and var > 0 as its models have them."""

    active: float | None
    apparent: float | None
    factor: float | None
    """Its magnitude."""
    reactive: float
    """Where nothing is measured, 1 or -1 for its sign alone; 0 where nothing says that either."""


def number(values: Values, point: str) -> float | None:
    """Return a point's number; None where there is none."""
    value = values.get(point)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def meter_power(values: Values) -> float | None:
    """Return what the grid connection imports. `ac_power` feeds in when > 0, so that a meter's is the opposite."""
    imported = number(values, "grid_power")
    fed_in = number(values, "ac_power")
    return imported if imported is not None or fed_in is None else -fed_in


def reactive(values: Values) -> float | None:
    """Return a meter's reactive power, > 0 where it comes from the grid, as its active power does."""
    given = number(values, "ac_reactive_power")
    return None if given is None else 0.0 - given


def _power(values: Values, active: float | None, turn: int) -> Power:
    apparent, factor = number(values, "ac_apparent_power"), number(values, "ac_power_factor")
    given = number(values, "ac_reactive_power")
    if apparent is None and active is not None and given is not None:
        apparent = hypot(active, given)
    size = abs(factor) if factor is not None else None
    if size is None and active is not None and apparent:
        size = min(1.0, abs(active) / apparent)
    if given is None and factor is not None and abs(factor) < 1:
        given = copysign(1.0, factor)
    return Power(active, apparent, size, turn * (given or 0.0))


def of_inverter(values: Values) -> Power:
    """Return an inverter's: W > 0 feeds in, var > 0 are given."""
    return _power(values, number(values, "ac_power"), 1)


def of_meter(values: Values) -> Power:
    """Return a meter's: W > 0 comes from the grid, and so do var > 0."""
    return _power(values, meter_power(values), -1)


def iec(power: Power) -> Value:
    """Return the power factor with the sign of active power (model 701; IEC)."""
    return power.factor if power.factor is None or power.active is None else copysign(power.factor, power.active)


def eei(power: Power) -> Value:
    """Return the power factor with the EEI's sign: < 0 in quadrants 1 and 3, > 0 in 2 and 4."""
    if power.factor is None or power.active is None:
        return power.factor
    return -power.factor if power.active * power.reactive > 0 else power.factor


ALWAYS: Final[Mapping[str, Expression]] = {
    own("apparent"): lambda values: of_inverter(values).apparent,
    own("power_factor_iec"): lambda values: iec(of_inverter(values)),
    own("meter_power"): meter_power,
    own("meter_apparent"): lambda values: of_meter(values).apparent,
    own("meter_reactive"): reactive,
}
SIGNS: Final[Mapping[str, Mapping[str, Expression]]] = {
    "eei": {
        own("power_factor"): lambda values: eei(of_inverter(values)),
        own("meter_power_factor"): lambda values: eei(of_meter(values)),
    },
    "iec": {
        own("power_factor"): lambda values: iec(of_inverter(values)),
        own("meter_power_factor"): lambda values: iec(of_meter(values)),
    },
}
"""Setting → the power factors whose sign it says."""
AT_THE_METER: Final = frozenset(own(f"meter_{name}") for name in ("power", "apparent", "reactive", "power_factor"))
"""What flows through the grid connection, and not through inverters."""
FACTORS: Final = frozenset({own("power_factor"), own("power_factor_iec"), own("meter_power_factor")})
"""These are from -1 to 1, whatever a model's unit is."""
