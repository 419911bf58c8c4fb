"""The command line: `sems-gateway`."""

import asyncio
import getpass
import re
import sys
from collections import deque
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from gateway import __version__, control, show, show_audit, show_explain, show_interfaces, show_plan
from gateway import fleet as fleet_command
from gateway.app import DataDirError, Gateway, run_until_signal
from gateway.bridges.local import LocalClient, NotRunningError
from gateway.bridges.local.protocol import Devices, Explain, History, Inventory, Refused, Send, SendFleet, Step
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.modbus import registers as modbus_registers
from gateway.bridges.open_api import OpenApiSettings
from gateway.bridges.realtime import RealtimeSettings
from gateway.core.clock import SystemClock
from gateway.core.document import nearest
from gateway.core.journal.chain import AuditReader
from gateway.core.journal.file import JOURNAL, JournalError
from gateway.core.model import CommandEvent, CommandState, Halt, Resolution
from gateway.core.policy.halt import in_words
from gateway.core.registry import installed
from gateway.hardening import no_core_files
from gateway.history import HistoryFailedError, HistoryRefusedError
from gateway.history import export as export_history
from gateway.history_file import FileInTheWayError, HistoryFile
from gateway.history_file import Format as HistoryFormat
from gateway.logs import configure
from gateway.sems.catalogue import Catalogue, load
from gateway.settings import CLI_BRIDGE, Config, ConfigError, LogSettings
from gateway.show_audit import Format as AuditFormat
from gateway.show_explain import Format as ExplainFormat
from gateway.show_interfaces import Api
from gateway.show_interfaces import Format as InterfaceFormat

T = TypeVar("T")

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_INTERRUPTED = 130

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
    no_core_files()
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
    inventory = _known(_load(config))
    out.print(show.device_table(inventory.states, width=out.width))
    for bridge in inventory.bridges:
        if not bridge.up:
            err.print(f"[red]{bridge.name} is down:[/] {bridge.detail}")
        elif bridge.detail:
            err.print(f"[yellow]{bridge.name}:[/] {bridge.detail}")
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
def plan(
    config: ConfigFile,
    devices_: Annotated[
        int | None, typer.Option("--devices", min=0, help="what if there were so many inverters")
    ] = None,
    plants: Annotated[int | None, typer.Option(min=1, help="in so many plants")] = None,
) -> None:
    """Print the hour's plan of calls to SEMS: which interfaces, how often, and how old data get."""
    loaded = _load(config)
    bridges = {b.name: b.settings for b in loaded.bridges if isinstance(b.settings, OpenApiSettings)}
    suppliers = {b.name: b.settings for b in loaded.bridges if isinstance(b.settings, RealtimeSettings)}
    if not bridges and not suppliers:
        _fail(f"{config} has no bridge of type open_api or realtime; add one, see config.example.yaml", EXIT_CONFIG)
    what_if = devices_ is not None or plants is not None
    states = [] if what_if else _known(loaded).states
    for name, settings in bridges.items():
        made_up = show_plan.made_up(1 if devices_ is None else devices_, plants or 1)
        show_plan.show(out, name, settings, made_up if what_if else show_plan.targets_of(states, name, list(bridges)))
    for name, supplier in suppliers.items():
        show_plan.show_realtime(out, name, supplier, states, (devices_ or 1) if what_if else None)
    if not what_if and not states:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def send(
    config: ConfigFile,
    serial: Annotated[str, typer.Argument(metavar="[SN]", help="serial number of the device; not with --fleet")],
    setpoint: Annotated[str, typer.Argument(metavar="SETPOINT", help="e.g. active_power_limit")],
    value: Annotated[str | None, typer.Argument(metavar="VALUE", help="in the setpoint's unit")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="follow the command to its end")] = False,
    ttl: Annotated[float | None, typer.Option(min=0.001, max=86_400, help="seconds until it expires unsent")] = None,
    revert_after: Annotated[float | None, typer.Option(help="dead-man's timer, seconds")] = None,
    revert_value: Annotated[str | None, typer.Option(help="what to go back to then")] = None,
    fleet: Annotated[bool, typer.Option("--fleet", help="for all devices that match and take it")] = False,
    plant: Annotated[str, typer.Option(help="with --fleet: of this plant only, by its id")] = "",
    kind: Annotated[str, typer.Option(help="with --fleet: of this kind only, e.g. storage")] = "",
    devices_: Annotated[
        list[str] | None, typer.Option("--devices", help="with --fleet: serial numbers or patterns like 9010K*")
    ] = None,
    spread: Annotated[float, typer.Option(min=0, max=86_400, help="with --fleet: seconds to spread it over")] = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="with --fleet: don't ask")] = False,
) -> None:
    """Set a setpoint through the running gateway, and show each step."""
    loaded = _load(config)
    if fleet:
        if value is not None:
            _fail("with --fleet there is no SN: send CONFIG --fleet SETPOINT VALUE", EXIT_CONFIG)
        request = SendFleet(
            setpoint=serial,
            value=setpoint,
            user=getpass.getuser(),
            plant=plant,
            kind=kind,
            devices=tuple(devices_ or ["*"]),
            ttl=ttl,
            spread=spread,
            revert_after=revert_after,
            revert_value=revert_value,
        )
        _send_fleet(loaded, request, wait=wait, yes=yes)
        return
    if value is None:
        _fail("send CONFIG SN SETPOINT VALUE, or send CONFIG --fleet SETPOINT VALUE", EXIT_CONFIG)
    if plant or kind or devices_ or spread or yes:
        _fail("--plant, --kind, --devices, --spread and --yes go with --fleet", EXIT_CONFIG)
    try:
        last = _run(
            _send(
                loaded,
                Send(
                    serial=serial,
                    setpoint=setpoint,
                    value=value,
                    user=getpass.getuser(),
                    ttl=ttl,
                    revert_after=revert_after,
                    revert_value=revert_value,
                ),
                wait=wait,
            )
        )
    except NotRunningError as error:
        _fail(str(error))
    if last is None or last.state not in (CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED):
        raise typer.Exit(EXIT_FAILED)


