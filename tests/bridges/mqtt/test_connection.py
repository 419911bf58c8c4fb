"""Coming and going of broker and bridge."""

import asyncio
import sys
from pathlib import Path

import paho.mqtt.client as paho
import uvloop

import gateway.bridges.mqtt.client as client_module
from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.core.errors import NotSentError
from tests.bridges.mqtt.peer import peer, retained
from tests.kit.acl import login
from tests.kit.bench import INVERTER, Bench, until
from tests.kit.mosquitto import Certificates, Mosquitto, mosquitto

SN = INVERTER.serial
RESULT = f"sems/{SN}/result"
STATE = "sems/bridge/state"


async def test_offline_is_published_before_a_clean_disconnect(broker, bench, protocol):
    async with peer(broker) as it:
        async with bench() as gateway:
            gateway.connect(broker, protocol=protocol)
            await it.next(STATE, lambda m: m == "online")
        await until(lambda: it.last(STATE) == "offline")
        assert it.all(STATE) == ["online", "offline"]
    assert (await retained(broker))[STATE] == "offline"


async def test_the_will_says_offline_when_the_gateway_is_killed(broker, tmp_path):
    directory = tmp_path / "killed"
    directory.mkdir()
    async with peer(broker) as it:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bridges.mqtt.alone", str(broker.port), str(directory),
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
        await it.next(f"sems/{SN}", lambda m: m["ac_power"] == 1.0)
        process.kill()
        await process.wait()
        await it.next(STATE, lambda m: m == "offline")
    assert (await retained(broker))[STATE] == "offline"


async def test_a_broker_that_comes_late_gets_everything(tmp_path, bench):
    broker = Mosquitto(tmp_path)
    async with bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker)
        status = await gateway.down("refused the connection; trying again")
        assert status.detail.startswith(f"broker 127.0.0.1:{broker.port} ")
        gateway.publish(ac_power=2.0)
        await broker.start()
        try:
            async with peer(broker) as it:
                await it.next(f"sems/{SN}", lambda m: m["ac_power"] == 2.0)
                await it.next(f"sems/{SN}/availability", lambda m: m == "online")
                await it.next(STATE, lambda m: m == "online")
                await gateway.up()
        finally:
            await broker.stop()


async def test_after_an_outage_states_are_new_and_results_are_made_up_for(broker, bench, protocol):
    async with bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker, protocol=protocol)
        await gateway.up()
        await broker.stop()
        await gateway.down()
        for n in range(5):
            gateway.publish(ac_power=float(n))
        await gateway.dispatcher.submit(gateway.command(id="meanwhile"))
        await until(lambda: len(gateway.controller.sent) == 1)
        outbox = gateway.runner.bridge._outbox
        await until(lambda: outbox.waiting == 3)  # also once the next connection was tried
        assert outbox.states == {}
        await broker.start()
        async with peer(broker, protocol=protocol) as it:
            await gateway.up()
            await it.next(f"sems/{SN}", lambda m: m["ac_power"] == 4.0)
            it.publish(f"sems/{SN}/set/running", "off")
            await it.result(SN, "succeeded", setpoint="running")


async def test_results_of_an_outage_reach_a_subscriber_with_a_session(tmp_path, bench):
    # Its session survives, so what it gets is what was published before it was back.
    async with mosquitto(tmp_path, extra=["persistence true", f"persistence_location {tmp_path}/"]) as broker:
        patient = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="patient", clean_session=False, protocol=paho.MQTTv311
        )
        got, ready = [], []
        patient.on_message = lambda _, __, message: got.append(message.payload)
        patient.on_connect = lambda client, *_: client.subscribe(RESULT, 1)
        patient.on_subscribe = lambda *_: ready.append(1)
        patient.reconnect_delay_set(1, 1)
        patient.connect(broker.host, broker.port)
        patient.loop_start()
        try:
            await until(lambda: ready)
            async with bench() as gateway:
                gateway.announce()
                gateway.connect(broker)
                await gateway.up()
                await broker.stop()
                await gateway.down()
                await gateway.dispatcher.submit(gateway.command(id="meanwhile"))
                await until(lambda: gateway.runner.bridge._outbox.waiting == 3)
                await broker.start()
                await until(lambda: len(got) >= 3)
                assert b"succeeded" in got[2]
        finally:
            patient.disconnect()
            await asyncio.to_thread(patient.loop_stop)


async def test_wrong_credentials_are_told_clearly(tmp_path, bench, protocol):
    async with mosquitto(tmp_path, users={"sems": "right"}) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, username="sems", password="wrong", protocol=protocol)
        status = await gateway.down("user sems")
        assert "check username and password" in status.detail
        assert "wrong" not in status.detail


async def test_a_broker_that_wants_a_user_says_so(tmp_path, bench):
    async with mosquitto(tmp_path, users={"sems": "right"}) as broker, bench() as gateway:
        gateway.connect(broker)
        await gateway.down("clients without a username")


async def test_right_credentials_from_a_secret_file(tmp_path, bench, protocol):
    secret = tmp_path / "secret"
    secret.write_text("right\n")
    async with mosquitto(tmp_path, users={"sems": "right"}) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, username="sems", password={"file": str(secret)}, protocol=protocol)
        await gateway.up()
        async with peer(broker, users=("sems", "right")) as it:
            await it.next(f"sems/{SN}/availability")


