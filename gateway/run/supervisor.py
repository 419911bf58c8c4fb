"""Keeps bridges alive: starts them, feeds sinks, restarts what dies, and says how each does."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from gateway.api.bridge import Bridge, BridgeSettings, HistoryProvider, HistorySink, Sink
from gateway.api.capabilities import Steering
from gateway.api.served import Budgeted, CallBudget, RegisterServer
from gateway.commands.dispatch import Dispatcher
from gateway.commands.policy.policy import Policy
from gateway.config.document import ConfigError
from gateway.core.balance import BalanceWatch, Flows, Sheet
from gateway.core.clock import Clock, set_within
from gateway.core.controller import CallEstimate, Outcome, ResultEffect
from gateway.core.errors import GatewayError
from gateway.core.findings import ALARMING, FindingCode, Findings
from gateway.core.mailbox import METRICS as MAILBOXES
from gateway.core.mailbox import Mailbox
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
    Severity,
    Snapshot,
    Value,
    Written,
)
from gateway.core.plausible import RatingWatch
from gateway.core.router import Router
from gateway.core.text import MAX_DETAIL, MAX_ID, escaped, plain
from gateway.core.verdict import Refusal, Verdict
from gateway.run.entry import plain_alarms, plain_command, plain_device, plain_snapshot

RESTART_FIRST: Final = 1.0
MAX_RESTART_SECONDS: Final = 60.0
HEALTHY_AFTER: Final = 60.0
"""Seconds a bridge has to run before its next failure is a first one again."""
STOP_TIMEOUT: Final = 10.0


async def _no_reload() -> str:
    return "nothing has changed"


class Services(msgspec.Struct, frozen=True):
    """What all bridges of one gateway share."""

    gateway_id: str
    data_dir: Path
    clock: Clock
    router: Router
    policy: Policy
    dispatcher: Dispatcher
    historians: dict[str, HistoryProvider] = {}
    """Bridge name → one that can tell a device's past, in the configured order."""
    set_log_level: Callable[[str], None] = lambda _: None
    reload: Callable[[], Awaitable[str]] = _no_reload
    """Reads the configuration again; returns in words what has changed. Raises ConfigError."""
    runners: dict[str, "Runner"] = {}
    """Every bridge by its name."""
    steered: dict[str, str] = {}
    """Serial → who steers it by itself."""
    balance: BalanceWatch = msgspec.field(default_factory=BalanceWatch)
    ratings: RatingWatch = msgspec.field(default_factory=RatingWatch)

    def release(self, name: str) -> None:
        """Have nothing steered by what is there no more, or was given other devices."""
        runner = self.runners.get(name)
        steers = runner.bridge.steers if runner is not None and isinstance(runner.bridge, Steering) else lambda _: False
        for serial in [serial for serial, owner in self.steered.items() if owner == name and not steers(serial)]:
            del self.steered[serial]


def findings_source(bridge: str) -> str:
    """Return who raises the alarms that are findings of a bridge: a name that no bridge can have."""
    return f":{bridge}"


class _RestartError(Exception):
    """Somebody wants the bridge to begin anew."""


