# ruff: noqa: INP001, T201 - a script that prints
"""How fast the journal is, against a bare SQLite insert and commit on the same disk in the same run.

    python benchmarks/journal/run.py [--directory DIR] [--module FILE]

Both commit in WAL mode with synchronous=FULL, so both wait for the disk; what the journal adds is the hash chain, the
thread and the loop. They take turns, for disks have moods. `--module` measures another journal.py in place of the
installed one, e.g. one of an older commit: `git show COMMIT:gateway/journal/journal.py > /tmp/journal.py`.
"""

import argparse
import asyncio
import importlib.util
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.core.model import Command, CommandEvent, CommandState, Reason, new_command_id
from gateway.journal import journal as installed

ONE_BY_ONE = 300
WRITERS = 200
EACH = 20
ROUNDS = 5
FLOOD = 100_000


def event(state: CommandState = CommandState.ACCEPTED, **fields: Any) -> CommandEvent:
    """Return a step of a command of its own."""
    now = datetime.now(UTC)
    command = Command(
        id=new_command_id(),
        serial="GW5000SIM0000001",
        setpoint="active_power_limit",
        value=50.0,
        origin="modbus/operator:10.0.0.7:40122",
        created=now,
        expires=now + timedelta(minutes=1),
    )
    return CommandEvent(command=command, state=state, time=now, **fields)


def floor(path: Path, count: int) -> list[float]:
    """Return the seconds that each of so many bare inserts with a commit took."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB)")
    took = []
    for _ in range(count):
        began = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t (body) VALUES (?)", (b"x" * 300,))
        db.execute("COMMIT")
        took.append(time.perf_counter() - began)
    db.close()
    return took


async def one_by_one(journal: Any, count: int) -> list[float]:
    """Return the seconds that each of so many steps took, one awaited after the other."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await journal.record(event())
        took.append(time.perf_counter() - began)
    return took


async def at_once(journal: Any) -> tuple[float, list[float]]:
    """Return steps a second, and the seconds each took, with many writers that also look up an id before, as submit."""
    took: list[float] = []

    async def writer() -> None:
        for _ in range(EACH):
            step = event()
            began = time.perf_counter()
            await journal.last_event(step.command.id)
            await journal.record(step)
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    return WRITERS * EACH / (time.perf_counter() - began), took


async def flood(journal: Any) -> tuple[float, float, int]:
    """Return microseconds of CPU per refusal, seconds that a step among them waited, and bytes the file grew by."""
    step = event(CommandState.REJECTED, reason=Reason.RATE_LIMITED, detail="too often")
    before = size(journal.path)
    began = time.process_time()
    written = asyncio.create_task(one_by_one(journal, 1))
    for n in range(FLOOD):
        journal.refused(step)
        if n % 100 == 0:
            await asyncio.sleep(0)
    each = (time.process_time() - began) / FLOOD * 1e6
    [waited] = await written
    return each, waited, size(journal.path) - before


def size(path: Path) -> int:
    """Return the bytes of a journal and of its log of changes."""
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))


def told(name: str, took: list[float]) -> str:
    """Return times as a line."""
    quantiles = statistics.quantiles(took, n=100)
    return f"{name:<34} median {statistics.median(took) * 1e3:7.2f} ms   p99 {quantiles[98] * 1e3:7.2f} ms"


async def measure(module: ModuleType, directory: Path) -> None:
    """Measure and print."""
    journal = module.Journal(directory / "journal.sqlite")
    await journal.open()
    bare: list[float] = []
    single: list[float] = []
    rates: list[float] = []
    many: list[float] = []
    for _ in range(ROUNDS):
        bare += await asyncio.to_thread(floor, directory / "floor.sqlite", ONE_BY_ONE // ROUNDS)
        single += await one_by_one(journal, ONE_BY_ONE // ROUNDS)
        rate, took = await at_once(journal)
        rates.append(rate)
        many += took
    print(told("bare insert and commit", bare))
    print(told("journal, one by one", single))
    print(f"{'':34} ratio of medians {statistics.median(single) / statistics.median(bare):.2f}")
    print(told(f"journal, {WRITERS} writers, each", many))
    per_second = statistics.median(rates)
    print(
        f"{'':34} {per_second:.0f} steps/s together, "
        f"{per_second * statistics.median(bare):.1f} in the time of a bare commit"
    )
    if hasattr(journal, "refused"):
        each, waited, grew = await flood(journal)
        print(
            f"{FLOOD} refusals: {each:.1f} µs of CPU each; a step among them waited {waited * 1e3:.1f} ms; "
            f"{grew / 1e3:.0f} kB of disk"
        )
    await journal.close()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: a temporary one")
    parser.add_argument("--module", type=Path, help="another journal.py")
    options = parser.parse_args()
    module: ModuleType = installed
    if options.module:
        spec = importlib.util.spec_from_file_location("another_journal", options.module)
        if spec is None or spec.loader is None:
            raise SystemExit(f"{options.module} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        uvloop.run(measure(module, Path(directory)))


main()
