"""Gateways round a `kafka` bridge, several in one process; and what stands in topics, read by a client of its own."""

import asyncio
from contextlib import asynccontextmanager
from typing import ClassVar

import msgspec
import pytest

import gateway.kafka.consumer as consumer_module
import gateway.kafka.producer as producer_module
from gateway.api.bridge import BridgeSettings
from gateway.bridges.kafka import KafkaBridge, KafkaSettings
from tests.kit.bench import Bench


@pytest.fixture
def look_often(monkeypatch):
    """Look again and again what has become of topics."""
    monkeypatch.setattr(consumer_module, "LOOK", 0.3)
    monkeypatch.setattr(consumer_module, "LOOK_SOON", 0.1)
    monkeypatch.setattr(producer_module, "REFRESH", 0.3)


class Archive:
    """Keeps history."""

    Settings: ClassVar = BridgeSettings
    backlog = 20_000

    def __init__(self, settings, context):
        self.kept = []
        self.open = asyncio.Event()
        self.open.set()
        """Cleared, nothing is stored."""

    async def start(self):
        pass

    async def stop(self):
        pass

    async def deliver(self, updates):
        await self.open.wait()
        self.kept += updates.snapshots

    def values(self, point, serial):
        return [s.values[point] for s in self.kept if s.serial == serial and s.values.get(point) is not None]


class Gateway:
    """A bench with a `kafka` bridge and an archive."""

    def __init__(self, bench, name):
        self.bench = bench
        self.name = name
        self.archive_name = f"archive-{name}"
        self.archive = bench.run(Archive, BridgeSettings(), self.archive_name).bridge
        self.runner = None

    def run(self, server, *, options=None, **settings):
        made = KafkaSettings(connection={"bootstrap_servers": [server], "options": options or {}}, **settings)
        self.runner = self.bench.run(KafkaBridge, made, f"kafka-{self.name}")
        return self.runner

    @property
    def status(self):
        return next((s for s in self.bench.router.bridges() if s.name == self.runner.name), None)

    @property
    def is_up(self):
        return self.status is not None and self.status.up

    def state(self, serial):
        return self.bench.router.state(serial)

    def value(self, serial, point):
        state = self.state(serial)
        return None if state is None else state.values.get(point)


@asynccontextmanager
async def gateway(directory, name, **options):
    directory.mkdir(exist_ok=True)
    bench = Bench(directory, **options)
    bench.services = msgspec.structs.replace(bench.services, gateway_id=name)
    async with bench:
        yield Gateway(bench, name)
