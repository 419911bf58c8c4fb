"""A push bridge under a real supervisor, beside an archive; and GoodWe, as httpx plays it."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

import httpx
import pytest

from gateway.api.bridge import BridgeSettings
from gateway.bridges.push import PushBridge, PushSettings
from gateway.core.clock import SystemClock
from tests.kit.bench import Bench, until

SECRET = "a-secret-that-nobody-guesses"
SN = "9010KETU000W0001"
PLANT = "plant-1"


class Archive:
    """Keeps history. `trouble` holds what to raise instead, in turn; `open` cleared, nothing is stored."""

    Settings: ClassVar = BridgeSettings
    backlog = 20_000

    def __init__(self, settings, context):
        self.kept = []
        self.trouble = []
        self.open = asyncio.Event()
        self.open.set()

    async def start(self):
        pass

    async def stop(self):
        pass

    async def deliver(self, updates):
        await self.open.wait()
        if self.trouble and (error := self.trouble.pop(0)):
            raise error
        self.kept += updates.snapshots

    def values(self, point, serial=SN):
        return [s.values[point] for s in self.kept if s.serial == serial and s.values.get(point) is not None]


class Pushed:
    """A gateway that is pushed to."""

    def __init__(self, bench, runner, archive):
        self.bench = bench
        self.runner = runner
        self.archive = archive

    @property
    def bridge(self):
        return self.runner.bridge

    @property
    def url(self):
        return f"http://127.0.0.1:{self.bridge.port}"

    @property
    def counts(self):
        return {outcome.value: count for outcome, count in self.bridge.counts.items() if count}

    def local(self, age=0.0):
        """A time as SEMS writes it, of a plant in UTC."""
        return f"{self.bench.clock.now() - timedelta(seconds=age):%Y-%m-%d %H:%M:%S}"

    def inverter(self, pac=1000, *, sn=SN, age=0.0, **fields):
        data = {"last_refresh_time": self.local(age), "status": 1, "pac": pac} | fields
        return {"interface": "GetInverterBySN", "sn": sn, "data": data}

    async def post(self, body=None, path=f"/push/{SECRET}", **options):
        async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
            if body is not None:
                options["json"] = body
            return await client.post(self.url + path, **options)

    def values(self, serial=SN):
        state = self.bench.router.state(serial)
        return None if state is None else dict(state.values)


@asynccontextmanager
async def pushed_to(directory, *, archive=Archive, clock=None, **settings):
    directory.mkdir(exist_ok=True)
    async with Bench(directory, clock=clock or SystemClock()) as bench:
        kept = bench.run(archive, BridgeSettings(), "archive").bridge if archive else None
        options = {"port": 0, "secret": SECRET, "announce": True, "announce_most": 20_000} | settings
        runner = bench.run(PushBridge, PushSettings(**options), "push")
        await until(lambda: runner.bridge.port)
        yield Pushed(bench, runner, kept)


@pytest.fixture
async def it(tmp_path):
    async with pushed_to(tmp_path) as pushed:
        yield pushed
