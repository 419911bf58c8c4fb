# ruff: noqa: D103, INP001, T201, S101 - a script that prints
"""How well a fleet follows its targets: FLEET.md's table, judged by what the simulated inverters really do.

    python benchmarks/fleet/run.py [--inverters 10000] [--seeds 1,2,3,4,5] [--rows 1,2] [--steps 3] [--hold 420] [--kill 0]

Three processes: the simulated cloud with its faults, the gateway as `sems-gateway run` runs it, with one fleet over all,
and this one, which asks for targets over HTTP and asks the simulator what the inverters really gave. It knows nothing
of how the gateway shares out. Telemetry comes by Kafka as plants upload it, commands go by batch control; Kafka is
librdkafka's mock, in this process.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop

from gateway.demo.kafka import DemoKafka
from gateway.kafka import KafkaConnection
from gateway.run.garbage import short_collections
from gateway.run.logs import configure
from gateway.run.settings import LogSettings
from gateway.sems.catalogue import load
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.batch import BatchSettings

SUPPLIER: Final = "demo"
TELEMETRY: Final = "telemetry"
TOKEN: Final = "0123456789abcdef"
FLEET: Final = "fleet:all"
FAULTS: Final = {
    1: {"offline": 0.02, "refuse": 0.01, "contradict": 0.01, "late": {"share": 0.01, "seconds": [30, 300]}},
    2: {"offline": 0.10, "refuse": 0.05, "contradict": 0.03, "late": {"share": 0.05, "seconds": [30, 300]}},
}
ASKED: Final = {1: {"5 %": 60, "2 %": 120, "mean": 0.5, "p99": 1.0}, 2: {"5 %": 120, "2 %": 240, "p99": 1.5}}
"""FLEET.md, "What must be shown": seconds until within, and % after five minutes."""
STEPS: Final = (0.55, 0.30, 0.62, 0.45, 0.20, 0.58)
"""Parts of what the fleet could give."""
SETTLED: Final = 300
CONFIG: Final = """
gateway: {{id: fleet, data_dir: data}}
log: {{level: warning}}
bridges:
  telemetry:
    type: kafka
    connection: &kafka {{bootstrap_servers: ["{kafka}"], options: {{fetch.wait.max.ms: 10}}}}
    telemetry: {{topics: [{telemetry}], interval: {interval}}}
  live: {{type: realtime, client_id: supplier, client_secret: supplier, url: "{sems}", whitelist: "*", poll_interval: 300, calls_per_hour: 1000000}}
  batch: {{type: batch, connection: *kafka, supplier: {supplier}, whitelist: "*"}}
  web: {{type: web, port: {web}, tokens: {{bench: {{token: {token}, write: true}}}}}}
fleets:
  all: {{members: {{devices: ["*"]}}, writes_per_day: 100}}
control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: ["*"]}}]
"""


def spent(process: int) -> float:
    """Return the CPU seconds of a process, user and system: fields 14 and 15 of /proc/PID/stat, proc(5)."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def most_memory(process: int) -> float:
    """Return the MB that a process had at most, proc(5)."""
    return int(Path(f"/proc/{process}/status").read_text("ascii").split("VmHWM:")[1].split()[0]) / 1000


