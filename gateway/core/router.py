"""The router: last-value store, quality, and a mailbox for every sink.

`publish` is synchronous and never blocks: it merges into the store and puts the result into each mailbox,
which keeps the newest state per device. A slow or dead sink delays nobody.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from gateway.core.alarms import Alarms
from gateway.core.clock import Clock
from gateway.core.good_once import GoodOnce
from gateway.core.mailbox import HistoryMailbox, Mailbox
from gateway.core.model import (
    Alarm,
    BridgeStatus,
    Command,
    CommandEvent,
    Device,
    DeviceKind,
    DeviceState,
    Quality,
    Range,
    Snapshot,
    Value,
    has_value,
)
from gateway.core.totals import Totals

STALE_INTERVALS: Final = 3
FUTURE_TOLERANCE: Final = timedelta(minutes=2)
"""A measurement from further ahead than this is taken as made when it arrived."""


class _Entry(msgspec.Struct, gc=False):
    """All the store has of one device."""

    announced: dict[str, Device] = {}
    """Source → the device as that source describes it."""
    snapshots: dict[str, Snapshot] = {}
    """Source → its newest."""
    named: set[str] = set()
    """Sources whose configuration names it: a person knows that it is there."""
    lost: set[str] = set()
    """Sources that have withdrawn it, while something that was promised keeps it."""
    alarms: Mapping[str, Value] = {}
    """What its alarms are as points; empty while nobody has told of any."""
    state: DeviceState | None = None
    fresh_until: datetime | None = None
    """When its quality falls to stale if nothing new comes; None where it is stale."""


class Router:
    """Routes states, command steps and bridge states to sinks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._mailboxes: dict[str, Mailbox] = {}
        self._histories: tuple[HistoryMailbox, ...] = ()
        """Those of the mailboxes that keep every snapshot."""
        self._published = 0
        self._bridges: dict[str, BridgeStatus] = {}
        self.commanded: Callable[[str], Mapping[str, tuple[datetime, Value]]] = lambda _: {}
        """Serial → setpoint → when a command set it, and to what. Shown until a source reads it back."""
        self.promised: Callable[[str], bool] = lambda _: False
        """Whether something is still to be done about a device: it stays known until `release` then."""
        self.measured: Callable[[Snapshot], None] = lambda _: None
        """Told of what is the newest from its source, once it is stored."""
        self.alarm_book: Final = Alarms(clock, self._tell_alarm)
        """Which alarms are active. Its owner restores and keeps it."""
        self.good_once: Final = GoodOnce()
        """Which devices are shown: those that have given a value, in this run or before. Its owner keeps it too."""
        self.totals: Final = Totals()
        """Which totals are believed. Its owner keeps it as well."""

    # what sources say

    def announce(self, source: str, device: Device, *, named: bool = False) -> None:
        """Make a device known; where several sources know it, their descriptions add up.

        One that is `named` in the configuration is shown at once, others once they have given a value.
        """
        entry = self._entries.setdefault(device.serial, _Entry())
        entry.lost.discard(source)
        if named:
            entry.named.add(source)
        if entry.announced.get(source) != device:
            entry.announced[source] = device
            entry.alarms = self.alarm_book.points(device.serial)
            self._refresh(entry)

    def withdraw(self, source: str, serial: str) -> None:
        """Forget what a source knows of a device; the device goes when no source is left.

        A device about which something is promised stays until that is done: a promise outlives discovery.
        """
        entry = self._entries.get(serial)
        if entry is None or source not in entry.announced:
            return
        if len(entry.announced) == 1 and self.promised(serial):
            entry.lost.add(source)
            return
        was_shown = self._is_shown(serial, entry)
        del entry.announced[source]
        entry.named.discard(source)
        entry.snapshots.pop(source, None)
        if entry.announced:
            if self.alarm_book.withdraw(source, serial):
                entry.alarms = self.alarm_book.points(serial)
            self._refresh(entry)
        else:
            self.alarm_book.forget(serial)
            del self._entries[serial]
        if was_shown and not (entry.announced and self._is_shown(serial, entry)):
            for mailbox in self._mailboxes.values():
                mailbox.put_removed(serial)

    def release(self, serial: str) -> None:
        """Let go a device that was kept for what was promised, where nothing is any more."""
        entry = self._entries.get(serial)
        if entry is not None and entry.lost and not self.promised(serial):
            for source in list(entry.lost):
                self.withdraw(source, serial)

    def publish(self, snapshot: Snapshot) -> int:
        """Take in what a source read. Older than what that source said before, it changes nothing but histories.

        Without a single value it is none, and changes nothing. Returns the number that `stored` knows it by.
        """
        entry = self._entries.get(snapshot.serial)
        if entry is None or not has_value(snapshot.values):
            return self._published
        now = self._clock.now()
        self.good_once.add(snapshot.serial, now)
        if snapshot.time > now + FUTURE_TOLERANCE:
            snapshot = msgspec.structs.replace(snapshot, time=now)
        known = entry.snapshots.get(snapshot.source)
        is_newest = known is None or snapshot.time >= known.time
        if is_newest and entry.state is not None:
            values = self.totals.judge(entry.state.device, snapshot.values, snapshot.time, now)
            if values is not snapshot.values:
                snapshot = msgspec.structs.replace(snapshot, values=values)
        self._published += 1
        for history in self._histories:
            history.put_snapshot(snapshot, self._published)
        if is_newest:
            entry.snapshots[snapshot.source] = snapshot
            self._refresh(entry)
            self.measured(snapshot)
        return self._published

    def record(self, snapshot: Snapshot) -> int:
        """Take in what was measured before: for histories alone. Returns the number that `stored` knows it by."""
        if snapshot.serial in self._entries and has_value(snapshot.values):
            self._published += 1
            for history in self._histories:
                history.put_snapshot(snapshot, self._published)
        return self._published

    @property
    def keeps_history(self) -> bool:
        """Whether a sink does."""
        return bool(self._histories)

    @property
    def published(self) -> int:
        """How many snapshots there have been."""
        return self._published

    async def stored(self, first: int = 1) -> None:
        """Wait until every sink that keeps history has stored what was published so far.

        Raises GatewayError where one from the number `first` on was dropped instead, before or while it waits.
        """
        last = self._published
        for history in self._histories:
            await history.stored(first, last)

    def alarms(self, source: str, serial: str, active: Sequence[Alarm]) -> None:
        """Take in which alarms of a device a source says are active."""
        entry = self._entries.get(serial)
        if entry is not None and self.alarm_book.take(source, serial, active):
            entry.alarms = self.alarm_book.points(serial)
            self._refresh(entry)

    def heard(self, serial: str, *, but: str) -> datetime | None:
        """Return until when data of a device are fresh that a source other than `but` brings."""
        entry = self._entries.get(serial)
        now = self._clock.now()
        others = [] if entry is None else [s for source, s in entry.snapshots.items() if source != but]
        return max((until for until in map(_fresh_until, others) if until >= now), default=None)

    def refresh(self, serial: str) -> None:
        """Put a device's state together anew: what `commanded` has of it has changed."""
        entry = self._entries.get(serial)
        if entry is not None:
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

    def count(self) -> int:
        """Return how many devices are known, shown or not."""
        return len(self._entries)

    def states(self) -> Sequence[DeviceState]:
        """Return the last known state of every device that was good once, or that the configuration names."""
        good = self.good_once.serials
        return [e.state for serial, e in self._entries.items() if e.state and (serial in good or e.named)]

    def announced(self) -> Sequence[DeviceState]:
        """Return the state of every device, also of those that are not shown because they never gave a value."""
        return [entry.state for entry in self._entries.values() if entry.state]

    def bridges(self) -> Sequence[BridgeStatus]:
        """Return how every bridge does."""
        return list(self._bridges.values())

    # what sinks get

    def attach(self, name: str, backlog: int | None = None) -> Mailbox:
        """Return a mailbox that holds all that is known, and will get all that is new.

        With a `backlog` it keeps that many snapshots. One that is attached already is the same, filled up again.
        """
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            mailbox = Mailbox(name) if backlog is None else HistoryMailbox(name, backlog)
            self._mailboxes[name] = mailbox
            self._histories = tuple(box for box in self._mailboxes.values() if isinstance(box, HistoryMailbox))
        for state in self.states():
            mailbox.put_state(state)
        for status in self._bridges.values():
            mailbox.put_bridge(status)
        return mailbox

    def detach(self, name: str) -> None:
        """Stop serving a mailbox."""
        mailbox = self._mailboxes.pop(name, None)
        if isinstance(mailbox, HistoryMailbox):
            mailbox.close()
            self._histories = tuple(box for box in self._histories if box is not mailbox)

    def command_step(self, event: CommandEvent) -> None:
        """Tell every sink of a step of a command."""
        for mailbox in self._mailboxes.values():
            mailbox.put_event(event)

    def command_done(self, command: Command) -> None:
        """Tell every sink that the far side says a command is done, while a read-back is waited for."""
        for mailbox in self._mailboxes.values():
            mailbox.put_done(command)

    def bridge_status(self, status: BridgeStatus) -> None:
        """Tell every sink how a bridge does."""
        self._bridges[status.name] = status
        for mailbox in self._mailboxes.values():
            mailbox.put_bridge(status)

    def announced_by(self, source: str) -> list[str]:
        """Return the serial numbers that a source has announced."""
        return [serial for serial, entry in self._entries.items() if source in entry.announced]

    def forget_bridge(self, name: str) -> None:
        """Take a bridge out that there is no more, with all that it knows of devices."""
        for serial in self.announced_by(name):
            self.withdraw(name, serial)
        status = self._bridges.pop(name, None)
        if status is not None:
            for mailbox in self._mailboxes.values():
                mailbox.put_bridge(status)  # that something has changed; how all do, they ask then

    def halt_changed(self) -> None:
        """Tell every sink that control was halted or resumed."""
        for mailbox in self._mailboxes.values():
            mailbox.put_halt()

    def _tell_alarm(self, alarm: Alarm) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.put_alarm(alarm)

    def aged(self) -> list[str]:
        """Return the serials of devices whose quality has changed by the mere passing of time; `age` tells of it."""
        now = self._clock.now()
        return [
            serial
            for serial, entry in self._entries.items()
            if entry.fresh_until is not None and entry.fresh_until < now
        ]

    def age(self, serials: Iterable[str] | None = None) -> None:
        """Tell the sinks of devices whose quality has changed by the mere passing of time: of these, or of all."""
        now = self._clock.now()
        for serial in self.aged() if serials is None else serials:
            entry = self._entries.get(serial)
            if entry is not None and entry.fresh_until is not None and entry.fresh_until < now:
                self._refresh(entry)

    def _refresh(self, entry: _Entry) -> None:
        if not entry.announced:
            return
        entry.state = self._merge(entry)
        if self._is_shown(entry.state.device.serial, entry):
            for mailbox in self._mailboxes.values():
                mailbox.put_state(entry.state)

    def _is_shown(self, serial: str, entry: _Entry) -> bool:
        return bool(entry.named) or serial in self.good_once

    def _merge(self, entry: _Entry) -> DeviceState:
        now = self._clock.now()
        snapshots = list(entry.snapshots.values())
        if len(snapshots) > 1:
            snapshots.sort(key=lambda snapshot: snapshot.time)
        fresh = [snapshot for snapshot in snapshots if _fresh_until(snapshot) >= now]
        entry.fresh_until = max(map(_fresh_until, fresh), default=None)
        # A source that has fallen silent adds nothing to one that has not.
        shown = [s for s in snapshots if _shown_until(s) >= now] if fresh else snapshots[-1:]
        newest = shown[-1] if shown else None
        return DeviceState(
            device=_combined(list(entry.announced.values())),
            quality=_quality(fresh),
            time=newest.time if newest else None,
            source=newest.source if newest else next(iter(entry.announced)),
            values=_overlaid(shown, self.commanded(next(iter(entry.announced.values())).serial), entry.alarms),
        )


