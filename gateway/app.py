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
from gateway.core.dispatch import Dispatcher
from gateway.core.journal import Journal
from gateway.core.policy import Policy
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
        policy = Policy(control, clock)
        self._journal = Journal(data_dir / "journal.sqlite")
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

    async def start(self) -> None:
        """Open the journal and start every bridge. Raises DataDirError or JournalError."""
        self._lock = _lock(self.config.data_dir)
        await self._journal.open()
        log.info("starting", version=__version__, config=str(self.config.file), data_dir=str(self.config.data_dir))
        await self._dispatcher.start()
        self.router.alarm_book.restore(self.config.data_dir, self.runners)
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
        await self._journal.close()
        if self._lock is not None:
            os.close(self._lock)
        log.info("stopped")

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
        sources = [
            runner
            for runner in self.runners.values()
            if not isinstance(runner.bridge, Sink) and not getattr(runner.bridge, "listens", False)
        ]
        async with self._finding(sources, timeout):
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
