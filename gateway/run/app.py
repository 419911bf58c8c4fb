"""Composition root: builds the gateway from its configuration, starts it, stops it."""

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from gateway import __version__
from gateway.api.bridge import HistoryProvider, Sink
from gateway.api.registry import installed
from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.commands import drift
from gateway.commands.dispatch import Dispatcher
from gateway.commands.policy.halt import FILE_NAME as HALT_FILE
from gateway.commands.policy.halt import Halting
from gateway.commands.policy.policy import Policy
from gateway.config.document import ConfigError, nearest
from gateway.core import files
from gateway.core.clock import Clock, SystemClock
from gateway.core.controller import Controller
from gateway.core.model import GATEWAY, Command, CommandEvent, DeviceKind
from gateway.core.router import Router
from gateway.core.totals_file import TotalsFile
from gateway.core.verdict import Verdict
from gateway.http import descriptors
from gateway.journal.audit import AuditAction, Note
from gateway.journal.file import JOURNAL
from gateway.journal.journal import Journal, JournalError
from gateway.run import logs
from gateway.run.data_dir import LEFT_BY_A_START, close_to_others, hold
from gateway.run.garbage import short_collections
from gateway.run.left import Left
from gateway.run.listeners import connections_of
from gateway.run.loop_monitor import watched_loop
from gateway.run.reload import Changes, changes
from gateway.run.service_manager import ServiceManager
from gateway.run.settings import CLI_BRIDGE, Config
from gateway.run.stopping import Parts, on_signal
from gateway.run.supervisor import Runner, Services, findings_source
from gateway.run.upgrade import copy_after_upgrade

AGEING: Final = 1.0
"""Seconds between looks for devices that have gone stale."""
SUMMED_UP_WITHIN: Final = 30.0
"""Seconds after a start at which it is said what there is, also where a cloud has not answered yet."""
AGED_PER_TURN: Final = 50
"""Devices that go stale in one turn of the loop, a millisecond: where SEMS is gone, all of them do at once."""
DISCOVERY: Final = 30.0
"""Seconds that a command without a running gateway waits for devices to be found."""

log = structlog.get_logger("gateway")


