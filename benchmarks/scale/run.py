# ruff: noqa: INP001, S603, T201 - a script that starts programs and prints
"""How a gateway grows with its devices: the time of a start, the longest turn of its loop, memory, CPU.

    python benchmarks/scale/run.py [--devices 10 1000 10000] [--stacks] [--burst]

The gateway is a process of its own, as `sems-gateway run` starts it, with Modbus, MQTT with Home Assistant's discovery,
and the web bridge; a source in the same process brings the devices, of 40 points each, one in twenty a plant. A turn is
how long nothing else on the loop is served, at most, while what the column says happens: CPU time of its thread, in
brackets time on the clock, into which goes whatever else the machine does. `us a device`: CPU that a start takes
for each device, above that of ten devices. With `--stacks` the stack of each turn over 20 ms is printed, which takes
time itself.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
UNITS_A_PORT: Final = 247
PATIENCE: Final = 300.0
AIM: Final = 0.020
"""Seconds that a turn may last at 10,000 devices."""
CONFIG: Final = """\
log: {{level: error}}
control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: [running, active_power_limit]}}]
bridges:
  modbus: {{type: modbus, port: {modbus}}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, home_assistant: {{enabled: true}}}}
  web: {{type: web, port: {web}}}
  push: {{type: push, port: {push}, secret: {secret}, announce: true, announce_most: 20000}}
"""
SECRET: Final = "a-secret-that-nobody-guesses"  # noqa: S105 - of a gateway that lives for a minute
CONNECTIONS: Final = 300


class Broker:
    """A mosquitto on a port that stays the same when it is started anew."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            sys.exit("mosquitto is needed (Debian: apt-get install mosquitto mosquitto-clients)")
        self.port = free_ports(1)
        config = directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n"
        )
        self._command = [program, "-c", str(config)]
        self.start()

    def start(self) -> None:
        """Run it, and wait until it listens."""
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        wait_for(lambda: answers(self.port), "the broker")

    def stop(self) -> None:
        """End it without a word to its clients."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Subscriber:
    """Which topics have come, and when the last one did."""

    def __init__(self, port: int, topic: str) -> None:
        self.file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by `stop`
        command = ["mosquitto_sub", "-p", str(port), "-t", topic, "-F", "%U %t"]
        self.process = subprocess.Popen(command, stdout=self.file, stderr=subprocess.DEVNULL)
        self.seen: dict[bytes, float] = {}
        self._at = 0
        self._rest = b""

    def count(self) -> int:
        """Return how many different topics have come by now."""
        found = os.pread(self.file.fileno(), 1 << 26, self._at)
        self._at += len(found)
        lines = (self._rest + found).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            when, _, topic = line.partition(b" ")
            self.seen.setdefault(topic, float(when))
        return len(self.seen)

    def wait(self, count: int, what: str) -> float:
        """Wait until so many topics have come; return when the last of them did, in seconds since 1970."""
        wait_for(lambda: self.count() >= count, what)
        return max(self.seen.values())

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()
        self.file.close()


class Process:
    """A gateway with so many devices."""

    def __init__(self, config: Path, devices: int, *, stacks: bool) -> None:
        command = [sys.executable, str(HERE / "fleet.py"), str(config), str(devices), *(["--stacks"] if stacks else [])]
        self.began = time.time()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.stacks: dict[str, str] = {}
        self.push = 0
        """Port for pushes."""

    def ask(self, word: str) -> dict[str, Any]:
        """Have something done; return how it stands then."""
        if self.process.stdin is None or self.process.stdout is None:
            raise AssertionError
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the gateway has ended")
        return dict(json.loads(line))

    def turn(self, what: str) -> str:
        """Return the longest turn since this was asked last, as it is printed."""
        found = self.ask("turns")
        if found["cpu"] > AIM and found["stack"]:
            seconds, generation = found["collection"]
            collection = f"longest garbage collection: {seconds * 1000:.0f} ms, generation {generation}"
            self.stacks[what] = f"{collection}\n{found['stack']}"
        return f"{found['cpu'] * 1000:,.0f} ({found['turn'] * 1000:,.0f})"

    def runs(self) -> bool:
        """Return that it does; where it has ended, so does this."""
        return self.process.poll() is None or sys.exit("the gateway has ended")

    def cpu(self) -> float:
        """Return the CPU seconds it has used, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Return what it occupies now, in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def settle(self) -> None:
        """Wait until it has nothing to do."""

        def idle() -> bool:
            before = self.cpu()
            time.sleep(1.0)
            return self.cpu() - before < 0.15

        wait_for(idle, "quiet")

    def stop(self) -> None:
        """End it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(60)


def free_ports(count: int) -> int:
    """Return the first of so many ports in a row that are free now."""
    for first in range(21_000, 32_000, 300):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    sys.exit(f"there are no {count} free ports in a row")


def wait_for(condition: Callable[[], bool], what: str, *, every: float = 0.02) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {PATIENCE:g} s")
        time.sleep(every)


def answers(port: int) -> bool:
    """Return whether somebody listens at a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def reads(port: int, unit: int) -> bool:
    """Return whether a unit answers a read of ten registers with registers."""
    request = b"\0\1\0\0\0\6" + bytes([unit, 3, 0, 0, 0, 10])
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(request)
        return connection.recv(260)[7:8] == b"\3"
    return False


