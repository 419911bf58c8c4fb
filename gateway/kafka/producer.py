"""A producer for asyncio: idempotent, `acks=all`, and exact about what is certain when a message fails.

confluent-kafka's own `AIOProducer` gathers messages for 100 ms at least, and does not say of what it purges whether it
may have left; so one thread that polls stands here instead.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as RawProducer

from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.kafka import error_messages
from gateway.kafka.health import Health
from gateway.kafka.logger import RdLog
from gateway.kafka.marks import Question, TopicIds, made_anew
from gateway.kafka.meter import Meter
from gateway.kafka.settings import KafkaConnection
from gateway.kafka.thread import POLL, Outlet, PollThread, Watch

STILL: Final = 0.5
"""Seconds between looks whether a message that waits may still leave."""
LOOK_UP: Final = 5.0
"""Seconds that a broker has to say whether a topic is there; the thread waits so long."""
LOOK_AGAIN: Final = 20
"""Turns of the thread, of POLL seconds, between two questions after a topic that is not there."""
REFRESH: Final = 30.0
"""Seconds between looks at topics that are there: they may be deleted, or be divided into more partitions."""
GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - its own names
"""A topic is not there, or not any more."""
PARTITION_OF_KEY: Final = -1
"""librdkafka's RD_KAFKA_PARTITION_UA: the key says which."""
FLUSH: Final = 3.0
"""Seconds in which what waits may still leave when the producer is stopped."""


class Delivered(msgspec.Struct, frozen=True):
    """Where a message is, on all replicas that are in sync."""

    partition: int
    offset: int


class TooLargeError(RefusedError):
    """The topic takes no message of this size; it may take the parts of it."""


