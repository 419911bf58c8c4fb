"""Brokers that say odd things, take little, or leave in the middle."""

import asyncio

import pytest

import gateway.bridges.mqtt.bridge as bridge_module
import gateway.bridges.mqtt.client as client_module
import gateway.bridges.mqtt.suspicion as suspicion_module
from gateway.bridges.mqtt.message import Message
from tests.bridges.mqtt.brokers import CONNACK, narrow, pretender
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial
RESULT = f"sems/{SN}/result"
LOST = 8
"""Connections until a message is given up, at most: on a busy machine some end before they count as one that works."""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "does not answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "broker"),
        (b"\x20\x03\x00\x89\x00", "is busy"),
        (b"\x20\x03\x00\x9d\x00", "refers to another broker"),
        (b"\x20\x03\x00\x83\x00", "refused us: Implementation specific error"),
        (b"\x20\x03\x00\x84\x00", "set protocol: 3.1.1"),
        (b"\x20\x02\x00\x01", "set protocol: 3.1.1"),
        (CONNACK, "does not answer"),
        (CONNACK + b"\xe0\x02\x8b\x00", "is shutting down"),
        (CONNACK + b"\xe0\x02\x81\x00", "closed the connection: Malformed packet"),
        (CONNACK + b"\x90\x00", "said what can't be understood"),
        (CONNACK + b"\xe0\x02\x8e\x00", "another client came with the id sems-gateway-test-gateway"),
        (b"\x20\x03\x00\x00\x02\xff\xff", "broker"),
    ],
)
async def test_odd_brokers_are_told_apart(bench, monkeypatch, answer, words):
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.3)
    async with pretender(answer) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await gateway.down(words)
        assert gateway.status.detail.endswith("; trying again")


async def test_a_topic_that_is_no_text_is_passed_over_in_one_line(bench, monkeypatch, capsys):
    """MQTT 5.0 §1.5.4 has it UTF-8. Another topic that came behind it is read."""
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT", 0.3)
    publish = b"\x30\x07\x00\x03a\xff\xfe\x00x" * 3
    async with pretender(CONNACK + publish) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await gateway.down("does not answer")
        said = capsys.readouterr().out
    assert said.count("its topic is no UTF-8") == 1
    assert "Traceback" not in said


async def test_a_broker_that_takes_few_at_a_time_is_not_overrun(bench):
    """Receive Maximum, MQTT 5.0 §3.2.2.3.3."""
    async with narrow(receive_maximum=2) as broker, bench() as gateway:
        for n in range(4):
            gateway.announce(serial=f"SN{n}")
        gateway.connect(broker)
        await until(lambda: "sems/SN3/availability" in broker.topics)
        assert broker.most == 2


async def test_a_subscription_that_is_refused_is_told_and_data_still_flow(bench):
    async with narrow(granted=0x87) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        status = await gateway.up()
        assert status.detail.startswith("the broker does not take SUBSCRIBE sems/+/set (Not authorized), SUBSCRIBE ")
        await until(lambda: f"sems/{SN}/availability" in broker.topics)


async def test_results_that_were_not_confirmed_when_the_connection_broke_are_sent_again(bench):
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await quiet(gateway)
        broker.acknowledging = False
        await gateway.dispatcher.submit(gateway.command())
        await until(lambda: broker.topics.count(RESULT) == 3)
        broker.acknowledging = True
        broker.break_connections()
        await until(lambda: broker.topics.count(RESULT) == 6)


async def test_what_waits_while_the_connection_breaks_comes_after_it(bench):
    async with narrow(receive_maximum=1) as broker, bench() as gateway:
        gateway.announce()
        gateway.announce(serial="gone")
        gateway.connect(broker)
        await quiet(gateway)
        broker.acknowledging = False
        await gateway.dispatcher.submit(gateway.command())
        # Of three results one is under way, one in hand, one waits.
        await until(lambda: RESULT in broker.topics and gateway.runner.bridge._outbox.waiting == 1)
        gateway.router.withdraw("scripted", "gone")
        await until(lambda: "gone" in gateway.runner.bridge._outbox.removed)
        broker.topics.clear()
        broker.acknowledging = True
        broker.break_connections()
        await until(lambda: broker.topics.count(RESULT) >= 3)
        await until(lambda: broker.topics.count("sems/gone/availability") == 2)


