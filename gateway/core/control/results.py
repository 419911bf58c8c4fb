"""What a far side tells of commands by itself: in time, late, twice, or against what it told before."""

import asyncio
from weakref import WeakValueDictionary

import structlog

from gateway.core.bridge import Outcome, Told
from gateway.core.clock import Clock
from gateway.core.control.carry import Carrier
from gateway.core.control.lane import Entry
from gateway.core.control.life import Happening, judge_told
from gateway.core.control.timers import Timers
from gateway.core.control.verify import Finding
from gateway.core.journal.audit import Deed, Note
from gateway.core.journal.journal import Journal
from gateway.core.model import Command, CommandEvent, CommandState
from gateway.core.router import Router

log = structlog.get_logger("control")


class Results:
    """Takes them in. Everything is journaled once a call returns."""

    def __init__(self, router: Router, journal: Journal, clock: Clock, timers: Timers, carrier: Carrier) -> None:
        self._router = router
        self._journal = journal
        self._clock = clock
        self._timers = timers
        self._carrier = carrier
        self._judging: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Command id → held while a result of an ended one is judged: of two at once, the second finds the first."""

    async def of_open(self, entry: Entry, outcome: Outcome) -> Told:
        """Take in a result of a command that has not ended. Its lock is held."""
        if entry.outcome is None or entry.outcome.state is CommandState.UNKNOWN:
            if outcome.state is CommandState.UNKNOWN and (entry.waits or entry.outcome is not None):
                return Told.REPEATED
            await self._journal.note_outcome(entry.command.id, outcome)
            entry.hear(outcome)
            self._carrier.wake(entry)
            return Told.TAKEN
        # Its end is certain; only a read-back, or the journal, is waited for.
        verdict = judge_told(entry.outcome.state, outcome.state)
        if verdict is Told.CONTRADICTED:
            await self._note_contradiction(entry.command, entry.outcome.state, outcome)
        elif outcome.verified:
            self._carrier.ends.verifier.settle(entry.key, Finding(Happening.CONFIRMED, outcome.detail))
        return verdict

    async def of_ended(self, command_id: str, outcome: Outcome) -> Told:
        """Take in a result of a command that has ended, or that nobody knows."""
        lock = self._judging.setdefault(command_id, asyncio.Lock())
        async with lock:
            standing = await self._journal.last_event(command_id)
            if standing is None:
                return Told.UNMATCHED
            verdict = judge_told(standing.state, outcome.state)
            if verdict is Told.CORRECTED:
                await self._correct(standing.command, outcome)
            elif verdict is Told.CONTRADICTED:
                await self._note_contradiction(standing.command, standing.state, outcome)
            elif verdict is Told.TAKEN:
                await self._journal.note_outcome(command_id, outcome)
            return verdict

    async def _correct(self, command: Command, outcome: Outcome) -> None:
        """Put what is known now beside the end of an `unknown`."""
        event = CommandEvent(
            command=command,
            state=outcome.state,
            time=self._clock.now(),
            detail=outcome.detail,
            verified=outcome.verified and outcome.state is CommandState.SUCCEEDED,
            correction=True,
        )
        key = command.serial, command.setpoint
        latest = self._carrier.latest.get(key)
        # Of an older one nobody knows whether the newer one came before or after it.
        in_force = outcome.state is CommandState.SUCCEEDED and latest is not None and latest.id == command.id
        along = []
        if in_force and latest is not None:
            entry = Entry(command, 0.0)
            entry.handed_at = latest.at
            along = self._timers.after(entry, in_force=True, perhaps=False)
        await asyncio.gather(self._journal.record(event), *along)
        if in_force:
            self._carrier.ends.confirm(command, verified=outcome.verified)
        self._router.command_step(event)

    async def _note_contradiction(self, command: Command, standing: CommandState, outcome: Outcome) -> None:
        text = f"ended as {standing}, and is said to have {outcome.state} now: {outcome.detail}"
        log.warning("a result contradicts what was told before", id=command.id, ended=standing, told=outcome.state)
        await self._journal.note(
            Note(
                deed=Deed.CONTRADICTED,
                time=self._clock.now(),
                origin="gateway",
                detail=text,
                serial=command.serial,
                setpoint=command.setpoint,
                value=command.value,
                id=command.id,
            )
        )
