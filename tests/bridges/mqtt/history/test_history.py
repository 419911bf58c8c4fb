"""Store and forward against a real broker that goes away."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from prometheus_client.registry import REGISTRY

import gateway.bridges.mqtt.suspicion as suspicion_module
from gateway.api.bridge import HistorySink, Sink
from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.history import history as history_module
from gateway.bridges.mqtt.history.store import StoreError
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.core.model import Snapshot, iso
from tests.bridges.mqtt.brokers import narrow
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER, until
from tests.kit.clock import FakeClock
from tests.kit.mosquitto import mosquitto

SN = INVERTER.serial
STORE = {"enabled": True, "rate": 100_000}


def snapshot(gateway, serial, n, *, source="scripted"):
    """What was measured in minute `n`."""
    time = gateway.clock.start + timedelta(minutes=n)
    return Snapshot(serial=serial, time=time, source=source, interval=60, values={"ac_power": float(n)})


def told(it, serials):
    """Each (device, time) that came as a state or as history, and how often."""
    seen = Counter()
    for serial in serials:
        for topic in (f"sems/{serial}", f"sems/{serial}/history"):
            seen.update((serial, message["time"], message["ac_power"]) for message in it.all(topic) if message["time"])
    return seen


def kept_by(gateway):
    return gateway.runner.bridge._history


async def settled(gateway):
    """All that was published is on disk or acknowledged."""
    box = gateway.router._mailboxes["mqtt"]
    await until(lambda: not box._waiting and box._under_way is None, "all is delivered", 30)


async def expecting(gateway):
    """The history expects acknowledgements; that is a little later than that the bridge is up."""
    await gateway.up()
    await until(lambda: kept_by(gateway)._connected)


@pytest.fixture
def clocked(bench):
    """A bench whose wall clock can be moved."""

    def make():
        context = bench()

        class Clocked:
            async def __aenter__(self):
                gateway = await context.__aenter__()
                clock = FakeClock()
                # What is ahead of the clock would be taken as of now.
                clock.start = clock.now() - timedelta(hours=6)
                gateway.clock = gateway.router._clock = clock
                gateway.services = type(gateway.services)(
                    "test-gateway", gateway.data_dir, clock, gateway.router, gateway.policy, gateway.dispatcher
                )
                return gateway

            async def __aexit__(self, *exc):
                await context.__aexit__(*exc)

        return Clocked()

    return make


def test_only_with_a_store_it_keeps_history():
    plain = MqttBridge(MqttSettings(host="x"), None)
    keeping = MqttBridge(MqttSettings(host="x", store={"enabled": True}), None)
    assert isinstance(plain, Sink)
    assert not isinstance(plain, HistorySink)
    assert isinstance(keeping, HistorySink)


class Archive:
    """A subscriber for whom the broker keeps what comes while one of the two is away."""

    def __init__(self, broker):
        self.seen = Counter()
        """(device, time, value) → how often it came."""
        self.history = {}
        """Device → values, as they came."""
        self.ready = False
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="archive", clean_session=False)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("sems/#", 1)
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()

    def _on_subscribe(self, *_):
        self.ready = True

    def _on_message(self, _, __, message):
        _, serial, *rest = message.topic.split("/")
        if rest not in ([], ["history"]) or message.retain:
            return
        body = msgspec.json.decode(message.payload)
        if body["time"] is None:
            return
        self.seen[serial, body["time"], body["ac_power"]] += 1
        if rest:
            self.history.setdefault(serial, []).append(body["ac_power"])

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


async def test_ten_minutes_without_broker_under_a_thousand_devices(tmp_path, clocked):
    serials = [f"SN{n:04}" for n in range(1000)]
    lines = ["persistence true", f"persistence_location {tmp_path}/"]
    async with mosquitto(tmp_path, extra=lines) as broker, clocked() as gateway:
        archive = Archive(broker)
        try:
            await until(lambda: archive.ready)
            for serial in serials:
                gateway.announce(serial=serial)
            gateway.connect(broker, store=STORE)
            await gateway.up()
            expected = set()

            async def minute(n, stop_after=None):
                for count, serial in enumerate(serials):
                    if count == stop_after:
                        await broker.stop()
                    one = snapshot(gateway, serial, n)
                    gateway.router.publish(one)
                    expected.add((serial, iso(one.time), float(n)))
                await settled(gateway)
                gateway.clock.jump(60)

            await minute(0)
            await minute(1)
            await minute(2, stop_after=500)
            await gateway.down()
            for n in range(3, 13):
                await minute(n)
            assert kept_by(gateway).waiting >= 10_000
            await broker.start()
            await minute(13)
            await gateway.up()
            await minute(14)
            await until(lambda: not kept_by(gateway).waiting, "all was told", 60)
            try:
                await until(lambda: archive.seen.keys() >= expected)
            except TimeoutError:
                missing = expected - archive.seen.keys()
                raise AssertionError(f"{len(missing)} are missing: {sorted(missing)[:20]}") from None
            assert archive.seen.keys() == expected
            for values in archive.history.values():
                # In order. Twice is allowed where an acknowledgement was lost with the connection.
                assert values == sorted(values)
            twice = sum(1 for count in archive.seen.values() if count > 1)
            assert twice <= 1000 + 20, "more than the newest of each device, and what was under way"
            assert kept_by(gateway).dropped == 0
        finally:
            archive.close()


async def test_nothing_touches_the_disk_while_the_broker_acknowledges(broker, clocked, monkeypatch):
    # On a busy machine an acknowledgement takes longer than usual.
    monkeypatch.setattr(history_module, "PATIENCE", 2.0)
    async with clocked() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker, store=STORE)
        await expecting(gateway)
        store, touched = kept_by(gateway).store, []
        before = store.path.read_bytes()
        for name in ("add", "remove"):
            monkeypatch.setattr(store, name, lambda *_, name=name: touched.append(name))
        for minute in range(20):
            gateway.router.publish(snapshot(gateway, SN, minute))
            await settled(gateway)
            gateway.clock.jump(60)
        await until(lambda: len(told(it, [SN])) == 20)
        assert it.all(f"sems/{SN}/history") == []
        assert touched == []
        assert store.path.read_bytes() == before


async def test_what_newer_data_overtook_is_history(broker, clocked):
    async with clocked() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker, store=STORE)
        await gateway.up()
        for minute in range(5):
            gateway.router.publish(snapshot(gateway, SN, minute))
        await until(lambda: len(it.all(f"sems/{SN}/history")) >= 4)
        # On a busy machine the newest is history too: its acknowledgement as a state comes late.
        assert [m["ac_power"] for m in it.all(f"sems/{SN}/history")][:4] == [0, 1, 2, 3]
        await until(lambda: it.last(f"sems/{SN}")["ac_power"] == 4)
        entry = it.all(f"sems/{SN}/history")[1]
        assert entry == {"time": "2026-06-21T06:01:00.000Z", "source": "scripted", "ac_power": 1.0}


async def test_it_is_paced_and_live_data_go_first(broker, clocked):
    async with clocked() as gateway:
        gateway.announce()
        gateway.connect(broker, store={"enabled": True, "rate": 100})
        await gateway.up()
        await broker.stop()
        await gateway.down()
        for minute in range(200):
            gateway.router.publish(snapshot(gateway, SN, minute))
        await settled(gateway)
        await broker.start()
        async with peer(broker) as it:
            await gateway.up()
            await it.next(f"sems/{SN}/history")
            gateway.clock.jump(300)
            gateway.router.publish(snapshot(gateway, SN, 300))
            await it.next(f"sems/{SN}", lambda m: m.get("ac_power") == 300)
            assert len(it.all(f"sems/{SN}/history")) < 199
            await until(lambda: len(it.all(f"sems/{SN}/history")) >= 199)
            assert [m["ac_power"] for m in it.all(f"sems/{SN}/history")][:199] == list(range(199))


async def test_what_is_dropped_is_told(broker, clocked):
    async with clocked() as gateway:
        gateway.announce()
        gateway.connect(broker, store={"enabled": True, "rate": 1000, "max_age": 600})
        await gateway.up()
        await broker.stop()
        await gateway.down()
        gateway.router.publish(snapshot(gateway, SN, 0))
        await settled(gateway)
        gateway.clock.jump(8 * 86_400)  # which makes nothing old
        gateway.clock.sleep(1200)
        gateway.router.publish(snapshot(gateway, SN, 20))
        await settled(gateway)
        labels = {"bridge": "mqtt"}
        assert REGISTRY.get_sample_value("sems_gateway_mqtt_history_dropped_total", labels) == 1
        assert REGISTRY.get_sample_value("sems_gateway_mqtt_history_waiting", labels) == 1
        await broker.start()
        async with peer(broker) as it:
            await it.next("sems/bridge/health", lambda m: m["dropped_history"] == 1)
            await it.next(f"sems/{SN}", lambda m: m.get("ac_power") == 20)
    assert REGISTRY.get_sample_value("sems_gateway_mqtt_history_waiting", labels) is None


async def test_a_full_disk_stops_no_live_data(broker, clocked, monkeypatch, capsys):
    async def full(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(history_module, "PATIENCE", 1.0)
    async with clocked() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker, store=STORE)
        await expecting(gateway)
        with monkeypatch.context() as patch:
            for name in ("add", "oldest", "remove"):
                patch.setattr(kept_by(gateway).store, name, full)
            for minute in range(3):
                gateway.router.publish(snapshot(gateway, SN, minute))
            await it.next(f"sems/{SN}", lambda m: m.get("ac_power") == 2)
            await it.next("sems/bridge/health", lambda m: m["dropped_history"] == 2)
        assert capsys.readouterr().out.count("store and forward fails") == 1
        for minute in range(3, 6):
            gateway.router.publish(snapshot(gateway, SN, minute))
        await it.next(f"sems/{SN}/history", lambda m: m.get("ac_power") == 4)
        await it.next(f"sems/{SN}", lambda m: m.get("ac_power") == 5)


async def test_a_restart_of_the_bridge_keeps_it(broker, clocked):
    async with clocked() as gateway:
        gateway.announce()
        await broker.stop()
        gateway.connect(broker, store=STORE)
        await gateway.down()
        for minute in range(30):
            gateway.router.publish(snapshot(gateway, SN, minute))
        await settled(gateway)
        old = kept_by(gateway)
        gateway.runner.begin_anew()
        await until(lambda: kept_by(gateway) not in {None, old})
        await gateway.down()
        await broker.start()
        async with peer(broker) as it:
            await until(lambda: len(told(it, [SN])) == 30, "all is told", 30)


async def test_history_that_the_broker_refuses_is_dropped_and_counted(tmp_path, bench, clocked):
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\ntopic deny sems/+/history\n")
    acl.chmod(0o600)
    async with mosquitto(tmp_path, extra=[f"acl_file {acl}"]) as broker, clocked() as gateway, peer(broker) as it:
        gateway.announce()
        # One only: mosquitto 2.0.11 hangs up over several.
        gateway.connect(broker, store=STORE)
        await gateway.up()
        for minute in range(2):
            gateway.router.publish(snapshot(gateway, SN, minute))
        await it.next("sems/bridge/health", lambda m: m["dropped_history"] == 1)
        await until(lambda: not kept_by(gateway).waiting)
        assert gateway.status.up


async def test_history_over_which_the_broker_hangs_up_is_kept_and_the_rest_goes_on(clocked, monkeypatch, capsys):
    monkeypatch.setattr(suspicion_module, "PROVEN_AFTER", 0.3)
    async with narrow() as broker, clocked() as gateway:
        gateway.announce()
        gateway.announce(serial="good")
        broker.acknowledging = False
        broker.unbearable = (f"sems/{SN}/history",)
        gateway.connect(broker, store=STORE)
        await expecting(gateway)
        for minute in range(6):
            gateway.router.publish(snapshot(gateway, (SN, "good")[minute % 2], minute))
        # The newest of each is acknowledged as its state.
        await until(lambda: kept_by(gateway).waiting == 6)
        before, broker.acknowledging = broker.hung_up, True
        await until(lambda: kept_by(gateway)._aside or broker.hung_up > before + 5)
        assert kept_by(gateway)._aside == {SN}
        await until(lambda: broker.topics.count("sems/good/history") >= 2)
        await until(lambda: kept_by(gateway).waiting <= 2, "what it has of this device")
        hung_up, dropped = broker.hung_up, kept_by(gateway).dropped
        gateway.router.publish(snapshot(gateway, SN, 10))
        await until(lambda: broker.topics[-1] == f"sems/{SN}", "live data go on")
        assert (broker.hung_up, dropped) == (hung_up, 0)
        assert kept_by(gateway).waiting >= 2, "what is set aside stays"
        assert hung_up - before <= 3, "once with others, twice alone"
        assert f"topic=sems/{SN}/history" in capsys.readouterr().out


async def test_a_killed_gateway_goes_on_where_it_was(broker, tmp_path):
    """Killed while the broker is away, and again while it makes up for that."""
    root = Path(__file__).parents[4]
    directory = tmp_path / "data"
    directory.mkdir()

    async def start(*options):
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bridges.mqtt.history.alone", str(broker.port), str(directory), *options,
            cwd=root, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def says(process, word):
        async with asyncio.timeout(120):
            while (line := await process.stdout.readline()).strip() != word.encode():
                assert line, "it ended"

    async def kill(process):
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()

    await broker.stop()
    first = await start("300")
    await says(first, "stored")
    await kill(first)
    await broker.start()
    async with peer(broker) as it:
        second = await start("0")
        await until(lambda: it.all(f"sems/{SN}/history"))
        await kill(second)
        third = await start("0")
        try:
            await until(lambda: {m["ac_power"] for m in it.all(f"sems/{SN}/history")} == set(range(300)))
        finally:
            await kill(third)


async def test_what_is_in_doubt_at_the_end_is_written_down(broker, clocked, monkeypatch):
    monkeypatch.setattr(history_module, "PATIENCE", 60.0)
    async with clocked() as gateway:
        gateway.announce()
        gateway.connect(broker, store=STORE)
        await expecting(gateway)
        # Overtaken at once, so never acknowledged as a state.
        for minute in range(3):
            gateway.router.publish(snapshot(gateway, SN, minute))
        history = kept_by(gateway)
        await until(lambda: len(history._doubtful) == 2)
        await gateway.runner.stop()
        assert history.waiting == 2
        with closing(sqlite3.connect(history.store.path)) as db:
            assert db.execute("SELECT count(*) FROM snapshot").fetchone() == (2,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"payload": "sparkplug"}, "payload: json"),
        ({"qos": 0}, "QoS 1 or 2"),
        ({"delivery": {"state": {"qos": 0}}}, "QoS 1 or 2"),
    ],
)
def test_settings_with_which_it_could_not_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        MqttSettings(host="x", store={"enabled": True}, **settings)


def test_sizes_may_have_units():
    assert MqttSettings(host="x", store={"enabled": True, "max_bytes": "20 MB"}).store.max_bytes == 20_000_000
