"""What the read-only registers show that is no point as it stands: signs turned, codes, parts of a whole.

Where something is not known, the value is what the real inverter shows when it lacks the part and what the
library then takes as none: 0 for numbers with a sign, 0x7FFF for temperatures, all bits set for the rest.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.bridges.modbus.maps.goodwe.rows import NO_TEMPERATURE, OWN
from gateway.core.model import DeviceState, Quality, Value

INT16_MOST: Final = 0x7FFF
RATED_MOST: Final = 0xFFFE
STRINGS: Final = range(1, 5)
NORMAL, FAULT = "normal", "fault"
GRID_MODES: Final[Mapping[str, int]] = {"offline": 0, "waiting": 0, NORMAL: 1, FAULT: 2}
STATES: Final[Mapping[str, int]] = {"offline": 0, "waiting": 0, NORMAL: 1, FAULT: 3}
NO_BATTERY, STANDBY, DISCHARGES, CHARGES = 0, 1, 2, 3
NO_STRING, IDLE_STRING, PRODUCES = 0, 1, 2


class Seen(msgspec.Struct, frozen=True):
    """One device as its registers are to show it."""

    state: DeviceState
    values: Mapping[str, Value]
    """What is measured now; empty while the data are not good."""

    @classmethod
    def of(cls, state: DeviceState) -> "Seen":
        """Take what may be shown. With stale: exception the rest is behind 0x0B, with sentinel it is not there."""
        return cls(state, state.values if state.quality is Quality.GOOD else {})

    def number(self, point: str) -> float | None:
        """Return a measured number."""
        value = self.values.get(point)
        return None if value is None or isinstance(value, (str, bool)) else value


Maker = Callable[[Seen], Value]


def values(state: DeviceState) -> dict[str, Value]:
    """Return field → value, for every read-only field of this map."""
    seen = Seen.of(state)
    shown = {OWN + name: make(seen) for name, make in MAKERS.items()}
    powers = string_powers(seen)
    for n in STRINGS:
        shown[f"{OWN}pv{n}_power"] = powers[n]
    modes = {n: _string_mode(seen, n, powers[n]) for n in STRINGS}
    shown[OWN + "pv_modes_43"] = modes[4] << 8 | modes[3]
    shown[OWN + "pv_modes_21"] = modes[2] << 8 | modes[1]
    return shown


def string_powers(seen: Seen) -> dict[int, float | None]:
    """Return the power of each string: what PV brings in, by the strings' V·I, so that the sum is right.

    Clients add the strings up. Where none is measured, the first shows the whole.
    """
    products = {n: _product(seen.number(f"pv{n}_voltage"), seen.number(f"pv{n}_current")) for n in STRINGS}
    whole = seen.number("pv_power")
    if whole is None:
        return products
    total = sum(product for product in products.values() if product)
    if not total:
        return {**products, 1: whole}
    left = round(whole)
    powers: dict[int, float | None] = {}
    for n, product in products.items():
        # Of what is left, so that rounding takes nothing away.
        powers[n] = None if product is None else round(left * product / total) if product else 0
        left -= int(powers[n] or 0)
        total -= product or 0.0
    return powers


def _product(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


def _string_mode(seen: Seen, n: int, power: float | None) -> int:
    if power and power > 0:
        return PRODUCES
    return IDLE_STRING if seen.number(f"pv{n}_voltage") else NO_STRING


def _or_zero(point: str) -> Maker:
    return lambda seen: seen.number(point) or 0


def _magnitude(point: str) -> Maker:
    def make(seen: Seen) -> Value:
        number = seen.number(point)
        return None if number is None else abs(number)

    return make


def _temperature(point: str) -> Maker:
    def make(seen: Seen) -> Value:
        number = seen.number(point)
        return NO_TEMPERATURE if number is None else number

    return make


def _code(codes: Mapping[str, int]) -> Maker:
    return lambda seen: codes.get(str(seen.values.get("status")))


def _text(text: Value, registers: int) -> str:
    # Blanks, for the library takes a zero byte as a sign of UTF-16.
    return str(text or "").encode("ascii", "replace").decode().ljust(2 * registers)


def _export_power(seen: Seen) -> float:
    """Return the meter's power; without a meter that of the inverter, as the real one does."""
    grid = seen.number("grid_power")
    return -grid if grid is not None else seen.number("ac_power") or 0


