"""A fleet: one device that takes a setpoint, shares it out over its members, follows them, and says what came of it.

It reads the states of its members, and commands them like anybody else: policy, journal and limits stand behind each
command. What a member was told, and what is under way, is known to the gateway; here stands only what nobody else
knows, and may be lost at a restart.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Final

import msgspec

from gateway.api.bridge import BridgeSettings
from gateway.api.contexts import Context
from gateway.api.version import API_VERSION
from gateway.core.clock import set_within
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError
from gateway.core.findings import FindingCode
from gateway.core.mailbox import Updates
from gateway.core.model import (
    Command,
    CommandEvent,
    CommandState,
    Device,
    DeviceState,
    Origin,
    Range,
    Reason,
    Snapshot,
    Value,
    day_of,
    new_command_id,
)
from gateway.core.points import NONE
from gateway.core.verdict import Foretold
from gateway.steering.fleet import shown
from gateway.steering.fleet.mate import FULL, LIMIT, MAY_CONTRADICT, MODE, POWER, Mate
from gateway.steering.fleet.planner import Ask, Part, Planner, Round
from gateway.steering.fleet.settings import PREFIX, FleetSettings

TARGET: Final = "power_target"
SPREAD: Final = ("running", "reactive_power")
"""Setpoints that each member is given as they are."""
LOOK: Final = 5.0
"""Seconds between looks where nothing happens."""
BREATH: Final = 0.5
"""Seconds after a look before the next: what comes one by one is looked at together."""
PUBLISHED: Final = 30.0
"""Seconds within which a fleet shows itself anew."""
CHILD_TTL: Final = 120.0
"""Seconds until a command to a member expires unsent."""
A_COMMIT: Final = 200
"""Commands to members that are journaled together; more would hold others up."""
TOLD_WITHIN: Final = 600.0
"""Seconds after which it is said what came of a target, also where some have not shown it yet."""
HOLDS: Final = 0.02
"""Of a target: as near as this it is held."""
TIMER: Final = 7_200.0
"""Seconds after which a member that hears nothing more falls back by itself, at least."""

STAGGERED: Final = 600
"""Seconds over which members' own timers are spread."""


def _kind(setpoint: str) -> str:
    """Return by which setpoint a goal is known: an order for the battery is one, whatever of it was written."""
    return MODE if setpoint == POWER else setpoint


