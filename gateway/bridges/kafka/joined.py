"""Serves what another gateway publishes: the devices of those partitions that the group gives this member.

`devices`, `snapshots` and `alarms` have as many partitions each, and the same serial number is in the same one of all
three, so they come together. `devices` and `alarms` are compacted and read from their beginning whenever a partition
comes; `snapshots` from the committed offset, and besides for a while before it, so that a device which has been taken
over from another member shows at once what was read last. Of a partition that stays when the group shares out anew
nothing is read again.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from gateway.api.contexts import SourceContext
from gateway.bridges.kafka import checked, schema
from gateway.bridges.kafka.ledger import Ledger
from gateway.bridges.kafka.schema import AlarmsMessage, BadMessageError, DeviceMessage, SnapshotMessage
from gateway.bridges.kafka.settings import JoinSettings
from gateway.bridges.kafka.skipped import Skipped
from gateway.commands.requests import MAX_AHEAD
from gateway.core.errors import GatewayError
from gateway.core.model import Device, Snapshot, has_value
from gateway.core.text import MAX_TEXT, plain
from gateway.kafka import Assigned, CaughtUp, Consumer, Received, Revoked, Start
from gateway.sems.composite import Composite

MAX_HELD_MESSAGES: Final = 50_000
"""Messages that wait until it is known what their devices are; the oldest is taken as it is then."""
TURN: Final = 100
"""Messages, or devices, that are taken in a turn of the loop: others are served in between."""
SHOWN_ODD: Final = 10
"""Points that a line in the log names."""
MAX_EARLY_DEVICES: Final = 100
"""Devices of which nothing is known yet, and snapshots of each."""


class _Partition(msgspec.Struct):
    """What is known of one number of partition, in all topics."""

    resume: int
    """Offset in `snapshots` that the group has got to: what is before was stored by whoever had it then."""
    described: bool = False
    """Whether all of `devices` has been read."""
    is_current: bool = False
    """Whether `snapshots` has been read to its end."""
    held: deque[Received] = msgspec.field(default_factory=deque)
    early: dict[str, deque[SnapshotMessage]] = msgspec.field(default_factory=dict)
    """Device of which nothing is known yet → what it has measured."""
    early_alarms: dict[str, AlarmsMessage] = msgspec.field(default_factory=dict)
    """Device of which nothing is known yet → its alarms."""
    latest: dict[tuple[str, str], SnapshotMessage] = msgspec.field(default_factory=dict)
    """Device and its source → the newest from before `resume`, until that is reached."""


class Joined:
    """The source's side of a bridge that has joined another gateway."""

    def __init__(self, settings: JoinSettings, context: SourceContext, skipped: Skipped) -> None:
        self._context = context
        self._skipped = skipped
        self._settings = settings
        names = settings.topics
        self._devices_topic = names.name("devices")
        self._snapshots_topic = names.name("snapshots")
        self._alarms_topic = names.name("alarms")
        self._partitions: dict[int, _Partition] = {}
        self._homes: dict[str, set[int]] = {}
        """Serial → the partitions that describe it: more than one where a topic was given more partitions."""
        self._composites: dict[str, Composite] = {}
        self.devices: dict[str, Device] = {}
        """What this member serves."""
        self._first = 0
        """Lowest number by which the router knows what is not stored yet."""
        self._handled = 0

    @property
    def topics(self) -> list[str]:
        """What is read in the group."""
        return [self._devices_topic, self._snapshots_topic, self._alarms_topic]

    @property
    def starts(self) -> dict[str, Start]:
        """Where each topic is begun."""
        rebuild = timedelta(seconds=self._settings.rebuild)
        clock = self._context.clock
        return {
            self._devices_topic: Start(beginning=True),
            self._alarms_topic: Start(beginning=True),
            self._snapshots_topic: Start(since=lambda: clock.now() - rebuild),
        }

    async def run(self, consumer: Consumer, ledger: Ledger) -> None:
        """Read until cancelled. Raises GatewayError where the topics can't be used."""
        async for change in consumer.changes():
            if isinstance(change, list):
                await self._take_all(change, ledger)
            elif isinstance(change, CaughtUp):
                await self._take_all(self._caught_up(change), ledger)
                await self._show_current(change.partition)
            elif isinstance(change, Assigned):
                await self._assigned(change)
            elif isinstance(change, Revoked):
                # What is not given back is withdrawn then, so that nothing flaps while the group counts its members.
                self._context.log.debug("partitions are being shared out anew", count=len(change.places))

    async def _take_all(self, messages: Sequence[Received], ledger: Ledger) -> None:
        for some in (messages[i : i + TURN] for i in range(0, len(messages), TURN)):
            done: list[Received] = []
            for message in some:
                await self._breathe()
                done += await self._take(message)
            first, self._first = self._first, 0
            ledger.put(first, done)
            await ledger.room()

    async def _breathe(self) -> None:
        self._handled += 1
        if self._handled % TURN == 0:
            await asyncio.sleep(0)

    def leave(self) -> None:
        """Withdraw all devices."""
        for serial in list(self.devices):
            self._withdraw(serial)
        self._partitions.clear()

    # partitions

    async def _assigned(self, change: Assigned) -> None:
        numbers = {topic: {number for name, number in change.committed if name == topic} for topic in self.topics}
        if len({frozenset(found) for found in numbers.values()}) > 1:
            raise GatewayError(
                f"the topics {', '.join(self.topics)} must have the same number of partitions, for a device and its "
                "data must come to the same member"
            )
        before, now = set(self._partitions), numbers[self._snapshots_topic]
        self._partitions = {number: self._partition(number, change) for number in sorted(now)}
        self._homes = {serial: homes & now for serial, homes in self._homes.items()}
        for serial in [serial for serial, homes in self._homes.items() if not homes]:
            await self._breathe()
            self._withdraw(serial)
        self._context.log.info("partitions assigned", now=len(now), new=len(now - before), gone=len(before - now))

    def _partition(self, number: int, change: Assigned) -> _Partition:
        """Return what is known of a partition, without what is read again now."""
        resume = change.committed[self._snapshots_topic, number]
        known = self._partitions.get(number)
        if known is None:
            return _Partition(resume)
        known.held = deque(message for message in known.held if (message.topic, number) in change.kept)
        known.described = known.described and (self._devices_topic, number) in change.kept
        if (self._snapshots_topic, number) not in change.kept:
            known.resume, known.is_current = resume, False
            known.early.clear()
            known.latest.clear()
        return known

    def _withdraw(self, serial: str) -> None:
        self._homes.pop(serial, None)
        self._composites.pop(serial, None)
        if self.devices.pop(serial, None) is not None:
            self._context.withdraw(serial)

    def _caught_up(self, change: CaughtUp) -> list[Received]:
        """Return the messages that have waited for this."""
        partition = self._partitions.get(change.partition)
        if partition is None:
            return []
        if change.topic == self._snapshots_topic:
            partition.is_current = True
        if change.topic == self._devices_topic:
            partition.described = True
            held, partition.held = partition.held, deque()
            return list(held)
        return []

    async def _show_current(self, number: int) -> None:
        """Show what was read before the group's place, where nothing follows it."""
        partition = self._partitions.get(number)
        if partition is not None and partition.described and partition.is_current:
            await self._show_latest(partition)

    # messages

    async def _take(self, message: Received) -> list[Received]:
        """Take a message in; returns those that are done with, once all that was published is stored."""
        partition = self._partitions.get(message.partition)
        if partition is None:
            return []
        if message.topic == self._devices_topic or partition.described:
            return await self._use(partition, message)
        partition.held.append(message)
        return await self._use(partition, partition.held.popleft()) if len(partition.held) > MAX_HELD_MESSAGES else []

    async def _use(self, partition: _Partition, message: Received) -> list[Received]:
        try:
            if message.oversize:
                text = f"it has {message.oversize} bytes; max_bytes says how many are taken"
                raise BadMessageError("too large", text)
            if message.topic == self._devices_topic:
                self._device(partition, message)
            elif message.topic == self._alarms_topic:
                self._alarms(partition, message)
            else:
                return await self._snapshot(partition, message)
        except BadMessageError as error:
            self._skipped.note(message, error.kind, str(error))
        except Exception as error:
            self._context.log.debug("traceback", exc_info=error)
            self._skipped.note(message, "not understood", f"it can't be used ({type(error).__name__})")
        # The compacted topics are read from their beginning each time; what is bad elsewhere does not come again.
        is_new = message.topic == self._snapshots_topic and message.offset >= partition.resume
        return [message] if is_new else []

    def _device(self, partition: _Partition, message: Received) -> None:
        if message.value is None:
            homes = self._homes.get(message.key, set())
            homes.discard(message.partition)
            if not homes:
                self._withdraw(message.key)
            return
        device = checked.device(schema.decode(DeviceMessage, message.value, message.key).device)
        known = self.devices.get(device.serial)
        self.devices[device.serial] = device
        self._homes.setdefault(device.serial, set()).add(message.partition)
        if known != device:
            self._context.announce(device)
        for early in partition.early.pop(device.serial, ()):
            self._publish(early)
        if alarms := partition.early_alarms.pop(device.serial, None):
            self._tell(alarms)

    def _alarms(self, partition: _Partition, message: Received) -> None:
        if message.value is None:
            partition.early_alarms.pop(message.key, None)
            return
        said = schema.decode(AlarmsMessage, message.value, message.key)
        if said.serial in self.devices:
            self._tell(said)
        else:
            partition.early_alarms[said.serial] = said
            while len(partition.early_alarms) > MAX_EARLY_DEVICES:
                del partition.early_alarms[next(iter(partition.early_alarms))]

    def _tell(self, said: AlarmsMessage) -> None:
        self._context.alarms(said.serial, [*said.active, *said.cleared])

    async def _snapshot(self, partition: _Partition, message: Received) -> list[Received]:
        if message.value is None:
            return [message] if message.offset >= partition.resume else []
        said = self._checked(message, schema.decode(SnapshotMessage, message.value, message.key))
        if not has_value(said.values):
            return (
                [message] if message.offset >= partition.resume else []
            )  # from a gateway that let such pass: it is no measurement
        if message.offset < partition.resume:
            partition.latest[said.serial, _source(said)] = said
            return []
        await self._show_latest(partition)
        if said.serial in self.devices:
            self._publish(said)
        else:
            # What it is comes in another topic, so perhaps a moment later.
            early = partition.early.setdefault(said.serial, deque(maxlen=MAX_EARLY_DEVICES))
            early.append(said)
            while len(partition.early) > MAX_EARLY_DEVICES:
                del partition.early[next(iter(partition.early))]
        return [message]

    def _checked(self, message: Received, said: SnapshotMessage) -> SnapshotMessage:
        """Return a snapshot without what its points can't be, and from ahead of our clock as of now."""
        values, odd = checked.values(said.values)
        if odd:
            names = plain(", ".join(odd[:SHOWN_ODD]), MAX_TEXT)
            self._skipped.note_part(message, "values", f"values that a point can't have, or of no point: {names}")
        now = self._context.clock.now()
        return msgspec.structs.replace(said, values=values, time=said.time if said.time <= now + MAX_AHEAD else now)

    async def _show_latest(self, partition: _Partition) -> None:
        """Show what was read last before the group's place: the histories of who read it then have it already."""
        latest, partition.latest = partition.latest, {}
        for said in sorted(latest.values(), key=lambda said: said.time):
            await self._breathe()
            if said.serial in self.devices:
                self._publish(said)

    def _publish(self, said: SnapshotMessage) -> None:
        """Hand a snapshot to the router: as news, or to histories alone where something newer is known."""
        context = self._context
        composite = self._composites.setdefault(said.serial, Composite(said.serial, context.name))
        is_news = composite.put(_source(said), said.values, said.time, said.interval)
        state = composite.snapshot(context.clock.now()) if is_news else None
        own = Snapshot(
            serial=said.serial, time=said.time, source=context.name, interval=said.interval, values=said.values
        )
        if state is None or (state.time, state.values) != (own.time, own.values):
            # Among what other sources said, its own time and values would not be found again.
            self._note(context.record(own))
        if state is not None:
            self._note(context.publish(state))

    def _note(self, number: int) -> None:
        self._first = self._first or number


def _source(said: SnapshotMessage) -> str:
    return f"{said.gateway}/{said.source}"