def _short(make: Callable[[Seen], float]) -> Maker:
    return lambda seen: max(-INT16_MOST, min(INT16_MOST, make(seen)))


def _load(seen: Seen) -> float:
    return max(0.0, (seen.number("load_power") or 0) - (seen.number("backup_power") or 0))


def _l1_power(seen: Seen) -> float:
    # Of three phases the cloud says only the sum, and how it is split nobody knows.
    return 0 if _three_phases(seen) else seen.number("ac_power") or 0


def _three_phases(seen: Seen) -> bool:
    return any(seen.state.values.get(f"l{n}_voltage") for n in (2, 3))


def _battery_state(seen: Seen) -> int:
    power = seen.number("battery_power")
    if power:
        return DISCHARGES if power > 0 else CHARGES
    return STANDBY if _has_battery(seen) else NO_BATTERY


def _has_battery(seen: Seen) -> bool:
    return any(seen.number(f"battery_{what}") is not None for what in ("soc", "power", "voltage"))


def _rated_power(seen: Seen) -> float:
    # 0, not all bits set: the library would take those for a large inverter, with more to read.
    rated = seen.state.device.rated_power or 0
    return rated if rated <= RATED_MOST else 0


def _clock(high: Callable[[datetime], int], low: Callable[[datetime], int]) -> Maker:
    def make(seen: Seen) -> Value:
        time = seen.state.time
        if time is None:
            return None
        time = time.astimezone(UTC)
        return high(time) << 8 | low(time)

    return make


MAKERS: Final[Mapping[str, Maker]] = {
    # device information
    "rated_power": _rated_power,
    "output_type": lambda seen: int(_three_phases(seen)),
    "serial": lambda seen: _text(seen.state.device.serial, 8),
    "model": lambda seen: _text(seen.state.device.model, 5),
    "firmware": lambda seen: _text(seen.state.values.get("firmware"), 6),
    "arm_firmware": lambda _: _text("", 6),
    # clock
    "clock_month": _clock(lambda t: t.year - 2000, lambda t: t.month),
    "clock_hour": _clock(lambda t: t.day, lambda t: t.hour),
    "clock_second": _clock(lambda t: t.minute, lambda t: t.second),
    # AC
    **{f"l{n}_current": _magnitude(f"l{n}_current") for n in (1, 2, 3)},
    **{f"l{n}_frequency": _or_zero(f"l{n}_frequency") for n in (1, 2, 3)},
    "l1_power": _l1_power,
    "l2_power": lambda _: 0,
    "l3_power": lambda _: 0,
    "grid_mode": _code(GRID_MODES),
    "state": _code(STATES),
    "faults": _or_zero("fault_code"),
    # powers
    "ac_power": _or_zero("ac_power"),
    "ac_reactive_power": _or_zero("ac_reactive_power"),
    "ac_apparent_power": _or_zero("ac_apparent_power"),
    "export_power": _export_power,
    "export_power_short": _short(_export_power),
    "backup_power": _or_zero("backup_power"),
    "load_power": _load,
    "temperature": _temperature("temperature"),
    # battery
    "battery_current": _or_zero("battery_current"),
    "battery_power": _or_zero("battery_power"),
    "battery_temperature": _temperature("battery_temperature"),
    "battery_state": _battery_state,
    "battery_present": lambda seen: int(_has_battery(seen)),
    # meter
    "meter_status": lambda seen: int(seen.number("grid_power") is not None),
    "meter_export": _or_zero("grid_export_total"),
    "meter_import": _or_zero("grid_import_total"),
}
"""Field, without its prefix → what it shows. All but PV strings, which belong together."""