def _send_fleet(config: Config, request: SendFleet, *, wait: bool, yes: bool) -> None:
    try:
        wanted = _run(fleet_command.plan_fleet(config, request))
        fleet_command.show_plan(wanted, request, out)
        if not yes and not sys.stdin.isatty():
            _fail("nobody can be asked here; add --yes", EXIT_CONFIG)
        if not yes and not typer.confirm("Send it?"):
            out.print("nothing was sent")
            raise typer.Exit(EXIT_FAILED)
        ending = _run(fleet_command.carry_out(config, request, wanted, out, wait=wait))
    except fleet_command.FleetRefusedError as error:
        _fail(str(error), EXIT_CONFIG)
    except NotRunningError as error:
        _fail(str(error))
    if ending:
        raise typer.Exit(ending)


@app.command()
def explain(
    config: ConfigFile,
    serial: Annotated[str, typer.Argument(metavar="SN", help="serial number of the device")],
    setpoint: Annotated[str, typer.Argument(metavar="SETPOINT", help="e.g. active_power_limit")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="in the setpoint's unit")],
    as_: Annotated[
        str | None, typer.Option("--as", metavar="ORIGIN", help="bridge or bridge/role; default: cli, this terminal")
    ] = None,
    revert_after: Annotated[float | None, typer.Option(help="dead-man's timer, seconds")] = None,
    revert_value: Annotated[str | None, typer.Option(help="what to go back to then")] = None,
    format_: Annotated[ExplainFormat, typer.Option("--format", "-f", help="how to print it")] = ExplainFormat.TABLE,
) -> None:
    """Say what would become of a command and which rule decides; nothing is sent. Exits with 1 where it is refused."""
    loaded = _load(config)
    who = as_ or f"{CLI_BRIDGE}:{getpass.getuser()}"
    if wrong := loaded.unknown_origin(who):
        _fail(f"--as {who}: {wrong}", EXIT_CONFIG)
    configure(LogSettings(level="error"))
    try:
        found = _run(control.explain(loaded, Explain(serial, setpoint, value, who, revert_after, revert_value)))
    except control.ControlError as error:
        _fail(str(error))
    if not found.running:
        err.print("No gateway runs with this configuration; asked SEMS, and nothing counts as commanded of late.")
    where = show_explain.place(found, loaded.root.control.allow, loaded.rule_lines)
    if format_ is ExplainFormat.JSON:
        sys.stdout.write(show_explain.render(found, where))
    else:
        show_explain.show(out, found, where, str(config))
    if found.verdict.refusal is not None:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def halt(
    config: ConfigFile,
    reason: Annotated[str, typer.Option(help="why, for those who find it halted")] = "",
) -> None:
    """Stop all control: no new command is taken, none that waits leaves; dead-man's timers go on. Outlives restarts."""
    _control(control.halt(_load(config), getpass.getuser(), reason))


