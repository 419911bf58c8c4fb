"""What the gateway writes to topics of its own, against Apache Kafka."""

import asyncio
import json
import uuid

import msgspec
import pytest

from gateway.bridges.kafka import KafkaBridge, KafkaSettings
from gateway.bridges.kafka.publisher import TURN, Publisher
from gateway.bridges.kafka.settings import PublishSettings
from gateway.bridges.kafka.skipped import Skipped
from gateway.core.mailbox import Updates
from gateway.core.model import Alarm, DeviceState, Quality
from gateway.kafka import Health, KafkaConnection, Producer
from tests.bridges.kafka.conftest import gateway
from tests.kit.bench import INVERTER, Silent, until
from tests.kit.kafka import Kafka

SN = INVERTER.serial


@pytest.fixture
def prefix():
    return f"p{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def ours(tmp_path):
    async with gateway(tmp_path / "ours", "ours") as found:
        yield found


def run(ours, kafka, prefix, **publish):
    publish = {"topics": {"prefix": prefix}, "create": {"partitions": 1}, "linger_ms": 0} | publish
    return ours.run(kafka.plaintext, group=prefix, session_timeout=1, publish=publish)


async def read(kafka, topic, count):
    """Return keys, and bodies without what every message has."""
    found = await asyncio.to_thread(kafka.messages, topic, count)
    bodies = [m.value() and json.loads(m.value()) for m in found]
    assert all(b is None or (b.pop("v"), b.pop("gateway")) == (1, "ours") for b in bodies)
    return [m.key().decode() for m in found], bodies


async def test_every_snapshot_is_written_in_order_after_what_its_device_is(ours, kafka, prefix):
    run(ours, kafka, prefix)
    ours.bench.announce()
    for n in range(30):
        ours.bench.publish(pv_power=float(n), work_mode=None)
    await until(lambda: ours.is_up)
    keys, bodies = await read(kafka, f"{prefix}.snapshots", 30)
    assert set(keys) == {SN}
    assert [b["values"] for b in bodies] == [{"pv_power": float(n)} for n in range(30)]
    assert bodies[0]["source"] == "scripted"
    assert bodies[0]["interval"] == 60.0
    _, [device] = await read(kafka, f"{prefix}.devices", 1)
    assert device["device"]["model"] == INVERTER.model
    assert device["device"]["setpoints"]["active_power_limit"]["high"] == 100


async def test_a_device_that_goes_leaves_a_tombstone(ours, kafka, prefix):
    run(ours, kafka, prefix)
    ours.bench.announce()
    await until(lambda: ours.is_up)
    await read(kafka, f"{prefix}.devices", 1)
    ours.bench.router.withdraw("scripted", SN)
    assert (await read(kafka, f"{prefix}.devices", 2))[1][1] is None


async def test_a_device_is_described_again_only_when_it_has_changed(ours, kafka, prefix):
    run(ours, kafka, prefix)
    ours.bench.announce()
    await until(lambda: ours.is_up)
    await read(kafka, f"{prefix}.devices", 1)
    ours.bench.publish(pv_power=1.0)
    ours.bench.publish(pv_power=2.0)
    ours.bench.announce(name="Barn")
    assert [b["device"]["name"] for b in (await read(kafka, f"{prefix}.devices", 2))[1]] == ["House", "Barn"]


async def test_alarms_and_steps_of_commands_are_written(ours, kafka, prefix):
    run(ours, kafka, prefix)
    ours.bench.announce()
    await until(lambda: ours.is_up)
    await read(kafka, f"{prefix}.alarms", 1)
    alarm = Alarm(serial=SN, id="a1", code="F42", raised=ours.bench.clock.now())
    ours.bench.router.alarms("scripted", SN, [alarm])
    _, bodies = await read(kafka, f"{prefix}.alarms", 2)
    assert [[a["code"] for a in b["active"]] for b in bodies] == [[], ["F42"]]
    ours.bench.router.alarms("scripted", SN, [])
    _, bodies = await read(kafka, f"{prefix}.alarms", 3)
    assert (bodies[2]["active"], [a["code"] for a in bodies[2]["cleared"]]) == ([], ["F42"])

    command = ours.bench.command(value=40)
    await ours.bench.dispatcher.submit(command)
    keys, bodies = await read(kafka, f"{prefix}.events", 3)
    assert set(keys) == {SN}
    assert [(b["id"], b["state"]) for b in bodies] == [(command.id, s) for s in ("accepted", "sent", "succeeded")]


async def test_what_was_measured_while_the_cluster_was_away_comes_after_it_is_back(tmp_path, ours, prefix):
    broker = Kafka(tmp_path / "kafka")
    broker.directory.mkdir()
    run(ours, broker, prefix)
    ours.bench.announce()
    for n in range(10):
        ours.bench.publish(pv_power=float(n))
    await until(lambda: ours.status is not None and "can't be" in ours.status.detail)
    async with broker:
        await until(lambda: ours.is_up)
        _, bodies = await read(broker, f"{prefix}.snapshots", 10)
        assert [b["values"]["pv_power"] for b in bodies] == [float(n) for n in range(10)]


