"""`sems-gateway plan`: which interfaces an hour's calls go to, and how old data get."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from math import ceil
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.bridges.open_api import OpenApiSettings
from gateway.bridges.open_api.gaps.estimate import estimate, types
from gateway.bridges.open_api.planner import plan as plan_of
from gateway.bridges.realtime import RealtimeSettings
from gateway.bridges.realtime.plan import plan as realtime_plan
from gateway.cli.config import ConfigFile, load, target_of
from gateway.cli.known import known
from gateway.cli.output import EXIT_CONFIG, EXIT_FAILED, fail, out
from gateway.core.clock import SystemClock
from gateway.core.model import Device, DeviceKind, DeviceState
from gateway.journal import audit
from gateway.journal.chain import AuditReader
from gateway.journal.file import JOURNAL, JournalError
from gateway.run.settings import Config
from gateway.sems.budget import HOUR, MAX_POLLING_SHARE, Budget, Priority
from gateway.sems.plan import Plan, PollIntervals, Role
from gateway.sems.plants import PLANT, Target
from gateway.steering.fleet.services import measured, verdicts
from gateway.steering.fleet.settings import FleetSettings

UTC: Final = ZoneInfo("UTC")
MINUTE: Final = 60
OUTAGES: Final = (1, 6, 24)
"""Hours, as examples."""
MEASURED: Final = timedelta(days=7)
"""What a fleet did before says little of now."""
WHY: Final = {Role.LIVE: "", Role.SIDE: "changes slowly", Role.DETAIL: "in detail, between the lists"}


def targets_of(states: Iterable[DeviceState], bridge: str, bridges: Sequence[str]) -> list[Target]:
    """Return the plants and devices that a bridge reads; `bridges` are all that could."""
    return [
        _target(state.device)
        for state in states
        if state.device.kind is not DeviceKind.FLEET and (state.source == bridge or state.source not in bridges)
    ]


def imagined(devices: int, plants: int) -> list[Target]:
    """Return that many inverters, spread over that many plants."""
    homes = [_target(Device(serial=f"plant {n}", kind=DeviceKind.PLANT)) for n in range(plants)]
    return homes + [
        _target(Device(serial=f"inverter {n}", kind=DeviceKind.INVERTER, plant=f"plant {n % plants}"))
        for n in range(devices)
    ]


def show(console: Console, bridge: str, settings: OpenApiSettings, targets: Sequence[Target]) -> None:
    """Print the plan of one bridge."""
    budget = Budget(settings.calls, SystemClock())
    intervals = PollIntervals(settings.poll_interval, settings.pushed_poll_interval, settings.discovery_interval)
    made = plan_of(targets, settings.catalogue, budget.for_polling, intervals)
    plants = sum(target.type == PLANT for target in targets)
    console.print(
        f"[bold]{escape(bridge)}[/]: {_many(len(targets) - plants, 'device')} in {_many(plants, 'plant')}, "
        f"{settings.calls} calls an hour"
    )  # fmt: skip
    console.print(_table(made))
    for line in sentences(made, budget):
        console.print(line)
    for line in filling(made, budget, settings, targets):
        console.print(line)


def filling(made: Plan, budget: Budget, settings: OpenApiSettings, targets: Sequence[Target]) -> list[str]:
    """Return how long it takes to read again what an outage left out, in words."""
    catalogue, within = settings.catalogue, settings.fill_gaps_within
    if not any(target.type in types(catalogue) for target in targets):
        return ["What is missed while SEMS or the gateway is away stays missing: SEMS keeps no minutes of these."]
    if not within:
        return ["What is missed while SEMS or the gateway is away stays missing: fill_gaps_within is 0."]
    times = []
    for hours in OUTAGES:
        found = estimate(targets, catalogue, hours * HOUR, for_history(made, budget))
        times.append(f"{hours} h in {duration(found.seconds)} ({_many(found.calls, 'call')})")
        if found.seconds + hours * HOUR > within:
            times[-1] += f", of which what is older than {duration(within)} by then is given up"
    return [f"Where a sink keeps history, what was missed is read again: {'; '.join(times)}."]


def _table(made: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("interface")
    for title in ("calls a round", "every", "calls an hour", "reaches"):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in made.rows:
        why = "; ".join(part for part in (WHY[row.role], "pushed" if row.pushed else "") if part)
        table.add_row(
            row.interface, str(row.calls), duration(row.interval), f"{row.per_hour:.1f}", str(row.reaches),
            f"{row.type.replace('_', ' ')}{f' ({why})' if why else ''}",
        )  # fmt: skip
    look = f"{made.discovery_per_hour:.1f}"
    table.add_row("discovery", str(made.discovery_calls), duration(made.discovery_interval), look, "", "new devices")
    table.add_row("login", "1", "", f"{made.logins:.1f}", "", "kept for it")
    table.add_row("at once", "", "", str(made.soon), "", "kept for alarms of a new fault, and reading back")
    table.add_section()
    table.add_row("[bold]sum[/]", "", "", f"[bold]{made.per_hour:.1f}[/]", "", f"of {made.limit:g} that may be planned")
    return table


def show_realtime(
    console: Console, bridge: str, settings: RealtimeSettings, states: Iterable[DeviceState], inverters: int | None
) -> None:
    """Print the plan of a Real-Time Data bridge: for its numbers, or for so many inverters."""
    budget = Budget(settings.calls, SystemClock())
    numbers: dict[str, list[str]] = {}
    if inverters is not None:
        numbers["inverter"] = [f"inverter {n}" for n in range(inverters)]
    else:
        listed, known = settings.whitelist, {s.device.serial: s for s in states}
        for serial in known if listed.everything else listed.numbers:
            state = known.get(serial)
            if not listed.everything or (state is not None and state.source == bridge):
                type_ = settings.types.get(serial) or (str(state.device.kind) if state else "inverter")
                numbers.setdefault(type_, []).append(serial)
    catalogue = settings.catalogue
    made = realtime_plan(numbers, catalogue, budget.for_polling, settings.poll_interval, settings.list_interval)
    console.print(
        f"[bold]{escape(bridge)}[/]: {_many(sum(map(len, numbers.values())), 'number')}, {settings.calls} calls an hour"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("data type")
    for title in ("calls a round", "every", "calls an hour", "numbers"):
        table.add_column(title, justify="right")
    for row in made.rows:
        per_hour = f"{row.per_hour:.1f}"
        table.add_row(row.interface, str(row.calls), duration(row.interval), per_hour, str(row.reaches))
    if made.discovery_calls:
        every, per_hour = duration(made.discovery_interval), f"{made.discovery_per_hour:.1f}"
        table.add_row("list", str(made.discovery_calls), every, per_hour)
    table.add_row("login", "1", "", f"{made.logins:.1f}")
    table.add_row("out of turn", "", "", str(made.soon))
    table.add_section()
    table.add_row("[bold]sum[/]", "", "", f"[bold]{made.per_hour:.1f}[/]", f"of {made.limit:g} that may be planned")
    console.print(table)
    console.print(
        f"A device's data are at most {duration(made.interval)} old, and what its logger takes to upload them."
    )


def for_history(made: Plan, budget: Budget) -> int:
    """Return how many calls an hour a plan leaves to history."""
    budget.plan("plan", made.per_hour)
    return budget.most(Priority.HISTORY)


def sentences(made: Plan, budget: Budget) -> list[str]:
    """Return what a person wants to know of a plan, in words."""
    control = _for_control(budget)
    history = for_history(made, budget)
    lines = [
        f"Of {budget.per_hour} calls an hour {control} are kept for control, and {history} are left to history.",
        f"A device's data are at most {duration(made.oldest)} old, and what its logger takes to upload them.",
    ]
    if made.detail_interval:
        lines.append(
            "Plants' lists stand in for devices' own interfaces; what those alone tell (strings, phases, setpoints) "
            f"is at most {duration(made.detail_interval)} old."
        )
    if made.unreached:
        lines.append(f"Nothing reads: {', '.join(sorted(made.unreached))}.")
    return lines


def duration(seconds: float) -> str:
    """Return a time as one says it: `60 s`, `8 min 12 s`, `3 h 36 min`, `4 d 2 h`."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.3g} s"
    units = (("d", 24 * HOUR), ("h", HOUR), ("min", float(MINUTE)), ("s", 1.0))
    whole = float(ceil(seconds))
    for (name, size), (below, smaller) in pairwise(units):
        if whole >= size:
            most, rest = divmod(whole, size)
            part = int(rest / smaller)
            return f"{most:.0f} {name}" + (f" {part} {below}" if part else "")
    raise AssertionError(seconds)


