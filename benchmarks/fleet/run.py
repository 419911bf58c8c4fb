# ruff: noqa: ANN201, D102, D103, INP001, T201, S101, S105 - a script that prints
"""How well a fleet follows its targets: FLEET.md's table, judged by what the simulated inverters really do.

    python benchmarks/fleet/run.py [--inverters 10000] [--seeds 1,2,3,4,5] [--rows 1,2] [--steps 3] [--hold 420]
        [--kill 0] [--pictures FOLDER]

Three processes: the simulated cloud with its faults, the gateway as `sems-gateway run` runs it with one fleet over all,
and this one, which asks for targets over HTTP and asks the simulator what the inverters really gave. It knows nothing
of how the gateway shares out. Telemetry comes by Kafka as plants upload it, commands go by batch control; Kafka is
librdkafka's mock, in this process. `--kill 10` ends the gateway by SIGKILL ten times during each run.

Beside ours stands what a sender would get in the same world that gives each inverter the same watts, or the same part
of its rated power, and looks at nothing afterwards. beside.py has others' rules.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import pairwise
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
ASKED: Final[Mapping[int, Mapping[str, float]]] = {
    1: {"within 5 %, s": 60, "within 2 %, s": 120, "mean %": 0.5, "p99 %": 1.0, "beyond late %": 1.0},
    2: {"within 5 %, s": 120, "within 2 %, s": 240, "p99 %": 1.5, "beyond late %": 1.5},
}
"""FLEET.md, "What must be shown": seconds until within, and % after five minutes.