async def test_who_may_write_only_later_publishes_from_then_on(tmp_path, kafka, ours, prefix):
    """An idempotent producer without a right fails for good; it was not seen, and nothing ever came."""
    sasl = {"mechanism": "PLAIN", "username": kafka.user, "password": kafka.password}
    kafka.make(*(f"{prefix}.{kind}" for kind in ("devices", "snapshots", "alarms", "events")))
    made = KafkaSettings(
        connection={"bootstrap_servers": [kafka.sasl_plaintext], "sasl": sasl}, publish={"topics": {"prefix": prefix}}
    )
    ours.runner = ours.bench.run(KafkaBridge, made, "kafka-late")
    ours.bench.announce()
    ours.bench.publish(pv_power=1.0)
    await until(lambda: ours.status and not ours.status.up and "does not let us" in ours.status.detail)
    for kind in ("devices", "snapshots", "alarms", "events"):
        kafka.allow(f"{prefix}.{kind}", "WRITE", "DESCRIBE")
    await until(lambda: ours.is_up)
    ours.bench.publish(pv_power=2.0)
    assert len(await asyncio.to_thread(kafka.messages, f"{prefix}.snapshots", 2)) >= 2


async def test_what_is_delivered_first_of_all_is_kept_with_how_the_topics_were_divided(ours, kafka, prefix):
    """Else a gateway that was stopped after it would not see that they were given more partitions meanwhile."""
    settings = PublishSettings(topics={"prefix": prefix})
    context = ours.bench.run(Silent, Silent.Settings(), "silent").bridge.context
    publisher = Publisher(settings, context, Skipped(context.log, context.clock))
    kafka.make(*publisher.topics, partitions=2)
    where = KafkaConnection(bootstrap_servers=[kafka.plaintext])
    health = Health(lambda **_: None)
    out = Producer(where, "out", publisher.topics, client_id="test", health=health, log=context.log)
    await out.start()
    try:
        state = DeviceState(device=INVERTER, quality=Quality.GOOD, time=None, source="test", values={})
        await asyncio.wait_for(publisher.deliver(Updates(states={SN: state}), out), 120)
    finally:
        await out.stop()
    assert json.loads((ours.bench.data_dir / "silent-partitions.json").read_text()) == [2]


class Taking:
    """A producer that has everything at once, and counts what it is given in each turn of the loop."""

    def __init__(self):
        self.turns = [0]
        self.given = []

    async def ready(self, topic):
        pass

    def partitions(self, topic):
        return 1

    def post(self, topic, value, *, key, partition):
        loop = asyncio.get_running_loop()
        if not self.turns[-1]:
            loop.call_soon(self.turns.append, 0)
        self.turns[-1] += 1
        self.given.append((topic, json.loads(value)))
        done = loop.create_future()
        done.set_result(None)
        return done


async def test_many_devices_with_alarms_are_described_in_many_turns_of_the_loop(ours, monkeypatch):
    context = ours.bench.run(Silent, Silent.Settings(), "silent").bridge.context
    publisher, out = Publisher(PublishSettings(), context, Skipped(context.log, context.clock)), Taking()
    devices = [msgspec.structs.replace(INVERTER, serial=f"SN{n:04}") for n in range(1000)]
    active = [Alarm(serial=device.serial, id="7", raised=context.clock.now()) for device in devices[:500]]
    asked = []
    monkeypatch.setattr(context, "active_alarms", lambda: asked.append(1) or active)
    states = {
        device.serial: DeviceState(device=device, quality=Quality.GOOD, time=None, source="test", values={})
        for device in devices
    }
    await publisher.deliver(Updates(states=states, alarms=active[:100]), out)
    said = {body["serial"]: len(body["active"]) for topic, body in out.given if topic == "sems.alarms"}
    assert said == {device.serial: int(n < 500) for n, device in enumerate(devices)}
    assert len(asked) == 1  # else it is devices times alarms
    assert max(out.turns) <= TURN


async def test_a_topic_has_the_name_that_was_set(ours, kafka, prefix):
    kafka.make(f"{prefix}.mine", *(f"{prefix}-x.{kind}" for kind in ("devices", "alarms", "events")))
    run(ours, kafka, prefix, create=None, topics={"prefix": f"{prefix}-x", "snapshots": f"{prefix}.mine"})
    ours.bench.announce()
    ours.bench.publish(pv_power=1.0)
    await until(lambda: ours.is_up)
    assert len((await read(kafka, f"{prefix}.mine", 1))[0]) == 1
