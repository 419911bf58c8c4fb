# ruff: noqa: E501 - samples are tables, and read best a row a line
"""What comes from brokers: MQTT requests, Sparkplug commands, and every kind of message over Kafka."""

import asyncio
import json
from contextlib import asynccontextmanager

import msgspec

from gateway.bridges.batch.interfaces import Interfaces
from gateway.bridges.batch.results import Results
from gateway.bridges.batch.tally import Tally
from gateway.bridges.kafka.commands import Answering, Asking
from gateway.bridges.kafka.joined import Joined, _Partition
from gateway.bridges.kafka.settings import JoinSettings, PublishSettings, TelemetrySettings
from gateway.bridges.kafka.skipped import Skipped
from gateway.bridges.kafka.telemetry import Telemetry
from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.sparkplug.schema import Payload
from gateway.kafka import Received
from gateway.sems.catalogue import load
from gateway.sems.pushed import Intake
from tests.fuzz import dice as change
from tests.fuzz.core import core
from tests.fuzz.target import Target
from tests.fuzz.targets.doors import BODIES, SN, make_push
from tests.kit.bench import INVERTER, until

NOW = "2026-06-21T12:00:00Z"


def received(topic, value, *, key=SN, partition=0):
    return Received(topic, partition, 1, key, value, 0)


# MQTT

TOPICS = [f"sems/{SN}/set", f"sems/{SN}/set/active_power_limit", f"sems/as/me/{SN}/set", f"sems/{SN}/set/battery_mode",
          "sems/bridge/request/devices", "sems/bridge/request/health", "sems/bridge/request/log_level",
          "sems/bridge/request/halt", "sems/bridge/request/resume", "homeassistant/status", "sems/bridge/session"]  # fmt: skip
REQUESTS = [
    {"id": 1, "offset": 0, "limit": 10},
    {"id": "x", "level": "info"},
    {"reason": "works"},
    {"bridge": "mqtt"},
    "online",
    50,
]


def make_mqtt(dice):
    topic = dice.choice(TOPICS)
    if dice.random() < 0.2:
        topic = change.text(dice, topic)
    reply = dice.choice((None, None, "sems/response/x", "other/x", "sems/#", "\x00", ""))
    head = [topic, reply, dice.choice((None, "c" * dice.choice((1, 2000)))), dice.random() < 0.1, dice.random() < 0.1]
    return json.dumps(head).encode() + b"\n" + change.json_of(dice, dice.choice(BODIES + REQUESTS))


@asynccontextmanager
async def mqtt_bridge(directory, **settings):
    """A bridge whose broker is away; what it would get from one is given to it."""
    async with core(directory) as it:
        bridge = it.run(MqttBridge, MqttSettings(host="127.0.0.1", port=1, **settings), "mqtt").bridge
        await until(lambda: bridge._commands is not None and bridge._fed.is_set())
        yield it, bridge


@asynccontextmanager
async def open_mqtt(directory):
    names = ["devices", "health", "log_level", "halt", "resume"]
    async with mqtt_bridge(directory, requests=names, users=["me"]) as (it, bridge):

        async def feed(data):
            head, _, payload = data.partition(b"\n")
            topic, reply, correlation, retain, backlog = json.loads(head)
            with_it = correlation.encode() if correlation else None
            bridge._receive(
                Message(
                    topic=topic,
                    payload=payload,
                    response_topic=reply,
                    correlation=with_it,
                    retain=retain,
                    backlog=backlog,
                )
            )
            while bridge._commands._waiting:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            if it.halting.current is not None:
                await it.halting.resume("test")
            bridge._outbox.results.clear()

        yield feed


def make_sparkplug(dice):
    payload = Payload(timestamp=1)
    for _ in range(dice.choice((1, 1, 2, 5))):
        metric = payload.metrics.add(timestamp=1)
        if dice.random() < 0.8:
            metric.name = dice.choice(("active_power_limit", "running", "battery_mode", "Node Control/Rebirth", "x"))
        if dice.random() < 0.3:
            metric.alias = dice.choice((0, 1, 2**63))
        match dice.randrange(6):
            case 0:
                metric.int_value = dice.choice((0, 50, 2**32 - 1))
            case 1:
                metric.double_value = dice.choice((50.0, -1e308, float("nan"), float("inf")))
            case 2:
                metric.boolean_value = True
            case 3:
                metric.string_value = dice.choice(("charge", "", "50", "\x1b[2J"))
            case 4:
                metric.long_value = dice.choice((50, 2**64 - 1))
            case _:
                metric.is_null = True
        metric.datatype = dice.choice((3, 4, 9, 10, 11, 12, 99))
    topic = dice.choice(
        (f"spBv1.0/sems/DCMD/test-gateway/{SN}", "spBv1.0/sems/NCMD/test-gateway", "spBv1.0/STATE/scada")
    )
    if dice.random() < 0.2:
        topic = change.text(dice, topic)
    if "STATE" in topic:
        body = change.json_of(dice, {"online": True, "timestamp": 1781956800000})
    else:
        body = payload.SerializeToString()
        body = change.raw(dice, body) if dice.random() < 0.6 else body
    return json.dumps(topic).encode() + b"\n" + body