@app.command()
def resume(config: ConfigFile) -> None:
    """Let commands in again after a halt."""
    _control(control.resume(_load(config), getpass.getuser()))


def _control(work: Coroutine[Any, Any, tuple[Halt | None, bool]]) -> None:
    configure(LogSettings(level="error"))
    try:
        halted, running = _run(work)
    except (control.ControlError, DataDirError) as error:
        _fail(str(error))
    now = "" if running else "; no gateway runs, the next start finds it so"
    out.print(f"control is {in_words(halted)}{now}" if halted else f"control is not halted{now}", markup=False)


@app.command()
def interfaces(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="show the overrides in force there")] = None,
    form: Annotated[str | None, typer.Option(help="plant, device, remote control or data logger")] = None,
    name: Annotated[str | None, typer.Option(help="show the fields of this interface")] = None,
    api: Annotated[Api | None, typer.Option(help="which API; default: open_api, or those of CONFIG")] = None,
    format_: Annotated[
        InterfaceFormat, typer.Option("--format", "-f", help="how to print them")
    ] = InterfaceFormat.TABLE,
) -> None:
    """Print the interfaces of SEMS, their fields, and how far each line can be relied on."""
    catalogues = [load(api or Api.OPEN_API)] if config is None else _catalogues(_load(config), api)
    if not catalogues:
        _fail(f"{config} has no bridge that speaks to SEMS{f' over {api}' if api else ''}", EXIT_CONFIG)
    for catalogue in catalogues:
        if form is not None and form not in show_interfaces.forms(catalogue):
            _fail(f"there is no form {form!r}; {nearest(form, show_interfaces.forms(catalogue))}", EXIT_CONFIG)
        listed = show_interfaces.chosen(catalogue, form)
        named = next((interface for interface in listed if interface.name == name), None)
        if name is not None and named is None:
            _fail(f"there is no interface {name!r}; {nearest(name, [i.name for i in listed])}", EXIT_CONFIG)
        if format_ is InterfaceFormat.TABLE and named is None:
            show_interfaces.show(out, catalogue, listed)
        elif format_ is InterfaceFormat.TABLE and named is not None:
            show_interfaces.show_fields(out, catalogue, named)
        elif named is None:
            sys.stdout.write(show_interfaces.render(format_, catalogue, listed))
        else:
            sys.stdout.write(show_interfaces.render_fields(format_, named))


def _catalogues(config: Config, api: str | None) -> list[Catalogue]:
    """Return those of the bridges that have one, with the overrides in them."""
    found = [getattr(bridge.settings, "catalogue", None) for bridge in config.bridges]
    return [one for one in found if isinstance(one, Catalogue) and api in (None, one.api)]


@app.command()
def history(
    config: ConfigFile,
    serial: Annotated[str, typer.Argument(metavar="SN", help="serial number of the device, or id of the plant")],
    start: Annotated[str, typer.Option("--from", help="local date of the plant, or RFC 3339 time")],
    end: Annotated[str, typer.Option("--to", help="the same; a date is included, a time is not")],
    path: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="where to write it")],
    format_: Annotated[
        HistoryFormat | None, typer.Option("--format", "-f", help="default: by FILE's name, else csv")
    ] = None,
    step: Annotated[Resolution, typer.Option(help="how far the samples are apart")] = Resolution.MINUTES,
    force: Annotated[bool, typer.Option("--force", help="overwrite FILE, or what is there of it")] = False,
) -> None:
    """Write a device's past into a file, within the call budget; the same command goes on where it was stopped."""
    loaded = _load(config)
    wanted = {"serial": serial, "from": start, "to": end, "step": step.value}
    file = HistoryFile(path, format_ or HistoryFormat.of(path), wanted)
    try:
        file.open(force=force)
        request = History(serial, start, end, step, since=file.progress.until)
        _run(export_history(loaded, request, file, err))
        out.print(f"{path}: {file.progress.samples} samples")
    except (HistoryRefusedError, FileInTheWayError) as error:
        _fail(str(error), EXIT_CONFIG)
    except (HistoryFailedError, DataDirError) as error:
        _fail(f"{error}{_kept(file)}")
    except KeyboardInterrupt:
        _fail(f"stopped{_kept(file)}", EXIT_INTERRUPTED)
    finally:
        file.close()