class Producer:
    """Sends messages to the topics it was made for. Those with one key stay in order."""

    def __init__(
        self,
        connection: KafkaConnection,
        name: str,
        topics: Sequence[str],
        *,
        client_id: str,
        health: Health,
        log: structlog.stdlib.BoundLogger,
        linger_ms: float = 0,
        keep_trying: bool = False,
        ids: TopicIds | None = None,
    ) -> None:
        """`name` is for logs and metrics. With `keep_trying`, messages wait for ever for a cluster that is away.

        With `ids` it gives up where a topic was made anew: what stood in it is to be written again.
        """
        self.meter = Meter()
        self._connection = connection
        self._name = name
        self._client_id = client_id
        self._topics = dict.fromkeys(topics, False)
        """Topic → whether it is there, and we may know."""
        self._options = {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "message.timeout.ms": 0 if keep_trying else 60_000,
        }
        if not linger_ms:
            # A broker measures batches: a message must not be refused for others that leave at the same moment.
            self._options["batch.num.messages"] = 1
        self._partitions: dict[str, int] = {}
        self._ids = ids
        self._topic_ids: dict[str, str] = {}
        self._question: Question | None = None
        """Which ids topics have now."""
        self._health = health
        self._log = log
        self._ended = asyncio.Event()
        self._failure = ""
        self._raw: RawProducer | None = None
        self._thread: PollThread | None = None
        self._watch: Watch | None = None
        self._outlet: Outlet | None = None
        self._time: Callable[[], float] = lambda: 0.0
        """The loop's clock, that the thread goes by too."""
        self._found = asyncio.Event()
        """Set for a moment when a topic was found."""
        self._wait_turns = 0
        self._refresh_at = 0.0

    async def start(self) -> None:
        """Begin to connect. Raises GatewayError where librdkafka can't use the settings."""
        if self._thread is not None:
            # As for a consumer: its thread would take the new client for its own.
            await self.stop()
        self._ended.clear()
        self._failure = ""
        self._topic_ids.clear()
        self._question = None
        loop = asyncio.get_running_loop()
        self._outlet, self._time = Outlet(loop), loop.time
        self._watch = Watch(self._name, self._health, self.meter, self._fatal)
        config = self._connection.config(self._client_id) | self._options | self._watch.config()
        try:
            self._raw = RawProducer({**config, "logger": RdLog(self._log, self._name)})
        except (KafkaException, ValueError) as error:
            raise GatewayError(f"librdkafka can't use the connection settings: {error}") from None
        self._thread = PollThread(f"kafka {self._name}", self._turn, self._end, self._died)

    async def stop(self) -> None:
        """Let what waits leave, for a moment, and end."""
        if self._thread is not None:
            await self._thread.stop()
            self._thread = self._raw = None
        self._health.forget([self._name])
        self.meter.connected = False

    @property
    def up(self) -> bool:
        """Whether a broker is connected, as far as is known."""
        return self._watch is not None and self._watch.connected.is_set()

    def trouble(self, topic: str) -> str:
        """Return why nothing can be sent to a topic now; "" where it can, or is not known yet."""
        return self._health.trouble(self._name, topic)

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; 0 while it is not there, or not known yet."""
        return self._partitions.get(topic, 0) if self._topics.get(topic) else 0

    async def given_up(self) -> None:
        """Wait until librdkafka can't go on; then raise GatewayError. Only a new producer helps."""
        await self._ended.wait()
        raise GatewayError(self._failure)

    def is_ready(self, topic: str) -> bool:
        """Return whether `ready` would wait for nothing."""
        return self.up and self._topics.get(topic, True)

    async def ready(self, topic: str) -> None:
        """Wait until a broker is connected and the topic is there."""
        if self._watch is None:
            raise NotSentError("the bridge is not connected to the Kafka cluster")
        while True:
            await self._watch.connected.wait()
            if self._topics.get(topic, True):
                return
            await self._found.wait()

    def post(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: str,
        partition: int = PARTITION_OF_KEY,
    ) -> "asyncio.Future[Delivered]":
        """Hand a message over; the future has its place, or NotSentError, RefusedError or UnsureError.

        Raises NotSentError where too many wait already.
        """
        if self._raw is None or self._outlet is None:
            raise NotSentError("the bridge is not connected to the Kafka cluster")
        future: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        outlet = self._outlet

        def report(error: KafkaError | None, message: Any) -> None:
            outlet.put(self._reported, future, topic, error, message.partition(), message.offset())

        try:
            self._raw.produce(
                topic,
                value,
                key.encode(),
                partition,
                on_delivery=report,
            )
        except BufferError:
            raise NotSentError("too many messages wait for the Kafka cluster", retry_after=1) from None
        except KafkaException as error:
            raise _raised(error.args[0], topic) from None
        return future

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: str,
        partition: int = PARTITION_OF_KEY,
        timeout: float,
        may_leave: Callable[[], bool] | None = None,
        still_wanted: Callable[[], bool] | None = None,
    ) -> Delivered:
        """Send a message and wait until it is safe.

        `may_leave` is asked right before it does. `still_wanted` is asked while it waits: where that says no, e.g.
        because the machine has slept, the message is taken back. Raises NotSentError when it certainly is not and will
        not be in the topic, RefusedError when it can't ever be, and UnsureError after `timeout` seconds: it may be
        there. In no case does it leave later.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        if why := self.trouble(topic):
            raise NotSentError(why)
        try:
            async with asyncio.timeout_at(deadline):
                await self.ready(topic)
        except TimeoutError:
            raise NotSentError(self.trouble(topic) or "the Kafka cluster does not answer") from None
        if may_leave is not None and not may_leave():
            raise NotSentError("its time was over before it could be sent")
        future = self.post(topic, value, key=key, partition=partition)
        try:
            async with asyncio.timeout_at(deadline):
                while still_wanted is not None and not future.done():
                    await asyncio.wait([future], timeout=STILL)
                    if not future.done() and not still_wanted():
                        raise TimeoutError
                return await future
        except TimeoutError:
            if self._raw is not None:
                # What others have sent goes too: they are told that nobody can be sure, which is so.
                self._raw.purge(in_queue=True, in_flight=True, blocking=False)
            raise UnsureError(f"the Kafka cluster did not confirm within {timeout:g} s") from None

    def _reported(
        self, future: "asyncio.Future[Delivered]", topic: str, error: KafkaError | None, partition: int, offset: int
    ) -> None:
        if error is None:
            self.meter.sent += 1
            self._health.well(self._name, topic)
            if not future.done():
                future.set_result(Delivered(partition, offset))
            return
        self.meter.failed += 1
        word, text = error_messages.of(error, topic)
        if word in (error_messages.UNKNOWN_TOPIC, error_messages.NO_TOPIC_RIGHT):
            self._health.met(self._name, word.kind, text, topic)
            self._topics[topic] = False
        if not future.done():
            future.set_exception(_raised(error, topic))
            future.exception()  # whoever gave up waiting for it does not want to hear of it

    def _fatal(self, error: KafkaError) -> None:
        """Take in that the producer has given up, e.g. because it may not write idempotently."""
        word, self._failure = error_messages.of(error)
        self._health.met(self._name, word.kind, self._failure)
        self._ended.set()

    def _died(self, error: BaseException) -> None:
        """Take in that nobody polls any more."""
        if isinstance(error, GatewayError):
            self._failure = str(error)
        elif not self._failure:
            kind, self._failure = error_messages.of_thread(error, self._name)
            self._health.met(self._name, kind, self._failure)
        self._ended.set()

    # in the thread

    def _turn(self) -> None:
        assert self._raw is not None  # noqa: S101 - the thread ends before it goes
        self._raw.poll(POLL)
        if self._wait_turns:
            self._wait_turns -= 1
        elif self.meter.connected and not all(self._topics.values()):
            self._look_up([topic for topic, there in self._topics.items() if not there])
        elif self.meter.connected and self._time() >= self._refresh_at:
            self._refresh_at = self._time() + REFRESH
            self._look_up(list(self._topics))
            if self._ids is not None:
                self._question = self._ids.ask(self._topics)
        elif self._question is not None and (found := self._question.answer()) is not None:
            self._question = None
            if changed := made_anew(self._topic_ids, found):
                raise GatewayError(f"the topic {', '.join(changed)} was made anew, and is written anew")

    def _look_up(self, topics: Sequence[str]) -> None:
        """Ask whether topics are there, so that a first message does not wait for it, and how they are divided."""
        assert self._raw is not None and self._outlet is not None  # noqa: S101, PT018
        for topic in topics:
            try:
                metadata = self._raw.list_topics(topic, timeout=LOOK_UP).topics[topic]
                found, partitions = metadata.error, len(metadata.partitions)
            except KafkaException as error:
                found, partitions = error.args[0], 0
            self._outlet.put(self._looked_up, topic, found, partitions)
            if found is not None:
                self._wait_turns = LOOK_AGAIN

    def _looked_up(self, topic: str, error: KafkaError | None, partitions: int) -> None:
        """Take in, on the loop, whether a topic is there."""
        if error is None:
            self._partitions[topic] = partitions
            self._topics[topic] = True
            self._health.well(self._name, topic)
            # Wakes those who wait now, and nobody later.
            self._found.set()
            self._found.clear()
        elif self._watch is not None:
            if error.code() in GONE:
                self._topics[topic] = False
            self._watch.error(error, topic)

    def _end(self) -> None:
        assert self._raw is not None  # noqa: S101 - as above
        self._raw.flush(FLUSH)
        self._raw.purge(in_queue=True, in_flight=True, blocking=True)
        self._raw.poll(0)
        with suppress(KafkaException, RuntimeError):
            self._raw.close()


def _raised(error: KafkaError, topic: str) -> GatewayError:
    """Return what to raise for a message that failed."""
    word, text = error_messages.of(error, topic)
    if word is error_messages.TOO_LARGE:
        return TooLargeError(text)
    if word.final:
        return RefusedError(text)
    return NotSentError(text) if word.certain else UnsureError(text)
