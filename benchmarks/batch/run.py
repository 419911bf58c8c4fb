# ruff: noqa: INP001, S603, T201 - a script that starts programs and prints
"""Commands through MQTT → batch → simulated GoodWe → result → MQTT, beside the same messages echoed without a gateway.

    python benchmarks/batch/run.py [--seconds 10] [--devices 2000] [--journal disk|tmpfs|both]

Processes of their own: mosquitto, Apache Kafka (fetched by tests/programs), the gateway, the simulated GoodWe, and this
one, which commands. Part one keeps `--window` commands of as many devices under way, and counts how many end a second.
Part two gives 100 commands a second at random times (Poisson) and takes the time from publishing the command to
hearing its end. The floor: the messages that the gateway made in part two, produced at the times of the same process,
echoed by a process with two bare librdkafka clients, and heard by a third; no MQTT, no journal, no linger, no devices.
"""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

import confluent_kafka
import msgspec
import paho.mqtt.client as paho
import yaml

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

PREFIX, SUPPLIER = "goodwe", "bench"
COMMANDS: Final = f"{PREFIX}.{SUPPLIER}.active_power.command"
ECHOED: Final = "echoed"
RATE: Final = 100.0
PATIENCE: Final = 30.0
QUICK: Final = {"linger.ms": 0, "acks": "all", "enable.idempotence": True}


# the processes


def gateway(directory: Path) -> None:
    """Run a gateway until it is told to end."""
    import uvloop  # noqa: PLC0415 - each process loads what it needs

    from gateway import logs  # noqa: PLC0415
    from gateway.app import Gateway, run_until_signal  # noqa: PLC0415
    from gateway.core.registry import GROUP, Registry  # noqa: PLC0415
    from gateway.settings import Config  # noqa: PLC0415

    types = {"mqtt": "gateway.bridges.mqtt:MqttBridge", "batch": "gateway.bridges.batch:BatchBridge"}
    config = Config.load(directory / "config.yaml", Registry([EntryPoint(n, v, GROUP) for n, v in types.items()]))
    logs.configure(config.root.log)
    profile = directory / "profile"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if not profile.exists():
            runner.run(run_until_signal(Gateway(config)))
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
        simulator = Simulator(SimulatorSettings(port=0, device_delay=0, batch=batch, **plants))
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await simulator.start()
        print("ready", flush=True)
        await stop.wait()
        await simulator.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def echo(servers: str) -> None:
    """Send back what comes, with nothing in between."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": servers, "group.id": "echo", "auto.offset.reset": "latest"}
    )
    producer = confluent_kafka.Producer({"bootstrap.servers": servers, **QUICK})
    consumer.subscribe(["floor"], on_assign=lambda *_: print("ready", flush=True))
    while True:
        for message in consumer.consume(500, 0.05):
            producer.produce(ECHOED, message.value(), message.key())
        producer.poll(0)


def child(stack: ExitStack, *arguments: object, ready: bool = True) -> subprocess.Popen[str]:
    """Start this script in another role; returns when it says that it is ready."""
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

    def __init__(self, port: int, serials: list[str]) -> None:
        self.serials = serials
        self.ends: dict[str, str] = {}
        self.asked: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.over = threading.Semaphore(0)
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("sems/+/result", 0)
        self._ready.wait(10)

    def _heard(self, _: object, __: object, message: paho.MQTTMessage) -> None:
        step = msgspec.json.decode(message.payload)
        known = step["id"]
        if step["state"] in {"accepted", "sent"} or known not in self.asked:
            return
        self.took[known] = time.perf_counter() - self.asked[known]
        self.ends[known] = step["state"]
        self.over.release()

    def ask(self, number: int, run: str) -> None:
        """Give one command."""
        known = f"{run}-{number}"
        self.asked[known] = time.perf_counter()
        wish = {"active_power_limit": random.randint(0, 100), "id": known, "ttl": 60}  # noqa: S311 - no secret
        self._client.publish(f"sems/{self.serials[number % len(self.serials)]}/set", json.dumps(wish), 0)

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


def sustained(commander: Commander, seconds: float, window: int) -> str:
    """Part one."""
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
    return f"{rate:7,.0f} commands a second for {seconds:g} s; ends {ends}{f', {missing} MISSING' if missing else ''}"


def latency(commander: Commander, seconds: float) -> str:
    """Part two."""
    run = f"few{time.time_ns()}"
    clock, number = time.perf_counter(), 0
    end = clock + seconds
    while clock < end:
        clock += random.expovariate(RATE)
        time.sleep(max(0.0, clock - time.perf_counter()))
        commander.ask(number, run)
        number += 1
    commander.wait_for(run, number)
    took = [t for known, t in list(commander.took.items()) if known.startswith(f"{run}-")]
    return f"{spread(took)}; ends {commander.tally(run)} of {number}"


def spread(took: list[float]) -> str:
    """Return the percentiles of seconds, as ms."""
    cuts = statistics.quantiles(took, n=100)
    return f"p50 {cuts[49] * 1000:6.1f} ms  p99 {cuts[98] * 1000:6.1f} ms  most {max(took) * 1000:6.1f} ms"


# the floor


def made(servers: str) -> list[tuple[bytes, bytes]]:
    """Return the messages that the gateway made."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": f"look{time.time_ns()}"})
    partitions = consumer.list_topics(COMMANDS, 10).topics[COMMANDS].partitions
    found: list[Any] = []
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(COMMANDS, partition), 10)
        consumer.assign([confluent_kafka.TopicPartition(COMMANDS, partition, max(low, high - 2000))])
        while high and (not found or found[-1].partition() != partition or found[-1].offset() < high - 1):
            found += [m for m in consumer.consume(500, 1) if m.error() is None]
    consumer.close()
    return [(message.key(), message.value()) for message in found]


