"""What is asked of a fleet, and what has come of it so far."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.core.controller import Outcome
from gateway.core.model import Command, CommandState, DeviceState, Value
from gateway.core.points import NONE, SETPOINTS
from gateway.steering.fleet import shown
from gateway.steering.fleet.mate import FULL, LIMIT, MODE, POWER, SIGNS
from gateway.steering.fleet.planner import COARSE, Ask, Planner, Sight, meant, measured, rated
from gateway.steering.fleet.settings import FleetSettings

TARGET: Final = "power_target"
SPREAD: Final = shown.SPREAD
TOLD_WITHIN: Final = 600.0
"""Seconds after which it is said what came of a target, also where some have not shown it yet."""

LEAD: Final = 2 * COARSE
"""Of the rated power: as far as this a ramp may be ahead of what members give, or were told."""
SUPERSEDED: Final = "not reached: a newer one came first"
LET_GO: Final = "let go; a newer one came before all members had said so"

_INSTEAD: Final = {MODE: TARGET, TARGET: MODE}
"""Which of both is asked of batteries: the newer one."""


class Goal(msgspec.Struct):
    """A command of the fleet that is being carried out."""

    command: Command
    since: datetime
    done: asyncio.Future[Outcome]
    begun: asyncio.Event
    ends: Counter[str]
    """How its commands to members have ended: ok, refused, late, doubtful."""
    fresh: bool = True
    """It has not been shared out yet."""
    untold: set[str] | None = None
    """Serial numbers of members that are still to be given it as it is; None: it has not begun."""
    resumed: bool = False
    """It had left before a restart: what is wrong is corrected once all that were told something are heard of."""

    def supersede(self) -> None:
        """End it, for a newer one has come. What lets go has done so: only its members had not all said it."""
        self.begun.set()
        if not self.done.done():
            state = CommandState.SUCCEEDED if self.lets_go and not self.fresh else CommandState.FAILED
            self.done.set_result(Outcome(state, LET_GO if state is CommandState.SUCCEEDED else SUPERSEDED))

    @property
    def lets_go(self) -> bool:
        """Whether it ends what is asked, and asks for nothing itself."""
        return self.command.value == SETPOINTS[self.command.setpoint].neutral and self.command.setpoint not in SPREAD


def kind(setpoint: str) -> str:
    """Return by which setpoint a goal is known: an order for the battery is one, whatever of it was written."""
    return MODE if setpoint == POWER else setpoint


class Goals:
    """What is in force, and what is on its way."""

    def __init__(self, settings: FleetSettings, planner: Planner) -> None:
        self._settings = settings
        self._planner = planner
        self._goals: dict[str, Goal] = {}
        """Kind → the newest."""
        self.target: float | None = None
        """W; None where nothing is asked."""
        self._limit = FULL
        """% of rated power."""
        self._order: Mapping[str, Value] = {}
        """What all batteries together are ordered, where that is newer than the target."""
        self._ramped: tuple[datetime, float] | None = None
        self.recalled = False
        """Something was in force before a restart, so that members may still stand as they were told then."""
        self.unplaced = 0.0
        """W that could not be placed when it was shared out, or corrected, last."""

    def end(self) -> None:
        """Wait for nothing any more; see `Fleet.result`."""
        for goal in self._goals.values():
            goal.begun.set()
            goal.done.cancel()
        self._goals.clear()

    def recall(self, state: DeviceState | None, commanded: Mapping[str, tuple[datetime, Value]]) -> None:
        """Take up what was in force before a restart, of what nothing was asked since.

        `commanded`: setpoint → when it was set, and to what.
        """
        if state is None:
            return
        target, limit = state.values.get(TARGET), state.values.get(LIMIT)
        if not self._goals:
            self.recalled = isinstance(target, (int, float)) or state.values.get(MODE) is not None or limit is not None
        if LIMIT not in self._goals:
            self._limit = float(limit) if isinstance(limit, (int, float)) else FULL
        if self._goals.keys() & {TARGET, MODE}:
            return
        self.target = float(target) if isinstance(target, (int, float)) else None
        ordered, targeted = (commanded[name][0] if name in commanded else None for name in (MODE, TARGET))
        if ordered is not None and (targeted is None or ordered > targeted):
            self._order, self.target = {name: state.values.get(name) for name in (MODE, POWER)}, None
        else:
            self._order = {}

    def cut(self, sights: Sequence[Sight]) -> float:
        """Return the W of a target that a limit on the fleet takes away."""
        if self.target is None or not self.is_limiting:
            return 0.0
        return max(0.0, self.target - self._limit / 100 * rated(sights))

    @property
    def caps(self) -> bool:
        """Whether what is asked is only the most that all may give."""
        return not self._steers_batteries and self.target is None and self.is_limiting

    @property
    def is_limiting(self) -> bool:
        """Whether a limit on the fleet is in force."""
        return self._limit < FULL

    @property
    def _steers_batteries(self) -> bool:
        return self._order.get(MODE) in SIGNS

    def of(self, command: Command) -> Goal | None:
        """Return what carries a command out."""
        goal = self._goals.get(kind(command.setpoint))
        return goal if goal is not None and goal.command.id == command.id else None

    def spread(self) -> Sequence[Goal]:
        """Return what each member is to be given as it is, and has not been yet."""
        return [goal for name in SPREAD if (goal := self._goals.get(name)) is not None and (goal.fresh or goal.untold)]

    def shared(self) -> Sequence[Goal]:
        """Return what is shared out, the decisive one first."""
        return [goal for name in (MODE, TARGET, LIMIT) if (goal := self._goals.get(name)) is not None]

    @property
    def fresh(self) -> bool:
        """Whether something has been asked that is not shared out yet."""
        return any(goal.fresh and not goal.resumed for goal in self._goals.values())

    def newer(self, command: Command) -> None:
        """Take in that another command waits for its turn: the one before ends."""
        goal = self._goals.get(kind(command.setpoint))
        if goal is not None and goal.command.id != command.id:
            goal.supersede()

    def begin(self, command: Command, in_force: Mapping[str, Value], now: datetime) -> Goal:
        """Take a command up."""
        self.newer(command)
        goal = Goal(command, now, asyncio.get_running_loop().create_future(), asyncio.Event(), Counter())
        name = kind(command.setpoint)
        self._goals[name] = goal
        other = self._goals.pop(_INSTEAD[name], None) if name in _INSTEAD else None
        if other is not None:
            other.supersede()
        if name == TARGET:
            self.target, self._order = None if command.value == NONE else float(command.value or 0), {}
        elif name == MODE:
            self._order, self.target = {**in_force, command.setpoint: command.value}, None
        elif name == LIMIT:
            self._limit = float(command.value or 0)
        return goal

    @property
    def ramps(self) -> bool:
        """Whether what is asked moves by itself: then members are told one after the other, each once."""
        return self._settings.ramp is not None and self.target is not None

    def ask(self, sights: Sequence[Sight], now: datetime) -> Ask | None:
        """Return what is asked of all now; None where all are free."""
        whole = rated(sights)
        cap = self._limit / 100 * whole
        if self._steers_batteries:
            most = sum(s.mate.takes[POWER].high or s.mate.rated for s in sights if s.mate.stores)
            sun = sum(max(0.0, s.mate.value("pv_power") or 0.0) for s in sights if s.mate.stores)
            power = _ordered(self._order, most) + sun
            cut = max(0.0, power - cap) if self.is_limiting else 0.0
            return Ask(power - cut, of_batteries=True, is_limited=cut > 0, cut=cut)
        if self.target is None:
            self._ramped = None
            return None if self._limit >= FULL else Ask(cap, is_cap=True, is_limited=True)
        is_limited = self.is_limiting and cap < self.target
        target = cap if is_limited else self.target
        if self._settings.ramp is None:
            return Ask(target, is_limited=is_limited)
        at = self._on_ramp(target, self._settings.ramp / 100 * whole / 60, sights, now)
        return Ask(at, is_limited=is_limited, moves=at != target)

    def _on_ramp(self, target: float, slope: float, sights: Sequence[Sight], now: datetime) -> float:
        """Return where a ramp of so many W a second has come to, W.

        It waits where members can't follow: what they had not been told yet would come all at once.
        """
        given, lead = sum(sight.believed for sight in sights), LEAD * rated(sights)
        since, at = self._ramped or (now, given)
        most = slope * (now - since).total_seconds()
        at = min(max(target, at - most), at + most)
        self._ramped = now, min(max(at, given - lead), given + lead)
        return self._ramped[1]

    def others(self, sights: Sequence[Sight], told: Mapping[str, float]) -> Ask | None:
        """Return what those without a battery may give beside an order for all batteries, where a limit holds.

        `told`: serial number → W that was told a moment ago.
        """
        if not self._steers_batteries or not self.is_limiting:
            return None
        given = sum(told.get(s.mate.device.serial, s.believed) for s in sights if s.mate.stores)
        return Ask(max(0.0, self._limit / 100 * rated(sights) - given), is_cap=True, is_limited=True, of_others=True)

    def settle(
        self, sights: Sequence[Sight], ask: Ask | None, waiting: Mapping[tuple[int, bool], int], now: datetime
    ) -> None:
        """Say what came of what is being carried out, once that is known.

        `waiting`: identity of a goal's counter of ends, and whether they are to members that can't be counted on → how
        many of its commands have not ended.
        """
        for name, goal in self._goals.items():
            if goal.done.done() or goal.fresh:
                continue
            waits = waiting.get((id(goal.ends), False), 0) > 0
            over = (now - goal.since).total_seconds() > TOLD_WITHIN
            outcome: Outcome | None = None
            if name in SPREAD:
                waits = waits or waiting.get((id(goal.ends), True), 0) > 0
                outcome = None if (waits and not over) or goal.untold else shown.spread_outcome(goal.ends)
            elif ask is None:
                outcome = None if waits and not over else shown.released(goal.ends)
            else:
                outcome = self._outcome(goal, sights, ask, waits=waits, over=over)
            if outcome is not None:
                goal.done.set_result(outcome)

    def _outcome(self, goal: Goal, sights: Sequence[Sight], ask: Ask, *, waits: bool, over: bool) -> Outcome | None:
        mates = [sight.mate for sight in sights]
        whole, cut = rated(sights), 0.0
        if goal.command.setpoint == TARGET and self.target is not None:
            cut = self.cut(sights)
            ask = msgspec.structs.replace(ask, power=self.target - cut)  # not where its ramp is by now
        elif goal.command.setpoint == LIMIT and ask.of_batteries:
            ask = Ask(self._limit / 100 * whole, is_cap=True, is_limited=True)
        else:
            cut = ask.cut
        power = measured(meant(ask, sights))
        asked, error = ask.power, ask.missing(power)
        unseen = [abs(told - sight.measured) for sight in sights if (told := sight.mate.unseen) is not None]
        near = self._planner.near(asked, whole)
        if abs(error) <= near and sum(unseen) <= near:
            if cut:
                return shown.outcome(
                    "partial", asked + cut, power, error + cut, mates, goal.ends, f"for {LIMIT} is {self._limit:g} %"
                )
            return shown.outcome("holding", asked, power, 0.0, mates, goal.ends)
        if (waits or unseen) and not over:
            return None
        if goal.ends["refused"] and not goal.ends["ok"]:
            return shown.outcome("failed", asked, power, error, mates, goal.ends)
        return shown.outcome("partial", asked, power, error, mates, goal.ends) if self.unplaced or over else None


def _ordered(order: Mapping[str, Value], most: float) -> float:
    """Return what an order for the battery comes to, W, > 0 discharging. `most`: what all batteries can do."""
    power = order.get(POWER)
    return SIGNS[order.get(MODE)] * (float(power) if isinstance(power, (int, float)) else most)