class Runner:
    """Runs one bridge, and is its `Context`."""

    def __init__(
        self,
        name: str,
        type_: str,
        bridge: type[Bridge],
        settings: BridgeSettings,
        services: Services,
        inherited: Iterable[str] = (),
    ) -> None:
        """`inherited`: devices of the one with other settings in whose place it comes."""
        self.name = name
        self.type = type_
        self.gateway_id = services.gateway_id
        self.data_dir = services.data_dir
        self.clock = services.clock
        self.log: structlog.stdlib.BoundLogger = structlog.get_logger("bridge").bind(bridge=name)
        self._services = services
        self._router = services.router
        self._tasks: set[asyncio.Task[None]] = set()
        self._crashed: asyncio.Future[None] | None = None
        self._status: BridgeStatus | None = None
        self._findings = Findings(self.log)
        self._has_reported = False
        self._saw_odd_serial = False
        self._inherited = set(inherited)
        self._last_said: bool | None = None
        """Whether the log was last told up or down."""
        self._main: asyncio.Task[None] | None = None
        self._stop_within = STOP_TIMEOUT
        self._stored_to = 0
        """Number of the newest snapshot when the bridge last asked for what is stored."""
        self._restart_wanted = asyncio.Event()
        self.bridge = bridge(settings, self)
        services.runners[name] = self

    # the supervisor's side

    def attach(self) -> None:
        """Have a sink miss nothing from now on, though it has not started."""
        self._attach()

    def is_to_start(self) -> None:
        """Have it be down, for all to see, until it says otherwise."""
        if self._status is None:
            self.report(up=None, detail="starting")

    def start(self) -> None:
        """Begin to run the bridge, in a task of its own. A sink misses nothing from now on."""
        self._attach()
        self._main = asyncio.create_task(self._run(), name=f"bridge {self.name}")

    async def stop(self, within: float = STOP_TIMEOUT) -> None:
        """Stop the bridge and wait for its end, which it has so many seconds for."""
        self._stop_within = within
        if self._main is not None:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
            self._main = None
        self._router.detach(self.name)
        MAILBOXES.forget(self.name)

    def rest(self) -> None:
        """End what the bridge does by itself; it stays open for what it is asked."""
        for task in self._tasks:
            task.cancel()

    def begin_anew(self) -> None:
        """Have the bridge stopped and started again, at once where it waits for its next try."""
        self._restart_wanted.set()
        if self._crashed is not None and not self._crashed.done():
            self._crashed.set_exception(_RestartError())

    async def _run(self) -> None:
        pause = RESTART_FIRST
        while True:
            began = self.clock.monotonic()
            self._restart_wanted.clear()
            try:
                await self._run_once()
            except _RestartError:
                self.log.info("restarting, as was asked for")
                pause = RESTART_FIRST
                continue
            except Exception as error:
                self.report(up=False, detail=_in_words(error))
                if not isinstance(error, OSError):
                    self.log.debug("traceback", exc_info=error)
            if self.clock.monotonic() - began > HEALTHY_AFTER:
                pause = RESTART_FIRST
            await set_within(self._restart_wanted, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(pause * 2, MAX_RESTART_SECONDS)

    async def _run_once(self) -> None:
        """Run the bridge until a part of it raises."""
        self._crashed = asyncio.get_running_loop().create_future()
        self._has_reported = False
        self.forget_findings()
        try:
            await self.bridge.start()
            mailbox = self._attach()
            if mailbox is not None and isinstance(self.bridge, Sink):
                self.spawn(self._feed(self.bridge, mailbox), "feed")
            if not self._has_reported:
                self.report(up=True)
            await self._crashed
        finally:
            await self._wind_down()

    def _attach(self) -> Mailbox | None:
        """Return the mailbox of a sink, with all that is known; it outlives restarts. None for what is no sink."""
        if not isinstance(self.bridge, Sink):
            return None
        backlog = self.bridge.backlog if isinstance(self.bridge, HistorySink) else None
        mailbox = self._router.attach(self.name, backlog)
        MAILBOXES.watch(self.name, mailbox)
        return mailbox

    @staticmethod
    async def _feed(sink: Sink, mailbox: Mailbox) -> None:
        while True:
            await sink.deliver(await mailbox.take())
            mailbox.done()

    async def _wind_down(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._crashed is not None and self._crashed.done() and not self._crashed.cancelled():
            self._crashed.exception()
        try:
            async with asyncio.timeout(self._stop_within):
                await self.bridge.stop()
        except Exception as error:  # noqa: BLE001 - as above
            self.log.warning("bridge did not stop cleanly", error=str(error) or type(error).__name__)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if self._crashed is not None and not self._crashed.done():
                self._crashed.set_exception(error)
            else:
                self.log.error("task failed", task=task.get_name(), error=str(error))

    # the bridge's side: `Context`

    def announce(self, device: Device, *, named: bool = False) -> None:
        """See `Context.announce`."""
        cleaned = plain_device(device)
        if cleaned is None:
            if not self._saw_odd_serial:
                self._saw_odd_serial = True
                self.log.warning(
                    "a device is left out: what names it is no serial number; others like it too",
                    serial=escaped(device.serial, MAX_ID),
                )
            return
        self._inherited.discard(cleaned.serial)
        self._router.announce(self.name, cleaned, named=named)

    def withdraw(self, serial: str) -> None:
        """See `Context.withdraw`."""
        state = self._router.state(serial)
        if state is not None:
            self._services.balance.forget(self.name, state.device)
            self._services.ratings.forget(self.name, state.device)
            self.settle(FindingCode.VALUE_DOUBTFUL, state.device.serial)
            for code in ALARMING:
                self.settle(code, serial)
        self._router.withdraw(self.name, serial)

    def publish(self, snapshot: Snapshot) -> int:
        """See `Context.publish`."""
        return self._router.publish(plain_snapshot(snapshot))

    def record(self, snapshot: Snapshot) -> int:
        """See `Context.record`."""
        return self._router.record(plain_snapshot(snapshot))

    async def stored(self, first: int | None = None) -> None:
        """See `Context.stored`."""
        since, self._stored_to = self._stored_to + 1, self._router.published
        await self._router.stored(since if first is None else first)

    @property
    def keeps_history(self) -> bool:
        """See `Context.keeps_history`."""
        return self._router.keeps_history

    def alarms(self, serial: str, active: Sequence[Alarm]) -> None:
        """See `Context.alarms`."""
        self._router.alarms(self.name, serial, plain_alarms(active))

    def weigh(self, flows: Flows) -> None:
        """See `Context.weigh`."""
        state = self._router.state(flows.serial)
        if state is None:
            return
        self._judge(state.device, flows)
        balance = self._services.balance
        if not balance.take(self.name, state.device, flows):
            return
        doubts = balance.doubts(self.name, state.device)
        if doubts is None:
            self.settle(FindingCode.SIGN_DOUBTFUL, flows.serial)
        else:
            self.find(FindingCode.SIGN_DOUBTFUL, flows.serial, doubts.text, doubts.remedy)

    def _judge(self, device: Device, flows: Flows) -> None:
        odd = self._services.ratings.judge(self.name, device, flows.values)
        if odd is None:
            self.settle(FindingCode.VALUE_DOUBTFUL, device.serial)
            return
        self.find(
            FindingCode.VALUE_DOUBTFUL,
            device.serial,
            f"{odd.text} ({flows.where})",
            f"compare it with the portal; where {odd.point} has another unit there, set its `scale` under `overrides`, "
            "where the rating is wrong, have it put right in the portal",
        )

    def sheets(self) -> Sequence[Sheet]:
        """See `Context.sheets`."""
        return list(self._services.balance.sheets())

    def active_alarms(self) -> Sequence[Alarm]:
        """See `Context.active_alarms`."""
        return list(self._router.alarm_book)

    def heard_elsewhere(self, serial: str) -> datetime | None:
        """See `Context.heard_elsewhere`."""
        return self._router.heard(serial, but=self.name)

    def history_provider(self, serial: str) -> HistoryProvider | None:
        """See `Context.historian`."""
        return next((h for h in self._services.historians.values() if h.keeps(serial)), None)

    def register_servers(self) -> Mapping[str, RegisterServer]:
        """See `Context.register_servers`."""
        bridges = ((name, runner.bridge) for name, runner in self._services.runners.items())
        return {name: bridge for name, bridge in bridges if isinstance(bridge, RegisterServer)}

    def call_budgets(self) -> Mapping[str, CallBudget]:
        """See `Context.call_budgets`."""
        bridges = ((name, runner.bridge) for name, runner in self._services.runners.items())
        return {name: bridge.call_budget() for name, bridge in bridges if isinstance(bridge, Budgeted)}

    async def submit(self, *commands: Command) -> list[CommandEvent]:
        """See `Context.submit`."""
        return await self._services.dispatcher.submit(*map(plain_command, commands))

    async def steps(self, command_id: str) -> list[CommandEvent]:
        """See `Context.steps`."""
        return await self._services.dispatcher.steps(command_id)

    async def cancel(self, *ids: str, by: Origin) -> int:
        """See `Context.cancel`."""
        return await self._services.dispatcher.cancel(ids, by)

    async def keep_receipt(self, receipt: str, *ids: str) -> None:
        """See `Context.keep_receipt`."""
        await self._services.dispatcher.keep_receipt(receipt, *ids)

    def may_leave(self, *ids: str) -> bool:
        """See `Context.may_leave`."""
        return self._services.dispatcher.may_leave(*ids)

    def still_wanted(self, *ids: str) -> bool:
        """See `Context.still_wanted`."""
        return self._services.dispatcher.still_wanted(*ids)

    async def commands_by_receipt(self, receipts: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str]]]:
        """See `Context.commands_by_receipt`."""
        return await self._services.dispatcher.commands_by_receipt(receipts)

    def commanded(self, serial: str) -> Mapping[str, tuple[datetime, Value]]:
        """See `Context.commanded`."""
        return self._services.dispatcher.memory.shown(serial)

    def order(self, command: Command) -> Mapping[str, Value]:
        """See `Context.order`."""
        return self._services.dispatcher.memory.order(command)

    def underway(self, by: Origin) -> Sequence[Command]:
        """See `Context.underway`."""
        return self._services.dispatcher.underway(by)

    def sent(self, serial: str) -> Sequence[Command]:
        """See `Context.sent`."""
        return self._services.dispatcher.sent(serial)

    def writes(self) -> Iterable[Written]:
        """See `Context.writes`."""
        return self._services.dispatcher.wear

    @property
    def journal_trouble(self) -> str:
        """See `Context.journal_trouble`."""
        return self._services.dispatcher.journal_trouble

    async def result_came(self, command_id: str, outcome: Outcome) -> ResultEffect:
        """See `Context.told`."""
        return await self._services.dispatcher.result_came(command_id, outcome)

    def call_estimate(self, setpoint: str, serials: Sequence[str]) -> Mapping[str, CallEstimate | None]:
        """See `Context.effort`."""
        return self._services.dispatcher.call_estimate(setpoint, serials)

    def takers(self, setpoint: str, serial: str) -> Sequence[str]:
        """See `Context.takers`."""
        return self._services.dispatcher.takers(setpoint, serial)

    def state(self, serial: str) -> DeviceState | None:
        """See `Context.state`."""
        return self._router.state(serial)

    def states(self) -> Sequence[DeviceState]:
        """See `Context.states`."""
        return self._router.states()

    def announced(self) -> Sequence[DeviceState]:
        """See `Context.announced`."""
        return self._router.announced()

    def claim(self, serial: str) -> str:
        """See `Context.claim`."""
        return self._services.steered.setdefault(serial, self.name)

    def bridges(self) -> Sequence[BridgeStatus]:
        """See `Context.bridges`."""
        return self._router.bridges()

    def permitted(self, device: Device, origin: Origin) -> Mapping[str, Range]:
        """See `Context.permitted`."""
        return self._services.policy.permitted(device, origin)

    def judge(self, *commands: Command) -> Refusal | None:
        """See `Context.judge`."""
        return self._services.dispatcher.judge(*commands)

    def explain(self, command: Command) -> Verdict:
        """See `Context.explain`."""
        return self._services.dispatcher.explain(plain_command(command))

    @property
    def battery_window(self) -> float:
        """See `Context.battery_window`."""
        return self._services.policy.settings.battery_window

    @property
    def halted(self) -> Halt | None:
        """See `Context.halted`."""
        return self._services.policy.halting.current

    async def halt(self, by: Origin, reason: str = "") -> Halt:
        """See `Context.halt`."""
        return await self._services.policy.halting.halt(by, reason)

    async def resume(self, by: Origin) -> None:
        """See `Context.resume`."""
        await self._services.policy.resume(by)

    def restart(self, name: str) -> None:
        """See `Context.restart`."""
        self._services.runners[name].begin_anew()

    async def reload(self) -> str:
        """See `Context.reload`."""
        try:
            return await self._services.reload()
        except ConfigError as error:
            raise GatewayError("\n".join(error.lines())) from None

    def set_log_level(self, level: str) -> None:
        """See `Context.set_log_level`."""
        self._services.set_log_level(level)

    @property
    def has_said(self) -> bool:
        """Whether it has said that it is up, or why it is down; not only that it connects."""
        return self._last_said is not None

    def report(self, *, up: bool | None, detail: str = "") -> None:
        """See `Context.report`."""
        self._has_reported = True
        detail = plain(detail, MAX_DETAIL)
        known = self._status
        if known is not None and (known.up, known.detail) == (bool(up), detail):
            return
        since = known.since if known is not None and known.up == up else self.clock.now()
        status = BridgeStatus(name=self.name, type=self.type, up=bool(up), detail=detail, since=since)
        self._status = msgspec.structs.replace(status, findings=tuple(self._findings))
        self._router.bridge_status(self._status)
        if up is None or up == self._last_said:
            self.log.debug("connecting" if up is None else "still down", detail=detail)
            return
        self._last_said = up
        if up and self._inherited:
            # It has found what there is; what it has not found is nobody's any more.
            inherited, self._inherited = self._inherited, set()
            for serial in inherited:
                self.withdraw(serial)
        self.log.info("up") if up else self.log.warning("down", detail=detail)

    def find(self, code: FindingCode, subject: str, text: str, remedy: str = "") -> None:
        """See `Context.find`."""
        if self._findings.find(code, subject, text, remedy, self.clock.now()):
            self._show_findings()
            if code in ALARMING:
                self._alarm(subject)

    def settle(self, code: FindingCode, subject: str) -> None:
        """See `Context.settle`."""
        if self._findings.settle(code, subject):
            self._show_findings()
            if code in ALARMING:
                self._alarm(subject)

    def _alarm(self, serial: str) -> None:
        """Have the findings of a device among its alarms, apart from those that its bridge brings."""
        found = [each for each in self._findings if each.code in ALARMING and each.subject == serial]
        alarms = [
            Alarm(
                serial=serial,
                id=f"{each.code}@{self.name}",
                code=each.code,
                text=each.text,
                severity=Severity.WARNING,
                raised=each.since,
            )
            for each in found
        ]
        self._router.alarms(findings_source(self.name), serial, alarms)

    def forget_findings(self) -> None:
        """Take back what it found."""
        self._findings.clear()
        for serial in {alarm.serial for alarm in self._router.alarm_book if alarm.code in ALARMING}:
            # Of a device that is not known yet, the book itself has to forget it.
            self._router.alarms(findings_source(self.name), serial, [])
            self._router.alarm_book.take(findings_source(self.name), serial, [])

    def _show_findings(self) -> None:
        if self._status is not None:
            self._status = msgspec.structs.replace(self._status, findings=tuple(self._findings))
            self._router.bridge_status(self._status)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """See `Context.spawn`."""
        task = asyncio.create_task(work, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)


def _in_words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