class Floor:
    """Produces messages, and hears them echoed."""

    def __init__(self, servers: str) -> None:
        self.took: list[float] = []
        self.heard = threading.Semaphore(0)
        self._sent: dict[bytes, float] = {}
        self._ended = False
        self._producer = confluent_kafka.Producer({"bootstrap.servers": servers, **QUICK})
        self._consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": servers, "group.id": "floor", "auto.offset.reset": "latest"}
        )
        self._ready = threading.Event()
        self._consumer.subscribe([ECHOED], on_assign=lambda *_: self._ready.set())
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        self._ready.wait(20)
        time.sleep(1)

    def _listen(self) -> None:
        while not self._ended:
            for message in self._consumer.consume(500, 0.05):
                sent = self._sent.pop(message.key() or b"", None)
                if sent is not None:
                    self.took.append(time.perf_counter() - sent)
                    self.heard.release()

    def send(self, number: int, value: bytes) -> None:
        """Produce one message."""
        key = str(number).encode()
        self._sent[key] = time.perf_counter()
        self._producer.produce("floor", value, key)
        self._producer.poll(0)

    def close(self) -> None:
        """End."""
        self._ended = True
        self._thread.join()
        self._consumer.close()


def floor(servers: str, messages: list[tuple[bytes, bytes]], seconds: float, window: int) -> tuple[str, str]:
    """Return what the same messages, one a command, come to without a gateway."""
    values = [value for _, value in messages]
    it = Floor(servers)
    clock, number = time.perf_counter(), 0
    end = clock + seconds
    while clock < end:
        clock += random.expovariate(RATE)
        time.sleep(max(0.0, clock - time.perf_counter()))
        it.send(number, values[number % len(values)])
        number += 1
    time.sleep(2)
    few = spread(it.took)
    while it.heard.acquire(blocking=False):
        pass
    began, ended = time.perf_counter(), 0
    for _ in range(window):
        number += 1
        it.send(number, values[number % len(values)])
    while time.perf_counter() - began < seconds:
        if it.heard.acquire(timeout=1):
            ended += 1
            number += 1
            it.send(number, values[number % len(values)])
    rate = ended / (time.perf_counter() - began)
    it.close()
    return few, f"{rate:7,.0f} messages a second"


