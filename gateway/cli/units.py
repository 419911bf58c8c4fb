"""`sems-gateway units`: which device has which Modbus unit, and to give one back."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.bridges.local import HungUpError, NotRunningError
from gateway.bridges.local.protocol import Inventory
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus.units import SUFFIX, Place, UnitBook, UnitsError, units_path
from gateway.cli.config import DataDir, MaybeConfig, load, target_of
from gateway.cli.loop import run_on_loop
from gateway.cli.output import fail, in_json, out
from gateway.cli.running import inventory_of
from gateway.core import good_once
from gateway.core.bad_json import BAD_JSON
from gateway.core.model import DeviceState, iso
from gateway.core.text import shortened
from gateway.run.data_dir import DataDirError, HeldError, hold
from gateway.terminal.console import write

WIDE: Final = 120
"""Columns of a terminal that has room for all of a unit."""
MAX_NAME: Final = 18
MAX_SERIAL: Final = 17
"""Characters on a narrow terminal: an inverter's serial number is whole, a plant's id has both its ends."""


class UnitRefusedError(Exception):
    """A unit can't be given back. The message says what to do."""


class Kept(msgspec.Struct, frozen=True):
    """A unit that is kept for a device."""

    bridge: str
    place: Place
    serial: str
    since: datetime | None
    """When the device gave its first value; None where it is not known to have given one."""


def kept_units(data_dir: Path) -> list[Kept]:
    """Return the units of every Modbus bridge there is in a data_dir. Raises OSError, UnitsError among them."""
    since = _since(data_dir)
    return [
        Kept(bridge, place, serial, since.get(serial))
        for bridge in _bridges(data_dir)
        for serial, place in sorted(_book(data_dir, bridge).load().items(), key=lambda pair: pair[1])
    ]


def free_unit(data_dir: Path, serial: str, pinned: Iterable[str] = ()) -> list[Kept]:
    """Give the units of a device back, while no gateway runs; it gets one again once it gives a value.

    Returns what it had. Raises UnitRefusedError, and OSError where it can't be stored.
    """
    if serial in pinned:
        raise UnitRefusedError(f"the configuration gives {serial} its unit; take it out of `units:`")
    with _alone(data_dir, serial, "free") as had:
        for one in had:
            _loaded(data_dir, one.bridge).free(serial)
        since = _since(data_dir)
        if since.pop(serial, None) is not None:
            good_once.write(data_dir, since)
    return had


def move_unit(data_dir: Path, serial: str, to: str) -> tuple[list[Kept], list[Kept]]:
    """Give the units of a device to another one, while no gateway runs. Raises as `free_unit` does.

    Returns them, and those that the other one had and gives up.
    """
    with _alone(data_dir, serial, "move") as had:
        bridges = {one.bridge for one in had}
        given_up = [one for one in kept_units(data_dir) if one.serial == to and one.bridge in bridges]
        for one in had:
            _loaded(data_dir, one.bridge).move(serial, to)
    return had, given_up


@contextmanager
def _alone(data_dir: Path, serial: str, do: str) -> Iterator[list[Kept]]:
    """Keep a gateway from starting meanwhile; give the units of a device. Raises UnitRefusedError."""
    try:
        lock = hold(data_dir)
    except HeldError:
        _kept_for(data_dir, serial)
        raise UnitRefusedError(
            f"a gateway runs with data_dir {data_dir}, and serves the unit; stop it, {do} the unit, and start it again"
        ) from None
    try:
        yield _kept_for(data_dir, serial)
    finally:
        os.close(lock)


def _loaded(data_dir: Path, bridge: str) -> UnitBook:
    book = _book(data_dir, bridge)
    book.load()
    return book


def _kept_for(data_dir: Path, serial: str) -> list[Kept]:
    had = [one for one in kept_units(data_dir) if one.serial == serial]
    if not had:
        raise UnitRefusedError(f"no unit is kept for {serial}; `sems-gateway units` lists those that are")
    return had


class Shown(msgspec.Struct, frozen=True):
    """A unit as it is printed, with what the running gateway knows of its device."""

    bridge: str
    port: int | str
    """"any" where the system chooses it, "first + 1" where the configuration was not given."""
    unit: int
    serial: str
    name: str
    kind: str
    """Like `name` "" where the device is not known now."""
    first_value: datetime | None
    now: str | None
    """Its quality, "not known" where the gateway does not know the device; None where none runs."""


