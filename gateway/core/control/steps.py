"""Takes the steps of commands: allowed by the table, journaled, then published. Nothing else does.

A step that has begun is finished, whoever is cancelled meanwhile: what the journal has is what everybody is told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from gateway.core.clock import Clock
from gateway.core.control.lane import Entry
from gateway.core.control.life import Happening, next_state
from gateway.core.journal.journal import Journal
from gateway.core.model import CommandEvent, CommandState
from gateway.core.router import Router

T = TypeVar("T")
log = structlog.get_logger("control")

STOP_TIMEOUT: Final = 30.0
"""Seconds for steps under way when the gateway stops."""


class Move(NamedTuple):
    """What happened to a command."""

    entry: Entry
    happening: Happening
    detail: str = ""


class Steps:
    """The one door to the journal and to the sinks for steps of commands."""

    def __init__(self, router: Router, journal: Journal, clock: Clock) -> None:
        self._router = router
        self._journal = journal
        self._clock = clock
        self._under_way: set[asyncio.Task[Any]] = set()
        self.ended: Callable[[Entry], None] = lambda _: None
        """Told of every command that has come to its end, before the sinks are."""

    async def take(self, *moves: Move, along: Iterable[Awaitable[None]] = ()) -> list[CommandEvent]:
        """Take steps in this order, with what is to be written `along`: all in one commit, or none.

        Raises JournalError; then nothing has changed.
        """
        return await self.owned(self._take(moves, along))

    async def _take(self, moves: Iterable[Move], along: Iterable[Awaitable[None]]) -> list[CommandEvent]:
        states: dict[str, CommandState | None] = {}
        events = []
        for entry, happening, detail in moves:
            state = next_state(states.get(entry.command.id, entry.state), happening)
            states[entry.command.id] = state
            events.append(
                CommandEvent(
                    command=entry.command,
                    state=state,
                    time=self._clock.now(),
                    detail=detail,
                    verified=happening is Happening.CONFIRMED,
                )
            )
        # What waits for the journal together is written in one commit.
        results = await asyncio.gather(self._journal.record(*events), *along, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for (entry, happening, _), event in zip(moves, events, strict=True):
            entry.step(happening)
            entry.event = event
            if event.state.final:
                self.ended(entry)
            self._router.command_step(event)
        return events

    async def owned(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something to its end, also when who waits for it is cancelled."""
        task = asyncio.create_task(work, name="step of a command")
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; one who was cancelled does not want it

    async def drained(self) -> None:
        """Wait until all that has begun is finished."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=STOP_TIMEOUT)
