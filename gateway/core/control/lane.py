"""Commands that take turns, because they share a call to the cloud, and who may move one of them on."""

import asyncio
from typing import Any, Final

from gateway.core.bridge import Outcome, Paced
from gateway.core.control.life import Life
from gateway.core.model import Command, CommandEvent, CommandState, Reason
from gateway.core.points import SETPOINTS

REVERT_ORIGIN: Final = "revert"

LaneKey = tuple[str, str]
"""Serial, and the setpoint's group or, without one, the setpoint."""
PointKey = tuple[str, str]
"""Serial and setpoint."""


class Entry(Life):
    """A command that has not ended."""

    def __init__(self, command: Command, deadline: float, state: CommandState | None = None) -> None:
        super().__init__(command, deadline, state)
        self.moving = asyncio.Lock()
        """Held by who moves it on: its lane's worker, who cancels it, or who brings its result."""
        self.waiting: asyncio.Timeout | None = None
        """What the worker waits in while the command is away; to be cut short by `hear`."""
        self.event: CommandEvent | None = None
        """Its newest step in this run."""
        self.paced: Paced | None = None
        """The controller that was asked for a turn."""
        self.left = "the far side told of it"
        """How it left, for the step that says so."""

    @property
    def key(self) -> PointKey:
        """Device and setpoint."""
        return self.command.serial, self.command.setpoint

    @property
    def lane(self) -> LaneKey:
        """Which commands it takes turns with."""
        return self.command.serial, SETPOINTS[self.command.setpoint].group or self.command.setpoint

    @property
    def is_revert(self) -> bool:
        """Whether a dead-man's timer sends it."""
        return self.command.origin == REVERT_ORIGIN

    def hear(self, outcome: Outcome) -> None:
        """Take in what became of it, and wake who waits for that."""
        self.outcome = outcome
        if self.waiting is not None and not self.waiting.expired():
            self.waiting.reschedule(asyncio.get_running_loop().time())


class Lane:
    """Commands in the order of their acceptance, and what moves the first of them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.arrival = asyncio.Event()
        self.worker: asyncio.Task[None] | None = None

    def add(self, entry: Entry) -> None:
        """Queue a command."""
        self.entries.append(entry)
        self.arrival.set()

    def successor(self, entry: Entry) -> Entry | None:
        """Return the newest later command for the same setpoint."""
        for other in reversed(self.entries):
            if other is entry:
                return None
            if other.key == entry.key and other.state is CommandState.ACCEPTED:
                return other
        return None

    def outdated(self, most: int) -> list[tuple[Entry, Entry]]:
        """Return which of those that wait a newer one makes pointless, each with the newest."""
        newest = {entry.key: entry for entry in self.entries if entry.state is CommandState.ACCEPTED}
        return [
            (entry, newest[entry.key])
            for entry in self.entries
            if entry.waits and entry is not newest[entry.key] and not entry.moving.locked() and entry.outcome is None
        ][:most]

    def drop_ended(self) -> None:
        """Forget commands that have ended."""
        self.entries = [entry for entry in self.entries if entry.state is None or not entry.state.final]

    async def pause(self, seconds: float, until: asyncio.Future[None] | None = None) -> None:
        """Wait, or until another command arrives or one is told of; or until that is done."""
        self.arrival.clear()
        arrival = asyncio.ensure_future(self.arrival.wait())
        awaited: list[asyncio.Future[Any]] = [arrival] if until is None else [arrival, until]
        try:
            await asyncio.wait(
                awaited,
                timeout=max(0.0, seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            arrival.cancel()


LASTING: Final = frozenset(
    {
        Reason.CONTROL_DISABLED,
        Reason.HALTED,
        Reason.NOT_PERMITTED,
        Reason.UNKNOWN_SETPOINT,
        Reason.BAD_VALUE,
        Reason.OUT_OF_RANGE,
        Reason.BAD_STEP,
    }
)
"""Refusals that stand when a command is judged again before it leaves. The others are about its arrival."""
