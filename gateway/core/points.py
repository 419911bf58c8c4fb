"""The point table: every value the gateway knows, a row each.

MQTT topics, register maps, documentation and validation all derive from it.

Signs: `pv_power`, `load_power` ≥ 0; `ac_power` > 0 feeds in; `grid_power` > 0 imports; `battery_power` > 0 discharges;
so pv + battery + grid = load. Reactive power and power factors, set and measured, of inverters and of meters:
> 0 where reactive power is given to the grid (over-excited), < 0 where it is drawn from it (under-excited).
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from gateway.core import strict
from gateway.core.model import Value

NONE: Final = "none"
"""The value of a setpoint that says "no limit", or "no setting of mine". Not the same as None, which is "not known"."""


class Kind(StrEnum):
    """What a point is."""

    MEASUREMENT = "measurement"
    TOTAL = "total"
    """Counts up; may start again at midnight where its description says "today"."""
    STATE = "state"
    SETPOINT = "setpoint"


class Type(StrEnum):
    """What a point's values are."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ENUM = "enum"
    TEXT = "text"


class BadValueError(ValueError):
    """A value that the point does not take. The message says what it takes."""


class OutOfRangeError(BadValueError):
    """A number of the right kind, outside the point's range."""


class Point(msgspec.Struct, frozen=True):
    """A row of the table."""

    id: str
    unit: str
    kind: Kind
    type: Type
    description: str
    low: float | None = None
    high: float | None = None
    """Range, bounds included, in `unit`."""
    options: tuple[str, ...] = ()
    """What an enum takes; the position is its number in registers."""
    group: str = ""
    """Setpoints of one group are set by one call to the cloud, so they take turns."""
    neutral: Value = None
    """What a dead-man's timer falls back to when the command names nothing."""
    tolerance: float = 0.0
    """How far a read-back of a setpoint may be from what was asked for, in `unit`, to be the same."""
    nullable: bool = False
    """It takes `none` (NONE) as well as a number."""
    least: float = 0.0
    """Of a power factor: its magnitude is at least this; 1 and -1 are one value. 0 for all other points."""

    def same(self, found: Value, wanted: Value) -> bool:
        """Return whether a value that was read back is the one asked for, within the tolerance."""
        numbers = isinstance(found, (int, float)) and isinstance(wanted, (int, float))
        if not numbers or isinstance(found, bool) or isinstance(wanted, bool):
            return found == wanted
        one, other = float(found or 0), float(wanted or 0)
        # Power factors lie on a line that is joined at 1 and -1: from -0.99 to 0.99 it is 0.02.
        apart = 2 - abs(one) - abs(other) if self.least and one * other < 0 else one - other
        return math.isclose(apart, 0.0, rel_tol=0.0, abs_tol=self.tolerance + _NOISE)

    def parse(self, raw: object) -> Value:
        """Return `raw` as this point's value.

        Numbers may come as text; booleans as on/off, true/false, 1/0; enums as their name or number; NONE, where the
        point takes it, also as None (JSON's null) and `null`, but never as nothing at all: an empty text is a mistake.
        Raises BadValueError, or OutOfRangeError for a number outside the point's range.
        """
        if isinstance(raw, str):
            raw = raw.strip()
        if self.nullable and (raw is None or (isinstance(raw, str) and raw.lower() in _NOTHING)):
            return NONE
        match self.type:
            case Type.BOOLEAN:
                value = _BOOLEANS.get(str(raw).lower())
                if value is None:
                    raise BadValueError(f"{self.id} takes true or false, not {raw!r}")
                return value
            case Type.ENUM:
                return self._parse_option(raw)
            case Type.TEXT:
                if not isinstance(raw, str):
                    raise BadValueError(f"{self.id} takes text, not {raw!r}")
                return raw
            case _:
                return self._parse_number(raw)

    def _parse_option(self, raw: object) -> str:
        text = str(raw).lower()
        if text in self.options:
            return text
        if not isinstance(raw, bool) and text.isascii() and text.isdigit() and int(text) < len(self.options):
            return self.options[int(text)]
        raise BadValueError(f"{self.id} takes one of {', '.join(self.options)}, not {raw!r}")

    def _parse_number(self, raw: object) -> float | int:
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise BadValueError(f"{self.id} takes {self._numbers()}, not {raw!r}")
        try:
            number = strict.number(raw) if isinstance(raw, str) else float(raw)
        except (ValueError, OverflowError):
            raise BadValueError(f"{self.id} takes {self._numbers()}, not {raw!r}") from None
        if not math.isfinite(number):
            raise BadValueError(f"{self.id} takes a finite number, not {raw!r}")
        outside = (self.low is not None and number < self.low) or (self.high is not None and number > self.high)
        if outside or abs(number) < self.least:
            raise OutOfRangeError(f"{self.id} takes {self.range_text()}, not {number:g}")
        if self.type is Type.INTEGER:
            if not number.is_integer():
                raise BadValueError(f"{self.id} takes a whole number, not {raw!r}")
            return int(number)
        return number

    def range_text(self) -> str:
        """Return the range in words, with the unit."""
        if self.least:
            return f"{self.low:g} to {-self.least:g} and {self.least:g} to {self.high:g}"
        unit = f" {self.unit}" if self.unit else ""
        return range_text(self.low, self.high) + unit + (f", or {NONE}" if self.nullable else "")

    def _numbers(self) -> str:
        return f"a number or {NONE}" if self.nullable else "a number"


