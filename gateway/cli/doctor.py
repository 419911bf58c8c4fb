"""`sems-gateway doctor`: how the running gateway does, what it doubts of its data, and what to do about it."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.console import Console

from gateway.bridges.local import HungUpError, NotRunningError
from gateway.bridges.local.protocol import Examine, Examined
from gateway.cli.config import DataDir, MaybeConfig, target_of
from gateway.cli.known import discovered
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import EXIT_FAILED, in_json, out
from gateway.cli.running import first_reply
from gateway.cli.target import NoConfigError, Target
from gateway.commands.policy.halt import in_words
from gateway.config.document import ConfigError
from gateway.core.balance import BATTERY, GRID, Sheet, Sign
from gateway.core.findings import Finding, FindingCode
from gateway.core.model import BridgeStatus, Device, DeviceKind, Quality, iso
from gateway.core.probe import Mark
from gateway.terminal.console import write

if TYPE_CHECKING:
    from gateway.run.settings import Config

ANSWER_WITHIN: Final = 10.0
"""Seconds that a running gateway has to answer."""
PLANTS: Final = 20
"""Plants past which those with nothing to say of are left out on a terminal."""
SIGNS: Final = {
    Sign.FITS: "seen both ways, its sign fits",
    Sign.UNSEEN: "not seen both ways yet",
    Sign.DOUBTFUL: "its sign is doubtful",
}
FOUND_ZONES: Final = {
    FindingCode.ZONE_INFERRED: "found out from its times",
    FindingCode.ZONE_UNKNOWN: "a guess: nothing says which",
}
CODES: Final = frozenset(FindingCode)
STYLE: Final = {Mark.WELL: "green", Mark.NOTE: "yellow", Mark.WRONG: "red"}


class Line(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    mark: Mark
    about: str
    """Stable, for programs: gateway, configuration, bridge, journal, control, devices, balance, zone, or the code of a
    finding."""
    subject: str
    """The bridge, plant or device; "" for the gateway as a whole."""
    text: str
    remedy: str = ""
    """What to do, e.g. lines for the configuration."""


async def examine(target: Target) -> list[Line]:
    """Ask the running gateway; where none runs, look at all that it would need, and at what the account has."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reply = await first_reply(target, Examine())
        if isinstance(reply, Examined):
            return [*_lines(reply), *_warnings(target)]
        missing = "the gateway that runs is another version; run the `sems-gateway` that it was started with"
    except TimeoutError:
        missing = f"a gateway runs with data_dir {target.data_dir}, but it does not answer; see its log"
    except HungUpError as error:
        missing = str(error)
    except NotRunningError as error:
        return await _before_it_runs(target, str(error))
    return [Line(Mark.WRONG, "gateway", "", missing)]


def show(console: Console, lines: Sequence[Line], *, summary: bool = True) -> None:
    """Print them: what is wrong with what to do about it, and of many plants no more than those."""
    plants = sum(line.about == "balance" for line in lines)
    for line, others in _alike(lines):
        if plants > PLANTS and line.mark is Mark.WELL and line.about in ("balance", "zone"):
            continue
        subject = f"{line.subject}: " if line.subject else ""
        console.print(f"{line.mark} {subject}{line.text}", style=STYLE[line.mark], markup=False)
        for row in line.remedy.splitlines():
            console.print(f"    {row}", markup=False)
        if others:
            console.print(f"    the same of {', '.join(others)}", markup=False)
    if not summary:
        return
    counts = {mark: sum(line.mark is mark for line in lines) for mark in Mark}
    console.print(
        f"{counts[Mark.WELL]} well, {counts[Mark.NOTE]} to know, {counts[Mark.WRONG]} wrong", style="bold", markup=False
    )


