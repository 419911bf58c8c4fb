# ruff: noqa: INP001, S603, T201 - a script that starts programs and prints
"""What a command costs from its start to its end, beside the libraries that it can't do without.

    python benchmarks/start/run.py [--rounds 10]

A simulated cloud and a gateway run meanwhile, with the bridges of config.example.yaml. The commands take turns, so
that what else the machine does meets all of them. CPU: user and system time of the process. Below it the time from the
start of a gateway's process to the first answer of its Modbus port, whatever the answer, and to the first registers of
a device; once with an empty data_dir, then with one in which the units stand.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 60.0
STARTS: Final = 5
SERIAL: Final = "9010KETU218W0001"
CONFIG: Final = """\
gateway: {{data_dir: {data_dir}}}
log: {{level: error}}
control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: [running, active_power_limit]}}]
bridges:
  sems: {{type: open_api, url: "http://127.0.0.1:{cloud}", account: demo, password: demo, poll_interval: 2,
         calls_per_hour: 100000}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}}}
  modbus: {{type: modbus, host: 127.0.0.1, port: {modbus}}}
"""
PYTHON: Final = sys.executable
GATEWAY: Final = (PYTHON, "-m", "gateway")
FLOORS: Final[dict[str, Sequence[str]]] = {
    "`python -c pass`": (PYTHON, "-c", "pass"),
    "`import typer, rich.console`": (PYTHON, "-c", "import typer, rich.console"),
    "`import pydantic_settings`": (PYTHON, "-c", "import pydantic_settings"),
    "`import pydantic_settings, typer, rich.console, yaml`": (
        PYTHON,
        "-c",
        "import pydantic_settings, typer, rich.console, yaml",
    ),
}


def commands(config: Path, serial: str) -> dict[str, Sequence[str]]:
    """Return what a person types → the whole command."""
    file = str(config)
    return {
        "--version": (*GATEWAY, "--version"),
        "--help": (*GATEWAY, "--help"),
        "check config.example.yaml": (*GATEWAY, "check", str(ROOT / "config.example.yaml")),
        "check": (*GATEWAY, "check", file),
        "send": (*GATEWAY, "send", file, serial, "active_power_limit", "50"),
        "explain": (*GATEWAY, "explain", file, serial, "active_power_limit", "50"),
        "halt": (*GATEWAY, "halt", file, "--reason", "bench"),
        "resume": (*GATEWAY, "resume", file),
        "devices": (*GATEWAY, "devices", file),
        "units": (*GATEWAY, "units", file),
        "registers": (*GATEWAY, "registers", file),
        "plan": (*GATEWAY, "plan", file),
        "doctor": (*GATEWAY, "doctor", file),
        "audit": (*GATEWAY, "audit", file),
    }


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its CPU and its time on the clock, in seconds."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    taken = time.perf_counter() - began
    process.returncode = 0  # it has been waited for
    return used.ru_utime + used.ru_stime, taken


def checked(name: str, command: Sequence[str]) -> None:
    """Run a command once, which also compiles what it loads; end where it fails, and what is measured is an error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    # A doctor finds that the broker is not there.
    if done.returncode not in ((0, 1) if name == "doctor" else (0,)) or "Traceback" in done.stderr:
        sys.exit(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}{done.stdout[-2000:]}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {PATIENCE:g} s")
        time.sleep(0.005)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


def function_of(port: int) -> int | None:
    """Return the function code that unit 1 answers a read with; above 0x80 an exception, None where nobody answers."""
    request = b"\0\1\0\0\0\6\1\3\0\0\0\x0a"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.settimeout(1)
        connection.sendall(request)
        answer = connection.recv(260)
        return answer[7] if len(answer) > 7 else None
    return None


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program meanwhile."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def first_answers(config: Path, port: int, data_dir: Path, *, anew: bool) -> tuple[float, float, float]:
    """Start a gateway; return seconds to the first answer and to the first registers, and its CPU by then."""
    if anew:
        shutil.rmtree(data_dir, ignore_errors=True)
    began = time.perf_counter()
    with running((*GATEWAY, "run", str(config))) as process:
        wait_for(lambda: function_of(port) is not None, "a Modbus answer")
        first = time.perf_counter() - began
        wait_for(lambda: function_of(port) == 3, "registers")
        registers = time.perf_counter() - began
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return first, registers, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def print_table(found: dict[str, list[tuple[float, float]]]) -> None:
    """Print what commands took, in ms."""
    print("| | CPU, ms: least | median | clock, ms: least | median |\n| --- | --- | --- | --- | --- |")
    for name, times in found.items():
        cells = [f(column) * 1000 for column in zip(*times, strict=True) for f in (min, statistics.median)]
        print(f"| {name} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rounds", type=int, default=10, help="how often each command is run")
    rounds = options.parse_args().rounds
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as name:
        cloud, mqtt, modbus = free_ports(3)
        config, data_dir = Path(name) / "config.yaml", Path(name) / "data"
        config.write_text(CONFIG.format(data_dir=data_dir, cloud=cloud, mqtt=mqtt, modbus=modbus))
        config.chmod(0o600)
        with running((*GATEWAY, "simulate", "--port", str(cloud), "--calls-per-hour", "0")):
            wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", cloud)), "the simulated cloud")
            with running((*GATEWAY, "run", str(config))):
                wait_for(lambda: function_of(modbus) == 3, "a gateway")
                everything = FLOORS | commands(config, SERIAL)
                for what, command in everything.items():
                    checked(what, command)
                found: dict[str, list[tuple[float, float]]] = {what: [] for what in everything}
                for _ in range(rounds):
                    for what, command in everything.items():
                        found[what].append(timed(command))
            print_table(found)
            print("\n| from the start of `run`, median of five | first answer, s | first registers, s | CPU, s |")
            print("| --- | --- | --- | --- |")
            for what, anew in (("data_dir empty", True), ("data_dir of an earlier run", False)):
                starts = [first_answers(config, modbus, data_dir, anew=anew) for _ in range(STARTS)]
                cells = (f"{statistics.median(column):.2f}" for column in zip(*starts, strict=True))
                print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
