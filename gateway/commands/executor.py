"""Carries accepted commands out: one lane after the other's turn, each command to its end.

A lane's worker hands a command over, waits until the far side says what became of it, and goes on with the next; that a
value is read back is waited for beside the lane, and only until the next command for that setpoint takes its turn.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from gateway.commands.completion import RETRY_FIRST, Completion
from gateway.commands.drift import Drift
from gateway.commands.handover import HandOver
from gateway.commands.lane import Entry, Lane, LaneKey
from gateway.commands.memory import SetpointMemory
from gateway.commands.policy.policy import Policy, Refusal
from gateway.commands.state_machine import Trigger
from gateway.commands.steps import Change, Move, Steps
from gateway.commands.timers import Timers
from gateway.commands.trust import WallTrust
from gateway.commands.verify import Verifier
from gateway.commands.wear import Wear, spent
from gateway.core.clock import Clock, Moment
from gateway.core.controller import (
    Admitting,
    CallEstimate,
    Controller,
    Estimator,
    Foretelling,
    Outcome,
    Pushing,
    ResultEffect,
    Slow,
)
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.metrics import count_ended
from gateway.core.model import Command, CommandEvent, CommandState, Origin, Reason
from gateway.core.places import FEW, Others, Places
from gateway.core.points import LEADERS, SETPOINTS
from gateway.core.router import Router
from gateway.core.tasks import all_of
from gateway.core.verdict import Foretold
from gateway.journal import writes
from gateway.journal.journal import Journal, JournalError, OpenCommand

log = structlog.get_logger("control")

MAX_SUPERSEDED_A_COMMIT: Final = 1_000
"""Commands that end in one write to the journal."""
MAX_RETRY_SECONDS: Final = 30.0
RESULT_TIMEOUT: Final = 120.0
"""Seconds after which a command that was sent, and of which nothing is heard, ends as unknown."""
CLOCK_LOOK: Final = 1.0
"""Seconds between looks whether the clock is known to be right."""
A_TURN: Final = 200
"""Commands of before a restart that are taken up in one turn of the loop."""
UNCHANGED: Final = "not sent again, it is in force already"
KEPT: Final = "kept for the next order: none is known to run now, so nothing was sent"


class CommandExecutor:
    """Runs the lanes."""

    def __init__(
        self,
        router: Router,
        policy: Policy,
        journal: Journal,
        clock: Clock,
        trust: WallTrust,
        steps: Steps,
        timers: Timers,
        memory: SetpointMemory,
        drift: Drift,
        wear: Wear,
    ) -> None:
        self._router = router
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._steps = steps
        self._timers = timers
        self._trust = trust
        self.memory: Final = memory
        self._wear = wear
        verifier = Verifier(router, clock, policy.settings.verify_within)
        self.ends: Final = Completion(router, journal, clock, steps, timers, memory, verifier)
        self.controllers: dict[str, Controller] = {}
        self._result_within: dict[str, float] = {}
        self._pushed_within: dict[str, float] = {}
        self._admitting: dict[str, Admitting] = {}
        self.hand_over: Final = HandOver(policy, journal, clock, steps, timers, memory, drift, wear, self.ends)
        self.open: dict[str, Entry] = {}
        """Every command that has not ended, by its id."""
        self.promises: Counter[str] = Counter()
        """Serial → how many of those are of that device."""
        self.refuse: Callable[[Command, Refusal], CommandEvent]
        """Says, and has written, that a command is rejected."""
        self.ends.wake = self.wake
        steps.ended = self._ended
        self._lanes: dict[LaneKey, Lane] = {}
        self.others: Final = Others()
        self._places = Places(self._start_lane, self.others.room)
        """For lanes that have only commands of fleets: they begin when there is a place, until something has left."""
        self._stopped = False

    def use(self, controllers: Mapping[str, Controller]) -> None:
        """Set who carries commands out, first choice first."""
        self.controllers = dict(controllers)
        self._admitting = {name: each for name, each in controllers.items() if isinstance(each, Admitting)}
        self._result_within = {name: each.result_within for name, each in controllers.items() if isinstance(each, Slow)}
        self._pushed_within = {
            name: each.pushed_within for name, each in controllers.items() if isinstance(each, Pushing)
        }
        self.hand_over.use(self.controllers)

    def start(self) -> None:
        """Begin to carry out what is added."""
        self._stopped = False

    async def stop(self) -> None:
        """Stop where things stand. What is added from now on stays in the journal."""
        self._stopped = True
        self._places.close()
        workers = [lane.worker for lane in self._lanes.values() if lane.worker is not None]
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._lanes.clear()
        await self.ends.stop()

    def _add(self, entry: Entry) -> None:
        """Have a command take its turn."""
        if self._stopped:
            return
        lane = self._lanes.setdefault(entry.lane, Lane())
        lane.add(entry)
        first = lane.entries[0]
        if entry.is_revert and first is not entry and first.outcome is None and first.waiting is not None:
            # Nobody waits for a result while a device stands as its dead man left it.
            first.hear(Outcome(CommandState.UNKNOWN, "no result came before its dead-man's timer ran out"))
        if not entry.command.bulk:
            self.others.came()
            self._start_lane(entry.lane)
        elif lane.worker is None and first is entry:
            self._places.enter(entry.lane)

    def _start_lane(self, key: LaneKey) -> None:
        """Have a lane's commands carried out, unless that is so already, or there is none any more."""
        lane = self._lanes.get(key)
        if lane is None or lane.worker is not None:
            self._places.leave(key)
        else:
            lane.worker = asyncio.create_task(self._run(key, lane), name=f"commands {'/'.join(key)}")

    def foretell(self, command: Command) -> Foretold | None:
        """Return what a command would come to that is shared out; None for any other."""
        for name in self.takers(command.setpoint, command.serial)[:1]:
            controller = self.controllers[name]
            if isinstance(controller, Foretelling):
                return controller.foretell(command)
        return None

    def takers(self, setpoint: str, serial: str) -> list[str]:
        """Return the names of the bridges that can set that setpoint of that device, first choice first."""
        return [name for name, controller in self.controllers.items() if controller.takes(serial, setpoint)]

    def first_choice(self, command: Command) -> str:
        """Return the bridge that a command would go to first, "" where there is none."""
        try:
            return next(iter(self.takers(command.setpoint, command.serial)), "")
        except Exception:
            log.exception("bridge failed while asked what it takes", id=command.id)
            return ""

    def call_estimate(self, setpoint: str, serials: Sequence[str]) -> dict[str, CallEstimate | None]:
        """Return what it takes to set a setpoint of these devices, by the bridge that would."""
        reached: dict[str, list[str]] = {}
        for serial in serials:
            name = next((name for name, each in self.controllers.items() if each.takes(serial, setpoint)), None)
            if name is not None:
                reached.setdefault(name, []).append(serial)
        return {
            name: controller.call_estimate(setpoint, those) if isinstance(controller, Estimator) else None
            for name, those in reached.items()
            if (controller := self.controllers[name]) is not None
        }

    def wake(self, entry: Entry) -> None:
        """Have a lane look at once at what has become of its command."""
        lane = self._lanes.get(entry.lane)
        if lane is not None:
            lane.arrival.set()

    def wake_all(self) -> None:
        """Have every lane look at once whether its command may still leave."""
        for lane in self._lanes.values():
            lane.arrival.set()

    # who moves a command

    async def hold(self, entries: Iterable[Entry]) -> None:
        """Have new commands known, each to be moved on by `accept` alone. Waits for nothing."""
        for entry in entries:
            await entry.moving.acquire()
            self._hold(entry)

    async def accept_each(self, requests: Sequence[Sequence[Entry]]) -> list[list[CommandEvent]]:
        """`accept` each of these requests. What comes together is one commit, as long as that succeeds."""
        if len(requests) > 1:
            with suppress(JournalError):  # perhaps for a text of one of them, so each by itself then
                return await self._accept_together(requests)
        return await all_of(map(self.accept, requests))

    async def _accept_together(self, requests: Sequence[Sequence[Entry]]) -> list[list[CommandEvent]]:
        every = [entry for entries in requests for entry in entries]
        try:
            events = iter(await self._journal_accepted(every))
            for entry in every:
                self._add(entry)
        except JournalError:
            raise
        except BaseException:
            self._release(every)
            raise
        self._release(every)
        return [[next(events) for _ in entries] for entries in requests]

    @staticmethod
    def _release(entries: Iterable[Entry]) -> None:
        for entry in entries:
            entry.moving.release()

    async def _journal_accepted(self, entries: Sequence[Entry]) -> list[CommandEvent]:
        deadlines = [(entry.command.id, entry.deadline.boot) for entry in entries]
        keep = Change(writes.deadlines(self._clock.boot_id(), deadlines))
        return await self._steps.take(*(Move(entry, Trigger.PERMITTED) for entry in entries), along=[keep])

    async def accept(self, entries: Sequence[Entry]) -> list[CommandEvent]:
        """Journal commands that are held, all or none, and have them take their turns; say which it was."""
        try:
            events = await self._journal_accepted(entries)
        except JournalError as error:
            refusal = Refusal(Reason.NOT_STORED, str(error))
            for entry in entries:
                entry.event = self.refuse(entry.command, refusal)
                entry.step(Trigger.REFUSED)
                self._ended(entry)
            return [entry.event for entry in entries if entry.event is not None]
        else:
            for entry in entries:
                entry.accepted = self._clock.boot()
                self._add(entry)
            return events
        finally:
            self._release(entries)

    async def revert(self, command: Command, deadline: Moment) -> None:
        """Accept what a dead-man's timer sends. Nobody judges it: it was when the timer was asked for."""
        entries = [Entry(command, deadline)]
        await self.hold(entries)
        await self._steps.owned(self.accept(entries))

    def _hold(self, entry: Entry) -> None:
        self.open[entry.command.id] = entry
        self.promises[entry.command.serial] += 1
        self._timers.hold(entry)

    async def take_up(self, kept: Iterable[OpenCommand]) -> None:
        """Take up commands that the journal knows from before a restart. All are held before the first moves on."""
        missing = [command for command in kept if command.command.id not in self.open]
        steps = await self._journal.last_events([command.command.id for command in missing])
        entries: list[Entry] = []
        for number, (command, step) in enumerate(zip(missing, steps, strict=True), 1):
            if isinstance(step, Exception):
                raise step
            entries.append(self._take_up(command, step))
            if number % A_TURN == 0:
                await asyncio.sleep(0)
        for number, entry in enumerate(entries, 1):
            self._add(entry)
            if number % A_TURN == 0:
                await asyncio.sleep(0)

    def _take_up(self, kept: OpenCommand, step: CommandEvent | None) -> Entry:
        """Take up a command that the journal knows from before a restart. `step`: its last one."""
        command = kept.command
        now, boot_id = self._clock.moment(), self._clock.boot_id()
        same_boot = bool(boot_id) and kept.boot_id == boot_id
        # Were the wall clock put back meanwhile, it still would not live longer than it was ever to live.
        remaining = min(command.expires - now.wall, command.expires - command.created).total_seconds()
        if same_boot:
            remaining = min(remaining, kept.boot - now.boot)
        deadline = msgspec.structs.replace(now.later(remaining), wall=command.expires)
        entry = Entry(command, deadline, kept.state)
        # The wall clock alone ran on meanwhile; where it was put back, nothing is known.
        entry.accepted = now.boot - max(0.0, (now.wall - command.created).total_seconds())
        entry.old = bool(boot_id and kept.boot_id) and not same_boot
        entry.controller, entry.receipt, entry.outcome = kept.controller, kept.receipt, kept.outcome
        entry.is_noted, entry.is_kept = kept.controller is not None, kept.outcome is not None
        if kept.controller is not None:
            entry.left = "before the gateway was restarted"
            since = 0.0 if step is None else (now.wall - step.time).total_seconds()
            entry.handed = now.later(-max(0.0, since))
        self._hold(entry)
        log.info("command taken up after a restart", id=command.id, state=kept.state)
        return entry

    def _ended(self, entry: Entry) -> None:
        self.open.pop(entry.command.id, None)
        serial = entry.command.serial
        if entry.state is not None and entry.state is not CommandState.REJECTED:
            bridge = entry.controller or self.first_choice(entry.command)
            count_ended(entry.state, bridge)(self._clock.boot() - entry.accepted)
        self.promises[serial] -= 1
        if self.promises[serial] <= 0:
            del self.promises[serial]
        self._timers.release(entry)
        self._router.release(serial)

    async def cancel(self, ids: Iterable[str], by: Origin) -> int:
        """End commands that have not left yet, as expired. Returns how many that were. Raises JournalError."""
        named = [entry for id_ in dict.fromkeys(ids) if (entry := self.open.get(id_)) is not None]
        # Half an order is another order, so its rest goes too.
        orders = {
            (id(e.request), e.lane) for e in named if e.request is not None and SETPOINTS[e.command.setpoint].group
        }
        rest = [e for e in self.open.values() if (id(e.request), e.lane) in orders] if orders else []
        entries = list({entry.command.id: entry for entry in (*named, *rest)}.values())
        return await self._steps.owned(self._cancel_all(entries, by))

    async def _cancel_all(self, entries: list[Entry], by: Origin) -> int:
        count = 0
        # Few at a time, as they are carried out; but none of the rest leaves meanwhile.
        with self._places.held():
            for first in range(0, len(entries), FEW):
                some = entries[first : first + FEW]
                count += sum(await all_of(self._cancel(entry, by) for entry in some))
        return count

    async def _cancel(self, entry: Entry, by: Origin) -> bool:
        async with entry.moving:
            if not entry.waits or entry.outcome is not None:
                return False
            await self._steps.take(Move(entry, Trigger.CANCELLED, f"cancelled by {by}"))
        self.wake(entry)
        return True

    async def keep_receipt(self, receipt: str, ids: Sequence[str]) -> None:
        """Keep, before these commands leave, by what their results will be known. Raises JournalError."""
        await self.hand_over.keep_receipt(receipt, ids, [self.open[id_] for id_ in ids if id_ in self.open])

    async def result_came(self, command_id: str, outcome: Outcome) -> ResultEffect:
        """Take in a result that the far side told by itself; journaled when this returns. Raises JournalError."""
        entry = self.open.get(command_id)
        if entry is not None and (telling := self.ends.heard(entry, outcome)) is not None:
            await telling
            return ResultEffect.TAKEN
        return await self._steps.owned(self._result_came(command_id, outcome))

    async def _result_came(self, command_id: str, outcome: Outcome) -> ResultEffect:
        entry = self.open.get(command_id)
        if entry is not None:
            if not entry.command.bulk:
                self.others.came()
            told = await self.ends.of_open(entry, outcome)
            if told is not None:
                return told
        return await self.ends.of_ended(command_id, outcome)

    # a lane

    async def _run(self, key: LaneKey, lane: Lane) -> None:
        works = True
        while lane.entries:
            entry = lane.entries[0]
            try:
                await self._thin_out(lane)
                if entry.state is None or not entry.state.final:
                    await self._drive(lane, entry)
            except JournalError as error:
                # What can't be written down is not done. The command goes on from where it stands as soon as
                # the disk is back, or expires.
                if works:
                    log.error("command waits for the journal", id=entry.command.id, error=str(error))
                works = False
                await self._rest(lane, entry, RETRY_FIRST)
            except Exception:
                # A mistake in a bridge or here must not leave what comes after it waiting for ever.
                log.exception("a command could not be carried on, trying again", id=entry.command.id)
                await self._rest(lane, entry, MAX_RETRY_SECONDS)
            else:
                works = True
                lane.entries.remove(entry)
                lane.drop_ended()
        del self._lanes[key]
        self._places.leave(key)

    async def _rest(self, lane: Lane, entry: Entry, seconds: float) -> None:
        """Wait before the next try; not in front of others, for a command that has ended, nor past its expiry."""
        self._places.leave(entry.lane)
        lane.drop_ended()
        if entry in lane.entries:
            await lane.pause(min(seconds, max(RETRY_FIRST, entry.remaining(self._clock.moment()))))

    async def _thin_out(self, lane: Lane) -> None:
        """End together what newer commands supersede, where that is many.

        One after the other, the journal would take longer over them than a flood takes to bring them.
        """
        while len(pairs := lane.outdated(MAX_SUPERSEDED_A_COMMIT)) > 1:
            for entry, _ in pairs:
                await entry.moving.acquire()  # free, so this does not wait
            try:
                await self._steps.take(
                    *(Move(entry, Trigger.OVERTAKEN, f"by {newest.command.id}") for entry, newest in pairs)
                )
            finally:
                for entry, _ in pairs:
                    entry.moving.release()
            first, *others = lane.entries
            lane.entries = others
            lane.drop_ended()
            lane.entries.insert(0, first)

    async def _drive(self, lane: Lane, entry: Entry) -> None:
        """Bring one command to its end, or to where only a read-back is missing."""
        entry.is_driven = True
        try:
            await self._drive_on(lane, entry)
        finally:
            entry.is_driven = False
            self.ends.keep_told(entry)
            if entry.paced is not None:
                entry.paced.leave(entry.command)
                entry.paced = None

    async def _drive_on(self, lane: Lane, entry: Entry) -> None:
        if entry.controller is not None and entry.outcome is None:
            await self._ask_first(entry)
        if entry.outcome is None and not await self._bring_out(lane, entry) and entry.outcome is None:
            return
        if entry.outcome is None:
            entry.outcome = await self._await_result(entry)
        for companion in entry.companions:
            # One call, one result; whether a value was read back is each one's own.
            if companion.outcome is None and companion.controller is not None:
                companion.hear(msgspec.structs.replace(entry.outcome, verified=False))
        entry.companions = []
        await self.ends.finish(entry, entry.outcome)

    async def _ask_first(self, entry: Entry) -> None:
        """Find out about a command that was handed over before a restart, or before the journal failed."""
        name = entry.controller
        if entry.is_revert and not entry.receipt:
            # Sent twice it does no harm, and asking takes time in which a device stands as its dead man left it.
            outcome = Outcome(CommandState.UNKNOWN, "not asked about")
        else:
            outcome = await self._await_result(entry)
        async with entry.moving:
            if outcome.state is CommandState.ACCEPTED:
                await self.hand_over.taken_back(entry)
            elif self._may_repeat(entry, outcome):
                log.info("nothing is known of a command, it is sent again", id=entry.command.id)
                entry.bound, entry.controller = name, None
            else:
                entry.outcome = entry.outcome or outcome

    def _may_repeat(self, entry: Entry, outcome: Outcome) -> bool:
        return (
            outcome.state is CommandState.UNKNOWN
            and not entry.receipt
            and entry.outcome is None
            and entry.controller in self.controllers
            and entry.remaining(self._clock.moment()) > 0
        )

    # handing over

    async def _bring_out(self, lane: Lane, entry: Entry) -> bool:
        """Offer a command to the controllers until one has sent it. False when it ended before that."""
        pause, trouble = RETRY_FIRST, "its turn did not come in time"
        while True:
            if entry.outcome is not None:
                return True
            if entry.state is not None and entry.state.final:
                return False
            if way_out := self._way_out(lane, entry, trouble):
                await self.ends.end_unsent(entry, *way_out)
                return False
            if entry.old and not entry.is_revert and not self._trust.known:
                # The machine was started since, and nobody knows yet what time it is.
                trouble = "it is not known what time it is since the machine was started"
                self._places.leave(entry.lane)
                await lane.pause(min(CLOCK_LOOK, max(0.0, entry.remaining(self._clock.moment()))))
                continue
            if self._is_refresh(entry):
                await self._end_without_call(entry, UNCHANGED)
                return False
            if self._is_kept(lane, entry):
                await self._end_without_call(entry, KEPT)
                return False
            retry_after = 0.0
            for name, controller in self.controllers.items():
                try:
                    if not self._carries(entry, name, controller):
                        continue
                    if await self._turn(lane, entry, name) and await self._send(lane, entry, name):
                        return True
                    break
                except NotSentError as error:
                    trouble, retry_after = str(error) or trouble, error.retry_after or 0.0
            else:
                self._places.leave(entry.lane)
                await lane.pause(min(max(pause, retry_after), entry.remaining(self._clock.moment())))
                pause = min(pause * 2, MAX_RETRY_SECONDS)

    async def _turn(self, lane: Lane, entry: Entry, name: str) -> bool:
        """Wait until the controller has room. False where something else came first: look at the command again."""
        controller = self._admitting.get(name)
        if entry.is_revert or controller is None:
            return True
        entry.paced = controller
        turn = controller.turn(entry.command)
        self._places.leave(entry.lane)  # the controller bounds how many leave
        if not turn.done():
            await lane.pause(entry.remaining(self._clock.moment()), turn)
        return turn.done() and not turn.cancelled()

    def _way_out(self, lane: Lane, entry: Entry, trouble: str) -> tuple[Trigger, str] | None:
        """Return why a command is not to be handed over any more."""
        if successor := lane.successor(entry):
            return Trigger.OVERTAKEN, f"by {successor.command.id}"
        if entry.remaining(self._clock.moment()) <= 0:
            return Trigger.OVERDUE, trouble
        if entry.is_renewal:
            # It changes nothing that was not judged; but control that is halted lets orders end.
            return (Trigger.FORBIDDEN, "control is halted") if self._policy.halting.current is not None else None
        if not entry.is_revert:
            state = self._router.state(entry.command.serial)
            if refusal := self._policy.judge_again(entry.command, state.device if state else None):
                again = "" if refusal.reason is Reason.HALTED else "not permitted any more: "
                return Trigger.FORBIDDEN, again + refusal.detail
            most = self._policy.settings.writes_per_day
            if self._wear.today(entry.command.serial) >= most and not self.memory.holds(entry.command):
                return Trigger.FORBIDDEN, spent(entry.command.serial, most)
        return None

    @staticmethod
    def _carries(entry: Entry, name: str, controller: Controller) -> bool:
        if entry.bound not in (None, name):
            return False
        try:
            return controller.takes(entry.command.serial, entry.command.setpoint)
        except Exception as error:
            log.exception("bridge failed while asked what it takes", id=entry.command.id, bridge=name)
            raise NotSentError(str(error)) from error

    def _is_refresh(self, entry: Entry) -> bool:
        """Return whether a command only asks for what is in force. A revert is always sent."""
        return entry.waits and not entry.is_revert and not entry.is_renewal and self.memory.holds(entry.command)

    def _is_kept(self, lane: Lane, entry: Entry) -> bool:
        """Return whether a command only changes a setting of an order that does not run: it starts none."""
        point = SETPOINTS[entry.command.setpoint]
        if not point.group or point.id == LEADERS[point.group] or not entry.waits:
            return False
        others = [] if entry.is_revert else lane.companions(entry)
        leads = any(companion.command.setpoint == LEADERS[point.group] for companion in others)
        return not leads and not self.memory.runs(entry.command.serial, point.group)

    async def _end_without_call(self, entry: Entry, why: str) -> None:
        """End a command without a call: its dead-man's timer starts anew, and what is to be kept is."""
        await self.ends.make_way(entry.key)
        async with entry.moving:
            if not entry.waits or entry.outcome is not None:
                return
            entry.handed = self._clock.moment()
            end = Trigger.CONFIRMED if self.memory.verified(entry.command) else Trigger.FOUND_DONE
            along = self._timers.after(entry, in_force=True, perhaps=False)
            if why is KEPT:
                self.memory.kept(entry.command)
                end = Trigger.FOUND_DONE
                along.append(Change(writes.setting(self.memory.stored(entry.key))))
            await self._steps.take(Move(entry, Trigger.LEFT, why), Move(entry, end, why), along=along)

    async def _send(self, lane: Lane, entry: Entry, name: str) -> bool:
        others: list[Entry] = []
        if not entry.is_revert:
            others = [other for other in lane.companions(entry) if not self._way_out(lane, other, "")]
        return await self.hand_over.send(entry, others, name)

    # what became of it

    async def _await_result(self, entry: Entry) -> Outcome:
        """Ask what became of a command until somebody knows or tells, for as long as its controller needs at most."""
        trouble = "no result came in time"
        self._places.leave(entry.lane)
        name = entry.controller or ""
        if entry.receipt and entry.outcome is None and (within := self._pushed_within.get(name)) is not None:
            await entry.heard(within)
        if entry.outcome is not None:
            return entry.outcome
        try:
            async with asyncio.timeout(self._result_within.get(name, RESULT_TIMEOUT)) as timeout:
                entry.waits_in(timeout)
                while entry.outcome is None:
                    controller = self.controllers.get(name)
                    if controller is None:
                        return Outcome(CommandState.UNKNOWN, f"bridge {entry.controller} is configured no more")
                    try:
                        return await controller.result(entry.command, entry.receipt)
                    except NotSentError as error:
                        trouble = str(error)
                        await asyncio.sleep(error.retry_after or RETRY_FIRST)
                    except UnsureError as error:
                        trouble = str(error)
                        await asyncio.sleep(RETRY_FIRST)
        except TimeoutError:
            pass
        except RefusedError as error:
            trouble = str(error)
        except Exception as error:
            log.exception("bridge failed while asking for a result", id=entry.command.id)
            trouble = str(error)
        finally:
            entry.waiting = None
        return entry.outcome or Outcome(CommandState.UNKNOWN, trouble)
