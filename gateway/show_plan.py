"""What `sems-gateway plan` prints: which interfaces an hour's calls go to, and how old data get."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil
from typing import Final
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.bridges.open_api import OpenApiSettings
from gateway.bridges.open_api.planner import Plan, Role, Wishes, plan
from gateway.bridges.realtime import RealtimeSettings
from gateway.bridges.realtime.plan import plan as realtime_plan
from gateway.core.clock import SystemClock
from gateway.core.model import Device, DeviceKind, DeviceState
from gateway.sems.budget import HISTORY_LEAST, HOUR, POLLING_MOST, Budget
from gateway.sems.plants import PLANT, Target

UTC: Final = ZoneInfo("UTC")
MINUTE: Final = 60
WHY: Final = {Role.LIVE: "", Role.SIDE: "changes slowly", Role.DETAIL: "in detail, between the lists"}


def targets_of(states: Iterable[DeviceState], bridge: str, bridges: Sequence[str]) -> list[Target]:
    """Return the plants and devices that a bridge reads; `bridges` are all that could."""
    return [
        _target(state.device)
        for state in states
        if state.device.kind is not DeviceKind.FLEET and (state.source == bridge or state.source not in bridges)
    ]


def made_up(devices: int, plants: int) -> list[Target]:
    """Return that many inverters, spread over that many plants."""
    homes = [_target(Device(serial=f"plant {n}", kind=DeviceKind.PLANT)) for n in range(plants)]
    return homes + [
        _target(Device(serial=f"inverter {n}", kind=DeviceKind.INVERTER, plant=f"plant {n % plants}"))
        for n in range(devices)
    ]


def show(console: Console, bridge: str, settings: OpenApiSettings, targets: Sequence[Target]) -> None:
    """Print the plan of one bridge."""
    budget = Budget(settings.calls, SystemClock())
    wishes = Wishes(settings.poll_interval, settings.pushed_poll_interval, settings.discovery_interval)
    made = plan(targets, settings.catalogue, budget.for_polling, wishes)
    plants = sum(target.type == PLANT for target in targets)
    console.print(
        f"[bold]{escape(bridge)}[/]: {_many(len(targets) - plants, 'device')} in {_many(plants, 'plant')}, "
        f"{settings.calls} calls an hour"
    )  # fmt: skip
    console.print(_table(made))
    for line in sentences(made, budget):
        console.print(line)


def _table(made: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("interface")
    for title in ("calls a round", "every", "calls an hour", "reaches"):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in made.rows:
        kind = row.units[0][0].type
        why = "; ".join(part for part in (WHY[row.role], "pushed" if row.pushed else "") if part)
        table.add_row(
            row.interface, str(row.calls), duration(row.interval), f"{row.per_hour:.1f}", str(row.reaches),
            f"{kind.replace('_', ' ')}{f' ({why})' if why else ''}",
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
    counts: Counter[str] = Counter()
    if inverters is not None:
        counts["inverter"] = inverters
    else:
        listed, known = settings.whitelist, {s.device.serial: s for s in states}
        for serial in known if listed.everything else listed.numbers:
            state = known.get(serial)
            if not listed.everything or (state is not None and state.source == bridge):
                counts[settings.types.get(serial) or (str(state.device.kind) if state else "inverter")] += 1
    catalogue = settings.catalogue
    made = realtime_plan(counts, catalogue, budget.for_polling, settings.poll_interval, settings.list_interval)
    console.print(f"[bold]{escape(bridge)}[/]: {_many(counts.total(), 'number')}, {settings.calls} calls an hour")
    table = Table(box=None, pad_edge=False)
    table.add_column("data type")
    for title in ("calls a round", "every", "calls an hour", "numbers"):
        table.add_column(title, justify="right")
    for row in made.rows:
        per_hour = f"{row.per_hour:.1f}"
        table.add_row(row.interface, str(row.calls), duration(row.interval), per_hour, str(row.numbers))
    if made.list_calls:
        table.add_row("list", str(made.list_calls), duration(made.list_interval), f"{made.list_per_hour:.1f}")
    table.add_row("login", "1", "", f"{made.logins:.1f}")
    table.add_row("out of turn", "", "", str(made.soon))
    table.add_section()
    table.add_row("[bold]sum[/]", "", "", f"[bold]{made.per_hour:.1f}[/]", f"of {made.limit:g} that may be planned")
    console.print(table)
    console.print(
        f"A device's data are at most {duration(made.interval)} old, and what its logger takes to upload them."
    )


def sentences(made: Plan, budget: Budget) -> list[str]:
    """Return what a person wants to know of a plan, in words."""
    control = ceil(budget.per_hour * (1 - POLLING_MOST))
    history = max(int(budget.per_hour * HISTORY_LEAST), int(budget.per_hour * POLLING_MOST - made.per_hour))
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


def _target(device: Device) -> Target:
    """Return the device as the planner takes it. Of data loggers, those that take limits are SEC1000."""
    if device.kind is DeviceKind.DATA_LOGGER:
        return Target(device, "sec1000" if device.setpoints else "homekit", UTC)
    return Target(device, str(device.kind), UTC)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
