"""Takes the steps of commands: allowed by the table, journaled, then published. Nothing else does.

A step that has begun is finished, whoever is cancelled meanwhile: what the journal has is what is published.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from gateway.commands.lane import Entry
from gateway.commands.state_machine import Trigger, next_state
from gateway.core.clock import Clock, Moment
from gateway.core.model import CommandEvent, CommandState
from gateway.core.router import Router
from gateway.journal.journal import Journal, JournalError
from gateway.journal.writes import Write

T = TypeVar("T")
log = structlog.get_logger("control")

STOP_TIMEOUT: Final = 30.0
"""Seconds for steps under way when the gateway stops."""


class Change(NamedTuple):
    """What is to be written in the same commit as a step, and what is to be done once that is on the disk."""

    write: Write
    done: Callable[[], None] = lambda: None


class Move(NamedTuple):
    """What happened to a command."""

    entry: Entry
    happening: Trigger
    detail: str = ""


class Steps:
    """The one way to the journal and to the sinks for steps of commands."""

    def __init__(self, router: Router, journal: Journal, clock: Clock) -> None:
        self._router = router
        self._journal = journal
        self._clock = clock
        self._under_way: set[asyncio.Future[Any]] = set()
        self.ended: Callable[[Entry], None] = lambda _: None
        """Called with every command that has come to its end, before the sinks hear of it."""

    async def take(self, *moves: Move, along: Iterable[Change] = (), owing: bool = False) -> list[CommandEvent]:
        """Take steps in this order, with what is to be written `along`: all in one commit, or none.

        They are taken also when who waits is cancelled. `owing` is whether what is written waits for the disk only
        shortly; steps of reverts always do. Raises JournalError; then nothing has changed.
        """
        now = self._clock.moment()
        states: dict[str, CommandState | None] = {}
        events = []
        for entry, happening, detail in moves:
            state = next_state(states.get(entry.command.id, entry.state), happening)
            states[entry.command.id] = state
            events.append(
                CommandEvent(
                    command=entry.command,
                    state=state,
                    time=_time(entry, happening, now),
                    detail=detail,
                    verified=happening is Trigger.CONFIRMED,
                )
            )
        changes = list(along)
        owing = owing or (bool(moves) and all(entry.is_revert for entry, _, _ in moves))
        written = self._journal.post(*events, along=[change.write for change in changes], owing=owing)
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(written)
        # Called by the journal, not by who waits here: who is cancelled meanwhile takes no step back.
        written.add_done_callback(partial(self._written, moves, events, changes, taken))
        await taken
        return events

    def _written(
        self,
        moves: Sequence[Move],
        events: Sequence[CommandEvent],
        changes: Sequence[Change],
        taken: "asyncio.Future[None]",
        written: "asyncio.Future[None]",
    ) -> None:
        self._under_way.discard(written)
        error: BaseException | None = JournalError("it was closed") if written.cancelled() else written.exception()
        if error is None:
            try:
                self._publish(moves, events, changes)
            except Exception as mistake:  # noqa: BLE001 - raised where the step is waited for
                error = mistake
        if taken.done():  # who waited was cancelled
            if error is not None and not isinstance(error, JournalError):
                log.error("a step could not be published", exc_info=error)
        elif error is None:
            taken.set_result(None)
        else:
            taken.set_exception(error)

    def _publish(self, moves: Sequence[Move], events: Sequence[CommandEvent], changes: Sequence[Change]) -> None:
        for change in changes:
            change.done()
        for (entry, happening, _), event in zip(moves, events, strict=True):
            entry.step(happening)
            entry.event = event
            if event.state.final:
                self.ended(entry)
            self._router.command_step(event)

    async def owned(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something to its end, also when who waits for it is cancelled."""
        return await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have something done to its end, whoever waits for it."""
        task = asyncio.create_task(work, name="step of a command")
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; one who was cancelled does not want it

    async def drained(self) -> None:
        """Wait until all that has begun is finished."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=STOP_TIMEOUT)


def _time(entry: Entry, happening: Trigger, now: Moment) -> datetime:
    """Return the time of a step: that a command has left is known with its answer only, which may come much later."""
    left = entry.left_at
    if happening is not Trigger.LEFT or left is None:
        return now.wall
    # Where the clock was set back meanwhile, it is reckoned from what that says now, or the end came before it.
    return left.wall if left.wall <= now.wall else now.later(left.boot - now.boot).wall
