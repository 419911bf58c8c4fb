"""Results among 10,000 records of whatever there is, and among 100,000 of others: all that are ours are heard."""

import asyncio
import json
import os
import random

import msgspec
from confluent_kafka import Consumer

import gateway.kafka.consumer as consumer_module
from gateway.core.model import CommandState, new_command_id
from tests.bridges.batch.kit import HOUSE, ROOF, make_topics, plant, result
from tests.kit.bench import until
from tests.kit.kafka_hostile import ANY_TIME, flood

OTHERS = int(os.environ.get("SEMS_GATEWAY_SOAK_RESULTS", "3000"))
"""Results of other gateways in the topic; `make soak` takes 100,000."""


async def test_results_among_rubbish_are_heard(kafka, tmp_path):
    serials = [f"SN{number:04}" for number in range(20)]
    async with plant(tmp_path / "data", kafka, simulated=False, before=lambda it: make_topics(it, **ANY_TIME)) as it:
        for serial in serials:
            it.announce(it.router.state(HOUSE).device, serial=serial)
        it.join(whitelist=serials, result_within=120)
        await it.up()
        commands = await it.send(*(it.command(serial=serial, ttl=300) for serial in serials))
        sent, count = [], 0
        while count < len(serials):
            sent = await it.commands(len(sent) + 1)
            count = sum(len(body["items"]) for body in sent)
        good = [
            (b"key", json.dumps(result(body["requestId"], (item["sn"], "00000"))).encode())
            for body in sent
            for item in body["items"]
        ]
        topic = it.topic("active_power", "result")
        sample = result(new_command_id(), ("9010KETU000W0009", "00000"))
        await asyncio.to_thread(flood, kafka, topic, random.Random(3), 10_000, [sample], good)
        ends = await it.ended(*commands)
        assert {end.state for end in ends} == {CommandState.SUCCEEDED}
        assert it.figures().bad["not_json"] > 1000
        group = f"gateway.{it.prefix}"
        await until(lambda: sum(kafka.committed(group, topic, p) or 0 for p in range(2)) > 10_000)


async def test_a_first_start_is_at_the_time_of_the_first_command_and_others_results_cost_little(kafka, tmp_path):
    async with plant(tmp_path / "data", kafka, simulated=False) as it:
        topic = it.topic("active_power", "result")
        others = [json.dumps(result(new_command_id(), (HOUSE, "00000"))).encode() for _ in range(OTHERS)]
        old = 1_600_000_000_000
        for value in others[:1000]:
            kafka._producer.produce(topic, value, b"k", timestamp=old)
        kafka._producer.flush(60)
        it.join()
        await it.up()
        [command] = await it.send(it.command(serial=HOUSE, ttl=300))
        [sent] = await it.commands(1)
        asked = []
        bridge = it.runners[-1].bridge
        known = bridge._context._services.dispatcher
        ask = known.commands_by_receipt

        async def counted(receipts):
            asked.append(len(receipts))
            return await ask(receipts)

        known.commands_by_receipt = counted
        await asyncio.to_thread(kafka.send, topic, b"k", *others)
        await it.answer(result(sent["requestId"], (HOUSE, "00000")))
        assert (await it.ended(command))[0].state is CommandState.SUCCEEDED
        group = f"gateway.{it.prefix}"
        await until(lambda: sum(kafka.committed(group, topic, p) or 0 for p in range(2)) == 1001 + OTHERS)
        assert it.figures().results["unmatched"] == OTHERS, "what was there before the first start is none of ours"
        assert sum(asked) == OTHERS
        assert len(asked) <= OTHERS / 3, "the journal is asked about many at once"


async def test_gateways_that_name_one_group_take_no_results_from_each_other(kafka, tmp_path):
    async with (
        plant(tmp_path / "one", kafka, simulated=False) as one,
        plant(tmp_path / "two", kafka, prefix=one.prefix) as two,
    ):
        for name, it in (("one", one), ("two", two)):
            # Of one name they would put each other out, were they members.
            it.services = msgspec.structs.replace(it.services, gateway_id=name)
            it.join()
            await it.up()
        # Results go to either partition, as it happens.
        for value in range(8):
            for it in (one, two):
                commands = [it.command(value=value, serial=serial, ttl=300) for serial in (HOUSE, ROOF)]
                ends = await it.ended(*await it.send(*commands))
                assert [end.state for end in ends] == [CommandState.SUCCEEDED] * 2


async def test_a_stranger_in_our_group_is_named_and_takes_nothing_from_us(kafka, tmp_path, capsys):
    async with plant(tmp_path / "data", kafka) as it:
        group = f"gateway.{it.prefix}"
        stranger = Consumer({"bootstrap.servers": kafka.plaintext, "group.id": group})
        stranger.subscribe([it.topic("active_power", "result")])
        try:
            await until(lambda: stranger.poll(0.05) is None and stranger.assignment())
            it.join()
            await it.up()
            out = []
            for value in range(2):
                assert (await it.ended(*await it.send(it.command(value=value, serial=HOUSE, ttl=300))))[0].detail
            await until(
                lambda: out.append(capsys.readouterr().out) or "another program reads in our group" in "".join(out)
            )
        finally:
            stranger.close()
        assert all(e.state is not CommandState.UNKNOWN for e in it.events)


async def test_a_result_topic_made_anew_while_a_command_is_under_way_brings_its_result(kafka, tmp_path, monkeypatch):
    monkeypatch.setattr(consumer_module, "LOOK", 0.3)
    monkeypatch.setattr(consumer_module, "LOOK_SOON", 0.1)
    async with plant(tmp_path / "data", kafka, simulated=False) as it:
        runner, topic, group = it.join(result_within=120), it.topic("active_power", "result"), f"gateway.{it.prefix}"
        await it.up()
        others = [json.dumps(result(new_command_id(), (HOUSE, "00000"))).encode() for _ in range(50)]
        kafka.send(topic, b"k", *others[:20])
        await until(lambda: sum(kafka.committed(group, topic, p) or 0 for p in range(2)) == 20)
        [command] = await it.send(it.command(serial=HOUSE, ttl=300))
        [sent] = await it.commands(1)
        await until(lambda: topic in runner.bridge._consumer._topic_ids)
        await asyncio.to_thread(kafka.make_again, topic, 2)
        # Ours comes first, and by the time that anybody looks the topic has grown past our place in the old one.
        await it.answer(result(sent["requestId"], (HOUSE, "00000")))
        kafka.send(topic, b"key", *others)
        assert (await it.ended(command))[0].state is CommandState.SUCCEEDED
        await it.up()
        await until(lambda: sum(kafka.committed(group, topic, p) or 0 for p in range(2)) == 51)
