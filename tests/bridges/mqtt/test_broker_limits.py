"""What a broker says that it takes, or shows by hanging up, bounds all that is sent: M1 to M4 and M10 of the trials."""

import asyncio
import json

import pytest
from prometheus_client.registry import REGISTRY

import gateway.bridges.mqtt.suspicion as suspicion_module
import gateway.bridges.mqtt.under_way as under_way_module
from gateway.bridges.mqtt.message import Message
from tests.bridges.mqtt.brokers import narrow
from tests.bridges.mqtt.peer import peer
from tests.bridges.mqtt.test_odd_brokers import quiet
from tests.kit.bench import INVERTER, until
from tests.kit.mosquitto import mosquitto

SN = INVERTER.serial
STATE = f"sems/{SN}"
RESULT = f"sems/{SN}/result"
NO_RETAIN = b"\x25\x00"
"""Retain Available, MQTT 5.0 §3.2.2.3.5."""
NO_WILDCARDS = b"\x28\x00"


@pytest.fixture(autouse=True)
def _quick_proof(monkeypatch):
    monkeypatch.setattr(suspicion_module, "PROVEN_AFTER", 0.1)


def unsent(why):
    return REGISTRY.get_sample_value("sems_gateway_mqtt_unsent_total", {"bridge": "mqtt", "why": why})


def client_of(gateway):
    return gateway.runner.bridge._client


def packet_limit(size):
    """Maximum Packet Size, MQTT 5.0 §3.2.2.3.6."""
    return b"\x27" + size.to_bytes(4)


async def test_what_is_too_large_for_mosquitto_is_left_out_and_the_rest_goes_on(tmp_path, bench, capsys):
    """M4: one connection, small devices are whole, and the large configs are named."""
    async with mosquitto(tmp_path, extra=["max_packet_size 2000"]) as broker, peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.announce(serial="small", setpoints={})
        gateway.publish(**{f"string_{n}_voltage": 600.0 + n for n in range(1, 9)}, ac_power=1.0, status="normal")
        gateway.publish("small", ac_power=2.0)
        gateway.connect(broker, home_assistant=True)
        await it.next(STATE, lambda m: m["ac_power"] == 1.0)
        await it.next("sems/small", lambda m: m["ac_power"] == 2.0)
        it.publish(f"{STATE}/set/running", "on")
        await it.result(SN, "succeeded")
        config = f"homeassistant/device/test-gateway_{SN}/config"
        await until(lambda: config in gateway.status.detail)
        assert gateway.status.up
        assert f"{config} (it is too large)" in gateway.status.detail
        assert client_of(gateway).opened == 1, "the broker never hung up"
        assert not it.all(config)
        assert unsent("too_large") >= 1
        log = capsys.readouterr().out
        assert log.count(f"topic={config} ") == 1, "told once"
        assert "limit=19" in log


async def test_a_thousand_devices_come_in_pages_that_the_broker_takes(tmp_path, bench):
    """M1."""
    limit = 128 * 1024
    async with (
        mosquitto(tmp_path, extra=[f"max_packet_size {limit}"]) as broker,
        peer(broker) as it,
        bench() as gateway,
    ):
        for n in range(1000):
            gateway.announce(serial=f"SN{n:04}", name="A rather long name of a plant and of the inverter on its roof")
        gateway.connect(broker, qos=0)
        await gateway.up()
        topic, offset, found = "sems/bridge/response/devices", 0, []
        while offset is not None:
            it.publish("sems/bridge/request/devices", {"id": offset, "offset": offset})
            answer = await it.next(topic, lambda m, offset=offset: m["id"] == offset)
            page = answer["data"]
            assert page["total"] == 1000
            found += [device["serial"] for device in page["devices"]]
            offset = page["next"]
        assert found == [f"SN{n:04}" for n in range(1000)]
        sizes = [len(m.payload) for m in it.messages if m.topic == topic]
        assert len(sizes) > 1
        assert 0.9 * limit < max(sizes) < limit
        assert client_of(gateway).opened == 1


async def test_an_answer_for_which_there_is_no_room_says_so(bench):
    async with narrow(properties=packet_limit(200)) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await quiet(gateway)
        bridge, answers = gateway.runner.bridge, []
        bridge._outbox.put_result = lambda message, **_: answers.append(message)
        for name in ("devices", "health"):
            bridge._receive(Message(topic=f"sems/bridge/request/{name}", payload=b'{"id": 1}'))
        assert [json.loads(answer.payload)["error"]["reason"] for answer in answers] == ["out_of_range"] * 2
        assert max(len(answer.payload) for answer in answers) < 160


