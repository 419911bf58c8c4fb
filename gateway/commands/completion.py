"""How commands end: what is said of them, what is read back, the dead-man's timers they leave.

That a value is read back is waited for beside the lane, and only until the next command for that setpoint.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakValueDictionary

import structlog

from gateway.commands.lane import Entry, PointKey, settle
from gateway.commands.memory import SetpointMemory
from gateway.commands.state_machine import RESULTS, Trigger, judge_result
from gateway.commands.steps import Change, Move, Steps
from gateway.commands.timers import Timers
from gateway.commands.verify import Finding, Verifier, Watch
from gateway.core.clock import Clock
from gateway.core.controller import Outcome, ResultEffect
from gateway.core.model import GATEWAY, Command, CommandEvent, CommandState, Value
from gateway.core.router import Router
from gateway.journal import writes
from gateway.journal.audit import AuditAction, Note
from gateway.journal.journal import Journal, JournalError

log = structlog.get_logger("control")

RETRY_FIRST: Final = 1.0
WRITTEN_AGAIN: Final = Finding(Trigger.DONE, "not read back before the next command for it")


class Completion:
    """Writes ends down, once all is known that can be."""

    def __init__(
        self,
        router: Router,
        journal: Journal,
        clock: Clock,
        steps: Steps,
        timers: Timers,
        memory: SetpointMemory,
        verifier: Verifier,
    ) -> None:
        self._router = router
        self._journal = journal
        self._clock = clock
        self._steps = steps
        self._timers = timers
        self._memory = memory
        self.verifier: Final = verifier
        self._verifying: dict[PointKey, asyncio.Task[None]] = {}
        self._judging: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Command id → held while a result of an ended one is judged: of two at once, the second finds the first."""
        self.wake: Callable[[Entry], None] = lambda _: None
        """Has a command's lane look at once at what has become of it."""

    async def stop(self) -> None:
        """Wait for no read-back any more; the journal knows what was said of the commands."""
        tasks = list(self._verifying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._verifying.clear()

    async def confirm(self, command: Command, *, verified: bool) -> None:
        """Take in that a command has set its value."""
        self._memory.succeeded(command, verified=verified)
        await self._journal.write(writes.setting(self._memory.stored((command.serial, command.setpoint))), owing=True)

    async def finish(self, entry: Entry, outcome: Outcome) -> None:
        """Write the end down; or, where a read-back is missing, wait for that beside the lane."""
        await self.make_way(entry.key)
        done = outcome.state is CommandState.SUCCEEDED
        seconds = self.verifier.seconds(entry) if done and not outcome.verified else 0.0
        if done:
            self._memory.succeeded(entry.command, verified=outcome.verified)
        elif outcome.state is CommandState.UNKNOWN:
            self._memory.perhaps(entry.command)
        if seconds <= 0:
            await self.end(entry, RESULTS[outcome.state, outcome.verified], outcome.detail)
            return
        leaving = [Move(entry, Trigger.LEFT, entry.left)] if entry.state is CommandState.ACCEPTED else []
        told = [] if entry.is_kept else [Change(writes.outcome(entry.command.id, outcome))]
        if leaving or told:
            await self._steps.take(*leaving, along=told, owing=entry.is_revert)
        entry.outcome_kept()
        self._router.command_done(entry.command)
        self._verifying[entry.key] = asyncio.create_task(
            self._verify(self.verifier.watch(entry), outcome, seconds), name=f"read-back {'/'.join(entry.key)}"
        )

    async def _verify(self, watch: Watch, outcome: Outcome, seconds: float) -> None:
        entry = watch.entry
        finding = await self.verifier.wait(watch, seconds)
        if finding.happening is Trigger.CONFIRMED:
            self._memory.succeeded(entry.command, verified=True)
        elif finding.happening is Trigger.MISMATCHED:
            self._memory.leaves(entry.command, entry.handed or self._clock.moment())
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

    async def end(self, entry: Entry, happening: Trigger, detail: str) -> None:
        """Take the last step, and set the timers by it."""
        async with entry.moving:
            if entry.state is not None and entry.state.final:
                return
            moves = [Move(entry, happening, detail)]
            if entry.state is CommandState.ACCEPTED:
                moves.insert(0, Move(entry, Trigger.LEFT, entry.left))
            in_force = happening in (Trigger.DONE, Trigger.CONFIRMED)
            perhaps = happening in (Trigger.UNHEARD, Trigger.MISMATCHED)
            along = self._timers.after(entry, in_force=in_force, perhaps=perhaps)
            if self._memory.get(entry.key) is not None:
                along.append(Change(writes.setting(self._memory.stored(entry.key))))
            await self._steps.take(*moves, along=along)
            entry.outcome_kept()

    async def end_unsent(self, entry: Entry, happening: Trigger, detail: str) -> None:
        """End a command that is not going out. One that may have left before a restart can't unhappen."""
        if entry.bound is not None or entry.state is CommandState.SENT:
            await self.end(entry, Trigger.UNHEARD, f"nothing is known of it, and it is not sent again: {detail}")
            return
        async with entry.moving:
            if entry.waits and entry.outcome is None:
                await self._steps.take(Move(entry, happening, detail))

    # results that the far side tells by itself: in time, late, twice, or against what it told before

    async def of_open(self, entry: Entry, outcome: Outcome) -> ResultEffect | None:
        """Take in a result of a command that has not ended; None where it has meanwhile."""
        async with entry.moving:
            if entry.state is None or entry.state.final:
                return None
            if entry.outcome is not None and entry.outcome.state is not CommandState.UNKNOWN:
                return await self._of_certain(entry, entry.outcome, outcome)
            if outcome.state is CommandState.UNKNOWN and (entry.waits or entry.outcome is not None):
                return ResultEffect.REPEATED
            if entry.is_driven:
                telling = self._tell_worker(entry, outcome)
            else:
                # Its turn may be long in coming, so what is known of it is written by itself.
                await self._keep(entry, outcome)
                entry.hear(outcome)
                self.wake(entry)
                entry.is_kept = True
                return ResultEffect.TAKEN
        await telling
        return ResultEffect.TAKEN

    def heard(self, entry: Entry, outcome: Outcome) -> "asyncio.Future[None] | None":
        """Take in the first result of a command, where its worker writes it down: as `of_open`, without a wait.

        Returns what is done once the journal has it, whoever waits for that; None where it is more than that.
        """
        if entry.moving.locked() or not entry.is_driven or entry.outcome is not None or entry.waits:
            return None
        return self._tell_worker(entry, outcome)

    def _tell_worker(self, entry: Entry, outcome: Outcome) -> "asyncio.Future[None]":
        telling: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry.telling.append(telling)
        entry.hear(outcome)
        self.wake(entry)
        return telling

    def keep_told(self, entry: Entry) -> None:
        """Have kept what was told of a command whose worker will not write it down; who told it waits for this then."""
        if entry.telling and entry.outcome is not None:
            telling, entry.telling = entry.telling, []
            self._steps.begin(self._keep_told(entry, entry.outcome, telling))

    async def _keep_told(self, entry: Entry, outcome: Outcome, telling: "list[asyncio.Future[None]]") -> None:
        try:
            await self._keep(entry, outcome)
        except JournalError as error:
            settle(telling, error)
        else:
            settle(telling)

    async def _keep(self, entry: Entry, outcome: Outcome) -> None:
        await self._journal.write(writes.outcome(entry.command.id, outcome), owing=entry.is_revert)

    async def _of_certain(self, entry: Entry, standing: Outcome, outcome: Outcome) -> ResultEffect:
        """Take in another result of a command whose end is certain: a read-back, or the journal, is waited for."""
        if not entry.is_kept:
            await self._keep(entry, standing)
            entry.outcome_kept()
        verdict = judge_result(standing.state, outcome.state)
        if verdict is ResultEffect.CONTRADICTED:
            await self._note_contradiction(entry.command, standing.state, outcome)
        elif outcome.verified:
            self.verifier.settle(entry.key, Finding(Trigger.CONFIRMED, outcome.detail))
        return verdict

    async def of_ended(self, command_id: str, outcome: Outcome) -> ResultEffect:
        """Take in a result of a command that has ended, or that nobody knows."""
        lock = self._judging.setdefault(command_id, asyncio.Lock())
        async with lock:
            standing = await self._journal.last_event(command_id)
            if standing is None:
                return ResultEffect.UNMATCHED
            verdict = judge_result(standing.state, outcome.state)
            if verdict is ResultEffect.CORRECTED:
                await self._correct(standing.command, outcome)
            elif verdict is ResultEffect.CONTRADICTED:
                await self._note_contradiction(standing.command, standing.state, outcome)
            elif verdict is ResultEffect.TAKEN:
                await self._journal.write(writes.outcome(command_id, outcome))
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
        latest = self._memory.get((command.serial, command.setpoint))
        # Of an older one nobody knows whether the newer one came before or after it.
        in_force = outcome.state is CommandState.SUCCEEDED and latest is not None and latest.command == command.id
        along: list[Change] = []
        if in_force and latest is not None:
            entry = Entry(command, self._clock.moment())
            entry.handed = latest.handed
            along = self._timers.after(entry, in_force=True, perhaps=False)
        await self._journal.record(event, along=[change.write for change in along])
        for change in along:
            change.done()
        if in_force:
            await self.confirm(command, verified=outcome.verified)
        self._router.command_step(event)

    async def _note_contradiction(self, command: Command, standing: CommandState, outcome: Outcome) -> None:
        text = f"ended as {standing}, and is said to have {outcome.state} now: {outcome.detail}"
        log.warning("a result contradicts what was told before", id=command.id, ended=standing, told=outcome.state)
        await self._journal.note(
            Note(
                action=AuditAction.CONTRADICTED,
                time=self._clock.now(),
                origin=GATEWAY,
                detail=text,
                serial=command.serial,
                setpoint=command.setpoint,
                value=command.value,
                id=command.id,
            )
        )