async def test_a_removal_that_the_broker_did_not_hear_of_is_made_up_for(bench):
    async with narrow(receive_maximum=1) as broker, bench() as gateway:
        gateway.announce()
        gateway.announce(serial="gone")
        gateway.connect(broker)
        await quiet(gateway)
        broker.acknowledging = False
        broker.topics.clear()
        gateway.router.withdraw("scripted", "gone")
        await until(lambda: "sems/gone/availability" in broker.topics)
        broker.topics.clear()
        broker.acknowledging = True
        broker.break_connections()
        await until(lambda: broker.topics.count("sems/gone/availability") == 2)


async def test_a_result_on_which_the_broker_hangs_up_is_given_up_and_the_rest_goes_on(bench, monkeypatch, capsys):
    monkeypatch.setattr(suspicion_module, "PROVEN_AFTER", 0.3)
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await quiet(gateway)
        outbox = gateway.runner.bridge._outbox
        broker.unbearable = ("bad",)
        for topic in ("first", "bad", "last"):
            outbox.put_result(Message(topic=topic, payload=topic.encode()))
        await until(lambda: outbox.dropped_results or broker.hung_up > LOST)
        assert outbox.dropped_results, "it is given up"
        await until(lambda: {"first", "last"} <= {*broker.topics})
        assert 3 <= broker.hung_up <= LOST, "once among others, twice alone"
        await quiet(gateway)
        before = broker.hung_up
        outbox.put_result(Message(topic="after", payload=b""))
        await until(lambda: "after" in broker.topics)
        assert (broker.hung_up, outbox.dropped_results) == (before, 1)
        log = capsys.readouterr().out
        assert "the broker does not take this" in log
        assert "topic=bad" in log


async def test_mosquitto_that_hangs_up_on_an_answer_gets_what_comes_after(broker, bench, protocol, monkeypatch):
    """It does so on a topic of more than 200 levels, which `response_topic` may no longer be."""
    monkeypatch.setattr(suspicion_module, "PROVEN_AFTER", 0.3)
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, protocol=protocol)
        await quiet(gateway)
        outbox = gateway.runner.bridge._outbox
        outbox.put_result(Message(topic="sems/response" + 220 * "/a", payload=b"{}"))
        outbox.put_result(Message(topic="sems/response/after", payload=b"{}"))
        await until(lambda: outbox.dropped_results, "it is given up")
        await it.next("sems/response/after")
        await it.next("sems/bridge/health", lambda health: health["dropped_results"] == 1)
        assert 4 <= gateway.runner.bridge._client.opened <= 1 + LOST, "lost once with others, twice alone"


async def test_outages_are_no_reason_to_give_a_result_up(bench, monkeypatch):
    """A broker that does not last any length of time says nothing about a message."""
    monkeypatch.setattr(suspicion_module, "PROVEN_AFTER", 0.5)
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await quiet(gateway)
        outbox = gateway.runner.bridge._outbox
        outbox.put_result(Message(topic="it", payload=b""))
        broker.unbearable = ("it",)
        await until(lambda: broker.hung_up)
        broker.unbearable = ("it", "sems/bridge/info")
        await until(lambda: broker.hung_up >= 6)
        broker.unbearable = ()
        sent = broker.topics.count("it")
        await until(lambda: broker.topics.count("it") > sent)
        await quiet(gateway)
        assert outbox.dropped_results == 0


async def quiet(gateway):
    """Wait until all that is known was published and confirmed."""
    await gateway.up()
    outbox, client = gateway.runner.bridge._outbox, gateway.runner.bridge._client
    await until(lambda: outbox._open and outbox._news._waiters and not client._under_way)


async def test_a_stopped_bridge_does_not_wait_for_a_silent_broker(bench, monkeypatch):
    monkeypatch.setattr(bridge_module, "GOODBYE_TIMEOUT", 0.1)
    async with pretender(CONNACK) as broker, bench() as gateway:
        gateway.connect(broker)
        await until(lambda: gateway.runner.bridge._client and gateway.runner.bridge._client.connected)
        async with asyncio.timeout(60):
            await gateway.runner.stop()


async def test_a_bridge_stopped_while_it_connects_leaves_no_connection(bench):
    async with pretender(b"") as broker, bench() as gateway:
        gateway.connect(broker)
        await until(lambda: gateway.runner.bridge._client)
        async with asyncio.timeout(60):
            await gateway.runner.stop()