async def test_twins_that_kick_each_other_out_are_told_even_where_the_broker_says_nothing(broker, bench):
    async with bench() as gateway:
        gateway.connect(broker)
        await gateway.up()
        settings = MqttSettings(**login(), host=broker.host, port=broker.port, base="other")
        gateway.run(MqttBridge, settings, "twin")
        await gateway.down("times soon after accepting us; does another client have the id sems-gateway-test-gateway?")


async def test_a_broker_that_hangs_up_is_told(broker, bench):
    async with bench() as gateway:
        gateway.connect(broker, protocol="3.1.1")
        await gateway.up()
        async with peer(broker, client_id="sems-gateway-test-gateway"):
            await gateway.down("closed the connection")


async def test_rights_that_lack_are_told(tmp_path, bench, capsys):
    acl = tmp_path / "acl"
    acl.write_text("topic read #\nuser sems\ntopic write sems/#\n")
    users = {"sems": "x", "other": "x"}
    async with mosquitto(tmp_path, users=users, extra=[f"acl_file {acl}"]) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, username="other", password="x")
        # mosquitto 2.0.11 also closes the connection at the second such message.
        await gateway.down("refuses what we publish at sems/")
        assert "reason='Not authorized' topic=sems/bridge/info" in capsys.readouterr().out


async def test_tls_with_a_client_certificate(tmp_path, bench):
    tls = Certificates(tmp_path)
    async with mosquitto(tmp_path, tls=tls) as broker, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, tls={"ca": tls.ca, "certfile": tls.cert, "keyfile": tls.key})
        await gateway.up()
        async with peer(broker, tls=tls) as it:
            await it.next(f"sems/{SN}/availability")
            for n in range(50):
                it.publish(f"sems/{SN}/set", {"active_power_limit": n, "id": str(n)})
            await it.result(SN, "succeeded", id="49")


async def test_tls_troubles_are_told(tmp_path, bench):
    tls = Certificates(tmp_path)
    async with mosquitto(tmp_path, tls=tls) as broker, bench() as gateway:
        gateway.connect(broker, tls={"certfile": tls.cert, "keyfile": tls.key})
        await gateway.down("a certificate of an unknown CA; set tls.ca")
    plain = tmp_path / "plain"
    plain.mkdir()
    async with mosquitto(plain) as broker, bench() as gateway:
        gateway.connect(broker, tls={"ca": tls.ca})
        await gateway.down("broker")
        assert not gateway.status.up


async def test_an_unknown_host_is_told(tmp_path, bench):
    async with bench() as gateway:
        gateway.run(MqttBridge, MqttSettings(host="broker.invalid"), "mqtt")
        await gateway.down("unknown name")


async def test_a_piece_of_paho_that_fails_ends_the_connection_and_not_the_loop(broker, bench, capsys):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker)
        for _ in range(2):
            await gateway.up()
            client = gateway.runner.bridge._client
            client._paho.loop_read = lambda: 1 / 0
            it.publish(f"sems/{SN}/set", "x")
            await gateway.down("said what can't be understood (division by zero)")
        await gateway.up()
        it.publish(f"sems/{SN}/set/running", "1")
        await it.result(SN, "succeeded")
        assert capsys.readouterr().out.count("connection failed") == 1


async def test_a_bridge_that_was_never_started_can_be_stopped(bench):
    bridge = MqttBridge(MqttSettings(host="x"), None)
    await bridge.stop()
    await bridge.deliver(None)


async def test_a_silent_broker_is_noticed_by_the_keep_alive(broker, bench, monkeypatch):
    monkeypatch.setattr(client_module, "TICK", 0.02)
    async with bench() as gateway:
        gateway.connect(broker)
        await gateway.up()
        client = gateway.runner.bridge._client
        client._paho._keepalive = 0.2
        client._loop.remove_reader(client._fd)
        await gateway.down("answers no more")


async def test_keep_alive_holds_an_idle_connection(broker, bench, monkeypatch):
    monkeypatch.setattr(client_module, "TICK", 0.02)
    async with bench() as gateway:
        gateway.connect(broker)
        await gateway.up()
        client = gateway.runner.bridge._client
        client._paho._keepalive = 0.1
        pinged = []
        monkeypatch.setattr(client._paho, "_handle_pingresp", lambda: pinged.append(1) or setattr(
            client._paho, "_ping_t", 0) or 0)  # fmt: skip
        await until(lambda: len(pinged) > 2)
        assert gateway.status.up


async def test_what_nobody_asked_for_is_ignored(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        for topic in ("other/x/set", "sems/x/set", "sems/bridge/state"):
            gateway.runner.bridge._commands.receive(
                client_module.Message(topic=topic, payload=b"x", retain=topic != "sems/x/set")
            )
        await it.result("x", "rejected", reason="bad_request")


def test_it_works_on_uvloop(tmp_path):
    async def scenario():
        async with mosquitto(tmp_path) as broker, peer(broker) as it, Bench(tmp_path) as gateway:
            gateway.announce()
            gateway.publish(ac_power=1.0)
            gateway.controller.answers.append(NotSentError("once more"))
            gateway.run(
                MqttBridge,
                MqttSettings(**login(), host=broker.host, port=broker.port),
                "mqtt",
            )
            await it.next(f"sems/{SN}/availability")
            it.publish(f"sems/{SN}/set/running", "off")
            await it.result(SN, "succeeded", value=False)
            await broker.stop()
            await until(lambda: not gateway.router.bridges()[0].up)
            await broker.start()
            await until(lambda: gateway.router.bridges()[0].up)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