def show_fleet(config: Config, fleet: str, states: Sequence[DeviceState]) -> None:
    """Print what was measured of a fleet in the last days, and which services that is good enough for."""
    settings = next((b.settings for b in config.bridges if b.name == fleet), None)
    if not isinstance(settings, FleetSettings):
        fail(f"there is no {fleet} under fleets: in {config.file}", EXIT_CONFIG)
    own = next((state.values for state in states if state.device.serial == fleet), {})
    age, count = (own.get(point) for point in ("data_age_p95", "members"))
    members = int(count) if isinstance(count, (int, float)) else 0
    since = audit.stamp(SystemClock().now() - MEASURED)
    try:
        with AuditReader(config.data_dir / JOURNAL) as reader:
            rows = (row for row in reader.walk() if row.time >= since)
            found = measured(fleet, rows, float(age) if isinstance(age, (int, float)) else None)
    except JournalError as error:
        fail(str(error))
    budgets = [
        Budget(b.settings.calls, SystemClock()) for b in config.bridges if isinstance(b.settings, OpenApiSettings)
    ]
    calls = sum(_for_control(budget) for budget in budgets) if budgets else None
    out.print(
        f"[bold]{escape(fleet)}[/]: {_many(members, 'member')}; "
        f"in {MEASURED.days} days {_many(found.targets, 'target')}, {found.held} of them held"
    )
    for words, value in (
        ("to hold", found.hold),
        ("to the end of a command to a member", found.member),
        ("age of the data", found.data_age),
    ):
        out.print(f"  {words}: {'not measured' if value is None else f'{value:.0f} s'}, for 95 %")
    limit = "as many as you like" if calls is None else f"{calls} calls an hour"
    out.print(f"  commands to members by a target: {found.told:.0f}, for 95 %; for control there are {limit}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for each in verdicts(found, members, settings.writes_per_day, calls):
        word = {True: "[green]yes[/]", False: "[red]no[/]", None: "unknown"}[each.able]
        table.add_row(each.service.name, word, escape(each.why))
    out.print(table)


def _for_control(budget: Budget) -> int:
    return ceil(budget.per_hour * (1 - MAX_POLLING_SHARE))


def _target(device: Device) -> Target:
    """Return the device as the planner takes it. Of data loggers, those that take limits are SEC1000."""
    if device.kind is DeviceKind.DATA_LOGGER:
        return Target(device, "sec1000" if device.setpoints else "homekit", UTC)
    return Target(device, str(device.kind), UTC)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def plan(
    config: ConfigFile,
    devices_: Annotated[
        int | None, typer.Option("--devices", min=1, max=100_000, help="what if there were so many inverters")
    ] = None,
    plants: Annotated[int | None, typer.Option(min=1, max=100_000, help="in so many plants")] = None,
    fleet: Annotated[
        str, typer.Option(metavar="FLEET", help="which services fleet:NAME can serve, by what was measured of it")
    ] = "",
) -> None:
    """`sems-gateway plan`."""
    loaded = load(config)
    if fleet:
        show_fleet(loaded, fleet, known(target_of(config, None)).states)
        return
    bridges = {b.name: b.settings for b in loaded.bridges if isinstance(b.settings, OpenApiSettings)}
    suppliers = {b.name: b.settings for b in loaded.bridges if isinstance(b.settings, RealtimeSettings)}
    if not bridges and not suppliers:
        fail(f"{config} has no bridge of type open_api or realtime; add one, see config.example.yaml", EXIT_CONFIG)
    what_if = devices_ is not None or plants is not None
    states = [] if what_if else known(target_of(config, None)).states
    for name, settings in bridges.items():
        made_up = imagined(1 if devices_ is None else devices_, plants or 1)
        show(out, name, settings, made_up if what_if else targets_of(states, name, list(bridges)))
    for name, supplier in suppliers.items():
        show_realtime(out, name, supplier, states, (devices_ or 1) if what_if else None)
    if not what_if and not states:
        raise typer.Exit(EXIT_FAILED)