def range_text(low: float | None, high: float | None) -> str:
    """Return a range in words: `0 to 100`, `at least 0`, `at most 5`, `any number`."""
    match low, high:
        case None, None:
            return "any number"
        case _, None:
            return f"at least {low:g}"
        case None, _:
            return f"at most {high:g}"
        case _:
            return f"{low:g} to {high:g}"


_NOTHING: Final = frozenset({NONE, "null"})
_NOISE: Final = 1e-9
"""What binary fractions add: 2 - 0.997 - 0.997 is not quite 0.006."""
_BOOLEANS: Final = {
    "true": True, "on": True, "1": True, "1.0": True, "yes": True,
    "false": False, "off": False, "0": False, "0.0": False, "no": False,
}  # fmt: skip


def _measured(id_: str, unit: str, text: str, low: float | None = None, high: float | None = None) -> Point:
    return Point(id_, unit, Kind.MEASUREMENT, Type.FLOAT, text, low, high)


def _total(id_: str, unit: str, text: str) -> Point:
    return Point(id_, unit, Kind.TOTAL, Type.FLOAT, text, 0)


def _state(id_: str, type_: Type, text: str, options: tuple[str, ...] = ()) -> Point:
    return Point(id_, "", Kind.STATE, type_, text, options=options)


def _strings(count: int) -> list[Point]:
    return [
        point
        for n in range(1, count + 1)
        for point in (
            _measured(f"pv{n}_voltage", "V", f"DC voltage of PV string {n}", 0),
            _measured(f"pv{n}_current", "A", f"DC current of PV string {n}", 0),
        )
    ]


def _phases(prefix: str, what: str) -> list[Point]:
    return [
        point
        for n in range(1, 4)
        for point in (
            _measured(f"{prefix}l{n}_voltage", "V", f"{what} voltage of phase L{n}", 0),
            _measured(f"{prefix}l{n}_current", "A", f"{what} current of phase L{n}"),
            _measured(f"{prefix}l{n}_frequency", "Hz", f"{what} frequency of phase L{n}", 0),
        )
    ]


STATUS_OPTIONS: Final = ("offline", "waiting", "normal", "fault")
AUTO: Final = "auto"
"""The battery mode that hands the battery back to its own control."""
BATTERY_MODES: Final = ("idle", "charge", "discharge", AUTO)
"""In registers by their place, which every one of them keeps."""
WORK_MODES: Final = ("general", "off_grid", "backup", "eco", "peak_shaving", "self_use")
LIMIT_STATES: Final = ("init", "unlimited_controlled", "limited", "failsafe", "unlimited_autonomous")
FLEET_STATES: Final = ("idle", "moving", "holding", "partial")
ALARM_SEVERITIES: Final = ("none", "info", "warning", "fault")
EV_STATUS_OPTIONS: Final = ("unplugged", "plugged", "charging")
BATTERY: Final = "battery"
PERCENT: Final = (0.0, 100.0)
ROUNDED: Final = 0.5
"""Of %, W and the like SEMS gives whole ones."""
ROUNDED_HUNDREDTHS: Final = 0.006
"""Of a power factor SEMS gives hundredths."""
MIN_POWER_FACTOR: Final = 0.8
"""What inverters take, leading and lagging, as far as nothing else is known of one."""

