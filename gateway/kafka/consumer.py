"""A consumer for asyncio: what was read, in order, with the partitions as they come and go.

An offset is committed after the reader has said that a message is done with, and in no case before. confluent-kafka's
own `AIOConsumer` takes a thread of a pool for every call, and makes others wait while one polls; here one thread polls.
"""

import asyncio
import threading
import uuid
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, NoReturn

import msgspec
import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Consumer as RawConsumer

from gateway.core.clock import SystemClock
from gateway.core.errors import GatewayError
from gateway.kafka import error_messages
from gateway.kafka.health import Health
from gateway.kafka.logger import RdLog
from gateway.kafka.marks import Mark, Question, TopicIds, made_anew
from gateway.kafka.meter import Meter
from gateway.kafka.producer import GONE
from gateway.kafka.settings import KafkaConnection
from gateway.kafka.thread import POLL, Outlet, PollThread, Watch

CLOCK: Final = SystemClock()
MAX_LISTED_MESSAGES: Final = 500
"""Messages in one list."""
MAX_HELD_MESSAGES: Final = 5_000
HELD_BYTES: Final = 16 * 1024 * 1024
"""Past either of these, read and not taken yet, the partitions are paused."""
ASK: Final = 5.0
"""Seconds that a broker has to say where to begin."""
COMMIT_MS: Final = 500
LOOK: Final = 30.0
LOOK_SOON: Final = 2.0
"""Seconds between looks whether topics are those they were, and which partitions there are for a consumer that is alone
in its group; soon while any lacks."""
FIRST_SINCE: Final = 600.0
"""Seconds before a first start from which on is read: clocks differ, and a name of a group may have changed."""

EARLIEST: Final = -2
LATEST: Final = -1
"""Instead of a time, as Kafka has it (ListOffsets)."""
DELETED: Final = "the topic's retention has deleted what was not read yet"
STRANGER: Final = frozenset(
    {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.FENCED_INSTANCE_ID}
)
"""What a commit without a membership meets where a group has members."""

Place = tuple[str, int]
"""Topic and partition."""


class Received(msgspec.Struct, frozen=True):
    """A message. It is untrusted.

    Its headers are not here: nothing needs them, and confluent-kafka ends the process where a name is no UTF-8.
    """

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes | None
    """None for a tombstone, and for what is too large."""
    timestamp: int
    """UTC ms as its producer, or the broker, says; 0 where nobody does."""
    oversize: int = 0
    """Bytes of a message that is too large to be handed over; else 0."""