@asynccontextmanager
async def open_sparkplug(directory):
    settings = {"group": "sems", "node": "test-gateway", "primary_host": "scada"}
    async with mqtt_bridge(directory, payload="sparkplug", sparkplug=settings) as (_, bridge):
        node = bridge._node

        async def feed(data):
            head, _, payload = data.partition(b"\n")
            node.receive(Message(topic=json.loads(head), payload=payload))
            while not node._commands._waiting.empty():
                await asyncio.sleep(0)
            await asyncio.sleep(0)

        yield feed


# Kafka

RESULT = {"requestId": "r", "timestamp": 0, "results": [{"sn": SN, "code": "00000", "msg": "said", "timestamp": 0}]}
DEVICE = msgspec.to_builtins(INVERTER)
JOINED = [
    ("sems.devices", {"v": 1, "gateway": "g", "device": DEVICE}),
    ("sems.snapshots", {"v": 1, "gateway": "g", "serial": SN, "time": NOW, "source": "s", "interval": 60.0,
                        "values": {"ac_power": 5.0, "status": "normal"}}),
    ("sems.alarms", {"v": 1, "gateway": "g", "serial": SN, "active": [{"serial": SN, "id": "1", "code": "c", "text": "t",
                     "severity": "fault", "raised": NOW, "cleared": None}], "cleared": []}),
    ("sems.commands", {"v": 1, "gateway": "g", "id": "a", "serial": SN, "setpoint": "active_power_limit", "value": 50,
                       "origin": "mqtt:me", "created": NOW, "expires": "2036-06-21T12:00:00Z"}),
    ("sems.events", {"v": 1, "gateway": "g", "id": "a", "serial": SN, "setpoint": "active_power_limit", "value": 50,
                     "origin": "kafka/mqtt:test-gateway mqtt:me", "state": "succeeded", "time": NOW, "reason": None}),
]  # fmt: skip


@asynccontextmanager
async def open_results(directory):
    async with core(directory) as it:
        context = it.context("batch")
        interfaces = Interfaces(load("batch"), "goodwe", "s")
        results = Results(context, None, interfaces, Tally(context.log, context.clock))
        topics = list(interfaces.by_results)

        async def feed(data):
            await results.take([received(topics[len(data) % len(topics)], data)])

        yield feed


@asynccontextmanager
async def open_telemetry(directory):
    async with core(directory) as it:
        context = it.context("kafka")
        settings = TelemetrySettings(topics=["t"])
        telemetry = Telemetry(settings, context, Skipped(context.log, context.clock))
        intake = Intake(settings, context, "telemetry")

        async def feed(data):
            await telemetry._take([received("t", data)], intake)

        yield feed


def make_joined(dice):
    topic, sample = dice.choice(JOINED)
    return json.dumps([topic, dice.choice((SN, SN, SN, "", "x"))]).encode() + b"\n" + change.json_of(dice, sample)


class Feed:
    """A consumer that has one message."""

    def __init__(self, message):
        self._message = message

    async def batches(self):
        yield [self._message]

    def commit(self, batch):
        pass


@asynccontextmanager
async def open_joined(directory):
    async with core(directory) as it:
        context = it.context("kafka")
        skipped = Skipped(context.log, context.clock)
        joined = Joined(JoinSettings(commands=True), context, skipped)
        joined._partitions[0] = _Partition(0, described=True, is_current=True)
        asking = Asking(JoinSettings(commands=True), context, joined, skipped)
        answering = Answering(PublishSettings(commands=True), context, skipped)
        context.spawn = lambda work, _: work.close()
        inner = {asking.events_topic: asking.hear, answering.topic: answering.run}

        async def feed(data):
            head, _, value = data.partition(b"\n")
            topic, key = json.loads(head)
            message = received(topic, value, key=key)
            if topic in inner:
                await inner[topic](Feed(message))
            else:
                await joined._take(message)
            for serial in list(joined.devices)[:-20]:
                joined._withdraw(serial)
            answering._early.clear()

        yield feed


TARGETS = [
    Target("mqtt", "MQTT sets and requests: the bridge's inbox", make_mqtt, open_mqtt, quick=60),
    Target("sparkplug", "Sparkplug commands and STATE", make_sparkplug, open_sparkplug, quick=60),
    Target("kafka-results", "results of batch control over Kafka", lambda dice: change.json_of(dice, RESULT, 2), open_results),
    Target("kafka-telemetry", "GoodWe's telemetry over Kafka", make_push, open_telemetry),
    Target("kafka-joined", "devices, snapshots, alarms, commands, events over Kafka", make_joined, open_joined, quick=100),
]  # fmt: skip