Beyond a target by more than the late members' change is no overshoot as long as p99 would allow it: clouds move too.
"""
ALWAYS: Final = {"writes a device": 100, "ends a target": 1, "CPU": 1.0}
COLUMNS: Final = (
    "within 5 %, s", "within 2 %, s", "mean %", "p99 %", "writes a device", "ends a target", "beyond late %",
    "CPU", "MB", "stall, s", "equal: mean %", "ever in 5 %", "rating: mean %", "ever in 5 %, ",
)  # fmt: skip
STEPS: Final = (0.55, 0.30, 0.62, 0.45, 0.20, 0.58)
"""Parts of what the fleet could give."""
KNOWN: Final = 0.7
"""Of the inverters: so many can be counted on before a target is asked for that is a part of what they could give."""
SETTLED: Final = 300
TOLD_WITHIN: Final = 600
LOOKED: Final = 30
"""Seconds before the next target at which the open loops are reckoned: a look costs the cloud seconds of CPU."""
FINAL: Final = ("succeeded", "failed", "rejected", "expired", "unknown")
CONFIG: Final = """
gateway: {{id: fleet, data_dir: data}}
log: {{level: warning}}
bridges:
  telemetry:
    type: kafka
    connection: &kafka {{bootstrap_servers: ["{kafka}"], options: {{fetch.wait.max.ms: 10}}}}
    telemetry: {{topics: [{telemetry}], interval: {interval}}}
  live:
    {{type: realtime, client_id: supplier, client_secret: supplier, url: "{sems}", whitelist: "*",
      poll_interval: 300, calls_per_hour: 1000000}}
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
        self.cpu = self.memory = 0.0
        self.kills = 0

    async def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "run", "config.yaml", cwd=self.directory, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        self.count()
        self.kills += 1
        self.process.kill()
        await self.process.wait()
        await self.start()

    def count(self) -> None:
        """Add up what this process has used."""
        self.cpu += spent(self.process.pid)
        self.memory = max(self.memory, most_memory(self.process.pid))

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
        self.times: list[float] = []
        self.given: list[float] = []
        self.wanted: list[float] = []
        self.stall = 0.0
        self.open_loop: dict[str, list[float]] = {"equal": [], "rating": []}
        """Error in %, each time that was looked at."""

    async def fleet(self) -> dict[str, Any] | None:
        try:
            answer = await self.web.get(f"/api/v1/devices/{FLEET}")
        except httpx.TransportError:
            return None
        if answer.status_code != 200:
            return None
        state: dict[str, Any] = answer.json()
        return state.get("values", state)

    async def until_all_are_known(self, count: int) -> dict[str, Any]:
        began, values = time.monotonic(), None
        while (waited := time.monotonic() - began) < 600:
            values = await self.fleet()
            if values and values["members"] >= count * (0.999 if waited < 300 else 0.85):
                print(f"    {values['members']} members after {waited:.0f} s")
                await asyncio.sleep(self.options.upload)
                return await self.fleet() or values
            await asyncio.sleep(2)
        raise SystemExit(f"not all members came: {values}")

    async def run(self, row: int) -> dict[str, Any]:
        truth = await self.truth()
        count, rated = truth["devices"], truth["rated_power"]
        values = await self.until_all_are_known(count)
        print(f"    {count} inverters, {rated / 1e6:.1f} MW; {values['members']} members, {values['members_out']} out")
        commands: list[str] = []
        steps: list[tuple[float, float]] = []
        whole = self.options.steps * self.options.hold
        kills = [(n + 1) * whole / (self.options.kill + 1) for n in range(self.options.kill)]
        began = time.monotonic()
        for n in range(self.options.steps):
            values = await self.whole(count)
            target = round(STEPS[n % len(STEPS)] * (values["ac_power"] + values["available_up"]))
            steps.append((_seconds((await self.truth())["time"]), target))
            commands.append(await self.set(target))
            until = began + (n + 1) * self.options.hold
            looked = False
            while time.monotonic() < until:
                if kills and time.monotonic() - began >= kills[0]:
                    del kills[0]
                    await self.gateway.kill()
                if not looked and time.monotonic() > until - LOOKED:
                    looked = True
                    await self.look(target)
                await asyncio.sleep(0.5)
        last = _seconds((await self.truth())["time"])
        ends = [await self.ended(id_) for id_ in commands]
        found = await self.judge(steps, last, truth["faults"]["late"])
        found["ends a target"] = max(ends, key=lambda count: abs(count - 1))
        print(f"    {self.gateway.kills} kills; {found.pop('writes')} writes of setpoints in all")
        missed = [name for name, most in (ASKED[row] | ALWAYS).items() if name in found and found[name] > most]
        return found | {"missed": missed + (["ends a target"] if found["ends a target"] != 1 else [])}

    async def whole(self, count: int) -> dict[str, Any]:
        """Return what the fleet shows once it knows its members: it may have been killed a moment ago."""
        while True:
            values = await self.fleet() or {}
            if "ac_power" in values and values["members"] - values["members_out"] >= KNOWN * count:
                return values
            await asyncio.sleep(1)

    async def truth(self) -> dict[str, Any]:
        return (await self.sems.get("/sim/fleet")).json()

    async def set(self, target: float) -> str:
        """Ask for it, as often as it takes until the gateway answers; return the command's id."""
        while True:
            try:
                answer = await self.web.post(f"/api/v1/devices/{FLEET}/set", json={"power_target": target})
            except httpx.TransportError:  # it was killed a moment ago
                await asyncio.sleep(1)
                continue
            assert answer.status_code < 300, answer.text
            command = answer.json()
            return command.get("id") or command["commands"][0]["id"]

    async def look(self, target: float) -> None:
        """Take down how long the gateway's loop stood, and what an open loop would come to now."""
        with suppress(httpx.TransportError):
            for line in (await self.web.get("/metrics")).text.splitlines():
                if line.startswith("sems_gateway_loop_stall_seconds"):
                    self.stall = max(self.stall, float(line.split()[-1]))
        devices = (await self.sems.get("/sim/fleet/devices")).json()["devices"]
        rated = sum(device["rated_power"] for device in devices)
        for name, errors in self.open_loop.items():
            parts = (target / len(devices) if name == "equal" else target * d["rated_power"] / rated for d in devices)
            given = sum(_open_loop(device, part) for device, part in zip(devices, parts, strict=True))
            errors.append(abs(given - target) / target * 100)

    async def ended(self, id_: str) -> int:
        """Return how many ends a command has had, once it has one: it is said within ten minutes."""
        until, ends = time.monotonic() + TOLD_WITHIN, []
        while not ends and time.monotonic() < until:
            with suppress(httpx.TransportError):
                steps = (await self.web.get(f"/api/v1/commands/{id_}")).json()["steps"]
                ends = [step for step in steps if step["state"] in FINAL and not step.get("correction")]
            await asyncio.sleep(1)
        for end in ends:
            print(f"    {end['state']}: {end.get('detail', '')[:150]}")
        return len(ends)

    async def power(self, devices: Any, start: float, end: float) -> list[float]:
        question = {"devices": devices, "from": start, "to": end, "step": self.options.every}
        found: list[float] = (await self.sems.post("/sim/fleet/power", json=question)).json()["power"]
        return found

    async def judge(self, steps: Sequence[tuple[float, float]], last: float, late: Sequence[str]) -> dict[str, Any]:
        """Compare what was asked for with what was given, each second."""
        begun, every = steps[0][0], self.options.every
        self.given = await self.power("all", begun - every, last)
        before, given = self.given[0], self.given[1:]
        given_late = (await self.power(late, begun - every, last))[1:] if late else [0.0] * len(given)
        slow: dict[float, float] = {5.0: 0, 2.0: 0}
        after: list[float] = []
        beyond, settled = 0.0, round(SETTLED / every)
        for (at, target), (until, _) in pairwise([*steps, (last, 0.0)]):
            part = slice(round((at - begun) / every), round((until - begun) / every))
            course, others = given[part], given_late[part]
            errors = [abs(power - target) / target * 100 for power in course]
            for limit, slowest in slow.items():
                outside = [n for n, error in enumerate(errors[:settled]) if error > limit]
                slow[limit] = max(slowest, (outside[-1] + 1) * every if outside else 0)
            after += errors[settled:]
            sign = 1 if target > before else -1
            over = max(sign * (power - target) for power in course)
            beyond = max(beyond, (over - (max(others) - min(others))) / target * 100)
            self.wanted += [target] * len(course)
            before = course[-1]
        self.given = given
        after.sort()
        writes = (await self.sems.get("/sim/fleet/writes")).json()
        equal, rating = self.open_loop["equal"], self.open_loop["rating"]
        return {
            "within 5 %, s": slow[5.0], "within 2 %, s": slow[2.0],
            "mean %": sum(after) / len(after), "p99 %": after[int(0.99 * len(after))],
            "writes a device": writes["most_today"], "writes": writes["total"], "beyond late %": beyond,
            "stall, s": self.stall,
            "equal: mean %": sum(equal) / len(equal), "ever in 5 %": min(equal) <= 5,
            "rating: mean %": sum(rating) / len(rating), "ever in 5 %, ": min(rating) <= 5,
        }  # fmt: skip


