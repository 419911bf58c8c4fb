"""How things look on a terminal."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.bridges.modbus import registers as modbus_registers
from gateway.bridges.modbus.maps.row import RegisterMap
from gateway.core.model import CommandEvent, CommandState, DeviceKind, DeviceState, Quality, Value, iso
from gateway.core.points import POINTS

QUALITY_STYLE: Final = {Quality.GOOD: "green", Quality.STALE: "yellow", Quality.OFFLINE: "red"}
STATE_STYLE: Final = {
    CommandState.ACCEPTED: "cyan",
    CommandState.SENT: "cyan",
    CommandState.SUCCEEDED: "green",
    CommandState.UNKNOWN: "yellow",
}
COLUMNS: Final = (
    ("pv_power", "PV"),
    ("battery_power", "battery"),
    ("battery_soc", "SoC"),
    ("grid_power", "grid"),
    ("load_power", "load"),
    ("ac_power", "AC"),
    ("energy_today", "today"),
    ("active_power_limit", "limit"),
)
_KILO: Final = 1000.0


def device_table(
    states: Iterable[DeviceState], now: datetime | None = None, units: dict[str, int] | None = None
) -> Table:
    """Return plants with their devices below, and the values one looks at first."""
    now = now or datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device", no_wrap=True)
    table.add_column("model", no_wrap=True)
    if units is not None:
        table.add_column("unit", justify="right")
    for _, title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    for state in _in_order(states):
        device = state.device
        is_plant = device.kind is DeviceKind.PLANT
        unit = [] if units is None else [str(units.get(device.serial, ""))]
        fresh = state.quality is Quality.GOOD
        table.add_row(
            f"[bold]{escape(device.name or device.serial)}[/]" if is_plant else f"  {escape(device.serial)}",
            escape(device.model),
            *unit,
            *(_with_unit(point, state.values.get(point)) if fresh else "" for point, _ in COLUMNS),
            _status(state),
            "" if state.time is None else f"{(now - state.time).total_seconds():.0f} s",
        )
    return table


def step(event: CommandEvent) -> str:
    """Return one step of a command as a line of markup."""
    style = STATE_STYLE.get(event.state, "red")
    why = " ".join(part for part in (event.reason, event.detail) if part)
    return (
        f"{iso(event.time)}  [{style}]{event.state:<10}[/] {escape(event.command.serial)} "
        f"{escape(event.command.setpoint)} = {escape(str(event.command.value))}  [dim]{escape(why)}[/]"
    )


def registers(
    console: Console, bridge: str, units: dict[str, int], ports: dict[str, int], maps: Sequence[RegisterMap]
) -> None:
    """Print the register maps of a bridge as a table."""
    if units:
        header, *rows = modbus_registers.places(units, ports)
        table = Table(*header, title=f"Units of {bridge}", title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table, "")
    else:
        console.print(f"Units of {bridge}: none yet; devices get theirs when the gateway first sees them.\n")
    header, *rows = modbus_registers.cells(*maps)
    table = Table(*header, title="Registers of each unit (FC3 and FC4 alike)", title_justify="left", box=None)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def _in_order(states: Iterable[DeviceState]) -> list[DeviceState]:
    """Plants by name, each followed by its devices."""
    states = list(states)
    names = {s.device.serial: s.device.name for s in states if s.device.kind is DeviceKind.PLANT}
    return sorted(
        states,
        key=lambda s: (
            names.get(s.device.plant or s.device.serial, "~"),
            s.device.plant or s.device.serial,
            s.device.kind is not DeviceKind.PLANT,
            s.device.serial,
        ),
    )


def _status(state: DeviceState) -> str:
    style = QUALITY_STYLE[state.quality]
    word = state.values.get("status") if state.quality is Quality.GOOD else state.quality
    return f"[{style}]{word or state.quality}[/]"


def _with_unit(point: str, value: Value) -> str:
    if not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    unit = POINTS[point].unit
    if unit == "W":
        return f"{value / _KILO:.2f} kW"
    return f"{value:.1f} {unit}" if unit == "kWh" else f"{value:.0f} {unit}"
