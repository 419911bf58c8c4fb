"""Dead-man's timers: not refreshed in time, the gateway sends the revert value itself."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.control.lane import REVERT_ORIGIN, Entry, PointKey
from gateway.core.journal.journal import Journal, Revert
from gateway.core.model import Command, Value, new_command_id
from gateway.core.points import SETPOINTS

log = structlog.get_logger("control")

REVERT_TTL: Final = 3600.0
REVERT_RETRY: Final = 60.0
"""Seconds after which a revert that has not succeeded is sent again."""


class _Timer(msgspec.Struct):
    revert: Revert
    due: float
    """On the monotonic clock."""
    handle: asyncio.TimerHandle | None = None


class Timers:
    """The timers that run. `send` is given each command that brings a revert value out."""

    def __init__(self, journal: Journal, clock: Clock, send: Callable[[Command, float], Awaitable[None]]) -> None:
        self._journal = journal
        self._clock = clock
        self._send = send
        self._timers: dict[PointKey, _Timer] = {}
        self._busy: Counter[PointKey] = Counter()
        """How many commands of a setpoint have not ended: one of them may refresh its timer."""
        self._firing: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Take up the timers that the journal has. None fires before `start`."""
        for revert in await self._journal.reverts():
            due = self._clock.monotonic() + (revert.due - self._clock.now()).total_seconds()
            self._timers[revert.serial, revert.setpoint] = _Timer(revert, due)

    def start(self) -> None:
        """Let them run; one that ran out meanwhile fires at once, unless a command that it waits for is under way."""
        for key in list(self._timers):
            self._look(key)

    async def stop(self) -> None:
        """Stop them in this process; the journal has them."""
        for timer in self._timers.values():
            if timer.handle is not None:
                timer.handle.cancel()
        self._timers.clear()
        for task in self._firing:
            task.cancel()
        await asyncio.gather(*self._firing, return_exceptions=True)

    def running(self, key: PointKey) -> bool:
        """Return whether a setpoint has a timer."""
        return key in self._timers

    def hold(self, entry: Entry) -> None:
        """Let no timer of its setpoint fire until the command has ended."""
        self._busy[entry.key] += 1

    def release(self, entry: Entry) -> None:
        """Take in that it has ended; a timer that has run out meanwhile fires."""
        self._busy[entry.key] -= 1
        if self._busy[entry.key] <= 0:
            del self._busy[entry.key]
            self._look(entry.key)

    def after(self, entry: Entry, *, in_force: bool, perhaps: bool) -> list[Awaitable[None]]:
        """Arm the command's timer, or take away the one that it replaces, for what is, or perhaps is, in force.

        Returns what the journal has to write in the commit of the command's end.
        """
        command = entry.command
        if command.revert_after is not None and (in_force or perhaps):
            now = self._clock.monotonic()
            delay = command.revert_after - (0.0 if entry.handed_at is None else now - entry.handed_at)
            earlier = self._timers.get(entry.key)
            if perhaps and not in_force and earlier is not None and earlier.due <= now + delay:
                return []
            value = revert_value(command)
            revert = Revert(command.serial, command.setpoint, value, self._clock.now() + timedelta(seconds=delay))
            return [self._arm(revert, delay)]
        if in_force and entry.key in self._timers:
            return [self._disarm(entry.key)]
        return []

    async def _arm(self, revert: Revert, delay: float) -> None:
        due = self._clock.monotonic() + delay
        await self._journal.arm(revert)
        self._set(revert, due - self._clock.monotonic())

    async def _disarm(self, key: PointKey) -> None:
        await self._journal.disarm(*key)
        timer = self._timers.pop(key, None)
        if timer is not None and timer.handle is not None:
            timer.handle.cancel()

    def _set(self, revert: Revert, delay: float) -> None:
        key = revert.serial, revert.setpoint
        old = self._timers.get(key)
        if old is not None and old.handle is not None:
            old.handle.cancel()
        self._timers[key] = _Timer(revert, self._clock.monotonic() + delay)
        self._look(key)

    def _look(self, key: PointKey) -> None:
        """Fire the timer of a setpoint, if it is time and nothing may refresh it; otherwise look again when it is."""
        timer = self._timers.get(key)
        if timer is None:
            return
        if timer.handle is not None:
            timer.handle.cancel()
            timer.handle = None
        if timer.due > self._clock.monotonic():
            timer.handle = asyncio.get_running_loop().call_at(timer.due, self._look, key)
        elif key not in self._busy:
            task = asyncio.create_task(self._fire(timer.revert), name=f"revert {'/'.join(key)}")
            self._firing.add(task)
            task.add_done_callback(self._firing.discard)
            self._set(timer.revert, REVERT_RETRY)

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
        await self._send(command, self._clock.monotonic() + REVERT_TTL)


def revert_value(command: Command) -> Value:
    """Return what the command's dead-man's timer falls back to; None where there is nothing."""
    if command.revert_value is not None:
        return SETPOINTS[command.setpoint].parse(command.revert_value)
    return SETPOINTS[command.setpoint].neutral
