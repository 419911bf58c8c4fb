"""A gateway over the simulated cloud, on virtual time, with a sink that keeps history; the cloud can go away."""

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import httpx

from gateway.api.bridge import BridgeSettings
from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from tests.bridges.open_api.kit import CLASSIC, status
from tests.kit.bench import Bench, until


class Kept:
    """What a history has stored, over restarts of the gateway; and what was live then."""

    def __init__(self):
        self.snapshots = []
        self.gate = None
        """An event that storing waits for."""
        self.delay = 0.0
        """Seconds that storing takes."""

    def times(self, serial):
        return [s.time for s in self.snapshots if s.serial == serial]


def sink(kept):
    class Keeper:
        Settings = BridgeSettings
        backlog = 10_000

        def __init__(self, settings, context):
            pass

        async def start(self):
            pass

        async def stop(self):
            pass

        async def deliver(self, updates):
            if kept.gate is not None:
                await kept.gate.wait()
            await asyncio.sleep(kept.delay)
            kept.snapshots += updates.snapshots

    return Keeper


class Live:
    """Every snapshot that was published live, by device."""

    def __init__(self, router):
        self.times = defaultdict(set)
        self.recorded = []
        inner, record = router.publish, router.record

        def publish(snapshot):
            self.times[snapshot.serial].add(snapshot.time)
            return inner(snapshot)

        def recording(snapshot):
            self.recorded.append(snapshot)
            return record(snapshot)

        router.publish, router.record = publish, recording


@asynccontextmanager
async def gateway(tmp_path, clock, kept=None, **changes):
    """One run of the gateway. Gives the bench, and what was published live."""
    fields = CLASSIC | {"url": "http://sems.test", "poll_interval": 60, "calls_per_hour": 100_000}
    async with Bench(tmp_path, clock=clock) as bench:
        live = Live(bench.router)
        if kept is not None:
            keeper = bench.run(sink(kept), BridgeSettings(), "keeper")
            bench.runners.remove(keeper)
        runner = bench.run(OpenApiBridge, OpenApiSettings(**(fields | changes)), "sems")
        try:
            await until(lambda: status(bench) and status(bench).up, timeout=4000)
            yield bench, live
        finally:
            await runner.stop()
            if kept is not None:
                await keeper.stop()


@contextmanager
def away(line):
    """No call reaches the cloud meanwhile."""
    look = line.look_at

    def refuse(request):
        raise httpx.ConnectError("no route", request=request)

    line.look_at = refuse
    try:
        yield
    finally:
        line.look_at = look


def fives(begins, ends):
    """The times of a series after `begins` and before `ends`."""
    time = begins.replace(second=0, microsecond=0, minute=begins.minute - begins.minute % 5)
    found = []
    while time < ends:
        if time > begins:
            found.append(time)
        time += timedelta(minutes=5)
    return found
