"""Every bridge of ours holds what the kit asks of any bridge."""

import json
import struct
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition

from gateway.api.registry import installed
from gateway.api.testing import DEVICE, POINT, Arrival, Conformance, eventually
from gateway.bridges.batch import BatchBridge
from gateway.bridges.csip import CsipBridge
from gateway.bridges.kafka import KafkaBridge
from gateway.bridges.local import LocalBridge, LocalClient
from gateway.bridges.local.protocol import Send
from gateway.bridges.modbus import ModbusBridge
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.open_api import OpenApiBridge
from gateway.bridges.push import PushBridge
from gateway.bridges.realtime import RealtimeBridge
from gateway.bridges.web import WebBridge
from gateway.simulator import Simulator, SimulatorSettings
from tests.bridges.csip.server import running as csip_server
from tests.bridges.modbus.client import ModbusError, RawClient, write_many
from tests.bridges.mqtt.peer import peer
from tests.kit.certificates import Authority
from tests.kit.clock import NOON
from tests.kit.kafka import mock_kafka
from tests.kit.mosquitto import mosquitto, need

SECRET = "not-to-be-seen-anywhere"
AT = {row.field: row.address for row in reversed(NATIVE.rows)}


def url(port):
    return f"http://127.0.0.1:{port}"


class TestLocal(Conformance):
    bridge = LocalBridge

    async def ask(self, bridge, serial, setpoint, value):
        request = Send(serial=serial, setpoint=setpoint, value=str(value), user="kit")
        return bool([reply async for reply in LocalClient(bridge._context.data_dir).ask(request)])


class TestWeb(Conformance):
    bridge = WebBridge
    settings = {"port": 0, "token": SECRET, "tokens": {"kit": {"token": f"{SECRET}-too", "write": True}}}
    complete_log = False

    @staticmethod
    @asynccontextmanager
    async def client(bridge):
        headers = {"Authorization": f"Bearer {SECRET}-too"}
        async with httpx.AsyncClient(
            base_url=url(bridge.port), headers=headers, trust_env=False, timeout=120
        ) as client:
            yield client

    async def ask(self, bridge, serial, setpoint, value):
        async with self.client(bridge) as client:
            await client.post(f"/api/v1/devices/{serial}/set?wait=10", json={setpoint: value})
        return True

    async def arrived(self, bridge):
        try:
            return await self.shown(bridge)
        except httpx.TransportError:
            return []  # it begins, or begins anew

    async def shown(self, bridge):
        async with self.client(bridge) as client:
            listed = (await client.get("/api/v1/devices")).json()["devices"]
            devices = [(await client.get(f"/api/v1/devices/{each['serial']}")).json() for each in listed]
        return [Arrival(each["serial"], each["values"][POINT]) for each in devices if POINT in each["values"]]


class TestModbus(Conformance):
    bridge = ModbusBridge
    settings = {"port": 0}
    complete_log = False

    async def ask(self, bridge, serial, setpoint, value):
        client = await RawClient.connect(bridge.port)
        try:
            await eventually(lambda: serial in bridge.units, "the device has a unit")
            body = write_many(AT[setpoint], struct.pack(">i", round(value * 10)))
            await client.ask(body, unit=bridge.units[serial])
        except ModbusError:
            pass
        finally:
            await client.close()
        return True

    async def arrived(self, bridge):
        if not bridge.port:
            return []
        client = await RawClient.connect(bridge.port)
        try:
            return [
                Arrival(serial, float(await client.number("i", AT[POINT], unit=unit)))
                for serial, unit in bridge.units.items()
            ]
        except ModbusError:
            return []  # not served yet
        finally:
            await client.close()


class TestMqtt(Conformance):
    bridge = MqttBridge
    settings = {"username": "kit", "password": SECRET, "host": "127.0.0.1"}

    @asynccontextmanager
    async def far_side(self):
        need("mosquitto")
        self.got = None
        async with mosquitto(self.directory) as broker, peer(broker) as self.peer:
            self.got = broker
            yield {"port": broker.port}

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    def settings_at(self, port):
        return {"port": port}

    async def ask(self, bridge, serial, setpoint, value):
        self.peer.publish(f"sems/{serial}/set/{setpoint}", str(value))
        await self.peer.next(f"sems/{serial}/result")
        return True

    async def arrived(self, bridge):
        states = [json.loads(m.payload) | {"serial": m.topic[5:]} for m in self.peer.messages if is_state(m)]
        return [Arrival(state["serial"], state[POINT]) for state in states if POINT in state]


