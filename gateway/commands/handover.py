"""Hands commands over to bridges: the journal has it before anything leaves, and takes back what certainly did not."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Final

import msgspec
import structlog

from gateway.commands.completion import Completion
from gateway.commands.drift import Drift
from gateway.commands.lane import Entry, Moving
from gateway.commands.memory import SetpointMemory
from gateway.commands.policy.policy import Policy
from gateway.commands.state_machine import Trigger
from gateway.commands.steps import Change, Move, Steps
from gateway.commands.timers import Timers
from gateway.commands.wear import Wear
from gateway.core.clock import Clock, Moment
from gateway.core.controller import Controller, Outcome, ReceiptsFirst
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.model import Command, CommandState, Value
from gateway.core.points import SETPOINTS
from gateway.journal import writes
from gateway.journal.journal import Journal, JournalError

log = structlog.get_logger("control")

ANSWER_GRACE: Final = 1.0
"""Seconds beyond a command's expiry in which a bridge may still say that it handed it over in time."""


class HandOver:
    """Gives commands to bridges."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        clock: Clock,
        steps: Steps,
        timers: Timers,
        memory: SetpointMemory,
        drift: Drift,
        wear: Wear,
        ends: Completion,
    ) -> None:
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._steps = steps
        self._timers = timers
        self._memory = memory
        self._drift = drift
        self._wear = wear
        self._ends = ends
        self._controllers: Mapping[str, Controller] = {}
        self._receipts_first: frozenset[str] = frozenset()
        """Names of the controllers that keep receipts before anything leaves."""
        self.sent: Callable[[Command, Moment], None] = lambda _, __: None
        """Given each command that has left, or perhaps has, and when it was handed over."""

    def use(self, controllers: Mapping[str, Controller]) -> None:
        """Set to whom commands can be handed."""
        self._controllers = controllers
        # Asked once: what a protocol is asked of every command costs as much as a step of it.
        self._receipts_first = frozenset(
            name for name, each in controllers.items() if isinstance(each, ReceiptsFirst) and each.receipts_first
        )

    async def send(self, entry: Entry, others: Sequence[Entry], name: str) -> bool:
        """Hand a command over, with `others` that came by the same request for the same order.

        Returns whether it may have left; raises NotSentError.
        """
        carried = self._memory.order(entry.command) | {other.command.setpoint: other.command.value for other in others}
        await self._ends.make_way(entry.key, carried)
        together = (entry, *others)
        async with Moving(*together):
            now = self._clock.moment()
            if not all(each.may_leave(now, name) for each in together):
                return False
            noted = name not in self._receipts_first
            if noted:
                await self._journal.write(self._handing(name, together), owing=entry.is_revert)
            for each in together:
                if not each.waits:
                    each.bound = entry.bound
                each.handed_over(name, self._clock.moment())
                each.is_noted = noted
                each.left = f"by {name}"
                self._wear.count(each.command)
        entry.companions = list(others)
        try:
            receipt = await self._hand_over(entry, self._controllers[name], carried)
        except NotSentError:
            if await self._unsent(entry):
                raise
            return True
        except RefusedError as error:
            entry.outcome = entry.outcome or Outcome(CommandState.FAILED, str(error))
        except (UnsureError, TimeoutError) as error:
            if entry.outcome is None:
                log.warning("no certain answer to a command", id=entry.command.id, bridge=name, error=str(error))
                entry.left = f"by {name}; {str(error) or 'no answer in time'}"
        except Exception as error:
            log.exception("bridge failed while sending", id=entry.command.id, bridge=name)
            entry.left = f"by {name}; {error}"
        else:
            await self._note_left(entry, receipt)
            return True
        await self._note_left(entry, "")
        return True

    async def _note_left(self, entry: Entry, receipt: str) -> None:
        """Take the step to `sent`, with the receipt, for a command and what left with it."""
        together = (entry, *entry.companions)
        fresh = [each for each in together if receipt and receipt != each.receipt]
        for each in fresh:
            each.receipt = receipt
        along = [Change(writes.receipt(receipt, [each.command.id for each in fresh]))] if fresh else []
        if unnoted := [each for each in together if not each.is_noted]:
            # It was to be noted before anything left; by a result that came first, or a mistake, it is only now.
            name = entry.controller or ""
            along.insert(0, Change(self._handing(name, unnoted), partial(self._note, unnoted)))
        leaving = [each for each in together if each.outcome is None and each.state is CommandState.ACCEPTED]
        along += [arm for each in leaving for arm in self._timers.left(each)]
        if leaving or along:
            moves = [Move(each, Trigger.LEFT, each.left) for each in leaving]
            await self._steps.take(*moves, along=along, owing=entry.is_revert)

    def _handing(self, name: str, together: Sequence[Entry], receipt: str = "") -> writes.Write:
        return writes.handing_to(name, [each.command for each in together], self._clock.now(), receipt)

    @staticmethod
    def _note(together: Sequence[Entry]) -> None:
        for each in together:
            each.is_noted = True

    async def keep_receipt(self, receipt: str, ids: Sequence[str], entries: Sequence[Entry]) -> None:
        """Keep by what the results of these commands will be known; `entries` are those that have not ended."""
        left = [each for entry in entries for each in (entry, *entry.companions)]
        handed: dict[str, list[Entry]] = {}
        for each in left:
            if each.controller is not None and not each.is_noted:
                handed.setdefault(each.controller, []).append(each)
        noted = {each.command.id for together in handed.values() for each in together}
        others = {*ids, *(each.command.id for each in left)} - noted
        changes = [self._handing(name, each, receipt) for name, each in handed.items()]
        if others:
            changes.append(writes.receipt(receipt, others))
        for together in handed.values():
            self._note(together)
        try:
            await self._journal.write(*changes, owing=bool(left) and all(entry.is_revert for entry in left))
        except JournalError:
            for each in left:
                each.is_noted = each.is_noted and each.command.id not in noted
            raise
        for each in left:
            if each.is_noted or each.command.id not in noted:  # else it was taken back meanwhile
                each.receipt = receipt

    async def _unsent(self, entry: Entry) -> bool:
        """Take back that a command, and what was to leave with it, was handed over; False where a result came."""
        async with Moving(entry, *entry.companions):
            for companion in entry.companions:
                if companion.outcome is None:
                    await self.taken_back(companion)
            entry.companions = []
            if entry.outcome is not None:
                return False
            await self.taken_back(entry)
            return True

    async def taken_back(self, entry: Entry) -> None:
        """Note that a command has certainly not left."""
        noted = entry.is_noted
        entry.taken_back()
        self._wear.count(entry.command, -1)
        self._memory.unsent(entry.command)
        if entry.bound is None and noted:
            back, setting = writes.taking_back(entry.command), writes.setting(self._memory.stored(entry.key))
            await self._journal.write(back, setting, owing=entry.is_revert)

    async def _hand_over(self, entry: Entry, controller: Controller, others: Mapping[str, Value]) -> str:
        """Give a command to a controller. Returns the receipt; raises what it raises."""
        now = self._clock.moment()
        remaining = entry.remaining(now)
        if remaining <= 0:
            raise NotSentError("")  # why it did not leave before was said then
        if self._policy.halting.current is not None and not entry.is_revert:
            raise NotSentError("control was halted while it was written to the journal")
        for each in (entry, *entry.companions):
            self._drift.leaves(each.command)
            self._memory.leaves(each.command, now)
            self._ends.verifier.leaves(each)
            each.left_at = now  # unless the bridge asks later whether it may leave
        command, receipts_first = self._bounded(entry), entry.controller in self._receipts_first
        left = True
        try:
            async with asyncio.timeout(min(remaining + ANSWER_GRACE, _guarded(entry))) as timeout:
                entry.waits_in(timeout)
                return await controller.send(command, others, remaining)
        except NotSentError:
            left = False
            raise
        except (UnsureError, TimeoutError) as error:
            if not receipts_first or entry.receipt:
                raise
            left = False
            raise NotSentError(str(error)) from error  # nothing may leave before there is a receipt
        finally:
            entry.waiting = None
            if left:
                self.sent(command, now)

    def _bounded(self, entry: Entry) -> Command:
        """Return a command as it is sent: an order whose timer runs already holds no longer than that."""
        command, group = entry.command, SETPOINTS[entry.command.setpoint].group
        if not group or command.revert_after is not None or entry.is_renewal or entry.is_revert:
            return command
        left = self._timers.armed(command.serial, group)
        return command if left is None else msgspec.structs.replace(command, revert_after=max(1.0, left))

    def may_leave(self, entries: Sequence[Entry]) -> bool:
        """Return whether commands that were handed over may leave now, all by one call; if so, this is when they do."""
        now = self._clock.moment()
        if not self.still_wanted(entries, now):
            return False
        for entry in entries:
            for each in (entry, *entry.companions):
                each.left_at = now
        return True

    def still_wanted(self, entries: Sequence[Entry], now: Moment) -> bool:
        """Return whether the time of none of these commands is over, and no halt holds one of them back."""
        if any(entry.remaining(now) <= 0 for entry in entries):
            return False
        return self._policy.halting.current is None or all(entry.is_revert for entry in entries)


def _guarded(entry: Entry) -> float:
    """Return in how many seconds the first dead-man's timer of what leaves together runs out; it waits for no call."""
    together = (entry, *entry.companions)
    return min((each.command.revert_after for each in together if each.command.revert_after is not None), default=inf)
