"""The ways to a broker: WebSockets, TLS with a client certificate and ALPN; QoS and retain flag by class of topic."""

import asyncio
import ssl
import subprocess

import pytest
from pydantic import ValidationError

from tests.bridges.mqtt.brokers import CONNACK
from tests.bridges.mqtt.peer import peer, retained
from tests.kit.bench import INVERTER, until
from tests.kit.certificates import Authority
from tests.kit.mosquitto import Mosquitto, mosquitto, need
from tests.kit.ports import free_port

SN = INVERTER.serial


class WebSocketed(Mosquitto):
    """One with a second listener for WebSockets."""

    def __init__(self, directory, lines=()):
        self.web = free_port()
        super().__init__(directory)
        config = self.config.read_text()
        self.config.write_text(
            f"{config}listener {self.web} 127.0.0.1\nprotocol websockets\n" + "\n".join(lines) + "\n"
        )


async def works(gateway, it):
    """States go out, and a command of some size comes in and is answered."""
    await it.next(f"sems/{SN}", lambda m: m["ac_power"] == 1.0)
    for n in range(60):
        it.publish(f"sems/{SN}/set", {"active_power_limit": n, "id": f"{n}-{'x' * 100}"})
    await it.result(SN, "succeeded", id=f"59-{'x' * 100}")


async def test_websockets(tmp_path, bench, protocol):
    broker = WebSocketed(tmp_path)
    await broker.start()
    try:
        async with peer(broker) as it, bench() as gateway:
            gateway.announce()
            gateway.publish(ac_power=1.0)
            gateway.connect(broker, port=broker.web, transport="websockets", protocol=protocol)
            await gateway.up()
            await works(gateway, it)
            await broker.stop()
            await gateway.down()
            await broker.start()
            await gateway.up()
    finally:
        await broker.stop()


async def test_websockets_over_tls_with_a_client_certificate(tmp_path, bench):
    authority = Authority(tmp_path)
    server, key = authority.sign("server", server=True)
    certificate, client_key = authority.sign("gateway")
    lines = [f"cafile {authority.pem}", f"certfile {server}", f"keyfile {key}", "require_certificate true"]
    broker = WebSocketed(tmp_path, lines)
    await broker.start()
    try:
        async with peer(broker) as it, bench() as gateway:
            gateway.announce()
            gateway.publish(ac_power=1.0)
            tls = {"ca": authority.pem, "certfile": certificate, "keyfile": client_key}
            gateway.connect(broker, port=broker.web, transport="websockets", tls=tls)
            await gateway.up()
            await works(gateway, it)
    finally:
        await broker.stop()


async def test_path_and_headers_of_a_websocket_reach_the_server_and_its_refusal_is_told(bench):
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, bench() as gateway:
        broker = type("Broker", (), {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]})
        gateway.connect(broker, transport="websockets", path="/deep/mqtt", headers={"Authorization": "Bearer t0ken"})
        status = await gateway.down("does not open a WebSocket")
        assert "t0ken" not in status.detail
    request = asked[0].decode()
    assert request.startswith("GET /deep/mqtt HTTP/1.1\r\n")
    assert "Authorization: Bearer t0ken\r\n" in request
    assert "mqtt\r\n" in request.split("Sec-Websocket-Protocol: ")[1]


async def test_alpn_is_offered(tmp_path, bench):
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.sign("server", server=True))
    context.set_alpn_protocols(["http/1.1", "mqtt"])
    chosen = []

    async def serve(reader, writer):
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await reader.read(1024)
        writer.write(CONNACK)
        await reader.read()
        writer.close()

    async with bench() as gateway:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        broker = type("Broker", (), {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]})
        gateway.connect(broker, tls={"ca": authority.pem, "alpn": ["x-amzn-mqtt-ca", "mqtt"]})
        await until(lambda: chosen)
        assert chosen[0] == "mqtt"
        server.close()