async def test_mosquitto_with_qos_0_and_no_retained_messages(tmp_path, bench):
    """M2: the will too, which goes out before the broker can say so."""
    lines = ["max_qos 0", "retain_available false"]
    async with mosquitto(tmp_path, extra=lines) as broker, peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker)
        await gateway.up()
        opened = client_of(gateway).opened
        assert opened <= 3, "once to learn that a will may not be retained, once of its QoS"
        gateway.publish(ac_power=2.0)
        await it.next(STATE, lambda m: m["ac_power"] == 2.0)
        it.publish(f"{STATE}/set/running", "on", qos=0)
        await it.result(SN, "succeeded")
        gateway.router.withdraw("scripted", SN)
        await it.next(f"{STATE}/availability", lambda m: m == "offline")
        assert client_of(gateway).opened == opened
        assert gateway.status.detail == ""


async def test_of_what_is_not_retained_nothing_is_cleared(bench):
    async with narrow(properties=NO_RETAIN) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await quiet(gateway)
        gateway.router.withdraw("scripted", SN)
        await until(lambda: broker.topics.count(f"{STATE}/availability") >= 2)
        await quiet(gateway)
        assert broker.topics.count(STATE) == 1
        assert not broker.retained


async def test_a_broker_without_wildcards_gets_no_filter_with_one(bench):
    async with narrow(properties=NO_WILDCARDS) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        status = await gateway.up()
        assert broker.subscribes == [["homeassistant/status"]]
        assert "SUBSCRIBE sems/+/set (it knows no wildcards in subscriptions)" in status.detail


async def test_other_limits_of_the_next_connection_are_a_new_chance(bench):
    async with narrow(properties=packet_limit(60)) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await quiet(gateway)
        assert f"{STATE}/device (it is too large)" in gateway.status.detail
        broker.properties = broker.properties[:3]
        broker.topics.clear()
        broker.break_connections()
        await until(lambda: f"{STATE}/device" in broker.topics)
        await until(lambda: gateway.status.up and gateway.status.detail == "")


async def test_the_limits_of_a_known_broker_hold_where_it_says_nothing(bench):
    users = [f"user{n}" for n in range(10)]
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        gateway.announce(serial="S" * 250)
        # Seven levels, and that of the device: one more is too many.
        gateway.connect(broker, broker="aws-iot", base="a/b/c/d/e/f/g", qos=2, protocol="3.1.1", users=users)
        await quiet(gateway)
        assert f"a/b/c/d/e/f/g/{SN}" in broker.topics
        assert not [topic for topic in broker.topics if topic.count("/") > 7 or len(topic) > 256]
        assert {*broker.qos} <= {0, 1}
        assert "the topic is too long or too deep" in gateway.status.detail
        assert client_of(gateway).limits.in_flight == 100
    async with narrow() as broker, bench() as gateway:
        gateway.connect(broker, broker="aws-iot", users=users)
        await gateway.up()
        assert max(map(len, broker.subscribes)) == 8
        assert sum(map(len, broker.subscribes)) == 33


async def test_what_is_said_of_a_broker_narrows_its_preset_and_its_word(bench):
    limits = {"filters": 2, "payload": "100 B", "in_flight": 3, "retain": False, "rate": 1000}
    async with narrow(receive_maximum=2) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, broker="aws-iot", limits=limits)
        await quiet(gateway)
        assert max(map(len, broker.subscribes)) == 2
        assert broker.most == 2
        assert not broker.retained
        assert f"{STATE}/device (it is too large)" in gateway.status.detail


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_live_topic_on_which_the_broker_hangs_up_is_set_aside_and_the_rest_goes_on(bench, capsys, qos):
    """M3, with MQTT 3.1.1, which has no word for it."""
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        gateway.announce(serial="good")
        broker.unbearable = (f"{STATE}/device",)
        details = []
        gateway.connect(broker, protocol="3.1.1", qos=qos)
        report = gateway.runner.bridge._context.report
        gateway.runner.bridge._context.report = lambda **how: details.append(how["detail"]) or report(**how)
        await until(lambda: gateway.status and gateway.status.up and f"{STATE}/device" in gateway.status.detail)
        await until(lambda: {STATE, "sems/good", "sems/good/device", "sems/good/availability"} <= {*broker.topics})
        await quiet(gateway)
        hung_up = broker.hung_up
        assert hung_up <= 6, "once among others, once among a few, twice alone"
        gateway.announce(serial=SN, name="renamed")
        await until(lambda: unsent("hung_up") >= 2)
        await quiet(gateway)
        assert broker.hung_up == hung_up
        assert not [detail for detail in details if "another client" in detail], "a hint that would mislead"
        assert f"topic={STATE}/device" in capsys.readouterr().out


async def test_a_kind_of_topics_that_is_not_permitted_costs_few_connections(bench):
    """Nobody forgets the rule of one device: the line of access rules is missing."""
    async with narrow() as broker, bench() as gateway:
        for n in range(30):
            gateway.announce(serial=f"SN{n:02}")
        broker.unbearable = lambda topic, _: topic.endswith("/availability")
        gateway.connect(broker, protocol="3.1.1")
        done = "and 27 more topics"
        await until(
            lambda: broker.hung_up > 15 or (gateway.status and gateway.status.up and done in gateway.status.detail)
        )
        assert broker.hung_up <= 15, "not twice for each"
        await until(lambda: {"sems/SN29/device", "sems/SN29"} <= {*broker.topics})
        await quiet(gateway)
        assert broker.hung_up <= 15, "not twice for each"


