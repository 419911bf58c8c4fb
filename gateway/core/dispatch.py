"""The life of a command, from the wish to its end. Every step is journaled, then published.

Commands for one device whose setpoints share a call to the cloud form a *lane*. Each lane has one worker,
and only that worker moves a command on once it was accepted: one is under way at a time, and one that still
waits is superseded by a newer one for the same setpoint.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from gateway.core.bridge import Controller, Outcome
from gateway.core.clock import Clock
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.in_force import InForce
from gateway.core.journal import Journal, JournalError, OpenCommand, Revert
from gateway.core.model import Command, CommandEvent, CommandState, Reason, Value, new_command_id
from gateway.core.points import SETPOINTS, BadValueError
from gateway.core.policy import Policy, Refusal
from gateway.core.router import Router

log = structlog.get_logger("control")

TRANSITIONS: Final[Mapping[CommandState | None, tuple[CommandState, ...]]] = {
    None: (CommandState.ACCEPTED, CommandState.REJECTED),
    CommandState.ACCEPTED: (CommandState.SENT, CommandState.EXPIRED, CommandState.SUPERSEDED),
    CommandState.SENT: (CommandState.SUCCEEDED, CommandState.FAILED, CommandState.UNKNOWN),
}
"""Which step may follow which. What is not here never happens."""

SUPERSEDED_AT_ONCE: Final = 1_000
"""Commands that end in one write to the journal."""
RETRY_FIRST: Final = 1.0
RETRY_MOST: Final = 30.0
RESULT_TIMEOUT: Final = 120.0
"""Seconds after which a command that was sent, and of which nothing is heard, ends as unknown."""
REVERT_TTL: Final = 3600.0
REVERT_RETRY: Final = 60.0
REVERT_ORIGIN: Final = "revert"
UNCHANGED: Final = "not sent again, it is in force already"

LaneKey = tuple[str, str]
"""Serial, and the setpoint's group or, without one, the setpoint."""


class _Entry:
    """A command that has not ended."""

    def __init__(self, command: Command, deadline: float, state: CommandState | None = None) -> None:
        self.command = command
        self.deadline = deadline
        """On the monotonic clock, so that a jump of the wall clock neither kills nor revives it."""
        self.state = state
        self.controller: str | None = None
        """Name of the bridge it was handed to, from just before it may have left."""
        self.receipt = ""
        self.handed_at: float | None = None
        """On the monotonic clock; None for one handed over before a restart."""