class Goal(msgspec.Struct):
    """A command of the fleet that is being carried out."""

    command: Command
    since: datetime
    done: asyncio.Future[Outcome]
    begun: asyncio.Event
    children: Counter[str]
    """How its commands to members have ended: ok, refused, late, doubtful."""
    fresh: bool = True
    """It has not been shared out yet."""
    unplaced: float = 0.0


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
        self._origin = Origin.of("fleet", self.serial.removeprefix(PREFIX))
        self.planner = Planner(settings)
        self._device: Device | None = None
        self._goals: dict[str, Goal] = {}
        """Setpoint → what is being carried out."""
        self._target: float | None = None
        """W; None where nothing is asked."""
        self._limit = FULL
        """% of rated power."""
        self._battery: float | None = None
        """W that all batteries together give, > 0 discharging; None where they are let alone. Newer than the target."""
        self._ramped: tuple[datetime, float] | None = None
        self._children: dict[str, tuple[Mate, Goal | None]] = {}
        """Id of a command that has not ended → its member, and for whose sake."""
        self._heard: datetime | None = None
        """When somebody else asked for a target last."""
        self._has_fallen = False
        """The fallback is in force, or was refused."""
        self._wake = asyncio.Event()
        self._day = 0
        self._unplaced = 0.0
        self._shown_at: datetime | None = None

    async def start(self) -> None:
        """Begin to look. What is in force is known to the gateway; members are shared out to once they are known."""
        self._goals.clear()
        self._children.clear()
        self._context.report(up=None, detail="no member is known yet")
        self._context.spawn(self._steer(), "steer")

    async def stop(self) -> None:
        """End; members keep what they were told, until their own timers run out."""
        for goal in self._goals.values():
            if not goal.done.done():
                goal.done.cancel()

    # what the gateway says

    async def deliver(self, updates: Updates) -> None:
        """Take in states of members, and steps of commands."""
        for serial in updates.removed:
            self.planner.mates.pop(serial, None)
        for state in updates.states.values():
            self._look(state)
        for event in updates.events:
            if event.command.serial == self.serial:
                self._own_step(event)
            elif event.command.id in self._children:
                self._child_step(event)
        self._wake.set()

    def _look(self, state: DeviceState) -> None:
        device = state.device
        mate = self.planner.mates.get(device.serial)
        if mate is None or mate.device is not device:
            plant = self._context.state(device.plant) if device.plant else None
            if not self._settings.members.names(device, plant.device.name if plant is not None else ""):
                return
            takes = self._context.permitted(device, self._origin)
            if mate is None:
                mate = self._new_mate(device, takes)
                if mate is None:
                    return
                self.planner.mates[device.serial] = mate
            mate.device, mate.takes = device, takes
        mate.look(state)

    def _new_mate(self, device: Device, takes: Mapping[str, Range]) -> Mate | None:
        mate = Mate(device, takes)
        if not mate.stores and LIMIT not in takes:
            self._context.find(
                FindingCode.NOT_STEERABLE, device.serial,
                f"{device.serial} is a member, and the fleet may set neither its battery nor its limit",
                f'control.allow: - {{devices: ["{device.serial}"], setpoints: [{LIMIT}], origins: ["{self._origin}"]}}',
            )  # fmt: skip
            return None
        owner = self._context.claim(device.serial)
        if owner != self.serial:
            self._context.find(
                FindingCode.NOT_STEERABLE, device.serial,
                f"{device.serial} is steered by {owner} already", "leave it out of one of both",
            )  # fmt: skip
            return None
        self._context.settle(FindingCode.NOT_STEERABLE, device.serial)
        return mate

    def _own_step(self, event: CommandEvent) -> None:
        """Take in that somebody asks the fleet: a newer target ends the waiting for an older one."""
        if event.command.setpoint == TARGET and event.command.origin.who != self._origin.who:
            self._heard, self._has_fallen = event.time, False
        goal = self._goals.get(_kind(event.command.setpoint))
        newer = goal is not None and goal.command.id != event.command.id and event.state is CommandState.ACCEPTED
        if goal is not None and newer and not goal.done.done():
            goal.done.set_result(Outcome(CommandState.FAILED, "not reached: a newer one came first"))

    def _child_step(self, event: CommandEvent) -> None:
        mate, goal = self._children[event.command.id]
        if event.state is CommandState.SENT:
            mate.writes += 1
        if not event.state.final or event.correction:
            return
        del self._children[event.command.id]
        mate.pending -= {event.command.id}
        mate.ended = event.time
        match event.state:
            case CommandState.SUCCEEDED:
                word = "ok"
                if not mate.pending:
                    mate.done()
            case CommandState.FAILED:
                word = "refused"
                mate.refused(event.time)
            case CommandState.UNKNOWN:
                word = mate.trouble = "doubtful"
            case CommandState.REJECTED:
                word = "refused"
                mate.refused(event.time)
            case _:
                word = "late"
                mate.told, mate.is_free = None, True
        if goal is not None:
            goal.children[word] += 1

    # what is asked of the fleet

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether it is the fleet itself, and has that setpoint."""
        return serial == self.serial and self._device is not None and setpoint in self._device.setpoints

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:  # noqa: ARG002
        """Share it out; returns once the first commands are on their way. Raises NotSentError."""
        if self._context.halted is not None:
            raise NotSentError("control is halted; members fall back by their own timers")
        if not any(mate.counts(self._clock.now()) for mate in self.planner.mates.values()):
            raise NotSentError("no member can be steered now")
        goal = self._begin(command, in_force)
        await goal.begun.wait()
        return ""

    async def result(self, command: Command, receipt: str) -> Outcome:  # noqa: ARG002
        """Return what came of it, once it holds, or it is known that it does not; also after a restart."""
        goal = self._goals.get(_kind(command.setpoint))
        if goal is None or goal.command.id != command.id:
            goal = self._begin(command, {})
            goal.fresh = command.setpoint in SPREAD  # children are asked first: what is wrong is corrected
        return await asyncio.shield(goal.done)

    def foretell(self, command: Command) -> Foretold:
        """Return each member's share of a target, the bound that binds it, and what it costs. Sends nothing."""
        now = self._clock.now()
        mates = self.planner.mates.values()
        if command.setpoint in SPREAD:
            parts = [Part(m, m.believed(), free=False) for m in mates if command.setpoint in m.takes and m.counts(now)]
            return shown.foretold(parts, mates, 0.0, self._calls([command.setpoint], parts), command)
        cap = command.setpoint == LIMIT
        asked = command.value if isinstance(command.value, (int, float)) else None
        if asked is None:
            parts, unplaced = [Part(mate, mate.believed(), free=True) for mate in mates], 0.0
        else:
            power = float(asked) / 100 * self.planner.rated if cap else float(asked)
            found = self.planner.share_out(Ask(power, is_cap=cap), now)
            parts, unplaced = list(found.parts), found.unplaced
        told = [part for part in parts if self._is_news(part)]
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

    def _begin(self, command: Command, in_force: Mapping[str, Value]) -> Goal:
        kind = _kind(command.setpoint)
        old = self._goals.get(kind)
        if old is not None and not old.done.done():
            old.done.set_result(Outcome(CommandState.FAILED, "not reached: a newer one came first"))
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        goal = Goal(command, self._clock.now(), done, asyncio.Event(), Counter())
        self._goals[kind] = goal
        if kind == TARGET:
            self._target, self._battery = None if command.value == NONE else float(command.value or 0), None
        elif kind == MODE:
            self._battery, self._target = self._ordered({**in_force, command.setpoint: command.value}), None
        elif command.setpoint == LIMIT:
            self._limit = float(command.value or 0)
        self._wake.set()
        return goal

    def _ordered(self, order: Mapping[str, Value]) -> float | None:
        """Return what an order for the battery of a fleet comes to, W; None where it lets the batteries alone."""
        sign = {"charge": -1, "discharge": 1, "idle": 0}.get(str(order.get(MODE)))
        if sign is None:
            return None
        power = order.get(POWER)
        most = (self._device.setpoints[POWER].high if self._device is not None else None) or 0.0
        return sign * (float(power) if isinstance(power, (int, float)) else most)

    # the loop

    async def _steer(self) -> None:
        while True:
            await set_within(self._wake, LOOK)
            self._wake.clear()
            await self.look_at_all()
            await asyncio.sleep(BREATH)

    async def look_at_all(self) -> None:
        """Look once: who can be counted on, what is missing, who is to be told what; and show what came of it."""
        now = self._clock.now()
        self._count_days(now)
        self._announce()
        self._recall()
        for mate in self.planner.mates.values():
            self._judge(mate)
        if self._context.halted is None and self.planner.mates:
            await self._fall_back(now)
            await self._carry_out(now)
            await self._keep_timers(now)
        self._settle(now)
        self._publish(now)

    def _count_days(self, now: datetime) -> None:
        if day_of(now) == self._day:
            return
        self._day = day_of(now)
        for mate in self.planner.mates.values():
            mate.writes = mate.contradictions = 0
        for written in self._context.writes():
            if written.day == self._day and written.serial in self.planner.mates:
                self.planner.mates[written.serial].writes += written.today

    def _announce(self) -> None:
        device = shown.device(self.serial, self.planner.mates.values())
        if device != self._device:
            self._device = device
            self._context.announce(device, named=True)
        count = len(self.planner.mates)
        self._context.report(up=True if count else None, detail="" if count else "no member is known yet")

    def _recall(self) -> None:
        """Take up what was in force before a restart."""
        state = self._context.state(self.serial)
        if state is None or self._goals:
            return
        target, limit = state.values.get(TARGET), state.values.get(LIMIT)
        self._target = float(target) if isinstance(target, (int, float)) else None
        self._limit = float(limit) if isinstance(limit, (int, float)) else FULL

    async def _fall_back(self, now: datetime) -> None:
        """Set the fallback where whoever sets the target has fallen silent: like any other command."""
        fallback = self._settings.fallback
        if fallback is None or self._has_fallen or self._device is None or self._target is None:
            return
        self._heard = self._heard or now
        if (now - self._heard).total_seconds() < fallback.after:
            return
        self._has_fallen = True
        self._context.log.warning("no target comes any more; falling back", seconds=fallback.after, to=fallback.value)
        command = Command(
            id=new_command_id(),
            serial=self.serial,
            setpoint=TARGET,
            value=fallback.value,
            origin=self._origin,
            created=now,
            expires=now + timedelta(seconds=CHILD_TTL),
        )
        (event,) = await self._context.submit(command)
        if event.state is CommandState.REJECTED:
            self._context.log.error("the fallback is refused; members keep their power", why=event.detail)

    async def _keep_timers(self, now: datetime) -> None:
        """Renew members' own timers before they run out, a few at a time."""
        due = [
            Part(mate, mate.told, free=mate.is_free)
            for mate in self.planner.mates.values()
            if mate.told is not None
            and not mate.is_free
            and not mate.pending
            and not mate.trouble
            and mate.renew is not None
            and mate.renew <= now
        ]
        if due:
            await self._submit(due[:A_COMMIT], None, release=False)

    def _judge(self, mate: Mate) -> None:
        if mate.trouble in ("offline", "stale"):
            mate.trouble = ""
        if not mate.good and not mate.trouble:
            mate.trouble = "offline" if mate.state is not None and mate.state.quality == "offline" else "stale"
        if mate.trouble == "doubtful" and mate.shows_it:
            mate.trouble = ""
        if mate.contradicts() and not mate.trouble:
            mate.contradictions += 1
            mate.told = None
            if mate.contradictions >= MAY_CONTRADICT:
                mate.trouble = "contradicted"
            else:
                mate.refused(self._clock.now())
                mate.trouble = "doubtful"

    async def _carry_out(self, now: datetime) -> None:
        for setpoint in SPREAD:
            goal = self._goals.get(setpoint)
            if goal is not None and goal.fresh:
                goal.fresh = False
                await self._spread(goal)
        goals = [each for name in (MODE, TARGET, LIMIT) if (each := self._goals.get(name)) is not None]
        goal, fresh = next(iter(goals), None), [each for each in goals if each.fresh]
        ask = self._ask(now)
        if fresh:
            goal = fresh[-1]
            await self._take_back()
        if ask is None or ask.of_batteries:
            free = [mate for mate in self._held() if ask is None or not mate.stores] if fresh else []
            found = Round([Part(mate, 0.0, free=True) for mate in free])
            await self._tell(found.parts, goal, release=True)
        if ask is not None:
            ramping = self._settings.ramp is not None and not ask.is_cap
            found = self.planner.share_out(ask, now) if fresh or ramping else self.planner.correct(ask, now)
            if fresh or found.parts or found.unplaced == 0:
                self._unplaced = found.unplaced
            await self._tell(found.parts, goal)
        for each in fresh:
            each.fresh = False
            each.unplaced = found.unplaced
            each.begun.set()

    def _held(self) -> Sequence[Mate]:
        return [mate for mate in self.planner.mates.values() if not mate.is_free or mate.stores]

    def _ask(self, now: datetime) -> Ask | None:
        """Return what is asked of all now; None where all are free."""
        cap = self._limit / 100 * self.planner.rated
        if self._battery is not None:
            sun = sum(max(0.0, m.value("pv_power") or 0.0) for m in self.planner.mates.values() if m.stores)
            return Ask(self._battery + sun, of_batteries=True)
        if self._target is None:
            self._ramped = None
            return None if self._limit >= FULL else Ask(cap, is_cap=True)
        target = min(self._target, cap)
        if self._settings.ramp is None:
            return Ask(target)
        since, at = self._ramped or (now, self.planner.measured())
        most = self._settings.ramp / 100 * self.planner.rated * (now - since).total_seconds() / 60
        self._ramped = now, min(max(target, at - most), at + most)
        return Ask(self._ramped[1])

    async def _take_back(self) -> None:
        """Take back what has not left yet: a new target says it anew."""
        if self._children:
            await self._context.cancel(*self._children, by=self._origin)

    async def _tell(self, parts: Sequence[Part], goal: Goal | None, *, release: bool = False) -> None:
        """Command these members, in commits that hold nobody up; the largest change first, as far as calls go."""
        changed = sorted(
            (part for part in parts if release or self._is_news(part)),
            key=lambda part: abs(part.power - part.mate.believed()),
            reverse=True,
        )
        for n in range(0, len(changed), A_COMMIT):
            await self._submit(changed[n : n + A_COMMIT], goal, release=release)
            await asyncio.sleep(0)

    @staticmethod
    def _is_news(part: Part) -> bool:
        mate = part.mate
        if part.free and mate.is_free:
            return False
        step = mate.rated / 200
        return mate.told is None or part.free != mate.is_free or abs(part.power - mate.told) >= step

    async def _submit(self, parts: Sequence[Part], goal: Goal | None, *, release: bool) -> None:
        now = self._clock.now()
        commands: list[Command] = []
        for part in parts:
            orders = part.mate.release() if release else part.mate.orders(part.power, free=part.free)
            mine = [self._command(part.mate, setpoint, value, now, goal) for setpoint, value in orders.items()]
            refusal = self._context.judge(*mine)
            if refusal is not None:
                part.mate.refused(now)
                if goal is not None:
                    goal.children["refused"] += 1
                self._refused(part.mate, refusal.reason, refusal.detail)
                continue
            for command in mine:
                self._children[command.id] = part.mate, goal
            part.mate.pending |= {command.id for command in mine}
            part.mate.told, part.mate.is_free = part.power, part.free or release
            commands += mine
        if commands:
            for event in await self._context.submit(*commands):
                if event.state is CommandState.REJECTED and event.command.id in self._children:
                    self._child_step(event)

    def _refused(self, mate: Mate, reason: Reason, detail: str) -> None:
        if reason is not Reason.HALTED:
            self._context.log.info("a member can't be told", serial=mate.device.serial, reason=reason, detail=detail)

    def _timer(self, mate: Mate, now: datetime) -> float | None:
        """Return a member's own timer, seconds: it stands behind the fleet's fallback, and not all run out at once."""
        fallback = self._settings.fallback
        if fallback is None:
            return None
        seconds = max(TIMER, 4 * fallback.after)
        mate.renew = now + timedelta(seconds=seconds / 2)
        return seconds + zlib.crc32(mate.device.serial.encode()) % STAGGERED

    def _command(self, mate: Mate, setpoint: str, value: Value, now: datetime, goal: Goal | None) -> Command:
        return Command(
            id=new_command_id(),
            serial=mate.device.serial,
            setpoint=setpoint,
            value=value,
            origin=self._origin,
            created=now,
            expires=now + timedelta(seconds=CHILD_TTL),
            parent=goal.command.id if goal is not None else "",
            revert_after=None if setpoint in SPREAD else self._timer(mate, now),
        )

    async def _spread(self, goal: Goal) -> None:
        """Give each member the same."""
        setpoint, now = goal.command.setpoint, self._clock.now()
        able = [m for m in self.planner.mates.values() if setpoint in m.takes and m.counts(now)]
        for n in range(0, len(able), A_COMMIT):
            commands = []
            for mate in able[n : n + A_COMMIT]:
                command = self._command(mate, setpoint, goal.command.value, now, goal)
                if self._context.judge(command) is None:
                    self._children[command.id] = mate, goal
                    mate.pending |= {command.id}
                    commands.append(command)
                else:
                    goal.children["refused"] += 1
            if commands:
                await self._context.submit(*commands)
        goal.begun.set()

    # what came of it

    def _settle(self, now: datetime) -> None:
        """Say what came of what is being carried out, once that is known."""
        for setpoint, goal in self._goals.items():
            if goal.done.done() or goal.fresh:
                continue
            waits = any(mine is goal and not mate.trouble for mate, mine in self._children.values())
            over = (now - goal.since).total_seconds() > TOLD_WITHIN
            if setpoint in SPREAD:
                if not waits:
                    goal.done.set_result(shown.spread_outcome(goal.children))
                continue
            outcome = self._outcome(goal, now, waits=waits, over=over)
            if outcome is not None:
                goal.done.set_result(outcome)

    def _outcome(self, goal: Goal, now: datetime, *, waits: bool, over: bool) -> Outcome | None:
        ask = self._ask(now)
        if ask is None:
            return None if waits and not over else shown.released(goal.children)
        asked = self._target if goal.command.setpoint == TARGET and self._target is not None else ask.power
        measured = self.planner.measured(ask)
        error = min(0.0, asked - measured) if ask.is_cap else asked - measured
        near = max(HOLDS * abs(asked), self.planner.deadband(asked))
        unseen = [m for m in self.planner.mates.values() if m.told is not None and not m.trouble and not m.shows_it]
        if abs(error) <= near:
            return shown.outcome("holding", asked, measured, 0.0, self.planner.mates.values(), goal.children)
        if (not unseen and not waits and abs(self._unplaced) > 0) or over:
            return shown.outcome("partial", asked, measured, error, self.planner.mates.values(), goal.children)
        if not waits and goal.children and not goal.children["ok"] and not unseen and goal.children["refused"]:
            return shown.outcome("failed", asked, measured, error, self.planner.mates.values(), goal.children)
        return None

    def _publish(self, now: datetime) -> None:
        """Show the fleet, as long as most of what it is made of is of now."""
        good = sum(mate.rated for mate in self.planner.mates.values() if mate.good)
        if not self.planner.mates or good < self.planner.rated / 2:
            return
        values = shown.values(self.planner, now, self._ask(now), self._unplaced)
        self._context.publish(
            Snapshot(serial=self.serial, time=now, source=self._context.name, interval=PUBLISHED, values=values)
        )
