"""How commands end: what is said of them, what is read back, the dead-man's timers they leave.

That a value is read back is waited for beside the lane, and only until the next command for that setpoint.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from gateway.core.bridge import Outcome
from gateway.core.clock import Clock
from gateway.core.control.drift import Drift
from gateway.core.control.in_force import InForce
from gateway.core.control.lane import Entry, PointKey
from gateway.core.control.life import RESULTS, Happening
from gateway.core.control.steps import Move, Steps
from gateway.core.control.timers import Timers
from gateway.core.control.verify import Finding, Verifier, Watch
from gateway.core.journal.journal import Journal, JournalError
from gateway.core.model import Command, CommandState, Value
from gateway.core.router import Router

log = structlog.get_logger("control")

RETRY_FIRST: Final = 1.0
WRITTEN_AGAIN: Final = Finding(Happening.DONE, "not read back before the next command for it")


class Ends:
    """Writes ends down, once all is known that can be."""

    def __init__(
        self,
        router: Router,
        journal: Journal,
        clock: Clock,
        steps: Steps,
        timers: Timers,
        drift: Drift,
        known: InForce,
        verifier: Verifier,
    ) -> None:
        self._router = router
        self._journal = journal
        self._clock = clock
        self._steps = steps
        self._timers = timers
        self._drift = drift
        self._known = known
        self.verifier: Final = verifier
        self._verifying: dict[PointKey, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """Wait for no read-back any more; the journal knows what was said of the commands."""
        tasks = list(self._verifying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._verifying.clear()

    def confirm(self, command: Command, *, verified: bool) -> None:
        """Take in that a command has set its value."""
        self._known.succeeded(command)
        self._drift.succeeded(command, verified=verified)
        self._router.confirm(command.serial, command.setpoint, command.value)

    async def finish(self, entry: Entry, outcome: Outcome) -> None:
        """Write the end down; or, where a read-back is missing, wait for that beside the lane."""
        await self.make_way(entry.key)
        done = outcome.state is CommandState.SUCCEEDED
        seconds = self.verifier.seconds(entry) if done and not outcome.verified else 0.0
        if done:
            self.confirm(entry.command, verified=outcome.verified)
        if seconds <= 0:
            await self.end(entry, RESULTS[outcome.state, outcome.verified], outcome.detail)
            return
        if entry.state is CommandState.ACCEPTED:
            await self._steps.take(Move(entry, Happening.LEFT, entry.left))
        await self._journal.note_outcome(entry.command.id, outcome)
        self._router.command_done(entry.command)
        self._verifying[entry.key] = asyncio.create_task(
            self._verify(self.verifier.watch(entry), outcome, seconds), name=f"read-back {'/'.join(entry.key)}"
        )

    async def _verify(self, watch: Watch, outcome: Outcome, seconds: float) -> None:
        entry = watch.entry
        finding = await self.verifier.wait(watch, seconds)
        if finding.happening is Happening.CONFIRMED:
            self._drift.succeeded(entry.command, verified=True)
        detail = "; ".join(text for text in (outcome.detail, finding.detail) if text)
        works = True
        while True:
            try:
                await self.end(entry, finding.happening, detail)
            except JournalError as error:
                if works:
                    log.error("command waits for the journal", id=entry.command.id, error=str(error))
                works = False
                await asyncio.sleep(RETRY_FIRST)
            else:
                break
        self._verifying.pop(entry.key, None)

    async def make_way(self, key: PointKey, carried: Mapping[str, Value] | None = None) -> None:
        """End the waiting for read-backs of what is about to be set anew: the setpoint, and what else changes."""
        serial, _ = key
        ending = [key]
        for other, value in (carried or {}).items():
            latest = self.verifier.awaited((serial, other))
            if latest is not None and latest != value:
                ending.append((serial, other))
        for each in ending:
            self.verifier.settle(each, WRITTEN_AGAIN)
            if task := self._verifying.get(each):
                await asyncio.shield(task)

    async def end(self, entry: Entry, happening: Happening, detail: str) -> None:
        """Take the last step, and set the timers by it."""
        async with entry.moving:
            if entry.state is not None and entry.state.final:
                return
            moves = [Move(entry, happening, detail)]
            if entry.state is CommandState.ACCEPTED:
                moves.insert(0, Move(entry, Happening.LEFT, entry.left))
            in_force = happening in (Happening.DONE, Happening.CONFIRMED)
            perhaps = happening in (Happening.UNHEARD, Happening.MISMATCHED)
            await self._steps.take(*moves, along=self._timers.after(entry, in_force=in_force, perhaps=perhaps))

    async def end_unsent(self, entry: Entry, happening: Happening, detail: str) -> None:
        """End a command that is not going out. One that may have left before a restart can't unhappen."""
        if entry.bound is not None or entry.state is CommandState.SENT:
            await self.end(entry, Happening.UNHEARD, f"nothing is known of it, and it is not sent again: {detail}")
            return
        async with entry.moving:
            if entry.waits and entry.outcome is None:
                await self._steps.take(Move(entry, happening, detail))
