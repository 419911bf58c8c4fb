"""A fleet: one device that takes a setpoint, shares it out over its members, follows them, and says what came of it.

It reads the states of its members, and commands them like anybody else: policy, journal and limits stand behind each
command. What a member was told, and what is under way, is known to the gateway; what nobody else knows, and what it
would take commands to find out again, is kept in files (record.py, learned.py); the rest may be lost at a restart.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import ClassVar, Final

from gateway.api.bridge import BridgeSettings
from gateway.api.contexts import Context
from gateway.api.version import API_VERSION
from gateway.core.clock import set_within
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError
from gateway.core.mailbox import Updates
from gateway.core.model import FLEET, Command, CommandState, Device, Origin, Reason, Snapshot, Value, new_command_id
from gateway.core.verdict import Foretold, Refusal
from gateway.steering.fleet import shown
from gateway.steering.fleet.crew import PASSING, Crew, Told
from gateway.steering.fleet.goals import SPREAD, TARGET, TOLD_WITHIN, Goal, Goals
from gateway.steering.fleet.mate import LIMIT, POWER, Mate
from gateway.steering.fleet.planner import Ask, Part, Planner, Round, Sight, measured, rated, sky
from gateway.steering.fleet.record import Given, Record
from gateway.steering.fleet.settings import PREFIX, FleetSettings

LOOK: Final = 5.0
"""Seconds between looks where nothing happens."""
BREATH: Final = 0.5
"""Seconds after a look before the next: what comes one by one is looked at together."""
PUBLISHED: Final = 30.0
"""Seconds within which a fleet shows itself anew."""
CHILD_TTL: Final = 120.0
"""Seconds until a command to a member expires unsent."""
A_TURN: Final = 200
"""Members that are looked at, or commanded in one commit, in one turn of the loop: more would hold others up."""
IN_A_THREAD: Final = 500
"""Members from which on the sharing out is reckoned beside the loop."""
GRACE: Final = 60.0
"""Seconds after a start within which there is no falling back, however long ago the last target came."""
TIMER: Final = 7_200.0
"""Seconds after which a member that hears nothing more falls back by itself, at least."""
STAGGERED: Final = 600
"""Seconds over which members' own timers are spread."""


