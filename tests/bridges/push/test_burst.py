"""Nothing is lost: of a burst, and of pushes that come twice, late, in any order, and to an archive that fails."""

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.bridge import BridgeSettings
from gateway.bridges.push import PushBridge, PushSettings
from tests.bridges.push.conftest import SECRET, Archive, Pushed, pushed_to
from tests.kit.bench import Bench, until
from tests.kit.clock import FakeClock, virtually

DEVICES = int(os.environ.get("SEMS_GATEWAY_SOAK_PUSHES", "600"))
"""`make soak` has 2,000."""
CONNECTIONS = 300
TWICE = len(range(0, DEVICES, 10))


class Heartbeat:
    """How long our own work held the loop at a time, in seconds of CPU time: others work on this machine too."""

    longest = 0.0

    async def beat(self):
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - before)


async def test_of_a_burst_of_devices_nothing_is_lost(tmp_path):
    """All at once over 300 connections, a tenth of them twice, to an archive that fails at first."""
    async with pushed_to(tmp_path, timeout=250) as it:
        it.archive.trouble = [OSError("full")]
        pushes = [it.inverter(n, sn=f"SN{n:04}", vpv1=600.5, vac1=230.1, eday=1.5) for n in range(DEVICES)]
        waiting = pushes + pushes[::10]
        random.Random(1).shuffle(waiting)
        heartbeat = Heartbeat()
        beating = asyncio.create_task(heartbeat.beat())
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bridges.push.sender", f"{it.url}/push/{SECRET}", str(CONNECTIONS),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, _ = await sender.communicate("\n".join(map(json.dumps, waiting)).encode())
        beating.cancel()
        said = json.loads(printed)
        assert said["statuses"] == {"204": DEVICES + TWICE}
        assert it.counts == {"taken": DEVICES, "duplicate": TWICE}
        shown = {state.device.serial: state.values["ac_power"] for state in it.bench.router.states()}
        assert shown == {f"SN{n:04}": float(n) for n in range(DEVICES)}
        assert sorted(s.values["ac_power"] for s in it.archive.kept) == [float(n) for n in range(DEVICES)]
        sys.stdout.write(f"{said['seconds']} s; the loop was held for {heartbeat.longest * 1000:.0f} ms at most\n")


async def test_a_list_of_many_devices_lets_others_have_their_turn(tmp_path):
    async with pushed_to(tmp_path, max_bytes=4_000_000) as it:
        pushes = [it.inverter(n, sn=f"SN{n:04}") for n in range(1_000)]
        turns = 0

        async def others():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async with asyncio.TaskGroup() as group:
            other = group.create_task(others())
            take = it.bridge._take(pushes)
            before = turns
            result = await take
            other.cancel()
        assert result.counts == {"taken": 1_000}
        assert turns - before > 90


NUMBERS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.lists(st.tuples(st.sampled_from("AB"), NUMBERS), min_size=1, max_size=4)),
        st.tuples(st.just("fail"), st.integers(1, 3)),
        st.tuples(st.just("close"), st.none()),
        st.tuples(st.just("open"), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 70.0])),
    ),
    max_size=30,
)


class Tight(Archive):
    backlog = 3


def pushed(clock_start, serial, number):
    """The push with this number of this device: measured at a time of its own, with a value of its own."""
    time = clock_start - timedelta(minutes=10) + timedelta(seconds=number)
    return {
        "interface": "GetInverterBySN",
        "sn": serial,
        "data": {"last_refresh_time": f"{time:%Y-%m-%d %H:%M:%S}", "pac": number},
    }


class Served(PushBridge):
    """Without a socket, so that time is free."""

    async def start(self):
        self.port = 1


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_whatever_comes_twice_late_or_fails_nothing_acknowledged_is_lost(steps):
    @virtually
    async def run(directory):
        async with Bench(directory, clock=FakeClock()) as bench:
            archive = bench.run(Tight, BridgeSettings(), "archive").bridge
            runner = bench.run(Served, PushSettings(secret=SECRET, announce=True, timeout=5), "push")
            it = Pushed(bench, runner, archive)
            await until(lambda: it.bridge.port)
            start = bench.clock.now()
            sent, acknowledged, tasks = set(), set(), []

            async def deliver(numbers, *, until_taken=False):
                transport = httpx.ASGITransport(it.bridge.serve)
                async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                    while True:
                        body = [pushed(start, *number) for number in numbers]
                        answer = await client.post(f"/push/{SECRET}", json=body)
                        assert answer.status_code in (204, 503)
                        if answer.status_code == 204:
                            kept = {(s.serial, s.values["ac_power"]) for s in archive.kept}
                            assert {(serial, float(n)) for serial, n in numbers} <= kept
                            acknowledged.update(numbers)
                        if answer.status_code == 204 or not until_taken:
                            return
                        await asyncio.sleep(30)

            for what, value in steps:
                match what:
                    case "push":
                        sent |= set(value)
                        tasks.append(asyncio.create_task(deliver(value)))
                    case "fail":
                        archive.trouble += [OSError("full")] * value
                    case "close":
                        archive.open.clear()
                    case "open":
                        archive.open.set()
                    case _:
                        await asyncio.sleep(value)
            archive.open.set()
            await asyncio.gather(*tasks)
            # GoodWe tries again what was not acknowledged.
            for number in sent - acknowledged:
                await deliver([number], until_taken=True)
            kept = {(s.serial, s.values["ac_power"]) for s in archive.kept}
            assert kept == {(serial, float(n)) for serial, n in sent}
            for serial in {serial for serial, _ in sent}:
                newest = max(n for other, n in sent if other == serial)
                assert it.values(serial)["ac_power"] == float(newest)

    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory))
