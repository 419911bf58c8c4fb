"""A consumer for asyncio: what was read, in order, with the partitions as they come and go.

An offset is committed after the reader has said that a message is done with, and in no case before. confluent-kafka's
own `AIOConsumer` takes a thread of a pool for every call, and makes others wait while one polls; here one thread polls.
"""

import asyncio
import threading
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Consumer as RawConsumer

from gateway.core.errors import GatewayError
from gateway.kafka import words
from gateway.kafka.health import Health
from gateway.kafka.logger import RdLog
from gateway.kafka.metrics import Meter
from gateway.kafka.settings import KafkaConnection
from gateway.kafka.thread import POLL, Outlet, PollThread, Watch

AT_ONCE: Final = 500
"""Messages in one list."""
HELD_MOST: Final = 5_000
HELD_BYTES: Final = 16 * 1024 * 1024
"""Past either of these, read and not taken yet, the partitions are paused."""
ASK: Final = 5.0
"""Seconds that a broker has to say where to begin."""
COMMIT_MS: Final = 500

Place = tuple[str, int]
"""Topic and partition."""


class Received(msgspec.Struct, frozen=True):
    """A message. It is untrusted."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes | None
    """None for a tombstone, and for what is too large."""
    headers: Mapping[str, str]
    timestamp: int
    """UTC ms as its producer, or the broker, says; 0 where nobody does."""
    oversize: int = 0
    """Bytes of a message that is too large to be handed over; else 0."""


class Assigned(msgspec.Struct, frozen=True):
    """From now on these partitions are ours: all of ours, not only the new ones."""

    committed: Mapping[Place, int]
    """Where the group has got to; negative where it has no place yet."""


class Revoked(msgspec.Struct, frozen=True):
    """These are not ours any more. `Assigned` may give some back at once."""

    places: tuple[Place, ...]


class CaughtUp(msgspec.Struct, frozen=True):
    """A partition has been read to its end, for the first time since it was assigned."""

    topic: str
    partition: int


Change = list[Received] | Assigned | Revoked | CaughtUp


class Start(msgspec.Struct, frozen=True):
    """Where to begin with a topic's partitions, whenever they are assigned. As it is: at the committed offset."""

    beginning: bool = False
    since: Callable[[], datetime] | None = None
    """Returns from when on to read again what was committed already. Called in the thread."""


