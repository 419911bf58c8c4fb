"""`make reliability`: kills a gateway under load, hundreds of times, and prints the figures."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.reliability.checker import reconcile
from tests.reliability.crashes import crash
from tests.reliability.lateness import lateness
from tests.reliability.punctual import punctual
from tests.reliability.records import load
from tests.reliability.rig import Rig

out = Console(highlight=False, markup=False, soft_wrap=True)
RECORDS = "records.json"


def place(named):
    """Return the run's directory."""
    if named is None:
        return Path(tempfile.mkdtemp(prefix="sems-reliability-"))
    named.mkdir(parents=True, exist_ok=True)
    return named


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, help="the same seed gives the same dice; default: a new one")
    timers = "N dead-man's timers over a fleet, and how late they fire, instead of commands from everywhere"
    parser.add_argument("--timers", type=int, default=0, metavar="N", help=timers)
    parser.add_argument("--no-faults", action="store_true", help="leave the cloud sound")
    keep = "leave configuration, journal, logs and records here; after a failure they stay anyway"
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help=keep)
    parser.add_argument(
        "--judge", type=Path, metavar="DIRECTORY", help="run nothing; reconcile what a run has left there"
    )
    options = parser.parse_args()
    if options.judge is not None:
        records = load(options.judge / RECORDS)
        faults = reconcile(records).faults
        out.print(*lateness(records).lines(), *map(str, faults), f"{len(faults)} faults found", sep="\n")
        return bool(faults)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    directory = place(options.keep)
    again = f"--kills {options.kills} --seed {seed}" + (f" --timers {options.timers}" if options.timers else "")
    out.print(f"seed {seed}, {options.kills} kills")
    sound = False
    try:
        report = run(directory, seed, options)
        sound = not report.verdict.faults
    finally:
        if not sound:
            out.print(f"configuration, journal, logs and records are in {directory}; judge them again: "
                      f"python -m tests.reliability --judge {directory}")  # fmt: skip
        elif options.keep is None:
            shutil.rmtree(directory)
    for line in report.lines():
        out.print(line)
    out.print(f"again: python -m tests.reliability {again}")
    return not sound


def run(directory, seed, options):
    faults = not options.no_faults
    if options.timers:
        return punctual(directory, seed=seed, kills=options.kills, timers=options.timers, faults=faults, tell=tell)
    rig = Rig(directory)
    with rig.surroundings():
        try:
            return crash(rig, seed=seed, kills=options.kills, faults=faults, tell=tell)
        finally:
            (directory / "gateway.log").write_text("\n".join(rig.logs) + "\n")


def tell(report):
    if report.kills % 20 == 0:
        out.print(f"{report.kills} kills")


if __name__ == "__main__":
    sys.exit(main())
