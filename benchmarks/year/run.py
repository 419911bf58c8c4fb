# ruff: noqa: INP001, PLW1509, S101, S603, T201 - a script that starts programs and prints
"""A year of a command a minute on a slow card: how soon the doors open after a power cut, and what a cut holds up.

    python benchmarks/year/run.py [--commands 525600] [--seconds 60]

As root it makes a loop device with an ext4 of its own, which cgroup v1's blkio holds to 20 MB/s and 500 writes a second
for the gateway and for what measures here (`blkio.throttle.*_device`, of /dev/loopN, and a directory below
/sys/fs/cgroup/blkio); page caches are dropped before each start. Where that can't be had it says so, and measures the
disk as it is. Python and the gateway's code lie on the machine's own disk.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import structlog

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.core.model import Command, CommandEvent, CommandState, Origin, encode_command
from gateway.journal import audit, retention
from gateway.journal.file import JOURNAL, connect, expect_format
from gateway.journal.head import HeadFile
from gateway.journal.journal import Journal
from gateway.journal.retention import AuditSettings

RATE = 20 * 2**20
WRITES = 500
GROUP = Path("/sys/fs/cgroup/blkio/sems-year")
STATES = (CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED)
CONFIG = """\
gateway: {{data_dir: {data_dir}}}
log: {{level: info, format: json}}
bridges:
  push: {{type: push, port: 0, secret: a-secret-of-some-length}}
  modbus: {{type: modbus, port: {modbus}}}
  web: {{type: web, port: {web}, tokens: {{tester: {{token: a-token-of-some-length}}}}}}
control: {{enabled: true, allow: [{{devices: ["*"], setpoints: [active_power_limit]}}]}}
"""


@contextlib.contextmanager
def slow_card() -> Iterator[tuple[Path, str]]:
    """Yield a directory on a throttled disk, and what that is."""
    with tempfile.TemporaryDirectory(prefix="sems-year-") as directory:
        image, mount = Path(directory) / "image", Path(directory) / "card"
        device = ""
        try:
            with image.open("wb") as file:
                file.truncate(4 * 2**30)
            mount.mkdir()
            device = _run("losetup", "--direct-io=on", "--find", "--show", str(image))
            _run("mkfs.ext4", "-q", device)
            _run("mount", device, str(mount))
            number = (Path("/sys/block") / Path(device).name / "dev").read_text().strip()
            GROUP.mkdir(exist_ok=True)
            for what, most in (("read_bps", RATE), ("write_bps", RATE), ("write_iops", WRITES)):
                (GROUP / f"blkio.throttle.{what}_device").write_text(f"{number} {most}")
            yield mount, f"{device}, ext4, {RATE // 2**20} MiB/s, {WRITES} writes a second (cgroup v1 blkio)"
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no throttled disk here ({error}); this one as it is")
            yield Path(directory), "the machine's own disk, not throttled"
        finally:
            for command in (("umount", str(mount)), ("losetup", "-d", device)):
                subprocess.run(command, check=False, capture_output=True)
            with contextlib.suppress(OSError):
                GROUP.rmdir()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def throttled() -> None:
    """Have this process held to the card's speed, where there is one."""
    with contextlib.suppress(OSError):
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))


def drop_caches() -> None:
    """Have everything written to the disk, and read from it again."""
    for _ in range(2):  # the image of a loop device is written by the first one
        os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


