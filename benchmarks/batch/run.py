# ruff: noqa: INP001, S603, T201 - a script that starts programs and prints
"""Commands through MQTT → batch → simulated GoodWe → result → MQTT, beside a bare loop that does the same durable work.

    python benchmarks/batch/run.py [--seconds 10] [--devices 2000] [--journal disk|tmpfs|both] [--rounds 1]
    python benchmarks/batch/run.py --fleet 10000 [--journal disk] [--others 50]

With `--fleet` one command for so many devices is carried out instead, by the gateway alone, with others beside it;
with none where `--others` is 0.

Processes of their own: mosquitto, Apache Kafka (fetched by tests/programs), the gateway or the floor, the simulated
GoodWe, and this one, which commands. Part one gives 100 commands a second at random times (Poisson) and takes the time
from publishing the command to hearing its end. Part two keeps `--window` commands of as many devices under way, and
counts how many end a second.

The floor is what any gateway of this kind can't do without, in bare Python: paho in, SQLite in groups of what came
meanwhile (WAL, synchronous=FULL), librdkafka to the same simulated GoodWe and back, paho out, the offset stored. As the
gateway does, it commits each step (accepted before it leaves, sent when Kafka has it, the end) and then publishes it
with QoS 1. It has no policy, no timers, no audit and no device states, and knows only what is under way. Gateway and
floor take turns on the same disk, `--rounds` times, and the ratios are those of one run. For each, the commits and the
messages of MQTT a command are printed too, the latter as the broker counts them.
"""

import argparse
import asyncio
import json
import mmap
import os
import queue
import random
import shutil
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final, NamedTuple

import confluent_kafka
import msgspec
import paho.mqtt.client as paho
import yaml

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

PREFIX, SUPPLIER = "goodwe", "bench"
COMMANDS: Final = f"{PREFIX}.{SUPPLIER}.active_power.command"
RESULTS: Final = f"{PREFIX}.{SUPPLIER}.active_power.result"
BROKER_COUNTS: Final = 1.5
"""Seconds after which the broker's count is up to date."""
BROKER_TOOK: Final = "$SYS/broker/messages/received"
"""Packets, of which there are few that are no messages. mosquitto's own count of messages lacks the retained ones."""
GROUP: Final = 1000
"""Messages that the floor takes into one commit at most."""
RATE: Final = 100.0
FLEET: Final = "*[!9]"
"""Serial numbers of the devices of the fleet command."""
OTHERS, OTHERS_RATE, FLEET_SECONDS = 500, 50.0, 12.0
"""How many devices are commanded beside it, how often a second if nothing else is said, and for how long."""
PATIENCE: Final = 30.0
SYNCS: Final = 300
RESULT, SENT = "", "sent"
"""Instead of a topic of MQTT: a message of Kafka came, or was taken."""
Arrived = queue.SimpleQueue[tuple[str, Any]]
QUICK: Final = {"linger.ms": 0, "acks": "all", "enable.idempotence": True}