def is_state(message):
    return message.topic.count("/") == 1 and message.payload.startswith(b"{")


class InKafka(Conformance):
    topic = ""

    @asynccontextmanager
    async def far_side(self):
        with mock_kafka() as self.kafka:
            self.kafka.make(*self.topics)
            yield self.connected_to(self.kafka.plaintext)

    def connected_to(self, server):
        sasl = {}
        return {"connection": {"bootstrap_servers": server, "options": {"fetch.wait.max.ms": 20}} | sasl}

    def settings_at(self, port):
        return self.connected_to(f"127.0.0.1:{port}")


class TestKafka(InKafka):
    bridge = KafkaBridge
    topics = [f"sems.{what}" for what in ("devices", "snapshots", "alarms", "events")]
    settings = {"publish": {"linger_ms": 0}}

    @asynccontextmanager
    async def far_side(self):
        async with super().far_side() as said:
            self.reader = Consumer({"bootstrap.servers": self.kafka.plaintext, "group.id": "kit"})
            self.reader.assign([TopicPartition("sems.snapshots", partition, 0) for partition in range(4)])
            self.got = []
            try:
                yield said
            finally:
                self.reader.close()

    async def arrived(self, bridge):
        while (message := self.reader.poll(0)) is not None:
            if message.error() is None:
                body = json.loads(message.value())
                self.got.append(Arrival(body["serial"], body["values"][POINT]))
        return list(self.got)


class TestBatch(InKafka):
    bridge = BatchBridge
    topics = [
        f"goodwe.acme.{what}.{way}"
        for what in ("battery", "work_mode", "export_limit", "reactive_power", "active_power", "switch")
        for way in ("result", "command")
    ]
    settings = {"supplier": "acme", "whitelist": ["9010KETU000W0001"], "linger_ms": 0}


class InSems(Conformance):
    login = {}

    @asynccontextmanager
    async def far_side(self):
        limits = {"calls_per_hour": 0, "supplier_calls_per_hour": 0}
        simulator = Simulator(SimulatorSettings(port=0, start=NOON, password=SECRET, supplier_secret=SECRET, **limits))
        await simulator.start()
        try:
            yield {"url": simulator.url}
        finally:
            await simulator.stop()

    def settings_at(self, port):
        return {"url": url(port)}


class TestOpenApi(InSems):
    bridge = OpenApiBridge
    settings = {"account": "demo", "password": SECRET, "calls_per_hour": 10_000_000, "poll_interval": 0.1}


class TestRealtime(InSems):
    bridge = RealtimeBridge
    settings = {
        "client_id": "supplier",
        "client_secret": SECRET,
        "whitelist": ["9010KETU218W0001"],
        "calls_per_hour": 10_000_000,
    }


class TestCsip(Conformance):
    bridge = CsipBridge

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.tls = {"ca": (authority := Authority(tmp_path)).pem, "key_password": SECRET}
        self.tls["certificate"], self.tls["key"] = authority.sign("device")
        self.directory = tmp_path

    @asynccontextmanager
    async def far_side(self):
        with TemporaryDirectory(dir=self.directory) as directory:
            async with csip_server(Path(directory)) as (self.server, reached):
                yield {"device": DEVICE.serial, "poll_least": 1} | reached

    def settings_at(self, port):
        return {"url": f"https://127.0.0.1:{port}/dcap", "tls": self.tls, "device": DEVICE.serial}

    async def ask(self, bridge, serial, setpoint, value):
        percent = round(value * 100)
        self.server.control(f"E{percent}", 0, 60, f"<opModMaxLimW>{percent}</opModMaxLimW>")
        await eventually(lambda: bridge._steering.refused or bridge._memory.held, "it is judged")
        return serial == DEVICE.serial and setpoint == "active_power_limit"


class TestPush(Conformance):
    bridge = PushBridge
    settings = {"port": 0, "secret": SECRET}


def test_none_of_ours_is_left_out():
    tried = {each.bridge for each in globals().values() if isinstance(each, type) and hasattr(each, "bridge")}
    assert tried >= {installed().load(name) for name in installed().types if name not in {"rest", "influx"}}