def shown(
    units: Iterable[Kept], first_ports: Mapping[str, int], states: Mapping[str, DeviceState] | None
) -> list[Shown]:
    """Return what is to be printed of units; `states` are those of the running gateway, None where none runs."""
    return [_shown(one, first_ports.get(one.bridge), states) for one in units]


def _shown(one: Kept, first: int | None, states: Mapping[str, DeviceState] | None) -> Shown:
    port: int | str = f"first + {one.place.nth}" if first is None else first + one.place.nth if first else "any"
    state = states.get(one.serial) if states is not None else None
    name, kind = (state.device.name, state.device.kind.value) if state else ("", "")
    now = None if states is None else state.quality.value if state else "not known"
    return Shown(one.bridge, port, one.place.unit, one.serial, name, kind, one.since, now)


def show(console: Console, units: Sequence[Shown]) -> None:
    """Print units: on a narrow terminal what tells them apart, on others all there is."""
    narrow, runs = console.width < WIDE, any(one.now for one in units)
    columns: dict[str, Callable[[Shown], str]] = {
        "bridge": lambda one: one.bridge,
        "port": lambda one: str(one.port),
        "unit": lambda one: str(one.unit),
        "name": lambda one: shortened(one.name, MAX_NAME) if narrow else one.name,
        "kind": lambda one: one.kind,
        "serial number": lambda one: shortened(one.serial, MAX_SERIAL) if narrow and runs else one.serial,
        "first value": lambda one: iso(one.first_value) if one.first_value else "never, that is known",
        "now": lambda one: one.now or "-",
    }
    if narrow:
        for left_out in ("bridge", "first value") if runs else ("bridge", "name", "kind", "now"):
            del columns[left_out]
    table = Table(*columns, box=None, pad_edge=False)
    for one in units:
        table.add_row(*(escape(cell(one)) for cell in columns.values()))
    console.print(table)


def _bridges(data_dir: Path) -> list[str]:
    return sorted(path.name.removesuffix(SUFFIX) for path in data_dir.glob(f"*{SUFFIX}"))


def _book(data_dir: Path, bridge: str) -> UnitBook:
    return UnitBook(units_path(data_dir, bridge), {})


def _since(data_dir: Path) -> dict[str, datetime]:
    try:
        return good_once.read(data_dir)
    except BAD_JSON as error:
        raise UnitsError(f"{data_dir / good_once.FILE} can't be read ({error}); move it away") from error


def units(
    config: MaybeConfig = None,
    data_dir: DataDir = None,
    free: Annotated[
        str, typer.Option("--free", metavar="SN", help="give a device's unit back, while no gateway runs")
    ] = "",
    move: Annotated[
        tuple[str, str],
        typer.Option(
            "--move",
            metavar="OLD NEW",
            help="give the unit of a device to the one it was swapped for, while no gateway runs",
        ),
    ] = ("", ""),
    as_json: Annotated[bool, typer.Option("--json", help="all of each, for a program")] = False,
) -> None:
    """`sems-gateway units`."""
    target = target_of(config, data_dir)
    found = [] if target.file is None else load(target.file).bridges
    modbus = {b.name: b.settings for b in found if isinstance(b.settings, ModbusSettings)}
    try:
        if free:
            had = free_unit(target.data_dir, free, {sn for own in modbus.values() for sn in own.units})
            places = ", ".join(str(one.place.unit) for one in had)
            out.print(f"{free} has no unit any more; it had unit {places}", markup=False)
            return
        if move[0]:
            moved, given_up = move_unit(target.data_dir, *move)
            places, free = (", ".join(str(one.place.unit) for one in some) for some in (moved, given_up))
            text = f"{move[1]} has unit {places} now; {move[0]} has none"
            out.print(text + (f"; unit {free}, which {move[1]} had, is free" if free else ""), markup=False)
            return
        kept = kept_units(target.data_dir)
    except (UnitRefusedError, DataDirError, OSError) as error:
        fail(str(error))
    try:
        inventory: Inventory | None = run_on_loop(inventory_of(target))
    except NotRunningError:
        inventory = None
    except HungUpError as error:
        fail(str(error))
    states = None if inventory is None else {state.device.serial: state for state in inventory.states}
    found_units = shown(kept, {name: own.port for name, own in modbus.items()}, states)
    if as_json:
        write(in_json({"units": found_units}))
    else:
        show(out, found_units)
