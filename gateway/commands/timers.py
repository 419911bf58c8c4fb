"""Dead-man's timers: not refreshed in time, the gateway sends the revert value itself."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final

import msgspec
import structlog

from gateway.commands.lane import Entry, PointKey
from gateway.commands.steps import Change
from gateway.commands.trust import WallTrust
from gateway.core.clock import Clock, Moment
from gateway.core.model import REVERT, Command, Value, new_command_id
from gateway.core.points import LEADERS, REPLACES, SETPOINTS
from gateway.core.timer import Timer
from gateway.journal import writes
from gateway.journal.journal import Journal
from gateway.journal.writes import Revert

log = structlog.get_logger("control")

REVERT_TTL: Final = 3600.0
REVERT_RETRY: Final = 60.0
"""Seconds after which a revert that has not succeeded is sent again."""
UNKNOWN_TIME: Final = 30.0
"""Seconds that a timer of before a start of the machine waits for the clock to be known; then it fires."""


class _Timer(msgspec.Struct, eq=False):
    revert: Revert
    due: Moment
    alarm: Timer
    by_wall: bool = False
    """It is of before a start of the machine, so that only the wall clock tells its time."""


class Timers:
    """The timers that run."""

    def __init__(self, journal: Journal, clock: Clock, trust: WallTrust) -> None:
        self._journal = journal
        self._clock = clock
        self._trust = trust
        self.send: Callable[[Command, Moment], Awaitable[None]]
        """Given each command that brings a revert value out, and when it expires."""
        self._timers: dict[PointKey, _Timer] = {}
        self._busy: Counter[PointKey] = Counter()
        """How many commands that may refresh the timer of a setpoint have not ended."""
        self._firing: set[asyncio.Task[None]] = set()
        self._stopped = True
        self.released: Callable[[str], None] = lambda _: None
        """Given the serial of a device whenever a timer of it has gone."""

    async def load(self) -> None:
        """Take up the timers that the journal has. None fires before `start`."""
        now, boot_id = self._clock.moment(), self._clock.boot_id()
        for revert in await self._journal.reverts():
            by_wall = bool(boot_id and revert.boot_id) and revert.boot_id != boot_id
            left = (revert.due - now.wall).total_seconds()
            if boot_id and revert.boot_id == boot_id:
                left = min(left, revert.boot_due - now.boot)
            if by_wall and not self._trust.known:
                left = UNKNOWN_TIME
            self._timers[revert.serial, revert.setpoint] = self._timer(revert, _due(revert, now, left), by_wall=by_wall)

    def start(self) -> None:
        """Let them run; one that ran out meanwhile fires at once, unless a command that it waits for is under way."""
        self._stopped = False
        self.look()

    def stop(self) -> None:
        """Let none fire or be armed in this process any more; the journal has them."""
        self._stopped = True
        for timer in self._timers.values():
            timer.alarm.cancel()

    async def stopped(self) -> None:
        """Wait for those that were firing."""
        await asyncio.gather(*self._firing, return_exceptions=True)
        self._timers.clear()

    def _timer(self, revert: Revert, due: Moment, *, by_wall: bool = False) -> _Timer:
        return _Timer(revert, due, Timer(partial(self._look, (revert.serial, revert.setpoint))), by_wall)

    def look(self) -> None:
        """Look at all again: the clock was set, or the machine slept."""
        now = self._clock.moment()
        for key, timer in list(self._timers.items()):
            if timer.by_wall and self._trust.known:
                left = (timer.revert.due - now.wall).total_seconds()
                timer.due, timer.by_wall = _due(timer.revert, now, left), False
            self._look(key)

    def running(self, key: PointKey) -> bool:
        """Return whether a setpoint has a timer."""
        return key in self._timers

    def armed(self, serial: str, group: str) -> float | None:
        """Return how many seconds are left until the first timer of a group's setpoints; None where there is none."""
        now = self._clock.moment()
        timers = [self._timers.get((serial, point.id)) for point in SETPOINTS.values() if point.group == group]
        return min((timer.due.left(now) for timer in timers if timer is not None), default=None)

    def of(self, serial: str) -> bool:
        """Return whether a device has a timer."""
        return any(key in self._timers for key in ((serial, setpoint) for setpoint in SETPOINTS))

    def hold(self, entry: Entry) -> None:
        """Let no timer that the command may refresh fire until it has ended."""
        entry.holds = {entry.key}
        self._busy.update(entry.holds)

    def release(self, entry: Entry) -> None:
        """Take in that it has ended; a timer that has run out meanwhile fires."""
        for key in list(entry.holds):
            self._let_go(entry, key)

    def _let_go(self, entry: Entry, key: PointKey) -> None:
        if key not in entry.holds:
            return
        entry.holds.remove(key)
        self._busy[key] -= 1
        if self._busy[key] <= 0:
            del self._busy[key]
            self._look(key)

    def left(self, entry: Entry) -> list[Change]:
        """Arm the timer of a command that has just left, so that it fires in time whatever becomes of its result."""
        key = entry.key
        earlier = self._timers.get(key)

        def armed() -> None:
            entry.armed, entry.replaced = self._timers.get(key), earlier
            # It waits for no result of the very command that it guards.
            self._let_go(entry, key)

        arming = self.after(entry, in_force=False, perhaps=True)
        return [*arming, Change(_nothing, armed)] if arming else []

    def after(self, entry: Entry, *, in_force: bool, perhaps: bool) -> list[Change]:
        """Arm the command's timer, or take away the one that it replaces, for what is, or perhaps is, in force.

        Returns what the journal has to write in the commit of the command's end.
        """
        command = entry.command
        if entry.is_renewal:
            return []
        if command.revert_after is not None and (in_force or perhaps):
            now = self._clock.moment()
            due = (entry.handed or now).later(command.revert_after)
            _, value = fallback(command)
            earlier = self._timers.get(entry.key)
            if perhaps and not in_force and earlier is not None and earlier.due.left(now) <= due.left(now):
                return []
            revert = Revert(*entry.key, value, due.wall, self._clock.boot_id(), due.boot)
            over = [key for key in _ended_by(command) if key in self._timers and key != entry.key] if in_force else []
            return [self._arming(revert, due), *map(self._disarming, over)]
        if not in_force and not perhaps and entry.armed is not None:
            # The command was refused after all, so the timer that it had replaced goes on.
            key = entry.armed.revert.serial, entry.armed.revert.setpoint
            if self._timers.get(key) is not entry.armed:
                return []
            if entry.replaced is None:
                return [self._disarming(key)]
            return [self._arming(entry.replaced.revert, entry.replaced.due)]
        if not in_force:
            return []
        return [self._disarming(key) for key in _ended_by(command) if key in self._timers]

    def _arming(self, revert: Revert, due: Moment) -> Change:
        return Change(writes.arm(revert), lambda: self._set(self._timer(revert, due)))

    def _disarming(self, key: PointKey) -> Change:
        return Change(writes.disarm(*key), partial(self._stop_timer, key))

    def _stop_timer(self, key: PointKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.alarm.cancel()
        self.released(key[0])

    def _set(self, timer: _Timer) -> None:
        key = timer.revert.serial, timer.revert.setpoint
        old = self._timers.get(key)
        if old is not None:
            old.alarm.cancel()
        self._timers[key] = timer
        self._look(key)

    def _look(self, key: PointKey) -> None:
        """Fire the timer of a setpoint, if it is time and nothing may refresh it; otherwise look again when it is."""
        timer = self._timers.get(key)
        if timer is None or self._stopped:
            return
        timer.alarm.cancel()
        now = self._clock.moment()
        left = timer.due.left(now)
        if left > 0:
            timer.alarm.set(left)
        elif key not in self._busy:
            task = asyncio.create_task(self._fire(timer.revert), name=f"revert {'/'.join(key)}")
            self._firing.add(task)
            task.add_done_callback(self._firing.discard)
            timer.due, timer.by_wall = now.later(REVERT_RETRY), False
            self._look(key)

    async def _fire(self, revert: Revert) -> None:
        """Send the revert value. The timer stays armed until that has succeeded."""
        now = self._clock.moment()
        command = Command(
            id=new_command_id(),
            serial=revert.serial,
            setpoint=_setpoint(revert),
            value=revert.value,
            origin=REVERT,
            is_revert=True,
            created=now.wall,
            expires=now.wall + timedelta(seconds=REVERT_TTL),
        )
        log.warning(
            "not refreshed in time, reverting",
            serial=revert.serial,
            setpoint=_setpoint(revert),
            value=revert.value,
        )
        await self.send(command, now.later(REVERT_TTL))


def _nothing(_: object) -> None:
    """Write nothing: only what comes once the rest is on the disk is wanted."""


def _due(revert: Revert, now: Moment, left: float) -> Moment:
    """Return when a timer of an earlier run is due, which has so many seconds left."""
    return msgspec.structs.replace(now.later(left), wall=revert.due)


def fallback(command: Command) -> tuple[str, Value]:
    """Return what the command's dead-man's timer falls back to: a setpoint, and its value; None where there is none.

    A setting of an order has no neutral value of its own: without it the whole order is at an end.
    """
    point = SETPOINTS[command.setpoint]
    if command.revert_value is not None:
        return point.id, point.parse(command.revert_value)
    if point.group:
        return LEADERS[point.group], SETPOINTS[LEADERS[point.group]].neutral
    return point.id, point.neutral


def _setpoint(revert: Revert) -> str:
    """Return what a timer sets: the setpoint it was armed for, or what ends the order that this is a setting of."""
    group = SETPOINTS[revert.setpoint].group
    ends_order = bool(group) and revert.value == SETPOINTS[LEADERS[group]].neutral
    return LEADERS[group] if ends_order else revert.setpoint


def _ended_by(command: Command) -> list[PointKey]:
    """Return the setpoints whose timers are over with a command: its own, and those of what it ends."""
    point = SETPOINTS[command.setpoint]
    over = [point.id, *REPLACES.get(point.id, ())]
    ends_order = point.id in LEADERS.values() and command.value == point.neutral and command.revert_after is None
    if ends_order:
        over += [other.id for other in SETPOINTS.values() if other.group == point.group and other is not point]
    return [(command.serial, setpoint) for setpoint in over]
