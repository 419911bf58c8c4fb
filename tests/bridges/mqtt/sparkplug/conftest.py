from contextlib import asynccontextmanager

import pytest

import gateway.bridges.mqtt.sparkplug.node as node_module
from tests.bridges.mqtt.conftest import Gateway
from tests.kit.bench import EVERYTHING, INVERTER, until
from tests.kit.mosquitto import mosquitto
from tests.kit.sparkplug import Host


@pytest.fixture(autouse=True)
def _quick_rebirths(monkeypatch):
    monkeypatch.setattr(node_module, "REBIRTH_PAUSE", 0.05)


@pytest.fixture
async def broker(tmp_path):
    async with mosquitto(tmp_path) as it:
        yield it


class Node(Gateway):
    """A core with an MQTT bridge that speaks Sparkplug."""

    def connect(self, broker, /, **settings):
        super().connect(broker, **{"payload": "sparkplug"} | settings)

    @property
    def edge(self):
        return self.runner.bridge._node

    async def stale(self, serial=INVERTER.serial):
        """Let the device's data grow old."""

        def aged():
            self.router.age()
            return self.router.state(serial).quality == "stale"

        await until(aged, "the data are stale")


@pytest.fixture
def node(tmp_path):
    """Make a core; its node is started by `connect`."""

    @asynccontextmanager
    async def make(control=EVERYTHING, directory=None):
        directory = directory or tmp_path / "data"
        directory.mkdir(exist_ok=True)
        async with Node(directory, control) as it:
            yield it

    return make


@pytest.fixture
async def host(broker):
    it = Host(broker.port)
    try:
        await until(lambda: it.ready, "the host is ready")
        yield it
    finally:
        it.end()


@pytest.fixture
async def plant(broker, host, node):
    """An inverter that is born, takes commands, and is seen by a host."""
    async with node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1234.5, status="normal")
        gateway.connect(broker)
        await host.count(1, "DBIRTH", INVERTER.serial)
        yield gateway, host
