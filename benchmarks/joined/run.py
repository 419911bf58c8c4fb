# ruff: noqa: INP001, S603, T201 - a script that starts programs and prints
"""Three gateways joined over Kafka: one takes in a cloud's telemetry and publishes, two serve MQTT and Modbus.

    python benchmarks/joined/run.py [--devices 50000] [--upload 300] [--seconds 60] [--keep DIRECTORY]

Processes of their own: Apache Kafka (fetched by tests/programs), mosquitto, the simulated cloud, the three gateways as
`sems-gateway run` starts them, mosquitto_sub, and this one, which reads Modbus with pymodbus and mbpoll. Telemetry
comes by Kafka, each plant's every `--upload` seconds; the Real-Time Data API says what devices there are, and reads
them as often as 3,600 calls an hour allow, which for 50,000 is every ten minutes or so. What is printed, in this order:

start     until each device's state came by MQTT.
steady    for `--seconds`: snapshots that reach each server, and how old data are when a client sees them, by the time
          the device gives them (whole seconds), since the cloud has sent them, and since the poller has published them.
backlog   copies of all snapshots at once into the topic, until the last is out by MQTT: what a server can carry.
kill      a server ends by SIGKILL; until its devices are at the other, and until they have news there.
back      it is started again; until it serves its share.
poller    that ends by SIGKILL, and is started again at once; until there is news at a server.
lost      what the cloud has sent and the poller has not published, what the poller has published and MQTT has not got.
floor     a bare confluent-kafka consumer that decodes each of those snapshots and does nothing else.

CPU is of all threads, as a part of a core. A stall is `sems_gateway_loop_stall_seconds`, the longest of the phase or of
the one to two minutes before it, on the clock of the machine, with all that works beside.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import confluent_kafka
import msgspec

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

TELEMETRY, SNAPSHOTS = "goodwe.telemetry", "sems.snapshots"
SERVERS: Final = ("one", "two")
PER_PLANT: Final = 4
UNITS_A_PORT: Final = 247
WATCHED_UNITS: Final = 100
"""Devices of each server that are read by Modbus again and again."""
OVERVIEW: Final = 6300
"""Register: quality, status, age (2), time of measurement (2)."""
GOOD: Final = 0
PATIENCE: Final = 900.0
SETTLE_LOOK: Final = 10.0
REALTIME_EVERY: Final = 300
"""Seconds between two reads of a device by the Real-Time Data API, at best."""
MOST_REALTIME: Final = 100
"""Devices a second that its 3,600 calls an hour suffice for."""
SCRAPE_EVERY: Final = 20.0
ZONES: Final = 900
"""Seconds that time zones lie apart."""
COPIES: Final = 20_000
"""Of snapshots, in a backlog at least."""
POLLER: Final = """\
gateway: {{id: poller}}
log: {{level: warning}}
bridges:
  links:
    type: kafka
    connection: {{bootstrap_servers: ["{kafka}"]}}
    telemetry: {{topics: [{telemetry}], interval: {upload}}}
    publish: {{create: {{}}}}
  live:
    {{type: realtime, client_id: supplier, client_secret: supplier, url: "{sems}", whitelist: "*",
      poll_interval: {realtime}}}
  web: {{type: web, port: {web}}}
"""
SERVER: Final = """\
gateway: {{id: {name}}}
log: {{level: warning}}
bridges:
  links:
    type: kafka
    connection: {{bootstrap_servers: ["{kafka}"]}}
    join: {{}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, base: {name}}}
  modbus: {{type: modbus, port: {modbus}}}
  web: {{type: web, port: {web}}}