def main() -> None:
    """Run all parts."""
    from gateway.simulator.fleet import make_fleet  # noqa: PLC0415 - the other roles do without
    from tests.kit.kafka import Kafka  # noqa: PLC0415
    from tests.kit.mosquitto import Mosquitto  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--linger-ms", type=float, default=50)
    parser.add_argument("--journal", choices=["disk", "tmpfs", "both"], default="both")
    parser.add_argument("--profile", type=Path, help="leave a cProfile of the gateway here")
    options = parser.parse_args()
    fleet = make_fleet(3 + options.devices // 8, devices_per_plant=8, seed=1)
    serials = [device.serial for plant in fleet for device in plant.devices][: options.devices]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        for part in ("kafka", "mosquitto", "disk"):
            (directory / part).mkdir()
        broker = Mosquitto(directory / "mosquitto", extra=["max_inflight_messages 0", "set_tcp_nodelay true"])
        asyncio.run(broker.start())
        stack.callback(lambda: asyncio.run(broker.stop()))
        kafka = Kafka(directory / "kafka")
        kafka.launch()
        stack.callback(kafka.end)
        kafka.make(*_topics(), ECHOED, "floor", partitions=3)
        child(stack, "cloud", kafka.plaintext, options.devices)
        wanted = {"disk": directory / "disk", "tmpfs": memory}
        for name, place in wanted.items():
            if options.journal in {name, "both"}:
                _measure(name, place, broker.port, kafka.plaintext, serials, options)
        with ExitStack() as floors:
            child(floors, "echo", kafka.plaintext)
            few, many = floor(kafka.plaintext, made(kafka.plaintext), options.seconds, options.window)
        print(f"floor: the same messages echoed by bare librdkafka clients\n  {RATE:g} a second: {few}\n  {many}")


def _measure(name: str, place: Path, port: int, servers: str, serials: list[str], options: argparse.Namespace) -> None:
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
    with ExitStack() as stack:
        process = child(stack, "gateway", place, ready=False)
        commander = Commander(port, serials)
        stack.callback(commander.close)
        _warm_up(commander)
        print(f"journal on {name}")
        began = _cpu(process.pid)
        print(f"  {RATE:g} a second: {latency(commander, options.seconds)}", flush=True)
        middle = _cpu(process.pid)
        print(f"  {sustained(commander, options.seconds, options.window)}", flush=True)
        end = _cpu(process.pid)
        print(f"  CPU of the gateway: {middle - began:.1f} s, then {end - middle:.1f} s")
    if options.profile:
        shutil.move(place / "profile.out", options.profile.with_suffix(f".{name}"))


def _warm_up(commander: Commander) -> None:
    """Wait until a command goes all the way, and then have each device commanded once."""
    patience = time.perf_counter() + PATIENCE
    run, number = "warm", 0
    while not commander.tally(run).get("succeeded"):
        if time.perf_counter() > patience:
            sys.exit(f"no command came to its end: {commander.ends}")
        commander.ask(number, run)
        number += 1
        time.sleep(0.5)
    run = "round"
    for number in range(len(commander.serials)):
        commander.ask(number, run)
    commander.wait_for(run, len(commander.serials))


def _topics() -> list[str]:
    names = ("switch", "active_power", "reactive_power", "export_limit", "work_mode", "battery")
    return [f"{PREFIX}.{SUPPLIER}.{name}.{kind}" for name in names for kind in ("command", "result")]


def _cpu(pid: int) -> float:
    """Return seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    role, *arguments = sys.argv[1:] or [""]
    with suppress(KeyboardInterrupt):
        match role:
            case "gateway":
                gateway(Path(arguments[0]))
            case "cloud":
                cloud(arguments[0], int(arguments[1]))
            case "echo":
                echo(arguments[0])
            case _:
                main()
