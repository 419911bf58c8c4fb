"""What SEMS forbids for a while stays forbidden over a restart of the gateway, and of the machine."""

import asyncio
import itertools

import pytest

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.bridges.realtime import RealtimeBridge, RealtimeSettings
from gateway.sems import budget, ledger
from tests.bridges.open_api.kit import CLASSIC, order, status
from tests.bridges.realtime.kit import LOGIN, NUMBERS
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual
from tests.kit.in_process import simulated

KINDS = {
    # what SEMS says, for how long it holds, what the bridge says
    "licence": (RealtimeBridge, {"licence": False}, 600, "licence"),
    "rate limit": (OpenApiBridge, {"answers": [{"answer": "rate_limited"}]}, 300, "limits this account"),
    "429": (OpenApiBridge, {"answers": [{"answer": "http_429_bare"}]}, 300, "limits this account"),
}
RESTARTS = {
    # whether the machine was restarted too, and by how much its clock is off afterwards
    "gateway": (False, 0),
    "gateway, clock set forward": (False, 86_400),
    "machine": (True, 0),
    "machine without a clock": (True, -3 * 3600),
}


def settings(bridge):
    if bridge is RealtimeBridge:
        return RealtimeSettings(**LOGIN, url="http://sems.test", whitelist=NUMBERS, poll_interval=60)
    return OpenApiSettings(**CLASSIC, url="http://sems.test", poll_interval=60)


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("kind", KINDS)
@virtual
async def test_a_bridge_that_is_started_anew_makes_no_call_before_its_time(tmp_path, monkeypatch, kind, restart):
    type_, spoilt, seconds, says = KINDS[kind]
    reboots, jump = RESTARTS[restart]
    boots = map(str, itertools.count())
    clock = FakeClock()
    with simulated(monkeypatch, clock) as (simulator, _):
        called = simulator.cloud.calls
        simulator.cloud.spoil(order(spoilt))

        async def life(until):
            """Run the bridge, as in a process of its own, until something is so; return how long that took."""
            if reboots:
                boot = next(boots)
                monkeypatch.setattr(ledger, "boot_id", lambda: boot)
                monkeypatch.setattr("gateway.bridges.realtime.licence.boot_id", lambda: boot)
            budget._SHARED.clear()
            began = clock.monotonic()
            async with Bench(tmp_path, clock=clock) as bench:
                bench.run(type_, settings(type_), "sems")
                while not until(bench):
                    await asyncio.sleep(1)
            return clock.monotonic() - began

        def told(bench):
            return status(bench) and not status(bench).up and says in status(bench).detail

        await life(told)
        count, since = len(called), clock.monotonic()
        assert count
        clock.jump(jump)
        await life(told)
        took = await life(lambda _: len(called) > count or clock.monotonic() > since + 2 * seconds)
        waited = clock.monotonic() - since
        assert waited >= seconds - 5
        assert waited <= seconds + 60, f"then it is asked again; it took {took}"
        simulator.cloud.spoil(order({"clear": True, "licence": True}))
        await life(lambda bench: status(bench) and status(bench).up)


@virtual
async def test_the_licence_is_asked_about_ever_more_seldom_over_restarts_too_until_it_is_there(tmp_path, monkeypatch):
    clock, pauses = FakeClock(), []
    with simulated(monkeypatch, clock) as (simulator, _):
        simulator.cloud.spoil(order({"licence": False}))
        last = clock.monotonic()
        for _ in range(4):
            count = len(simulator.cloud.calls)
            async with Bench(tmp_path, clock=clock) as bench:
                bench.run(RealtimeBridge, settings(RealtimeBridge), "sems")
                while len(simulator.cloud.calls) == count:
                    await asyncio.sleep(1)
                await asyncio.sleep(5)
            pauses.append(round((clock.monotonic() - last) / 60))
            last = clock.monotonic()
        assert pauses == [0, 10, 20, 40]
        simulator.cloud.spoil(order({"licence": True}))
        async with Bench(tmp_path, clock=clock) as bench:
            bench.run(RealtimeBridge, settings(RealtimeBridge), "sems")
            while not ((now := status(bench)) and now.up):
                await asyncio.sleep(1)
        assert not list(tmp_path.glob("*licence.json"))
