"""Asks what became of tasks: once for all devices of one task, and no sooner than it makes sense."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from gateway.core.clock import Clock
from gateway.core.model import Command
from gateway.sems.calls import Entry
from gateway.sems.catalogue import Interface

ASK_FIRST: Final = 0.5
MAX_ASK_SECONDS: Final = 10.0
FEW: Final = 4
"""Tasks that are asked about at a time as if calls cost nothing."""
ENDS: Final = ("succeeded", "failed")
USUAL_FIRST: Final = 3.0
"""Seconds that a task is thought to take before any was seen."""
LEARN: Final = 0.5
SHRINK: Final = 0.001
"""How far one task that took longer, or not so long, moves what is known of how long tasks take."""

Ask = Callable[[Interface, str, Mapping[str, Command]], Awaitable[Mapping[str, Entry]]]
"""Asks once about a task, for these commands by their serials; returns what is said of each."""


class _Waiter(msgspec.Struct, eq=False):
    command: Command
    answer: asyncio.Future[Entry]


class _Task:
    """One task, and who waits for what."""

    def __init__(self) -> None:
        self.waiting: list[_Waiter] = []
        self.worker: asyncio.Task[None] | None = None

    @property
    def asked(self) -> dict[str, Command]:
        """Serial → command, of those that nothing final is known of."""
        return {waiter.command.serial: waiter.command for waiter in self.waiting if not waiter.answer.done()}


class Results:
    """What is under way at SEMS."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._tasks: dict[tuple[str, str], _Task] = {}
        self._usual = USUAL_FIRST
        """Seconds that tasks took of late."""

    async def settled(self, interface: Interface, receipt: str, command: Command) -> Entry:
        """Return what is said of the command's device once that is final. Raises what asking raises."""
        key = interface.name, receipt
        task = self._tasks.setdefault(key, _Task())
        waiter = _Waiter(command, asyncio.get_running_loop().create_future())
        task.waiting.append(waiter)
        if task.worker is None:
            task.worker = asyncio.create_task(self._follow(key, task, interface), name=f"asks about {receipt}")
        try:
            return await waiter.answer
        finally:
            task.waiting.remove(waiter)
            if not task.waiting:
                self._over(key, task)
                task.worker.cancel()

    async def _follow(self, key: tuple[str, str], task: _Task, interface: Interface) -> None:
        began, pause = self._clock.monotonic(), ASK_FIRST
        try:
            # Those of one task ask in the same turn of the loop.
            await asyncio.sleep(0)
            if len(self._tasks) > FEW:
                # Each question is a call; of many tasks, those that come too early add up.
                await asyncio.sleep(min(self._usual, MAX_ASK_SECONDS))
            asks = 0
            while asked := task.asked:
                said = await self._ask(interface, key[1], asked)
                asks += 1
                if self._take(task, said):
                    self._learn(self._clock.monotonic() - began, asks)
                if task.asked:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, MAX_ASK_SECONDS)
        except Exception as error:  # noqa: BLE001 - who waits gets it
            for waiter in task.waiting:
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
        finally:
            self._over(key, task)

    def _over(self, key: tuple[str, str], task: _Task) -> None:
        """Have whoever comes later begin anew: the worker of this one answers nobody any more."""
        if self._tasks.get(key) is task:
            del self._tasks[key]

    def _take(self, task: _Task, said: Mapping[str, Entry]) -> bool:
        """Pass on to each what is final. Returns whether anything was."""
        found = False
        for waiter in task.waiting:
            entry = said.get(waiter.command.serial)
            if entry is not None and entry.reading.text("state") in ENDS and not waiter.answer.done():
                waiter.answer.set_result(entry)
                found = True
        return found

    def _learn(self, took: float, asks: int) -> None:
        """Take note of how long a task took: no longer than that where the first question had its answer."""
        self._usual = self._usual * (1 - SHRINK) if asks == 1 else self._usual + LEARN * (took - self._usual)
