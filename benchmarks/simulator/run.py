# ruff: noqa: D103, INP001, T201 - a script that prints
"""What a simulated cloud with thousands of inverters costs, and how long it holds its loop.

    python benchmarks/simulator/run.py [--inverters 10000] [--interval 60] [--minutes 3] [--telemetry] [--speed 1]

The simulator is a process of its own, with the faults of FLEET.md's first row, delays, owners, and uploads at the
interval. This process reads every inverter by the Real-Time Data API once an interval, 100 a call; or, with
`--telemetry`, has them all pushed into a topic. Once a minute it sends a limit for each inverter in batch commands of
500. Kafka is librdkafka's mock, in this process. Then it asks for the fleet's power over that time, exactly.

The longest turn is the most CPU that the simulator's loop used between two looks 5 ms apart; the clock's time is
printed beside it. On a busy machine much is due at once then: `--turns` times each by itself, on asyncio's own loop.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop
from confluent_kafka import Producer

from gateway.demo.kafka import DemoKafka
from gateway.kafka import KafkaConnection
from gateway.run.garbage import short_collections
from gateway.run.logs import configure
from gateway.run.settings import LogSettings
from gateway.sems.catalogue import load
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.batch import BatchSettings
from gateway.simulator.fleet import make_fleet

BATCH: Final = 100
ITEMS: Final = 500
LOOK: Final = 0.005
LOGIN: Final = ("supplier", "supplier")
SUPPLIER: Final = "demo"
TELEMETRY: Final = "telemetry"
FAULTS: Final = {
    "shares": {"offline": 0.02, "refuse": 0.01, "contradict": 0.01, "late": {"share": 0.01, "seconds": [30, 300]}},
    "device_delay": {"median": 4, "p95": 15, "most": 60},
    "owner_changes": 60,
}


def spent(process: int) -> float:
    """Return the CPU seconds of a process, user and system: fields 14 and 15 of /proc/PID/stat, proc(5)."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def most_memory(process: int) -> int:
    """Return the kB that a process had at most, proc(5)."""
    return int(Path(f"/proc/{process}/status").read_text("ascii").split("VmHWM:")[1].split()[0])


# the simulator's process


class Turns:
    """The longest that the loop was held."""

    def __init__(self) -> None:
        self.cpu = self.clock = self.garbage = 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.garbage = max(self.garbage, time.thread_time() - self._began)

    def time_each(self) -> None:
        """Time every callback of asyncio's own loop by itself."""
        run = asyncio.Handle._run  # noqa: SLF001

        def timed(handle: asyncio.Handle) -> None:
            cpu, clock = time.thread_time(), time.perf_counter()
            run(handle)
            self.cpu = max(self.cpu, time.thread_time() - cpu)
            self.clock = max(self.clock, time.perf_counter() - clock)

        asyncio.Handle._run = timed  # type: ignore[method-assign] # noqa: SLF001

    async def watch(self) -> None:
        """Look again and again."""
        while True:
            cpu, clock = time.thread_time(), time.perf_counter()
            await asyncio.sleep(LOOK)
            self.cpu = max(self.cpu, time.thread_time() - cpu)
            self.clock = max(self.clock, time.perf_counter() - clock - LOOK)

    def take(self) -> dict[str, float]:
        """Return the longest since the last time."""
        said = {"cpu_ms": self.cpu, "clock_ms": self.clock, "garbage_ms": self.garbage}
        self.cpu = self.clock = self.garbage = 0.0
        return {name: round(1000 * seconds, 1) for name, seconds in said.items()}


async def serve(given: dict[str, Any], kafka: str, *, single: bool) -> None:
    """Run a simulator until told to end. A line on standard input is answered with the longest turn since the last."""
    configure(LogSettings(level="warning"))
    turns = Turns()
    if single:
        turns.time_each()
    watching = asyncio.create_task(asyncio.sleep(0) if single else turns.watch())
    batch = BatchSettings(connection=KafkaConnection(bootstrap_servers=[kafka]), supplier=SUPPLIER)
    simulator = Simulator(SimulatorSettings(**given), batch=batch)
    await simulator.start()
    print(json.dumps({"url": simulator.url, "built": time.process_time()}), flush=True)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin, lambda: (sys.stdin.readline(), print(json.dumps(turns.take()), flush=True)))
    await stop.wait()
    watching.cancel()
    await simulator.stop()


# the readers


