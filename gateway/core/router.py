"""The router: last-value store, quality, and a mailbox for every sink.

`publish` is synchronous and never blocks: it merges into the store and puts the result into each mailbox,
which keeps the newest state per device. A slow or dead sink delays nobody.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from gateway.core.bridge import Updates
from gateway.core.clock import Clock
from gateway.core.model import (
    BridgeStatus,
    CommandEvent,
    Device,
    DeviceState,
    Quality,
    Range,
    Snapshot,
    Value,
)

STALE_INTERVALS: Final = 3
EVENT_BACKLOG: Final = 10_000
FUTURE_TOLERANCE: Final = timedelta(minutes=2)
"""A measurement from further ahead than this is taken as made when it arrived."""


class Mailbox:
    """What waits for one sink."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dropped_events = 0
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
            self.dropped_events += 1
        self._updates.events.append(event)
        self._mail.set()

    def put_bridge(self, status: BridgeStatus) -> None:
        """Replace what waits for this bridge."""
        self._updates.bridges[status.name] = status
        self._mail.set()

    async def take(self) -> Updates:
        """Wait for mail and take all of it."""
        await self._mail.wait()
        self._mail.clear()
        updates, self._updates = self._updates, Updates()
        return updates


class _Entry(msgspec.Struct):
    """All the store has of one device."""

    announced: dict[str, Device] = {}
    """Source → the device as that source describes it."""
    snapshots: dict[str, Snapshot] = {}
    """Source → its newest."""
    commanded: dict[str, tuple[datetime, Value]] = {}
    """Setpoint → what a confirmed command set it to, and when; until a source reads it back."""
    state: DeviceState | None = None
    fresh_until: datetime | None = None
    """When its quality falls to stale if nothing new comes; None where it is stale."""


