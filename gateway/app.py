"""Composition root: builds the gateway from its configuration, starts it, stops it."""

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from gateway import __version__, logs
from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.core.bridge import Controller, Historian, Sink
from gateway.core.clock import Clock, SystemClock
from gateway.core.control import drift
from gateway.core.control.dispatch import Dispatcher
from gateway.core.document import nearest
from gateway.core.journal.audit import Deed, Note
from gateway.core.journal.file import JOURNAL, JournalError
from gateway.core.journal.journal import Journal
from gateway.core.model import Command, DeviceKind
from gateway.core.policy.checks import Verdict
from gateway.core.policy.halt import FILE_NAME as HALT_FILE
from gateway.core.policy.halt import Halting
from gateway.core.policy.policy import Policy
from gateway.core.router import Router
from gateway.core.supervisor import Runner, Services
from gateway.settings import CLI_BRIDGE, Config

AGEING: Final = 1.0
"""Seconds between looks for devices that have gone stale."""
DISCOVERY: Final = 30.0
"""Seconds that a command without a running gateway waits for devices to be found."""

log = structlog.get_logger("gateway")


class DataDirError(Exception):
    """`data_dir` can't be used. The message says what to do."""


class Gateway:
    """One gateway: the core, and a runner for each bridge."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        clock = clock or SystemClock()
        control = config.root.control
        data_dir = config.data_dir
        self.router = Router(clock)
        self._clock = clock
        self._journal = Journal(data_dir / JOURNAL, config.root.audit, clock)
        self._halting = Halting(clock, data_dir / HALT_FILE, self._journal.note)
        policy = self._policy = Policy(control, clock, self.router.state, self._halting)
        self._dispatcher = Dispatcher(self.router, policy, self._journal, clock)
        services = Services(
            config.root.gateway.id, data_dir, clock, self.router, policy, self._dispatcher, set_log_level=logs.set_level
        )
        self.runners = {
            CLI_BRIDGE: Runner(CLI_BRIDGE, "local", LocalBridge, LocalSettings(), services),
            **{b.name: Runner(b.name, b.type, b.bridge, b.settings, services) for b in config.bridges},
        }
        in_order = [*control.order, *(name for name in self.runners if name not in control.order)]
        self._dispatcher.use(
            {name: bridge for name in in_order if isinstance(bridge := self.runners[name].bridge, Controller)}
        )
        for name in in_order:
            if isinstance(bridge := self.runners[name].bridge, Historian):
                services.historians[name] = bridge
        self._ageing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self._unmet_told = False

    async def start(self) -> None:
        """Open the journal and start every bridge. Raises DataDirError or JournalError."""
        self._lock = _lock(self.config.data_dir)
        await self._journal.open()
        for runner in self.runners.values():
            runner.attach()
        for event in await self._journal.untold():
            self.router.command_step(event)
        self._note(Deed.STARTED, f"version {__version__}")
        log.info("starting", version=__version__, config=str(self.config.file), data_dir=str(self.config.data_dir))
        self._halting.load()
        await self._dispatcher.start()
        self.router.alarm_book.restore(self.config.data_dir, [*self.runners, drift.SOURCE])
        self._dispatcher.drift.restored()
        self._keeping = asyncio.create_task(self.router.alarm_book.keep(), name="alarms")
        self._ageing = asyncio.create_task(self._age(), name="ageing")
        for runner in self.runners.values():
            runner.start()

    async def stop(self) -> None:
        """Stop origins and sources first, then what shows how it ended, then the journal."""
        if self._ageing is not None:
            self._ageing.cancel()
        await self._dispatcher.stop()
        await asyncio.gather(*(runner.stop() for runner in self.runners.values()))
        await self._keep_alarms()
        self._note(Deed.STOPPED)
        await self._journal.close()
        if self._lock is not None:
            os.close(self._lock)
        log.info("stopped")

    def _note(self, deed: Deed, detail: str = "") -> None:
        self._journal.note_soon(Note(deed=deed, time=self._clock.now(), origin="gateway", detail=detail))

    async def _keep_alarms(self) -> None:
        """Store, for the last time, which alarms are active."""
        if self._keeping is None:
            return
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        try:
            await self.router.alarm_book.save()
        except OSError as error:
            log.error("active alarms can't be stored", error=str(error))

    async def discover(self, timeout: float = DISCOVERY) -> None:
        """Start only what finds devices, until all of it has, or `timeout` seconds have passed; then stop.

        Touches neither journal nor listeners, so it is safe beside a running gateway.
        """
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        self._halting.load()
        async with self._finding(self._finders(), timeout):
            pass

    @asynccontextmanager
    async def telling(self, timeout: float = DISCOVERY) -> AsyncIterator[None]:
        """Run only what can tell the past, once it has found devices, or `timeout` seconds have passed.

        Not beside a running gateway, which has the account's calls to itself. Raises DataDirError.
        """
        lock = _lock(self.config.data_dir)
        historians = [runner for runner in self.runners.values() if isinstance(runner.bridge, Historian)]
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
        waiting = {source.name for source in sources}
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while waiting:
                        updates = await mailbox.take()
                        waiting -= {status.name for status in updates.bridges.values() if status.up}
            yield
        finally:
            self.router.detach("discovery")
            await asyncio.gather(*(source.stop() for source in sources))

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(AGEING)
            self.router.age()
            if not self._unmet_told and self._found():
                self._unmet_told = True
                self._tell_unmet()

    def _found(self) -> bool:
        """Return whether every bridge that finds devices has done so: it reports up once it has."""
        up = {status.name for status in self.router.bridges() if status.up}
        finders = {runner.name for runner in self._finders()}
        return bool(finders) and finders <= up

    def _tell_unmet(self) -> None:
        """Log what rules of control.allow name and nobody has: a device may come later, or be misspelt."""
        devices = {state.device.serial: state.device for state in self.router.states()}
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

    def explain(self, command: Command) -> Verdict:
        """Return what would become of a command, check by check."""
        return self._dispatcher.explain(command)

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[Policy]:
        """Hold `data_dir` and the journal, and start nothing. Raises DataDirError.

        A journal that can't be opened is no obstacle here: who writes to it is told then.
        """
        lock = _lock(self.config.data_dir)
        try:
            with suppress(JournalError):
                await self._journal.open()
            self._halting.load()
            yield self._policy
        finally:
            await self._journal.close()
            os.close(lock)


async def run_until_signal(gateway: Gateway) -> None:
    """Run a gateway until SIGINT or SIGTERM, then stop it in good order."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await gateway.start()
    try:
        await stop.wait()
    finally:
        await gateway.stop()


def _lock(data_dir: Path) -> int:
    """Make `data_dir` ours alone: two gateways on one journal would execute every command twice."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(
            f"gateway.data_dir {data_dir} can't be used ({error.strerror}); make it writable, or name another"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise DataDirError(
            f"another gateway runs with gateway.data_dir {data_dir}, or a `history`; stop it, or give this one a "
            "directory of its own"
        ) from None
    return descriptor