class Gateway:
    """One gateway: the core, and a runner for each bridge."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        clock = clock or SystemClock()
        control = config.root.control
        data_dir = config.data_dir
        self.router = Router(clock)
        self._clock = clock
        self._journal = Journal(data_dir / JOURNAL, config.root.audit, clock, LEFT_BY_A_START)
        self._halting = Halting(clock, data_dir / HALT_FILE, self._journal.note)
        policy = self._policy = Policy(control, clock, self.router.state, self._halting)
        self._dispatcher = Dispatcher(self.router, policy, self._journal, clock)
        self._services = Services(
            config.root.gateway.id,
            data_dir,
            clock,
            self.router,
            policy,
            self._dispatcher,
            set_log_level=logs.set_level,
            reload=self.reload,
        )
        self._left = Left(self._services, self._journal)
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self.runners = {
            CLI_BRIDGE: Runner(CLI_BRIDGE, "local", LocalBridge, LocalSettings(), self._services),
            **{b.name: Runner(b.name, b.type, b.load(), b.settings, self._services) for b in config.bridges},
        }
        self._use_bridges()
        self._ageing: asyncio.Task[None] | None = None
        self._halts: asyncio.Task[None] | None = None
        self._keeping: list[asyncio.Task[None]] = []
        """What writes down, now and then, what is to be known after a restart."""
        self._totals = TotalsFile(self.router.totals, config.data_dir)
        self._lock: int | None = None
        self._began = math.inf
        self._started = False
        self._summed_up = False
        self._unmet_told = False
        self.on_summary: Callable[[str], None] = lambda _: None
        """Told, once, what there is."""

    def _use_bridges(self) -> None:
        """Have commands carried out, and the past told, by the bridges that there are now, in the configured order."""
        order = self.config.root.control.order
        in_order = [*order, *(name for name in self.runners if name not in order)]
        bridges = {name: self.runners[name].bridge for name in in_order}
        self._dispatcher.use({name: bridge for name, bridge in bridges.items() if isinstance(bridge, Controller)})
        historians = {name: bridge for name, bridge in bridges.items() if isinstance(bridge, HistoryProvider)}
        self._services.historians.clear()
        self._services.historians.update(historians)

    async def reload(self) -> str:
        """Read the configuration again, and restart the bridges whose settings have changed, and no others.

        Returns a line that says what was done, and one for each warning. Raises ConfigError, and then nothing has
        changed.
        """
        async with self._reloading:
            new = await asyncio.to_thread(_read_again, self.config.file)
            found = changes(self.config, new)
            self.config = new
            if found.log:
                logs.set_level(new.root.log.level)
            self._policy.use(new.root.control)
            await self._replace(found)
            warnings = new.warnings()
            for warning in warnings:
                log.warning(warning)
            if left := await self._left.look():
                stand = "1 device still stands" if left == 1 else f"{left} devices still stand"
                warnings.append(
                    f"{stand} as a fleet or a limit told it that does not steer it any more; "
                    "`sems-gateway doctor` says which, and how to let them go"
                )
            log.info("reloaded", done=str(found))
            return "\n".join((str(found), *warnings))

    def reload_soon(self) -> None:
        """Read the configuration again, where the gateway has started; what is wrong with it goes to the log."""

        async def reload() -> None:
            try:
                await self.reload()
            except ConfigError as error:
                for line in error.lines():
                    log.error("not reloaded, all stays as it is", problem=line)

        if self._started:
            task = asyncio.create_task(reload(), name="reload")
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def _replace(self, found: Changes) -> None:
        """End the bridges that are gone or have changed, and start those that are new or have changed."""
        ended = [self.runners.pop(name) for name in (*found.gone, *found.changed)]
        await asyncio.gather(*(runner.stop() for runner in ended))
        for runner in ended:
            runner.forget_findings()
            self._services.runners.pop(runner.name, None)
        for name in found.gone:
            self.router.forget_bridge(name)
            self._services.release(name)
        wanted = {bridge.name: bridge for bridge in self.config.bridges}
        begun = [
            Runner(name, it.type, it.load(), it.settings, self._services, self.router.announced_by(name))
            for name in (*found.changed, *found.fresh)
            if (it := wanted[name])
        ]
        for name in found.changed:
            self._services.release(name)
        self.runners |= {runner.name: runner for runner in begun}
        self._use_bridges()
        for runner in begun:
            runner.is_to_start()
            runner.start()

    async def start(self) -> None:
        """Open the journal and start every bridge. Raises DataDirError or JournalError."""
        self._lock = hold(self.config.data_dir)
        close_to_others(self.config.data_dir, self.config.file)
        await self._journal.open()
        for runner in self.runners.values():
            runner.attach()
        for event in await self._unpublished():
            self.router.command_step(event)
        self._note(AuditAction.STARTED, f"version {__version__}")
        if short := descriptors.shortage(connections_of(self.config)):
            log.warning("too few descriptors", why=short)
        log.info("starting", version=__version__, config=str(self.config.file), data_dir=str(self.config.data_dir))
        self._halting.load()
        await self._dispatcher.start()
        self._dispatcher.look_at_clock()
        told_by = [*self.runners, drift.SOURCE, *map(findings_source, self.runners)]
        self.router.alarm_book.restore(self.config.data_dir, told_by)
        self._dispatcher.drift.restored()
        self.router.good_once.restore(self.config.data_dir)
        # A tenth of a second for 20,000 devices.
        await asyncio.to_thread(self._totals.restore, self._clock.now())
        self._keeping = [
            asyncio.create_task(self.router.alarm_book.keep(), name="alarms"),
            asyncio.create_task(self.router.good_once.keep(), name="devices"),
            asyncio.create_task(self._totals.keep(), name="totals"),
            asyncio.create_task(self._left.watch(), name="left as told"),
        ]
        self._ageing = asyncio.create_task(self._age(), name="ageing")
        self._halts = asyncio.create_task(self._halting.follow(), name="halts of others")
        for runner in self.runners.values():
            runner.is_to_start()
        for runner in self.runners.values():
            runner.start()
        self._keeping.append(
            asyncio.create_task(copy_after_upgrade(self.config, self._clock.now()), name="copy after upgrade")
        )
        self._started = True
        self._began = self._clock.monotonic()

    async def _unpublished(self) -> list[CommandEvent]:
        try:
            return await self._journal.unpublished()
        except JournalError:
            if not self._journal.is_copy:
                raise
            return []  # nobody can say; it is being looked at

    async def stop(self) -> None:
        """Stop origins and sources first, then what shows how it ended, then the journal.

        What does not stop in time is left behind: the journal takes it for a crash. Also where it has not started yet.
        """
        parts = Parts()
        for task in (self._ageing, self._halts, *self._reloads):
            if task is not None:
                task.cancel()
        await parts.stop("commands", self._dispatcher.stop(), others=3.2)
        within = parts.left(others=1.3)
        await parts.stop("bridges", self._stop_bridges(within), others=1.0)
        await parts.stop("alarms", self._keep_alarms(), others=0.8)
        if self._started:
            self._note(AuditAction.STOPPED)
        await parts.stop("journal", self._journal.close())
        if self._lock is not None:
            os.close(self._lock)
        log.info("stopped")

    async def _stop_bridges(self, within: float) -> None:
        """Stop sources first: what they have read shall yet be shown, and stored."""
        deadline = asyncio.get_running_loop().time() + within
        sinks = [runner for runner in self.runners.values() if isinstance(runner.bridge, Sink)]
        others = [runner for runner in self.runners.values() if runner not in sinks]
        await asyncio.gather(*(runner.stop(within / 2) for runner in others))
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.gather(*(runner.stop(left) for runner in sinks))

    def _note(self, action: AuditAction, detail: str = "") -> None:
        self._journal.note_soon(Note(action=action, time=self._clock.now(), origin=GATEWAY, detail=detail))

    async def _keep_alarms(self) -> None:
        """Store, for the last time, which alarms are active, which devices were good once, and all totals."""
        if not self._keeping:
            return
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await self.router.good_once.save()
        await self._totals.save()
        try:
            await self.router.alarm_book.save()
        except OSError as error:
            log.error("active alarms can't be stored", error=str(error))

    async def discover(self, timeout: float = DISCOVERY) -> None:
        """Start only what finds devices, until all of it has, or was refused, or `timeout` seconds have passed.

        Touches neither journal nor listeners, so it is safe beside a running gateway.
        """
        files.make_directory(self.config.data_dir)
        self._halting.load()
        async with self._finding(self._finders(), timeout):
            pass

    @asynccontextmanager
    async def telling(self, timeout: float = DISCOVERY) -> AsyncIterator[None]:
        """Run only what can tell the past, once it has found devices, or `timeout` seconds have passed.

        Not beside a running gateway, which has the account's calls to itself. Raises DataDirError.
        """
        lock = hold(self.config.data_dir)
        historians = [runner for runner in self.runners.values() if isinstance(runner.bridge, HistoryProvider)]
        try:
            async with self._finding(historians, timeout):
                for runner in historians:
                    runner.rest()
                yield
        finally:
            os.close(lock)

    @asynccontextmanager
    async def _finding(self, sources: list[Runner], timeout: float) -> AsyncIterator[None]:
        mailbox = self.router.attach("discovery")
        for source in sources:
            source.start()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    # A refusal is an answer too: who asks at a terminal need not see it tried again.
                    while not all(source.has_said for source in sources):
                        await mailbox.take()
            yield
        finally:
            self.router.detach("discovery")
            await asyncio.gather(*(source.stop() for source in sources))

    async def _age(self) -> None:
        found = False
        while True:
            await asyncio.sleep(AGEING)
            self._dispatcher.look_at_clock()
            aged = self.router.aged()
            for n in range(0, len(aged), AGED_PER_TURN):
                self.router.age(aged[n : n + AGED_PER_TURN])
                await asyncio.sleep(0)
            # One look later, for what was found just now has no Modbus unit yet.
            if not self._summed_up and (found or self._clock.monotonic() > self._began + SUMMED_UP_WITHIN):
                self._summed_up = True
                self._sum_up()
            if found and not self._unmet_told:
                self._unmet_told = True
                self._tell_unmet()
            found = self._unmet_told or self._found()

    def _found(self) -> bool:
        """Return whether every bridge that finds devices has done so: it reports up once it has."""
        up = {status.name for status in self.router.bridges() if status.up}
        finders = {runner.name for runner in self._finders()}
        return bool(finders) and finders <= up

    def _sum_up(self) -> None:
        """Say in one line what there is now, and where it can be found."""
        devices = [state.device for state in self.router.announced()]
        plants = sum(device.kind is DeviceKind.PLANT for device in devices)
        at = [f"{name} {where}" for name, one in self.runners.items() if (where := getattr(one.bridge, "where", ""))]
        down = [status.name for status in self.router.bridges() if not status.up]
        control = self._control_in_words()
        log.info(
            "running",
            plants=plants,
            devices=len(devices) - plants,
            control=control,
            at=", ".join(at),
            **({"down": ", ".join(down)} if down else {}),
        )
        self.on_summary(f"{plants} plants, {len(devices) - plants} devices; control {control}")

    def _control_in_words(self) -> str:
        control = self.config.root.control
        if self._halting.current is not None:
            return "halted"
        if not control.enabled:
            return "off"
        rules = len(control.allow)
        return f"on, {rules} {'rule' if rules == 1 else 'rules'}"

    def _tell_unmet(self) -> None:
        """Log what rules of control.allow name and nobody has: a device may come later, or be misspelt."""
        devices = {state.device.serial: state.device for state in self.router.announced()}
        for unmet in self.config.root.control.unmet(devices):
            known = (
                devices if unmet.key == "devices" else [d.name for d in devices.values() if d.kind is DeviceKind.PLANT]
            )
            log.warning(
                "a rule of control.allow names what is not known",
                rule=unmet.rule + 1,
                line=self.config.rule_lines[unmet.rule],
                key=unmet.key,
                name=unmet.name,
                hint=nearest(unmet.name, known) if known else "no plant has a name",
            )

    def _finders(self) -> list[Runner]:
        """Return what finds devices by itself."""
        return [
            runner
            for runner in self.runners.values()
            if not isinstance(runner.bridge, Sink) and not getattr(runner.bridge, "listens", False)
        ]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Have the process fit for a gateway that runs on its loop: watched, and with short garbage collections."""
        with watched_loop(), short_collections(self.router.count):
            yield

    def explain(self, command: Command) -> Verdict:
        """Return what would become of a command, check by check."""
        return self._dispatcher.explain(command)


def _read_again(file: Path) -> Config:
    """Return a configuration with its bridges loaded. Blocks. Raises ConfigError."""
    config = Config.load(file, installed())
    for bridge in config.bridges:
        bridge.load()
    return config


async def run_until_signal(gateway: Gateway) -> None:
    """Run a gateway until SIGINT or SIGTERM, then stop it; the process ends soon after. See `stopping`."""
    stop = on_signal(gateway.reload_soon)
    manager = ServiceManager.of(os.environ)
    gateway.on_summary = manager.status
    alive = asyncio.create_task(manager.keep_alive(), name="watchdog")
    stopped = asyncio.create_task(stop.wait(), name="until a signal")
    with gateway.watched():
        starting = asyncio.create_task(gateway.start(), name="start")
        # What a start waits for may hang too, e.g. a journal that another process holds.
        await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            manager.ready("started")
            await stopped
        manager.stopping()
        starting.cancel()
        await gateway.stop()
    alive.cancel()