async def serve(given: dict[str, Any], kafka: str) -> None:
    """Run the simulated cloud until told to end."""
    configure(LogSettings(level="warning"))
    batch = BatchSettings(connection=KafkaConnection(bootstrap_servers=[kafka]), supplier=SUPPLIER)
    simulator = Simulator(SimulatorSettings(**given), batch=batch)
    await simulator.start()
    print(json.dumps({"url": simulator.url}), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await simulator.stop()


@asynccontextmanager
async def cloud(options: argparse.Namespace, row: int, seed: int, kafka: DemoKafka):
    names = {"prefix": "goodwe", "supplier": SUPPLIER}
    topics = [path.format(**names) for i in load("batch").interfaces for path in (i.path, i.answers)]
    await kafka.start([*topics, TELEMETRY])
    given = {
        "port": 0, "plants": options.inverters // options.per_plant, "devices_per_plant": options.per_plant,
        "supplier_calls_per_hour": 0, "upload_interval": options.upload, "seed": seed, "start": "2026-06-21T09:00:00",
        "faults": {"shares": FAULTS[row], "device_delay": {"median": 4, "p95": 15, "most": 60}, "owner_changes": 60},
        "telemetry_url": f"kafka://{kafka.server}/{TELEMETRY}", "push_interfaces": ("GetInverterBySN",),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", json.dumps(given), kafka.server, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process, json.loads(await process.stdout.readline())["url"]
    finally:
        process.terminate()
        await process.wait()
        await kafka.stop()


class Gateway:
    """The gateway as a process of its own, which can be killed."""

    def __init__(self, directory: Path, web: int) -> None:
        self.directory, self.url = directory, f"http://127.0.0.1:{web}"
        self.process: asyncio.subprocess.Process
        self.cpu = 0.0

    async def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "run", "config.yaml", cwd=self.directory, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        self.cpu += spent(self.process.pid)
        self.process.kill()
        await self.process.wait()
        await self.start()

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()


class Checker:
    """Asks, looks at what the inverters really give, and judges."""

    def __init__(self, options: argparse.Namespace, sems: httpx.AsyncClient, gateway: Gateway) -> None:
        self.options, self.sems, self.gateway = options, sems, gateway
        self.web = httpx.AsyncClient(
            base_url=gateway.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=60
        )
        self.begun = 0.0
        self.times: list[float] = []
        self.given: list[float] = []
        self.wanted: list[float] = []

    async def fleet(self) -> dict[str, Any] | None:
        try:
            answer = await self.web.get(f"/api/v1/devices/{FLEET}")
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    async def until_all_are_known(self, count: int) -> dict[str, Any]:
        began = time.monotonic()
        while time.monotonic() - began < 600:
            state = await self.fleet()
            values = (state or {}).get("values", state or {})
            if values.get("members", 0) >= count and (values.get("data_age_p95") or 1e9) < 1e6:
                return values
            await asyncio.sleep(2)
        raise SystemExit(f"not all members came: {values}")

    async def power(self) -> tuple[float, float]:
        """Return what all give now, and what their modules could give."""
        found = (
            await self.sems.get("/sim/fleet/power", params={"devices": "all", "from": self.now(), "step": 1})
        ).json()
        return found["power"][-1], found["available"][-1]

    def now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - self.offset))

    async def run(self) -> dict[str, Any]:
        truth = (await self.sems.get("/sim/fleet")).json()
        count, rated = truth["devices"], truth["rated_power"]
        print(f"    {count} inverters, {rated / 1e6:.1f} MW")
        values = await self.until_all_are_known(round(count * 0.85))
        print(f"    known: {values.get('members')} members, {values.get('members_out')} out")
        ends: list[dict[str, Any]] = []
        steps: list[tuple[float, float]] = []
        for n in range(self.options.steps):
            state = await self.fleet()
            values = state.get("values", state)
            most = values["ac_power"] + values["available_up"]
            target = round(STEPS[n % len(STEPS)] * most)
            at = time.time()
            answer = await self.web.post(f"/api/v1/devices/{FLEET}/set", json={"power_target": target})
            assert answer.status_code < 300, answer.text
            command = answer.json()
            steps.append((at, target))
            for second in range(self.options.hold):
                if self.options.kill and second == 60 + 37 * n and n < self.options.kill:
                    await self.gateway.kill()
                await asyncio.sleep(1)
            ends.append(await self.end(command))
        return await self.judge(steps, ends)

    async def end(self, command: Any) -> dict[str, Any]:
        listed = command if isinstance(command, dict) else command[0]
        id_ = listed.get("id") or listed["commands"][0]["id"]
        answer = await self.web.get(f"/api/v1/commands/{id_}")
        return answer.json()

    async def judge(self, steps: Sequence[tuple[float, float]], ends: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Compare what was asked for with what was given, each second."""
        now = (await self.sems.get("/sim/fleet")).json()["time"]
        print(f"    asking for the truth at {now}")
        last = time.time()
        span = round(last - steps[0][0])
        found = (
            await self.sems.post(
                "/sim/fleet/power", json={"from": _seconds(now) - span, "to": _seconds(now), "step": 1.0}
            )
        ).json()
        given = found["power"]
        errors: list[tuple[float, float]] = []
        within: dict[str, list[float]] = {"5 %": [], "2 %": []}
        for n, (at, target) in enumerate(steps):
            first = round(at - steps[0][0])
            until = round(steps[n + 1][0] - steps[0][0]) if n + 1 < len(steps) else span
            course = [abs(power - target) / target * 100 for power in given[first:until]]
            for name, limit in (("5 %", 5.0), ("2 %", 2.0)):
                outside = [second for second, error in enumerate(course) if error > limit and second < SETTLED]
                within[name].append((outside[-1] + 1) if outside else 0)
            errors += [(n, error) for error in course[SETTLED:]]
            self.wanted += [target] * len(course)
        self.given = given
        after = sorted(error for _, error in errors)
        writes = (await self.sems.get("/sim/fleet/writes")).json()
        return {
            "5 %": max(within["5 %"]), "2 %": max(within["2 %"]),
            "mean": sum(after) / len(after) if after else None, "p99": after[int(0.99 * len(after))] if after else None,
            "writes": writes["most_today"], "total": writes["total"],
            "ends": [_end(end) for end in ends],
        }  # fmt: skip


def _end(found: dict[str, Any]) -> str:
    steps = found.get("steps") or [found]
    return f"{steps[-1].get('state')}: {steps[-1].get('detail', '')[:150]}"


def _seconds(moment: str) -> float:
    from datetime import datetime  # noqa: PLC0415

    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


async def one(options: argparse.Namespace, row: int, seed: int) -> dict[str, Any]:
    kafka = DemoKafka()
    async with cloud(options, row, seed, kafka) as (far, url):
        with tempfile.TemporaryDirectory() as name:
            directory, web = Path(name), options.web
            config = CONFIG.format(
                kafka=kafka.server, telemetry=TELEMETRY, interval=options.upload, sems=url, supplier=SUPPLIER, web=web,
                token=TOKEN,
            )  # fmt: skip
            (directory / "config.yaml").write_text(config)
            gateway = Gateway(directory, web)
            await gateway.start()
            try:
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=300) as sems:
                    began, cpu = time.monotonic(), spent(far.pid)
                    found = await Checker(options, sems, gateway).run()
                    elapsed = time.monotonic() - began
                    found["cpu"] = (gateway.cpu + spent(gateway.process.pid)) / elapsed
                    found["cloud cpu"] = (spent(far.pid) - cpu) / elapsed
                    found["MB"] = most_memory(gateway.process.pid)
                    return found
            finally:
                if options.keep:
                    print((directory / "log").read_text()[-3000:])
                await gateway.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="how well a fleet follows its targets")
    parser.add_argument("--inverters", type=int, default=10_000)
    parser.add_argument("--per-plant", type=int, default=4)
    parser.add_argument("--upload", type=float, default=60, help="seconds between what a plant uploads")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--rows", default="1,2")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--hold", type=int, default=420, help="seconds for which a target stands")
    parser.add_argument("--kill", type=int, default=0, help="how often the gateway is killed")
    parser.add_argument("--web", type=int, default=19191)
    parser.add_argument("--keep", action="store_true", help="print the gateway's log")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with short_collections(lambda: options.inverters):
            uvloop.run(serve(json.loads(options.serve[0]), options.serve[1]))
        return
    for row in map(int, options.rows.split(",")):
        for seed in map(int, options.seeds.split(",")):
            found = uvloop.run(one(options, row, seed))
            print(f"row {row}, seed {seed}: {json.dumps(found, indent=1)}")


if __name__ == "__main__":
    main()
