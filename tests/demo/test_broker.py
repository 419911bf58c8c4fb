"""The demo's broker, both of them, with paho and mosquitto's clients."""

import asyncio
import os
import signal
import subprocess
import sys

import paho.mqtt.client as paho
import pytest

import gateway.demo.broker as broker_module
from gateway.demo.broker import DemoBroker
from tests.kit.bench import until
from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import eventually


@pytest.fixture(params=["mosquitto", "amqtt"])
async def broker(request, monkeypatch):
    if request.param == "amqtt":
        pytest.importorskip("amqtt")
        monkeypatch.setattr(broker_module, "mosquitto", lambda: None)
    else:
        need("mosquitto")
    it = DemoBroker(free_port())
    await it.start()
    yield it
    await it.stop()


class Client:
    """A paho client that keeps what it gets."""

    def __init__(self, broker):
        self.got = []
        version = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}[broker.protocol]
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
        self.paho.on_message = lambda *args: self.got.append((args[2].topic, args[2].payload, args[2].retain))
        self.subscribed = self.gone = False
        self.paho.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self.paho.on_disconnect = lambda *_: setattr(self, "gone", True)

    async def begin(self, broker):
        await asyncio.to_thread(self.paho.connect, broker.host, broker.port)
        self.paho.loop_start()
        self.paho.subscribe("#", 1)
        await until(lambda: self.subscribed)
        return self

    async def end(self):
        self.paho.disconnect()
        await asyncio.to_thread(self.paho.loop_stop)


async def test_messages_arrive_and_are_retained_until_it_is_stopped(broker):
    one = await Client(broker).begin(broker)
    one.paho.publish("sems/device", "on", qos=1, retain=True)
    await until(lambda: ("sems/device", b"on", False) in one.got)
    two = await Client(broker).begin(broker)
    await until(lambda: ("sems/device", b"on", True) in two.got)
    await two.end()
    await broker.stop()
    await until(lambda: one.gone)
    await one.end()
    await broker.start()
    three = await Client(broker).begin(broker)
    three.paho.publish("sems/last", "x", qos=1)
    await until(lambda: [topic for topic, _, _ in three.got] == ["sems/last"])
    await three.end()


async def test_mosquittos_clients_are_served(broker):
    version = {"5": "5", "3.1.1": "311"}[broker.protocol]
    command = ["-h", broker.host, "-p", str(broker.port), "-V", version, "-q", "1"]
    publish = [need("mosquitto_pub"), *command, "-t", "a", "-m", "x", "-r"]
    await asyncio.to_thread(subprocess.run, publish, check=True, timeout=120)
    subscribe = [need("mosquitto_sub"), *command, "-t", "#", "-C", "1", "-v"]
    done = await asyncio.to_thread(subprocess.run, subscribe, check=True, timeout=120, capture_output=True, text=True)
    assert done.stdout == "a x\n"


async def test_a_port_that_is_taken_says_what_to_do(broker):
    with pytest.raises(OSError, match=rf"the MQTT port 127.0.0.1:{broker.port} can't be had .*; name another"):
        await DemoBroker(broker.port).start()


async def test_a_mosquitto_that_does_not_start_says_why(monkeypatch):
    need("mosquitto")
    monkeypatch.setattr(broker_module, "_CONFIG", "no_such_option {port} {host}\n")
    with pytest.raises(OSError, match=r"mosquitto did not start: .*no_such_option"):
        await DemoBroker(free_port()).start()


def test_it_ends_with_the_process_that_began_it():
    """Also where that is killed."""
    need("mosquitto")
    port = free_port()
    program = (
        "import asyncio\n"
        "from gateway.demo.broker import DemoBroker\n"
        "async def main():\n"
        f"    broker = DemoBroker({port})\n"
        "    await broker.start()\n"
        "    print(broker._process.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    eventually(lambda: _is_gone(child))
    eventually(lambda: _is_free(port))


def _is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _is_free(port):
    try:
        broker_module._expect_free("127.0.0.1", port)
    except OSError:
        return False
    return True


def test_it_serves_this_machine_alone():
    with pytest.raises(ValueError, match="serves only this machine"):
        DemoBroker(1883, "0.0.0.0")


def test_without_any_broker_the_demo_says_what_to_install(monkeypatch):
    monkeypatch.setattr(broker_module, "mosquitto", lambda: None)
    monkeypatch.setattr(broker_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="neither mosquitto nor amqtt"):
        DemoBroker(1883)