def _kept(file: HistoryFile) -> str:
    pages = file.progress.pages
    return f"; {pages} pages are in {file.part}, and the same command goes on from there" if pages else ""


@app.command()
def audit(
    config: ConfigFile,
    since: Annotated[str, typer.Option(help="date or RFC 3339 time, UTC; or 30m, 24h, 7d ago")] = "",
    until: Annotated[str, typer.Option(help="the same; up to before it")] = "",
    device: Annotated[str, typer.Option(help="serial number or pattern")] = "*",
    origin: Annotated[str, typer.Option(help="bridge, bridge/role, or a pattern of both with the address")] = "*",
    format_: Annotated[AuditFormat, typer.Option("--format", "-f", help="how to print it")] = AuditFormat.TABLE,
    verify: Annotated[bool, typer.Option("--verify", help="print only whether it is whole")] = False,
    noted: Annotated[str, typer.Option(metavar="HEAD", help="a head printed earlier, which must be in it")] = "",
) -> None:
    """Print who commanded what and what became of it, and prove that nothing of it was changed or removed."""
    loaded = _load(config)
    try:
        start, end = (show_audit.moment(text, SystemClock().now()) if text else None for text in (since, until))
    except ValueError as error:
        _fail(str(error), EXIT_CONFIG)
    wanted = show_audit.Wanted(start, end, device, origin)
    try:
        with AuditReader(loaded.data_dir / JOURNAL) as reader:
            rows = (row for row in reader.walk(noted) if not verify and wanted.has(row))
            if verify:
                deque(rows, 0)
            else:
                show_audit.show(out, rows, format_)
    except JournalError as error:
        _fail(str(error))
    (out if verify else err).print(show_audit.verdict(reader), markup=False)
    for line in show_audit.breaks(reader):
        err.print(line, style="red", markup=False)
    if reader.breaks:
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
    plants: Annotated[int, typer.Option(min=1, max=100_000, help="how many plants there are")] = 3,
    devices_per_plant: Annotated[int, typer.Option(min=1, max=1_000, help="of those beyond the first three")] = 4,
    push_to: Annotated[str, typer.Option(help="address to push all that is measured to; default: nowhere")] = "",
    push_interval: Annotated[float, typer.Option(min=1, max=86_400, help="seconds between pushes")] = 300,
    telemetry_to: Annotated[str, typer.Option(help="the same into a topic, kafka://HOST:PORT/TOPIC")] = "",
) -> None:
    """Run a SEMS cloud to test against, with both generations of the Open API and plants that obey."""
    from gateway.simulator.command import simulate_until_signal  # noqa: PLC0415 - only this command needs it
    from gateway.simulator.settings import SimulatorSettings  # noqa: PLC0415

    if push_to and not push_to.startswith(("http://", "https://")):
        _fail("--push-to takes an address, http://… or https://…", EXIT_CONFIG)
    if telemetry_to and not re.fullmatch(r"kafka://[^/]+:\d+/[A-Za-z0-9._-]+", telemetry_to):
        _fail("--telemetry-to takes a topic, kafka://HOST:PORT/TOPIC", EXIT_CONFIG)
    try:
        settings = SimulatorSettings(
            host=host,
            port=port,
            speed=speed,
            seed=seed,
            start=start,
            plants=plants,
            devices_per_plant=devices_per_plant,
            calls_per_hour=calls_per_hour,
            developer_calls_per_hour=calls_per_hour,
            supplier_calls_per_hour=calls_per_hour,
            push_url=push_to,
            push_interval=push_interval,
            telemetry_url=telemetry_to,
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


def _known(config: Config) -> Inventory:
    """Return what the running gateway knows, or else what SEMS says now."""
    try:
        return _run(_inventory(config))
    except NotRunningError:
        configure(LogSettings(level="error"))
        err.print("No gateway runs with this configuration; asking SEMS.")
        return _run(_discovered(config))


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