class Router:
    """Routes states, command steps and bridge states to sinks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._mailboxes: dict[str, Mailbox] = {}
        self._bridges: dict[str, BridgeStatus] = {}

    # what sources say

    def announce(self, source: str, device: Device) -> None:
        """Make a device known; where several sources know it, their descriptions add up."""
        entry = self._entries.setdefault(device.serial, _Entry())
        if entry.announced.get(source) != device:
            entry.announced[source] = device
            self._refresh(entry)

    def withdraw(self, source: str, serial: str) -> None:
        """Forget what a source knows of a device; the device goes when no source is left."""
        entry = self._entries.get(serial)
        if entry is None or entry.announced.pop(source, None) is None:
            return
        entry.snapshots.pop(source, None)
        if entry.announced:
            self._refresh(entry)
            return
        del self._entries[serial]
        for mailbox in self._mailboxes.values():
            mailbox.put_removed(serial)

    def publish(self, snapshot: Snapshot) -> None:
        """Take in what a source read. Older than what that source said before, it changes nothing."""
        entry = self._entries.get(snapshot.serial)
        if entry is None:
            return
        now = self._clock.now()
        if snapshot.time > now + FUTURE_TOLERANCE:
            snapshot = msgspec.structs.replace(snapshot, time=now)
        known = entry.snapshots.get(snapshot.source)
        if known is not None and snapshot.time < known.time:
            return
        entry.snapshots[snapshot.source] = snapshot
        self._refresh(entry)

    def confirm(self, serial: str, setpoint: str, value: Value) -> None:
        """Take in that a command has set a setpoint, until a source reads it back."""
        entry = self._entries.get(serial)
        if entry is not None:
            entry.commanded[setpoint] = (self._clock.now(), value)
            self._refresh(entry)

    # what everybody may ask

    def read_back(self, serial: str, point: str) -> tuple[datetime, Value] | None:
        """Return the newest value that a source has measured, and when; never what a command has set."""
        entry = self._entries.get(serial)
        found = [] if entry is None else [s for s in entry.snapshots.values() if s.values.get(point) is not None]
        newest = max(found, key=lambda snapshot: snapshot.time, default=None)
        return None if newest is None else (newest.time, newest.values[point])

    def state(self, serial: str) -> DeviceState | None:
        """Return the last known state of a device."""
        entry = self._entries.get(serial)
        return entry.state if entry else None

    def states(self) -> Sequence[DeviceState]:
        """Return the last known state of every device."""
        return [entry.state for entry in self._entries.values() if entry.state]

    def bridges(self) -> Sequence[BridgeStatus]:
        """Return how every bridge does."""
        return list(self._bridges.values())

    # what sinks get

    def attach(self, name: str) -> Mailbox:
        """Return a new mailbox that holds all that is known, and will get all that is new."""
        mailbox = Mailbox(name)
        for state in self.states():
            mailbox.put_state(state)
        for status in self._bridges.values():
            mailbox.put_bridge(status)
        self._mailboxes[name] = mailbox
        return mailbox

    def detach(self, name: str) -> None:
        """Stop serving a mailbox."""
        self._mailboxes.pop(name, None)

    def command_step(self, event: CommandEvent) -> None:
        """Tell every sink of a step of a command."""
        for mailbox in self._mailboxes.values():
            mailbox.put_event(event)

    def bridge_status(self, status: BridgeStatus) -> None:
        """Tell every sink how a bridge does."""
        self._bridges[status.name] = status
        for mailbox in self._mailboxes.values():
            mailbox.put_bridge(status)

    def age(self) -> None:
        """Find the devices whose quality has changed by the mere passing of time, and tell the sinks."""
        now = self._clock.now()
        for entry in self._entries.values():
            if entry.fresh_until is not None and entry.fresh_until < now:
                self._refresh(entry)

    def _refresh(self, entry: _Entry) -> None:
        if not entry.announced:
            return
        entry.state = self._merge(entry)
        for mailbox in self._mailboxes.values():
            mailbox.put_state(entry.state)

    def _merge(self, entry: _Entry) -> DeviceState:
        now = self._clock.now()
        snapshots = sorted(entry.snapshots.values(), key=lambda snapshot: snapshot.time)
        fresh = [snapshot for snapshot in snapshots if _fresh_until(snapshot) >= now]
        entry.fresh_until = max(map(_fresh_until, fresh), default=None)
        # A source that has fallen silent adds nothing to one that has not.
        shown = fresh or snapshots[-1:]
        newest = shown[-1] if shown else None
        return DeviceState(
            device=_combined(list(entry.announced.values())),
            quality=_quality(fresh),
            time=newest.time if newest else None,
            source=newest.source if newest else next(iter(entry.announced)),
            values=_overlaid(shown, entry.commanded),
        )


def _quality(fresh: list[Snapshot]) -> Quality:
    if not fresh:
        return Quality.STALE
    return Quality.OFFLINE if fresh[-1].values.get("status") == "offline" else Quality.GOOD


def _overlaid(shown: list[Snapshot], commanded: dict[str, tuple[datetime, Value]]) -> Mapping[str, Value]:
    """Return the values of these sources, oldest first, and what commands have set since."""
    if len(shown) == 1 and not commanded:
        return shown[0].values
    values: dict[str, Value] = {}
    measured: dict[str, datetime] = {}
    for snapshot in shown:
        values.update(snapshot.values)
        measured.update(dict.fromkeys(snapshot.values.keys() & commanded.keys(), snapshot.time))
    for setpoint, (time, value) in list(commanded.items()):
        if setpoint in measured and measured[setpoint] > time:
            del commanded[setpoint]
        else:
            values[setpoint] = value
    return values


def _fresh_until(snapshot: Snapshot) -> datetime:
    return snapshot.time + timedelta(seconds=STALE_INTERVALS * snapshot.interval)


def _combined(described: list[Device]) -> Device:
    """One device from several descriptions: the first that says something is believed."""
    if len(described) == 1:
        return described[0]
    first = described[0]
    setpoints: dict[str, Range] = {}
    for device in reversed(described):
        setpoints.update(device.setpoints)
    return msgspec.structs.replace(
        first,
        name=next((device.name for device in described if device.name), ""),
        model=next((device.model for device in described if device.model), ""),
        plant=next((device.plant for device in described if device.plant), ""),
        rated_power=next((d.rated_power for d in described if d.rated_power is not None), None),
        setpoints=setpoints,
    )