class Commits:
    """How many commits a process has made and how long they took, for another to read."""

    _FIGURES: Final = struct.Struct("Qd")

    def __init__(self, directory: Path) -> None:
        file = directory / "commits"
        file.write_bytes(bytes(self._FIGURES.size))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), self._FIGURES.size)
        self._count, self._seconds = 0, 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is done meanwhile as a commit."""
        began = time.perf_counter()
        yield
        self._count += 1
        self._seconds += time.perf_counter() - began
        self._map[:] = self._FIGURES.pack(self._count, self._seconds)

    @classmethod
    def read(cls, directory: Path) -> tuple[int, float]:
        """Return how many there were, and the seconds of all."""
        count, seconds = cls._FIGURES.unpack((directory / "commits").read_bytes())
        return count, seconds


class Meanwhile:
    """Takes how much CPU a gateway used, with all its threads, while each command was on its way through it.

    On a machine that is busy with other things this is firm where times are not: on a core of one's own it is about
    what the gateway itself adds to the time of a command.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "meanwhile.json"
        self._began: dict[str, float] = {}
        self._took: dict[str, dict[str, float]] = {}

    def watch(self) -> None:
        """Watch what comes by MQTT, and each step of it that is about to be published."""
        from gateway.bridges.mqtt.commands import Commands  # noqa: PLC0415

        receive, step = Commands.receive, Commands.step

        def received(commands: Any, message: Any) -> None:
            self._began[json.loads(message.payload)["id"]] = time.process_time()
            receive(commands, message)

        def stepped(commands: Any, event: Any) -> None:
            step(commands, event)
            if (began := self._began.get(event.command.id)) is not None:
                self._took.setdefault(event.state, {})[event.command.id] = time.process_time() - began

        Commands.receive = received  # type: ignore[method-assign]
        Commands.step = stepped  # type: ignore[method-assign]

    def save(self) -> None:
        """Leave it for another process."""
        self._file.write_text(json.dumps(self._took))

    @staticmethod
    def read(directory: Path, run: str) -> str:
        """Return in words what was left, for the commands of a run."""
        took = json.loads((directory / "meanwhile.json").read_text())
        some = {state: [t for known, t in of.items() if known.startswith(f"{run}-")] for state, of in took.items()}
        return "".join(f"; {state} {cut(of, 50)} / {cut(of, 99)}" for state, of in some.items())


# the processes


def gateway(directory: Path, *, watched: bool) -> None:
    """Run a gateway until it is told to end; `watched` by `Meanwhile`."""
    import uvloop  # noqa: PLC0415 - each process loads what it needs

    from gateway.api.registry import GROUP, Registry  # noqa: PLC0415
    from gateway.journal.store import Store  # noqa: PLC0415
    from gateway.run import logs  # noqa: PLC0415
    from gateway.run.app import Gateway, run_until_signal  # noqa: PLC0415
    from gateway.run.settings import Config  # noqa: PLC0415

    commits, commit = Commits(directory), Store.commit

    def counted(*args: Any) -> int:
        with commits.counted():
            return commit(*args)

    Store.commit = counted  # type: ignore[method-assign]
    types = {
        "mqtt": "gateway.bridges.mqtt:MqttBridge",
        "batch": "gateway.bridges.batch:BatchBridge",
    }
    config = Config.load(directory / "config.yaml", Registry([EntryPoint(n, v, GROUP) for n, v in types.items()]))
    logs.configure(config.root.log)
    meanwhile = Meanwhile(directory)
    if watched:
        meanwhile.watch()
    profile = directory / "profile"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if not profile.exists():
            runner.run(run_until_signal(Gateway(config)))
            meanwhile.save()
            return
        import cProfile  # noqa: PLC0415

        with cProfile.Profile() as measured:
            runner.run(run_until_signal(Gateway(config)))
        measured.dump_stats(directory / "profile.out")


def cloud(servers: str, devices: int) -> None:
    """Run the simulated GoodWe until it is told to end."""
    import signal  # noqa: PLC0415

    import uvloop  # noqa: PLC0415

    from gateway.kafka import KafkaConnection  # noqa: PLC0415
    from gateway.simulator import Simulator, SimulatorSettings  # noqa: PLC0415
    from gateway.simulator.batch import BatchSettings  # noqa: PLC0415

    async def run() -> None:
        batch = BatchSettings(connection=KafkaConnection(bootstrap_servers=[servers]), prefix=PREFIX, supplier=SUPPLIER)
        plants = {"plants": 3 + devices // 8, "devices_per_plant": 8}
        simulator = Simulator(SimulatorSettings(port=0, device_delay=0, **plants), batch=batch)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await simulator.start()
        print("ready", flush=True)
        await stop.wait()
        await simulator.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def floor(directory: Path, port: int, servers: str) -> None:
    """Do the durable work of a gateway and nothing else, until killed."""
    arrived: Arrived = queue.SimpleQueue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(0xFFFF)
    client.on_message = lambda _, __, message: arrived.put((message.topic, message.payload))
    client.connect("127.0.0.1", port)
    client.subscribe("floor/+/set", 1)
    client.loop_start()
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": servers, "group.id": f"floor{time.time_ns()}", "auto.offset.reset": "latest",
            "enable.auto.offset.store": False,
        }
    )  # fmt: skip
    producer = confluent_kafka.Producer({"bootstrap.servers": servers, **QUICK})
    consumer.subscribe([RESULTS], on_assign=lambda *_: print("ready", flush=True))
    written: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_consume, args=[consumer, arrived, written], daemon=True).start()
    threading.Thread(target=_poll, args=[producer], daemon=True).start()
    _serve(directory, arrived, written, client, producer)