class Assigned(msgspec.Struct, frozen=True):
    """From now on these partitions are ours: all of ours, not only the new ones."""

    committed: Mapping[Place, int]
    """Where the group has got to; negative where it has no place yet."""
    kept: frozenset[Place] = frozenset()
    """Those that were ours until this moment, had been read to their end, and go on from there: no `Start` for them."""


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
        alone: bool = False,
        ids: TopicIds | None = None,
    ) -> None:
        """`alone`: it reads all partitions, whoever else names the group, which only keeps its place for it.

        With `ids` it knows a topic that was made anew by more than its offsets.

        `member` makes it a static member: its partitions wait for it through a restart.

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
        self._alone = alone
        self._ids = ids
        if alone:
            self._options["on_commit"] = self._noted
        elif member is not None:
            # Come back soon, a static member is given what it had, whatever topics it wants now (KIP-345). With others
            # it is another member.
            wanted = zlib.crc32(" ".join(sorted(topics)).encode())
            self._options["group.instance.id"] = f"{member}-{wanted:08x}"
        self.placed = asyncio.Event()
        """Set once it is known from where on is read: what comes after that is not missed."""
        self._raw: RawConsumer | None = None
        self._thread: PollThread | None = None
        self._watch: Watch | None = None
        self._outlet: Outlet | None = None
        self._time: Callable[[], float] = lambda: 0.0
        """The loop's clock, that the thread goes by too."""
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
        self._look_at = 0.0
        self._next: dict[Place, int] = {}
        """Offset that comes next, as far as is known."""
        self._read_to: dict[Place, int] = {}
        """Of what was revoked last and had been read to its end: the offset that comes next."""
        self._stranger = False
        """Whether somebody else was noticed in a group that should be ours alone."""
        self._run = ""
        self._topic_ids: dict[str, str] = {}
        self._question: Question | None = None
        """Which ids topics have now."""
        self._kept: dict[Place, int] = {}
        """What librdkafka may commit, or has committed, by now."""
        self._is_shared = False
        """Whether at the last look another run had kept our places."""

    async def start(self) -> None:
        """Begin to connect and to read. Raises GatewayError where librdkafka can't use the settings."""
        if self._thread is not None:
            # A stop that was not waited for: its thread would take the new client for its own.
            await self.stop()
        loop = asyncio.get_running_loop()
        self._outlet, self._time = Outlet(loop), loop.time
        self._watch = Watch(self._name, self._health, self.meter, self._fatal)
        config = self._connection.config(self._client_id) | self._options | self._watch.config()
        try:
            self._raw = RawConsumer({**config, "logger": RdLog(self._log, self._name)})
        except (KafkaException, ValueError) as error:
            raise GatewayError(f"librdkafka can't use the connection settings: {error}") from None
        self._look_at = 0.0
        self._next.clear()
        self._read_to.clear()
        self._run = uuid.uuid4().hex[:12]
        self._topic_ids.clear()
        self._question = None
        self._kept.clear()
        self._is_shared = False
        if not self._alone:
            self._raw.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        self._thread = PollThread(f"kafka {self._name}", self._read, self._end, self._died)

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
        self.placed.clear()

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
            self.placed.set()
            self._health.well(self._name, self._group)
            # Not of those that we may not read: the group goes on without them.
            for topic in {topic for topic, _ in change.committed}:
                self._health.well(self._name, topic)
        self._changes.append(change)
        self._come.set()

    def _fatal(self, error: KafkaError) -> None:
        self._take(GatewayError(error_messages.of(error, self._group)[1]))

    def _died(self, error: BaseException) -> None:
        """Take in that nobody polls any more."""
        _, text = error_messages.of_thread(error, self._name)
        self._take(error if isinstance(error, GatewayError) else GatewayError(text))

    # in the thread

    def _read(self) -> None:
        raw, watch, outlet = self._raw, self._watch, self._outlet
        assert raw is not None and watch is not None and outlet is not None  # noqa: S101, PT018 - it ends before they go
        self._store()
        self._hold_back()
        if self.meter.connected and self._time() >= self._look_at:
            self._look_at = self._time() + LOOK
            self._ask_for_ids()
            if self._alone and not self._is_stopping:
                self._look()
                self._look_for_twin(raw)
        self._look_at_ids(raw)
        first = raw.poll(POLL)
        if first is None:
            return
        received: list[Received] = []
        for message in (first, *raw.consume(MAX_LISTED_MESSAGES - 1, 0)):
            error = message.error()
            if error is None:
                received.append(self._received(message))
                self._follow(raw, received[-1])
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes are named so
                place = (message.topic() or "", message.partition() or 0)
                self._next.setdefault(place, message.offset() or 0)
                if place in self._behind:
                    self._behind.remove(place)
                    self._hand_over(received)
                    received = []
                    self._put(CaughtUp(*place))
            else:
                is_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
                outlet.put(watch.error, error, self._group if is_group else message.topic() or "")
        self._hand_over(received)

    @property
    def _is_stopping(self) -> bool:
        """Whether somebody waits for the end: a cluster that is away takes seconds for each question."""
        return self._thread is not None and self._thread.stopping

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
        if not self._is_paused and (held > MAX_HELD_MESSAGES or bytes_ > HELD_BYTES):
            self._raw.pause(self._raw.assignment())
            self._is_paused = True
        elif self._is_paused and held <= MAX_HELD_MESSAGES // 2 and bytes_ <= HELD_BYTES // 2:
            self._raw.resume(self._raw.assignment())
            self._is_paused = False

    def _store(self) -> None:
        """Hand librdkafka the offsets that it may commit."""
        with self._done_lock:
            done, self._done = self._done, {}
        known = [self._placed(place, offset) for place, offset in done.items() if place in self._ours]
        if known:
            self._kept |= {(p.topic, p.partition): p.offset for p in known}
            assert self._raw is not None  # noqa: S101 - as above
            with suppress(KafkaException):
                # A partition that has just gone: its new reader reads these again.
                self._raw.store_offsets(offsets=known)

    def _placed(self, place: Place, offset: int) -> TopicPartition:
        """Return a place as it is committed."""
        mark = Mark(self._topic_ids.get(place[0], ""), self._run)
        return TopicPartition(*place, offset, mark.text)

    def _follow(self, raw: RawConsumer, message: Received) -> None:
        """Notice a topic that was deleted and made again, whose offsets begin anew, and what retention has deleted."""
        place = message.topic, message.partition
        wanted = self._next.get(place, message.offset)
        if message.offset < wanted:
            self._begin_anew(raw, [message.topic])
        if message.offset > wanted:
            # What librdkafka knows by itself; elsewhere a gap is where records were compacted, or of transactions.
            low, _ = raw.get_watermark_offsets(TopicPartition(*place), cached=True) or (0, 0)
            if low > wanted:
                self._say(DELETED, place, count=low - wanted)
        self._next[place] = message.offset + 1

    def _ask_for_ids(self) -> None:
        """Ask for the ids of topics. Who is alone waits for them before the first look, where it begins to read."""
        if self._ids is None:
            return
        if self._alone and not self._ours:
            self._topic_ids |= self._ids.of(self._topics, lambda: self._is_stopping)
        else:
            self._question = self._ids.ask(self._topics)

    def _look_at_ids(self, raw: RawConsumer) -> None:
        """Notice topics that were made anew, also where they have grown past our place by now."""
        found = self._question.answer() if self._question is not None else None
        if found is None:
            return
        self._question = None
        if changed := made_anew(self._topic_ids, found):
            self._begin_anew(raw, changed)

    def _begin_anew(self, raw: RawConsumer, topics: Collection[str]) -> NoReturn:
        """Put our places back to the beginning of topics that were made anew, and have the whole bridge begin anew."""
        places = [place for place in self._ours if place[0] in topics]
        # What is done with by now was perhaps in the old one.
        self._ours -= set(places)
        if places:
            back = [self._placed(place, 0) for place in places]
            with suppress(KafkaException):
                raw.store_offsets(offsets=back)
                raw.commit(offsets=back, asynchronous=False)
        raise GatewayError(f"the topic {', '.join(topics)} was made anew, and is read from its beginning")

    def _say(self, text: str, place: Place, **fields: Any) -> None:
        assert self._outlet is not None  # noqa: S101 - as above
        told = partial(self._log.warning, client=self._name, topic=place[0], partition=place[1], **fields)
        self._outlet.put(told, text)

    # alone in a group

    def _look(self) -> None:
        """Have all partitions that there are by now."""
        raw, watch, outlet = self._raw, self._watch, self._outlet
        assert raw is not None and watch is not None and outlet is not None  # noqa: S101, PT018 - as above
        self._look_at = self._time() + LOOK_SOON
        there: set[Place] = set()
        whole = True
        for topic in self._topics:
            if self._is_stopping:
                return
            try:
                metadata = raw.list_topics(topic, timeout=ASK).topics[topic]
                error, numbers = metadata.error, list(metadata.partitions)
            except KafkaException as raised:
                error, numbers = raised.args[0], []
            if error is None:
                there |= {(topic, number) for number in numbers}
                continue
            whole = False
            outlet.put(watch.error, error, topic)
            if error.code() not in GONE:
                there |= {place for place in self._ours if place[0] == topic}
        if there == self._ours or self._take_over(raw, there):
            if there:
                outlet.put(self._health.well, self._name, self._group)
            for topic in {topic for topic, _ in there}:
                outlet.put(self._health.well, self._name, topic)
            if whole:
                self._look_at = self._time() + LOOK

    def _take_over(self, raw: RawConsumer, there: set[Place]) -> bool:
        """Have these partitions, going on where each was. False where the group does not tell its places."""
        assert self._watch is not None and self._outlet is not None  # noqa: S101, PT018 - as above
        new = [TopicPartition(*place) for place in sorted(there - self._ours)]
        try:
            found = self._places(raw, raw.committed(new, timeout=ASK) if new else [])
        except KafkaException as error:
            self._outlet.put(self._watch.error, error.args[0], self._group)
            return False
        known = {topic for topic, _ in self._ours}
        known |= {place[0] for place, offset in found.items() if offset != OFFSET_INVALID}
        kept = [TopicPartition(*place) for place in sorted(there & self._ours)]
        # Where nothing has come yet, it is where it was told to begin.
        going = [
            TopicPartition(
                p.topic, p.partition, p.offset if p.offset >= 0 else self._next.get((p.topic, p.partition), -2)
            )
            for p in (raw.position(kept) if kept else [])
        ]
        since = int((CLOCK.now().timestamp() - FIRST_SINCE) * 1000)
        places = [place for place, offset in found.items() if place[0] not in known]
        first = self._offsets(raw, places, LATEST) | self._offsets(raw, places, since)
        begin = [self._first(raw, p, known, found, first) for p in new]
        self._next = {place: offset for place, offset in self._next.items() if place in there}
        self._next |= {(p.topic, p.partition): p.offset for p in begin if p.offset >= 0}
        gone = self._ours - there
        if self._ours and (gone or new):
            for place in sorted(gone | {(p.topic, p.partition) for p in new}):
                self._say("the partitions of a topic have changed", place, gone=place in gone)
        raw.assign(going + begin)
        self._ours = set(there)
        self._behind = set(there)
        self._is_paused = False
        # A place that the group keeps is ours from now on, also where nothing comes for long.
        with self._done_lock:
            for p in begin:
                if p.offset >= 0:
                    self._done.setdefault((p.topic, p.partition), p.offset)
        self._put(Assigned({**dict.fromkeys(there, OFFSET_INVALID), **found}))
        return True

    def _first(
        self,
        raw: RawConsumer,
        at: TopicPartition,
        known: set[str],
        found: Mapping[Place, int],
        first: Mapping[Place, int],
    ) -> TopicPartition:
        """Return a new partition with the offset to begin at.

        Of a topic that is read already, a partition without a place is one that was added: all of it. Else it is a
        first start: nothing was asked for before it, so nothing before it is ours.
        """
        if found[at.topic, at.partition] != OFFSET_INVALID:
            return self._begin(raw, at, found)
        if at.topic in known:
            return TopicPartition(at.topic, at.partition, OFFSET_BEGINNING)
        return TopicPartition(at.topic, at.partition, first.get((at.topic, at.partition), OFFSET_BEGINNING))

    def _offsets(self, raw: RawConsumer, places: Iterable[Place], moment: int) -> dict[Place, int]:
        """Return the offset of a time (UTC ms, or EARLIEST or LATEST) of partitions; of those alone that have one."""
        wanted = [TopicPartition(*place, moment) for place in places]
        try:
            found = raw.offsets_for_times(wanted, timeout=ASK) if wanted else []
        except KafkaException:
            return {}
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0 and p.error is None}

    def _noted(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        """Notice, by a place that is not taken, that the group has members though it is ours alone."""
        if error is not None and error.code() in STRANGER and not self._stranger:
            self._stranger = True
            self._say(
                "another program reads in our group, so our place is not kept; give each gateway its own gateway.id, "
                "and each bridge a group of its own",
                (self._topics[0], -1),
                group=self._group,
            )

    def _look_for_twin(self, raw: RawConsumer) -> None:
        """Notice another gateway with our settings: again and again it has kept the places that we keep."""
        try:
            ours = [] if self._is_stopping else [TopicPartition(*place) for place in self._kept]
            found = raw.committed(ours, timeout=ASK) if ours else []
        except KafkaException:
            return
        taken = [p for p in found if p.offset >= 0 and Mark.read(p.metadata).run not in ("", self._run)]
        if taken:
            if self._is_shared and not self._stranger:
                self._stranger = True
                self._say(
                    "another gateway has our settings and keeps its place in our group; one that starts goes on where "
                    "the other is; give each its own gateway.id",
                    (taken[0].topic, taken[0].partition),
                    group=self._group,
                )
            # Perhaps it was the last word of a run that has ended. Who takes it again after this is running.
            again = [self._placed(place, self._kept[place]) for p in taken if (place := (p.topic, p.partition))]
            with suppress(KafkaException):
                raw.commit(offsets=again, asynchronous=True)
        self._is_shared = bool(taken)

    def _assigned(self, raw: RawConsumer, partitions: list[TopicPartition]) -> None:
        if self._ids is not None and (unknown := {p.topic for p in partitions} - self._topic_ids.keys()):
            self._topic_ids |= self._ids.of(unknown, lambda: self._is_stopping)
        committed = self._places(raw, _committed(raw, partitions))
        read_to, self._read_to = self._read_to, {}
        kept = {
            place: at for place, at in read_to.items() if place[0] in self._starts and _goes_on(committed, place, at)
        }
        self._ours = set(committed)
        self._behind = set(committed) - kept.keys()
        self._is_paused = False
        begin = [
            TopicPartition(p.topic, p.partition, at)
            if (at := kept.get((p.topic, p.partition))) is not None
            else self._begin(raw, p, committed)
            for p in partitions
        ]
        self._next = {(p.topic, p.partition): p.offset for p in begin if p.offset >= 0}
        raw.assign(begin)
        self._put(Assigned(committed, frozenset(kept)))

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

    def _places(self, raw: RawConsumer, committed: Iterable[TopicPartition]) -> dict[Place, int]:
        """Return where to go on; says what was lost where a topic has the group's place no more."""
        places = {(p.topic, p.partition): p.offset if p.offset >= 0 else OFFSET_INVALID for p in committed}
        marks = {(p.topic, p.partition): Mark.read(p.metadata).topic_id for p in committed}
        known = {place: offset for place, offset in places.items() if offset >= 0}
        low, high = (self._offsets(raw, known, moment) for moment in (EARLIEST, LATEST))
        for place, offset in known.items():
            ids = {marks[place], self._topic_ids.get(place[0], "")} - {""}
            if len(ids) > 1 or offset > high.get(place, offset):
                self._say("the topic was made anew, and is read from its beginning", place)
                places[place] = OFFSET_BEGINNING
            elif offset < low.get(place, 0):
                self._say(DELETED, place, count=low[place] - offset)
                places[place] = low[place]
        return places

    def _revoked(self, _: RawConsumer, partitions: list[TopicPartition]) -> None:
        self._store()
        gone = tuple((partition.topic, partition.partition) for partition in partitions)
        self._read_to = {place: self._next[place] for place in gone if place in self._next.keys() - self._behind}
        self._ours -= set(gone)
        self._put(Revoked(gone))

    def _lost(self, raw: RawConsumer, partitions: list[TopicPartition]) -> None:
        """Take in that they went without our doing: others may have read there since."""
        self._revoked(raw, partitions)
        self._read_to = {}

    def _put(self, change: Change | Exception) -> None:
        assert self._outlet is not None  # noqa: S101 - as above
        self._outlet.put(self._take, change)

    def _end(self) -> None:
        assert self._raw is not None  # noqa: S101 - as above
        with suppress(KafkaException, RuntimeError):
            self._store()
        self._raw.close()


def _goes_on(committed: Mapping[Place, int], place: Place, read_to: int) -> bool:
    """Return whether a partition is ours again, the same as before, and nobody has got further there."""
    offset = committed.get(place, OFFSET_BEGINNING)
    return offset != OFFSET_BEGINNING and offset <= read_to


def _committed(raw: RawConsumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    try:
        return raw.committed(partitions, timeout=ASK)
    except KafkaException:
        # librdkafka asks again by itself before it reads.
        return [TopicPartition(p.topic, p.partition, OFFSET_INVALID) for p in partitions]


def _bytes(messages: Iterable[Received]) -> int:
    return sum(len(message.value) for message in messages if message.value is not None)
