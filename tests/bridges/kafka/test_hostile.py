"""10,000 records of whatever there is among good ones, at each of the bridge's topics: all good ones arrive."""

import json
import random
import uuid
from datetime import timedelta

from gateway.bridges.kafka import schema
from gateway.core.model import CommandState, iso, new_command_id
from tests.bridges.kafka.conftest import gateway
from tests.kit.bench import INVERTER, collected, until
from tests.kit.kafka_hostile import ANY_TIME, flood

SN = "9010KETU000W0001"
STRANGER = "9010KETU000W0009"
COUNT = 10_000


def push(bench, pac, *, sn=SN, age=0):
    time = bench.clock.now() - timedelta(seconds=age)
    data = {"last_refresh_time": f"{time:%Y-%m-%d %H:%M:%S}", "status": 1, "pac": pac}
    return {"interface": "GetInverterBySN", "sn": sn, "data": data}


def raw(body):
    return json.dumps(body).encode()


async def test_telemetry_among_rubbish_arrives(tmp_path, kafka):
    topic = kafka.topic("goodwe", **ANY_TIME)
    async with gateway(tmp_path / "ours", "ours") as ours:
        good = [(SN.encode(), raw(push(ours.bench, n + 1, age=100 - n))) for n in range(50)]
        flood(kafka, topic, random.Random(1), COUNT, [push(ours.bench, 5, sn=STRANGER)], good)
        ours.run(kafka.plaintext, group=topic, session_timeout=1, telemetry={"topics": [topic], "interval": 60})
        await until(lambda: set(range(1, 51)) <= set(ours.archive.values("ac_power", SN)))
        assert ours.runner.bridge._skipped.counts[topic] > COUNT / 10
        # Behind the last record stand those of the transaction, and its end.
        await until(lambda: kafka.committed(topic, topic) > COUNT + 50)
        assert ours.is_up


async def test_what_joined_gateways_tell_each_other_among_rubbish_arrives(tmp_path, kafka):
    prefix = f"p{uuid.uuid4().hex[:8]}"
    kinds = ("devices", "snapshots", "alarms", "events", "commands")
    kafka.make(*(f"{prefix}.{kind}" for kind in kinds), **ANY_TIME)
    key = INVERTER.serial.encode()
    topics = {"topics": {"prefix": prefix}}
    async with gateway(tmp_path / "far", "far") as far, gateway(tmp_path / "poller", "poller") as poller:
        now = iso(far.bench.clock.now())
        device = schema.encode(schema.DeviceMessage(gateway="poller", device=INVERTER))
        fields = {"v": 1, "gateway": "poller", "serial": STRANGER, "time": now}
        snapshot = fields | {"source": "sems", "interval": 60.0, "values": {"pv_power": 5.0}}
        alarm = {"serial": STRANGER, "id": "7", "code": "5", "text": "x", "severity": "fault", "raised": now}
        command = fields | {
            "id": new_command_id(), "setpoint": "active_power_limit", "value": 5, "origin": "mqtt", "created": now,
            "expires": iso(far.bench.clock.now() + timedelta(seconds=3000)),
        }  # fmt: skip
        samples = {
            "devices": {"v": 1, "gateway": "poller", "device": json.loads(device)["device"] | {"serial": STRANGER}},
            "snapshots": snapshot,
            "alarms": {"v": 1, "gateway": "poller", "serial": STRANGER, "active": [alarm], "cleared": []},
            "events": command | {"state": "succeeded"},
            "commands": command,
        }
        good = {
            "devices": [device],
            "snapshots": [raw(snapshot | {"serial": INVERTER.serial, "values": {"pv_power": n}}) for n in range(1, 51)],
        }
        dice = random.Random(2)
        for kind in kinds:
            flood(
                kafka,
                f"{prefix}.{kind}",
                dice,
                COUNT // len(kinds),
                [samples[kind]],
                [(key, g) for g in good.get(kind, ())],
            )
        far.run(kafka.plaintext, group=prefix, session_timeout=1, join=topics | {"commands": True})
        await until(lambda: set(range(1, 51)) <= set(far.archive.values("pv_power", INVERTER.serial)))
        poller.run(kafka.plaintext, group=prefix, session_timeout=1, publish=topics | {"commands": True})
        poller.bench.announce()
        far.bench.dispatcher.use({"kafka-far": far.runner.bridge})
        async with collected(far.bench.router) as (events, _):
            # A command across the topics that were flooded, and what became of it, back.
            await until(lambda: far.bench.router.state(INVERTER.serial))
            await until(lambda: poller.is_up and far.is_up)
            sent = far.bench.command(ttl=300)
            await far.bench.dispatcher.submit(sent)
            await until(lambda: any(e.command.id == sent.id and e.state is CommandState.SUCCEEDED for e in events))
        assert [c.value for c in poller.bench.controller.sent if c.serial == INVERTER.serial] == [sent.value]
        await until(lambda: kafka.committed(prefix, f"{prefix}.snapshots") > COUNT / len(kinds))
