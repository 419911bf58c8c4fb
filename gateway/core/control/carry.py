"""Carries accepted commands out: one lane after the other's turn, each command to its end.

A lane's worker hands a command over, waits until the far side says what became of it, and goes on with the next; that a
value is read back is waited for beside the lane, and only until the next command for that setpoint takes its turn.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog

from gateway.core.bridge import Controller, Effort, Estimator, Outcome, Paced
from gateway.core.clock import Clock
from gateway.core.control.drift import Drift
from gateway.core.control.ends import RETRY_FIRST, Ends
from gateway.core.control.in_force import InForce
from gateway.core.control.lane import LASTING, Entry, Lane, LaneKey, PointKey
from gateway.core.control.life import Happening
from gateway.core.control.steps import Move, Steps
from gateway.core.control.timers import Timers
from gateway.core.control.verify import Verifier
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.journal.journal import Journal, JournalError
from gateway.core.model import Command, CommandState, Reason, Value
from gateway.core.points import SETPOINTS
from gateway.core.policy.policy import Policy, Refusal
from gateway.core.router import Router

log = structlog.get_logger("control")

SUPERSEDED_AT_ONCE: Final = 1_000
"""Commands that end in one write to the journal."""
RETRY_MOST: Final = 30.0
RESULT_TIMEOUT: Final = 120.0
"""Seconds after which a command that was sent, and of which nothing is heard, ends as unknown."""
ANSWER_GRACE: Final = 1.0
"""Seconds beyond a command's expiry in which a bridge may still say that it handed it over in time."""
UNCHANGED: Final = "not sent again, it is in force already"


class Latest(NamedTuple):
    """The newest command of a setpoint that was handed over in this run."""

    id: str
    at: float
    """On the monotonic clock."""


