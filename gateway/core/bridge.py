"""What a bridge is: a class with inert constructor, `start`, `stop`, and the capabilities it has.

A bridge that brings data calls `context.announce` and `context.publish`; one that takes wishes calls
`context.submit`. One that shows things implements `Sink`, one that carries wishes out `Controller`.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec
import structlog
from pydantic import BaseModel, ConfigDict

from gateway.core.clock import Clock
from gateway.core.model import (
    Alarm,
    BridgeStatus,
    Command,
    CommandEvent,
    CommandState,
    Device,
    DeviceState,
    Halt,
    Outline,
    Page,
    Pause,
    Range,
    Resolution,
    Snapshot,
    Value,
)
from gateway.core.policy.checks import Verdict


class BridgeSettings(BaseModel):
    """The root of every bridge's `Settings`: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def roles(self) -> frozenset[str]:
        """The roles that its origins can have; a rule that names another one is a mistake."""
        return frozenset()


class Updates(msgspec.Struct):
    """What has changed for a sink since it last took its mail."""

    states: dict[str, DeviceState] = msgspec.field(default_factory=dict)
    """Serial → newest state; older ones were conflated away."""
    removed: set[str] = msgspec.field(default_factory=set)
    events: list[CommandEvent] = msgspec.field(default_factory=list)
    """Every step of every command, in order."""
    done: list[Command] = msgspec.field(default_factory=list)
    """Commands that the far side says are done, and whose read-back is waited for. No step: the end follows."""
    bridges: dict[str, BridgeStatus] = msgspec.field(default_factory=dict)
    alarms: list[Alarm] = msgspec.field(default_factory=list)
    """Every alarm that was raised or cleared, in order."""
    halt: bool = False
    """Control was halted or resumed; `Context.halted` has how it stands."""
    snapshots: list[Snapshot] = msgspec.field(default_factory=list)
    """Every snapshot, in order; only for a sink that keeps history."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a command that was sent."""

    state: CommandState
    """`succeeded`, `failed`, or `unknown` when nobody can say.

    `accepted` where it certainly never left: of one handed over before a restart only that lets another bridge send it.
    """
    detail: str = ""
    verified: bool = False
    """Of a success: true where the value itself was read back."""


class Told(StrEnum):
    """What a result changed that a far side told by itself."""

    TAKEN = "taken"
    """The command was under way, and ends by it."""
    CORRECTED = "corrected"
    """The command had ended as unknown; what is known now stands beside that end."""
    REPEATED = "repeated"
    """It was known already."""
    CONTRADICTED = "contradicted"
    """The command has ended otherwise, and stays so; noted in the journal."""
    UNMATCHED = "unmatched"
    """There is no such command."""


class Context(Protocol):
    """All a bridge knows of the gateway round it."""

    @property
    def name(self) -> str:
        """The bridge's name in the configuration."""
        ...

    @property
    def gateway_id(self) -> str:
        """`gateway.id` of the configuration."""
        ...

    @property
    def data_dir(self) -> Path:
        """A directory of the gateway's own, kept over restarts. Prefix files with the bridge's name."""
        ...

    @property
    def clock(self) -> Clock:
        """The only source of time."""
        ...

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """A logger that names the bridge."""
        ...

    def announce(self, device: Device) -> None:
        """Make a device known, or known better."""
        ...

    def withdraw(self, serial: str) -> None:
        """Say that this bridge knows the device no more."""
        ...

    def publish(self, snapshot: Snapshot) -> int:
        """Hand over what was read. Never blocks. Returns its number, for `stored`."""
        ...

    def record(self, snapshot: Snapshot) -> int:
        """Hand over what was measured before, for sinks that keep history alone. Returns its number, for `stored`."""
        ...

    async def stored(self, first: int | None = None) -> None:
        """Wait until every sink that keeps history has stored what was published so far. At once without any.

        Waits for a sink that is down, so have a time-out. Raises GatewayError where something was dropped
        instead, from the number `first` on; without it, since this bridge asked last.
        """
        ...

    def alarms(self, serial: str, active: Sequence[Alarm]) -> None:
        """Say which alarms of a device are active, all of them. What is new is raised, what is gone cleared.

        One that has `cleared` is gone since then; so is one that is not named any more, as of now.
        """
        ...

    def active_alarms(self) -> Sequence[Alarm]:
        """Return the active alarms of every device."""
        ...

    def heard_elsewhere(self, serial: str) -> datetime | None:
        """Return until when data of the device are fresh that another bridge brings; None where none are."""
        ...

    def historian(self, serial: str) -> "Historian | None":
        """Return the bridge that can tell a device's past."""
        ...

    async def submit(self, *commands: Command) -> list[CommandEvent]:
        """Ask for setpoints to be set: all of them, or none. Answers `accepted` or `rejected` for each.

        Later steps reach every sink. A command whose id is known already is answered with where it stands.
        """
        ...

    def explain(self, command: Command) -> Verdict:
        """Return what `submit` would say of a command, check by check. Nothing is counted or done."""
        ...

    @property
    def halted(self) -> Halt | None:
        """Since when, by whom and why no new command is taken; None while they are."""
        ...

    async def halt(self, by: str, reason: str = "") -> Halt:
        """Stop control: no new command is taken, none that waits leaves; reverts go on. Kept over restarts.

        `by` is an origin. Raises HaltError where it can't be stored: it holds all the same, until the process ends.
        """
        ...

    async def resume(self, by: str) -> None:
        """Let commands in again. Raises HaltError where this origin may not, or it can't be stored."""
        ...

    async def cancel(self, *ids: str, by: str) -> int:
        """End commands that have not left yet, as expired. Returns how many that were."""
        ...

    async def steps(self, command_id: str) -> list[CommandEvent]:
        """Return all steps of a command, oldest first; none where the id is not known. Raises JournalError."""
        ...

    async def keep_receipt(self, receipt: str, *ids: str) -> None:
        """Journal, before they leave, by what the results of these commands will be told. Raises JournalError."""
        ...

    async def command_of(self, receipt: str, serial: str) -> str | None:
        """Return the id of the command that has this receipt and device, also long after its end."""
        ...

    async def told(self, command_id: str, outcome: Outcome) -> Told:
        """Take in a result that the far side told by itself; journaled when this returns. Raises JournalError."""
        ...

    def effort(self, setpoint: str, serials: Sequence[str]) -> Mapping[str, "Effort | None"]:
        """Return what it takes to set a setpoint of these devices, by the bridge that would.

        None where it can't tell. Devices that none can set are counted nowhere.
        """
        ...

    def state(self, serial: str) -> DeviceState | None:
        """Return the last known state of one device."""
        ...

    def states(self) -> Sequence[DeviceState]:
        """Return the last known state of every device."""
        ...

    def bridges(self) -> Sequence[BridgeStatus]:
        """Return how every bridge does."""
        ...

    def permitted(self, device: Device, origin: str) -> Mapping[str, Range]:
        """Return the setpoints that policy lets `origin` write on this device, with the tighter range."""
        ...

    def restart(self, name: str) -> None:
        """Stop a bridge, one's own too, and start it anew, soon. Raises LookupError for an unknown name."""
        ...

    def set_log_level(self, level: str) -> None:
        """Log from now on what is at least as severe: `debug`, `info`, `warning` or `error`, until the next start."""
        ...

    def report(self, *, up: bool | None, detail: str = "") -> None:
        """Say whether the bridge does its work; None while it begins to. Logged when it changes, not at every try."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task until the bridge stops. When it raises, the bridge is stopped and started anew."""
        ...