_ROWS: Final[tuple[Point, ...]] = (
    # state
    _state("status", Type.ENUM, "What the device is doing", STATUS_OPTIONS),
    _state("fault_code", Type.TEXT, "Fault code, as the device reports it: a number, often bits, or text"),
    _state("fault_text", Type.TEXT, "The fault in words"),
    _state("firmware", Type.TEXT, "Firmware version"),
    _state("ev_status", Type.ENUM, "Whether a vehicle is plugged in and charging", EV_STATUS_OPTIONS),
    _state("signal_strength", Type.INTEGER, "Signal of the communication module, dBm"),
    # alarms
    _state("alarms_active", Type.INTEGER, "How many alarms are active"),
    _state("alarm_severity", Type.ENUM, "Severity of the worst active alarm", ALARM_SEVERITIES),
    _state("alarm_code", Type.TEXT, "Code of the alarm that was raised last, of those active"),
    _state("alarm_text", Type.TEXT, "That alarm in words"),
    _state("alarm_time", Type.TEXT, "When that alarm was raised, RFC 3339, UTC"),
    # power, energy flow
    _measured("ac_power", "W", "Active power at the inverter's AC terminals; > 0 feeds in"),
    _measured("ac_reactive_power", "var", "Reactive power at the AC terminals; > 0 is given (over-excited)"),
    _measured("ac_apparent_power", "VA", "Apparent power at the AC terminals"),
    _measured("ac_power_factor", "", "Power factor at the AC terminals; < 0 under-excited", -1, 1),
    _measured("pv_power", "W", "PV power, all strings", 0),
    _measured("load_power", "W", "Consumption of the site behind the meter", 0),
    _measured("grid_power", "W", "Power at the grid connection; > 0 imports"),
    _measured("backup_power", "W", "Power on the backup output", 0),
    _measured("battery_power", "W", "Battery power; > 0 discharges"),
    # AC by phase, DC by string
    *_phases("", "AC"),
    *_strings(4),
    # energy
    _total("energy_today", "kWh", "Energy generated today; starts again at local midnight"),
    _total("energy_month", "kWh", "Energy generated this month"),
    _total("energy_year", "kWh", "Energy generated this year"),
    _total("energy_total", "kWh", "Energy generated in the device's lifetime"),
    _total("grid_import_today", "kWh", "Energy bought today"),
    _total("grid_import_total", "kWh", "Energy bought"),
    _total("grid_export_today", "kWh", "Energy sold today"),
    _total("grid_export_total", "kWh", "Energy sold"),
    _total("load_energy_today", "kWh", "Energy consumed today"),
    _total("load_energy_total", "kWh", "Energy consumed"),
    _total("battery_charge_today", "kWh", "Energy into the battery today"),
    _total("battery_charge_total", "kWh", "Energy into the battery"),
    _total("battery_discharge_today", "kWh", "Energy out of the battery today"),
    _total("battery_discharge_total", "kWh", "Energy out of the battery"),
    _total("operating_hours", "h", "Hours in operation"),
    # battery
    _measured("battery_soc", "%", "State of charge", *PERCENT),
    _measured("battery_soh", "%", "State of health", *PERCENT),
    _measured("battery_voltage", "V", "Battery voltage", 0),
    _measured("battery_current", "A", "Battery current; > 0 discharges"),
    _measured("battery_temperature", "°C", "Battery temperature"),
    # temperatures
    _measured("temperature", "°C", "Temperature inside the device"),
    # EV charger
    _measured("ev_power", "W", "Charging power", 0),
    _total("ev_session_energy", "kWh", "Energy of this charging session"),
    _total("ev_session_time", "h", "Duration of this charging session"),
    _total("ev_energy_total", "kWh", "Energy charged in the charger's lifetime"),
    # weather
    _measured("irradiance", "W/m²", "Irradiance in the module plane", 0),
    _measured("ambient_temperature", "°C", "Air temperature"),
    _measured("module_temperature", "°C", "Module temperature"),
    _measured("wind_speed", "m/s", "Wind speed", 0),
    _measured("wind_direction", "°", "Direction the wind comes from", 0, 360),
    _measured("humidity", "%", "Relative humidity", *PERCENT),
    # plant
    _measured("capacity", "kW", "Installed PV capacity", 0),
    _measured("battery_capacity", "kWh", "Usable battery capacity", 0),
    _total("income_today", "", "Income today, in the plant's currency"),
    _total("income_total", "", "Income, in the plant's currency"),
    # limit at the grid connection
    _state("limit_state", Type.ENUM, "Where a limit of what is fed in stands that is set from outside", LIMIT_STATES),
    _state("import_limit_state", Type.ENUM, "The same of a limit of what is drawn", LIMIT_STATES),
    _measured("import_excess", "W", "What is drawn beyond that limit, as measured last", 0),
    # fleet
    _state("fleet_state", Type.ENUM, "Where a fleet stands with what is asked of it", FLEET_STATES),
    _measured("available_up", "W", "What a fleet could feed in beyond what it does", 0),
    _measured("available_down", "W", "What a fleet could feed in less, or draw, than it does", 0),
    _measured("tracking_error", "W", "Power of a fleet beyond what is asked of it; < 0 is missing"),
    _measured("unplaced_power", "W", "What is asked of a fleet and its members can not take; > 0: too little"),
    _state("members", Type.INTEGER, "Members of a fleet"),
    _state("members_out", Type.INTEGER, "Members that can't be counted on now: offline, stale, refused, contradicted"),
    _measured("data_age_p50", "s", "Age of the data of half of the members at most", 0),
    _measured("data_age_p95", "s", "Age of the data of 95 % of the members at most", 0),
    _state("writes_today", Type.INTEGER, "Commands that have left for members of a fleet today (UTC)"),
    # setpoints
    Point("running", "", Kind.SETPOINT, Type.BOOLEAN, "Inverter runs or stands still", neutral=True),
    Point("active_power_limit", "%", Kind.SETPOINT, Type.FLOAT, "Limit of active power, of rated power",
          *PERCENT, neutral=100.0, tolerance=ROUNDED),
    Point("reactive_power", "%", Kind.SETPOINT, Type.FLOAT, "Reactive power, of rated power; > 0 over-excited",
          -100, 100, neutral=0.0, tolerance=ROUNDED),
    Point("power_factor", "", Kind.SETPOINT, Type.FLOAT, "Power factor; < 0 under-excited; 1 and -1 are the same",
          -1, 1, neutral=1.0, tolerance=ROUNDED_HUNDREDTHS, least=MIN_POWER_FACTOR),
    Point("export_limit", "W", Kind.SETPOINT, Type.FLOAT,
          "Limit of what the plant feeds into the grid, at the grid meter of the device that is told (an inverter, or "
          "a SEC1000 for all of its own); not of that device's own power",
          0, neutral=NONE, tolerance=ROUNDED, nullable=True),
    Point("work_mode", "", Kind.SETPOINT, Type.ENUM, "Operating strategy of a storage system",
          options=WORK_MODES, neutral="general"),
    Point("battery_mode", "", Kind.SETPOINT, Type.ENUM,
          "What the battery is told to do",
          options=BATTERY_MODES, group=BATTERY, neutral=AUTO),
    Point("battery_power_target", "W", Kind.SETPOINT, Type.FLOAT,
          "Power to charge or discharge with",
          0, group=BATTERY, tolerance=ROUNDED, nullable=True),
    Point("battery_target_soc", "%", Kind.SETPOINT, Type.FLOAT,
          "State of charge to stop at",
          *PERCENT, group=BATTERY, tolerance=ROUNDED, nullable=True),
    Point("battery_reserve_soc", "%", Kind.SETPOINT, Type.FLOAT,
          "State of charge kept in reserve: the battery is not discharged below it",
          *PERCENT, neutral=NONE, tolerance=ROUNDED, nullable=True),
    Point("charging", "", Kind.SETPOINT, Type.BOOLEAN, "EV charger charges or waits", neutral=False),
    Point("power_target", "W", Kind.SETPOINT, Type.FLOAT,
          "Active power that a fleet is to feed in, shared out over its members; < 0 draws; none lets all go",
          neutral=NONE, tolerance=ROUNDED, nullable=True),
    Point("import_limit", "W", Kind.SETPOINT, Type.FLOAT,
          "Limit of what the plant draws from the grid, at the grid meter; a limit of this gateway's takes it",
          0, neutral=NONE, tolerance=ROUNDED, nullable=True),
)  # fmt: skip

POINTS: Final[dict[str, Point]] = {point.id: point for point in _ROWS}
"""Point id → point, in the order of the table."""

SETPOINTS: Final[dict[str, Point]] = {p.id: p for p in _ROWS if p.kind is Kind.SETPOINT}

LEADERS: Final = {BATTERY: "battery_mode"}
"""Group of setpoints that are one order → the one of them that starts and ends it. The others are its settings."""

REPLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "power_target": ("battery_mode", "battery_power_target"),
    "battery_mode": ("power_target",),
}
"""Setpoint → those that it ends where it is newer. Only a fleet takes both."""

if len(POINTS) != len(_ROWS):
    raise AssertionError("two rows of the point table have the same id")


def is_measured(values: Mapping[str, Value]) -> bool:
    """Return whether something was measured: a firmware version or the words of a fault alone say nothing of now."""
    return any(
        value is not None and (point not in POINTS or POINTS[point].type is not Type.TEXT)
        for point, value in values.items()
    )
