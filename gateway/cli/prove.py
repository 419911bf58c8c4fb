"""`sems-gateway prove`: what a fleet was told and gave, in one file, and whether such a file is as the audit has it."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from gateway.bridges.local import HungUpError, LocalClient, NotRunningError
from gateway.bridges.local.history import answer
from gateway.bridges.local.protocol import Failed, History, HistoryPage, HistoryWait, Inventory, Refused, Reply
from gateway.cli.audit import moment
from gateway.cli.config import ConfigFile, load, target_of
from gateway.cli.known import known
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import EXIT_CONFIG, EXIT_FAILED, err, fail, in_json, out
from gateway.cli.running import inventory_of
from gateway.cli.target import Target
from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.clock import SystemClock
from gateway.core.model import DeviceKind, Sample, iso
from gateway.journal import proof
from gateway.journal.chain import AuditReader
from gateway.journal.file import JOURNAL, JournalError
from gateway.journal.proof import MINUTE, PREFIX, Proof
from gateway.run.app import Gateway
from gateway.run.settings import CLI_BRIDGE, Config
from gateway.steering.fleet.record import Given, recorded
from gateway.steering.fleet.settings import FleetSettings

Ask = Callable[[History], AsyncGenerator[Reply, None]]
ENOUGH: Final = 0.9
"""Of the members: as many have to be known in each minute, else the cloud is asked what it has of all."""
LONGEST: Final = timedelta(days=31)


def members_of(config: Config, fleet: str, inventory: Inventory) -> list[str]:
    """Return the serial numbers of a fleet's members. Ends the command where there is no such fleet."""
    settings = next((b.settings for b in config.bridges if b.name == fleet), None)
    if not isinstance(settings, FleetSettings):
        there = ", ".join(b.name for b in config.bridges if b.name.startswith(PREFIX)) or "none"
        fail(f"there is no {fleet} under fleets: in {config.file}; known here: {there}", EXIT_CONFIG)
    devices = [state.device for state in inventory.states]
    names = {device.serial: device.name for device in devices if device.kind is DeviceKind.PLANT}
    return sorted(d.serial for d in devices if settings.members.names(d, names.get(d.plant, "")))


@asynccontextmanager
async def asking(target: Target, config: Config) -> AsyncGenerator[Ask, None]:
    """Give what asks for history: the running gateway, or else one that is there for that alone."""
    try:
        await inventory_of(target)
    except NotRunningError:
        log_errors_only()
        gateway = Gateway(config)
        async with gateway.telling():
            yield lambda request: answer(gateway.runners[CLI_BRIDGE], request)
        return
    yield LocalClient(target.data_dir).ask


async def powers_of(
    ask: Ask, serials: Iterable[str], start: datetime, end: datetime
) -> tuple[dict[str, list[tuple[datetime, float]]], dict[str, str]]:
    """Read each member's power from the cloud: serial number → samples, and → why there are none."""
    found: dict[str, list[tuple[datetime, float]]] = {}
    missing: dict[str, str] = {}
    for serial in serials:
        samples: list[tuple[datetime, float]] = []
        async with aclosing(ask(History(serial, iso(start), iso(end)))) as replies:
            async for reply in replies:
                match reply:
                    case HistoryPage(page):
                        samples += [(s.time, power) for s in page.samples if (power := _power(s)) is not None]
                    case HistoryWait(pause):
                        err.print(f"waiting until {iso(pause.until)}: {pause.reason}", markup=False)
                    case Refused(why) | Failed(why):
                        missing[serial] = why
                    case _:
                        pass
        found[serial] = sorted(samples)
        if not samples and serial not in missing:
            missing[serial] = "the cloud has nothing of this time"
    return found, missing


def _power(sample: Sample) -> float | None:
    """Return the power at the AC terminals, W; else PV and battery."""
    read = {point: sample.values.get(point) for point in ("ac_power", "pv_power", "battery_power")}
    numbers = {point: float(value) for point, value in read.items() if isinstance(value, (int, float))}
    if "ac_power" in numbers or "pv_power" not in numbers:
        return numbers.get("ac_power")
    return numbers["pv_power"] + numbers.get("battery_power", 0.0)