def write_year(path: Path, commands: int) -> None:
    """Write a journal of so many commands, a minute apart, the last one now; leave it as a power cut does."""
    database = connect(path)
    expect_format(database, path)
    database.execute("PRAGMA synchronous = OFF")
    now = datetime.now(UTC)
    last = audit.head(database)
    for start in range(0, commands, 20_000):
        database.execute("BEGIN")
        for n in range(start, min(start + 20_000, commands)):
            at = now - timedelta(minutes=commands - n)
            command = Command(
                id=f"{os.urandom(16).hex()}",
                serial=f"9010KETU{n % 20:03}W0001",
                setpoint="active_power_limit",
                value=float(n % 100),
                origin=Origin("modbus/operator:10.0.0.7:40122"),
                created=at,
                expires=at + timedelta(minutes=1),
            )
            for k, state in enumerate(STATES):
                event = CommandEvent(command=command, state=state, time=at + timedelta(seconds=k))
                last = audit.append(database, last, audit.of_event(event))
            database.execute(
                "INSERT INTO command (id, body, state, serial) VALUES (?, ?, ?, ?)",
                (command.id, encode_command(command), STATES[-1], command.serial),
            )
        database.execute("COMMIT")
    database.close()
    # The last writes stay in the log of changes, for nobody closes it.
    if os.fork() == 0:
        database = connect(path)
        for _ in range(50):
            database.execute("BEGIN")
            note = audit.Note(action=audit.AuditAction.DRIFTED, time=datetime.now(UTC), origin=Origin("gateway"))
            last = audit.append(database, last, audit.of_note(note))
            database.execute("COMMIT")
        HeadFile(path).write(last)
        os._exit(0)
    os.wait()


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def gateway(card: Path) -> None:
    """Start on the year's journal, and print when the doors open, and when control does."""
    modbus, web = free_port(), free_port()
    config = card / "config.yaml"
    config.write_text(CONFIG.format(data_dir=card / "data", modbus=modbus, web=web))
    drop_caches()
    began = time.monotonic()
    program = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", str(config)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.STDOUT,
        stdout=(card / "gateway.log").open("wb"),
        preexec_fn=throttled,
    )
    try:
        for name, port in (("modbus", modbus), ("web", web)):
            while True:
                assert program.poll() is None, (card / "gateway.log").read_text()[-2000:]
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.01)
            print(f"  {name} open after {time.monotonic() - began:.2f} s")
        ask, shown = build_opener(ProxyHandler({})), ""
        while True:
            with contextlib.suppress(OSError):
                try:
                    body = ask.open(f"http://127.0.0.1:{web}/readyz", timeout=30).read()
                except OSError as error:
                    body = getattr(error, "read", lambda: b"{}")()
                trouble = json.loads(body or b"{}").get("journal", "")
                if not trouble and body != b"{}":
                    break
                shown = trouble or shown
            time.sleep(0.2)
        print(f"  control open after {time.monotonic() - began:.1f} s; the last word before: {shown[-60:]}")
        status = Path(f"/proc/{program.pid}/status").read_text()
        print(f"  {next(line for line in status.splitlines() if line.startswith('VmHWM'))}")
        for words in (("audit",), ("audit", "--verify")):
            drop_caches()
            at = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "gateway", *words, str(config)],
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                check=False,
                preexec_fn=throttled,
            )
            said = (done.stdout if "--verify" in words else done.stderr).strip().splitlines()[-1:]
            print(f"  sems-gateway {' '.join(words)}: {time.monotonic() - at:.1f} s; {' '.join(said)[:90]}")
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(30)


async def cut_while_commanded(path: Path, seconds: float) -> None:
    """Print how long a command's step waits for the disk, ten a second, without a cut and while 300 days are kept."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    retention.FIRST = 0.0  # type: ignore[misc]
    for words, settings in (("without a cut", AuditSettings()), ("while it is cut", AuditSettings(keep_days=300))):
        journal = Journal(path, settings)
        await journal.open()
        took = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            at = datetime.now(UTC)
            command = Command(
                id=os.urandom(16).hex(),
                serial="9010KETU001W0001",
                setpoint="active_power_limit",
                value=1.0,
                origin=Origin("mqtt"),
                created=at,
                expires=at + timedelta(minutes=1),
            )
            began = time.monotonic()
            await journal.record(CommandEvent(command=command, state=CommandState.ACCEPTED, time=at))
            took.append(time.monotonic() - began)
            await journal.record(CommandEvent(command=command, state=CommandState.EXPIRED, time=at))
            await asyncio.sleep(0.1)
        await journal.close()
        with contextlib.closing(sqlite3.connect(path)) as database:
            cut = database.execute("SELECT seq FROM audit_cut").fetchone()[0]
        cuts = statistics.quantiles(took, n=1000)
        print(
            f"  {words}: {len(took)} commands, median {1e3 * statistics.median(took):.0f} ms, "
            f"99 % {1e3 * cuts[989]:.0f} ms, longest {1e3 * max(took):.0f} ms; {cut:,} rows cut so far"
        )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=525_600)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement of a cut")
    parser.add_argument("--cut", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cut is not None:
        asyncio.run(cut_while_commanded(options.cut, options.seconds))
        return
    with slow_card() as (card, what):
        print(f"{what}; {options.commands:,} commands; load {os.getloadavg()[0]:.1f}")
        (card / "data").mkdir(mode=0o700)
        path = card / "data" / JOURNAL
        began = time.monotonic()
        write_year(path, options.commands)
        print(f"  {path.stat().st_size / 1e6:.0f} MB of journal, written in {time.monotonic() - began:.0f} s")
        print("after a power cut:")
        gateway(card)
        print("after an end in good order:")
        gateway(card)
        drop_caches()
        print("steps of commands, each written with a wait for the disk:")
        subprocess.run(
            [sys.executable, __file__, "--cut", str(path), "--seconds", str(options.seconds)],
            check=True,
            preexec_fn=throttled,
        )
        shutil.rmtree(card / "data")


if __name__ == "__main__":
    main()