class _Lane:
    """Commands that take turns, and what moves them."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.arrival = asyncio.Event()
        self.worker: asyncio.Task[None] | None = None

    def successor(self, entry: _Entry) -> _Entry | None:
        """Return the newest later command for the same setpoint."""
        later = self.entries[self.entries.index(entry) + 1 :]
        return next((e for e in reversed(later) if e.command.setpoint == entry.command.setpoint), None)

    async def pause(self, seconds: float) -> None:
        """Wait, or until another command arrives."""
        self.arrival.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.arrival.wait()
        except TimeoutError:
            pass


class Dispatcher:
    """Judges, journals, sends and follows commands; owns the dead-man's timers."""

    def __init__(self, router: Router, policy: Policy, journal: Journal, clock: Clock) -> None:
        self._router = router
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._known = InForce(router, policy, clock)
        self._controllers: dict[str, Controller] = {}
        self._open: dict[str, _Entry] = {}
        self._lanes: dict[LaneKey, _Lane] = {}
        self._reverts: dict[tuple[str, str], tuple[Revert, float]] = {}
        """Running dead-man's timers, each with its deadline on the monotonic clock."""
        self._timer: asyncio.Task[None] | None = None
        self._timers_changed = asyncio.Event()

    def use(self, controllers: Mapping[str, Controller]) -> None:
        """Set who carries commands out, first choice first."""
        self._controllers = dict(controllers)

    async def start(self) -> None:
        """Take up what the journal says was promised."""
        for kept in await self._journal.open_commands():
            self._take_up(kept)
        for revert in await self._journal.reverts():
            self._set_timer(revert, (revert.due - self._clock.now()).total_seconds())
        self._timer = asyncio.create_task(self._run_timers(), name="dead-man's timers")

    async def stop(self) -> None:
        """Stop where things stand; the journal knows what goes on at the next start."""
        tasks = [task for task in (self._timer, *(lane.worker for lane in self._lanes.values())) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lanes.clear()

    # from the wish to `accepted` or `rejected`

    async def submit(self, *commands: Command) -> list[CommandEvent]:
        """Accept all of these commands or reject all, and say so for each, in their order.

        One that came before, e.g. delivered twice at QoS 1, is answered with where it stands.
        """
        try:
            earlier = [await self._journal.last_event(command.id) for command in commands]
        except JournalError as error:
            return [self._reject(command, Refusal(Reason.NOT_STORED, str(error))) for command in commands]
        again = [e for e, c in zip(earlier, commands, strict=True) if e and _same_wish(e.command, c)]
        if len(again) == len(commands):
            return again
        verdicts = [
            self._taken(command) if event else self._judge(command)
            for command, event in zip(commands, earlier, strict=True)
        ]
        if any(isinstance(verdict, Refusal) for verdict in verdicts):
            return [self._reject(c, v) for c, v in zip(commands, verdicts, strict=True)]
        now = self._clock.now()
        entries = [
            _Entry(
                msgspec.structs.replace(command, value=value),
                self._clock.monotonic() + (command.expires - now).total_seconds(),
            )
            for command, value in zip(commands, verdicts, strict=True)
        ]
        for command in commands:
            self._policy.count(command.serial)
        return await self._accept(entries)

    def _judge(self, command: Command) -> Value | Refusal:
        state = self._router.state(command.serial)
        verdict = self._policy.judge(command, state.device if state else None)
        if isinstance(verdict, Refusal):
            return verdict
        if command.expires <= self._clock.now():
            return Refusal(Reason.EXPIRED, "it had expired when it arrived")
        if command.id in self._open:
            return self._taken(command)
        if not any(c.takes(command.serial, command.setpoint) for c in self._controllers.values()):
            return Refusal(Reason.NO_CONTROLLER, f"no bridge can set {command.setpoint} of {command.serial}")
        if command.revert_after is not None and _revert_value(command) is None:
            return Refusal(
                Reason.BAD_REQUEST, f"revert_after needs a revert_value: {command.setpoint} has no neutral one"
            )
        return verdict

    def _taken(self, command: Command) -> Refusal:
        return Refusal(Reason.DUPLICATE, f"id {command.id} belongs to another command; choose a new one")

    def _reject(self, command: Command, verdict: Value | Refusal) -> CommandEvent:
        if not isinstance(verdict, Refusal):
            verdict = Refusal(Reason.BAD_REQUEST, "another setpoint of the same request was refused")
        event = CommandEvent(
            command=command,
            state=CommandState.REJECTED,
            time=self._clock.now(),
            reason=verdict.reason,
            detail=verdict.detail,
        )
        self._router.command_step(event)
        return event

    async def _accept(self, entries: list[_Entry]) -> list[CommandEvent]:
        events = [self._event(entry, CommandState.ACCEPTED) for entry in entries]
        self._open.update((entry.command.id, entry) for entry in entries)
        try:
            await self._journal.record(*events)
        except JournalError as error:
            for entry in entries:
                del self._open[entry.command.id]
            refusal = Refusal(Reason.NOT_STORED, str(error))
            return [self._reject(entry.command, refusal) for entry in entries]
        for entry, event in zip(entries, events, strict=True):
            entry.state = CommandState.ACCEPTED
            self._router.command_step(event)
            self._enqueue(entry)
        return events

    def _take_up(self, kept: OpenCommand) -> None:
        remaining = (kept.command.expires - self._clock.now()).total_seconds()
        entry = _Entry(kept.command, self._clock.monotonic() + remaining, kept.state)
        entry.controller, entry.receipt = kept.controller, kept.receipt
        self._open[kept.command.id] = entry
        log.info("command taken up after a restart", id=kept.command.id, state=kept.state)
        self._enqueue(entry)

    def _enqueue(self, entry: _Entry) -> None:
        key = entry.command.serial, _group(entry.command.setpoint)
        lane = self._lanes.setdefault(key, _Lane())
        lane.entries.append(entry)
        lane.arrival.set()
        if lane.worker is None:
            lane.worker = asyncio.create_task(self._run_lane(key, lane), name=f"commands {'/'.join(key)}")

    # from `accepted` to the end

    async def _run_lane(self, key: LaneKey, lane: _Lane) -> None:
        journal_works = True
        while lane.entries:
            entry = lane.entries[0]
            try:
                if await self._thin_out(lane):
                    continue
                await self._drive(lane, entry)
            except JournalError as error:
                # What can't be written down is not done. The command goes on from where it stands as soon as
                # the disk is back, or expires.
                if journal_works:
                    log.error("command waits for the journal", id=entry.command.id, error=str(error))
                journal_works = False
                await asyncio.sleep(RETRY_FIRST)
            else:
                journal_works = True
                lane.entries.remove(entry)
        del self._lanes[key]

    async def _thin_out(self, lane: _Lane) -> bool:
        """End together what newer commands supersede, where that is many; return whether it was.

        One after the other, the journal would take longer over them than a flood takes to bring them.
        """
        newest = {entry.command.setpoint: entry for entry in lane.entries}
        old = [
            entry
            for entry in lane.entries
            if entry is not newest[entry.command.setpoint]
            and entry.controller is None
            and entry.state is CommandState.ACCEPTED
        ][:SUPERSEDED_AT_ONCE]
        if len(old) < 2:
            return False
        state = CommandState.SUPERSEDED
        events = [self._event(entry, state, f"by {newest[entry.command.setpoint].command.id}") for entry in old]
        await self._journal.record(*events)
        for entry, event in zip(old, events, strict=True):
            entry.state = state
            del self._open[entry.command.id]
            self._router.command_step(event)
        lane.entries = [entry for entry in lane.entries if entry.state is not state]
        self._timers_changed.set()
        return True

    async def _drive(self, lane: _Lane, entry: _Entry) -> None:
        """Bring one command to its end."""
        if entry.controller is not None and await self._ask_first(entry):
            return
        if self._is_refresh(entry):
            await self._refresh(entry)
        elif await self._bring_out(lane, entry):
            await self._finish(entry, await self._await_result(entry))

    def _is_refresh(self, entry: _Entry) -> bool:
        """Return whether a command, with time left, only asks for what is in force. A revert is always sent."""
        command = entry.command
        return command.origin != REVERT_ORIGIN and self._remaining(entry) > 0 and self._known.holds(command)

    async def _refresh(self, entry: _Entry) -> None:
        """End a command without a call: its dead-man's timer starts anew, and that is all it changes."""
        entry.handed_at = self._clock.monotonic()
        await self._mark_sent(entry, UNCHANGED)
        await self._set_timers(entry, CommandState.SUCCEEDED)
        await self._step(entry, CommandState.SUCCEEDED, UNCHANGED)

    async def _ask_first(self, entry: _Entry) -> bool:
        """End a command handed over before by what is known of it. False when it may be sent again."""
        outcome = await self._await_result(entry)
        unheard_of = outcome.state is CommandState.UNKNOWN and not entry.receipt
        if unheard_of and self._remaining(entry) > 0:
            log.info("nothing is known of a command, it is sent again", id=entry.command.id)
            entry.controller = None
            return False
        await self._mark_sent(entry, "before the gateway was restarted")
        await self._finish(entry, outcome)
        return True

    async def _bring_out(self, lane: _Lane, entry: _Entry) -> bool:
        """Offer a command to the controllers until one has sent it. False when it ended before that."""
        pause, trouble = RETRY_FIRST, "its turn did not come in time"
        while True:
            if successor := lane.successor(entry):
                await self._end_unsent(entry, CommandState.SUPERSEDED, f"by {successor.command.id}")
                return False
            if self._remaining(entry) <= 0:
                await self._end_unsent(entry, CommandState.EXPIRED, trouble)
                return False
            retry_after = 0.0
            for name, controller in self._controllers.items():
                if not controller.takes(entry.command.serial, entry.command.setpoint):
                    continue
                try:
                    return await self._send(entry, name, controller)
                except NotSentError as error:
                    trouble, retry_after = str(error), error.retry_after or 0.0
            await lane.pause(min(max(pause, retry_after), self._remaining(entry)))
            pause = min(pause * 2, RETRY_MOST)

    async def _send(self, entry: _Entry, name: str, controller: Controller) -> bool:
        """Hand a command over. Returns whether a result is to be waited for; raises NotSentError."""
        command = entry.command
        await self._journal.handing_to(command, name)
        entry.controller, entry.handed_at = name, self._clock.monotonic()
        try:
            remaining = self._remaining(entry)
            if remaining <= 0:
                raise NotSentError("it expired while it was written to the journal")
            others = self._in_force(command)
            self._known.leaves(command, others)
            async with asyncio.timeout(remaining + 1):
                entry.receipt = await controller.send(command, others, remaining)
        except NotSentError:
            entry.controller = None
            await self._journal.handing_to(command, None)
            raise
        except RefusedError as error:
            await self._mark_sent(entry, f"by {name}")
            await self._finish(entry, Outcome(CommandState.FAILED, str(error)))
            return False
        except (UnsureError, TimeoutError) as error:
            log.warning("no certain answer to a command", id=command.id, bridge=name, error=str(error))
            await self._mark_sent(entry, f"by {name}; {str(error) or 'no answer in time'}")
        except Exception as error:
            log.exception("bridge failed while sending", id=command.id, bridge=name)
            await self._mark_sent(entry, f"by {name}; {error}")
        else:
            if entry.receipt:
                await self._journal.keep_receipt(command, entry.receipt)
            await self._mark_sent(entry, f"by {name}")
        return True

    async def _await_result(self, entry: _Entry) -> Outcome:
        """Ask what became of a command until somebody knows, for RESULT_TIMEOUT at most."""
        give_up = self._clock.monotonic() + RESULT_TIMEOUT
        trouble = "no result came in time"
        while (left := give_up - self._clock.monotonic()) > 0:
            controller = self._controllers.get(entry.controller or "")
            if controller is None:
                return Outcome(CommandState.UNKNOWN, f"bridge {entry.controller} is configured no more")
            try:
                async with asyncio.timeout(left):
                    return await controller.result(entry.command, entry.receipt)
            except NotSentError as error:
                trouble = str(error)
                await asyncio.sleep(min(left, error.retry_after or RETRY_FIRST))
            except UnsureError as error:
                trouble = str(error)
                await asyncio.sleep(min(left, RETRY_FIRST))
            except TimeoutError:
                break
            except RefusedError as error:
                return Outcome(CommandState.UNKNOWN, str(error))
            except Exception as error:
                log.exception("bridge failed while asking for a result", id=entry.command.id)
                return Outcome(CommandState.UNKNOWN, str(error))
        return Outcome(CommandState.UNKNOWN, trouble)

    async def _mark_sent(self, entry: _Entry, detail: str) -> None:
        """Tell that it may be in force now; told once, also where it is sent again after a restart."""
        if entry.state is CommandState.ACCEPTED:
            await self._step(entry, CommandState.SENT, detail)

    async def _end_unsent(self, entry: _Entry, state: CommandState, detail: str) -> None:
        """End a command that is not going out. One told as sent before a restart can't unhappen."""
        await self._step(entry, state if entry.state is CommandState.ACCEPTED else CommandState.UNKNOWN, detail)

    async def _finish(self, entry: _Entry, outcome: Outcome) -> None:
        command = entry.command
        await self._set_timers(entry, outcome.state)
        if outcome.state is CommandState.SUCCEEDED:
            self._known.succeeded(command)
            self._router.confirm(command.serial, command.setpoint, command.value)
        await self._step(entry, outcome.state, outcome.detail)

    async def _set_timers(self, entry: _Entry, end: CommandState) -> None:
        """Arm the command's dead-man's timer, or take the one away that it replaces."""
        command = entry.command
        if command.revert_after is not None and end is not CommandState.FAILED:
            handed_at = self._clock.monotonic() if entry.handed_at is None else entry.handed_at
            await self._arm(command, command.revert_after - (self._clock.monotonic() - handed_at))
        elif end is CommandState.SUCCEEDED:
            await self._disarm(command)

    async def _step(self, entry: _Entry, state: CommandState, detail: str) -> None:
        """Take the next step: allowed by the table, journaled, then published."""
        if state not in TRANSITIONS.get(entry.state, ()):
            raise AssertionError(f"a command can't go from {entry.state} to {state}")
        event = self._event(entry, state, detail)
        await self._journal.record(event)
        entry.state = state
        if state.final:
            del self._open[entry.command.id]
            self._timers_changed.set()
        self._router.command_step(event)

    def _event(self, entry: _Entry, state: CommandState, detail: str = "") -> CommandEvent:
        return CommandEvent(command=entry.command, state=state, time=self._clock.now(), detail=detail)

    def _remaining(self, entry: _Entry) -> float:
        return entry.deadline - self._clock.monotonic()

    def _in_force(self, command: Command) -> dict[str, Value]:
        group = SETPOINTS[command.setpoint].group
        state = self._router.state(command.serial)
        if not group or state is None:
            return {}
        return {
            point.id: state.values.get(point.id)
            for point in SETPOINTS.values()
            if point.group == group and point.id != command.setpoint
        }

    # dead-man's timers

    async def _arm(self, command: Command, delay: float) -> None:
        revert = Revert(
            command.serial,
            command.setpoint,
            _revert_value(command),
            self._clock.now() + timedelta(seconds=delay),
        )
        await self._journal.arm(revert)
        self._set_timer(revert, delay)

    async def _disarm(self, command: Command) -> None:
        if (command.serial, command.setpoint) in self._reverts:
            await self._journal.disarm(command.serial, command.setpoint)
            del self._reverts[command.serial, command.setpoint]

    def _set_timer(self, revert: Revert, delay: float) -> None:
        self._reverts[revert.serial, revert.setpoint] = revert, self._clock.monotonic() + delay
        self._timers_changed.set()

    async def _run_timers(self) -> None:
        while True:
            self._timers_changed.clear()
            for revert, due in list(self._reverts.values()):
                if due <= self._clock.monotonic() and not self._under_way(revert):
                    await self._fire(revert)
            dues = [due for revert, due in self._reverts.values() if not self._under_way(revert)]
            try:
                async with asyncio.timeout_at(min(dues, default=None)):
                    await self._timers_changed.wait()
            except TimeoutError:
                pass

    def _under_way(self, revert: Revert) -> bool:
        """Return whether a command for the same setpoint has yet to end: it may refresh the timer."""
        return any(
            (entry.command.serial, entry.command.setpoint) == (revert.serial, revert.setpoint)
            for entry in self._open.values()
        )

    async def _fire(self, revert: Revert) -> None:
        """Send the revert value. The timer stays armed until that has succeeded."""
        now = self._clock.now()
        command = Command(
            id=new_command_id(),
            serial=revert.serial,
            setpoint=revert.setpoint,
            value=revert.value,
            origin=REVERT_ORIGIN,
            created=now,
            expires=now + timedelta(seconds=REVERT_TTL),
        )
        log.warning(
            "not refreshed in time, reverting",
            serial=revert.serial,
            setpoint=revert.setpoint,
            value=revert.value,
        )
        self._set_timer(revert, REVERT_RETRY)
        await self._accept([_Entry(command, self._clock.monotonic() + REVERT_TTL)])


def _group(setpoint: str) -> str:
    return SETPOINTS[setpoint].group or setpoint


def _same_wish(known: Command, asked: Command) -> bool:
    if (known.serial, known.setpoint) != (asked.serial, asked.setpoint):
        return False
    try:
        return known.value == SETPOINTS[asked.setpoint].parse(asked.value)
    except BadValueError:
        return False


def _revert_value(command: Command) -> Value:
    if command.revert_value is not None:
        return SETPOINTS[command.setpoint].parse(command.revert_value)
    return SETPOINTS[command.setpoint].neutral
