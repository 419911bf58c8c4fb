"""Connections: what CONNECT, SUBSCRIBE and DISCONNECT say, bdSeq from one to the next, and death."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.bridges.mqtt.sparkplug.statements import checks
from tests.bridges.mqtt.sparkplug.tap import CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, connect_of, tapped
from tests.kit.bench import INVERTER, until
from tests.kit.sparkplug import metrics_of

SN = INVERTER.serial
NDEATH = "spBv1.0/sems/NDEATH/test-gateway"


def bd_seq(message):
    return int(metrics_of(message)["bdSeq"]["long_value"])


@checks(
    "principles-persistence-clean-session-311", "principles-persistence-clean-session-50",
    "message-flow-edge-node-birth-publish-connect", "message-flow-edge-node-birth-publish-will-message",
    "message-flow-edge-node-birth-publish-will-message-topic",
    "message-flow-edge-node-birth-publish-will-message-payload",
    "message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    "message-flow-edge-node-birth-publish-will-message-qos",
    "message-flow-edge-node-birth-publish-will-message-will-retained", "payloads-ndeath-will-message",
    "payloads-ndeath-will-message-qos", "payloads-ndeath-will-message-retain", "topics-ndeath-topic",
    "topics-ndeath-payload", "topics-ndeath-seq", "payloads-ndeath-seq",
    "message-flow-edge-node-ncmd-subscribe", "message-flow-device-dcmd-subscribe", "topics-ncmd-topic",
    "topics-dcmd-topic",
)  # fmt: skip
async def test_connect_and_subscribe(broker, host, node, protocol):
    async with tapped(broker) as tap, node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(tap, protocol=protocol)
        await host.count(1, "DBIRTH", SN)
        assert [packet.kind for packet in tap.packets[:3]] == [CONNECT, SUBSCRIBE, PUBLISH]
        connect = connect_of(tap.packets[0])
        assert connect.level == {"5": 5, "3.1.1": 4}[protocol]
        assert (connect.clean, connect.session_expiry) == (True, 0)
        assert (connect.will_topic, connect.will_qos, connect.will_retain) == (NDEATH, 1, False)
        # One metric, bdSeq, Int64, 0; no seq: the fields of Sparkplug 3.0 §6.4.1 as bytes.
        assert connect.will_payload == bytes.fromhex("120b 0a056264536571 2004 5800".replace(" ", ""))
        subscribe = tap.packets[1].body[2:]
        wanted = [b"spBv1.0/sems/NCMD/test-gateway", b"spBv1.0/sems/DCMD/test-gateway/+"]
        for topic in wanted:
            at = subscribe.index(topic) + len(topic)
            assert subscribe[at] & 3 == 1, "QoS 1"
        assert b"STATE" not in subscribe


@checks(
    "topics-nbirth-bdseq-increment", "topics-nbirth-bdseq-matching", "payloads-nbirth-bdseq-repeat",
    "payloads-ndeath-bdseq",
)  # fmt: skip
async def test_every_connect_has_the_next_bdseq_and_so_has_its_birth(broker, host, node):
    async with tapped(broker) as tap, node() as gateway:
        gateway.connect(tap)
        for n in range(3):
            birth = await host.count(n + 1, "NBIRTH")
            assert bd_seq(birth) == n
            assert connect_of(tap.of(CONNECT)[n]).will_payload[-1] == n
            assert birth["payload"]["seq"] == "0"
            tap.cut()
            # The will of the lost connection has its number, not that of the next.
            assert bd_seq(await host.count(n + 1, "NDEATH")) == n
        await host.count(4, "NBIRTH")
    # Over a restart it goes on.
    async with tapped(broker) as tap, node() as gateway:
        gateway.connect(tap)
        assert bd_seq(await host.count(5, "NBIRTH")) == 4
        assert connect_of(tap.packets[0]).will_payload[-1] == 4


async def test_a_connection_that_never_got_to_connect_uses_up_no_bdseq(broker, host, node):
    async with node() as gateway:
        await broker.stop()
        gateway.connect(broker)
        await gateway.down("refused the connection")
        tries = []
        old = gateway.edge.next_will

        async def counted():
            tries.append(1)
            return await old()

        gateway.edge.next_will = counted
        await until(lambda: len(tries) >= 3, "three more tries")
        await broker.start()
        await gateway.up()
        assert gateway.edge._bd_seq == 0


async def test_bdseq_begins_again_after_255_and_each_node_has_its_own(broker, host, node, tmp_path):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "mqtt-sparkplug.json"
    file.write_text(json.dumps({"bd_seq": {"sems/test-gateway": 255, "sems/other": 7}}))
    async with node() as gateway:
        gateway.connect(broker)
        assert bd_seq(await host.count(1, "NBIRTH")) == 0
    assert json.loads(file.read_text())["bd_seq"] == {"sems/test-gateway": 0, "sems/other": 7}


async def test_a_broken_bdseq_file_and_a_full_disk_stop_nobody(broker, host, node, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mqtt-sparkplug.json").write_text("[")
    monkeypatch.setattr("gateway.core.files.replace", full)
    async with tapped(broker) as tap, node() as gateway:
        gateway.connect(tap)
        assert bd_seq(await host.count(1, "NBIRTH")) == 0
        tap.cut()
        assert bd_seq(await host.count(2, "NBIRTH")) == 1


@checks(
    "operational-behavior-edge-node-intentional-disconnect-ndeath",
    "operational-behavior-edge-node-intentional-disconnect-packet", "payloads-ndeath-will-message-publisher",
    "payloads-ndeath-will-message-publisher-disconnect-mqtt311",
    "payloads-ndeath-will-message-publisher-disconnect-mqtt50",
)  # fmt: skip
async def test_an_end_on_purpose_is_told_before(broker, host, node, protocol):
    async with tapped(broker) as tap:
        async with node() as gateway:
            gateway.connect(tap, protocol=protocol)
            await host.count(1, "NBIRTH")
        last = [packet for packet in tap.packets if packet.kind in (PUBLISH, DISCONNECT)][-2:]
    assert (last[0].topic, last[0].qos, last[0].retain) == (NDEATH, 1, False)
    assert last[1].kind == DISCONNECT
    assert last[1].body == {"5": b"\x04", "3.1.1": b""}[protocol], "MQTT 5: with the will"
    death = await host.count(1, "NDEATH")
    assert bd_seq(death) == 0
    assert "seq" not in death["payload"]
    assert "timestamp" not in death["payload"]


async def test_a_gateway_that_is_killed_is_dead_by_its_will(broker, host, tmp_path):
    directory = tmp_path / "killed"
    directory.mkdir()
    for n in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bridges.mqtt.sparkplug.alone", str(broker.port), str(directory),
            cwd=Path(__file__).parents[4],
        )  # fmt: skip
        try:
            await host.count(n + 1, "DBIRTH", SN)
        finally:
            process.kill()
            await process.wait()
        death = await host.count(n + 1, "NDEATH")
        assert bd_seq(death) == bd_seq(host.all("NBIRTH")[n]) == n


@checks("operational-behavior-primary-application-state-with-multiple-servers-single-server")
async def test_there_is_one_connection_at_a_time(broker, host, node):
    async with tapped(broker) as tap, node() as gateway:
        gateway.connect(tap)
        await host.count(1, "NBIRTH")
        tap.cut()
        await host.count(2, "NBIRTH")
        assert len(tap.of(CONNECT)) == 2
        # Each of the earlier ones has ended: the tap keeps the ends of the newest only.
        assert len(tap._writers) == 2


@pytest.mark.parametrize("qos", [0, 2])
async def test_the_settings_for_json_change_nothing(broker, host, node, qos):
    async with tapped(broker) as tap, node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(tap, qos=qos, retain=True, points=True)
        await host.count(1, "DBIRTH", SN)
        assert {(packet.qos, packet.retain) for packet in tap.of(PUBLISH)} == {(0, False)}
        assert all(topic.startswith("spBv1.0/") for topic in tap.published())


async def test_a_broker_that_is_stopped_just_after_a_message_blames_none(broker, node, protocol):
    """Under MQTT 3.1.1 a stop looks like a hang-up over what came last: what comes after the end tells them apart."""
    async with node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=0.0)
        gateway.connect(broker, protocol=protocol)
        details, now = [], asyncio.get_running_loop().time
        context = gateway.runner.bridge._context
        report = context.report
        context.report = lambda **how: details.append(how.get("detail", "")) or report(**how)
        for round_ in range(1, 4):
            await gateway.up()
            client = gateway.runner.bridge._client
            gateway.publish(ac_power=float(round_))
            await until(lambda client=client: any("DDATA" in one.topic for one in client._under_way.unproven(now())))
            await broker.stop()
            await gateway.down()
            await gateway.down("refused the connection")
            await broker.start()
        await gateway.up()
        assert not any("after a message" in detail or "set aside" in detail for detail in details), details
        assert not client._suspicion.watching
        assert not client.unsent.topics
