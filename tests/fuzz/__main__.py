"""`make fuzz`: each target for a while, in a process of its own; prints what came of it and keeps what was found.

python -m tests.fuzz --seconds 60 --only push modbus --seed 7
python -m tests.fuzz --engine atheris             # `make fuzz` installs it; guided by what each input reaches
python -m tests.fuzz --replay push tests/fuzz/found/push/0123456789abcdef
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.fuzz.campaign import GROWTH, Campaign, Report, keep
from tests.fuzz.targets import TARGETS
from tests.kit.process import ROOT

ATHERIS = ROOT / ".venv" / "atheris"
"""Where `make fuzz` installs it: apart, it is no part of the locks."""
HALF = b"half of the time"
"""What `guided` says in between."""
_BRANCHES = re.compile(rb"cov: (\d+) ")

out = Console(width=140, highlight=False, markup=False, soft_wrap=True)
SHM = Path("/dev/shm")
"""What is fuzzed writes and waits for the disk: here that is none."""


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--only", nargs="*", default=[], help="targets whose names begin so")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--engine", choices=("seeded", "atheris"), default="seeded")
    parser.add_argument("--alone", metavar="TARGET", help="run one in this process, and print its report as JSON")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"))
    said = parser.parse_args()
    seed = int(time.time()) if said.seed is None else said.seed
    if said.replay:
        return replay(*said.replay)
    if said.alone:
        sys.stdout.buffer.write(msgspec.json.encode(alone(said.alone, seed, said.seconds)))
        return 0
    names = [name for name in TARGETS if not said.only or name.startswith(tuple(said.only))]
    out.print(f"seed {seed}, {said.seconds:g} s each, {said.engine}")
    reports = [report for name in names if (report := run(name, seed, said.seconds, said.engine)) is not None]
    show(reports)
    bad = [r for r in reports if r.kinds or r.growth > GROWTH]
    return 1 if bad or len(reports) < len(names) else 0


def alone(name, seed, seconds=None, given=()):
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as directory:
        return Campaign(TARGETS[name], seed).run(Path(directory), seconds=seconds, given=given)


def run(name, seed, seconds, engine):
    """Run a target in a process of its own, so that its memory is its own; None where that died."""
    module = "tests.fuzz" if engine == "seeded" else "tests.fuzz.guided"
    command = [sys.executable, "-m", module, "--alone", name, "--seed", str(seed), "--seconds", str(seconds)]
    with tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as directory:
        environment = os.environ
        if engine == "atheris":
            command += ["--directory", directory]
            environment = {**environment, "PYTHONPATH": str(ATHERIS)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=seconds * 10 + 600
        )
    try:
        report = msgspec.json.decode(done.stdout, type=Report)
    except msgspec.MsgspecError:
        out.print(f"{name}: died with {done.returncode}\n{done.stderr.decode(errors='replace')[-3000:]}")
        return None
    if engine == "atheris":
        report.paths, report.late_paths = branches(done.stderr)
    for kind, count in report.kinds.items():
        out.print(f"{name}: {count} times {kind}")
    for file in keep(report):
        out.print(f"  kept {file.relative_to(ROOT)}")
    return report


def branches(said):
    """Return how many branches libFuzzer counted, and how many of these in the second half of the time."""
    first, _, second = said.partition(HALF)
    counted = [int(found[-1]) if (found := _BRANCHES.findall(part)) else 0 for part in (first, second)]
    return max(counted), max(0, counted[1] - counted[0])


def replay(name, file):
    report = alone(name, 0, given=[Path(file).read_bytes()])
    for find in report.finds:
        out.print(find.text)
    out.print(f"slowest {report.slowest * 1000:.1f} ms")
    return bool(report.finds)


def show(reports):
    table = Table(box=None, width=140)
    for heading in (
        "target",
        "inputs",
        "refused",
        "paths",
        "late",
        "crashes",
        "stalls",
        "slowest",
        "growth",
        "seconds",
    ):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for r in reports:
        stalls = sum(count for kind, count in r.kinds.items() if kind.startswith("stall"))
        crashes = sum(r.kinds.values()) - stalls
        table.add_row(
            r.name, f"{r.inputs:,}", f"{r.refused:,}", f"{r.paths:,}", f"{r.late_paths:,}", str(crashes), str(stalls),
            f"{r.slowest * 1000:.1f} ms", f"{r.growth / 2**20:.1f} MB", f"{r.seconds:.0f}",
        )  # fmt: skip
    out.print(table)
    inputs, crashes = sum(r.inputs for r in reports), sum(sum(r.kinds.values()) for r in reports)
    out.print(f"{inputs:,} inputs, {crashes} finds; a find is a crash, or a stall of more than 100 ms of CPU")


if __name__ == "__main__":
    sys.exit(main())
