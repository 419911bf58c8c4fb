"""Keeps bridges alive: starts them, feeds sinks, restarts what dies, and says how each does."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from gateway.core.bridge import Bridge, BridgeSettings, Effort, Historian, HistorySink, Outcome, Sink, Told
from gateway.core.clock import Clock, set_within
from gateway.core.control.dispatch import Dispatcher
from gateway.core.mailbox import Mailbox
from gateway.core.model import Alarm, BridgeStatus, Command, CommandEvent, Device, DeviceState, Halt, Range, Snapshot
from gateway.core.policy.checks import Verdict
from gateway.core.policy.policy import Policy
from gateway.core.router import Router

RESTART_FIRST: Final = 1.0
RESTART_MOST: Final = 60.0
HEALTHY_AFTER: Final = 60.0
"""Seconds a bridge has to run before its next failure is a first one again."""
STOP_TIMEOUT: Final = 10.0


class Services(msgspec.Struct, frozen=True):
    """What all bridges of one gateway share."""

    gateway_id: str
    data_dir: Path
    clock: Clock
    router: Router
    policy: Policy
    dispatcher: Dispatcher
    historians: dict[str, Historian] = {}
    """Bridge name → one that can tell a device's past, in the configured order."""
    set_log_level: Callable[[str], None] = lambda _: None
    runners: dict[str, "Runner"] = {}
    """Every bridge by its name."""


class _RestartError(Exception):
    """Somebody wants the bridge to begin anew."""


class Runner:
    """Runs one bridge, and is its `Context`."""

    def __init__(
        self, name: str, type_: str, bridge: type[Bridge], settings: BridgeSettings, services: Services
    ) -> None:
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
        self._has_reported = False
        self._last_said: bool | None = None
        """Whether the log was last told up or down."""
        self._main: asyncio.Task[None] | None = None
        self._stored_to = 0
        """Number of the newest snapshot when the bridge last asked for what is stored."""
        self._restart_wanted = asyncio.Event()
        self.bridge = bridge(settings, self)
        services.runners[name] = self

    # the supervisor's side

    def attach(self) -> None:
        """Have a sink miss nothing from now on, though it has not started."""
        self._attach()

    def start(self) -> None:
        """Begin to run the bridge, in a task of its own. A sink misses nothing from now on."""
        self._attach()
        self._main = asyncio.create_task(self._run(), name=f"bridge {self.name}")

    async def stop(self) -> None:
        """Stop the bridge and wait for its end."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.gather(self._main, return_exceptions=True)
            self._main = None
        self._router.detach(self.name)

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
            pause = min(pause * 2, RESTART_MOST)

    async def _run_once(self) -> None:
        """Run the bridge until a part of it raises."""
        self._crashed = asyncio.get_running_loop().create_future()
        self._has_reported = False
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
        if isinstance(self.bridge, HistorySink):
            return self._router.attach(self.name, self.bridge.backlog)
        return self._router.attach(self.name) if isinstance(self.bridge, Sink) else None

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
            async with asyncio.timeout(STOP_TIMEOUT):
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

    def announce(self, device: Device) -> None:
        """See `Context.announce`."""
        self._router.announce(self.name, device)

    def withdraw(self, serial: str) -> None:
        """See `Context.withdraw`."""
        self._router.withdraw(self.name, serial)

    def publish(self, snapshot: Snapshot) -> int:
        """See `Context.publish`."""
        return self._router.publish(snapshot)

    def record(self, snapshot: Snapshot) -> int:
        """See `Context.record`."""
        return self._router.record(snapshot)

    async def stored(self, first: int | None = None) -> None:
        """See `Context.stored`."""
        since, self._stored_to = self._stored_to + 1, self._router.published
        await self._router.stored(since if first is None else first)

    def alarms(self, serial: str, active: Sequence[Alarm]) -> None:
        """See `Context.alarms`."""
        self._router.alarms(self.name, serial, active)

    def active_alarms(self) -> Sequence[Alarm]:
        """See `Context.active_alarms`."""
        return list(self._router.alarm_book)

    def heard_elsewhere(self, serial: str) -> datetime | None:
        """See `Context.heard_elsewhere`."""
        return self._router.heard(serial, but=self.name)

    def historian(self, serial: str) -> Historian | None:
        """See `Context.historian`."""
        return next((h for h in self._services.historians.values() if h.keeps(serial)), None)

    async def submit(self, *commands: Command) -> list[CommandEvent]:
        """See `Context.submit`."""
        return await self._services.dispatcher.submit(*commands)

    async def steps(self, command_id: str) -> list[CommandEvent]:
        """See `Context.steps`."""
        return await self._services.dispatcher.steps(command_id)

    async def cancel(self, *ids: str, by: str) -> int:
        """See `Context.cancel`."""
        return await self._services.dispatcher.cancel(ids, by)

    async def keep_receipt(self, receipt: str, *ids: str) -> None:
        """See `Context.keep_receipt`."""
        await self._services.dispatcher.keep_receipt(receipt, *ids)

    async def command_of(self, receipt: str, serial: str) -> str | None:
        """See `Context.command_of`."""
        return await self._services.dispatcher.command_of(receipt, serial)

    async def told(self, command_id: str, outcome: Outcome) -> Told:
        """See `Context.told`."""
        return await self._services.dispatcher.told(command_id, outcome)

    def effort(self, setpoint: str, serials: Sequence[str]) -> Mapping[str, Effort | None]:
        """See `Context.effort`."""
        return self._services.dispatcher.effort(setpoint, serials)

    def state(self, serial: str) -> DeviceState | None:
        """See `Context.state`."""
        return self._router.state(serial)

    def states(self) -> Sequence[DeviceState]:
        """See `Context.states`."""
        return self._router.states()

    def bridges(self) -> Sequence[BridgeStatus]:
        """See `Context.bridges`."""
        return self._router.bridges()

    def permitted(self, device: Device, origin: str) -> Mapping[str, Range]:
        """See `Context.permitted`."""
        return self._services.policy.permitted(device, origin)

    def explain(self, command: Command) -> Verdict:
        """See `Context.explain`."""
        return self._services.dispatcher.explain(command)

    @property
    def halted(self) -> Halt | None:
        """See `Context.halted`."""
        return self._services.policy.halting.current

    async def halt(self, by: str, reason: str = "") -> Halt:
        """See `Context.halt`."""
        return await self._services.policy.halting.halt(by, reason)

    async def resume(self, by: str) -> None:
        """See `Context.resume`."""
        await self._services.policy.resume(by)

    def restart(self, name: str) -> None:
        """See `Context.restart`."""
        self._services.runners[name].begin_anew()

    def set_log_level(self, level: str) -> None:
        """See `Context.set_log_level`."""
        self._services.set_log_level(level)

    def report(self, *, up: bool | None, detail: str = "") -> None:
        """See `Context.report`."""
        self._has_reported = True
        known = self._status
        if known is not None and (known.up, known.detail) == (bool(up), detail):
            return
        since = known.since if known is not None and known.up == up else self.clock.now()
        self._status = BridgeStatus(name=self.name, type=self.type, up=bool(up), detail=detail, since=since)
        self._router.bridge_status(self._status)
        if up is None or up == self._last_said:
            self.log.debug("connecting" if up is None else "still down", detail=detail)
            return
        self._last_said = up
        self.log.info("up") if up else self.log.warning("down", detail=detail)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """See `Context.spawn`."""
        task = asyncio.create_task(work, name=f"{self.name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)


def _in_words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
