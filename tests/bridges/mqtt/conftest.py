from contextlib import asynccontextmanager

import pytest

import gateway.bridges.mqtt.bridge as bridge_module
from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.core.model import BridgeStatus
from tests.bridges.mqtt.peer import peer
from tests.kit import acl
from tests.kit.bench import EVERYTHING, Bench, until
from tests.kit.mosquitto import mosquitto


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(bridge_module, "RETRY_FIRST", 0.05)
    monkeypatch.setattr(bridge_module, "MAX_RETRY_SECONDS", 0.2)


@pytest.fixture
async def broker(tmp_path):
    """A mosquitto, empty."""
    async with mosquitto(tmp_path) as it:
        yield it


class Gateway(Bench):
    """A core with an MQTT bridge."""

    runner = None

    def connect(self, broker, /, **settings):
        login = acl.login(settings.get("payload", "json")) if getattr(broker, "bound", False) else {}
        settings = MqttSettings(**{"host": broker.host, "port": broker.port} | login | settings)
        self.runner = self.run(MqttBridge, settings, "mqtt")

    def status_of(self, name, *, up):
        """Have another bridge there that is up, or not; returns how to change that."""

        def say(*, up):
            now = self.clock.now()
            self.router.bridge_status(BridgeStatus(name=name, type="scripted", up=up, since=now))

        say(up=up)
        return say

    @property
    def status(self):
        return next((status for status in self.router.bridges() if status.name == "mqtt"), None)

    async def up(self):
        return await until(lambda: self.status and self.status.up and self.status, "the bridge is up")

    async def down(self, words=""):
        return await until(
            lambda: self.status and not self.status.up and words in self.status.detail and self.status, words
        )


@pytest.fixture
def bench(tmp_path):
    """Make a core; the bridge is started by `connect`."""

    @asynccontextmanager
    async def make(control=EVERYTHING):
        directory = tmp_path / "data"
        directory.mkdir(exist_ok=True)
        async with Gateway(directory, control) as it:
            yield it

    return make


@pytest.fixture(params=["5", "3.1.1"])
def protocol(request):
    return request.param


@pytest.fixture
async def plant(broker, bench):
    """An inverter that is shown and takes commands, and a peer at the broker."""
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1234.5, status="normal")
        gateway.connect(broker)
        await gateway.up()
        yield gateway, it