async def test_of_a_topic_at_which_a_message_was_too_large_smaller_ones_still_come(bench):
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, protocol="3.1.1")
        await quiet(gateway)
        broker.unbearable = lambda _, payload: len(payload) > 1000
        outbox = gateway.runner.bridge._outbox
        for size in (900, 1500, 2000, 800):
            outbox.put_result(Message(topic="answers", payload=bytes(size)))
        await until(lambda: outbox.dropped_results == 2)
        await quiet(gateway)
        assert broker.hung_up <= 6
        assert client_of(gateway).room("answers") == 1499, "so the next answer is paged to this"


async def test_a_filter_on_which_the_broker_hangs_up_is_set_aside(bench):
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        broker.unbearable = ("sems/+/set/+",)
        gateway.connect(broker, protocol="3.1.1")
        status = await gateway.up()
        assert "SUBSCRIBE sems/+/set/+ (it hangs up over this)" in status.detail
        await quiet(gateway)
        assert broker.hung_up <= 6
        assert ["sems/+/set", "sems/bridge/request/+"] in broker.subscribes


async def test_after_an_outage_live_states_come_before_what_was_kept(bench):
    async with narrow() as broker, bench() as gateway:
        for n in range(200):
            gateway.announce(serial=f"SN{n:03}")
        gateway.connect(broker)
        await quiet(gateway)
        outbox = gateway.runner.bridge._outbox
        broker.acknowledging = False
        for n in range(9_000):
            outbox.put_result(Message(topic="kept", payload=b"%d" % n))
        await until(lambda: "kept" in broker.topics)
        broker.acknowledging = True
        broker.break_connections()
        before = len(broker.topics)
        await until(lambda: broker.topics[before:].count("kept") >= 9_000)
        seen = broker.topics[before + 500 :]  # what was under way when the connection broke
        first = seen.index("kept")
        live = {topic for topic in broker.topics[before : before + 500 + first] if topic.startswith("sems/SN")}
        assert {f"sems/SN{n:03}" for n in range(200)} <= live
        assert outbox.dropped_results == 0


async def test_a_topic_that_mosquitto_refuses_is_in_log_status_and_metrics(tmp_path, bench, capsys):
    """M10."""
    acl = tmp_path / "acl"
    acl.write_text(f"user sems\ntopic write sems/bridge/#\ntopic write {STATE}\ntopic read sems/#\n")
    async with mosquitto(tmp_path, users={"sems": "x"}, extra=[f"acl_file {acl}"]) as broker, bench() as gateway:
        gateway.connect(broker, username="sems", password="x")
        await gateway.up()
        gateway.runner.bridge._outbox.put_result(Message(topic=RESULT, payload=b"{}"))
        await until(lambda: gateway.status.up and RESULT in gateway.status.detail)
        assert f"{RESULT} (Not authorized)" in gateway.status.detail
        assert unsent("refused") == 1
        assert f"topic={RESULT}" in capsys.readouterr().out


async def test_a_broker_that_wants_fewer_messages_a_second_gets_no_more(bench):
    async with narrow() as broker, bench() as gateway:
        for n in range(20):
            gateway.announce(serial=f"SN{n:02}")
        began = asyncio.get_running_loop().time()
        gateway.connect(broker, limits={"rate": 50})
        await until(lambda: len(broker.topics) >= 60)
        took = asyncio.get_running_loop().time() - began
        assert took > 55 / 50 - 0.1, "but for a burst"


async def test_the_keep_alive_is_the_brokers(bench):
    """Server Keep Alive, MQTT 5.0 §3.2.2.3.14: paho sees to it."""
    async with narrow(properties=b"\x13\x00\x07") as broker, bench() as gateway:
        gateway.connect(broker, keepalive=600)
        await gateway.up()
        assert client_of(gateway)._paho._keepalive == 7


async def test_a_link_that_dies_long_after_a_message_of_qos_0_blames_nobody(bench, monkeypatch):
    """Nobody acknowledges those: that the last one was the last is no sign."""
    monkeypatch.setattr(under_way_module, "RECENT", 0.05)
    async with narrow() as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, qos=0)
        for n in range(4):
            await until(lambda n=n: broker.topics.count(f"{STATE}/availability") > n)
            await gateway.up()
            await asyncio.sleep(0.2)  # the link is idle for longer than a broker takes to hang up
            broker.break_connections()
        await until(lambda: broker.topics.count(f"{STATE}/availability") > 4)
        assert unsent("hung_up") == 0
