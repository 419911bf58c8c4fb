"""`sems-gateway send --fleet`: one setpoint for many devices through the running gateway, and a bar while it goes."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.bridges.local.client import FIRST_REPLY_WITHIN, Conversation, LocalClient
from gateway.bridges.local.protocol import (
    Cancel,
    FleetCancelled,
    FleetPlan,
    Go,
    Outage,
    Refused,
    Reply,
    SendFleet,
    Step,
)
from gateway.config.document import nearest
from gateway.core.model import CommandEvent, CommandState
from gateway.core.points import SETPOINTS

SHOWN: Final = 40
"""Failures that are listed; the audit has all."""
COLOURS: Final = {
    CommandState.SUCCEEDED: "green",
    CommandState.FAILED: "red",
    CommandState.REJECTED: "red",
    CommandState.UNKNOWN: "yellow",
    CommandState.EXPIRED: "yellow",
    CommandState.SUPERSEDED: "dim",
    CommandState.SENT: "cyan",
    CommandState.ACCEPTED: "dim",
}


class FleetRefusedError(Exception):
    """There is nothing to carry out. The message says why."""


class Ending(IntEnum):
    """How it went; the exit code."""

    DONE = 0
    NOT_ALL = 1
    INTERRUPTED = 130


async def plan_fleet(data_dir: Path, request: SendFleet) -> FleetPlan:
    """Return what a request would take. Raises FleetRefusedError, NotRunningError or HungUpError."""
    async with LocalClient(data_dir).converse(request) as talk, aclosing(talk.replies(FIRST_REPLY_WITHIN)) as replies:
        return await _plan(replies, request)


async def carry_out(data_dir: Path, request: SendFleet, wanted: FleetPlan, out: Console, *, wait: bool) -> Ending:
    """Carry a plan out and show how far it is. Raises FleetRefusedError, NotRunningError or HungUpError."""
    async with LocalClient(data_dir).converse(request) as talk, aclosing(talk.replies(FIRST_REPLY_WITHIN)) as replies:
        plan = await _plan(replies, request)
        if plan.serials != wanted.serials:
            raise FleetRefusedError("other devices match by now; nothing was sent. Start anew")
        await talk.say(Go())
        return await _follow(talk, replies, plan, out, wait=wait)


async def _plan(replies: AsyncGenerator[Reply, None], request: SendFleet) -> FleetPlan:
    async for reply in replies:
        match reply:
            case FleetPlan() if not reply.known:
                hint = nearest(request.setpoint, SETPOINTS)
                raise FleetRefusedError(f"there is no setpoint {request.setpoint!r}; {hint}")
            case FleetPlan() if not reply.serials:
                others = f"; {reply.without} match, but don't take {request.setpoint}" if reply.without else ""
                raise FleetRefusedError(f"no device matches{others}. `sems-gateway devices` lists those there are")
            case FleetPlan():
                return reply
            case Refused(detail):
                raise FleetRefusedError(detail)
            case _:
                pass
    raise FleetRefusedError("the gateway went away")


def show_plan(plan: FleetPlan, request: SendFleet, out: Console) -> None:
    """Say what it takes."""
    out.print(f"{request.setpoint} = {request.value} for {len(plan.serials)} devices", markup=False)
    if plan.without:
        out.print(f"  {plan.without} more match, but don't take it")
    for bridge, count in plan.reached.items():
        call_estimate = plan.call_estimates.get(bridge)
        calls = (
            f" in {call_estimate.calls} calls; now there are {call_estimate.left} for control"
            if call_estimate is not None
            else ""
        )
        out.print(f"  by {bridge}: {count} devices{calls}", markup=False)
    soon = "at once" if plan.seconds < 1 else f"in about {_time(plan.seconds)}"
    out.print(f"  the last leaves {soon}; what has not left after {_time(plan.ttl)} expires")


def show_outage(outage: Outage, err: Console) -> None:
    """Say who is down, before anything is sent."""
    for bridge, why in outage.down.items():
        err.print(f"by {bridge}: it is down: {why}", style="red", markup=False)
    if outage.stranded:
        devices = "1 device has" if outage.stranded == 1 else f"{outage.stranded} devices have"
        err.print(f"{devices} no other bridge; what can't leave in time expires unsent", style="red", markup=False)


async def _follow(
    conversation: Conversation, replies: AsyncGenerator[Reply, None], plan: FleetPlan, out: Console, *, wait: bool
) -> Ending:
    last: dict[str, CommandEvent] = {}
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, interrupted.set)
    cancelling = asyncio.create_task(_cancel(conversation, interrupted), name="Ctrl-C")
    try:
        with _Bar(out, len(plan.serials)) as bar:
            async for reply in replies:
                match reply:
                    case Step(event):
                        bar.show(last.get(event.command.id), event)
                        last[event.command.id] = event
                    case FleetCancelled(count):
                        bar.say(f"stopping: {count} had not left; waiting for those that had")
                    case _:
                        pass
                if not wait and not interrupted.is_set() and len(last) >= len(plan.serials):
                    break
    finally:
        cancelling.cancel()
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
    _show_failures(last, out)
    if interrupted.is_set():
        return Ending.INTERRUPTED
    well = (CommandState.SUCCEEDED,) if wait else (CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED)
    done = sum(event.state in well for event in last.values())
    # What is not followed to its end did not succeed yet; where it can't even leave, that is no success.
    cannot_leave = 0 if wait else plan.outage.stranded
    return Ending.DONE if done >= len(plan.serials) and not cannot_leave else Ending.NOT_ALL


async def _cancel(conversation: Conversation, interrupted: asyncio.Event) -> None:
    await interrupted.wait()
    with suppress(OSError):
        await conversation.say(Cancel())


class _Bar:
    """How far it is; where there is no terminal, one line at the end."""

    def __init__(self, out: Console, total: int) -> None:
        self._out = out
        self._total = total
        self._counts: Counter[CommandState] = Counter()
        self._progress = Progress(
            BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), console=out,
            transient=True, disable=not out.is_terminal,
        )  # fmt: skip
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._task = self._progress.add_task("", total=self._total)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._out.print(self._line())

    def show(self, before: CommandEvent | None, event: CommandEvent) -> None:
        """Show where the commands stand, now that one has taken a step."""
        if before is not None:
            self._counts[before.state] -= 1
        self._counts[event.state] += 1
        ended = sum(count for state, count in self._counts.items() if state.final)
        if self._task is not None:
            self._progress.update(self._task, completed=ended, description=self._line())

    def say(self, text: str) -> None:
        """Say something in between."""
        self._out.print(text)

    def _line(self) -> str:
        parts = [f"[{COLOURS[state]}]{self._counts[state]} {state}[/]" for state in CommandState if self._counts[state]]
        return ", ".join(parts) or "nothing yet"


def _show_failures(last: dict[str, CommandEvent], out: Console) -> None:
    failed = [e for e in last.values() if e.state.final and e.state is not CommandState.SUCCEEDED]
    if not failed:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("device", "state", "why"):
        table.add_column(column)
    for event in failed[:SHOWN]:
        why = f"{event.reason}: {event.detail}" if event.reason else event.detail
        table.add_row(escape(event.command.serial), f"[{COLOURS[event.state]}]{event.state}[/]", escape(why))
    out.print(table)
    if len(failed) > SHOWN:
        out.print(f"… and {len(failed) - SHOWN} more; `sems-gateway audit` has them all")


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
