"""Commands that take turns, because they share a call to the cloud, and who may move one of them on."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from gateway.commands.state_machine import Life
from gateway.core.clock import Moment
from gateway.core.controller import Admitting, Outcome
from gateway.core.model import GATEWAY, Command, CommandEvent, CommandState
from gateway.core.points import SETPOINTS
from gateway.core.timer import Timer
from gateway.journal.file import JournalError

LaneKey = tuple[str, str]
"""Serial, and the setpoint's group or, without one, the setpoint."""
PointKey = tuple[str, str]
"""Serial and setpoint."""


class Entry(Life):
    """A command that has not ended."""

    def __init__(self, command: Command, deadline: Moment, state: CommandState | None = None) -> None:
        super().__init__(command, deadline, state)
        self.moving = asyncio.Lock()
        """Held by who moves it on: its lane's worker, who cancels it, or who brings its result."""
        self.waiting: Callable[[], None] | None = None
        """Ends what the worker waits in while the command is away; called by `hear`."""
        self.event: CommandEvent | None = None
        """Its newest step in this run."""
        self.is_driven = False
        """Its lane's worker is at it: what becomes of it is written by that one, soon."""
        self.is_kept = False
        """The journal has its outcome, or its end."""
        self.telling: list[asyncio.Future[None]] = []
        """Who brought its result waits here until that is written down; each has a future of its own."""
        self.paced: Admitting | None = None
        """The controller that was asked for a turn."""
        self.request: object = None
        """What it came in by, the same for all that came with it; None where that is not known any more."""
        self.companions: list[Entry] = []
        """What left with it, by the same call."""
        self.holds: set[PointKey] = set()
        """Setpoints whose timers wait for its end, for it may refresh them."""
        self.armed: Any = None
        """The timer that was armed when it left, and the one that this replaced. `Timers` keeps both here."""
        self.replaced: Any = None
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
        return self.command.is_revert

    @property
    def is_renewal(self) -> bool:
        """Whether the gateway sends it by itself, so that an order goes on; see `renew`."""
        return self.command.origin == GATEWAY

    def outcome_kept(self) -> None:
        """Take in that the journal has what became of it; who brought it waits no longer."""
        self.is_kept = True
        if self.telling:
            settle(self.telling)
            self.telling = []

    def hear(self, outcome: Outcome) -> None:
        """Take in what became of it, and wake who waits for that."""
        self.outcome, self.is_kept = outcome, False
        if self.waiting is not None:
            self.waiting()

    def waits_in(self, timeout: asyncio.Timeout) -> None:
        """Take in that the worker waits in this one, which ends at once when `hear` is called."""

        def end() -> None:
            if not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())

        self.waiting = end

    async def heard(self, seconds: float) -> None:
        """Wait until `hear` is called, for so many seconds at most: as within a timeout, at a tenth of its cost."""
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end() -> None:
            if not heard.done():
                heard.set_result(None)

        self.waiting = end
        alarm = Timer(end)
        alarm.set(seconds)
        try:
            await heard
        finally:
            self.waiting = None
            alarm.cancel()


def settle(telling: Iterable[asyncio.Future[None]], error: JournalError | None = None) -> None:
    """Say to who brought results that the journal has them, or why it has not."""
    for each in telling:
        if each.done():  # who waited was cancelled
            continue
        if error is None:
            each.set_result(None)
        else:
            each.set_exception(error)


class Moving:
    """Holds several commands, so that nobody else moves them: in the order in which they are given."""

    def __init__(self, *entries: Entry) -> None:
        self._entries = entries
        self._held = 0

    async def __aenter__(self) -> None:
        try:
            for entry in self._entries:
                await entry.moving.acquire()
                self._held += 1
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        for entry in self._entries[: self._held]:
            entry.moving.release()


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
        """Return the newest later command for the same setpoint; it may have left already, with the order it is of."""
        for other in reversed(self.entries):
            if other is entry:
                return None
            if other.key == entry.key and other.state in (CommandState.ACCEPTED, CommandState.SENT):
                return other
        return None

    def companions(self, entry: Entry) -> list[Entry]:
        """Return what waits besides, the newest of each other setpoint: all of it is one order, so one call.

        So is what was handed over with it before a restart, and of which nothing is known.
        """
        return [
            other
            for other in self.entries
            if other.key != entry.key
            and other.outcome is None
            and (other.waits or (entry.bound is not None and other.controller == entry.bound and not other.receipt))
            and self.successor(other) is None
            and not other.is_revert
        ]

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
