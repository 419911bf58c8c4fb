"""Points of SunSpec that are no points of the gateway, but follow from some. In SunSpec's units."""

from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.maps.sunspec.ac import ALWAYS, Expression, Values, number, of_inverter
from gateway.bridges.modbus.maps.sunspec.inverter import STRINGS
from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.core.model import Value

__all__ = ["EXPRESSIONS", "LASTING", "Expression", "Values", "number"]

RATED: Final = own("rated")
"""Where expressions find the device's rating, in W."""
CHARGE_CAPACITY: Final = own("charge_capacity")
"""Ah."""
OFFLINE, STOPPED, WAITING, NORMAL, THROTTLED, FAULT = "offline", "stopped", "waiting", "normal", "throttled", "fault"
"""What a device is doing: its status, told apart further by what was ordered."""
STATES: Final[Mapping[Value, int]] = {OFFLINE: 1, STOPPED: 1, WAITING: 8, NORMAL: 4, THROTTLED: 5, FAULT: 7}
"""Model 101 ff., St: off, standby, MPPT, throttled, fault."""
DER_STATES: Final[Mapping[Value, int]] = {OFFLINE: 0, STOPPED: 0, WAITING: 7, NORMAL: 3, THROTTLED: 4, FAULT: 6}
"""Model 701, InvSt: off, standby, running, throttled, fault."""
CONNECTED: Final[Mapping[Value, int]] = {OFFLINE: 0, STOPPED: 0, WAITING: 0, NORMAL: 1, THROTTLED: 1, FAULT: 0}
PRESENCE: Final[Mapping[Value, int]] = {
    OFFLINE: 0, STOPPED: 0b001, WAITING: 0b011, NORMAL: 0b111, THROTTLED: 0b111, FAULT: 0b001,
}  # fmt: skip
"""Model 122, PVConn: bits connected, available, operating."""
BANK_STATES: Final[Mapping[Value, int]] = {OFFLINE: 1, WAITING: 4, NORMAL: 3, FAULT: 99}
"""Model 802, State: disconnected, standby, connected, fault."""
STORAGE_STATES: Final[Mapping[Value, int]] = {WAITING: 0, NORMAL: 0, FAULT: 2}
"""Model 713, Sta: ok, error."""
ALARMS: Final[Mapping[Value, int]] = {OFFLINE: 0, WAITING: 0, NORMAL: 0, FAULT: 1 << 16}
"""Model 701, Alrm: the manufacturer's alarm, in words in MnAlrmInfo."""
NEAR: Final = 0.05
"""Part of a limit by which power may be below it, and the limit still be what holds it: it is not kept to the watt."""
MAX_W: Final = 1
"""Models 701, ThrotSrc, and 122, StSetLimMsk: the limit of active power."""
VA_MAX: Final = 2
"""Model 122, StSetLimMsk."""
NO_BATTERY_TYPE, LITHIUM = 0, 4
"""Model 802, Typ."""
DISCHARGING, CHARGING, FULL, HOLDING = 3, 4, 5, 6
"""Models 124 and 802, ChaSt."""
FULL_FROM: Final = 100.0
"""%"""


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


def _throttled(values: Values) -> bool:
    """Return whether a limit of active power holds it back: one is set, and it gives as much as that allows."""
    limit = number(values, "active_power_limit")
    if limit is None or limit >= 100 or values.get("status") != NORMAL:
        return False
    power, rated = number(values, "ac_power"), number(values, RATED)
    return power is None or not rated or power >= limit / 100 * rated * (1 - NEAR) - rated / 100


def condition(values: Values) -> Value:
    """Return what the device is doing."""
    status = values.get("status")
    if status == WAITING and values.get("running") is False:
        return STOPPED
    return THROTTLED if _throttled(values) else status


def _throttling(values: Values) -> Value:
    """Return how much of the rated power a limit takes away, in percent."""
    if _throttled(values):
        return 100 - (number(values, "active_power_limit") or 0)
    return None if values.get("status") is None else 0


def _throttled_by(values: Values) -> int:
    return MAX_W * _throttled(values)