def _open_loop(device: Mapping[str, Any], part: float) -> float:
    """Return what an inverter gives that is told `part` W once. A battery is taken to make up for any sun.

    Who does not obey gives what it gives now, for it has not obeyed the fleet either.
    """
    if device["fault"] in ("offline", "refuse", "contradict"):
        return device["power"]
    return min(part, device["rated_power"] if device["kind"] == "storage" else device["available"])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _cell(name: str, found: Mapping[str, Any]) -> str:
    value = found[name]
    if isinstance(value, bool):
        return "yes" if value else "never"
    text = f"{value:.2f}" if isinstance(value, float) and value < 10 else f"{value:.0f}"
    if name in found["missed"]:
        return f"{text} ✗"
    return f"{text} ✓" if name in ASKED[found["row"]] | ALWAYS else text


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
            began, cpu = time.monotonic(), spent(far.pid)
            await gateway.start()
            try:
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=1800) as sems:
                    checker = Checker(options, sems, gateway)
                    found = await checker.run(row)
                gateway.count()
                elapsed = time.monotonic() - began
                found |= {"row": row, "seed": seed, "CPU": gateway.cpu / elapsed, "MB": gateway.memory}
                if found["CPU"] > ALWAYS["CPU"]:
                    found["missed"].append("CPU")
                load = os.getloadavg()[1]
                print(f"    cloud: {(spent(far.pid) - cpu) / elapsed:.2f} of a core; load of the machine {load:.0f}")
                if options.pictures:
                    from picture import draw  # noqa: PLC0415 - only here its library is needed

                    title = f"{options.inverters} inverters, faults of row {row}, seed {seed}"
                    picture = f"fleet-row{row}-seed{seed}{f'-{options.kill}-kills' if options.kill else ''}.svg"
                    draw(options.pictures / picture, title, checker.wanted, checker.given, options.every)
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
    parser.add_argument("--hold", type=int, default=420, help="seconds for which a target stands, more than 300")
    parser.add_argument("--every", type=float, default=1, help="seconds between looks at the truth")
    parser.add_argument("--kill", type=int, default=0, help="how often the gateway is killed")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each run")
    parser.add_argument("--web", type=int, default=19191)
    parser.add_argument("--keep", action="store_true", help="print the gateway's log")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with short_collections(lambda: options.inverters):
            uvloop.run(serve(json.loads(options.serve[0]), options.serve[1]))
        return
    print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M}: {' '.join(sys.argv)}")
    table = [f"| row | seed | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    missed = False
    for row in map(int, options.rows.split(",")):
        for seed in map(int, options.seeds.split(",")):
            found = uvloop.run(one(options, row, seed))
            missed = missed or bool(found["missed"])
            table.append(f"| {row} | {seed} | {' | '.join(_cell(name, found) for name in COLUMNS)} |")
            print("\n".join(table), flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main()