@contextlib.contextmanager
def gateway(devices: int, *, stacks: bool) -> Iterator[tuple[Process, Broker, int, int]]:
    """Run a gateway; yields it with its broker, and its Modbus and web ports."""
    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name))
        web = free_ports(devices // UNITS_A_PORT + 4)
        push, modbus = web + 1, web + 2
        config = Path(name) / "config.yaml"
        config.write_text(CONFIG.format(modbus=modbus, mqtt=broker.port, web=web, push=push, secret=SECRET))
        process = Process(config, devices, stacks=stacks)
        process.push = push
        try:
            yield process, broker, modbus, web
        finally:
            process.stop()
            broker.stop()


def scrape(port: int) -> float:
    """Return the seconds that a scrape of the metrics takes."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        answer.read()
    return time.perf_counter() - began


def measure(devices: int, *, stacks: bool) -> dict[str, str | float]:
    """Return what is printed of a fleet of this size; a number is one that `growth` reckons with."""
    row: dict[str, str | float] = {}
    with gateway(devices, stacks=stacks) as (process, broker, modbus, web):
        states, configs = Subscriber(broker.port, "sems/+"), Subscriber(broker.port, "homeassistant/device/+/config")
        wait_for(lambda: process.runs() and reads(modbus, 1), "a Modbus answer")
        row["first Modbus answer, s"] = f"{time.time() - process.began:.1f}"
        last = min(devices, devices - 1 - (devices - 1) // UNITS_A_PORT * UNITS_A_PORT + 1)
        wait_for(lambda: reads(modbus + (devices - 1) // UNITS_A_PORT, last), "the last unit")
        row["all units there, s"] = f"{time.time() - process.began:.1f}"
        row["all states out, s"] = f"{states.wait(devices, 'all states') - process.began:.1f}"
        row["discovery out, s"] = f"{configs.wait(devices + 1, 'discovery') - process.began:.1f}"
        process.settle()
        row["turn: start, discovery, ms"] = process.turn("start")
        row["CPU of the start, s"] = process.cpu()
        row["RSS, MB"] = f"{process.memory():,.0f}"

        before = process.cpu()
        process.ask("paced")
        row["CPU a second, ms"] = (process.cpu() - before) * 100
        rounds = min(50, max(1, 5_000 // devices))
        process.settle()
        idle = process.cpu()
        time.sleep(5.0)
        idle = (process.cpu() - idle) / 5.0
        began, before = time.monotonic(), process.cpu()
        for _ in range(rounds):
            process.ask("once")
            # Else sinks would only see the newest of several.
            time.sleep(0.3)
        process.settle()
        used = process.cpu() - before - idle * (time.monotonic() - began)
        row["CPU per 1,000 snapshots, ms"] = used / (rounds * devices) * 1e6
        row["turn: all updated, ms"] = process.turn("updates")

        states.stop()
        broker.stop()
        broker.start()
        states = Subscriber(broker.port, "sems/+")
        states.wait(devices, "states after a reconnect")
        process.settle()
        row["turn: MQTT reconnect, ms"] = process.turn("reconnect")
        command = ["mosquitto_pub", "-p", str(broker.port), "-t", "homeassistant/status", "-m", "online"]
        births = Subscriber(broker.port, "homeassistant/device/+/config")
        time.sleep(1.0)  # what is retained has come
        births.count()
        births.seen.clear()
        subprocess.run(command, check=True)
        births.wait(devices + 1, "discovery after a birth")
        births.stop()
        process.settle()
        row["turn: birth, ms"] = process.turn("birth")
        row["scrape, s"] = f"{min(scrape(web) for _ in range(3)):.2f}"
        row["turn: scrape, ms"] = process.turn("scrape")
        process.ask("add")
        process.settle()
        row["turn: one added, ms"] = process.turn("add")
        process.ask("gone")
        process.settle()
        row["turn: one gone, ms"] = process.turn("gone")
        process.ask("short")
        wait_for(lambda: not process.ask("state")["good"], "all stale", every=0.5)
        process.settle()
        row["turn: all stale, ms"] = process.turn("stale")
        process.ask("old")
        process.turn("journal")
        process.ask("cut")
        row["turn: journal cut, ms"] = process.turn("cut")
        row["RSS in the end, MB"] = f"{process.memory():,.0f}"
        states.stop()
        configs.stop()
        for what, stack in process.stacks.items():
            print(f"--- {devices} devices, {what}\n{stack}")
    return row


def burst(*, stacks: bool) -> None:
    """Print what a burst of pushes does: by as many connections as are opened for it, and then by these again."""
    with gateway(10, stacks=stacks) as (process, _, modbus, _):
        wait_for(lambda: process.runs() and reads(modbus, 1), "a Modbus answer")
        process.settle()
        process.turn("start")
        connections: list[socket.socket] = []
        before = process.cpu()
        for nth in range(5):
            # A gateway that is stopped meanwhile finds all of them at once.
            process.process.send_signal(signal.SIGSTOP)
            for n in range(CONNECTIONS):
                if not nth:
                    connections.append(socket.create_connection(("127.0.0.1", process.push)))
                connections[n].sendall(_push(f"BURST{nth}{n:04}"))
            process.process.send_signal(signal.SIGCONT)
            for connection in connections:
                if not connection.recv(4096).startswith(b"HTTP/1.1 204"):
                    sys.exit("a push was not taken")
            what = "opened for it" if not nth else "open before"
            print(f"{CONNECTIONS} pushes at once, connections {what}: longest turn {process.turn(what)} ms")
        each = (process.cpu() - before) / 5 / CONNECTIONS
        print(f"CPU a push: {each * 1000:.2f} ms")
        for what, stack in process.stacks.items():
            print(f"--- {what}\n{stack}")


def _push(serial: str) -> bytes:
    data = {"last_refresh_time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()), "status": 1, "pac": 1000}
    body = json.dumps({"interface": "GetInverterBySN", "sn": serial, "data": data}).encode()
    head = f"POST /push/{SECRET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def growth(sizes: list[int], *, stacks: bool) -> None:
    """Print the table."""
    rows: dict[int, dict[str, str | float]] = {}
    for devices in sizes:
        rows[devices] = measure(devices, stacks=stacks)
        print(f"{devices:,} devices measured", file=sys.stderr)
    base = rows[sizes[0]]
    for devices, row in rows.items():
        above = float(row["CPU of the start, s"]) - float(base["CPU of the start, s"])
        row["start, us a device"] = f"{above / (devices - sizes[0]) * 1e6:,.0f}" if devices != sizes[0] else "-"
    print("| | " + " | ".join(f"{devices:,}" for devices in rows) + " |\n|---" * 1 + "|---" * len(rows) + "|")
    for name in base:
        cells = [row[name] for row in rows.values()]
        print(f"| {name} | " + " | ".join(f"{c:,.1f}" if isinstance(c, float) else c for c in cells) + " |")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--devices", type=int, nargs="+", default=[10, 1_000, 10_000], help="sizes of fleets")
    options.add_argument("--stacks", action="store_true", help="show where turns over 20 ms are")
    options.add_argument("--burst", action="store_true", help="pushes over 300 connections instead")
    chosen = options.parse_args()
    if chosen.burst:
        burst(stacks=chosen.stacks)
    else:
        growth(chosen.devices, stacks=chosen.stacks)


if __name__ == "__main__":
    main()