class Fleet:
    """One fleet."""

    api_version: ClassVar = API_VERSION
    result_within: Final = TOLD_WITHIN + 60
    """See `Slow`."""
    Settings: ClassVar[type[BridgeSettings]] = FleetSettings

    def __init__(self, settings: FleetSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._clock = context.clock
        self.serial = context.name
        self._origin = Origin.of(FLEET, self.serial.removeprefix(PREFIX))
        self._planner = Planner(settings)
        self.crew = Crew(settings, context, self._origin)
        self.goals = Goals(settings, self._planner)
        self._device: Device | None = None
        self._heard: datetime | None = None
        """When somebody else asked for a target last."""
        self._has_fallen = False
        """The fallback is in force, or was refused."""
        self._has_resumed = False
        self._wake = asyncio.Event()
        self._record = Record(context.data_dir, self.serial, context.log)

    async def start(self) -> None:
        """Begin to look. What is in force is known to the gateway; members are shared out to once they are known."""
        await self.crew.start()
        self._has_resumed = False
        self._context.report(up=None, detail="no member is known yet")
        self._context.spawn(self._steer(), "steer")

    async def stop(self) -> None:
        """End; members keep what they were told, until their own timers run out."""
        self.goals.end()
        await self._record.write(all_=True)
        await self.crew.keep(self._clock.now(), at_once=True)

    # what the gateway says

    async def deliver(self, updates: Updates) -> None:
        """Take in states of members, and steps of commands."""
        for serial in updates.removed:
            self.crew.mates.pop(serial, None)
        for number, state in enumerate(updates.states.values(), 1):
            self.crew.look(state)
            if number % A_TURN == 0:
                await asyncio.sleep(0)
        for number, event in enumerate(updates.events, 1):
            if number % A_TURN == 0:
                await asyncio.sleep(0)
            command = event.command
            if command.serial == self.serial:
                if command.setpoint == TARGET and command.origin.who != self._origin.who:
                    self._heard, self._has_fallen = event.time, False
                if event.state is CommandState.ACCEPTED:
                    self.goals.newer(command)
            elif event.state is not CommandState.REJECTED:  # whoever gave it was told, and sees to it
                self.crew.step(event)
        if updates.events or updates.halt or updates.states.keys() != {self.serial}:
            self._wake.set()  # what it shows itself is no news

    def steers(self, serial: str, setpoint: str = "") -> bool:  # noqa: ARG002 - a member takes what the fleet does
        """See `Steering`."""
        state = self._context.state(serial)
        return state is not None and self.crew.names(state.device)

    # what is asked of the fleet

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether it is the fleet itself, and has that setpoint."""
        return serial == self.serial and self._device is not None and setpoint in self._device.setpoints

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """Share it out; returns once the first commands are on their way. Raises NotSentError."""
        until = self._clock.monotonic() + timeout / 2
        while command.setpoint not in SPREAD and self.crew.gathers() and not self.crew.has_waited(self._clock.now()):
            if self._clock.monotonic() >= until:
                raise NotSentError("members that were told something before the start are still to be heard of")
            await asyncio.sleep(BREATH)
        if self._context.halted is not None:
            raise NotSentError("control is halted; members fall back by their own timers")
        now = self._clock.now()
        if command.setpoint not in SPREAD and not any(mate.counts(now) for mate in self.crew.mates.values()):
            raise NotSentError("no member can be steered now")
        goal = self._begin(command, in_force)
        await goal.begun.wait()
        return ""

    async def result(self, command: Command, receipt: str) -> Outcome:  # noqa: ARG002
        """Return what came of it, once it holds, or it is known that it does not; also after a restart."""
        goal = self._resume(command)
        try:
            return await asyncio.shield(goal.done)
        except asyncio.CancelledError:
            if goal.done.cancelled():  # the fleet was stopped, e.g. for other settings; who asks was not
                raise NotSentError("the fleet begins anew") from None
            raise

    def _resume(self, command: Command) -> Goal:
        """Go on with a command that has left, e.g. before a restart."""
        goal = self.goals.of(command)
        if goal is None:
            goal = self._begin(command, self._context.order(command))
            goal.resumed, goal.since = True, command.created
        return goal

    def _begin(self, command: Command, in_force: Mapping[str, Value]) -> Goal:
        self._wake.set()
        return self.goals.begin(command, in_force, self._clock.now())

    def foretell(self, command: Command) -> Foretold:
        """Return each member's share of a target, the bound that binds it, and what it costs. Sends nothing."""
        mates = self.crew.mates.values()
        capped = command.setpoint == LIMIT
        sights = self._planner.see(mates, sky(mates), self._clock.now(), capped=capped, limited=self.goals.is_limiting)
        unplaced = 0.0
        if command.setpoint in SPREAD:
            parts = [Part(s.mate, s.believed, free=False) for s in sights if command.setpoint in s.mate.takes]
            return shown.foretold(parts, mates, 0.0, self._calls([command.setpoint], parts), command)
        if isinstance(command.value, (int, float)):
            power = command.value / 100 * rated(sights) if capped else command.value
            found = self._planner.share_out(Ask(power, is_cap=capped, is_limited=capped), sights)
            parts, unplaced = list(found.parts), found.unplaced
        else:
            parts = [Part(sight.mate, sight.believed, free=True) for sight in sights]
        told = [part for part in parts if _is_news(part)]
        setpoints = sorted({setpoint for part in told for setpoint in part.mate.release()})
        return shown.foretold(parts, mates, unplaced, self._calls(setpoints, told), command)

    def _calls(self, setpoints: Sequence[str], parts: Sequence[Part]) -> str:
        """Return in words what commands to these members cost."""
        writes = sum(setpoint in part.mate.takes for part in parts for setpoint in setpoints)
        calls = {
            f"{estimate.calls} calls of {name}, {estimate.left} left"
            for setpoint in setpoints
            for name, estimate in self._context.call_estimate(
                setpoint, [part.mate.device.serial for part in parts if setpoint in part.mate.takes]
            ).items()
            if estimate is not None
        }
        return f"{len(parts)} members are told, {writes} writes" + "".join(f"; {each}" for each in sorted(calls))

    # the loop

    async def _steer(self) -> None:
        while True:
            await set_within(self._wake, LOOK)
            self._wake.clear()
            await self._look()
            await asyncio.sleep(BREATH)

    async def _look(self) -> None:
        """Look once: who can be counted on, what is missing, who is to be told what; and show what came of it."""
        now = self._clock.now()
        self._announce()
        if not self.crew.begin(now):
            return  # what was promised is not known yet
        if not self._has_resumed:
            self._has_resumed = True
            for command in self._context.sent(self.serial):
                self._resume(command)  # else an older target would be in force until its result is asked for
        self.crew.count_days(now)
        self.goals.recall(self._context.state(self.serial), self._context.commanded(self.serial))
        gathers = self.crew.gathers()  # asked before they are looked at: who comes meanwhile is not in the sum
        sights = await self._survey(now)
        await self.crew.ask_after(now)
        waits = gathers and not (self.goals.fresh and self.crew.has_waited(now))
        ask = None if waits else self.goals.ask(sights, now)
        if self._context.halted is None and sights:
            await self._fall_back(now)
            await self._spread_all()
            if not waits:
                await self._carry_out(ask, sights)
            await self._keep_timers(now)
        await asyncio.sleep(0)
        waiting = Counter((id(told.ends), bool(told.mate.trouble)) for told in self.crew.waiting.values())
        if sights and not gathers and self._context.halted is None:
            self.goals.settle(sights, ask, waiting, now)
        await asyncio.sleep(0)
        if not gathers:
            await self._publish(sights, ask, now)
        await self.crew.keep(now)

    async def _survey(self, now: datetime) -> list[Sight]:
        """Put together what is known of all members, a part of them in each turn of the loop."""
        mates = list(self.crew.mates.values())
        above = sky(mates)
        sights: list[Sight] = []
        for n in range(0, len(mates), A_TURN):
            some = mates[n : n + A_TURN]
            self.crew.judge(some, now)
            sights += self._planner.see(some, above, now, capped=self.goals.caps, limited=self.goals.is_limiting)
            if len(mates) > A_TURN:
                await asyncio.sleep(0)
        return sights

    def _announce(self) -> None:
        device = shown.device(self.serial, self.crew.mates.values(), self.crew.size)
        if device != self._device:
            self._device = device
            self._context.announce(device, named=True)
        is_some = bool(self.crew.mates)
        self._context.report(up=True if is_some else None, detail="" if is_some else "no member is known yet")

    async def _fall_back(self, now: datetime) -> None:
        """Set the fallback where whoever sets the target has fallen silent: like any other command."""
        fallback = self._settings.fallback
        if fallback is None or self._has_fallen or self.goals.target is None:
            return
        if self._heard is None:  # since a restart; whoever sets the target gets a moment to do so
            told = self._context.commanded(self.serial).get(TARGET)
            most = now - timedelta(seconds=max(0.0, fallback.after - GRACE))
            self._heard = now if told is None else max(told[0], most)
        if (now - self._heard).total_seconds() < fallback.after:
            return
        self._has_fallen = True
        self._context.log.warning("no target comes any more; falling back", seconds=fallback.after, to=fallback.value)
        command = self._command(self.serial, TARGET, fallback.value, now, None)
        (event,) = await self._context.submit(command)
        if event.state is CommandState.REJECTED:
            self._context.log.warning("the fallback is refused; members keep their power", why=event.detail)

    async def _spread_all(self) -> None:
        for each in self.goals.spread():
            each.fresh = False
            await self._spread(each)

    async def _carry_out(self, ask: Ask | None, sights: Sequence[Sight]) -> None:
        goals = self.goals.shared()
        fresh = [each for each in goals if each.fresh]
        is_new = not all(each.resumed for each in fresh)
        goal: Goal | None = next(iter(goals), None)
        if fresh:
            goal = fresh[-1]
            if is_new and self.crew.waiting:  # what has not left yet is said anew
                await self._context.cancel(*self.crew.waiting, by=self._origin)
            if ask is None or (ask.of_batteries and not self.goals.is_limiting):
                held = [each for each in sights if self._holds(each.mate) and (ask is None or not each.mate.stores)]
                await self._tell([Part(each.mate, each.measured, free=True) for each in held], goal, release=True)
        if ask is not None:
            found = await self._decided(ask, sights, anew=is_new and not self.goals.ramps)
            if fresh or found.parts or not found.unplaced or not self.crew.waiting:
                self.goals.unplaced = found.unplaced
            await self._tell(found.parts, goal)
            others = self.goals.others(sights, {part.mate.device.serial: part.power for part in found.parts})
            if others is not None:
                rest = await self._decided(others, sights, anew=is_new)
                await self._tell(rest.parts, goal)
        for begun in fresh:
            begun.fresh = False
            begun.begun.set()

    def _holds(self, mate: Mate) -> bool:
        """Return whether a member stands as this fleet told it, in this run or before a restart."""
        return not mate.is_free or (self.goals.recalled and mate.is_ordered)

    async def _decided(self, ask: Ask, sights: Sequence[Sight], *, anew: bool) -> Round:
        decide = self._planner.share_out if anew else self._planner.correct
        return decide(ask, sights) if len(sights) < IN_A_THREAD else await asyncio.to_thread(decide, ask, sights)

    # commands to members

    async def _tell(self, parts: Sequence[Part], goal: Goal | None, *, release: bool = False) -> None:
        """Command these members, in commits that hold nobody up; the largest change first, as far as calls go."""
        changed = sorted(
            (part for part in parts if release or _is_news(part)),
            key=lambda part: abs(part.power - part.mate.believed()),
            reverse=True,
        )
        for n in range(0, len(changed), A_TURN):
            await self._submit(changed[n : n + A_TURN], goal, release=release)
            await asyncio.sleep(0)

    async def _submit(self, parts: Sequence[Part], goal: Goal | None, *, release: bool = False) -> None:
        now = self._clock.now()
        commands: list[Command] = []
        for part in parts:
            mate = part.mate
            orders = mate.release() if release else _orders(part)
            mine = [self._command_of(mate, setpoint, value, now, goal) for setpoint, value in orders.items()]
            if self._expect(mate, mine, goal, now) is None:
                mate.told, mate.told_sun = part.power, mate.sun
                mate.is_free, mate.capped = part.free or release, part.capped
                limit, battery = orders.get(LIMIT), orders.get(POWER)
                mate.held = part.limited and not part.capped and limit is not None
                mate.ordered = float(battery) if isinstance(battery, (int, float)) else 0.0
                commands += mine
        await self._send(commands)

    async def _spread(self, goal: Goal) -> None:
        """Give each member the same, also those that no power is shared out to: a stop is for all.

        Who can't be told for a reason that passes is told at another look, until the fleet's command expires.
        """
        setpoint, now = goal.command.setpoint, self._clock.now()
        if goal.untold is None:
            goal.untold = {serial for serial, mate in self.crew.mates.items() if setpoint in mate.takes}
        if goal.command.expires <= now:
            goal.ends["never told"] += len(goal.untold)
            goal.untold.clear()
        left = iter(sorted(goal.untold))
        while some := list(islice(left, A_TURN)):
            commands = []
            for mate in (self.crew.mates[serial] for serial in some if serial in self.crew.mates):
                command = self._command(mate.device.serial, setpoint, goal.command.value, now, goal)
                refusal = self._expect(mate, [command], goal, now)
                if refusal is None or refusal.reason not in PASSING:
                    goal.untold.discard(mate.device.serial)
                if refusal is None:
                    commands.append(command)
            goal.untold |= await self._send(commands)
        goal.untold &= self.crew.mates.keys()
        goal.begun.set()

    def _expect(self, mate: Mate, commands: Sequence[Command], goal: Goal | None, now: datetime) -> Refusal | None:
        """Return why the gateway would not take these commands; None where it would: then their steps are followed."""
        refusal = self._context.judge(*commands)
        if refusal is not None:
            if refusal.reason not in PASSING:
                self._context.log.info("a member can't be told", serial=mate.device.serial, why=refusal.detail)
                mate.refused(now)
                if goal is not None:
                    goal.ends["refused"] += 1
            return refusal
        for command in commands:
            self.crew.waiting[command.id] = Told(mate, None if goal is None else goal.ends, now)
        mate.pending |= {command.id for command in commands}
        return None

    async def _send(self, commands: Sequence[Command]) -> set[str]:
        """Give commands to members, in one commit; where one of them is refused, the others without it.

        Returns the serial numbers of members that can't be told now.
        """
        if not commands:
            return set()
        events = await self._context.submit(*commands)
        serials = list(dict.fromkeys(command.serial for command in commands))
        if len(serials) > 1 and any(event.reason is Reason.BAD_REQUEST for event in events):
            first = set(serials[: len(serials) // 2])
            again = [self.crew.rename(command, new_command_id()) for command in commands]
            passed_by = await self._send([command for command in again if command.serial in first])
            return passed_by | await self._send([command for command in again if command.serial not in first])
        for event in events:
            if event.state is CommandState.REJECTED and event.command.id in self.crew.waiting:
                self.crew.step(event)
        return {event.command.serial for event in events if event.reason in PASSING}

    async def _keep_timers(self, now: datetime) -> None:
        """Renew members' own timers before they run out, a few at a time. The value is the same: nothing is written."""
        due = [
            Part(mate, stands, free=False, capped=mate.capped, limited=self.goals.is_limiting)
            for mate in self.crew.mates.values()
            if (stands := mate.stands) is not None and mate.renew is not None and mate.renew <= now
            if not mate.is_free and not mate.pending and not mate.trouble
        ]
        if due:
            await self._submit(due[:A_TURN], None)

    def _command_of(self, mate: Mate, setpoint: str, value: Value, now: datetime, goal: Goal | None) -> Command:
        """Return a command to a member, with a timer that stands behind the fallback; not all run out at once."""
        fallback, timer = self._settings.fallback, None
        if fallback is not None:
            seconds = max(TIMER, 4 * fallback.after)
            mate.renew = now + timedelta(seconds=seconds / 2)
            timer = seconds + zlib.crc32(mate.device.serial.encode()) % STAGGERED
        return self._command(mate.device.serial, setpoint, value, now, goal, timer)

    def _command(
        self, serial: str, setpoint: str, value: Value, now: datetime, goal: Goal | None, timer: float | None = None
    ) -> Command:
        return Command(
            id=new_command_id(),
            serial=serial,
            setpoint=setpoint,
            value=value,
            origin=self._origin if goal is None else Origin.of(FLEET, self._origin.role, goal.command.id),
            created=now,
            expires=now + timedelta(seconds=CHILD_TTL),
            revert_after=timer,
            bulk=serial != self.serial,
        )

    async def _publish(self, sights: Sequence[Sight], ask: Ask | None, now: datetime) -> None:
        """Show the fleet, as long as most of what it is made of is of now; and keep what it gives, once a minute."""
        if sights and self._record.lacks(now):
            known = [sight for sight in sights if sight.mate.good]
            self._record.take(now, Given(measured(known), len(known), len(sights)))
            await self._record.write()
        if not sights or rated(s for s in sights if s.mate.good) < rated(sights) / 2:
            return
        unplaced = self.goals.unplaced + self.goals.cut(sights) + (ask.cut if ask is not None else 0.0)
        values = await shown.values(self._planner, sights, ask, unplaced, now)
        self._context.publish(
            Snapshot(serial=self.serial, time=now, source=self._context.name, interval=PUBLISHED, values=values)
        )


def _orders(part: Part) -> dict[str, Value]:
    return part.mate.orders(part.power, free=part.free, capped=part.capped, limited=part.limited)


def _is_news(part: Part) -> bool:
    """Return whether a member has not been told that already."""
    mate = part.mate
    if part.free and mate.is_free and not mate.limited:
        return False
    if part.limited and not part.capped and mate.lacks_limit(part.power):
        return True
    if mate.held and mate.limited and not part.limited:
        return True
    stands = mate.stands
    if stands is None:
        return not mate.has(_orders(part))  # told before a restart
    return part.free != mate.is_free or abs(part.power - stands) >= mate.rated / 200
