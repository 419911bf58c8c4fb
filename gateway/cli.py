"""The command line: `sems-gateway`."""

import asyncio
import getpass
import sys
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from gateway import __version__, show
from gateway.app import DataDirError, Gateway, run_until_signal
from gateway.bridges.local import LocalClient, NotRunningError
from gateway.bridges.local.protocol import Devices, Inventory, Refused, Send, Step
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus import registers as modbus_registers
from gateway.core.journal import JournalError
from gateway.core.model import CommandEvent, CommandState
from gateway.core.registry import installed
from gateway.logs import configure
from gateway.settings import Config, ConfigError, LogSettings

T = TypeVar("T")

EXIT_FAILED = 1
EXIT_CONFIG = 2

app = typer.Typer(
    name="sems-gateway",
    help="GoodWe SEMS data in MQTT topics and Modbus TCP registers, and setpoints back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PIPE_WIDTH = 240
"""Columns where standard output is no terminal: nothing is cut off on its way into a file."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="the YAML file, see config.example.yaml")]


def main() -> None:
    """Run the command line."""
    app()


def _version(value: bool) -> None:
    if value:
        out.print(f"sems-gateway {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(config: ConfigFile) -> None:
    """Run the gateway until SIGINT or SIGTERM."""
    loaded = _load(config)
    configure(loaded.root.log)
    try:
        _run(run_until_signal(Gateway(loaded)))
    except (DataDirError, JournalError) as error:
        _fail(str(error))


@app.command()
def check(config: ConfigFile) -> None:
    """Validate a configuration: file, line, what is wrong, what to write instead."""
    loaded = _load(config)
    bridges = ", ".join(f"{bridge.name} ({bridge.type})" for bridge in loaded.bridges)
    control = "control enabled" if loaded.root.control.enabled else "read-only"
    out.print(f"{config} is in order: {bridges}; {control}")


@app.command()
def devices(config: ConfigFile) -> None:
    """List plants and devices: of the running gateway, or else fresh from SEMS."""
    loaded = _load(config)
    try:
        inventory = _run(_inventory(loaded))
    except NotRunningError:
        configure(LogSettings(level="error"))
        err.print("No gateway runs with this configuration; asking SEMS.")
        inventory = _run(_discovered(loaded))
    out.print(show.device_table(inventory.states, width=out.width))
    for bridge in inventory.bridges:
        if not bridge.up:
            err.print(f"[red]{bridge.name} is down:[/] {bridge.detail}")
    if not inventory.states:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def registers(
    config: ConfigFile,
    format_: Annotated[
        modbus_registers.Format, typer.Option("--format", "-f", help="how to print them")
    ] = modbus_registers.Format.TABLE,
) -> None:
    """Print the Modbus register maps and which device has which unit."""
    loaded = _load(config)
    bridges = [(b.name, b.settings) for b in loaded.bridges if isinstance(b.settings, ModbusSettings)]
    if not bridges:
        _fail(f"{config} has no bridge of type modbus; add one, see config.example.yaml", EXIT_CONFIG)
    for name, settings in bridges:
        units = modbus_registers.assigned_units(loaded.data_dir, name, settings)
        ports = modbus_registers.assigned_ports(loaded.data_dir, name, settings)
        maps = modbus_registers.configured(settings)
        if format_ is modbus_registers.Format.TABLE:
            show.registers(out, name, units, ports, maps)
        else:
            sys.stdout.write(modbus_registers.render(format_, units, ports, maps))


@app.command()
def send(
    config: ConfigFile,
    serial: Annotated[str, typer.Argument(metavar="SN", help="serial number of the device")],
    setpoint: Annotated[str, typer.Argument(metavar="SETPOINT", help="e.g. active_power_limit")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="in the setpoint's unit")],
    wait: Annotated[bool, typer.Option("--wait", help="follow the command to its end")] = False,
    ttl: Annotated[float | None, typer.Option(help="seconds until it expires unsent")] = None,
    revert_after: Annotated[float | None, typer.Option(help="dead-man's timer, seconds")] = None,
    revert_value: Annotated[str | None, typer.Option(help="what to go back to then")] = None,
) -> None:
    """Set a setpoint through the running gateway, and show each step."""
    loaded = _load(config)
    request = Send(
        serial=serial,
        setpoint=setpoint,
        value=value,
        user=getpass.getuser(),
        ttl=ttl,
        revert_after=revert_after,
        revert_value=revert_value,
    )
    try:
        last = _run(_send(loaded, request, wait=wait))
    except NotRunningError as error:
        _fail(str(error))
    if last is None or last.state not in (CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def simulate(
    port: Annotated[int, typer.Option(help="0: any free one")] = 8080,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    speed: Annotated[float, typer.Option(min=0.1, max=3600, help="how many times faster the sun moves")] = 1.0,
    calls_per_hour: Annotated[int, typer.Option(min=0, help="of an account; 0 for no limit")] = 3600,
    seed: Annotated[int, typer.Option(help="the same seed gives the same weather and loads")] = 1,
    start: Annotated[
        datetime | None, typer.Option(help="simulated date and time to begin at, UTC; default: now")
    ] = None,
) -> None:
    """Run a SEMS cloud to test against: three plants that obey."""
    from gateway.simulator.command import simulate_until_signal  # noqa: PLC0415 - only this command needs it
    from gateway.simulator.settings import SimulatorSettings  # noqa: PLC0415

    try:
        settings = SimulatorSettings(
            host=host, port=port, speed=speed, seed=seed, start=start, calls_per_hour=calls_per_hour
        )
        _run(simulate_until_signal(settings, out))
    except OSError as error:
        _fail(str(error))


@app.command()
def demo(
    mqtt_port: Annotated[int | None, typer.Option(help="fix the MQTT port; 0: any free one")] = None,
    modbus_port: Annotated[int | None, typer.Option(help="fix the Modbus port; 0: any free one")] = None,
    sems_port: Annotated[int | None, typer.Option(help="fix the simulator's port; 0: any free one")] = None,
    write_config: Annotated[Path | None, typer.Option(help="leave the configuration it runs with")] = None,
    self_test: Annotated[bool, typer.Option("--self-test", help="do the round trip, report, and exit")] = False,
    speed: Annotated[float, typer.Option(min=0.1, max=3600, help="how many times faster the sun moves")] = 30.0,
) -> None:
    """See it work: simulator, MQTT broker, Modbus server and gateway, all on this machine."""
    from gateway.demo.run import DemoError, DemoOptions, run_demo  # noqa: PLC0415 - only this command needs it

    options = DemoOptions(
        mqtt_port=mqtt_port,
        modbus_port=modbus_port,
        sems_port=sems_port,
        write_config=write_config,
        self_test=self_test,
        speed=speed,
    )
    try:
        succeeded = _run(run_demo(options, out))
    except DemoError as error:
        _fail(str(error))
    if not succeeded:
        raise typer.Exit(EXIT_FAILED)


def _load(file: Path) -> Config:
    try:
        return Config.load(file, installed())
    except ConfigError as error:
        for line in error.lines():
            err.print(line, style="red", markup=False)
        raise typer.Exit(EXIT_CONFIG) from None


def _fail(text: str, code: int = EXIT_FAILED) -> NoReturn:
    err.print(text, style="red", markup=False)
    raise typer.Exit(code)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it installs."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


async def _inventory(config: Config) -> Inventory:
    async for reply in LocalClient(config.data_dir).ask(Devices()):
        if isinstance(reply, Inventory):
            return reply
    raise NotRunningError("the gateway closed the connection")


async def _discovered(config: Config) -> Inventory:
    gateway = Gateway(config)
    await gateway.discover()
    return Inventory(list(gateway.router.states()), list(gateway.router.bridges()))


async def _send(config: Config, request: Send, *, wait: bool) -> CommandEvent | None:
    last: CommandEvent | None = None
    async for reply in LocalClient(config.data_dir).ask(request):
        match reply:
            case Step(event):
                last = event
                out.print(show.step(event))
                if not wait:
                    break
            case Refused(detail):
                err.print(detail, style="red", markup=False)
            case _:
                pass
    return last