def _alike(lines: Sequence[Line]) -> Iterator[tuple[Line, list[str]]]:
    """Give each line, with the other interfaces or devices of which the same bridge finds the same."""
    said: dict[tuple[str, ...], tuple[Line, list[str]]] = {}
    for number, line in enumerate(lines):
        bridge, _, about = line.subject.rpartition(", ")
        finding = line.about in CODES and bridge
        words = (line.text.partition(" (")[0].replace(about, "…"), line.remedy.replace(about, "…"))
        first, others = said.setdefault((line.about, bridge, *words) if finding else (str(number),), (line, []))
        if first is not line:
            others.append(about)
    return iter(said.values())


def render(lines: Sequence[Line]) -> str:
    """Return all of them as JSON."""
    names = {Mark.WELL: "well", Mark.NOTE: "note", Mark.WRONG: "wrong"}
    found = [msgspec.structs.asdict(line) | {"mark": names[line.mark]} for line in lines]
    return in_json({"well": not wrong(lines), "lines": found})


def wrong(lines: Sequence[Line]) -> bool:
    """Return whether something is wrong."""
    return any(line.mark is Mark.WRONG for line in lines)


async def _before_it_runs(target: Target, missing: str) -> list[Line]:
    try:
        config = target.config()
    except ConfigError as error:
        return [Line(Mark.WRONG, "configuration", "", line) for line in error.lines()]
    except NoConfigError:
        return [Line(Mark.WRONG, "gateway", "", missing)]
    bridges = ", ".join(f"{bridge.name} ({bridge.type})" for bridge in config.bridges)
    lines = [
        Line(Mark.NOTE, "gateway", "", "no gateway runs with this configuration", f"sems-gateway run {target.file}"),
        Line(Mark.WELL, "configuration", "", f"{target.file} is in order: {bridges}"),
        *(Line(Mark.NOTE, "configuration", "", warning) for warning in config.warnings()),
    ]
    from gateway.run.preflight import looked_at  # noqa: PLC0415 - a whole gateway, see `discovered`

    async for bridge, probe in looked_at(config):
        lines.append(Line(probe.mark, probe.about, bridge, probe.text, probe.remedy))
    if any(line.mark is Mark.WRONG and line.about in ("dns", "connection", "tls", "clock") for line in lines):
        return [*lines, Line(Mark.NOTE, "devices", "", "devices were not looked for: a cloud is not as it should be")]
    return [*lines, *await _found(config)]


def _warnings(target: Target) -> Iterator[Line]:
    """Yield what `check` would say of the file. A gateway that runs may have read another: nothing is wrong."""
    try:
        config = target.config()
    except NoConfigError:
        return
    except ConfigError as error:
        remedy = "the gateway goes on with what it had; put it right before the next start"
        yield from (Line(Mark.NOTE, "configuration", "", line, remedy) for line in error.lines())
        return
    yield from (Line(Mark.NOTE, "configuration", "", warning) for warning in config.warnings())


def _several(kind: DeviceKind) -> str:
    words = kind.replace("_", " ")
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


async def _found(config: "Config") -> list[Line]:
    """Log in, once, and say what the account has."""
    inventory = await discovered(config)
    kinds = Counter(state.device.kind for state in inventory.states)
    lines = [_bridge(status) for status in inventory.bridges]
    if kinds:
        text = ", ".join(
            f"{count} {_several(kind) if count > 1 else kind.replace('_', ' ')}"
            for kind, count in sorted(kinds.items())
        )
        lines.append(Line(Mark.WELL, "devices", "", f"found: {text}"))
    elif inventory.bridges:
        lines.append(Line(Mark.WRONG, "devices", "", "no plant and no device was found"))
    return lines + [_finding(status, each) for status in inventory.bridges for each in status.findings]


def _lines(found: Examined) -> Iterator[Line]:
    yield Line(Mark.WELL, "gateway", "", "a gateway runs and answers")
    yield from map(_bridge, found.bridges)
    if found.journal_trouble:
        yield Line(Mark.WRONG, "journal", "", f"no command is taken: {found.journal_trouble}")
    else:
        yield Line(Mark.WELL, "journal", "", "the journal can be written")
    if found.halted is not None:
        yield Line(Mark.NOTE, "control", "", f"control is {in_words(found.halted)}", "sems-gateway resume CONFIG")
    yield _devices(found.quality)
    for bridge in found.bridges:
        yield from (_finding(bridge, each) for each in bridge.findings)
    names = {plant.serial: plant.name for plant in found.plants}
    yield from (_balance(sheet, names.get(sheet.plant, "")) for sheet in found.sheets)
    findings = (each for bridge in found.bridges for each in bridge.findings)
    zones = {each.subject: each.code for each in findings if each.code in FOUND_ZONES}
    yield from (_zone(plant, zones.get(plant.serial)) for plant in found.plants)


