"""The way of a command, from the wish to its end. Every step is journaled, then published.

Here wishes are judged and accepted, and what bridges say of commands comes in; `life` has the states, `carry` moves
accepted commands on, `timers` are the dead-man's timers, `verify` and `drift` compare with what is read back.

Commands for one device whose setpoints share a call to the cloud form a *lane*: one is under way at a time, and one
that still waits is superseded by a newer one for the same setpoint.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog

from gateway.commands.drift import Drift
from gateway.commands.executor import CommandExecutor
from gateway.commands.lane import Entry
from gateway.commands.memory import SetpointMemory
from gateway.commands.policy.halt import HaltError
from gateway.commands.policy.policy import Policy, Refusal, RequestBatch
from gateway.commands.renew import Renewal
from gateway.commands.steps import Steps
from gateway.commands.timers import Timers, fallback
from gateway.commands.trust import WallTrust
from gateway.commands.wear import Wear, spent
from gateway.core.clock import Clock, Moment
from gateway.core.controller import CallEstimate, Controller, Outcome, ResultEffect
from gateway.core.metrics import COMMANDS
from gateway.core.model import GATEWAY, Command, CommandEvent, CommandState, Origin, Reason, Snapshot, Value
from gateway.core.points import SETPOINTS, BadValueError
from gateway.core.router import Router
from gateway.core.verdict import Examiners, Verdict
from gateway.journal.journal import Journal, JournalError

T = TypeVar("T")
log = structlog.get_logger("control")

JUMP: Final = 0.5
"""Seconds by which the wall clock has to differ from the boot clock to count as set."""
GAP: Final = 3.0
"""Seconds between two looks at the clock after which the loop, or the machine, stood still."""
TAKES_UP: Final = "what was promised before the start is being taken up from the command journal; try again in a moment"


class Dispatcher:
    """Judges and accepts commands, and has them carried out."""

    def __init__(self, router: Router, policy: Policy, journal: Journal, clock: Clock) -> None:
        self._router = router
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self.trust = WallTrust(clock)
        self._submitted: list[tuple[tuple[Command, ...], asyncio.Future[list[CommandEvent]]]] = []
        """What has come in this turn of the loop."""
        self._of_fleets: deque[tuple[tuple[Command, ...], asyncio.Future[list[CommandEvent]]]] = deque()
        """Commands of fleets that are to be judged, one after the other few at a time."""
        self._takes_fleets = False
        self._seen: Moment | None = None
        self._is_loaded = False
        """Whether what the journal has was read."""
        self._takes_up = False
        """What was promised before the start is not all known, and held, yet: the journal is still being checked."""
        self._trusted = False
        self._steps = Steps(router, journal, clock)
        self._timers = Timers(journal, clock, self.trust)
        self._timers.released = router.release
        self.memory = SetpointMemory(router, journal, clock, policy.refresh_within)
        self.drift = Drift(router, self.memory, clock, journal.note_soon)
        self.wear = Wear(journal, clock)
        self._executor = CommandExecutor(
            router, policy, journal, clock, self.trust, self._steps, self._timers, self.memory, self.drift, self.wear
        )
        self._executor.refuse = self._reject
        self._timers.send = self._executor.revert
        self._open = self._executor.open
        self._renewal = Renewal(
            self.memory,
            self._timers.armed,
            self._executor.revert,
            lambda: policy.halting.current is not None,
            clock,
            policy.settings.battery_window,
        )
        self._executor.hand_over.sent = self._renewal.sent
        router.measured = self._measured
        router.promised = self.promised
        policy.halting.watch(self._halt_changed)

    def use(self, controllers: Mapping[str, Controller]) -> None:
        """Set who carries commands out, first choice first."""
        self._executor.use(controllers)

    async def start(self) -> None:
        """Take up what the journal says was promised. Open commands stay there while all one has is a copy of it."""
        self._executor.start()
        self._takes_up = self._journal.is_copy
        self._journal.reopened = self._take_up_rest
        await self._halt_for_loss()
        try:
            await self._load()
        except JournalError as error:
            if not self._journal.is_copy:
                raise
            log.error("what was promised can't be read yet", error=str(error))
        kept = [] if self._journal.is_copy else await self._journal.open_commands()
        await self._executor.take_up(kept)
        self._timers.start()

    async def _load(self) -> None:
        self._is_loaded = False
        await self._policy.halting.halt_as_audited(await self._journal.halt_in_force())
        self.trust.begin(await self._journal.last_word())
        await self.memory.load()
        self._renewal.load()
        await self.wear.load()
        # A command that ends takes its timer away; so timers are known, and held, before the first one can.
        await self._timers.load()
        self._is_loaded = True

    async def _take_up_rest(self) -> None:
        """Take up the open commands of a journal that can be written only now."""
        await self._halt_for_loss()
        if not self._is_loaded:
            await self._load()
        await self._executor.take_up(await self._journal.open_commands())
        self._takes_up = False
        self._timers.look()

    async def _halt_for_loss(self) -> None:
        """Keep control closed until a person acts, where a promise may be lost: nobody else knows what holds now."""
        if self._journal.lost:
            with suppress(HaltError):  # told in the log, and halted it is
                await self._policy.halting.halt(GATEWAY, f"{self._journal.lost}; look at what is set, then resume")

    async def stop(self) -> None:
        """Stop where things stand; the journal knows what goes on at the next start.

        First nothing new begins, then what is under way ends: a step may yet arm a timer, but none fires any more.
        What is accepted from now on is journaled, and waits for the next start.
        """
        self._timers.stop()
        await self._renewal.stop()
        await self._executor.stop()
        await self._steps.drained()
        await self._timers.stopped()

    def look_at_clock(self) -> None:
        """Look at every deadline and timer again where a clock was set, or the loop stood still. To be called often."""
        self._renewal.look()
        now, before = self._clock.moment(), self._seen
        self._seen = now
        if before is None:
            return
        boot = now.boot - before.boot
        stepped = abs((now.wall - before.wall).total_seconds() - boot) > JUMP
        if stepped:
            self.trust.note_set()
            log.info("the clock was set; every deadline is looked at again", time=now.wall.isoformat())
        if stepped or self.trust.known != self._trusted or boot > GAP:
            self._trusted = self.trust.known
            self._timers.look()
            self._executor.wake_all()

    @property
    def journal_trouble(self) -> str:
        """Why the journal can't be written, or nothing new is taken yet; "" where all is well."""
        return self._journal.trouble or (TAKES_UP if self._takes_up else "")

    def promised(self, serial: str) -> bool:
        """Return whether something is still to be done about a device: it is under way, or a timer of it runs."""
        return self._executor.promises[serial] > 0 or self._timers.of(serial)

    def underway(self, by: Origin) -> list[Command]:
        """Return the commands of an origin that have not ended. See `Context.underway`."""
        return [entry.command for entry in self._open.values() if entry.command.origin.who == by.who]

    def sent(self, serial: str) -> list[Command]:
        """Return the commands to a device that have left and not ended. See `Context.sent`."""
        left = [entry.command for entry in self._open.values() if entry.state is CommandState.SENT]
        return sorted((it for it in left if it.serial == serial), key=lambda it: it.created)

    def may_leave(self, *ids: str) -> bool:
        """Return whether all of these commands may leave now. See `Context.may_leave`."""
        entries = self._all_open(ids)
        return entries is not None and self._executor.hand_over.may_leave(entries)

    def still_wanted(self, *ids: str) -> bool:
        """Return whether all of these commands are still to be carried out. See `Context.still_wanted`."""
        entries = self._all_open(ids)
        return entries is not None and self._executor.hand_over.still_wanted(entries, self._clock.moment())

    def _all_open(self, ids: Sequence[str]) -> list[Entry] | None:
        """Return these commands; None where one of them has ended."""
        entries = [entry for id_ in ids if (entry := self._open.get(id_)) is not None]
        return entries if len(entries) == len(ids) else None

    # from the wish to `accepted` or `rejected`

    async def submit(self, *commands: Command) -> list[CommandEvent]:
        """Accept all of these commands or reject all, and say so for each, in their order.

        One that came before, e.g. delivered twice at QoS 1, is answered with where it stands.
        """
        if len(commands) != 1 or commands[0].id in self._open:
            return await self._steps.owned(self._submit(commands))
        # What comes in one turn of the loop is looked up and accepted together: a task each costs more than its work.
        answer: asyncio.Future[list[CommandEvent]] = asyncio.get_running_loop().create_future()
        if commands[0].bulk:
            self._of_fleets.append((commands, answer))
            if not self._takes_fleets:
                self._takes_fleets = True
                self._steps.begin(self._submit_fleets())
            return await answer
        self._executor.others.came()
        self._submitted.append((commands, answer))
        if len(self._submitted) == 1:
            self._steps.begin(self._submit_each())
        return await answer

    async def _submit_fleets(self) -> None:
        """Submit commands of fleets, so many at a time that others do not wait for long."""
        try:
            while self._of_fleets:
                count = min(len(self._of_fleets), self._executor.others.room())
                await self._submit_together([self._of_fleets.popleft() for _ in range(count)])
        finally:
            self._takes_fleets = False

    async def _submit_each(self) -> None:
        """Submit what waits, each for itself. None has an id that was under way when it came."""
        submitted, self._submitted = self._submitted, []
        await self._submit_together(submitted)

    async def _submit_together(
        self, submitted: Sequence[tuple[tuple[Command, ...], "asyncio.Future[list[CommandEvent]]"]]
    ) -> None:
        found = await self._journal.last_events([commands[0].id for commands, _ in submitted])
        accepting: list[tuple[list[Entry], asyncio.Future[list[CommandEvent]]]] = []
        for (commands, answer), earlier in zip(submitted, found, strict=True):
            try:
                events, entries = await self._judge_all(commands, [earlier])
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                _settle(answer, error)
            else:
                if entries:
                    accepting.append((entries, answer))
                else:
                    _settle(answer, events)
        try:
            accepted = await self._executor.accept_each([entries for entries, _ in accepting])
        except Exception as error:  # noqa: BLE001 - as above
            for _, answer in accepting:
                _settle(answer, error)
        else:
            for (_, answer), events in zip(accepting, accepted, strict=True):
                _settle(answer, events)

    async def _submit(self, commands: tuple[Command, ...]) -> list[CommandEvent]:
        earlier = await asyncio.gather(*(self._standing(command.id) for command in commands), return_exceptions=True)
        events, entries = await self._judge_all(commands, earlier)
        return await self._executor.accept(entries) if entries else events

    async def _judge_all(
        self, commands: tuple[Command, ...], looked_up: Sequence[CommandEvent | BaseException | None]
    ) -> tuple[list[CommandEvent], list[Entry]]:
        """Return the answers to a request, or what is to be accepted of it, held. Waits for nothing."""
        earlier: list[CommandEvent | None] = []
        for known in looked_up:
            if isinstance(known, JournalError):
                return self._reject_all(commands, Refusal(Reason.NOT_STORED, str(known))), []
            if isinstance(known, BaseException):
                raise known
            earlier.append(known)
        again = [e for e, c in zip(earlier, commands, strict=True) if e and _same_request(e.command, c)]
        if len(again) == len(commands):
            return again, []
        if self._takes_up:  # it might leave before an older one that is not held yet, which would undo it
            return self._reject_all(commands, Refusal(Reason.NOT_STORED, self.journal_trouble)), []
        verdicts: list[Value | Refusal] = []
        taken: list[Command] = []
        along = RequestBatch()
        for command, event in zip(commands, earlier, strict=True):
            verdict = self._taken(command) if event else self._judge(command, along)
            verdicts.append(verdict)
            if not isinstance(verdict, Refusal):
                taken.append(msgspec.structs.replace(command, value=verdict))
                along.add(taken[-1])
        if len({command.id for command in commands}) < len(commands):
            verdicts = [self._taken(command) for command in commands]
        if any(isinstance(verdict, Refusal) for verdict in verdicts):
            return [self._reject(c, v) for c, v in zip(commands, verdicts, strict=True)], []
        entries = [Entry(command, self._deadline(command)) for command in taken]
        request = object()
        for entry in entries:
            entry.request = request
        for command in taken:
            self._policy.count(command)
        await self._executor.hold(entries)
        return [], entries

    async def steps(self, command_id: str) -> list[CommandEvent]:
        """Return all steps of a command, oldest first. Raises JournalError."""
        return await self._journal.history(command_id)

    def call_estimate(self, setpoint: str, serials: Sequence[str]) -> Mapping[str, CallEstimate | None]:
        """Return what it takes to set a setpoint of these devices, by the bridge that would. See `Context.effort`."""
        return self._executor.call_estimate(setpoint, serials)

    def takers(self, setpoint: str, serial: str) -> Sequence[str]:
        """Return the bridges that can set a setpoint of a device. See `Context.takers`."""
        return self._executor.takers(setpoint, serial)

    async def _standing(self, command_id: str) -> CommandEvent | None:
        """Return where a command stands, also one that is being accepted just now; None for one that never was."""
        entry = self._open.get(command_id)
        if entry is not None:
            async with entry.moving:
                if entry.event is not None:
                    return None if entry.event.state is CommandState.REJECTED else entry.event
        return await self._journal.last_event(command_id)

    def explain(self, command: Command) -> Verdict:
        """Return what `submit` would say of a command, and of each check as far as it can be looked at."""
        devices = {state.device.serial: state.device for state in self._router.announced()}
        state, along = self._router.state(command.serial), RequestBatch()
        device = state.device if state else None
        verdict = self._policy.examine(command, device, along, self._own_checks(along))
        foretold = (
            None if verdict.refusal else self._executor.foretell(msgspec.structs.replace(command, value=verdict.value))
        )
        return msgspec.structs.replace(verdict, unmet=tuple(self._policy.settings.unmet(devices)), foretold=foretold)

    def judge(self, *commands: Command) -> Refusal | None:
        """Return why `submit` would refuse these commands now; None where it would take them. Nothing is counted."""
        if self.journal_trouble:
            return Refusal(Reason.NOT_STORED, self.journal_trouble)
        along = RequestBatch()
        for command in commands:
            verdict = self._judge(command, along)
            if isinstance(verdict, Refusal):
                return verdict
            along.add(msgspec.structs.replace(command, value=verdict))
        return None

    def _judge(self, command: Command, along: RequestBatch) -> Value | Refusal:
        state = self._router.state(command.serial)
        return self._policy.judge(command, state.device if state else None, along, self._own_checks(along))

    def _own_checks(self, along: RequestBatch) -> Examiners:
        return (
            ("time", self._in_time),
            ("id", self._is_new),
            ("controller", self._has_controller),
            ("dead-man's timer", self._has_fallback),
            ("writes of the device", partial(self._may_be_written, along)),
        )

    def _in_time(self, command: Command) -> str | Refusal:
        left = (command.expires - self._clock.now()).total_seconds()
        return Refusal(Reason.EXPIRED, "it had expired when it arrived") if left <= 0 else f"it expires in {left:.0f} s"

    def _is_new(self, command: Command) -> str | Refusal:
        return self._taken(command) if command.id in self._open else ""

    def _has_controller(self, command: Command) -> str | Refusal:
        takers = self._executor.takers(command.setpoint, command.serial)
        if not takers:
            return Refusal(Reason.NO_CONTROLLER, f"no bridge can set {command.setpoint} of {command.serial}")
        return f"{', then '.join(takers)} would carry it out"

    def _may_be_written(self, along: RequestBatch, command: Command) -> str | Refusal:
        most, used = self._policy.settings.writes_per_day, self.wear.today(command.serial)
        if used + along.devices[command.serial] < most:
            return f"{used} of {most} writes today (control.writes_per_day)"
        if self.memory.holds(command):
            return f"it is in force, so it is no write; {used} of {most} today (control.writes_per_day)"
        return Refusal(Reason.RATE_LIMITED, spent(command.serial, most))

    @staticmethod
    def _has_fallback(command: Command) -> str | Refusal:
        if command.revert_after is None or command.revert_value is not None:
            return ""
        setpoint, neutral = fallback(command)
        if neutral is None:
            return Refusal(
                Reason.BAD_REQUEST, f"revert_after needs a revert_value: {command.setpoint} has no neutral one"
            )
        whose = "it" if setpoint == command.setpoint else setpoint
        return f"after {command.revert_after:g} s {whose} is set back to its neutral value, {neutral}"

    def _taken(self, command: Command) -> Refusal:
        return Refusal(Reason.DUPLICATE, f"id {command.id} belongs to another command; choose a new one")

    def _deadline(self, command: Command) -> Moment:
        """Return when a command of this run expires."""
        now = self._clock.moment()
        return msgspec.structs.replace(now.later((command.expires - now.wall).total_seconds()), wall=command.expires)

    def _reject_all(self, commands: Iterable[Command], refusal: Refusal) -> list[CommandEvent]:
        return [self._reject(command, refusal) for command in commands]

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
        self._journal.refused(event)
        self._router.command_step(event)
        COMMANDS.labels(CommandState.REJECTED, "").inc()
        return event

    def _halt_changed(self) -> None:
        self._executor.wake_all()
        self._router.halt_changed()

    def _measured(self, snapshot: Snapshot) -> None:
        self._executor.ends.verifier.seen(snapshot)
        self.drift.seen(snapshot)

    # what bridges say of commands

    async def commands_by_receipt(self, receipts: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Return, of these receipts, those that commands have: their ids and devices, also long after their ends."""
        return await self._journal.commands_by_receipt(receipts)

    async def cancel(self, ids: Iterable[str], by: Origin) -> int:
        """End commands that have not left yet, as expired. Returns how many that were. Raises JournalError."""
        self._raise_while_taking_up()
        return await self._executor.cancel(ids, by)

    def _raise_while_taking_up(self) -> None:
        if self._takes_up:  # it would pass by a command that is not held yet
            raise JournalError(self.journal_trouble)

    async def keep_receipt(self, receipt: str, *ids: str) -> None:
        """Keep, before these commands leave, by what their results will be told. Raises JournalError."""
        await self._executor.keep_receipt(receipt, ids)

    async def result_came(self, command_id: str, outcome: Outcome) -> ResultEffect:
        """Take in a result that the far side told by itself; journaled when this returns. Raises JournalError."""
        self._raise_while_taking_up()
        return await self._executor.result_came(command_id, outcome)


def _settle(answer: "asyncio.Future[T]", found: T | Exception) -> None:
    """Answer who waits, unless they were cancelled meanwhile."""
    if answer.done():
        return
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)


def _same_request(known: Command, asked: Command) -> bool:
    if (known.serial, known.setpoint) != (asked.serial, asked.setpoint):
        return False
    try:
        return known.value == SETPOINTS[asked.setpoint].parse(asked.value)
    except BadValueError:
        return False
