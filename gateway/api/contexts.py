"""What a bridge knows of the gateway round it: one small context for each capability, and `Context`, which is all.

The supervisor gives each bridge a `Context`. A bridge annotates the small one that it uses: so a reader sees what it
may do, and a test needs no more than that.
"""

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import structlog

from gateway.api.capabilities import HistoryProvider
from gateway.api.served import CallBudget, RegisterServer
from gateway.core.balance import Flows, Sheet
from gateway.core.clock import Clock
from gateway.core.controller import CallEstimate, Outcome, ResultEffect
from gateway.core.findings import FindingCode
from gateway.core.model import (
    Alarm,
    BridgeStatus,
    Command,
    CommandEvent,
    Device,
    DeviceState,
    Halt,
    Origin,
    Range,
    Snapshot,
    Value,
    Written,
)
from gateway.core.verdict import Refusal, Verdict


class BaseContext(Protocol):
    """What every bridge has: who it is, time, a log, tasks, and a way to say how it does."""

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

    def report(self, *, up: bool | None, detail: str = "") -> None:
        """Say whether the bridge does its work; None while it begins to. Logged when it changes, not at every try."""
        ...

    def find(self, code: FindingCode, subject: str, text: str, remedy: str = "") -> None:
        """Say what is doubted, or was found out, about what the far side says; again and again is no harm.

        `subject` is a serial number, a plant's id, an interface, or "". Stands until it is settled, or the bridge
        begins anew; logged once. Some kinds are an alarm of the device, too. See `gateway.core.findings`.
        """
        ...

    def settle(self, code: FindingCode, subject: str) -> None:
        """Say that a finding holds no more; harmless where there is none."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task until the bridge stops. When it raises, the bridge is stopped and started anew."""
        ...


class StatesContext(BaseContext, Protocol):
    """What is known of devices, whatever bridge brought it."""

    def state(self, serial: str) -> DeviceState | None:
        """Return the last known state of one device."""
        ...

    def states(self) -> Sequence[DeviceState]:
        """Return the last known state of every device that has given a value, in this run or before."""
        ...

    def announced(self) -> Sequence[DeviceState]:
        """Return the state of every device, also of those that never gave a value: what can be commanded."""
        ...


class SourceContext(StatesContext, Protocol):
    """For a bridge that brings devices and their data."""

    def announce(self, device: Device, *, named: bool = False) -> None:
        """Make a device known, or known better. It can be commanded; sinks get it once it has given a value.

        At once where the configuration names it: `named`.
        """
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

    @property
    def keeps_history(self) -> bool:
        """Whether a sink keeps history: without one, nobody takes what is recorded."""
        ...

    def alarms(self, serial: str, active: Sequence[Alarm]) -> None:
        """Say which alarms of a device are active, all of them. What is new is raised, what is gone cleared.

        One that has `cleared` is gone since then; so is one that is not named any more, as of now.
        """
        ...

    def weigh(self, flows: Flows) -> None:
        """Have the powers of one answer added up: a sign that does not fit is found, see `gateway.core.balance`."""
        ...

    def heard_elsewhere(self, serial: str) -> datetime | None:
        """Return until when data of the device are fresh that another bridge brings; None where none are."""
        ...


class WritesContext(StatesContext, Protocol):
    """How often devices were written."""

    def writes(self) -> Iterable[Written]:
        """Return how often each setpoint of each device was written, for life and today."""
        ...


class SinkContext(WritesContext, Protocol):
    """For a bridge that shows things: what is not in the updates that `deliver` brings."""

    def bridges(self) -> Sequence[BridgeStatus]:
        """Return how every bridge does."""
        ...

    def active_alarms(self) -> Sequence[Alarm]:
        """Return the active alarms of every device."""
        ...

    def sheets(self) -> Sequence[Sheet]:
        """Return pv + battery + grid = load of every plant, as it came out last, whatever bridge brought it."""
        ...

    def history_provider(self, serial: str) -> HistoryProvider | None:
        """Return the bridge that can tell a device's past."""
        ...

    def register_servers(self) -> Mapping[str, RegisterServer]:
        """Return the bridges that serve devices as registers, by name."""
        ...

    def call_budgets(self) -> Mapping[str, CallBudget]:
        """Return what is left of the calls of each bridge whose calls are limited, by name."""
        ...

    @property
    def halted(self) -> Halt | None:
        """Since when, by whom and why no new command is taken; None while they are."""
        ...

    @property
    def journal_trouble(self) -> str:
        """Why the command journal can't be written, so that control is closed; "" where all is well."""
        ...


