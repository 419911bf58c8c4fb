"""What becomes of topics while they are read, on a real cluster: made anew, cut by retention, given more partitions."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import structlog

import gateway.kafka.consumer as consumer_module
from gateway.core.errors import GatewayError
from gateway.kafka import Assigned, Consumer, Health, TopicIds
from gateway.kafka.marks import Mark
from tests.kafka.test_clients import LOG, connection, read
from tests.kafka.test_health import Reports
from tests.kit.bench import until

WAYS = pytest.mark.parametrize("alone", [False, True], ids=["in a group", "alone"])
QUICK = {"fetch.wait.max.ms": 20, "topic.metadata.refresh.interval.ms": 500}


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(consumer_module, "LOOK", 0.3)
    monkeypatch.setattr(consumer_module, "LOOK_SOON", 0.1)


@asynccontextmanager
async def reading(kafka, topic, *, alone, knows_ids=True):
    """A consumer with the ids of topics, as bridges have it."""
    where = connection(kafka.plaintext, options=QUICK)
    ids = TopicIds(where, "test", LOG) if knows_ids else None
    made = Consumer(
        where, "in", [topic], group=topic, client_id="test", health=Health(Reports()), log=LOG, session_timeout=1,
        alone=alone, ids=ids,
    )  # fmt: skip
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        if ids is not None:
            ids.close()


def numbers(messages):
    """What stands in them, sorted: a producer that meets a topic made anew may send its first message again."""
    return sorted(int(message.value) for message in messages)


def send(kafka, topic, *these):
    kafka.send(topic, b"k", *(str(number).encode() for number in these))


async def settled(kafka, topic, offset, partition=0):
    await until(lambda: kafka.committed(topic, topic, partition) == offset)


def lines(logs, word):
    return [entry for entry in logs if word in entry["event"]]


@WAYS
async def test_a_topic_made_anew_is_read_from_its_beginning_though_it_has_grown_past_our_place(kafka, alone):
    topic = kafka.topic()
    send(kafka, topic, *range(10))
    async with reading(kafka, topic, alone=alone) as reader:
        await until(lambda: reader._topic_ids)
        if alone:
            await asyncio.wait_for(reader.placed.wait(), 120)
            send(kafka, topic, *range(10, 20))
        await read(reader, 10, commit=True)
        await until(lambda: (kafka.committed(topic, topic) or 0) >= 10)
        await asyncio.to_thread(kafka.make_again, topic)
        send(kafka, topic, *range(100, 130))
        with pytest.raises(GatewayError, match=rf"the topic {topic} was made anew"):
            await read(reader, 1000, commit=True)
    async with reading(kafka, topic, alone=alone) as reader:
        assert numbers(await read(reader, 30, commit=True)) == [*range(100, 130)]
        await settled(kafka, topic, 30)


@WAYS
async def test_without_ids_a_topic_made_anew_shows_by_its_offsets(kafka, alone):
    topic = kafka.topic()
    send(kafka, topic, *range(10))
    kafka.place(topic, topic, 0)
    async with reading(kafka, topic, alone=alone, knows_ids=False) as reader:
        await read(reader, 10, commit=True)
        await settled(kafka, topic, 10)
        await asyncio.to_thread(kafka.make_again, topic)
        send(kafka, topic, 100, 101, 102)
        # Who is alone may have looked while there was no topic: then it just reads the new one.
        with suppress(GatewayError):
            assert numbers(await read(reader, 3, commit=True)) == [100, 101, 102]
            await settled(kafka, topic, 3)
            return
    async with reading(kafka, topic, alone=alone, knows_ids=False) as reader:
        assert numbers(await read(reader, 3, commit=True)) == [100, 101, 102]
        await settled(kafka, topic, 3)


@WAYS
async def test_a_place_kept_in_a_topic_of_the_same_name_says_nothing_of_this_one(kafka, alone):
    topic = kafka.topic()
    send(kafka, topic, *range(10))
    kafka.place(topic, topic, 0)
    async with reading(kafka, topic, alone=alone) as reader:
        await read(reader, 10, commit=True)
        await settled(kafka, topic, 10)
        [kept] = await asyncio.to_thread(kafka.places, topic, topic)
    await asyncio.to_thread(kafka.make_again, topic)
    send(kafka, topic, *range(100, 130))
    # Kafka forgets places with their topic, yet a commit that was under way brings them back.
    kafka.place(topic, topic, 10, mark=kept.metadata)
    with structlog.testing.capture_logs() as logs:
        async with reading(kafka, topic, alone=alone) as reader:
            change = await asyncio.wait_for(anext(reader.changes()), 120)
            assert isinstance(change, Assigned)
            assert change.committed[topic, 0] < 0
            assert numbers(await read(reader, 30)) == [*range(100, 130)]
    assert len(lines(logs, "was made anew")) == 1


@WAYS
async def test_a_place_past_the_end_is_one_of_another_topic(kafka, alone):
    topic = kafka.topic()
    send(kafka, topic, 100, 101)
    kafka.place(topic, topic, 10)
    with structlog.testing.capture_logs() as logs:
        async with reading(kafka, topic, alone=alone) as reader:
            assert numbers(await read(reader, 2, commit=True)) == [100, 101]
            await settled(kafka, topic, 2)
    assert len(lines(logs, "was made anew")) == 1


@WAYS
async def test_what_retention_deleted_while_nobody_read_is_said_once_and_the_rest_is_read(kafka, alone):
    topic = kafka.topic()
    send(kafka, topic, *range(10))
    kafka.place(topic, topic, 2)
    await asyncio.to_thread(kafka.delete_before, topic, 7)
    with structlog.testing.capture_logs() as logs:
        async with reading(kafka, topic, alone=alone) as reader:
            assert numbers(await read(reader, 3, commit=True)) == [7, 8, 9]
            await settled(kafka, topic, 10)
    assert [(entry["partition"], entry["count"]) for entry in lines(logs, "retention")] == [(0, 5)]


@WAYS
async def test_what_retention_deletes_before_a_slow_reader_is_said(kafka, alone, monkeypatch):
    monkeypatch.setattr(consumer_module, "MAX_HELD_MESSAGES", 10)
    topic = kafka.topic()
    kafka.place(topic, topic, 0)
    with structlog.testing.capture_logs() as logs:
        async with reading(kafka, topic, alone=alone) as reader:
            await asyncio.wait_for(reader.placed.wait(), 120)
            send(kafka, topic, *range(20))
            await until(lambda: reader._is_paused)
            send(kafka, topic, *range(20, 60))
            await asyncio.to_thread(kafka.delete_before, topic, 50)
            found = []
            while found[-1:] != [59]:  # how much was on its way when it paused is nobody's promise
                found += numbers(await read(reader, 1, commit=True))
            assert (found, found[0], found[-10:]) == (sorted(set(found)), 0, [*range(50, 60)])
            await settled(kafka, topic, 60)
    said = lines(logs, "retention")
    assert sum(entry["count"] for entry in said) == 60 - len(found)
    assert len(said) <= 1


async def test_partitions_that_are_added_are_found_and_read_from_their_beginning(kafka):
    topic = kafka.topic()
    with structlog.testing.capture_logs() as logs:
        async with reading(kafka, topic, alone=True) as reader:
            await asyncio.wait_for(reader.placed.wait(), 120)
            send(kafka, topic, 0)
            await read(reader, 1, commit=True)
            await asyncio.to_thread(kafka.more_partitions, 3, topic)
            for partition in (1, 2):
                kafka.send_to(topic, partition, str(partition).encode())
            assert numbers(await read(reader, 2, commit=True)) == [1, 2]
            for partition in range(3):
                await settled(kafka, topic, 1, partition)
    assert [(entry["partition"], entry["gone"]) for entry in lines(logs, "partitions of a topic")] == [
        (1, False),
        (2, False),
    ]


async def test_a_group_reads_partitions_that_are_added_from_their_beginning(kafka):
    topic = kafka.topic()
    async with reading(kafka, topic, alone=False) as reader:
        send(kafka, topic, 0)
        await read(reader, 1, commit=True)
        await asyncio.to_thread(kafka.more_partitions, 2, topic)
        kafka.send_to(topic, 1, b"1")
        found = []
        while 1 not in found:
            found += numbers(await read(reader, 1, commit=True))
        await settled(kafka, topic, 1, 1)


async def test_a_twin_with_the_same_settings_is_named_and_a_restart_is_none(kafka):
    topic = kafka.topic()
    send(kafka, topic, 0)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            async with reading(kafka, topic, alone=True) as reader:
                await until(lambda reader=reader: reader._kept)
                await until(lambda: Mark.read(kafka.places(topic, topic)[0].metadata).run == reader._run)
                looks = reader._look_at
                await until(lambda reader=reader, looks=looks: reader._look_at > looks + 1)
    assert not lines(logs, "another gateway has our settings")
    with structlog.testing.capture_logs() as logs:
        async with reading(kafka, topic, alone=True), reading(kafka, topic, alone=True):
            await until(lambda: lines(logs, "another gateway has our settings"))