def _quality(fresh: list[Snapshot]) -> Quality:
    if not fresh:
        return Quality.STALE
    return Quality.OFFLINE if fresh[-1].values.get("status") == "offline" else Quality.GOOD


def _overlaid(
    shown: list[Snapshot], commanded: Mapping[str, tuple[datetime, Value]], alarms: Mapping[str, Value]
) -> Mapping[str, Value]:
    """Return the values of these sources, oldest first, what commands have set since, and the alarms' points."""
    if len(shown) == 1 and not commanded:
        return {**shown[0].values, **alarms} if alarms else shown[0].values
    values: dict[str, Value] = {}
    measured: dict[str, datetime] = {}
    for snapshot in shown:
        values.update(snapshot.values)
        measured.update(dict.fromkeys(snapshot.values.keys() & commanded.keys(), snapshot.time))
    for setpoint, (time, value) in commanded.items():
        if setpoint not in measured or measured[setpoint] <= time:
            values[setpoint] = value
    values.update(alarms)
    return values


def _fresh_until(snapshot: Snapshot) -> datetime:
    return snapshot.time + timedelta(seconds=STALE_INTERVALS * snapshot.interval)


def _shown_until(snapshot: Snapshot) -> datetime:
    return max(_fresh_until(snapshot), snapshot.time + timedelta(seconds=snapshot.shown))


def _combined(described: list[Device]) -> Device:
    """One device from several descriptions: the first that says something is believed.

    Of kinds, an inverter says least: it is what a source calls a device of which it knows no more.
    """
    if len(described) == 1:
        return described[0]
    first = described[0]
    setpoints: dict[str, Range] = {}
    for device in reversed(described):
        setpoints.update(device.setpoints)
    return msgspec.structs.replace(
        first,
        kind=next((device.kind for device in described if device.kind is not DeviceKind.INVERTER), first.kind),
        name=next((device.name for device in described if device.name), ""),
        model=next((device.model for device in described if device.model), ""),
        plant=next((device.plant for device in described if device.plant), ""),
        time_zone=next((device.time_zone for device in described if device.time_zone), ""),
        rated_power=next((d.rated_power for d in described if d.rated_power is not None), None),
        setpoints=setpoints,
    )
