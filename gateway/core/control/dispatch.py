"""The way of a command, from the wish to its end. Every step is journaled, then published.

Here wishes are judged and accepted, and what bridges say of commands comes in; `life` has the states, `carry` moves
accepted commands on, `timers` are the dead-man's timers, `verify` and `drift` compare with what is read back.

Commands for one device whose setpoints share a call to the cloud form a *lane*: one is under way at a time, and one
that still waits is superseded by a newer one for the same setpoint.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import structlog

from gateway.core.bridge import Controller, Effort, Outcome, Told
from gateway.core.clock import Clock
from gateway.core.control.carry import Carrier
from gateway.core.control.drift import Drift
from gateway.core.control.lane import REVERT_ORIGIN, Entry
from gateway.core.control.life import Happening
from gateway.core.control.results import Results
from gateway.core.control.steps import Move, Steps
from gateway.core.control.timers import Timers
from gateway.core.journal.journal import Journal, JournalError, OpenCommand
from gateway.core.model import Command, CommandEvent, CommandState, Reason, Snapshot, Value
from gateway.core.points import SETPOINTS, BadValueError
from gateway.core.policy.checks import Verdict
from gateway.core.policy.policy import Along, Policy, Refusal
from gateway.core.router import Router

__all__ = ["REVERT_ORIGIN", "Dispatcher"]

log = structlog.get_logger("control")


class Dispatcher:
    """Judges and accepts commands, and has them carried out."""

    def __init__(self, router: Router, policy: Policy, journal: Journal, clock: Clock) -> None:
        self._router = router
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._open: dict[str, Entry] = {}
        """Every command that has not ended, by its id."""
        self._steps = Steps(router, journal, clock)
        self._timers = Timers(journal, clock, self._revert)
        self.drift = Drift(router, clock, journal.note_soon)
        self._carrier = Carrier(router, policy, journal, clock, self._steps, self._timers, self.drift)
        self._results = Results(router, journal, clock, self._timers, self._carrier)
        self._steps.ended = self._ended
        router.measured = self._measured
        policy.halting.watch(self._halt_changed)

    def use(self, controllers: Mapping[str, Controller]) -> None:
        """Set who carries commands out, first choice first."""
        self._carrier.controllers = dict(controllers)

    async def start(self) -> None:
        """Take up what the journal says was promised."""
        self._carrier.start()
        kept = await self._journal.open_commands()
        # A command that ends takes its timer away; so timers are known, and held, before the first one can.
        await self._timers.load()
        for entry in [await self._take_up(command) for command in kept]:
            self._carrier.add(entry)
        self._timers.start()

    async def stop(self) -> None:
        """Stop where things stand; the journal knows what goes on at the next start."""
        await self._timers.stop()
        await self._carrier.stop()
        await self._steps.drained()

    # from the wish to `accepted` or `rejected`

    async def submit(self, *commands: Command) -> list[CommandEvent]:
        """Accept all of these commands or reject all, and say so for each, in their order.

        One that came before, e.g. delivered twice at QoS 1, is answered with where it stands.
        """
        return await self._steps.owned(self._submit(commands))

    async def _submit(self, commands: tuple[Command, ...]) -> list[CommandEvent]:
        try:
            earlier = [await self._standing(command.id) for command in commands]
        except JournalError as error:
            return [self._reject(command, Refusal(Reason.NOT_STORED, str(error))) for command in commands]
        again = [e for e, c in zip(earlier, commands, strict=True) if e and _same_wish(e.command, c)]
        if len(again) == len(commands):
            return again
        verdicts: list[Value | Refusal] = []
        taken: list[Command] = []
        along = Along()
        for command, event in zip(commands, earlier, strict=True):
            verdict = self._taken(command) if event else self._judge(command, along)
            verdicts.append(verdict)
            if not isinstance(verdict, Refusal):
                taken.append(msgspec.structs.replace(command, value=verdict))
                along.add(taken[-1])
        if len({command.id for command in commands}) < len(commands):
            verdicts = [self._taken(command) for command in commands]
        if any(isinstance(verdict, Refusal) for verdict in verdicts):
            return [self._reject(c, v) for c, v in zip(commands, verdicts, strict=True)]
        now = self._clock.now()
        entries = [
            Entry(command, self._clock.monotonic() + (command.expires - now).total_seconds()) for command in taken
        ]
        for command in taken:
            self._policy.count(command)
        return await self._accept(entries)

    async def steps(self, command_id: str) -> list[CommandEvent]:
        """Return all steps of a command, oldest first. Raises JournalError."""
        return await self._journal.history(command_id)

    def effort(self, setpoint: str, serials: Sequence[str]) -> Mapping[str, Effort | None]:
        """Return what it takes to set a setpoint of these devices, by the bridge that would. See `Context.effort`."""
        return self._carrier.effort(setpoint, serials)

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
        devices = {state.device.serial: state.device for state in self._router.states()}
        verdict = self._examine(command, Along(), thorough=True)
        return msgspec.structs.replace(verdict, unmet=tuple(self._policy.settings.unmet(devices)))

    def _judge(self, command: Command, along: Along) -> Value | Refusal:
        verdict = self._examine(command, along)
        return verdict.refusal or verdict.value

    def _examine(self, command: Command, along: Along, *, thorough: bool = False) -> Verdict:
        state = self._router.state(command.serial)
        more = (
            ("time", self._in_time),
            ("id", self._is_new),
            ("controller", self._has_controller),
            ("dead-man's timer", self._has_fallback),
        )
        return self._policy.examine(command, state.device if state else None, along, more, thorough=thorough)

    def _in_time(self, command: Command) -> str | Refusal:
        left = (command.expires - self._clock.now()).total_seconds()
        return Refusal(Reason.EXPIRED, "it had expired when it arrived") if left <= 0 else f"it expires in {left:.0f} s"

    def _is_new(self, command: Command) -> str | Refusal:
        return self._taken(command) if command.id in self._open else ""

    def _has_controller(self, command: Command) -> str | Refusal:
        takers = self._carrier.takers(command)
        if not takers:
            return Refusal(Reason.NO_CONTROLLER, f"no bridge can set {command.setpoint} of {command.serial}")
        return f"{', then '.join(takers)} would carry it out"

    @staticmethod
    def _has_fallback(command: Command) -> str | Refusal:
        if command.revert_after is None or command.revert_value is not None:
            return ""
        neutral = SETPOINTS[command.setpoint].neutral
        if neutral is None:
            return Refusal(
                Reason.BAD_REQUEST, f"revert_after needs a revert_value: {command.setpoint} has no neutral one"
            )
        return f"after {command.revert_after:g} s it is set back to its neutral value, {neutral}"

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
        self._journal.refused(event)
        self._router.command_step(event)
        return event

    async def _accept(self, entries: list[Entry]) -> list[CommandEvent]:
        for entry in entries:
            await entry.moving.acquire()  # new, so this does not wait
            self._open[entry.command.id] = entry
            self._timers.hold(entry)
        try:
            events = await self._steps.take(*(Move(entry, Happening.PERMITTED) for entry in entries))
        except JournalError as error:
            refusal = Refusal(Reason.NOT_STORED, str(error))
            for entry in entries:
                entry.event = self._reject(entry.command, refusal)
                entry.state = CommandState.REJECTED
                self._ended(entry)
            return [entry.event for entry in entries if entry.event is not None]
        else:
            for entry in entries:
                self._carrier.add(entry)
            return events
        finally:
            for entry in entries:
                entry.moving.release()

    async def _revert(self, command: Command, deadline: float) -> None:
        """Accept what a dead-man's timer sends. Nobody judges it: it was when the timer was asked for."""
        await self._accept([Entry(command, deadline)])

    async def _take_up(self, kept: OpenCommand) -> Entry:
        """Take up a command that the journal knows from before a restart."""
        command = kept.command
        now, monotonic = self._clock.now(), self._clock.monotonic()
        # Were the wall clock put back meanwhile, it still would not live longer than it was ever to live.
        remaining = min(command.expires - now, command.expires - command.created).total_seconds()
        entry = Entry(command, monotonic + remaining, kept.state)
        entry.controller, entry.receipt, entry.outcome = kept.controller, kept.receipt, kept.outcome
        if kept.controller is not None:
            entry.left = "before the gateway was restarted"
            since = (now - (await self._journal.history(command.id))[-1].time).total_seconds()
            entry.handed_at = monotonic - max(0.0, since)
        self._open[command.id] = entry
        self._timers.hold(entry)
        log.info("command taken up after a restart", id=command.id, state=kept.state)
        return entry

    def _halt_changed(self) -> None:
        self._carrier.wake_all()
        self._router.halt_changed()

    def _ended(self, entry: Entry) -> None:
        self._open.pop(entry.command.id, None)
        self._timers.release(entry)

    def _measured(self, snapshot: Snapshot) -> None:
        self._carrier.ends.verifier.seen(snapshot)
        self.drift.seen(snapshot)

    # what bridges say of commands

    async def cancel(self, ids: Iterable[str], by: str) -> int:
        """End commands that have not left yet, as expired. Returns how many that were. Raises JournalError."""
        entries = [entry for id_ in dict.fromkeys(ids) if (entry := self._open.get(id_)) is not None]
        return await self._steps.owned(self._cancel_all(entries, by))

    async def _cancel_all(self, entries: list[Entry], by: str) -> int:
        return sum(await asyncio.gather(*(self._cancel(entry, by) for entry in entries)))

    async def _cancel(self, entry: Entry, by: str) -> bool:
        async with entry.moving:
            if not entry.waits or entry.outcome is not None:
                return False
            await self._steps.take(Move(entry, Happening.CANCELLED, f"cancelled by {by}"))
        self._carrier.wake(entry)
        return True

    async def keep_receipt(self, receipt: str, *ids: str) -> None:
        """Keep, before these commands leave, by what their results will be told. Raises JournalError."""
        await self._journal.keep_receipt(receipt, *ids)
        for id_ in ids:
            if id_ in self._open:
                self._open[id_].receipt = receipt

    async def command_of(self, receipt: str, serial: str) -> str | None:
        """Return the id of the command that has this receipt and device, also long after its end."""
        return await self._journal.command_of(receipt, serial)

    async def told(self, command_id: str, outcome: Outcome) -> Told:
        """Take in a result that the far side told by itself; journaled when this returns. Raises JournalError."""
        return await self._steps.owned(self._told(command_id, outcome))

    async def _told(self, command_id: str, outcome: Outcome) -> Told:
        entry = self._open.get(command_id)
        if entry is not None:
            async with entry.moving:
                if entry.state is not None and not entry.state.final:
                    return await self._results.of_open(entry, outcome)
        return await self._results.of_ended(command_id, outcome)


def _same_wish(known: Command, asked: Command) -> bool:
    if (known.serial, known.setpoint) != (asked.serial, asked.setpoint):
        return False
    try:
        return known.value == SETPOINTS[asked.setpoint].parse(asked.value)
    except BadValueError:
        return False
