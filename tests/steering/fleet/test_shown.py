"""A fleet is one device for every interface: Home Assistant, HTTP, Sparkplug, and Kafka, by which others steer it."""

import asyncio
import json
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

import gateway.bridges.mqtt.home_assistant.discovery as discovery_module
from gateway.bridges.kafka import KafkaBridge, KafkaSettings
from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.web import WebBridge, WebSettings
from gateway.core.model import iso, new_command_id
from gateway.steering.fleet import mate
from tests.bridges.mqtt.homeassistant import configs, entity
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import until
from tests.kit.mosquitto import mosquitto
from tests.kit.sparkplug import metrics_of, sparkplug_host
from tests.steering.fleet.test_fleet import ALL, batteries, inverters
from tests.steering.fleet.world import World


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(mate, "SETTLES_WITHIN", 0.2)
    monkeypatch.setattr(discovery_module, "SETTLE", 0.05)


@asynccontextmanager
async def shown(tmp_path, machines, bridge, settings, name):
    async with World(tmp_path, None, machines, ALL, interval=0.3) as world:
        yield world, world.bench.run(bridge, settings, name).bridge


async def test_home_assistant_finds_it_and_sets_its_target(tmp_path):
    async with mosquitto(tmp_path) as broker, peer(broker) as it:
        settings = MqttSettings(host=broker.host, port=broker.port, home_assistant=True)
        async with shown(tmp_path, inverters(2) + batteries(1), MqttBridge, settings, "mqtt") as (world, _):
            wanted = {"fleet_state", "set_power_target", "battery_soc", "available_up"}
            found = await until(
                lambda: (
                    (body := configs(it).get("test-gateway_fleet_3Anorth"))
                    and body["components"].keys() >= wanted
                    and body
                )
            )
            assert (found["device"]["name"], found["device"]["model"]) == ("north", "fleet")
            it.publish(entity(found, "set_power_target")["command_topic"], "12000")
            await until(lambda: world.power == pytest.approx(12_000, rel=0.02))


async def test_it_is_read_and_set_over_http(tmp_path):
    token = "a-token-of-one-who-writes"
    settings = WebSettings(port=0, tokens={"ems": {"token": token, "write": True}})
    async with shown(tmp_path, inverters(2), WebBridge, settings, "web") as (world, bridge):
        await until(lambda: bridge.port)
        where, headers = f"http://127.0.0.1:{bridge.port}/api/v1", {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=120, headers=headers) as client:
            device = (await client.get(f"{where}/devices/fleet:north")).json()
            assert (device["kind"], device["rated_power"]) == ("fleet", 20_000)
            assert device["values"]["members"] == 2
            body = {"setpoint": "power_target", "value": 6_000}
            asked = await client.post(f"{where}/devices/fleet:north/set?wait=60", json=body)
            (command,) = asked.json()["commands"]
            assert (command["state"], command["verified"]) == ("succeeded", True), command
            assert command["detail"].startswith("holding: asked 6000 W, confirmed 6000 W")
            told = (await client.get(f"{where}/commands/{world.told[0].id}")).json()
            assert (told["parent"], told["origin"]) == (command["id"], f"fleet/north:{command['id']}")


async def test_a_sparkplug_host_sees_it_born_and_sets_its_target(tmp_path):
    async with mosquitto(tmp_path) as broker:
        with sparkplug_host(broker.port) as host:
            await until(lambda: host.ready)
            settings = MqttSettings(host=broker.host, port=broker.port, payload="sparkplug")
            async with shown(tmp_path, inverters(2), MqttBridge, settings, "mqtt") as (world, _):
                name = await until(lambda: next((d for d in devices(host) if "north" in d), None))
                birth = metrics_of(await host.count(1, "DBIRTH", name))
                assert birth.keys() >= {"ac_power", "fleet_state", "members", "power_target"}
                host.write(name, {"name": "power_target", "type": "DOUBLE", "value": 6_000.0})
                await host.told(name, "command/power_target/state", "succeeded")
                assert world.power == pytest.approx(6_000, rel=0.02)


def devices(host):
    return [message.get("device") for message in host.decoded if message.get("device")]


async def test_an_aggregators_own_system_drives_it_by_kafka(tmp_path, kafka):
    prefix = f"p{uuid.uuid4().hex[:8]}"
    publish = {"topics": {"prefix": prefix}, "create": {"partitions": 1}, "linger_ms": 0, "commands": True}
    settings = KafkaSettings(connection={"bootstrap_servers": [kafka.plaintext]}, group=prefix, publish=publish)
    async with shown(tmp_path, inverters(4), KafkaBridge, settings, "kafka") as (world, _):
        await until(lambda: any(s.name == "kafka" and s.up for s in world.bench.router.bridges()))
        now = world.bench.clock.now()
        wish = {
            "v": 1, "gateway": "dispatch", "id": new_command_id(), "serial": "fleet:north", "setpoint": "power_target",
            "value": 16_000, "origin": "ems", "created": iso(now), "expires": iso(now + timedelta(seconds=60)),
        }  # fmt: skip
        kafka.send(f"{prefix}.commands", b"fleet:north", json.dumps(wish).encode())
        end = await message(kafka, f"{prefix}.events", lambda m: m["id"] == wish["id"] and m["state"] == "succeeded")
        assert end["verified"]
        assert end["detail"].startswith("holding: asked 16000 W, confirmed 16000 W; 4 of 4 members well")
        assert end["origin"] == "kafka/ems:dispatch ems"
        child = await message(kafka, f"{prefix}.events", lambda m: m["serial"] == "PV0")
        assert child["parent"] == wish["id"]
        shown_there = await message(
            kafka,
            f"{prefix}.snapshots",
            lambda m: m["serial"] == "fleet:north" and m["values"].get("fleet_state") == "holding",
        )
        assert shown_there["values"]["ac_power"] == pytest.approx(16_000)
        described = await message(kafka, f"{prefix}.devices", lambda m: m["device"]["serial"] == "fleet:north")
        assert described["device"]["setpoints"]["power_target"]["high"] == 40_000


async def message(kafka, topic, matches):
    """Wait for a message that matches; its key is the serial number that it is about."""
    count = 1
    async with asyncio.timeout(120):
        while True:
            found = await asyncio.to_thread(kafka.messages, topic, count)
            for each in found:
                body = json.loads(each.value())
                if matches(body):
                    assert each.key().decode() == body.get("device", body)["serial"]
                    return body
            count = len(found) + 1