class Far:
    """The simulator as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout  # noqa: S101
        said: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return said

    async def turn(self) -> dict[str, Any]:
        """Return its longest turn since the last time."""
        assert self.process.stdin  # noqa: S101
        self.process.stdin.write(b"\n")
        return await self.line()


class Reader:
    """Reads inverters by the Real-Time Data API, evenly over an interval."""

    def __init__(self, client: httpx.AsyncClient, types: dict[str, str]) -> None:
        self._client = client
        self._catalogue = load("realtime")
        wanted: dict[str, list[str]] = {}
        for serial, type_ in types.items():
            wanted.setdefault(type_, []).append(serial)
        self.calls = [(t, s[i : i + BATCH]) for t, s in wanted.items() for i in range(0, len(s), BATCH)]
        self.longest = 0.0
        self._bearer = ""

    async def log_in(self) -> None:
        """Get a token."""
        path = self._catalogue.interface("Token").path
        answer = await self._client.post(path, data={"grant_type": "client_credentials"}, auth=LOGIN)
        self._bearer = f"Bearer {answer.json()['access_token']}"

    async def read(self, number: int) -> None:
        """Make one call."""
        type_, serials = self.calls[number % len(self.calls)]
        began = time.perf_counter()
        headers = {"Authorization": self._bearer, "Request-Id": str(uuid.uuid4())}
        path = self._catalogue.url_path(self._catalogue.interface(type_))
        answer = await self._client.post(path, json={"sns": serials}, headers=headers)
        self.longest = max(self.longest, time.perf_counter() - began)
        if answer.status_code != 200 or len(answer.content) < 100 * len(serials):
            raise SystemExit(f"not what was asked for: {answer.text[:200]}")


def command(producer: Producer, serials: list[str], limit: float) -> None:
    for first in range(0, len(serials), ITEMS):
        items = [{"sn": serial, "data": {"ActivePowerLimit": limit}} for serial in serials[first : first + ITEMS]]
        now = round(time.time() * 1000)
        order = {"requestId": uuid.uuid4().hex, "timestamp": now, "expires": now + 120_000, "items": items}
        producer.produce(f"goodwe.{SUPPLIER}.active_power.command", json.dumps(order).encode(), items[0]["sn"])
    producer.flush(30)


async def run(options: argparse.Namespace) -> None:
    kafka, names = DemoKafka(), {"prefix": "goodwe", "supplier": SUPPLIER}
    interfaces = load("batch").interfaces
    topics = [path.format(**names) for i in interfaces for path in (i.path, i.answers)]
    await kafka.start([*topics, TELEMETRY])
    fleet = make_fleet(options.inverters, devices_per_plant=1)
    types = {device.serial: str(device.model.kind) for plant in fleet for device in plant.devices}
    given: dict[str, Any] = {
        "port": 0, "plants": options.inverters, "devices_per_plant": 1, "supplier_calls_per_hour": 0,
        "speed": options.speed, "upload_interval": options.interval, "faults": FAULTS,
        "start": options.start, "physics_step": options.step,
    }  # fmt: skip
    if options.telemetry:
        given |= {
            "telemetry_url": f"kafka://{kafka.server}/{TELEMETRY}",
            "push_interfaces": ("GetInverterBySN",),
        }
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *(["--turns"] if options.turns else []), "--serve", json.dumps(given), kafka.server,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await measure(options, Far(process), types, kafka.server, began)
    finally:
        process.terminate()
        await process.wait()
        await kafka.stop()


async def measure(options: argparse.Namespace, far: Far, types: dict[str, str], kafka: str, began: float) -> None:
    ready = await far.line()
    pid, serials = far.process.pid, list(types)
    async with httpx.AsyncClient(base_url=ready["url"], trust_env=False, timeout=120) as client:
        reader = Reader(client, types)
        await reader.log_in()
        await reader.read(0)
        print(
            f"{len(serials)} inverters: {time.perf_counter() - began:.2f} s from the start of the process to the first "
            f"answer, {spent(pid):.2f} s of CPU; longest turn since it listens {(await far.turn())['cpu_ms']} ms of CPU"
        )
        producer = Producer({"bootstrap.servers": kafka})
        cpu, start = spent(pid), time.perf_counter()
        minutes = calls = 0
        while (elapsed := time.perf_counter() - start) < 60 * options.minutes:
            if elapsed >= 60 * minutes + 10:
                await asyncio.to_thread(command, producer, serials, 90.0 - 10 * (minutes % 6))
                minutes += 1
            if not options.telemetry and elapsed >= calls * options.interval / len(reader.calls):
                await reader.read(calls)
                calls += 1
            else:
                await asyncio.sleep(0.01)
            if elapsed > options.interval > elapsed - 0.5:
                print(f"  the first interval: {await far.turn()}")
                await asyncio.sleep(0.5)
        used, elapsed = spent(pid) - cpu, time.perf_counter() - start
        each = used / len(serials) / (elapsed * options.speed / 60)
        print(
            f"  {'telemetry' if options.telemetry else 'real-time data'} every {options.interval:g} s, "
            f"{minutes} commands for all: {100 * used / elapsed:.1f} % of one core, {1e6 * each:.0f} µs of CPU "
            f"a simulated inverter-minute; longest turn afterwards {await far.turn()}, "
            f"slowest answer {1000 * reader.longest:.0f} ms"
        )
        cpu, start = spent(pid), time.perf_counter()
        series = (await client.get("/sim/fleet/power", params={"step": 10 * options.speed})).json()
        samples = len(series["times"]) * series["devices"]
        print(
            f"  exact power, {samples} samples: {time.perf_counter() - start:.1f} s, "
            f"{1e6 * (spent(pid) - cpu) / samples:.1f} µs of CPU each; longest turn {await far.turn()}; "
            f"{most_memory(pid)} kB at most"
        )
        writes = (await client.get("/sim/fleet/writes")).json()
        print(f"  writes: {writes['total']}, at most {writes['most_today']} a device")


def main() -> None:
    parser = argparse.ArgumentParser(description="what a simulated cloud with thousands of inverters costs")
    parser.add_argument("--inverters", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=60, help="seconds between readings of an inverter")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--telemetry", action="store_true", help="pushed into a topic, not asked for")
    parser.add_argument("--speed", type=float, default=1)
    parser.add_argument("--step", type=float, default=60, help="seconds of the physics grid")
    parser.add_argument("--start", default="2026-06-21T09:00:00")
    parser.add_argument("--turns", action="store_true", help="time each turn by itself, on asyncio's own loop")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with short_collections(lambda: options.inverters):
            run_on = asyncio.run if options.turns else uvloop.run
            run_on(serve(json.loads(options.serve[0]), options.serve[1], single=options.turns))
    else:
        uvloop.run(run(options))


if __name__ == "__main__":
    main()
