"""What the read-only registers show that is no point as it stands: signs turned, codes, parts of a whole.

Where something is not known, the value is what the real inverter shows when it lacks the part and what the
library then takes as none: 0 for numbers with a sign, 0x7FFF for temperatures, all bits set for the rest.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.bridges.modbus.codec import NUMERALS
from gateway.bridges.modbus.lasting import lasting
from gateway.bridges.modbus.maps.goodwe.registers import OWN
from gateway.bridges.modbus.maps.goodwe.rows import NO_TEMPERATURE
from gateway.core.model import DeviceState, Value

MAX_INT16: Final = 0x7FFF
"""The library reads the low register alone of most powers, with a sign. Beyond this it would read the other sign."""
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
    """What is measured now; while the data are not good, what is true all the same."""

    @classmethod
    def of(cls, state: DeviceState) -> "Seen":
        """Take what may be shown. With stale: exception the rest is behind 0x0B, with sentinel it is not there."""
        return cls(state, lasting(state))

    def number(self, point: str) -> float | None:
        """Return a measured number."""
        value = self.values.get(point)
        return None if value is None or isinstance(value, (str, bool)) else value

    def or_zero(self, point: str) -> float:
        """Return it; 0 where there is none."""
        return self.number(point) or 0

    def magnitude(self, point: str) -> float | None:
        """Return it without its sign."""
        number = self.number(point)
        return None if number is None else abs(number)

    def temperature(self, point: str) -> float:
        """Return it, °C."""
        number = self.number(point)
        return NO_TEMPERATURE if number is None else number

    def code(self, codes: Mapping[str, int]) -> Value:
        """Return what stands for the device's status."""
        return codes.get(str(self.values.get("status")))

    @property
    def has_three_phases(self) -> bool:
        """Whether there is a voltage on a second phase."""
        return any(self.state.values.get(f"l{n}_voltage") for n in (2, 3))

    @property
    def has_battery(self) -> bool:
        """Whether something is measured of one."""
        return any(self.number(f"battery_{what}") is not None for what in ("soc", "power", "voltage"))


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


def _faults(seen: Seen) -> Value:
    """Return the fault bits: the library has a name for each, and none for a code that is no number."""
    try:
        return NUMERALS[str(seen.values.get("fault_code", 0))]
    except KeyError:
        return 0


def _text(text: Value, registers: int) -> str:
    # Blanks, for the library takes a zero byte as a sign of UTF-16.
    return str(text or "").encode("ascii", "replace").decode().ljust(2 * registers)


def _export_power(seen: Seen) -> float:
    """Return the meter's power; without a meter that of the inverter, as the real one does."""
    grid = seen.number("grid_power")
    return -grid if grid is not None else seen.number("ac_power") or 0


def _of(what: Callable[[Seen, str], Value], point: str) -> Maker:
    return lambda seen: what(seen, point)


def _short(power: float) -> float:
    return max(-MAX_INT16, min(MAX_INT16, power))


def _battery_state(seen: Seen) -> int:
    power = seen.number("battery_power")
    if power:
        return DISCHARGES if power > 0 else CHARGES
    return STANDBY if seen.has_battery else NO_BATTERY


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
    # 0, not all bits set: the library would take those for a large inverter, with more to read.
    "rated_power": lambda seen: seen.state.device.rated_power or 0,
    "output_type": lambda seen: int(seen.has_three_phases),
    "serial": lambda seen: _text(seen.state.device.serial, 8),
    "model": lambda seen: _text(seen.state.device.model, 5),
    "firmware": lambda seen: _text(seen.state.values.get("firmware"), 6),
    "arm_firmware": lambda _: _text("", 6),
    # clock
    "clock_month": _clock(lambda t: t.year - 2000, lambda t: t.month),
    "clock_hour": _clock(lambda t: t.day, lambda t: t.hour),
    "clock_second": _clock(lambda t: t.minute, lambda t: t.second),
    # AC
    **{f"l{n}_current": _of(Seen.magnitude, f"l{n}_current") for n in (1, 2, 3)},
    **{f"l{n}_frequency": _of(Seen.or_zero, f"l{n}_frequency") for n in (1, 2, 3)},
    # Of three phases the cloud says only the sum, and how it is split is unknown.
    "l1_power": lambda seen: 0 if seen.has_three_phases else _short(seen.or_zero("ac_power")),
    "l2_power": lambda _: 0,
    "l3_power": lambda _: 0,
    "grid_mode": lambda seen: seen.code(GRID_MODES),
    "state": lambda seen: seen.code(STATES),
    "faults": _faults,
    # powers
    "ac_power": lambda seen: _short(seen.or_zero("ac_power")),
    "ac_reactive_power": lambda seen: _short(seen.or_zero("ac_reactive_power")),
    "ac_apparent_power": lambda seen: _short(seen.or_zero("ac_apparent_power")),
    "export_power": _export_power,
    "export_power_short": lambda seen: _short(_export_power(seen)),
    "backup_power": lambda seen: _short(seen.or_zero("backup_power")),
    "load_power": lambda seen: _short(max(0.0, seen.or_zero("load_power") - seen.or_zero("backup_power"))),
    "temperature": lambda seen: seen.temperature("temperature"),
    # battery
    "battery_current": lambda seen: seen.or_zero("battery_current"),
    "battery_power": lambda seen: seen.or_zero("battery_power"),
    "battery_temperature": lambda seen: seen.temperature("battery_temperature"),
    "battery_state": _battery_state,
    "battery_present": lambda seen: int(seen.has_battery),
    # meter
    "meter_status": lambda seen: int(seen.number("grid_power") is not None),
    "meter_export": lambda seen: seen.or_zero("grid_export_total"),
    "meter_import": lambda seen: seen.or_zero("grid_import_total"),
}
"""Field, without its prefix → what it shows. All but PV strings, which belong together."""