def prove(
    config: ConfigFile,
    fleet: Annotated[str, typer.Argument(metavar="[FLEET]", help="fleet:NAME; none with --check")] = "",
    start: Annotated[str, typer.Option("--from", help="date or RFC 3339 time, UTC; or 90s, 30m, 24h, 7d ago")] = "",
    end: Annotated[str, typer.Option("--to", help="the same; up to before it")] = "",
    path: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="where to write it")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="say whether it is as the audit has it")] = None,
) -> None:
    """`sems-gateway prove`."""
    loaded = load(config)
    if check is not None:
        _check(check, loaded)
        return
    if not (fleet and start and end and path):
        fail("prove CONFIG fleet:NAME --from TIME --to TIME --out FILE; or prove CONFIG --check FILE", EXIT_CONFIG)
    now = SystemClock().now()
    try:
        begins, ends = (moment(text, now).replace(second=0, microsecond=0) for text in (start, end))
    except ValueError as error:
        fail(str(error), EXIT_CONFIG)
    if not begins < ends <= now or ends - begins > LONGEST:
        fail(f"--from has to be before --to, which has to be past, {LONGEST.days} days apart at most", EXIT_CONFIG)
    if trouble := files.in_the_way(path):  # before a cloud is asked for hours
        fail(trouble, EXIT_CONFIG)
    target = target_of(config, None)
    members = members_of(loaded, fleet, known(target))

    async def read() -> tuple[dict[str, list[tuple[datetime, float]]], dict[str, str]]:
        async with asking(target, loaded) as ask:
            return await powers_of(ask, members, begins, ends)

    try:
        own = recorded(loaded.data_dir, fleet, begins, ends)
        has_gaps = any(_is_gap(own.get(n)) for n in range(int((ends - begins) / MINUTE)))
        powers, missing = run_on_loop(read()) if has_gaps else ({serial: [] for serial in members}, {})
        with AuditReader(loaded.data_dir / JOURNAL) as reader:
            rows = proof.gathered(reader, fleet, begins, ends)
            if reader.breaks:
                fail(f"the audit is broken, and proves nothing: {reader.breaks[0]}")
            kept = {n: (given.power, given.known) for n, given in own.items()}
            made = proof.made(fleet, begins, ends, str(reader.head), rows, kept, powers, missing)
    except (JournalError, OSError, HungUpError) as error:
        fail(str(error))
    try:
        path.write_text(in_json(made), "utf-8")
    except OSError as error:
        fail(files.why_not(path, error))
    minutes = int((ends - begins) / MINUTE)
    out.print(
        f"{path}: {len(made.targets)} commands, {len(made.members)} members, {minutes} minutes, "
        f"{made.completeness:.1%} of the power is known; head {made.head}",
        markup=False,
    )
    for serial, why in missing.items():
        err.print(f"no power of {serial}: {why}", markup=False)


def _is_gap(given: Given | None) -> bool:
    """Return whether the gateway knew little of a minute: then the cloud is asked."""
    return given is None or given.known < ENOUGH * given.members


def _check(file: Path, config: Config) -> None:
    try:
        text = file.read_bytes()
    except OSError as error:
        fail(files.why_not(file, error), EXIT_CONFIG)
    try:
        made = msgspec.json.decode(text, type=Proof)
        with AuditReader(config.data_dir / JOURNAL) as reader:
            found = proof.wrong(made, reader)
    except BAD_JSON as error:
        fail(f"{file} is no proof: {error}", EXIT_CONFIG)
    except (JournalError, OSError) as error:
        fail(str(error))
    for line in found:
        err.print(line, style="red", markup=False)
    if found:
        raise typer.Exit(EXIT_FAILED)
    rows = len(made.rows)
    out.print(f"{file} is as the audit has it: {rows} rows, head {made.head}; power does not stand in the audit")