class OriginContext(StatesContext, Protocol):
    """For a bridge by which others ask for setpoints to be set. Policy and journal stand behind each call."""

    async def submit(self, *commands: Command) -> list[CommandEvent]:
        """Ask for setpoints to be set: all of them, or none. Answers `accepted` or `rejected` for each.

        Later steps reach every sink. A command whose id is known already is answered with where it stands.
        """
        ...

    def explain(self, command: Command) -> Verdict:
        """Return what `submit` would say of a command, check by check. Nothing is counted or done."""
        ...

    def judge(self, *commands: Command) -> Refusal | None:
        """Return why `submit` would refuse these commands now; None where it would take them. Nothing is counted."""
        ...

    def permitted(self, device: Device, origin: Origin) -> Mapping[str, Range]:
        """Return the setpoints that policy lets `origin` write on this device, with the tighter range."""
        ...

    async def cancel(self, *ids: str, by: Origin) -> int:
        """End commands that have not left yet, as expired. Returns how many that were."""
        ...

    async def steps(self, command_id: str) -> list[CommandEvent]:
        """Return all steps of a command, oldest first; none where the id is not known. Raises JournalError."""
        ...

    def call_estimate(self, setpoint: str, serials: Sequence[str]) -> Mapping[str, CallEstimate | None]:
        """Return what it takes to set a setpoint of these devices, by the bridge that would.

        None where it can't tell. Devices that none can set are counted nowhere.
        """
        ...

    def takers(self, setpoint: str, serial: str) -> Sequence[str]:
        """Return the names of the bridges that can set a setpoint of a device, first choice first."""
        ...


class ControllerContext(StatesContext, Protocol):
    """For a bridge that carries commands out."""

    def may_leave(self, *ids: str) -> bool:
        """Return whether all of these commands may leave now. To be asked right before they do, by one call.

        Their time may be over by now although their time-out is not: a machine that sleeps does not count it. One that
        has ended may not: its dead-man's timer ran out while it waited with others for a call.

        The last time that it says yes is when they left, as the time of their step `sent` has it; where it is never
        asked, that is when the controller was given them.
        """
        ...

    def still_wanted(self, *ids: str) -> bool:
        """Return the same of commands that wait, e.g. in a queue, and do not leave yet or have been given away."""
        ...

    async def keep_receipt(self, receipt: str, *ids: str) -> None:
        """Journal, before they leave, by what the results of these commands will be told. Raises JournalError."""
        ...

    async def commands_by_receipt(self, receipts: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Return, of these receipts, those that commands have: their ids and devices, also long after their ends."""
        ...

    async def result_came(self, command_id: str, outcome: Outcome) -> ResultEffect:
        """Take in a result that the far side told by itself; journaled when this returns. Raises JournalError."""
        ...

    @property
    def battery_window(self) -> float:
        """Seconds for which an order for a battery holds by itself: `control.battery_window`."""
        ...


class OperatorContext(BaseContext, Protocol):
    """For a bridge by which a person operates the gateway itself."""

    async def halt(self, by: Origin, reason: str = "") -> Halt:
        """Stop control: no new command is taken, none that waits leaves; reverts go on. Kept over restarts.

        `by` is an origin. Raises HaltError where it can't be stored: it holds all the same, until the process ends.
        """
        ...

    async def resume(self, by: Origin) -> None:
        """Let commands in again. Raises HaltError where this origin may not, or it can't be stored."""
        ...

    def restart(self, name: str) -> None:
        """Stop a bridge, one's own too, and start it anew, soon. Raises LookupError for an unknown name."""
        ...

    async def reload(self) -> str:
        """Read the configuration again and take up what has changed; returns a line of it, and one a warning.

        Raises GatewayError, with a line for each thing that is wrong, and then nothing has changed.
        """
        ...

    def set_log_level(self, level: str) -> None:
        """Log from now on what is at least as severe: `debug`, `info`, `warning` or `error`, until the next start."""
        ...


class SteererContext(SourceContext, OriginContext, WritesContext, Protocol):
    """For what acts by itself: it reads states, submits commands, and is a device of its own."""

    def claim(self, serial: str) -> str:
        """Return who steers a device: this one, where nobody did before. Nobody gives a device up while it runs."""
        ...

    @property
    def halted(self) -> Halt | None:
        """Since when, by whom and why no new command is taken; None while they are."""
        ...

    @property
    def journal_trouble(self) -> str:
        """Why the command journal can't be written, so that control is closed; "" where all is well."""
        ...

    def commanded(self, serial: str) -> Mapping[str, tuple[datetime, Value]]:
        """Return what has been set of a device, and when, as far as no source has read it back; by setpoint."""
        ...

    def order(self, command: Command) -> Mapping[str, Value]:
        """Return what has been asked of the other setpoints of a command's group, e.g. of an order for a battery."""
        ...

    def underway(self, by: Origin) -> Sequence[Command]:
        """Return the commands of an origin, whatever their ids, that have not ended; also those of before a restart."""
        ...

    def sent(self, serial: str) -> Sequence[Command]:
        """Return the commands to a device that left and have not ended, oldest first; also of before a restart."""
        ...


class Context(SteererContext, SourceContext, SinkContext, OriginContext, ControllerContext, OperatorContext, Protocol):
    """All of them: what the supervisor gives a bridge."""
