# ruff: noqa: D103, INP001, T201 - a script that prints
"""How long it takes to read thousands of inverters over the Real-Time Data API, and what that costs.

    python benchmarks/realtime/run.py [--inverters 5000] [--parallel 4] [--rounds 3]

The simulated SEMS is a process of its own. Each round is a gateway core with the bridge, from its start until every
number is in the router as live data; and beside it a bare loop of httpx that fetches the same answers with as many
calls at a time, and decodes them.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Final

import httpx
import msgspec
import uvloop

from gateway.api.bridge import BridgeSettings
from gateway.bridges.realtime import RealtimeBridge, RealtimeSettings
from gateway.commands.dispatch import Dispatcher
from gateway.commands.policy.policy import ControlSettings, Policy
from gateway.core.clock import SystemClock
from gateway.core.model import DeviceKind, Quality
from gateway.core.router import Router
from gateway.journal.journal import Journal
from gateway.run.logs import configure
from gateway.run.settings import LogSettings
from gateway.run.supervisor import Runner, Services
from gateway.sems.catalogue import load
from gateway.simulator.fleet import make_fleet

BATCH: Final = 100
PER_PLANT: Final = 20
DEADLINE: Final = 60.0
"""Seconds: what issue 5 asks for."""
LOGIN: Final = ("supplier", "supplier")


class Result(msgspec.Struct):
    """One run."""

    seconds: float
    cpu: float
    """Of this process, seconds."""
    simulator: float
    """CPU seconds of the simulator meanwhile."""
    turn: float = 0.0
    """Longest that the loop was held, seconds."""


def numbers(count: int) -> tuple[int, dict[str, str]]:
    """Return how many plants the simulator needs, and that many inverters with their types."""
    plants = count // PER_PLANT + 4
    found = {d.serial: str(d.model.kind) for p in make_fleet(plants, devices_per_plant=PER_PLANT) for d in p.devices}
    return plants, dict(list(found.items())[:count])


def spent(process: int) -> float:
    """Return the CPU seconds of a process, user and system: fields 14 and 15 of /proc/PID/stat, proc(5)."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def bare(url: str, types: dict[str, str], parallel: int) -> None:
    """Fetch and decode what the gateway fetches, and no more."""
    catalogue = load("realtime")
    wanted: dict[str, list[str]] = {}
    for serial, type_ in types.items():
        wanted.setdefault(type_, []).append(serial)
    batches = [(t, s[i : i + BATCH]) for t, s in wanted.items() for i in range(0, len(s), BATCH)]
    async with httpx.AsyncClient(trust_env=False, base_url=url, timeout=60) as client:
        answer = await client.post(
            catalogue.interface("Token").path, data={"grant_type": "client_credentials"}, auth=LOGIN
        )
        bearer = f"Bearer {answer.json()['access_token']}"
        turn = asyncio.Semaphore(parallel)

        async def fetch(type_: str, serials: list[str]) -> int:
            async with turn:
                headers = {"Authorization": bearer, "Request-Id": str(uuid.uuid4())}
                path = catalogue.url_path(catalogue.interface(type_))
                answer = await client.post(path, json={"sns": serials}, headers=headers)
                return len(json.loads(answer.content)["data"]["deviceData"])

        assert sum(await asyncio.gather(*(fetch(*batch) for batch in batches))) == len(types)  # noqa: S101


async def through(url: str, types: dict[str, str], parallel: int, folder: Path) -> float:
    """Read all by the bridge, until the router has live data of each; returns the loop's longest turn."""
    clock = SystemClock()
    router, policy, journal = Router(clock), Policy(ControlSettings(), clock), Journal(folder / "journal.sqlite")
    dispatcher = Dispatcher(router, policy, journal, clock)
    services = Services("bench", folder, clock, router, policy, dispatcher)
    settings: BridgeSettings = RealtimeSettings.model_validate(
        {
            "client_id": LOGIN[0],
            "client_secret": LOGIN[1],
            "url": url,
            "whitelist": list(types),
            "types": types,
            "overrides": {"interfaces": {"devices": None, "alarm": None}},
            "parallel": parallel,
        }
    )
    runner = Runner("supply", "realtime", RealtimeBridge, settings, services)
    runner.start()
    start = before = time.perf_counter()
    longest = 0.0
    while True:
        if time.perf_counter() - start > DEADLINE:
            seen = Counter(state.quality for state in router.states())
            raise SystemExit(f"not all were read within {DEADLINE:g} s: {dict(seen)}, {router.bridges()}")
        await asyncio.sleep(0.002)
        now = time.perf_counter()
        longest, before = max(longest, now - before - 0.002), now
        if len(states := router.states()) == len(types) and all(s.quality is Quality.GOOD for s in states):
            break
    assert all(s.device.kind in (DeviceKind.INVERTER, DeviceKind.STORAGE) for s in states)  # noqa: S101
    assert all(s.values["ac_power"] is not None for s in states)  # noqa: S101
    await runner.stop()
    return longest


def measured(simulator: int, work: object) -> Result:
    me = os.getpid()
    began, cpu, theirs = time.perf_counter(), spent(me), spent(simulator)
    turn = uvloop.run(work)  # type: ignore[arg-type, var-annotated]
    return Result(time.perf_counter() - began, spent(me) - cpu, spent(simulator) - theirs, turn or 0.0)


def show(name: str, results: list[Result], count: int) -> None:
    seconds, cpu, theirs, turn = (
        statistics.median(getattr(r, field) for r in results) for field in Result.__struct_fields__
    )
    print(
        f"{name:12} {seconds:6.2f} s {count / seconds:9.0f} devices/s   {cpu:5.2f} s CPU "
        f"({cpu / count * 1e6:4.0f} us a device)   simulator {theirs:5.2f} s CPU"
        + (f"   longest turn {turn * 1e3:.0f} ms" if turn else "")
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--inverters", type=int, default=5000)
    options.add_argument("--parallel", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    configure(LogSettings(level="error"))
    plants, types = numbers(asked.inverters)
    command = [sys.executable, "-m", "gateway", "simulate", "--port", "0", "--calls-per-hour", "0"]
    command += ["--plants", str(plants), "--devices-per-plant", str(PER_PLANT), "--start", "2026-06-21T10:00:00"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101
            url = next(m[1] for line in process.stdout if (m := re.search(r"ready sems=(\S+)", line)))
            simulator = process.pid
            uvloop.run(bare(url, types, asked.parallel))  # the plants come to life
            loops, bridges = [], []
            for _ in range(asked.rounds):
                loops.append(measured(simulator, bare(url, types, asked.parallel)))
                with tempfile.TemporaryDirectory() as folder:
                    bridges.append(measured(simulator, through(url, types, asked.parallel, Path(folder))))
        finally:
            process.terminate()
    print(f"{len(types)} inverters, {asked.parallel} calls at a time, medians of {asked.rounds} rounds")
    show("bare httpx", loops, len(types))
    show("bridge", bridges, len(types))
    ratio = statistics.median(b.cpu / loop.cpu for b, loop in zip(bridges, loops, strict=True))
    print(f"the bridge takes {ratio:.2f} times the CPU of the bare loop")


if __name__ == "__main__":
    main()
