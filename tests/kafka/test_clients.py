"""The producer and the consumer, against Apache Kafka."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import pytest
import structlog

from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.kafka import (
    Assigned,
    CaughtUp,
    Consumer,
    Health,
    KafkaConnection,
    NewTopic,
    Producer,
    Start,
    create_topics,
)
from tests.kafka.test_health import Reports
from tests.kit.bench import until
from tests.kit.kafka import Kafka, forwarder

LOG = structlog.get_logger()


def connection(server, **more):
    return KafkaConnection.model_validate({"bootstrap_servers": [server]} | more)


@asynccontextmanager
async def producer(server, *topics, reports=None, **options):
    reports = Reports() if reports is None else reports
    where = server if isinstance(server, KafkaConnection) else connection(server)
    made = Producer(where, "out", topics, client_id="test", health=Health(reports), log=LOG, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def consumer(server, *topics, group="group", reports=None, **options):
    reports = Reports() if reports is None else reports
    where = server if isinstance(server, KafkaConnection) else connection(server)
    made = Consumer(where, "in", topics, group=group, client_id="test", health=Health(reports), log=LOG, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def read(reader, count, *, commit=False):
    found = []
    async with asyncio.timeout(120):
        async for batch in reader.batches():
            found += batch
            if commit:
                reader.commit(batch)
            if len(found) >= count:
                return found
    raise AssertionError


async def test_what_is_sent_is_read_with_its_key(kafka):
    topic = kafka.topic()
    async with producer(kafka.plaintext, topic) as out, consumer(kafka.plaintext, topic, group=topic) as reader:
        place = await out.send(topic, b"hello", key="a", timeout=60)
        [message] = await read(reader, 1)
        assert (message.key, message.value) == ("a", b"hello")
        assert (message.partition, message.offset) == (place.partition, place.offset)
        assert out.meter.sent == reader.meter.received == 1


async def test_only_what_is_done_is_committed_and_the_rest_comes_again(kafka):
    topic = kafka.topic()
    kafka.send(topic, b"k", b"1", b"2", b"3")
    async with consumer(kafka.plaintext, topic, group=topic) as reader:
        found = await read(reader, 3)
        reader.commit(found[:2])
    assert kafka.committed(topic, topic) == 2
    async with consumer(kafka.plaintext, topic, group=topic) as reader:
        assert [message.value for message in await read(reader, 1)] == [b"3"]


async def test_a_message_that_is_too_large_is_passed_over_and_said(kafka):
    topic = kafka.topic(max_message_bytes=12_000_000)
    large = b"x" * 10_000_000
    async with producer(connection(kafka.plaintext, options={"message.max.bytes": 12_000_000}), topic) as out:
        await out.send(topic, large, key="k", timeout=60)
        await out.send(topic, b"small", key="k", timeout=60)
    async with consumer(kafka.plaintext, topic, group=topic, max_bytes=1000) as reader:
        first, second = await read(reader, 2)
        assert (first.value, first.oversize) == (None, len(large))
        assert second.value == b"small"
        assert reader.meter.oversize == 1


async def test_a_reader_that_is_behind_holds_the_cluster_back_and_misses_nothing(kafka):
    topic = kafka.topic()
    count = 12_000
    async with producer(kafka.plaintext, topic, linger_ms=5) as out:
        await out.ready(topic)
        await asyncio.gather(*(out.post(topic, b"x", key="k") for _ in range(count)))
    async with consumer(kafka.plaintext, topic, group=topic) as reader:
        await until(lambda: reader._is_paused)
        held = reader.meter.received
        assert held < count
        found = await read(reader, count)
        assert [message.offset for message in found] == list(range(count))


async def test_it_starts_where_it_is_told(kafka):
    topic = kafka.topic()
    kafka.send(topic, b"k", b"1", b"2")
    async with consumer(kafka.plaintext, topic, group=topic) as reader:
        await read(reader, 2, commit=True)
    starts = {topic: Start(beginning=True)}
    async with consumer(kafka.plaintext, topic, group=topic, starts=starts) as reader:
        seen = []
        async with asyncio.timeout(120):
            async for change in reader.changes():
                seen.append(change)
                if isinstance(change, CaughtUp):
                    break
    assigned, messages, end = seen
    assert assigned == Assigned({(topic, 0): 2})
    assert [message.value for message in messages] == [b"1", b"2"]
    assert (end.topic, end.partition) == (topic, 0)


async def test_two_members_of_one_name_fence_each_other_and_say_what_to_do(kafka):
    topic = kafka.topic()
    async with (
        consumer(kafka.plaintext, topic, group=topic, member="same") as first,
        AsyncExitStack() as stack,
    ):
        async with asyncio.timeout(120):
            await anext(first.changes())
        await stack.enter_async_context(consumer(kafka.plaintext, topic, group=topic, member="same"))
        with pytest.raises(GatewayError, match=r"another member of the same name .* gateway\.id"):
            await read(first, 1)


async def test_a_thread_that_dies_is_a_fault_of_who_started_it(kafka, monkeypatch):
    topic = kafka.topic()

    def breaks(*_):
        raise SystemError("poll is broken")

    async with producer(kafka.plaintext, topic) as out, consumer(kafka.plaintext, topic, group=topic) as reader:
        out._thread._turn = reader._thread._turn = breaks
        for ended in (out.given_up(), read(reader, 1)):
            with pytest.raises(GatewayError, match=r"thread .* has ended: poll is broken"):
                async with asyncio.timeout(120):
                    await ended


async def test_what_a_topic_never_takes_is_refused(kafka):
    topic = kafka.topic(max_message_bytes=1000)
    async with producer(kafka.plaintext, topic) as out:
        with pytest.raises(RefusedError, match="takes no message of this size"):
            await out.send(topic, b"x" * 5000, key="k", timeout=60)


async def test_a_cluster_that_was_never_there_certainly_got_nothing():
    reports = Reports()
    async with producer("127.0.0.1:1", "t", reports=reports) as out:
        await until(lambda: not out.up and reports.ups[-1] is False)
        with pytest.raises(NotSentError, match="can't be reached"):
            await out.send("t", b"x", key="k", timeout=5)


async def test_a_message_under_way_when_the_cluster_goes_is_unsure_and_does_not_leave_later(tmp_path):
    async with Kafka(tmp_path) as broker:
        topic = broker.topic()
        reports = Reports()
        async with producer(broker.plaintext, topic, reports=reports) as out:
            await out.send(topic, b"before", key="k", timeout=60)
            broker.process.send_signal(19)  # SIGSTOP: it holds its connections, and says nothing
            with pytest.raises(UnsureError, match="did not confirm within"):
                await out.send(topic, b"under way", key="k", timeout=0.5)
            broker.kill()
            await until(lambda: out.trouble(topic))
            with pytest.raises(NotSentError):
                await out.send(topic, b"away", key="k", timeout=1)
            await broker.start()
            await until(lambda: out.up and not out.trouble(topic))
            await out.send(topic, b"after", key="k", timeout=60)
            assert [m.value() for m in broker.messages(topic, 2)] == [b"before", b"after"]
            assert reports.ups.count(False) == 1


async def test_messages_that_may_wait_are_delivered_in_order_after_the_cluster_was_away_and_has_moved(tmp_path):
    """Only the address of `bootstrap_servers` is what it was."""
    async with Kafka(tmp_path) as broker, forwarder(lambda: broker.plaintext) as address:
        topic = broker.topic()
        async with (
            producer(address, topic, keep_trying=True) as out,
            consumer(address, topic, session_timeout=1) as reader,
            consumer(address, topic, group="alone", alone=True) as by_itself,
        ):
            await asyncio.wait_for(by_itself.placed.wait(), 120)
            await out.send(topic, b"0", key="k", timeout=60)
            for one in (reader, by_itself):
                await read(one, 1)
            broker.kill()
            broker.move()
            waiting = [out.post(topic, str(n).encode(), key="k") for n in range(1, 50)]
            await broker.start()
            async with asyncio.timeout(120):
                await asyncio.gather(*waiting)
            # The first may come again: where it was read to was committed nowhere.
            found = [m.value for m in await read(reader, 49)]
            while found[-1] != b"49":
                found += [m.value for m in await read(reader, 1)]
            assert [value for value in found if value != b"0"] == [str(n).encode() for n in range(1, 50)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_who_has_the_password_and_the_right_may_send(kafka, mechanism):
    topic = kafka.topic()
    kafka.allow(topic, "WRITE", "DESCRIBE")
    sasl = {"mechanism": mechanism, "username": kafka.user, "password": kafka.password}
    async with producer(connection(kafka.sasl_ssl, sasl=sasl, tls={"ca": kafka.ca}), topic) as out:
        await out.send(topic, b"x", key="k", timeout=60)


async def test_who_shows_a_certificate_may_too(kafka):
    topic = kafka.topic()
    kafka.allow(topic, "WRITE", "DESCRIBE")
    tls = {"ca": kafka.ca, "certificate": kafka.certificate, "key": kafka.key}
    async with producer(connection(kafka.mtls, tls=tls), topic) as out:
        await out.send(topic, b"x", key="k", timeout=60)


async def test_a_wrong_password_is_one_clear_line_without_the_password(kafka):
    sasl = {"mechanism": "PLAIN", "username": kafka.user, "password": "not-the-one"}
    reports = Reports()
    async with producer(connection(kafka.sasl_plaintext, sasl=sasl), "t", reports=reports) as out:
        await until(lambda: out._health.counts["authentication"] >= 2)
        with pytest.raises(NotSentError, match="refuses our login"):
            await out.send("t", b"x", key="k", timeout=1)
    assert [detail for up, detail in reports if up is False and "login" in detail] == [reports[-1][1]]
    assert "not-the-one" not in str(reports)


async def test_topics_and_groups_without_a_right_are_named(kafka):
    topic = kafka.topic()
    sasl = {"mechanism": "PLAIN", "username": kafka.user, "password": kafka.password}
    login = connection(kafka.sasl_plaintext, sasl=sasl)
    reports = Reports()
    async with producer(login, topic, reports=reports) as out:
        # What is met first may be that it may not write idempotently.
        await until(lambda: f"does not let us use topic {topic}" in out.trouble(topic))
        with pytest.raises(NotSentError, match=f"does not let us use topic {topic}"):
            await out.send(topic, b"x", key="k", timeout=1)
        kafka.allow(topic, "WRITE", "READ", "DESCRIBE")
        await until(lambda: not out.trouble(topic))
        await out.send(topic, b"x", key="k", timeout=60)
    reports = Reports()
    async with consumer(login, topic, group=topic, reports=reports) as reader:
        await until(lambda: f"does not let us use group {topic}" in str(reports))
        kafka.allow_group(topic)
        assert (await read(reader, 1))[0].value == b"x"
        await until(lambda: reports.ups[-1] is True)


async def test_topics_are_created_once_and_what_is_in_the_way_is_said(kafka):
    name = f"made.{id(kafka)}"
    wanted = [NewTopic(name, 3, 1, {"cleanup.policy": "compact"})]
    made = await create_topics(connection(kafka.plaintext), wanted, client_id="test", log=LOG)
    assert made == [name]
    assert not await create_topics(connection(kafka.plaintext), wanted, client_id="test", log=LOG)
    too_many = [NewTopic(f"{name}.more", 1, 3)]
    with pytest.raises(GatewayError, match="can't create topic"):
        await create_topics(connection(kafka.plaintext), too_many, client_id="test", log=LOG)


async def test_a_small_message_is_not_refused_for_those_it_leaves_with(kafka):
    """A broker measures batches: what leaves at the same moment must not be one that the topic does not take."""
    topic = f"small-{uuid4().hex[:8]}"
    kafka.make(topic, max_message_bytes=2000)
    async with producer(kafka.plaintext, topic) as out:
        await until(lambda: out.up)
        values = [bytes([65 + n % 26]) * 400 for n in range(100)]
        await asyncio.gather(*(out.send(topic, value, key="k", timeout=60) for value in values))
