"""Points of SunSpec that are no points of the gateway, but follow from some. In SunSpec's units."""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.bridges.modbus.maps.sunspec.inverter import STRINGS
from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.core.model import Value

Values = Mapping[str, Value]
Expression = Callable[[Values], Value]

STATES: Final[Mapping[Value, int]] = {"offline": 1, "waiting": 8, "normal": 4, "fault": 7}
"""Model 101 ff., St: off, standby, MPPT, fault."""
DER_STATES: Final[Mapping[Value, int]] = {"offline": 0, "waiting": 7, "normal": 3, "fault": 6}
"""Model 701, InvSt: off, standby, running, fault."""
CONNECTED: Final[Mapping[Value, int]] = {"offline": 0, "waiting": 0, "normal": 1, "fault": 0}
PRESENCE: Final[Mapping[Value, int]] = {"offline": 0, "waiting": 0b011, "normal": 0b111, "fault": 0b001}
"""Model 122, PVConn: bits connected, available, operating."""
BANK_STATES: Final[Mapping[Value, int]] = {"offline": 1, "waiting": 4, "normal": 3, "fault": 99}
"""Model 802, State: disconnected, standby, connected, fault."""
STORAGE_STATES: Final[Mapping[Value, int]] = {"waiting": 0, "normal": 0, "fault": 2}
"""Model 713, Sta: ok, error."""
ALARMS: Final[Mapping[Value, int]] = {"offline": 0, "waiting": 0, "normal": 0, "fault": 1 << 16}
"""Model 701, Alrm: the manufacturer's alarm, in words in MnAlrmInfo."""
DISCHARGING, CHARGING, FULL, HOLDING = 3, 4, 5, 6
"""Models 124 and 802, ChaSt."""
FULL_FROM: Final = 100.0
"""%"""


def number(values: Values, point: str) -> float | None:
    """Return a point's number; None where there is none."""
    value = values.get(point)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _numbers(values: Values, *points: str) -> list[float]:
    return [found for point in points if (found := number(values, point)) is not None]


def _amps(values: Values) -> Value:
    found = _numbers(values, "l1_current", "l2_current", "l3_current")
    return sum(found) if found else None


def _volts(values: Values) -> Value:
    found = _numbers(values, "l1_voltage", "l2_voltage", "l3_voltage")
    return sum(found) / len(found) if found else None


def _frequency(values: Values) -> Value:
    return next(iter(_numbers(values, "l1_frequency", "l2_frequency", "l3_frequency")), None)


def _meter_power(values: Values) -> Value:
    """Return what the grid connection imports. `ac_power` feeds in when > 0, so that a meter's is the opposite."""
    imported = number(values, "grid_power")
    fed_in = number(values, "ac_power")
    return imported if imported is not None or fed_in is None else -fed_in


def _charge_state(values: Values) -> Value:
    power = number(values, "battery_power")
    if power is None:
        return None
    if power:
        return DISCHARGING if power > 0 else CHARGING
    return FULL if (number(values, "battery_soc") or 0) >= FULL_FROM else HOLDING


def _depth(values: Values) -> Value:
    soc = number(values, "battery_soc")
    return None if soc is None else 100 - soc


def _energy_available(values: Values) -> Value:
    """Return capacity x state of charge x state of health, as model 713 defines it, in Wh."""
    capacity, soc = number(values, "battery_capacity"), number(values, "battery_soc")
    if capacity is None or soc is None:
        return None
    soh = number(values, "battery_soh")
    return capacity * 1000 * soc / 100 * (100 if soh is None else soh) / 100


def _active_controls(values: Values) -> Value:
    """Return model 122's StActCtl: bit 0 a power limit, 1 fixed reactive power, 2 a fixed power factor."""
    limit, var, factor = (number(values, point) for point in ("active_power_limit", "reactive_power", "power_factor"))
    return (limit is not None and limit < 100) | bool(var) << 1 | (factor is not None and abs(factor) != 1) << 2


def _product(one: str, other: str) -> Expression:
    def product(values: Values) -> Value:
        a, b = number(values, one), number(values, other)
        return None if a is None or b is None else a * b

    return product


def _same(point: str) -> Expression:
    return lambda values: values.get(point)


def _by_status(meanings: Mapping[Value, int]) -> Expression:
    return lambda values: meanings.get(values.get("status"))


EXPRESSIONS: Final[Mapping[str, Expression]] = {
    own("amps"): _amps,
    own("volts"): _volts,
    own("frequency"): _frequency,
    own("meter_power"): _meter_power,
    **{own(f"pv{n}_power"): _product(f"pv{n}_voltage", f"pv{n}_current") for n in range(1, STRINGS + 1)},
    own("inverter_state"): _by_status(STATES),
    own("der_state"): _by_status(DER_STATES),
    own("connected"): _by_status(CONNECTED),
    own("pv_connection"): _by_status(PRESENCE),
    own("storage_connection"): lambda values: (
        PRESENCE.get(values.get("status")) if number(values, "battery_soc") is not None else 0
    ),
    own("bank_state"): _by_status(BANK_STATES),
    own("storage_state"): _by_status(STORAGE_STATES),
    own("alarm"): _by_status(ALARMS),
    own("active_controls"): _active_controls,
    # The same as a point, for a model that stays readable while these are not good.
    own("soc"): _same("battery_soc"),
    own("battery_volts"): _same("battery_voltage"),
    own("charge_state"): _charge_state,
    own("depth_of_discharge"): _depth,
    own("energy_available"): _energy_available,
}
"""Field → how it follows from the device's values."""
