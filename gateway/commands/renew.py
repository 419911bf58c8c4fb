"""Renews orders for batteries, which hold no longer than the window they were sent with.

A window that ends by itself leaves no battery standing when the gateway is dead. While the gateway lives, an order that
is to go on is sent again well before its window is over, as a command of the gateway's own: journaled, taking turns
with people's, superseded by theirs. It is not renewed

- when its dead-man's timer ends no later than its window;
- while control is halted: then it ends with its window, an hour after it was sent at most;
- when it is not known to run any more: handed back, failed, or changed by somebody else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from gateway.commands.lane import PointKey
from gateway.commands.memory import SetpointMemory
from gateway.core.clock import Clock, Moment
from gateway.core.model import GATEWAY, Command, new_command_id
from gateway.core.points import LEADERS, SETPOINTS

log = structlog.get_logger("control")

EARLY: Final = 0.75
"""The part of its window after which an order is renewed."""
AGAIN: Final = 0.0625
"""The part of a window between two tries to renew it; at least AGAIN_LEAST."""
MIN_AGAIN_SECONDS: Final = 2.0
SLACK: Final = 1.0
"""Seconds by which a dead-man's timer has to end after the window, or they end together."""


class _Window(msgspec.Struct):
    """In which an order holds."""

    seconds: float
    due: Moment
    """When it is to be renewed."""
    ends: Moment


class Renewal:
    """Knows the window of each order that was sent. `send` is given the commands that renew, and when they expire."""

    def __init__(
        self,
        memory: SetpointMemory,
        timer: Callable[[str, str], float | None],
        send: Callable[[Command, Moment], Awaitable[None]],
        halted: Callable[[], bool],
        clock: Clock,
        window: float,
    ) -> None:
        self._memory = memory
        self._timer = timer
        """Serial and group → seconds until the first of its dead-man's timers; None where there is none."""
        self._send = send
        self._halted = halted
        self._clock = clock
        self._window = window
        self._windows: dict[PointKey, _Window] = {}
        """Serial and leading setpoint → its order's."""
        self._sending: set[asyncio.Task[None]] = set()

    def load(self) -> None:
        """Take up the orders that ran before a restart, as far as they still do."""
        for serial, settings in self._memory:
            for group, leader in LEADERS.items():
                setting = settings.get(leader)
                if setting is not None and setting.since and setting.until and self._memory.runs(serial, group):
                    seconds = (setting.until.wall - setting.since.wall).total_seconds()
                    self._windows[serial, leader] = _Window(
                        seconds, setting.since.later(EARLY * seconds), setting.until
                    )

    async def stop(self) -> None:
        """Renew nothing any more."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def sent(self, command: Command, handed: Moment) -> None:
        """Take in that a command has left: its order has the window that the cloud was told."""
        group = SETPOINTS[command.setpoint].group
        if group in LEADERS:
            window = _window(handed, command.revert_after or self._window)
            self._windows[command.serial, LEADERS[group]] = window
            self._memory.window(command, window.ends)

    def look(self) -> None:
        """Renew what is due. To be called every second or so."""
        if self._halted():
            return
        now = self._clock.moment()
        for key, window in list(self._windows.items()):
            if window.due.left(now) > 0:
                continue
            serial, leader = key
            group = SETPOINTS[leader].group
            if window.ends.left(now) <= 0:
                # What has ended is over, and never begun anew.
                del self._windows[key]
                continue
            timer = self._timer(serial, group)
            if not self._memory.runs(serial, group) or (timer is not None and timer <= window.ends.left(now) + SLACK):
                continue
            window.due = now.later(max(MIN_AGAIN_SECONDS, AGAIN * window.seconds))
            self._begin(self._command(key, now.wall, window.ends.left(now)), window.ends)

    def _command(self, key: PointKey, now: datetime, seconds: float) -> Command:
        serial, leader = key
        return Command(
            id=new_command_id(),
            serial=serial,
            setpoint=leader,
            value=self._memory.of(serial)[leader].value,
            origin=GATEWAY,
            created=now,
            expires=now + timedelta(seconds=seconds),
        )

    def _begin(self, command: Command, deadline: Moment) -> None:
        log.info("an order goes on, so it is renewed", serial=command.serial, setpoint=command.setpoint, id=command.id)
        task = asyncio.ensure_future(self._send(command, deadline))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Future[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an order could not be renewed, trying again", error=str(error))


def _window(begins: Moment, seconds: float) -> _Window:
    return _Window(seconds, begins.later(EARLY * seconds), begins.later(seconds))
