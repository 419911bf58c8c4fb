"""`sems-gateway registers`."""

from collections.abc import Iterator
from socket import gethostname
from typing import Annotated

import typer

from gateway.api.bridge import EVERYWHERE
from gateway.bridges.local import HungUpError, NotRunningError
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus import exports as modbus_exports
from gateway.bridges.modbus import printed as modbus_printed
from gateway.bridges.modbus import registers as modbus_registers
from gateway.cli.config import ConfigFile, load, target_of
from gateway.cli.loop import run_on_loop
from gateway.cli.output import EXIT_CONFIG, err, fail
from gateway.cli.running import inventory_of
from gateway.terminal.console import write


def registers(
    config: ConfigFile,
    format_: Annotated[
        modbus_registers.Format, typer.Option("--format", "-f", help="how to print them")
    ] = modbus_registers.Format.TABLE,
    unit: Annotated[
        int | None, typer.Option(min=0, max=255, help="of this unit alone; 255 is the gateway itself")
    ] = None,
    device: Annotated[str, typer.Option(metavar="SN|NAME", help="of this device alone")] = "",
    map_: Annotated[str, typer.Option("--map", metavar="MAP", help="of this map alone")] = "",
    short: Annotated[bool, typer.Option("--short", help="only what a client needs, for a narrow terminal")] = False,
    host: Annotated[str, typer.Option(metavar="HOST", help="where other programs find the gateway, for exports")] = "",
) -> None:
    """`sems-gateway registers`."""
    loaded = load(config)
    bridges = [(b.name, b.settings) for b in loaded.bridges if isinstance(b.settings, ModbusSettings)]
    if not bridges:
        fail(f"{config} has no bridge of type modbus; add one, see config.example.yaml", EXIT_CONFIG)
    try:
        states = run_on_loop(inventory_of(target_of(config, None))).states
    except (NotRunningError, HungUpError):
        states = []
        err.print(
            "[yellow]No gateway runs with this configuration:[/] what depends on a device is that of a sample "
            "(serial number: sample), with scales for 10 kW and all setpoints.",
        )
    known = {state.device.serial: state.device for state in states}
    wanted = modbus_printed.Filter(unit, device, map_)

    def served() -> Iterator[modbus_registers.Line]:
        for name, settings in bridges:
            places = modbus_registers.assigned(loaded.data_dir, name, settings)
            yield from modbus_printed.served(name, settings, places, known, loaded.root.gateway.id)

    lines = [line for line in served() if wanted.takes(line)]
    if not lines:
        fail(wanted.why_none(served()))
    export = modbus_exports.EXPORTS.get(format_)
    if export is None:
        write(modbus_printed.PRINTERS[format_](lines, modbus_printed.SHORT if short else modbus_registers.COLUMNS))
        return
    given = [line for line in lines if line.unit is not None]
    listens = next(settings.host for name, settings in bridges if name == lines[0].bridge)
    try:
        if not given:
            raise modbus_exports.ExportError("no device has a unit yet; start the gateway, then export")
        if any(line.port is None for line in given):
            raise modbus_exports.ExportError("`port: 0` is another one at each start; give `port` a number")
        write(export(given, host or (gethostname() if listens in EVERYWHERE else listens)))
    except modbus_exports.ExportError as error:
        fail(str(error), EXIT_CONFIG)