async def test_mosquitto_takes_alpn_and_a_client_certificate_with_an_encrypted_key(tmp_path, bench):
    authority = Authority(tmp_path)
    server, server_key = authority.sign("server", server=True)
    certificate, plain = authority.sign("gateway")
    key = tmp_path / "encrypted.key"
    command = [need("openssl"), "pkey", "-in", plain, "-aes256", "-passout", "pass:hush", "-out", key]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221 - it is quick
    lines = [f"cafile {authority.pem}", f"certfile {server}", f"keyfile {server_key}", "require_certificate true"]
    lines.append("use_identity_as_username true")
    async with mosquitto(tmp_path, extra=lines) as broker, bench() as gateway:
        tls = {"ca": authority.pem, "certfile": certificate, "keyfile": key, "alpn": ["mqtt"]}
        with pytest.raises(ValidationError, match="keyfile_password if the key is encrypted"):
            gateway.connect(broker, tls=tls)
        gateway.connect(broker, tls=tls | {"keyfile_password": "hush"})
        await gateway.up()


async def test_a_certificate_that_the_broker_does_not_know_is_told(tmp_path, bench):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    server, key = authority.sign("server", server=True)
    certificate, client_key = other.sign("stranger")
    lines = [f"cafile {authority.pem}", f"certfile {server}", f"keyfile {key}", "require_certificate true"]
    async with mosquitto(tmp_path, extra=lines) as broker, bench() as gateway:
        gateway.connect(broker, tls={"ca": authority.pem, "certfile": certificate, "keyfile": client_key})
        await gateway.down("broker")
        assert not gateway.status.up


async def test_qos_and_retain_flag_by_class_of_topic(broker, bench):
    delivery = {
        "state": {"qos": 0, "retain": False},
        "points": {"qos": 2, "retain": True},
        "availability": {"qos": 2},
        "device": {"retain": False},
        "bridge": {"qos": 0},
        "discovery": {"qos": 0},
        "result": {"qos": 0, "retain": True},
        "response": {"qos": 0},
    }
    async with peer(broker) as it, bench() as gateway:
        # The peer gets what is published with QoS 2 with its own QoS, 1.
        gateway.announce()
        gateway.publish(ac_power=1.0, energy_today=2.0)
        gateway.connect(broker, delivery=delivery, points=True, home_assistant=True)
        await it.next(f"sems/{SN}/availability")
        await until(lambda: it.all(f"homeassistant/device/test-gateway_{SN}/config"))
        it.publish(f"sems/{SN}/set/running", "on")
        await it.result(SN, "succeeded")
        it.publish("sems/bridge/request/health", "")
        await it.next("sems/bridge/response/health")
        qos = {m.topic: m.qos for m in it.messages}
        assert qos[f"sems/{SN}"] == qos["sems/bridge/state"] == 0
        assert qos[f"sems/{SN}/ac_power"] == qos[f"sems/{SN}/availability"] == 1
        assert qos[f"sems/{SN}/result"] == qos["sems/bridge/response/health"] == 0
        assert qos[f"homeassistant/device/test-gateway_{SN}/config"] == 0
        kept = await retained(broker)
        ours = {topic.removeprefix(f"sems/{SN}").lstrip("/") for topic in kept if topic.startswith(f"sems/{SN}")}
        assert ours == {"ac_power", "energy_today", "availability", "result", "running"}
        assert "sems/bridge/response/health" not in kept


async def test_a_prefix_of_several_levels(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, base="site/7/sems")
        await it.next(f"site/7/sems/{SN}/availability")
        it.publish(f"site/7/sems/{SN}/set/running", "on")
        await it.result(SN, "succeeded", base="site/7/sems")
        it.publish("site/7/sems/bridge/request/health", "")
        assert (await it.next("site/7/sems/bridge/response/health"))["ok"]


@pytest.mark.parametrize("settings", [{}, {"session_expiry": 60}])
async def test_the_keep_alive_and_session_are_asked_for(bench, settings):
    connects = []

    async def serve(reader, writer):
        connects.append(await reader.read(1024))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, bench() as gateway:
        broker = type("Broker", (), {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]})
        gateway.connect(broker, keepalive=17, **settings)
        await until(lambda: connects)
    # MQTT 5.0 §3.1.2: protocol name and level, flags, keep alive, properties.
    packet = connects[0]
    begin = packet.index(b"MQTT") + 4
    assert packet[begin] == 5
    assert bool(packet[begin + 1] & 0x02) is not bool(settings)
    assert int.from_bytes(packet[begin + 2 : begin + 4]) == 17
    assert (b"\x11\x00\x00\x00\x3c" in packet) is bool(settings)