def _bridge(status: BridgeStatus) -> Line:
    since = f"since {iso(status.since)}"
    if not status.up:
        return Line(Mark.WRONG, "bridge", status.name, f"{status.type} is down {since}: {status.detail}")
    detail = f": {status.detail}" if status.detail else ""
    return Line(Mark.NOTE if detail else Mark.WELL, "bridge", status.name, f"{status.type} is up {since}{detail}")


def _devices(quality: Mapping[str, int]) -> Line:
    total = sum(quality.values())
    if not total:
        return Line(Mark.WRONG, "devices", "", "no plant and no device is known")
    bad = {name: count for name, count in quality.items() if name != Quality.GOOD and count}
    text = f"{total} plants and devices" + "".join(f", {count} {name}" for name, count in bad.items())
    mark = Mark.WELL if not bad else Mark.NOTE if quality.get(Quality.GOOD) else Mark.WRONG
    return Line(mark, "devices", "", text)


def _finding(bridge: BridgeStatus, each: Finding) -> Line:
    subject = f"{bridge.name}, {each.subject}" if each.subject else bridge.name
    mark = Mark.WRONG if each.is_trouble else Mark.NOTE
    return Line(mark, each.code, subject, f"{each.text} ({each.code}, since {iso(each.since)})", each.remedy)


def _balance(sheet: Sheet, name: str) -> Line:
    """Return how pv + battery + grid = load came out. A sign that is doubtful is a finding besides, with its remedy."""
    terms = {"pv": sheet.pv, "battery": sheet.battery, "grid": sheet.grid, "load": sheet.load, "rest": sheet.rest}
    shown = ", ".join(f"{term} {watts / 1000:.2f} kW" for term, watts in terms.items() if watts is not None)
    words = {GRID: "grid", BATTERY: "battery"}
    signs = "; ".join(f"{words[point]} {SIGNS[sign]}" for point, sign in sheet.signs.items())
    doubtful = Sign.DOUBTFUL in sheet.signs.values()
    balanced = "" if sheet.balanced else ": pv + battery + grid = load does not come out"
    mark = Mark.WRONG if doubtful else Mark.WELL if sheet.balanced else Mark.NOTE
    of = name or sheet.plant
    who = of if sheet.serial == sheet.plant else f"{of}, {sheet.serial}"
    return Line(
        mark, "balance", who, f"{shown}{balanced}; {signs} ({sheet.where} of {sheet.source}, {iso(sheet.time)})"
    )


def _zone(plant: Device, found: FindingCode | None) -> Line:
    name = plant.name or plant.serial
    if not plant.time_zone or found is FindingCode.ZONE_UNKNOWN:
        remedy = "time_zone: Area/City    # at the bridge that finds the plant"
        return Line(Mark.NOTE, "zone", name, f"its time zone is not known{_guessed(plant)}", remedy)
    how = FOUND_ZONES[found] if found is not None else "as the plant or the configuration says"
    return Line(Mark.WELL, "zone", name, f"time zone {plant.time_zone}, {how}")


def _guessed(plant: Device) -> str:
    return f"; taken for {plant.time_zone}" if plant.time_zone else ""


def doctor(
    config: MaybeConfig = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="all of it as JSON, for a report or a program")] = False,
) -> None:
    """`sems-gateway doctor`."""
    target = target_of(config, data_dir)
    log_errors_only()
    lines = run_on_loop(examine(target))
    if as_json:
        write(render(lines))
    else:
        show(out, lines)
    if wrong(lines):
        raise typer.Exit(EXIT_FAILED)
