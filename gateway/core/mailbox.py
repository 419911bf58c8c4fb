"""Mailboxes: what waits for one sink. Filled by the router, emptied by whoever feeds the sink."""

import asyncio
from collections import Counter, deque
from typing import Final

import msgspec

from gateway.core.errors import GatewayError
from gateway.core.metrics import Metrics, counter
from gateway.core.model import Alarm, BridgeStatus, Command, CommandEvent, DeviceState, Snapshot

EVENT_BACKLOG: Final = 10_000
"""Steps of commands, and as many alarms."""


class Updates(msgspec.Struct):
    """What has changed for a sink since it last took its mail."""

    states: dict[str, DeviceState] = msgspec.field(default_factory=dict)
    """Serial → newest state; older ones were conflated away."""
    removed: set[str] = msgspec.field(default_factory=set)
    events: list[CommandEvent] = msgspec.field(default_factory=list)
    """Every step of every command, in order."""
    done: list[Command] = msgspec.field(default_factory=list)
    """Commands that the far side says are done, and whose read-back is waited for. No step: the end follows."""
    bridges: dict[str, BridgeStatus] = msgspec.field(default_factory=dict)
    alarms: list[Alarm] = msgspec.field(default_factory=list)
    """Every alarm that was raised or cleared, in order."""
    halt: bool = False
    """Control was halted or resumed; `Context.halted` has how it stands."""
    snapshots: list[Snapshot] = msgspec.field(default_factory=list)
    """Every snapshot, in order; only for a sink that keeps history."""


class Mailbox:
    """What waits for one sink: the newest state of each device, and a bounded backlog of events."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped: Counter[str] = Counter()
        """What was given up because more waited than may: of steps, alarms and snapshots."""
        self._updates = Updates()
        self._mail = asyncio.Event()

    def put_state(self, state: DeviceState) -> None:
        """Replace what waits for this device."""
        self._updates.removed.discard(state.device.serial)
        self._updates.states[state.device.serial] = state
        self._mail.set()

    def put_removed(self, serial: str) -> None:
        """Say that a device is gone."""
        self._updates.states.pop(serial, None)
        self._updates.removed.add(serial)
        self._mail.set()

    def put_event(self, event: CommandEvent) -> None:
        """Queue a step of a command. Past the backlog the oldest is dropped and counted."""
        if len(self._updates.events) >= EVENT_BACKLOG:
            del self._updates.events[0]
            self.dropped["events"] += 1
        self._updates.events.append(event)
        self._mail.set()

    def put_done(self, command: Command) -> None:
        """Queue that a command is done, says the far side. Past the backlog it is not told; its end will be."""
        if len(self._updates.done) < EVENT_BACKLOG:
            self._updates.done.append(command)
            self._mail.set()

    def put_alarm(self, alarm: Alarm) -> None:
        """Queue an alarm that was raised or cleared. Past the backlog the oldest is dropped and counted."""
        if len(self._updates.alarms) >= EVENT_BACKLOG:
            del self._updates.alarms[0]
            self.dropped["alarms"] += 1
        self._updates.alarms.append(alarm)
        self._mail.set()

    def put_bridge(self, status: BridgeStatus) -> None:
        """Replace what waits for this bridge."""
        self._updates.bridges[status.name] = status
        self._mail.set()

    def put_halt(self) -> None:
        """Say that control was halted or resumed."""
        self._updates.halt = True
        self._mail.set()

    async def take(self) -> Updates:
        """Wait for mail and take all of it."""
        await self._mail.wait()
        self._mail.clear()
        updates, self._updates = self._updates, Updates()
        return updates

    def done(self) -> None:
        """Say that what was taken last has been delivered."""


class _Waiter(msgspec.Struct):
    """Somebody who wants the snapshots of these numbers stored."""

    first: int
    last: int
    done: asyncio.Future[None]


class HistoryMailbox(Mailbox):
    """One that also keeps every snapshot, and knows which are stored.

    What was taken and not `done` is taken again: the sink may have failed, or been stopped, in between.
    """

    def __init__(self, name: str, backlog: int) -> None:
        super().__init__(name)
        self.backlog = backlog
        self._waiting: deque[tuple[int, Snapshot]] = deque()
        self._under_way: Updates | None = None
        self._under_way_to = 0
        """Number of the last snapshot that is being delivered, or was."""
        self._last_dropped = 0
        self._waiters: list[_Waiter] = []

    def put_snapshot(self, snapshot: Snapshot, number: int) -> None:
        """Queue a snapshot. Past the backlog the oldest is dropped and counted, and those who wait for it are told."""
        self._waiting.append((number, snapshot))
        if len(self._waiting) > self.backlog:
            self._last_dropped, _ = self._waiting.popleft()
            self.dropped["snapshots"] += 1
            for waiter in self._waiters:
                if waiter.first <= self._last_dropped <= waiter.last and not waiter.done.done():
                    waiter.done.set_exception(self._lost())
        self._mail.set()

    async def take(self) -> Updates:
        """Wait for mail and take all of it; or again what was taken before and not delivered."""
        if self._under_way is None:
            updates = await super().take()
            updates.snapshots = [snapshot for _, snapshot in self._waiting]
            if self._waiting:
                self._under_way_to = self._waiting[-1][0]
            self._waiting.clear()
            self._under_way = updates
        return self._under_way

    def done(self) -> None:
        """Say that what was taken last is stored."""
        self._under_way = None
        for waiter in self._waiters:
            if waiter.last <= self._under_way_to and not waiter.done.done():
                waiter.done.set_result(None)

    async def stored(self, first: int, last: int) -> None:
        """Wait until the snapshots up to number `last` are stored.

        Raises GatewayError where one from `first` on was dropped, or the sink goes.
        """
        if self._last_dropped >= first:
            raise self._lost()
        if self._is_stored(last):
            return
        waiter = _Waiter(first, last, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter.done
        finally:
            self._waiters.remove(waiter)

    def close(self) -> None:
        """Tell those who wait that nothing will be stored any more."""
        for waiter in self._waiters:
            if not waiter.done.done():
                waiter.done.set_exception(
                    GatewayError(f"{self.name} was stopped before it had stored what it was given; send it again")
                )

    def _is_stored(self, last: int) -> bool:
        """Return whether nothing up to this number waits, or is under way."""
        if self._waiting and self._waiting[0][0] <= last:
            return False
        return self._under_way is None or not self._under_way.snapshots

    def _lost(self) -> GatewayError:
        return GatewayError(
            f"{self.name} has not kept up, and the oldest of {self.backlog} snapshots that waited for it was dropped; "
            "send it again, and see why it is slow or down"
        )


METRICS: Final = Metrics[Mailbox](
    counter(
        "sems_gateway_dropped",
        "What a bridge did not take in time and is lost to it, by what it was",
        lambda mailbox: mailbox.dropped,
        "what",
    ),
)
