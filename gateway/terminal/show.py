"""How things look on a terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.core.model import (
    Alarm,
    CommandEvent,
    CommandState,
    Device,
    DeviceKind,
    DeviceState,
    Quality,
    Value,
    Written,
    day_of,
    iso,
)
from gateway.core.points import POINTS

QUALITY_STYLE: Final = {Quality.GOOD: "green", Quality.STALE: "yellow", Quality.OFFLINE: "red"}
STATE_STYLE: Final = {
    CommandState.ACCEPTED: "cyan",
    CommandState.SENT: "cyan",
    CommandState.SUCCEEDED: "green",
    CommandState.UNKNOWN: "yellow",
}
COLUMNS: Final = (
    # point, title, turn in which a narrow terminal goes without it
    ("pv_power", "PV", 8),
    ("battery_power", "battery", 5),
    ("battery_soc", "SoC", 3),
    ("grid_power", "grid", 6),
    ("load_power", "load", 4),
    ("ac_power", "AC", 9),
    ("energy_today", "today", 2),
    ("active_power_limit", "limit", 7),
)
STAND_INS: Final[Mapping[DeviceKind, Mapping[str, tuple[str, ...]]]] = {
    DeviceKind.WEATHER_STATION: {"pv_power": ("irradiance", "ambient_temperature")},
    DeviceKind.EV_CHARGER: {"ac_power": ("ev_power",), "energy_today": ("ev_session_energy",)},
}
"""Kind → point of a column → what stands there instead, for devices that have no such point."""
ZONE_TURN: Final = -1
"""Before all others."""
MODEL_TURN: Final = 1
GAP: Final = 2
"""Blanks between columns."""
_KILO: Final = 1000.0


class _Column(NamedTuple):
    """A column of the device table."""

    title: str
    cells: list[str]
    """Markup."""
    turn: int = 0
    """In which turn a narrow terminal goes without it; 0: never."""
    right: bool = True

    @property
    def width(self) -> int:
        return GAP + max(cell_len(Text.from_markup(cell).plain) for cell in (self.title, *self.cells))


def device_table(
    states: Iterable[DeviceState],
    now: datetime | None = None,
    units: dict[str, int] | None = None,
    width: int | None = None,
    written: Iterable[Written] = (),
) -> Table:
    """Return plants with their devices below, and the values one looks at first.

    Where they do not all fit into `width` columns, the less telling ones are left out; none is cut. `written` says
    how often setpoints were written: shown as writes today and in the device's lifetime.
    """
    now = now or datetime.now(UTC)
    in_order = _in_order(states)
    columns = _device_columns(in_order, now, units)
    if counts := _writes(written, now):
        cells = [counts.get(state.device.serial, "") for state in in_order]
        columns.insert(-2, _Column("writes", cells, MODEL_TURN))
    if width is not None:
        # A gap follows every column but the last.
        for turn in sorted({column.turn for column in columns} - {0}):
            if sum(column.width for column in columns) - GAP <= width:
                break
            columns = [column for column in columns if column.turn != turn]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def _device_columns(states: list[DeviceState], now: datetime, units: dict[str, int] | None) -> list[_Column]:
    unit = [] if units is None else [_Column("unit", [str(units.get(s.device.serial, "")) for s in states])]
    zones = [_zone(state.device) for state in states]
    zone = [_Column("zone", zones, ZONE_TURN, right=False)] if any(zones) else []
    return [
        _Column("device", [_device(state.device) for state in states], right=False),
        _Column("model", [escape(state.device.model) for state in states], MODEL_TURN, right=False),
        *zone,
        *unit,
        *(_Column(title, [_shown(state, point) for state in states], turn) for point, title, turn in COLUMNS),
        _Column("status", [_status(state) for state in states], right=False),
        _Column("age", [_age(state, now) for state in states]),
    ]


def _writes(written: Iterable[Written], now: datetime) -> dict[str, str]:
    """Return by serial how often a device was written today and ever: `3/1200`."""
    today: Counter[str] = Counter()
    life: Counter[str] = Counter()
    for each in written:
        life[each.serial] += each.life
        today[each.serial] += each.today if each.day == day_of(now) else 0
    return {serial: f"{today[serial]}/{count}" for serial, count in life.items()}


def _device(device: Device) -> str:
    if device.kind is DeviceKind.PLANT:
        return f"[bold]{escape(device.name or device.serial)}[/]"
    return f"  {escape(device.serial)}"


def _zone(device: Device) -> str:
    """Return a plant's zone, as it is said, set or found out; that of its devices is the same."""
    return escape(device.time_zone) if device.kind is DeviceKind.PLANT or not device.plant else ""


def _shown(state: DeviceState, point: str) -> str:
    if state.quality is not Quality.GOOD:
        return ""
    points = STAND_INS.get(state.device.kind, {}).get(point, (point,))
    return " ".join(filter(None, (_with_unit(shown, state.values.get(shown)) for shown in points)))


def _age(state: DeviceState, now: datetime) -> str:
    return "" if state.time is None else f"{(now - state.time).total_seconds():.0f} s"


def step(event: CommandEvent) -> str:
    """Return one step of a command as a line of markup."""
    style = STATE_STYLE.get(event.state, "red")
    unverified = event.state is CommandState.SUCCEEDED and not event.verified
    marks = ("(unverified)" if unverified else "", "(correction)" if event.correction else "")
    why = " ".join(part for part in (*marks, event.reason, event.detail) if part)
    return (
        f"{iso(event.time)}  [{style}]{event.state:<10}[/] {escape(event.command.serial)} "
        f"{escape(event.command.setpoint)} = {escape(str(event.command.value))}  [dim]{escape(why)}[/]"
    )


def alarm(event: Alarm) -> str:
    """Return an alarm that was raised or cleared as a line of markup."""
    style, word, time = ("green", "cleared", event.cleared) if event.cleared else ("red", "raised", event.raised)
    what = " ".join(part for part in (event.severity, event.code, event.text) if part)
    return f"{iso(time)}  [{style}]{word:<10}[/] {escape(event.serial)} {escape(what)}"


def _in_order(states: Iterable[DeviceState]) -> list[DeviceState]:
    """Plants by name, each followed by its devices, inverters first."""
    states, kinds = list(states), list(DeviceKind)
    names = {s.device.serial: s.device.name for s in states if s.device.kind is DeviceKind.PLANT}
    return sorted(
        states,
        key=lambda s: (
            names.get(s.device.plant or s.device.serial, "~"),
            s.device.plant or s.device.serial,
            s.device.kind is not DeviceKind.PLANT,
            kinds.index(s.device.kind),
            s.device.serial,
        ),
    )


def _status(state: DeviceState) -> str:
    style = QUALITY_STYLE[state.quality]
    point = "ev_status" if state.device.kind is DeviceKind.EV_CHARGER else "status"
    word = state.values.get(point) if state.quality is Quality.GOOD else state.quality
    return f"[{style}]{escape(str(word or state.quality))}[/]"


def _with_unit(point: str, value: Value) -> str:
    if not isinstance(value, (int, float)):
        return "" if value is None else escape(str(value))
    unit = POINTS[point].unit
    if unit == "W":
        return f"{value / _KILO:.2f} kW"
    return f"{value:.1f} {unit}" if unit == "kWh" else f"{value:.0f} {unit}"
