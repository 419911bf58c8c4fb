import asyncio
from contextlib import asynccontextmanager

import pytest
import uvloop

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from tests.bridges.modbus.client import RawClient
from tests.kit.bench import EVERYTHING, INVERTER, Bench, until
from tests.kit.clock import LOOPS


def pytest_asyncio_loop_factories(item):
    """What speaks bytes is tested on both loops: they differ in how they pause, flush and close."""
    if item.get_closest_marker("virtual"):
        return {"uvloop": LOOPS["uvloop"]}  # time is free
    loops = {"asyncio": asyncio.SelectorEventLoop}
    if item.path.stem in {"test_connection", "test_serving", "test_tls", "test_udp"}:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


class Served:
    """A gateway with a Modbus server, and one inverter as unit 1."""

    def __init__(self, bench, runner):
        self.bench = bench
        self.runner = runner

    @property
    def bridge(self):
        return self.runner.bridge

    @property
    def port(self):
        return self.bridge.port

    @asynccontextmanager
    async def client(self):
        client = await RawClient.connect(self.port)
        try:
            yield client
        finally:
            await client.close()

    async def publish(self, serial=INVERTER.serial, **values):
        """Publish, and wait until the registers have it."""
        shown = self.bridge._devices[serial].updates
        self.bench.publish(serial, **values)
        await until(lambda: self.bridge._devices[serial].updates > shown)


def _note_accepted(dispatcher):
    """Return the list of the commands that are accepted, in order: several may leave by one call, or none."""
    asked, accept = [], dispatcher._executor.accept

    async def noting(entries):
        events = await accept(entries)
        asked.extend(event.command for event in events if event.state == "accepted")
        return events

    dispatcher._executor.accept = noting
    return asked


@asynccontextmanager
async def serving(data_dir, *, control=EVERYTHING, clock=None, devices=(INVERTER,), name="modbus", **settings):
    async with Bench(data_dir, control, clock) as bench:
        for device in devices:
            bench.announce(device)
        bench.asked = _note_accepted(bench.dispatcher)
        runner = bench.run(ModbusBridge, ModbusSettings(**({"port": 0} | settings)), name)
        await until(lambda: runner.bridge.port and len(runner.bridge.units) >= min(len(devices), 247))
        yield Served(bench, runner)


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as served:
        yield served


@pytest.fixture
async def client(served):
    async with served.client() as client:
        yield client