def _limits_reached(values: Values) -> Value:
    apparent, rated = of_inverter(values).apparent, number(values, RATED)
    full = apparent is not None and rated is not None and apparent >= rated * (1 - 0.01)
    return _throttled_by(values) | VA_MAX * full


def _available(values: Values) -> Value:
    """Return what could be fed in: what is, while nothing holds it back. How much more there is is unknown."""
    power = number(values, "ac_power")
    return None if power is None or condition(values) not in {NORMAL, WAITING} else max(0.0, power)


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


def _charge_available(values: Values) -> Value:
    """Return (ChaState - MinRsvPct) · AhrRtg, as model 124 defines it, in Ah."""
    soc, whole = number(values, "battery_soc"), number(values, CHARGE_CAPACITY)
    if soc is None or whole is None:
        return None
    return max(0.0, soc - (number(values, "battery_reserve_soc") or 0)) / 100 * whole


def _battery(point: str, direction: int) -> Expression:
    """Return what flows into the battery (-1) or out of it (1): a module of 160 for each."""

    def flow(values: Values) -> Value:
        power, value = number(values, "battery_power"), number(values, point)
        if power is None or value is None:
            return None
        return abs(value) if power * direction > 0 else 0.0

    return flow


def _module_state(point: str) -> Expression:
    """Return DCSt: that of the whole while there is power, standby while there is none."""

    def state(values: Values) -> Value:
        power = EXPRESSIONS[own(point)](values)
        if power is None:
            return None
        whole = condition(values)
        return STATES.get(WAITING if not power and whole in {NORMAL, THROTTLED} else whole)

    return state


def _product(one: str, other: str) -> Expression:
    def product(values: Values) -> Value:
        a, b = number(values, one), number(values, other)
        return None if a is None or b is None else a * b

    return product


def _same(point: str) -> Expression:
    return lambda values: values.get(point)


def _by_status(meanings: Mapping[Value, int]) -> Expression:
    return lambda values: meanings.get(values.get("status"))


def _by_condition(meanings: Mapping[Value, int]) -> Expression:
    return lambda values: meanings.get(condition(values))


EXPRESSIONS: Final[Mapping[str, Expression]] = {
    own("amps"): _amps,
    own("volts"): _volts,
    own("frequency"): _frequency,
    **ALWAYS,
    **{own(f"pv{n}_power"): _product(f"pv{n}_voltage", f"pv{n}_current") for n in range(1, STRINGS + 1)},
    **{own(f"pv{n}_state"): _module_state(f"pv{n}_power") for n in range(1, STRINGS + 1)},
    own("battery_in_current"): _battery("battery_current", -1),
    own("battery_in_voltage"): _same("battery_voltage"),
    own("battery_in_power"): _battery("battery_power", -1),
    own("battery_in_state"): _module_state("battery_in_power"),
    own("battery_out_current"): _battery("battery_current", 1),
    own("battery_out_voltage"): _same("battery_voltage"),
    own("battery_out_power"): _battery("battery_power", 1),
    own("battery_out_state"): _module_state("battery_out_power"),
    own("inverter_state"): _by_condition(STATES),
    own("der_state"): _by_condition(DER_STATES),
    own("der_on"): _by_condition(CONNECTED),
    own("connected"): _by_condition(CONNECTED),
    own("pv_connection"): _by_condition(PRESENCE),
    own("storage_connection"): lambda values: (
        PRESENCE.get(condition(values)) if number(values, "battery_soc") is not None else 0
    ),
    own("throttling"): _throttling,
    own("throttled_by"): _throttled_by,
    own("limits_reached"): _limits_reached,
    own("available"): _available,
    own("charge_available"): _charge_available,
    own("battery_type"): lambda values: LITHIUM if number(values, "battery_soh") is not None else NO_BATTERY_TYPE,
    # Where the device takes no command, this only says what it does.
    own("703.ES"): _same("running"),
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

LASTING: Final = frozenset(
    own(name)
    for name in (
        "inverter_state",
        "der_state",
        "der_on",
        "connected",
        "pv_connection",
        "storage_connection",
        "bank_state",
    )
)
"""What stays readable while data are not good: that the device is offline."""
