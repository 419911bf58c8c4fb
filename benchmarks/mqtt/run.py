# ruff: noqa: INP001, S603, S607, T201 - a script that starts programs and prints
"""How fast states are published, beside a bare paho loop and beside Node-RED.

    python benchmarks/mqtt/run.py [--rounds 9] [--messages 5000]

Part one: messages of 40 points to one mosquitto, by paho as it is usually used (`loop_start` and `publish`) and by the
gateway's client, with payloads encoded before and with each encoded on its way. A run ends when the broker has
acknowledged a last message of QoS 1; it works in order, so all before that have arrived, and in the end its own count
is compared. Part two: 10,000 devices updated at once every four seconds, through router, bridge and broker to a
subscriber, while commands are published and their acceptance timed. Part three, where Node-RED is installed (by
tests/programs): a flow HTTP in → change → MQTT out with the same payloads.

Publishers run on core 0, broker, subscriber and commander on core 1. Runs are interleaved, and a ratio is that of two
runs of the same round, so that whatever else the machine does meets all of them; printed are medians. `us` is the CPU
time that the publisher uses for a message, all its threads, kernel and all.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
import structlog
import uvloop

from gateway.bridges.mqtt import payloads
from gateway.bridges.mqtt.client import Client
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.core.clock import SystemClock
from gateway.core.model import Device, DeviceKind, DeviceState, Quality
from gateway.core.points import POINTS, SETPOINTS

HERE: Final = Path(__file__).parent
NODE_RED: Final = HERE.parents[1] / ".venv" / "node-red" / "node_modules" / "node-red" / "red.js"
DEVICES, ROUNDS, PAUSE, RATE = 10_000, 5, 4.0, 50
HTTP_CONNECTIONS: Final = 16

NAMES: Final = [name for name in POINTS if name not in SETPOINTS][:40]
STATES: Final = [
    DeviceState(
        device=Device(serial=f"SN{n:05}", kind=DeviceKind.INVERTER),
        quality=Quality.GOOD,
        time=datetime.now(UTC),
        source="cloud",
        values={name: 1000.5 + n + k for k, name in enumerate(NAMES)},
    )
    for n in range(1000)
]
ENCODED: Final = [(f"sems/{state.device.serial}", payloads.state(state)) for state in STATES]

Publisher = Callable[[int, int, int], None]
"""Takes port, number of messages and QoS."""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def mosquitto(directory: Path) -> Iterator[int]:
    """Run a broker on core 1; yields its port."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        sys.exit("mosquitto is needed (Debian: apt-get install mosquitto mosquitto-clients)")
    port = free_port()
    config = directory / "mosquitto.conf"
    lines = (f"listener {port} 127.0.0.1", "allow_anonymous true", "user root", "max_queued_messages 0",
             "sys_interval 1", "set_tcp_nodelay true")  # fmt: skip
    config.write_text("\n".join(lines) + "\n")
    with subprocess.Popen(["taskset", "-c", "1", program, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(3000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    sys.exit(f"nothing listens at port {port}")


def bare(inflight: int = 20) -> Publisher:
    """Return paho's usual loop; 20 is how many messages it has under way unless told."""

    def publish(port: int, messages: int, qos: int) -> None:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(inflight)
        client.connect("127.0.0.1", port)
        client.loop_start()
        for n in range(messages):
            topic, payload = ENCODED[n % len(ENCODED)]
            client.publish(topic, payload, qos)
        client.publish("end", b"x", 1).wait_for_publish()
        client.disconnect()
        client.loop_stop()

    return publish


def ours(protocol: str, *, encoding: bool) -> Publisher:
    """Return the gateway's client."""

    async def work(port: int, messages: int, qos: int) -> None:
        settings = MqttSettings(host="127.0.0.1", port=port, qos=qos, protocol=protocol)
        ended = asyncio.Event()
        client = Client(
            settings, "ours", Message(topic="will", payload=b""), on_message=lambda _: None, on_lost=lambda: None,
            clock=SystemClock(), log=structlog.get_logger(),
        )  # fmt: skip
        await client.connect()
        for n in range(messages):
            if encoding:
                state = STATES[n % len(STATES)]
                await client.publish(f"sems/{state.device.serial}", payloads.state(state), qos, retain=False)
            else:
                topic, payload = ENCODED[n % len(ENCODED)]
                await client.publish(topic, payload, qos, retain=False)
        await client.publish("end", b"x", 1, retain=False, done=lambda _: ended.set())
        await ended.wait()
        await client.disconnect(5)

    def publish(port: int, messages: int, qos: int) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(port, messages, qos))

    return publish


PUBLISHERS: Final[dict[str, Publisher]] = {
    "bare paho": bare(),
    "bare paho, 500 in flight": bare(500),
    "ours, encoded before": ours("5", encoding=False),
    "ours": ours("5", encoding=True),
    "ours, MQTT 3.1.1": ours("3.1.1", encoding=True),
}
REFERENCE: Final = "bare paho"


def throughput(port: int, rounds: int, messages: int) -> None:
    """Part one."""
    total = 0
    for qos in (0, 1):
        print(f"QoS {qos}, {len(ENCODED[0][1])} bytes a message")
        rates: dict[str, list[float]] = {name: [] for name in PUBLISHERS}
        costs: dict[str, list[float]] = {name: [] for name in PUBLISHERS}
        for _ in range(rounds):
            for name, publish in PUBLISHERS.items():
                began, cpu = time.perf_counter(), time.process_time()
                publish(port, messages, qos)
                rates[name].append(messages / (time.perf_counter() - began))
                costs[name].append((time.process_time() - cpu) / messages * 1e6)
                total += messages + 1
        for name, measured in rates.items():
            ratio = statistics.median(r / base for r, base in zip(measured, rates[REFERENCE], strict=True))
            print(
                f"  {name:25} {statistics.median(measured):7,.0f}/s (best {max(measured):7,.0f})  x {ratio:4.2f}"
                f"  {statistics.median(costs[name]):5.1f} us"
            )
    received = _received(port, total)
    print(f"  {total:,} published, the broker counts {received:,}{'' if received >= total else ': some are MISSING'}")


def _received(port: int, expected: int) -> int:
    """Return the broker's own count, when it has come to what is expected, or after some seconds."""
    count = 0
    command = ["mosquitto_sub", "-p", str(port), "-t", "$SYS/broker/publish/messages/received", "-W", "6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            count = int(line)
            if count >= expected:
                break
        process.terminate()
    return count


def update(port: int) -> None:
    """Part two."""
    for qos in (0, 1):
        print(
            f"{DEVICES:,} devices of 40 points updated at once every {PAUSE:g} s, QoS {qos}, {RATE} commands a second"
        )
        gateway_ = [
            "taskset",
            "-c",
            "0",
            sys.executable,
            str(HERE / "updates.py"),
            str(port),
            str(DEVICES),
            str(ROUNDS),
        ]
        commander = ["taskset", "-c", "1", sys.executable, str(HERE / "commander.py"), str(port)]
        listen = ["taskset", "-c", "1", "mosquitto_sub", "-p", str(port), "-q", str(qos)]
        listen += ["-t", "sems/+", "-R", "-F", "%U %t"]
        with subprocess.Popen(
            [*gateway_, str(PAUSE), str(qos)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            if process.stdin is None or process.stdout is None or process.stdout.readline().strip() != "ready":
                sys.exit("the gateway did not start")
            _commands("without updates", _run([*commander, "5", str(RATE)]))
            with tempfile.TemporaryFile("w+") as seen, subprocess.Popen(listen, stdout=seen, text=True) as subscriber:
                time.sleep(1)
                process.stdin.write("go\n")
                process.stdin.flush()
                _commands("during updates", _run([*commander, str(ROUNDS * PAUSE), str(RATE)]))
                begins = []
                while (line := process.stdout.readline().strip()) != "end":
                    begins.append(float(line))
                subscriber.terminate()
                subscriber.wait()
                seen.seek(0)
                arrivals = [(float(time_), topic) for time_, topic in (line.split() for line in seen)]
            process.stdin.close()
        for begin, end in zip(begins, [*begins[1:], float("inf")], strict=True):
            came: dict[str, float] = {}
            for when, topic in arrivals:
                if begin <= when < end:
                    came.setdefault(topic, when)
            last = max(came.values(), default=begin) - begin
            print(f"  {len(came):6,} devices had arrived {last:5.2f} s after the first update came in")


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _commands(when: str, printed: str) -> None:
    found = json.loads(printed)
    times = found["ms"]
    cuts = statistics.quantiles(times, n=100)
    print(
        f"  {when}: {len(times)} of {found['asked']} commands accepted;"
        f" p50 {cuts[49]:.1f} ms, p90 {cuts[89]:.1f}, p99 {cuts[98]:.1f}, most {times[-1]:.1f}"
    )


def node_red(port: int, directory: Path, messages: int) -> None:
    """Part three."""
    node = shutil.which("node")
    if node is None or not NODE_RED.exists():
        print(f"Node-RED is not installed ({NODE_RED}; tests/programs does it)")
        return
    http = free_port()
    flow = json.loads((HERE / "flow.json").read_text())
    for one in flow:
        if one["type"] == "mqtt-broker":
            one["port"] = str(port)
    (directory / "flow.json").write_text(json.dumps(flow))
    (directory / "settings.js").write_text(
        'module.exports = {uiHost: "127.0.0.1", disableEditor: true, telemetry: {enabled: false}, '
        'logging: {console: {level: "error"}}}'
    )
    command = ["taskset", "-c", "0", node, str(NODE_RED), "-u", str(directory), "-s", str(directory / "settings.js"),
               "-p", str(http), str(directory / "flow.json")]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(http)
            while not asyncio.run(_post(http, 1)):
                time.sleep(0.1)  # its flow is not there yet
            asyncio.run(_post(http, 1000))  # warm, and connected
            listen = ["taskset", "-c", "1", "mosquitto_sub", "-p", str(port), "-t", "sems/#", "-C", str(messages)]
            with subprocess.Popen(listen, stdout=subprocess.DEVNULL) as subscriber:
                time.sleep(1)
                began = time.perf_counter()
                os.sched_setaffinity(0, {1})
                asyncio.run(_post(http, messages))
                subscriber.wait(60)
                took = time.perf_counter() - began
                os.sched_setaffinity(0, {0})
            rate = f"{messages / took:,.0f}/s over {HTTP_CONNECTIONS} connections"
            print(f"Node-RED, HTTP in → change → MQTT out, QoS 0: {rate}")
        finally:
            process.terminate()


async def _post(port: int, messages: int) -> bool:
    """Return whether all were accepted."""

    async def connection(first: int) -> bool:
        accepted = True
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in range(first, messages, HTTP_CONNECTIONS):
            topic, payload = ENCODED[n % len(ENCODED)]
            head = (
                f"POST /state/{topic.partition('/')[2]} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(payload)}\r\n\r\n"
            )
            writer.write(head.encode() + payload)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
            )
            await reader.readexactly(int(length.partition(b":")[2]))
            accepted = accepted and answer.startswith(b"HTTP/1.1 200")
        writer.close()
        return accepted

    return all(await asyncio.gather(*map(connection, range(HTTP_CONNECTIONS))))


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rounds", type=int, default=9, help="of part one")
    options.add_argument("--messages", type=int, default=5000, help="of each run of part one")
    options.add_argument("--part", type=int, choices=(1, 2, 3), help="this one only")
    chosen = options.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed, one for the publishers and one for the broker")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    os.sched_setaffinity(0, {0})
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name)) as port:
        if chosen.part in {1, None}:
            throughput(port, chosen.rounds, chosen.messages)
        if chosen.part in {2, None}:
            update(port)
        if chosen.part in {3, None}:
            node_red(port, Path(name), chosen.messages)


if __name__ == "__main__":
    main()