"""


# the other processes


def serve(kafka: str, port: int, devices: int, upload: float) -> None:
    """Run the simulated cloud until it is told to end."""
    import uvloop  # noqa: PLC0415 - each process loads what it needs

    from gateway.run.garbage import short_collections  # noqa: PLC0415
    from gateway.simulator import Simulator, SimulatorSettings  # noqa: PLC0415

    async def run() -> None:
        settings = SimulatorSettings(
            port=port, plants=plants_of(devices), devices_per_plant=PER_PLANT, upload_interval=upload,
            telemetry_url=f"kafka://{kafka}/{TELEMETRY}", push_interfaces=("GetInverterBySN",),
        )  # fmt: skip
        simulator = Simulator(settings)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await simulator.start()
        await stop.wait()
        await simulator.stop()

    with short_collections(lambda: devices):
        uvloop.run(run())


def floor(kafka: str) -> None:
    """Read all snapshots that there are, and decode each; print how many, for how long, and with how much CPU."""
    count, began, cpu = 0, time.perf_counter(), time.process_time()
    for message in read_all(kafka, SNAPSHOTS):
        msgspec.json.decode(message.value())
        count += 1
    print(json.dumps([count, time.perf_counter() - began, time.process_time() - cpu]))


def milliseconds(moment: str) -> int:
    """Return a time as milliseconds since 1970, which is what MQTT has."""
    return int(datetime.fromisoformat(moment).timestamp() * 1000 + 0.01)


def plants_of(devices: int) -> int:
    """Return how many plants have so many devices; the first three have eight together."""
    return max(1, 3 + (devices - 8) // PER_PLANT)


class Process:
    """A program, and what it uses."""

    def __init__(self, name: str, command: Sequence[object], directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self._command = [str(part) for part in command]
        self._cpu = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        """None while it does not run."""

    def start(self) -> None:
        """Run it."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=self.directory, stdout=log, stderr=log)

    def check(self) -> None:
        """End all where it has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            sys.exit(f"{self.name} has ended:\n{self.log[-2000:]}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for that."""
        process = self.process
        if process is not None:
            self._cpu, self.process = self.cpu, None
            process.send_signal(number)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def log(self) -> str:
        """What it has printed."""
        return (self.directory / "log").read_text(errors="replace")

    @property
    def cpu(self) -> float:
        """CPU seconds that it has used, over all its starts: fields 14 and 15 of /proc/PID/stat, proc(5)."""
        if self.process is not None:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return self._cpu + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return self._cpu

    @property
    def memory(self) -> float:
        """MB that it occupies."""
        if self.process is None:
            return 0.0
        return int(Path(f"/proc/{self.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


class Gateway(Process):
    """A gateway with its metrics."""

    def __init__(self, name: str, config: str, directory: Path, web: int, modbus: int = 0) -> None:
        super().__init__(name, [sys.executable, "-m", "gateway", "run", "config.yaml"], directory / name)
        (self.directory / "config.yaml").touch(mode=0o600)
        (self.directory / "config.yaml").write_text(config)
        self._web, self._modbus = web, modbus
        self.stall = 0.0
        self.received = 0.0
        self.served = 0.0

    def start(self) -> None:
        """Run it. It is given as long as any gateway to stop."""
        super().start()
        self.received = self.served = 0.0

    def scrape(self) -> None:
        """Take down what its metrics say, if it answers."""
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._web}/metrics", timeout=30) as answer:
            self.served = self.received = 0.0
            for line in answer.read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name == "sems_gateway_loop_stall_seconds":
                    self.stall = max(self.stall, float(value))
                elif name.startswith("sems_gateway_kafka_received_total{"):
                    self.received += float(value)
                elif name.startswith("sems_gateway_kafka_served{"):
                    self.served += float(value)

    def unit(self, serial: str) -> tuple[int, int] | None:
        """Return the port and unit of a device, None while it has none."""
        with suppress(OSError, KeyError, msgspec.DecodeError):
            kept = msgspec.json.decode((self.directory / "data" / "modbus-units.json").read_bytes())
            return self._modbus + kept.get("ports", {}).get(serial, 0), kept["units"][serial]
        return None


# what clients see


class State(NamedTuple):
    """A state as mosquitto_sub printed it."""

    at: float
    """Seconds since 1970."""
    server: str
    serial: str
    measured: int
    """Milliseconds since 1970, as the device says; 0 where it was taken away."""


class Subscriber:
    """All states that come by MQTT."""

    def __init__(self, port: int, directory: Path) -> None:
        topics = [part for name in SERVERS for part in ("-t", f"{name}/+")]
        self._file = (directory / "states").open("w+b")
        command = ["mosquitto_sub", "-p", str(port), *topics, "-F", "%U %t %p"]
        self.process = subprocess.Popen(command, stdout=self._file, stderr=subprocess.DEVNULL)
        self.states: list[State] = []
        self._at = 0
        self._rest = b""

    def look(self) -> list[State]:
        """Take in what has come since the last time; return that."""
        first = len(self.states)
        while found := os.pread(self._file.fileno(), 1 << 26, self._at):
            self._at += len(found)
            lines = (self._rest + found).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                at, topic, payload = line.split(b" ", 2)
                server, _, serial = topic.decode().partition("/")
                if payload.startswith(b"{") and b'"quality"' in payload:
                    moment = payload.partition(b'"time":"')[2][:40].partition(b'"')[0].decode()
                    self.states.append(State(float(at), server, serial, milliseconds(moment) if moment else 0))
                elif not payload:
                    self.states.append(State(float(at), server, serial, 0))
        return self.states[first:]

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()
        self._file.close()


class ModbusReader:
    """Reads devices of a server by Modbus, again and again, and notes when there were new data."""

    def __init__(self, units: Mapping[str, tuple[int, int]]) -> None:
        self._units = units
        self.news: list[tuple[str, float]] = []
        """Device, and when its data were newer than the last time; seconds since 1970."""
        self.reads = 0
        self.refused = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def end(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        from pymodbus.client import AsyncModbusTcpClient  # noqa: PLC0415 - only here it is needed

        clients: dict[int, Any] = {}
        for port, _ in self._units.values():
            if port not in clients:
                clients[port] = AsyncModbusTcpClient("127.0.0.1", port=port)
                await clients[port].connect()
        before: dict[str, int] = {}
        while not self._stop.is_set():
            for serial, (port, unit) in self._units.items():
                await asyncio.sleep(0.5 / len(self._units))
                answer = await clients[port].read_holding_registers(OVERVIEW, count=6, device_id=unit)
                self.reads += 1
                if answer.isError() or answer.registers[0] != GOOD:
                    self.refused += 1
                    continue
                measured = answer.registers[4] << 16 | answer.registers[5]
                if measured != before.setdefault(serial, measured):
                    before[serial] = measured
                    self.news.append((serial, time.time()))
        for client in clients.values():
            client.close()


def modbus_answers(port: int, unit: int, since: float) -> bool:
    """Return whether a unit has good data that are newer than that, as mbpoll reads them."""
    command = [
        "mbpoll",
        "-1",
        "-q",
        "-m",
        "tcp",
        "-0",
        "-p",
        str(port),
        "-a",
        str(unit),
        "-r",
        str(OVERVIEW),
        "-c",
        "6",
    ]
    done = subprocess.run([*command, "-o", "5", "127.0.0.1"], capture_output=True, text=True, check=False)
    numbers = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("[")]
    return len(numbers) == 6 and numbers[0] == GOOD and (numbers[4] << 16 | numbers[5]) >= since


def _matched(
    sent: Mapping[str, list[tuple[float, float]]], news: Iterable[tuple[str, float]], since: float
) -> list[tuple[float, float, float]]:
    """Return when each of what the cloud has sent since then was seen first, was measured, and was sent."""
    first: dict[tuple[str, float], tuple[float, float, float]] = {}
    for serial, at in news:
        before = [entry for entry in sent.get(serial, ()) if since <= entry[0] <= at]
        if before:
            stamp, measured = before[-1]
            first.setdefault((serial, stamp), (at, measured, stamp))
    return list(first.values())


# the phases


class Bench:
    """All processes, and what is measured of them."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack, directory: Path) -> None:
        from tests.kit.kafka import Kafka  # noqa: PLC0415 - the other roles do without
        from tests.kit.mosquitto import Mosquitto  # noqa: PLC0415
        from tests.kit.ports import free_port, free_ports  # noqa: PLC0415

        self.options = options
        (directory / "kafka").mkdir()
        (directory / "mosquitto").mkdir()
        # On a busy machine a broker that has a second, as the tests give it, is shut out again and again.
        kafka = Kafka(directory / "kafka", broker_session_timeout_ms="30000", broker_heartbeat_interval_ms="2000")
        kafka.launch()
        stack.callback(kafka.end)
        kafka.make(TELEMETRY, partitions=12)
        self.kafka: str = kafka.plaintext
        broker = Mosquitto(directory / "mosquitto", extra=["set_tcp_nodelay true"])
        asyncio.run(broker.start())
        stack.callback(lambda: asyncio.run(broker.stop()))
        self.states = Subscriber(broker.port, directory)
        stack.callback(self.states.end)
        cloud = free_port()
        common = {
            "kafka": self.kafka,
            "sems": f"http://127.0.0.1:{cloud}",
            "mqtt": broker.port,
            "telemetry": TELEMETRY,
            "upload": options.upload,
            "realtime": REALTIME_EVERY,
        }
        web = free_port()
        self.poller = Gateway("poller", POLLER.format(**common, web=web), directory, web)
        self.servers: dict[str, Gateway] = {}
        ports = options.devices // UNITS_A_PORT + 3
        for name in SERVERS:
            web, modbus = free_port(), free_ports(ports)
            config = SERVER.format(**common, name=name, web=web, modbus=modbus)
            self.servers[name] = Gateway(name, config, directory, web, modbus)
        self.cloud = Process(
            "cloud",
            [sys.executable, __file__, "serve", self.kafka, cloud, options.devices, options.upload],
            directory / "cloud",
        )
        self.gateways = [self.poller, *self.servers.values()]
        self.processes: list[Process] = [self.cloud, *self.gateways]
        for process in (*self.gateways, self.cloud):
            stack.callback(process.end)
        self.home: dict[str, str] = {}
        """Device → the server that has published it last."""
        self.measured: dict[str, int] = {}
        """Device → time of the newest data that were seen by MQTT."""
        self._scraped = 0.0
        self._phase = self._used()

    def _used(self) -> tuple[float, dict[str, float]]:
        return time.monotonic(), {process.name: process.cpu for process in self.processes}

    def look(self) -> list[State]:
        """Take in what came by MQTT, and the metrics now and then; return the states."""
        for process in self.processes:
            process.check()
        if time.monotonic() - self._scraped > SCRAPE_EVERY:
            self.scrape()
        new = self.states.look()
        for state in new:
            if state.measured:
                self.home[state.serial] = state.server
                self.measured[state.serial] = max(self.measured.get(state.serial, 0), state.measured)
            elif self.home.get(state.serial) == state.server:
                del self.home[state.serial]
        return new

    def scrape(self) -> None:
        """Take down all metrics."""
        for gateway in self.gateways:
            gateway.scrape()
        self._scraped = time.monotonic()

    def wait(self, until: Callable[[list[State]], bool], what: str) -> float:
        """Wait until something is true of what has come; return the seconds it took."""
        began = time.monotonic()
        while not until(self.look()):
            if time.monotonic() - began > PATIENCE:
                sys.exit(f"{what}: not within {PATIENCE:g} s")
            time.sleep(0.1)
        return time.monotonic() - began

    def say(self, phase: str, text: str) -> None:
        """Print what came of a phase, and what each process used in it."""
        self.scrape()
        began, before = self._phase
        seconds = time.monotonic() - began
        print(f"{phase:8} {text}")
        for process in (process for process in self.processes if process.process is not None):
            used = process.cpu - before[process.name]
            stall = f", stall {process.stall * 1000:5.0f} ms" if isinstance(process, Gateway) else ""
            print(f"    {process.name:7} {used:6.1f} s of CPU, {used / seconds:.2f} of a core, ", end="")
            print(f"RSS {process.memory:5.0f} MB{stall}", flush=True)
        for gateway in self.gateways:
            gateway.stall = 0.0
        self._phase = self._used()

    def start(self) -> None:
        """Start all; until each device's state has come."""
        for process in self.processes:
            process.start()
        took = self.wait(lambda _: len(self.home) >= self.options.devices, "all devices")
        self.say("start", f"{len(self.home):,} devices by MQTT after {took:.1f} s")
        self._settle()

    def _settle(self) -> None:
        """Wait until no more comes by MQTT than what comes regularly."""
        devices = self.options.devices
        usual = devices / self.options.upload + min(devices / REALTIME_EVERY, MOST_REALTIME)
        count, began = float("inf"), time.monotonic()
        while count > 1.3 * usual * SETTLE_LOOK + 20:
            if time.monotonic() - began > PATIENCE:
                sys.exit(f"what comes regularly is too much: {count / SETTLE_LOOK:.0f} a second, {usual:.0f} expected")
            self.look()
            time.sleep(SETTLE_LOOK)
            count = len(self.look())
        print(f"         settled {time.monotonic() - began:.0f} s later", flush=True)
        self._phase = self._used()

    def steady(self) -> float:
        """Measure what comes regularly; return the CPU seconds a snapshot of a server."""
        readers = {}
        for name, server in self.servers.items():
            serials = [serial for serial, home in self.home.items() if home == name]
            units = {serial: unit for serial in serials[:WATCHED_UNITS] if (unit := server.unit(serial)) is not None}
            readers[name] = ModbusReader(units)
        self.scrape()
        self.look()
        before = {name: server.received for name, server in self.servers.items()}
        cpu = sum(server.cpu for server in self.servers.values())
        began, clock = time.time(), time.monotonic()
        states: list[State] = []
        while time.monotonic() - clock < self.options.seconds:
            time.sleep(0.5)
            states += self.look()
        cpu = sum(server.cpu for server in self.servers.values()) - cpu
        self.scrape()
        seconds = time.monotonic() - clock
        for reader in readers.values():
            reader.end()
        came = {name: server.received - before[name] for name, server in self.servers.items()}
        rates = ", ".join(f"{name} {count / seconds:.1f}" for name, count in came.items())
        self.say("steady", f"snapshots a second that reach a server: {rates}")
        sent = self._sent(began - 60)
        for server in SERVERS:
            reader = readers[server]
            for way, news in (
                ("MQTT", [(s.serial, s.at) for s in states if s.server == server and s.measured]),
                ("Modbus", reader.news),
            ):
                found = _matched(sent, news, began)
                print(f"    {server}: device's time → {way} {spread(at - measured for at, measured, _ in found)}")
                print(f"    {server}: cloud has sent → {way} {spread(at - stamp for at, _, stamp in found)}")
            print(f"    {server}: {reader.reads} reads by Modbus, {reader.refused} without good data")
        published = self._published(began)
        first: dict[tuple[str, int], float] = {}
        for state in states:
            first.setdefault((state.serial, state.measured), state.at)
        took = spread(at - published[key] for key, at in first.items() if key in published)
        print(f"    poller has published → MQTT {took}", flush=True)
        return cpu / max(1.0, sum(came.values()))

    def _published(self, since: float) -> dict[tuple[str, int], float]:
        """Return when each snapshot was published: by its device and time."""
        found = {}
        for message in read_all(self.kafka, SNAPSHOTS, since):
            body = msgspec.json.decode(message.value())
            if body["gateway"] == "poller" and body["source"] == "links":
                found.setdefault((body["serial"], milliseconds(body["time"])), message.timestamp()[1] / 1000)
        return found

    def _sent(self, since: float) -> dict[str, list[tuple[float, float]]]:
        """Return when the cloud has sent something of each device, and when that was measured; the oldest first."""
        found: dict[str, list[tuple[float, float]]] = {}
        for message in read_all(self.kafka, TELEMETRY, since):
            body = msgspec.json.decode(message.value())
            stamp = message.timestamp()[1] / 1000
            local = datetime.fromisoformat(body["data"]["last_refresh_time"] + "+00:00").timestamp()
            # It is local time. What is sent is fresh, so the zone is what remains, in quarters of an hour.
            found.setdefault(body["sn"], []).append((stamp, local + round((stamp - local) / ZONES) * ZONES))
        return {serial: sorted(some) for serial, some in found.items()}

    def backlog(self) -> float:
        """Put copies of all snapshots into the topic at once; return the CPU seconds a snapshot of a server."""
        newest: dict[bytes, dict[str, Any]] = {}
        for message in read_all(self.kafka, SNAPSHOTS):
            newest[message.key()] = msgspec.json.decode(message.value())
        rounds = max(1, COPIES // len(newest))
        producer = confluent_kafka.Producer({"bootstrap.servers": self.kafka, "queue.buffering.max.messages": 10**6})
        self.look()
        self.scrape()
        self._phase = self._used()
        cpu, came = ([get(s) for s in self.servers.values()] for get in (lambda s: s.cpu, lambda s: s.received))
        began = time.monotonic()
        moment = int(time.time()) * 1000
        for number in range(rounds):
            said = datetime.fromtimestamp((moment + number + 1 - rounds) / 1000, UTC).isoformat()
            for key, body in newest.items():
                value = msgspec.json.encode(body | {"time": said, "gateway": "copy"})
                producer.produce(SNAPSHOTS, value, key)
        producer.flush(60)
        put = time.monotonic() - began
        out: set[str] = set()

        def all_out(new: list[State]) -> bool:
            out.update(state.serial for state in new if state.measured >= moment)
            return len(out) >= len(newest)

        self.wait(all_out, "the backlog")
        seconds = time.monotonic() - began
        self.scrape()
        used = sum(s.cpu for s in self.servers.values()) - sum(cpu)
        count = sum(s.received for s in self.servers.values()) - sum(came)
        rates = rounds * len(newest) / seconds / len(SERVERS)
        self.say(
            "backlog",
            f"{rounds * len(newest):,} snapshots, put in {put:.1f} s, out by MQTT after {seconds:.1f} s: "
            f"{rates:,.0f} a second and server, {used / count * 1e6:.0f} us of CPU each",
        )
        return used / count

    def kill(self) -> None:
        """Kill a server; until the other has its devices, and news of them; then start it again."""
        dead, other = self.servers["one"], self.servers["two"]
        lost = {serial for serial, home in self.home.items() if home == dead.name}
        sample = next(iter(lost))
        self.look()
        self._phase = self._used()
        dead.end(signal.SIGKILL)
        killed, taken, news = time.time(), dict[str, float](), dict[str, float]()
        answered = 0.0

        def all_taken(new: list[State]) -> bool:
            nonlocal answered
            for state in new:
                if state.server == other.name and state.serial in lost and state.measured:
                    taken.setdefault(state.serial, state.at - killed)
                    if state.measured > killed * 1000:
                        news.setdefault(state.serial, state.at - killed)
            if not answered and (unit := other.unit(sample)) and modbus_answers(*unit, 0):
                answered = time.time() - killed
            return len(taken) == len(lost) and bool(news) and bool(answered)

        self.wait(all_taken, "the dead server's devices")
        first = min(news.values())
        self.say(
            "kill",
            f"{len(lost):,} devices of `{dead.name}` at `{other.name}` by MQTT, after SIGKILL: the first after "
            f"{min(taken.values()):.1f} s, half {statistics.median(taken.values()):.1f} s, "
            f"all {max(taken.values()):.1f} s; one of them by Modbus after {answered:.1f} s; "
            f"the first data measured since {first:.1f} s",
        )
        dead.start()
        count = len(self.home)
        began, back, gone = time.time(), dict[str, float](), set[str]()

        def all_back(new: list[State]) -> bool:
            for state in new:
                if state.server == dead.name and state.measured and state.at > began:
                    back.setdefault(state.serial, state.at - began)
                elif state.server == other.name and not state.measured:
                    gone.add(state.serial)
            return len(gone) > 0 and gone <= back.keys() and len(self.home) >= count

        self.wait(all_back, "the server that is back")
        self._settle_served()
        at = sorted(back.values())
        self.say(
            "back",
            f"`{dead.name}` started again: {len(back):,} devices by MQTT, the first after {at[0]:.1f} s, "
            f"half {at[len(at) // 2]:.1f} s, all {at[-1]:.1f} s",
        )
        served = [server.served for server in self.servers.values()]
        shares = " + ".join(f"{share:,.0f}" for share in served)
        print(f"    served: {shares} = {sum(served):,.0f} of {len(self.home):,}")

    def _settle_served(self) -> None:
        """Wait until each device is served by one."""
        began = time.monotonic()
        while sum(server.served for server in self.servers.values()) != len(self.home):
            if time.monotonic() - began > 60:
                return
            self.look()
            self.scrape()
            time.sleep(1)

    def kill_poller(self) -> None:
        """Kill the poller and start it again; until there is news at a server."""
        self.look()
        self._phase = self._used()
        self.poller.end(signal.SIGKILL)
        killed = time.time()
        self.poller.start()
        news: list[float] = []

        def some_news(new: list[State]) -> bool:
            news.extend(state.at - killed for state in new if state.measured > killed * 1000)
            return bool(news)

        self.wait(some_news, "news after the poller's start")
        # Nothing that came before it is to be lost either.
        time.sleep(min(self.options.upload, 30))
        self.look()
        self.say("poller", f"killed and started again: data measured since at a client after {min(news):.1f} s")

    def lost(self) -> None:
        """End the cloud; print what has not come."""
        self.cloud.end()
        time.sleep(5)
        while self.look():
            time.sleep(5)
        sent, published = self._sent(0), self._published(0)
        # By count: where the poller does not know a device's time zone, it goes by when data came.
        counts = Counter({serial: len({measured for _, measured in some}) for serial, some in sent.items()})
        counts.subtract(serial for serial, _ in published)
        missing = sum(count for count in counts.values() if count > 0)
        self.look()  # what was on its way when the topics were read
        newest: dict[str, int] = {}
        for serial, moment in published:
            newest[serial] = max(newest.get(serial, 0), moment)
        behind = [serial for serial, moment in newest.items() if self.measured.get(serial, 0) < moment]
        print(
            f"lost     {sum(map(len, sent.values())):,} of the cloud's, {missing} not published; "
            f"{len(behind)} of {len(newest):,} devices without the newest of theirs by MQTT"
        )
        for gateway in self.gateways:
            warned = [line for line in gateway.log.splitlines() if "warning" in line or "error" in line]
            print(f"    {gateway.name}: {len(warned)} warnings and errors")
            for line in warned[: self.options.warnings]:
                print(f"      {line[:1000]}")


def read_all(kafka: str, topic: str, since: float = 0.0) -> Iterable[confluent_kafka.Message]:
    """Yield all messages of a topic from a time on."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": "reader", "enable.auto.commit": False})
    try:
        numbers = consumer.list_topics(topic, 60).topics[topic].partitions
        asked = [confluent_kafka.TopicPartition(topic, n, int(since * 1000)) for n in numbers]
        begin = [place for place in consumer.offsets_for_times(asked, 60) if place.offset >= 0]
        ends = {place.partition: consumer.get_watermark_offsets(place, 60)[1] for place in begin}
        consumer.assign(begin)
        left = sum(ends[place.partition] - place.offset for place in begin)
        while left:
            for message in consumer.consume(min(left, 500), 1.0):
                if message.error() is not None:
                    raise confluent_kafka.KafkaException(message.error())
                if message.offset() < ends[message.partition()]:
                    left -= 1
                    yield message
    finally:
        consumer.close()


def spread(seconds: Iterable[float]) -> str:
    """Return the percentiles of seconds."""
    some = sorted(seconds)
    if len(some) < 2:
        return f"({len(some)} seen)"
    cuts = statistics.quantiles(some, n=100)
    return f"p50 {cuts[49]:.2f}, p95 {cuts[94]:.2f}, p99 {cuts[98]:.2f}, most {some[-1]:.2f} s ({len(some):,} seen)"


def main() -> None:
    """Run all phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=50_000)
    parser.add_argument("--upload", type=float, default=300, help="seconds between two uploads of a plant")
    parser.add_argument("--seconds", type=float, default=60, help="for which what comes regularly is measured")
    parser.add_argument("--warnings", type=int, default=3, help="how many of each gateway's are printed")
    parser.add_argument("--keep", type=Path, help="where the processes' files are left")
    options = parser.parse_args()
    options.devices = 8 + (plants_of(options.devices) - 3) * PER_PLANT
    print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M}: {options.devices:,} devices, an upload every ", end="")
    print(f"{options.upload:g} s; load {' '.join(f'{load:.1f}' for load in os.getloadavg())}", flush=True)
    with ExitStack() as stack:
        directory = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(exist_ok=True, parents=True)
        bench = Bench(options, stack, directory)
        bench.start()
        bench.steady()
        cost = bench.backlog()
        bench.kill()
        bench.kill_poller()
        bench.lost()
        done = subprocess.run([sys.executable, __file__, "floor", bench.kafka], capture_output=True, check=True)
        count, seconds, cpu = json.loads(done.stdout)
        each = cpu / count
        print(f"floor    {count:,} snapshots read and decoded: {count / seconds:,.0f} a second, ", end="")
        print(f"{each * 1e6:.1f} us of CPU each; a server's is {cost / each:.1f} times that")
        print(f"load {' '.join(f'{load:.1f}' for load in os.getloadavg())}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", kafka, port, devices, upload]:
            serve(kafka, int(port), int(devices), float(upload))
        case ["floor", kafka]:
            floor(kafka)
        case _:
            main()
