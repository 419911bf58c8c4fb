# ruff: noqa: INP001, S603, T201 - a script that starts programs and prints
"""How fast Modbus reads are answered, beside a server in C on libmodbus and beside pymodbus' stock server.

    python benchmarks/modbus/run.py [--rounds 9] [--seconds 0.3] [--realtime]

Part one: reads of 125 registers as fast as they are answered, over 1, 10 and 100 connections. Part two: latency of
5,000 reads a second over 100 connections, while 1,000 devices are updated every second.

Servers run on one core, the load on the other. Rounds of all servers are interleaved, and a ratio is that of two
rounds that follow each other, so that whatever else the machine does meets all of them; printed are medians. `us` is
the CPU time a server uses for one answer, kernel and all, which other work disturbs least. Needs gcc, pkg-config and
libmodbus (Debian: libmodbus-dev). On a machine that is busy with other things, root may add `--realtime`: then servers
and load go before all else in part two, and what is measured is the servers.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

HERE: Final = Path(__file__).parent
SERVER_CORE, LOAD_CORE = "0", "1"
REGISTERS: Final = "125"
REFERENCE: Final = "libmodbus"
CONNECTIONS: Final = (1, 10, 100)
RATE, DEVICES, UNITS_A_PORT = 5000, 1000, 247
LATENCY_ROUNDS, LATENCY_SECONDS = 5, 2.0


class Load(msgspec.Struct):
    """What the load generator prints."""

    answers: int
    seconds: float
    requests: int = 0
    p50: int = 0
    p90: int = 0
    p99: int = 0
    p999: int = 0
    most: int = 0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


class Server(NamedTuple):
    """One that runs."""

    process: subprocess.Popen[str]
    targets: list[str]
    """`port:units` of each port."""

    def cpu(self) -> float:
        """Return the CPU seconds it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def build(directory: Path) -> None:
    """Compile the C programs."""
    for tool in ("gcc", "pkg-config"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is needed (Debian: apt-get install gcc pkg-config libmodbus-dev)")
    found = subprocess.run(["pkg-config", "--cflags", "--libs", "libmodbus"], capture_output=True, text=True)  # noqa: PLW1510, S607
    if found.returncode:
        sys.exit("libmodbus is needed (Debian: apt-get install libmodbus-dev)")
    for name, flags in (("load", []), ("reference", found.stdout.split())):
        command = ["gcc", "-O2", "-Wall", "-o", str(directory / name), str(HERE / f"{name}.c"), *flags]
        subprocess.run(command, check=True)


@contextlib.contextmanager
def running(command: list[str], devices: int = 1) -> Iterator[Server]:
    """Run a server; it prints its ports when it is ready."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            ports = process.stdout.readline().split() if process.stdout else []
            if not ports:
                sys.exit(f"{' '.join(command)} did not start")
            units = [min(UNITS_A_PORT, devices - UNITS_A_PORT * n) for n in range(len(ports))]
            yield Server(process, [f"{port}:{most}" for port, most in zip(ports, units, strict=True)])
        finally:
            process.terminate()


def load(directory: Path, server: Server, connections: int, seconds: float, rate: int = 0) -> Load:
    """Put one server under load."""
    options = [LOAD_CORE, str(seconds), str(connections), str(rate), REGISTERS, *server.targets]
    run = subprocess.run([directory / "load", *options], check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(run.stdout, type=Load)


def python(*options: str) -> list[str]:
    """Return the command for a server in Python."""
    return [sys.executable, str(HERE / "servers.py"), options[0], options[1], SERVER_CORE, *options[2:]]


def throughput(directory: Path, rounds: int, seconds: float) -> None:
    """Part one."""
    commands = {
        REFERENCE: [str(directory / "reference"), SERVER_CORE],
        "pymodbus 3.16": python("stock", "uvloop"),
        "ours, asyncio": python("gateway", "asyncio"),
        "ours, uvloop": python("gateway", "uvloop"),
    }
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(running(command)) for name, command in commands.items()}
        for connections in CONNECTIONS:
            print(f"{connections} connections")
            rates: dict[str, list[float]] = {name: [] for name in servers}
            costs: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, server in servers.items():
                    before = server.cpu()
                    found = load(directory, server, connections, seconds)
                    rates[name].append(found.rate)
                    costs[name].append((server.cpu() - before) / found.answers)
            for name, measured in rates.items():
                ratio = statistics.median(r / base for r, base in zip(measured, rates[REFERENCE], strict=True))
                cost = statistics.mean(costs[name]) * 1e6
                median = statistics.median(measured)
                print(f"  {name:14} {median:8,.0f}/s (best {max(measured):8,.0f})  x {ratio:4.2f}  {cost:6.1f} us")


def latency(directory: Path) -> None:
    """Part two."""
    commands = {
        REFERENCE: (1, [str(directory / "reference"), SERVER_CORE]),
        "ours, uvloop": (DEVICES, python("gateway", "uvloop", "--devices", str(DEVICES), "--updates")),
    }
    print(f"{RATE:,} reads a second over 100 connections; ours with {DEVICES:,} updates a second; us")
    found: dict[str, list[Load]] = {name: [] for name in commands}
    for _ in range(LATENCY_ROUNDS):
        for name, (devices, command) in commands.items():
            with running(command, devices) as server:
                load(directory, server, 100, 0.5, RATE)  # warm
                found[name].append(load(directory, server, 100, LATENCY_SECONDS, RATE))
    for name, loads in found.items():
        p50, p90, p99, p999 = (statistics.median(getattr(one, key) for one in loads) for key in _PERCENTILES)
        rounds = " ".join(str(one.p99) for one in loads)
        rate = statistics.median(one.rate for one in loads)
        print(f"  {name:14} {rate:6,.0f}/s  p50 {p50:5.0f}  p90 {p90:5.0f}  p99 {p99:5.0f}  p99.9 {p999:5.0f}", end="")
        print(f"  (p99 of each round: {rounds})")


_PERCENTILES: Final = ("p50", "p90", "p99", "p999")


def main() -> None:
    """Build, measure, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--seconds", type=float, default=0.3, help="of each round of part one")
    options.add_argument("--rounds", type=int, default=9, help="of part one")
    options.add_argument("--realtime", action="store_true", help="part two under SCHED_FIFO; needs root")
    chosen = options.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed, one for the servers and one for the load")
    with tempfile.TemporaryDirectory() as directory:
        build(Path(directory))
        throughput(Path(directory), chosen.rounds, chosen.seconds)
        if chosen.realtime:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        latency(Path(directory))


if __name__ == "__main__":
    main()