def _consume(consumer: Any, arrived: Arrived, written: "queue.SimpleQueue[Any]") -> None:
    while True:
        while not written.empty():
            consumer.store_offsets(written.get())
        # The first message ends the wait; what came with it is taken along.
        for message in [consumer.poll(1), *consumer.consume(500, 0)]:
            if message is not None and message.error() is None:
                arrived.put((RESULT, message))


def _poll(producer: Any) -> None:
    while True:
        producer.poll(1)


def _serve(directory: Path, arrived: Arrived, written: Any, client: Any, producer: Any) -> None:
    database = sqlite3.connect(directory / "floor.sqlite", isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE command (id TEXT PRIMARY KEY, serial TEXT, body BLOB, state TEXT) WITHOUT ROWID")
    database.execute("CREATE TABLE step (seq INTEGER PRIMARY KEY, id TEXT, state TEXT)")
    commits = Commits(directory)
    unsent: dict[str, dict[str, str]] = {}
    sent: dict[tuple[str, str], str] = {}
    while True:
        found = [arrived.get()]
        with suppress(queue.Empty):
            while len(found) < GROUP:
                found.append(arrived.get_nowait())
        wishes: list[tuple[str, str, Any]] = []
        steps: list[tuple[str, str, str]] = []

        def left(request: str, serial: str, id_: str) -> None:
            steps.append((id_, serial, "sent"))  # noqa: B023 - called in this turn alone
            sent[request, serial] = id_

        for topic, what in found:
            if topic == SENT:
                for serial, id_ in unsent.pop(what, {}).items():
                    left(what, serial, id_)
            elif topic == RESULT:
                told = msgspec.json.decode(what.value())
                for entry in told["results"]:
                    request, serial = told["requestId"], entry["sn"]
                    if id_ := unsent.get(request, {}).pop(serial, ""):
                        left(request, serial, id_)
                    if id_ := sent.pop((request, serial), ""):
                        steps.append((id_, serial, "succeeded" if entry["code"] == "00000" else "failed"))
            else:
                body = msgspec.json.decode(what)
                wishes.append((body["id"], topic.split("/")[1], body))
                steps.append((*wishes[-1][:2], "accepted"))
        if steps:
            with commits.counted():
                database.execute("BEGIN IMMEDIATE")
                accepted = [(id_, serial, msgspec.json.encode(body), "accepted") for id_, serial, body in wishes]
                database.executemany("INSERT INTO command VALUES (?, ?, ?, ?)", accepted)
                moves = [(state, id_) for id_, _, state in steps if state != "accepted"]
                database.executemany("UPDATE command SET state = ? WHERE id = ?", moves)
                database.executemany(
                    "INSERT INTO step (id, state) VALUES (?, ?)", [(id_, state) for id_, _, state in steps]
                )
                database.execute("COMMIT")
        for message in [what for topic, what in found if topic == RESULT]:
            written.put(message)
        if wishes:
            request, now = f"{time.time_ns()}", time.time_ns() // 1_000_000
            unsent[request] = {serial: id_ for id_, serial, _ in wishes}
            items = [{"sn": serial, "data": {"ActivePowerLimit": b["active_power_limit"]}} for _, serial, b in wishes]
            message = {"requestId": request, "timestamp": now, "expires": now + 60_000, "items": items}
            done = partial(lambda request, *_: arrived.put((SENT, request)), request)
            producer.produce(COMMANDS, msgspec.json.encode(message), wishes[0][1], on_delivery=done)
        for id_, serial, state in steps:
            client.publish(f"floor/{serial}/result", msgspec.json.encode({"id": id_, "state": state}), 1)


def child(stack: ExitStack, *arguments: object, ready: bool = True) -> subprocess.Popen[str]:
    """Start this script in another role; return once it says that it is ready."""
    command = [sys.executable, __file__, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE if ready else None, text=True)

    def end() -> None:
        process.terminate()
        process.wait(20)

    stack.callback(end)
    if ready and process.stdout is not None:
        process.stdout.readline()
    return process


# the commander


class Commander:
    """Gives commands over MQTT and hears of their ends."""

    def __init__(self, port: int, serials: list[str], base: str) -> None:
        self.serials = serials
        self.base = base
        self.ends: dict[str, str] = {}
        self.asked: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.stages: dict[str, dict[str, float]] = {"accepted": {}, "sent": {}}
        """Step → command → seconds until that was heard."""
        self.over = threading.Semaphore(0)
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self.published = 0
        """Messages that the broker was given, by everybody."""
        self._client.subscribe([(f"{base}/+/result", 0), (BROKER_TOOK, 0)])
        self._ready.wait(10)

    def _heard(self, _: object, __: object, message: paho.MQTTMessage) -> None:
        if message.topic == BROKER_TOOK:
            self.published = int(message.payload)
            return
        step = msgspec.json.decode(message.payload)
        known = step["id"]
        if known not in self.asked:
            return
        took = time.perf_counter() - self.asked[known]
        if step["state"] in self.stages:
            self.stages[step["state"]][known] = took
            return
        self.took[known] = took
        self.ends[known] = step["state"]
        self.over.release()

    def ask(self, number: int, run: str) -> None:
        """Give one command."""
        known = f"{run}-{number}"
        self.asked[known] = time.perf_counter()
        wish = {"active_power_limit": random.randint(0, 100), "id": known, "ttl": 60}  # noqa: S311 - no secret
        self._client.publish(f"{self.base}/{self.serials[number % len(self.serials)]}/set", json.dumps(wish), 0)

    def tally(self, run: str) -> dict[str, int]:
        """Return how those of a run ended."""
        found: dict[str, int] = {}
        for known, end in list(self.ends.items()):
            if known.startswith(f"{run}-"):
                found[end] = found.get(end, 0) + 1
        return found

    def wait_for(self, run: str, count: int) -> None:
        """Wait until that many of a run have ended, or patience is over."""
        patience = time.perf_counter() + PATIENCE
        while sum(self.tally(run).values()) < count and time.perf_counter() < patience:
            time.sleep(0.05)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


def sustained(commander: Commander, seconds: float, window: int) -> tuple[float, int, str]:
    """Part two: return how many ended a second, how many there were in all, and that in words."""
    while commander.over.acquire(blocking=False):
        pass
    run, number = f"many{time.time_ns()}", 0
    for number in range(window):
        commander.ask(number, run)
    began = time.perf_counter()
    ended = 0
    while time.perf_counter() - began < seconds:
        if commander.over.acquire(timeout=1):
            ended += 1
            number += 1
            commander.ask(number, run)
    rate = ended / (time.perf_counter() - began)
    commander.wait_for(run, number + 1)
    ends = commander.tally(run)
    missing = number + 1 - sum(ends.values())
    text = f"{rate:7,.0f} commands a second for {seconds:g} s; ends {ends}{f', {missing} MISSING' if missing else ''}"
    return rate, number + 1, text


def latency(commander: Commander, seconds: float, rate: float = RATE, run: str = "") -> tuple[int, str]:
    """Part one: return how many there were in all, and how long they took, in words."""
    run = run or f"few{time.time_ns()}"
    clock, number = time.perf_counter(), 0
    end = clock + seconds
    while clock < end:
        clock += random.expovariate(rate)
        time.sleep(max(0.0, clock - time.perf_counter()))
        commander.ask(number, run)
        number += 1
    commander.wait_for(run, number)
    took = [t for known, t in list(commander.took.items()) if known.startswith(f"{run}-")]
    text = f"{spread(took)}; ends {commander.tally(run)} of {number}"
    stages = {
        state: [t for known, t in list(of.items()) if known.startswith(f"{run}-")]
        for state, of in commander.stages.items()
    }
    return number, text + "".join(
        f"; {state} p50 {cut(some, 50)} p99 {cut(some, 99)} ms" for state, some in stages.items()
    )


def cut(took: list[float], percent: int) -> str:
    """Return a percentile of seconds, as ms."""
    return f"{statistics.quantiles(took, n=100)[percent - 1] * 1000:.1f}" if len(took) > 1 else "-"


def spread(took: list[float]) -> str:
    """Return the percentiles of seconds, as ms."""
    cuts = statistics.quantiles(took, n=100)
    return f"p50 {cuts[49] * 1000:6.1f} ms  p99 {cuts[98] * 1000:6.1f} ms  most {max(took) * 1000:6.1f} ms"


def main() -> None:
    """Run all parts."""
    from gateway.simulator.fleet import make_fleet  # noqa: PLC0415 - the other roles do without
    from tests.kit.kafka import Kafka  # noqa: PLC0415
    from tests.kit.mosquitto import Mosquitto  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--linger-ms", type=float, default=50)
    parser.add_argument("--journal", choices=["disk", "tmpfs", "both"], default="both")
    parser.add_argument("--fleet", type=int, help="only one command for so many devices at once, and others beside it")
    parser.add_argument("--others", type=float, default=OTHERS_RATE, help="commands a second beside the fleet's")
    parser.add_argument("--profile", type=Path, help="leave a cProfile of the gateway here")
    options = parser.parse_args()
    if options.fleet:
        options.devices = options.fleet * 6 // 5
    fleet = make_fleet(3 + options.devices // 8, devices_per_plant=8, seed=1)
    serials = [device.serial for plant in fleet for device in plant.devices]
    if options.fleet:
        serials = [*[s for s in serials if fnmatchcase(s, FLEET)][: options.fleet], *others(serials)[:OTHERS]]
    serials = serials[: options.devices]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        for part in ("kafka", "mosquitto", "disk"):
            (directory / part).mkdir()
        broker = Mosquitto(
            directory / "mosquitto", extra=["max_inflight_messages 0", "set_tcp_nodelay true", "sys_interval 1"]
        )
        asyncio.run(broker.start())
        stack.callback(lambda: asyncio.run(broker.stop()))
        kafka = Kafka(directory / "kafka")
        kafka.launch()
        stack.callback(kafka.end)
        kafka.make(*_topics(), partitions=3)
        child(stack, "cloud", kafka.plaintext, options.devices)
        wanted = {"disk": directory / "disk", "tmpfs": memory}
        for name, place in wanted.items():
            if options.journal in {name, "both"}:
                _configure(name, place, broker.port, kafka.plaintext, serials, options)
                if options.fleet:
                    print(f"journal on {name}")
                    _measure_fleet(place, broker.port, serials, options.others)
                    continue
                print(f"journal on {name}; {_bare_sync(place)}")
                runs: dict[str, list[tuple[float, float]]] = {"floor": [], "gateway": []}
                for number in range(options.rounds):
                    print(f"journal on {name}, round {number + 1}")
                    for who, measured in runs.items():
                        measured.append(_measure(who, place, broker.port, kafka.plaintext, serials, options))
                rates, costs = zip(*[_middle(runs[who]) for who in ("gateway", "floor")], strict=True)
                print(f"gateway / floor, journal on {name}: rate {rates[0] / rates[1]:.2f}, ", end="")
                print(f"CPU a command {costs[0] / costs[1]:.2f}", flush=True)


def _bare_sync(place: Path) -> str:
    """Return in words how long that disk takes to have one page, written to the end of a file."""
    took = []
    with (place / "sync").open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return f"a bare fdatasync of a page takes {spread(took)}; load {os.getloadavg()[0]:.1f}"


def _middle(runs: list[tuple[float, float]]) -> tuple[float, float]:
    rates, costs = zip(*runs, strict=True)
    return statistics.median(rates), statistics.median(costs)


def _configure(
    name: str, place: Path, port: int, servers: str, serials: list[str], options: argparse.Namespace
) -> None:
    config = {
        "gateway": {"id": "bench", "data_dir": str(place / "data")},
        "log": {"level": "warning"},
        "control": {
            "enabled": True,
            "allow": [{"devices": ["*"], "setpoints": ["active_power_limit"]}],
            "max_per_minute": 1_000_000,
            "refresh_within": 0,
        },
        "bridges": {
            "mqtt": {"type": "mqtt", "host": "127.0.0.1", "port": port, "home_assistant": {"enabled": False}},
            "batch": {
                "type": "batch",
                "connection": {"bootstrap_servers": servers},
                "prefix": PREFIX,
                "supplier": SUPPLIER,
                "group": f"bench-{name}",
                "whitelist": serials,
                "announce": "inverter",
                "linger_ms": options.linger_ms,
            },
        },
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    if options.profile:
        (place / "profile").touch()


def _measure(
    who: str, place: Path, port: int, servers: str, serials: list[str], options: argparse.Namespace
) -> tuple[float, float]:
    """Measure the gateway or the floor; return commands a second, and ms of CPU a command while as many go as can."""
    with ExitStack() as stack:
        if who == "gateway":
            process = child(stack, who, place, ready=False)
        else:
            for left in place.glob("floor.sqlite*"):
                left.unlink()
            process = child(stack, who, place, port, servers)
        commander = Commander(port, serials, "sems" if who == "gateway" else who)
        stack.callback(commander.close)
        _warm_up(commander)
        began = _used(process.pid, place, commander)
        few, text = latency(commander, options.seconds)
        middle = _used(process.pid, place, commander)
        print(f"  {who:8}{RATE:g} a second: {text}; {_each(began, middle, few)[1]}")
        rate, count, many = sustained(commander, options.seconds, options.window)
        cost, each = _each(middle, _used(process.pid, place, commander), count)
        print(f"  {who:8}{many}; {each}", flush=True)
    if options.profile and who == "gateway":
        shutil.move(place / "profile.out", options.profile.with_suffix(f".{place.name}"))
    return rate, cost


def others(serials: list[str]) -> list[str]:
    """Return those that are none of the fleet."""
    return [serial for serial in serials if not fnmatchcase(serial, FLEET)]


def _measure_fleet(place: Path, port: int, serials: list[str], rate: float) -> None:
    """Have one command carried out for the fleet, while others are commanded one by one as before."""
    with ExitStack() as stack:
        process = child(stack, "gateway", place, "watched", ready=False)
        commander = Commander(port, others(serials), "sems")
        stack.callback(commander.close)
        _warm_up(commander)
        if rate:
            _, text = latency(commander, FLEET_SECONDS, rate, "before")
            print(f"  others, {rate:g} a second: {text}")
        cpu = _cpu(process.pid)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(asyncio.run, _command_fleet(place / "data"))
            text = latency(commander, FLEET_SECONDS, rate, "beside")[1] if rate else "none"
            count, times, ends = ending.result()
        said = ", ".join(f"{state} {seconds:.1f} s" for state, seconds in times.items())
        print(
            f"  fleet of {count}: the last was {said}; ends {ends}; {_cpu(process.pid) - cpu:.1f} s of CPU with these:"
        )
        print(f"  others, {rate:g} a second meanwhile: {text}")
    for run in ("before", "beside") if rate else ():
        print(
            f"  others {run} it, ms of the gateway's CPU meanwhile, p50 / p99{Meanwhile.read(place, run)}", flush=True
        )


async def _command_fleet(data_dir: Path) -> tuple[int, dict[str, float], dict[str, int]]:
    """Return how many devices it was, after how many seconds the last had come to each state, and how they ended."""
    from gateway.bridges.local.client import LocalClient  # noqa: PLC0415 - the other roles do without
    from gateway.bridges.local.protocol import FleetPlan, Go, SendFleet, Step  # noqa: PLC0415

    times: dict[str, float] = {}
    ends: dict[str, int] = {}
    count, began = 0, time.perf_counter()
    request = SendFleet(setpoint="active_power_limit", value=random.randint(0, 100), user="bench", devices=(FLEET,))  # noqa: S311
    async with LocalClient(data_dir).converse(request) as talk, aclosing(talk.replies()) as replies:
        async for reply in replies:
            if isinstance(reply, FleetPlan):
                count = len(reply.serials)
                began = time.perf_counter()
                await talk.say(Go())
            elif isinstance(reply, Step):
                state = reply.event.state
                times[state] = time.perf_counter() - began
                if state.final:
                    ends[state] = ends.get(state, 0) + 1
    return count, times, ends


def _warm_up(commander: Commander) -> None:
    """Wait until a command goes all the way, and then have each device commanded once."""
    patience = time.perf_counter() + PATIENCE
    run, number = f"warm{time.time_ns()}", 0
    while not commander.tally(run).get("succeeded"):
        if time.perf_counter() > patience:
            sys.exit(f"no command came to its end: {commander.ends}")
        commander.ask(number, run)
        number += 1
        time.sleep(0.5)
    run = f"round{time.time_ns()}"
    for number in range(len(commander.serials)):
        commander.ask(number, run)
    commander.wait_for(run, len(commander.serials))


def _topics() -> list[str]:
    names = ("switch", "active_power", "reactive_power", "export_limit", "work_mode", "battery")
    return [f"{PREFIX}.{SUPPLIER}.{name}.{kind}" for name in names for kind in ("command", "result")]


class _Used(NamedTuple):
    """What a process has used and done by now."""

    cpu: float
    """Seconds."""
    commits: int
    committing: float
    """Seconds."""
    published: int


def _cpu(pid: int) -> float:
    """Return seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _used(pid: int, place: Path, commander: Commander) -> _Used:
    cpu, commits = _cpu(pid), Commits.read(place)
    time.sleep(BROKER_COUNTS)
    return _Used(cpu, *commits, commander.published - len(commander.asked))


def _each(before: _Used, after: _Used, count: int) -> tuple[float, str]:
    """Return ms of CPU a command, and what a command took in words."""
    cpu, commits, committing, published = (then - now for now, then in zip(before, after, strict=True))
    cost, each = cpu / count * 1000, committing / max(1, commits) * 1000
    return cost, (
        f"a command: {cost:.2f} ms of CPU, {commits / count:.3f} commits of {each:.1f} ms, "
        f"{published / count:.2f} messages out"
    )


if __name__ == "__main__":
    role, *arguments = sys.argv[1:] or [""]
    with suppress(KeyboardInterrupt):
        match role:
            case "gateway":
                gateway(Path(arguments[0]), watched=len(arguments) > 1)
            case "cloud":
                cloud(arguments[0], int(arguments[1]))
            case "floor":
                floor(Path(arguments[0]), int(arguments[1]), arguments[2])
            case _:
                main()