class Consumer:
    """Reads topics as a member of a group."""

    def __init__(
        self,
        connection: KafkaConnection,
        name: str,
        topics: Sequence[str],
        *,
        group: str,
        client_id: str,
        health: Health,
        log: structlog.stdlib.BoundLogger,
        member: str | None = None,
        session_timeout: float = 10.0,
        max_bytes: int = 1024 * 1024,
        reset: str = "earliest",
        starts: Mapping[str, Start] | None = None,
    ) -> None:
        """`member` makes it a static member: its partitions wait for it through a restart.

        `reset` says where a group without a place begins, `earliest` or `latest`; `max_bytes` is what a value may
        have. When the session times out (s), the others of the group take over.
        """
        self.meter = Meter()
        self._connection = connection
        self._name = name
        self._client_id = client_id
        self._topics = list(topics)
        self._group = group
        self._health = health
        self._log = log
        self._max_bytes = max_bytes
        self._starts = starts or {}
        self._options: dict[str, Any] = {
            "group.id": group,
            "session.timeout.ms": int(session_timeout * 1000),
            "heartbeat.interval.ms": max(100, int(session_timeout * 1000 / 4)),
            "auto.offset.reset": reset,
            "enable.auto.commit": True,
            "auto.commit.interval.ms": COMMIT_MS,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            # Partitions of one number go to one member, in all topics that have as many.
            "partition.assignment.strategy": "range",
            "queued.max.messages.kbytes": HELD_BYTES // 1024,
        }
        if member is not None:
            # Come back soon, a static member is given what it had, whatever topics it wants now (KIP-345). With others
            # it is another member.
            wanted = zlib.crc32(" ".join(sorted(topics)).encode())
            self._options["group.instance.id"] = f"{member}-{wanted:08x}"
        self._raw: RawConsumer | None = None
        self._thread: PollThread | None = None
        self._watch: Watch | None = None
        self._outlet: Outlet | None = None
        self._changes: deque[Change | Exception] = deque()
        self._come = asyncio.Event()
        self._done: dict[Place, int] = {}
        self._done_lock = threading.Lock()
        self._taken = 0
        self._taken_bytes = 0
        # the thread's own
        self._handed = 0
        self._handed_bytes = 0
        self._behind: set[Place] = set()
        """Those of ours that have not been read to their end yet."""
        self._ours: set[Place] = set()
        self._is_paused = False

    async def start(self) -> None:
        """Begin to connect and to read. Raises GatewayError where librdkafka can't use the settings."""
        self._outlet = Outlet(asyncio.get_running_loop())
        self._watch = Watch(self._name, self._health, self.meter, self._fatal)
        config = self._connection.config(self._client_id) | self._options | self._watch.config()
        try:
            self._raw = RawConsumer({**config, "logger": RdLog(self._log, self._name)})
        except (KafkaException, ValueError) as error:
            raise GatewayError(f"librdkafka can't use the connection settings: {error}") from None
        self._raw.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        self._thread = PollThread(f"kafka {self._name}", self._turn, self._end)

    async def stop(self) -> None:
        """Commit what is done, and leave. A static member's partitions wait for it until its session times out."""
        if self._thread is not None:
            await self._thread.stop()
            self._thread = self._raw = None
        self._health.forget([self._name])
        self.meter.connected = False
        self._changes.clear()
        self._handed = self._taken = self._handed_bytes = self._taken_bytes = 0
        self._ours.clear()
        self._done.clear()

    async def changes(self) -> AsyncIterator[Change]:
        """Yield what comes, in order. Raises GatewayError where it can't go on."""
        while True:
            while self._changes:
                change = self._changes.popleft()
                if isinstance(change, Exception):
                    raise change
                if isinstance(change, list):
                    self._taken += len(change)
                    self._taken_bytes += _bytes(change)
                yield change
            self._come.clear()
            await self._come.wait()

    async def batches(self) -> AsyncIterator[list[Received]]:
        """Yield messages alone."""
        async for change in self.changes():
            if isinstance(change, list):
                yield change

    def commit(self, messages: Iterable[Received]) -> None:
        """Say that these, and those before them in their partitions, need not be read again. Committed soon."""
        with self._done_lock:
            for message in messages:
                place = (message.topic, message.partition)
                self._done[place] = max(self._done.get(place, 0), message.offset + 1)

    # on the loop, from the thread

    def _take(self, change: Change | Exception) -> None:
        if isinstance(change, list):
            self.meter.received += len(change)
            self.meter.oversize += sum(1 for message in change if message.oversize)
            for topic in {message.topic for message in change}:
                self._health.well(self._name, topic)
        elif isinstance(change, Assigned):
            self._health.well(self._name, self._group)
            # Not of those that we may not read: the group goes on without them.
            for topic in {topic for topic, _ in change.committed}:
                self._health.well(self._name, topic)
        self._changes.append(change)
        self._come.set()

    def _fatal(self, error: KafkaError) -> None:
        self._take(GatewayError(words.of(error, self._group)[1]))

    # in the thread

    def _turn(self) -> None:
        try:
            self._read()
        except Exception as error:
            self._put(error if isinstance(error, GatewayError) else GatewayError(f"reading from Kafka: {error}"))
            raise

    def _read(self) -> None:
        raw, watch, outlet = self._raw, self._watch, self._outlet
        assert raw is not None and watch is not None and outlet is not None  # noqa: S101, PT018 - it ends before they go
        self._store()
        self._hold_back()
        first = raw.poll(POLL)
        if first is None:
            return
        received: list[Received] = []
        for message in (first, *raw.consume(AT_ONCE - 1, 0)):
            error = message.error()
            if error is None:
                received.append(self._received(message))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes are named so
                place = (message.topic() or "", message.partition() or 0)
                if place in self._behind:
                    self._behind.remove(place)
                    self._hand_over(received)
                    received = []
                    self._put(CaughtUp(*place))
            else:
                is_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
                outlet.put(watch.error, error, self._group if is_group else message.topic() or "")
        self._hand_over(received)

    def _received(self, message: Any) -> Received:
        value = message.value()
        oversize = len(value) if value is not None and len(value) > self._max_bytes else 0
        key, (_, stamp) = message.key(), message.timestamp()
        return Received(
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            key="" if key is None else key[:256].decode("utf-8", "replace"),
            value=None if oversize else value,
            headers={
                name: (text or b"")[:1024].decode("utf-8", "replace") for name, text in (message.headers() or ())[:32]
            },
            timestamp=max(0, stamp),
            oversize=oversize,
        )

    def _hand_over(self, received: list[Received]) -> None:
        if received:
            self._handed += len(received)
            self._handed_bytes += _bytes(received)
            self._put(received)

    def _hold_back(self) -> None:
        """Pause while the reader is behind. Polling goes on, or the group would take us for dead."""
        assert self._raw is not None  # noqa: S101 - as above
        held, bytes_ = self._handed - self._taken, self._handed_bytes - self._taken_bytes
        if not self._is_paused and (held > HELD_MOST or bytes_ > HELD_BYTES):
            self._raw.pause(self._raw.assignment())
            self._is_paused = True
        elif self._is_paused and held <= HELD_MOST // 2 and bytes_ <= HELD_BYTES // 2:
            self._raw.resume(self._raw.assignment())
            self._is_paused = False

    def _store(self) -> None:
        """Hand librdkafka the offsets that it may commit."""
        with self._done_lock:
            done, self._done = self._done, {}
        known = [TopicPartition(*place, offset) for place, offset in done.items() if place in self._ours]
        if known:
            assert self._raw is not None  # noqa: S101 - as above
            with suppress(KafkaException):
                # A partition that has just gone: its new reader reads these again.
                self._raw.store_offsets(offsets=known)

    def _assigned(self, raw: RawConsumer, partitions: list[TopicPartition]) -> None:
        committed = _committed(raw, partitions)
        self._ours = set(committed)
        self._behind = set(committed)
        self._is_paused = False
        raw.assign([self._begin(raw, partition, committed) for partition in partitions])
        self._put(Assigned(committed))

    def _begin(self, raw: RawConsumer, at: TopicPartition, committed: Mapping[Place, int]) -> TopicPartition:
        """Return a partition with the offset to begin at."""
        offset = committed[at.topic, at.partition]
        start = self._starts.get(at.topic)
        if start is not None and start.beginning:
            offset = OFFSET_BEGINNING
        elif start is not None and start.since is not None and offset >= 0:
            since = TopicPartition(at.topic, at.partition, int(start.since().timestamp() * 1000))
            with suppress(KafkaException):
                (found,) = raw.offsets_for_times([since], timeout=ASK)
                offset = min(offset, found.offset) if found.offset >= 0 else offset
        return TopicPartition(at.topic, at.partition, offset)

    def _revoked(self, _: RawConsumer, partitions: list[TopicPartition]) -> None:
        self._store()
        gone = tuple((partition.topic, partition.partition) for partition in partitions)
        self._ours -= set(gone)
        self._put(Revoked(gone))

    def _put(self, change: Change | Exception) -> None:
        assert self._outlet is not None  # noqa: S101 - as above
        self._outlet.put(self._take, change)

    def _end(self) -> None:
        assert self._raw is not None  # noqa: S101 - as above
        with suppress(KafkaException, RuntimeError):
            self._store()
        self._raw.close()


def _committed(raw: RawConsumer, partitions: list[TopicPartition]) -> dict[Place, int]:
    try:
        found = raw.committed(partitions, timeout=ASK)
    except KafkaException:
        # librdkafka asks again by itself before it reads.
        found = [TopicPartition(p.topic, p.partition, OFFSET_INVALID) for p in partitions]
    return {(p.topic, p.partition): p.offset for p in found}


def _bytes(messages: Iterable[Received]) -> int:
    return sum(len(message.value) for message in messages if message.value is not None)