class Carrier:
    """Runs the lanes."""

    def __init__(
        self, router: Router, policy: Policy, journal: Journal, clock: Clock, steps: Steps, timers: Timers, drift: Drift
    ) -> None:
        self._router = router
        self._policy = policy
        self._journal = journal
        self._clock = clock
        self._steps = steps
        self._timers = timers
        self._drift = drift
        self._known = InForce(router, policy, clock)
        verifier = Verifier(router, clock, policy.settings.verify_within)
        self.ends: Final = Ends(router, journal, clock, steps, timers, drift, self._known, verifier)
        self.controllers: dict[str, Controller] = {}
        self.latest: dict[PointKey, Latest] = {}
        self._lanes: dict[LaneKey, Lane] = {}
        self._stopped = False

    def start(self) -> None:
        """Begin to carry out what is added."""
        self._stopped = False

    async def stop(self) -> None:
        """Stop where things stand. What is added from now on stays in the journal."""
        self._stopped = True
        workers = [lane.worker for lane in self._lanes.values() if lane.worker is not None]
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._lanes.clear()
        await self.ends.stop()

    def add(self, entry: Entry) -> None:
        """Have a command take its turn."""
        if self._stopped:
            return
        lane = self._lanes.setdefault(entry.lane, Lane())
        lane.add(entry)
        if lane.worker is None:
            lane.worker = asyncio.create_task(self._run(entry.lane, lane), name=f"commands {'/'.join(entry.lane)}")

    def takers(self, command: Command) -> list[str]:
        """Return the names of the bridges that can set that setpoint of that device, first choice first."""
        return [
            name for name, controller in self.controllers.items() if controller.takes(command.serial, command.setpoint)
        ]

    def effort(self, setpoint: str, serials: Sequence[str]) -> dict[str, Effort | None]:
        """Return what it takes to set a setpoint of these devices, by the bridge that would."""
        reached: dict[str, list[str]] = {}
        for serial in serials:
            name = next((name for name, each in self.controllers.items() if each.takes(serial, setpoint)), None)
            if name is not None:
                reached.setdefault(name, []).append(serial)
        return {
            name: controller.effort(setpoint, those) if isinstance(controller, Estimator) else None
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
                await asyncio.sleep(RETRY_FIRST)
            except Exception:
                # A mistake in a bridge or here must not leave what comes after it waiting for ever.
                log.exception("a command could not be carried on, trying again", id=entry.command.id)
                await asyncio.sleep(RETRY_MOST)
            else:
                works = True
                lane.entries.remove(entry)
                lane.drop_ended()
        del self._lanes[key]

    async def _thin_out(self, lane: Lane) -> None:
        """End together what newer commands supersede, where that is many.

        One after the other, the journal would take longer over them than a flood takes to bring them.
        """
        while len(pairs := lane.outdated(SUPERSEDED_AT_ONCE)) > 1:
            for entry, _ in pairs:
                await entry.moving.acquire()  # free, so this does not wait
            try:
                await self._steps.take(
                    *(Move(entry, Happening.OVERTAKEN, f"by {newest.command.id}") for entry, newest in pairs)
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
        try:
            await self._drive_on(lane, entry)
        finally:
            if entry.paced is not None:
                entry.paced.leave(entry.command)
                entry.paced = None

    async def _drive_on(self, lane: Lane, entry: Entry) -> None:
        if entry.controller is not None and entry.outcome is None:
            await self._ask_first(entry)
        if entry.outcome is None and not await self._bring_out(lane, entry):
            return
        if entry.outcome is None:
            entry.outcome = await self._await_result(entry)
        await self.ends.finish(entry, entry.outcome)

    async def _ask_first(self, entry: Entry) -> None:
        """Find out about a command that was handed over before a restart, or before the journal failed."""
        name = entry.controller
        outcome = await self._await_result(entry)
        async with entry.moving:
            if outcome.state is CommandState.ACCEPTED:
                await self._journal.handing_to(None, entry.command)
                entry.taken_back()
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
            and entry.remaining(self._clock.monotonic()) > 0
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
            if self._is_refresh(entry):
                await self._refresh(entry)
                return False
            retry_after = 0.0
            for name, controller in self.controllers.items():
                try:
                    if not self._carries(entry, name, controller):
                        continue
                    if await self._turn(lane, entry, controller) and await self._send(entry, name, controller):
                        return True
                    break
                except NotSentError as error:
                    trouble, retry_after = str(error), error.retry_after or 0.0
            else:
                await lane.pause(min(max(pause, retry_after), entry.remaining(self._clock.monotonic())))
                pause = min(pause * 2, RETRY_MOST)

    async def _turn(self, lane: Lane, entry: Entry, controller: Controller) -> bool:
        """Wait until the controller has room. False where something else came first: look at the command again."""
        if entry.is_revert or not isinstance(controller, Paced):
            return True
        entry.paced = controller
        turn = controller.turn(entry.command)
        if not turn.done():
            await lane.pause(entry.remaining(self._clock.monotonic()), turn)
        return turn.done() and not turn.cancelled()

    def _way_out(self, lane: Lane, entry: Entry, trouble: str) -> tuple[Happening, str] | None:
        """Return why a command is not to be handed over any more."""
        if successor := lane.successor(entry):
            return Happening.OVERTAKEN, f"by {successor.command.id}"
        if entry.remaining(self._clock.monotonic()) <= 0:
            return Happening.OVERDUE, trouble
        if not entry.is_revert:
            state = self._router.state(entry.command.serial)
            verdict = self._policy.judge(entry.command, state.device if state else None)
            if isinstance(verdict, Refusal) and verdict.reason in LASTING:
                again = "" if verdict.reason is Reason.HALTED else "not permitted any more: "
                return Happening.FORBIDDEN, again + verdict.detail
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
        return entry.waits and not entry.is_revert and self._known.holds(entry.command)

    async def _refresh(self, entry: Entry) -> None:
        """End a command without a call: its dead-man's timer starts anew, and that is all it changes."""
        await self.ends.make_way(entry.key)
        async with entry.moving:
            if not entry.waits or entry.outcome is not None:
                return
            entry.handed_at = self._clock.monotonic()
            end = Happening.CONFIRMED if self._drift.verified(entry.command) else Happening.FOUND_DONE
            await self._steps.take(
                Move(entry, Happening.LEFT, UNCHANGED),
                Move(entry, end, UNCHANGED),
                along=self._timers.after(entry, in_force=True, perhaps=False),
            )

    async def _send(self, entry: Entry, name: str, controller: Controller) -> bool:
        """Hand a command over. Returns whether it may have left; raises NotSentError."""
        command = entry.command
        others = self._in_force(command)
        await self.ends.make_way(entry.key, others)
        async with entry.moving:
            if not entry.may_leave(self._clock.monotonic(), name):
                return False
            await self._journal.handing_to(name, command)
            entry.handed_over(name, self._clock.monotonic(), self._clock.now())
        along: list[Awaitable[None]] = []
        entry.left = f"by {name}"
        try:
            receipt = await self._hand_over(entry, controller, others)
        except NotSentError:
            async with entry.moving:
                if entry.outcome is None:
                    entry.taken_back()
                    if entry.bound is None:
                        await self._journal.handing_to(None, command)
                    raise
        except RefusedError as error:
            entry.outcome = entry.outcome or Outcome(CommandState.FAILED, str(error))
        except (UnsureError, TimeoutError) as error:
            if entry.outcome is None:
                log.warning("no certain answer to a command", id=command.id, bridge=name, error=str(error))
                entry.left = f"by {name}; {str(error) or 'no answer in time'}"
        except Exception as error:
            log.exception("bridge failed while sending", id=command.id, bridge=name)
            entry.left = f"by {name}; {error}"
        else:
            if receipt and receipt != entry.receipt:
                entry.receipt = receipt
                along = [self._journal.keep_receipt(receipt, command.id)]
        if entry.outcome is None and entry.state is CommandState.ACCEPTED:
            await self._steps.take(Move(entry, Happening.LEFT, entry.left), along=along)
        elif along:
            await asyncio.gather(*along)
        return True

    async def _hand_over(self, entry: Entry, controller: Controller, others: Mapping[str, Value]) -> str:
        """Give a command to a controller. Returns the receipt; raises what it raises."""
        now = self._clock.monotonic()
        remaining = entry.remaining(now)
        if remaining <= 0:
            raise NotSentError("it expired while it was written to the journal")
        if self._policy.halting.current is not None and not entry.is_revert:
            raise NotSentError("control was halted while it was written to the journal")
        command = entry.command
        self.latest[entry.key] = Latest(command.id, now)
        self._known.leaves(command, others)
        self._drift.leaves(command, others)
        self.ends.verifier.leaves(entry)
        try:
            async with asyncio.timeout(remaining + ANSWER_GRACE) as entry.waiting:
                return await controller.send(command, others, remaining)
        finally:
            entry.waiting = None

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

    # what became of it

    async def _await_result(self, entry: Entry) -> Outcome:
        """Ask what became of a command until somebody knows or tells, for RESULT_TIMEOUT at most."""
        trouble = "no result came in time"
        try:
            async with asyncio.timeout(RESULT_TIMEOUT) as entry.waiting:
                while entry.outcome is None:
                    controller = self.controllers.get(entry.controller or "")
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