class Bridge(Protocol):
    """One protocol, and nothing of the others.

    One that finds no devices by itself, but waits to be called, says so: `listens: ClassVar[bool] = True`.
    """

    Settings: ClassVar[type[BridgeSettings]]

    def __init__(self, settings: Any, context: Context) -> None:
        """Keep both; do nothing."""
        ...

    async def start(self) -> None:
        """Begin. A far side that does not answer is no reason to raise: report it and go on trying.

        Raises OSError where something local is in the way, e.g. a port in use; the supervisor tries again.
        """
        ...

    async def stop(self) -> None:
        """End in good order; also called after a failed start. Spawned tasks have been cancelled before."""
        ...


@runtime_checkable
class Sink(Protocol):
    """A bridge that shows what the router knows."""

    async def deliver(self, updates: Updates) -> None:
        """Take the mail. While this runs, newer states replace older ones in the mailbox."""
        ...


@runtime_checkable
class HistorySink(Sink, Protocol):
    """A sink that keeps every snapshot: none is conflated, and `deliver` returns once they are stored.

    When `deliver` raises, or the bridge stops while it runs, the same updates are delivered again once the bridge
    is up again: each snapshot at least once, in order.
    """

    backlog: int
    """How many snapshots wait for it at most, also while it is down. Past that the oldest is dropped and counted."""


@runtime_checkable
class Historian(Protocol):
    """A bridge that can tell a device's past."""

    def keeps(self, serial: str) -> bool:
        """Return whether there is a history of that device."""
        ...

    def outline(self, serial: str, start: datetime, end: datetime, resolution: Resolution) -> Outline:
        """Return what `history` would bring. Raises RefusedError where there is none of that resolution."""
        ...

    def history(
        self, serial: str, start: datetime, end: datetime, resolution: Resolution
    ) -> AsyncIterator[Page | Pause]:
        """Tell it page by page, oldest first, from the page that `start` lies in.

        Waits where calls are limited, and says so when it begins to. Raises RefusedError where there is none of
        that resolution, and what the far side raises.
        """
        ...


@runtime_checkable
class Controller(Protocol):
    """A bridge that carries commands out."""

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether this bridge can set that setpoint of that device."""
        ...

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """Send a command; return a receipt by which its result can be asked for, or "".

        `in_force` holds the values of the other setpoints of the same group. Must end within `timeout`
        seconds. Raises NotSentError, RefusedError or UnsureError.
        """
        ...

    async def result(self, command: Command, receipt: str) -> Outcome:
        """Find out what became of a command, from its receipt or, without one, by reading back.

        May take as long as the far side needs. Raises NotSentError when the far side can't be asked now.
        """
        ...


@runtime_checkable
class Paced(Protocol):
    """A controller that has commands wait for their turn while nothing of them has left.

    They can be cancelled and superseded until then. A revert does not ask.
    """

    def turn(self, command: Command) -> "asyncio.Future[None]":
        """Return what is done once there is room for the command; for the same command, the same."""
        ...

    def leave(self, command: Command) -> None:
        """Give a command's turn away, before it came or after its end. Also called for one that never asked."""
        ...


class Effort(msgspec.Struct, frozen=True):
    """What it takes to set one setpoint of many devices."""

    devices: int
    """How many of them the controller can reach."""
    calls: int
    """To the far side, without questions for results."""
    seconds: float
    """Until there are calls for the last of them."""
    left: int
    """Calls that may be made now."""


@runtime_checkable
class Estimator(Protocol):
    """A controller whose calls are limited, and that can tell how far they reach."""

    def effort(self, setpoint: str, serials: Sequence[str]) -> Effort:
        """Return what it takes."""
        ...
