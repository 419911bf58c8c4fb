"""Writes to topics of one's own: each message at least once, and those of one device in order."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from gateway.api.contexts import SinkContext
from gateway.bridges.kafka import schema
from gateway.bridges.kafka.settings import PublishSettings
from gateway.bridges.kafka.skipped import Skipped
from gateway.core.errors import NotSentError, RefusedError
from gateway.core.kept_file import KeptFile
from gateway.core.mailbox import Updates
from gateway.core.model import Alarm, Device
from gateway.kafka import Delivered, NewTopic, Producer
from gateway.kafka.producer import PARTITION_OF_KEY

UNDER_WAY: Final = 5_000
"""Messages that wait for a confirmation at a time."""
TURN: Final = 100
"""Messages that are put together, or handed over, in a turn of the loop: others are served in between."""
AGAIN: Final = 1.0
"""Seconds before what was not sent is sent again."""
HOUR_MS: Final = 3_600_000
DELETED: Final = ("snapshots", "events", "commands")
COMPACTED: Final = ("devices", "alarms")


class _Outgoing(msgspec.Struct, frozen=True):
    topic: str
    key: str
    value: bytes | None
    partition: int = PARTITION_OF_KEY


class Publisher:
    """The sink's side of the bridge."""

    def __init__(self, settings: PublishSettings, context: SinkContext, skipped: Skipped) -> None:
        self._settings = settings
        self._context = context
        self._skipped = skipped
        self._known: dict[str, Device] = {}
        """Serial → what the topic says of it."""
        self._file = KeptFile(
            context.data_dir / f"{context.name}-partitions.json",
            list[int],
            context.log,
            unreadable="the number of partitions can't be read",
            unwritable="the number of partitions can't be kept",
        )
        self._partitions = 0
        """Of the topic `devices`, when it was last written to; 0 where that is not known."""

    @property
    def topics(self) -> list[str]:
        """What is written to."""
        return [self._settings.topics.name(kind) for kind in ("devices", "snapshots", "alarms", "events")]

    def wanted(self) -> list[NewTopic]:
        """Return the topics that should be there, where they may be created."""
        create, names = self._settings.create, self._settings.topics
        if create is None:
            return []
        kept = {"retention.ms": str(int(create.retention * HOUR_MS))}
        # The latest of each device stays for ever; what is older goes soon, so that it is quickly read from the start.
        compacted = {"cleanup.policy": "compact", "segment.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.1"}
        stamped = {"message.timestamp.type": "LogAppendTime"}  # the broker's clock says how long a command has waited
        return [
            NewTopic(names.name(kind), create.partitions, create.replication, config)
            for kind, config in (
                ("devices", compacted),
                ("snapshots", kept),
                ("alarms", compacted),
                ("events", kept),
                ("commands", {"retention.ms": str(HOUR_MS), **stamped}),
            )
        ]

    def anew(self) -> None:
        """Say again what devices are: the topic may have been emptied."""
        self._known.clear()
        self._partitions = sum((self._file.read() or [])[:1])

    async def deliver(self, updates: Updates, producer: Producer) -> None:
        """Write it all, and return when the cluster has it."""
        devices = self._settings.topics.name("devices")
        # Not before it is known how the topic is divided: nothing else might be delivered before a stop.
        await producer.ready(devices)
        moved = await self._moved(producer.partitions(devices))
        waiting: list[_Outgoing] = list(self._taken_back(updates, moved)) if moved else []
        for message in self._messages(updates):
            waiting.append(message)
            if len(waiting) % TURN == 0:
                await asyncio.sleep(0)
            if len(waiting) >= UNDER_WAY:
                await self._send(waiting, producer)
                waiting = []
        await self._send(waiting, producer)

    async def _moved(self, now: int) -> int:
        """Return how many partitions there were, where there are more now: devices have gone to others then."""
        before = self._partitions
        if not now or now == before:
            return 0
        self._partitions = now
        if before:
            self._context.log.warning(
                "the topics are divided otherwise: devices are described anew, and taken back where they were",
                before=before,
                now=now,
            )
            self._known.clear()
        await self._file.write(msgspec.json.encode([now]))
        return before

    def _taken_back(self, updates: Updates, before: int) -> Iterator[_Outgoing]:
        """Yield what makes members forget a device where it was: they would serve it beside its new owner, frozen."""
        names = self._settings.topics
        for serial in dict.fromkeys((*updates.states, *(state.device.serial for state in self._context.states()))):
            for partition in range(before):
                for kind in COMPACTED:
                    yield _Outgoing(names.name(kind), serial, None, partition)
        active = self._active()
        for state in self._context.states():
            if (serial := state.device.serial) not in updates.states:
                yield self._describe(state.device)
                yield self._alarms(names.name("alarms"), serial, active.get(serial, []), [])

    def _describe(self, device: Device) -> _Outgoing:
        message = schema.DeviceMessage(gateway=self._context.gateway_id, device=device)
        self._known[device.serial] = device
        return _Outgoing(self._settings.topics.name("devices"), device.serial, schema.encode(message))

    def _messages(self, updates: Updates) -> Iterator[_Outgoing]:
        gateway, names = self._context.gateway_id, self._settings.topics
        devices, snapshots, alarms, events = (names.name(kind) for kind in ("devices", "snapshots", "alarms", "events"))
        cleared: dict[str, list[Alarm]] = {}
        for alarm in updates.alarms:
            cleared.setdefault(alarm.serial, []).extend([alarm] if alarm.cleared else [])
        active = self._active()
        for serial, state in updates.states.items():
            if self._known.get(serial) != state.device:
                yield self._describe(state.device)
                if serial not in cleared:
                    # Those that were restored at the start are told of nowhere else.
                    yield self._alarms(alarms, serial, active.get(serial, []), [])
        for snapshot in updates.snapshots:
            yield _Outgoing(snapshots, snapshot.serial, schema.encode(schema.of_snapshot(gateway, snapshot)))
        for serial, gone in cleared.items():
            yield self._alarms(alarms, serial, active.get(serial, []), gone)
        for event in updates.events:
            yield _Outgoing(events, event.command.serial, schema.encode(schema.of_event(gateway, event)))
        for serial in updates.removed:
            self._known.pop(serial, None)
            yield _Outgoing(alarms, serial, None)
            yield _Outgoing(devices, serial, None)

    def _active(self) -> dict[str, list[Alarm]]:
        """Return the active alarms of each device that has any."""
        found: dict[str, list[Alarm]] = {}
        for alarm in self._context.active_alarms():
            found.setdefault(alarm.serial, []).append(alarm)
        return found

    def _alarms(self, topic: str, serial: str, active: list[Alarm], cleared: list[Alarm]) -> _Outgoing:
        message = schema.AlarmsMessage(gateway=self._context.gateway_id, serial=serial, active=active, cleared=cleared)
        return _Outgoing(topic, serial, schema.encode(message))

    async def _send(self, messages: Sequence[_Outgoing], producer: Producer) -> None:
        """Send messages until each is confirmed, or refused for good."""
        left = list(messages)
        while left:
            for topic in {message.topic for message in left}:
                await producer.ready(topic)
            futures: list[asyncio.Future[Delivered]] = []
            try:
                for message in left:
                    futures.append(_posted(producer, message))
                    if len(futures) % TURN == 0:
                        await asyncio.sleep(0)
                ends = await asyncio.gather(*futures, return_exceptions=True)
            finally:
                for future in futures:
                    future.cancel()  # where this was cancelled: nobody waits for them any more
            again: list[_Outgoing] = []
            for message, end in zip(left, ends, strict=True):
                if isinstance(end, NotSentError):
                    again.append(message)
                elif isinstance(end, RefusedError):
                    self._skipped.note_unsent(message.topic, str(end))
                elif isinstance(end, BaseException):
                    raise end
            left = again
            if left:
                await asyncio.sleep(AGAIN)


def _posted(producer: Producer, message: _Outgoing) -> "asyncio.Future[Delivered]":
    try:
        return producer.post(message.topic, message.value, key=message.key, partition=message.partition)
    except (NotSentError, RefusedError) as error:
        failed: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed
