"""Waits for a source to read back what a command has set.

Only what was measured after the command left counts. A value that agrees confirms it at once; one that does
not may merely be older than the device's obedience, so it counts only if it was measured after the far side had said
that it is done, and nothing better has come when the time is over.
"""

import asyncio
from datetime import datetime

import msgspec

from gateway.commands.lane import Entry, PointKey
from gateway.commands.state_machine import Trigger
from gateway.core.clock import Clock
from gateway.core.model import Snapshot, Value
from gateway.core.points import NONE, SETPOINTS
from gateway.core.router import Router


class Finding(msgspec.Struct, frozen=True):
    """What came of waiting."""

    happening: Trigger
    detail: str = ""


class Watch(msgspec.Struct):
    """A command that waits for a read-back."""

    entry: Entry
    done_time: datetime
    """When the far side said that it is done, on the wall clock."""
    found: asyncio.Future[Finding]
    other: Value = None
    """The newest that was read back and is not what was asked for."""


class Verifier:
    """Compares what sources measure with what commands asked for."""

    def __init__(self, router: Router, clock: Clock, within: float) -> None:
        self._router = router
        self._clock = clock
        self._within = within
        self._watches: dict[PointKey, Watch] = {}
        self._of: dict[str, list[Watch]] = {}
        """Serial → those of its setpoints; looked at with every snapshot."""
        self._readable: set[PointKey] = set()
        """Setpoints that some source tells of."""

    def leaves(self, entry: Entry) -> None:
        """Take in that a command is about to be handed over."""
        if self._router.read_back(*entry.key) is not None:
            self._readable.add(entry.key)

    def seconds(self, entry: Entry) -> float:
        """Return how long it pays to wait for a read-back: 0 where no source has ever told of this setpoint.

        Nor where it is a setting of an order that is left open: what fills it in, or nothing at all, is read back then.
        Not beyond the command's own dead-man's timer: what it set is over then.
        """
        self.leaves(entry)
        is_open = bool(SETPOINTS[entry.command.setpoint].group) and entry.command.value == NONE
        if entry.handed is None or entry.key not in self._readable or is_open:
            return 0.0
        if entry.command.revert_after is None:
            return self._within
        since = self._clock.monotonic() - entry.handed.monotonic
        return max(0.0, min(self._within, entry.command.revert_after - since))

    def watch(self, entry: Entry) -> Watch:
        """Begin to look for a read-back of a command that the far side has just said is done. To be waited for."""
        watch = Watch(entry, self._clock.now(), asyncio.get_running_loop().create_future())
        self._watches[entry.key] = watch
        self._of.setdefault(entry.command.serial, []).append(watch)
        known = self._router.read_back(*entry.key)
        if known is not None:
            self._compare(watch, *known)
        return watch

    async def wait(self, watch: Watch, seconds: float) -> Finding:
        """Wait for a read-back, for so many seconds at most, or until `settle`."""
        try:
            async with asyncio.timeout(seconds):
                return await watch.found
        except TimeoutError:
            if watch.other is None:
                return Finding(Trigger.DONE, "no source has read it back")
            command = watch.entry.command
            asked, other = in_words(command.setpoint, command.value, watch.other)
            return Finding(Trigger.MISMATCHED, f"asked for {asked}, read back {other}")
        finally:
            self._forget(watch)

    def _forget(self, watch: Watch) -> None:
        serial = watch.entry.command.serial
        if self._watches.get(watch.entry.key) is watch:
            del self._watches[watch.entry.key]
        self._of[serial] = [other for other in self._of[serial] if other is not watch]
        if not self._of[serial]:
            del self._of[serial]

    def settle(self, key: PointKey, finding: Finding) -> None:
        """End the waiting for a setpoint, if any, with this finding."""
        watch = self._watches.get(key)
        if watch is not None and not watch.found.done():
            watch.found.set_result(finding)

    def awaited(self, key: PointKey) -> Value:
        """Return the value that is to be read back of a setpoint; None where none is."""
        watch = self._watches.get(key)
        return None if watch is None else watch.entry.command.value

    def seen(self, snapshot: Snapshot) -> None:
        """Take in what a source has measured."""
        for watch in self._of.get(snapshot.serial, ()):
            value = snapshot.values.get(watch.entry.command.setpoint)
            if value is not None:
                self._compare(watch, snapshot.time, value)

    def _compare(self, watch: Watch, time: datetime, value: Value) -> None:
        entry = watch.entry
        left = entry.left_at or entry.handed
        if left is None or time <= left.wall or watch.found.done():
            return
        if SETPOINTS[entry.command.setpoint].same(value, entry.command.value):
            watch.found.set_result(Finding(Trigger.CONFIRMED, "read back"))
        elif time > watch.done_time:
            watch.other = value


def in_words(setpoint: str, *values: Value) -> list[str]:
    """Return values of a setpoint for a person: `50 %`, `charge`, `true`."""
    unit = SETPOINTS[setpoint].unit
    return [_in_words(value, unit) for value in values]


def _in_words(value: Value, unit: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:g} {unit}".rstrip()
    return str(value)
