"""`make reliability`: kills a gateway under load, hundreds of times, and prints the figures."""

import argparse
import random
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tests.reliability.crashes import crash
from tests.reliability.rig import Rig

out = Console(highlight=False, markup=False, soft_wrap=True)


@contextmanager
def place(named):
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="sems-reliability-") as directory:
        yield Path(directory)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, help="the same seed gives the same dice; default: a new one")
    parser.add_argument("--no-faults", action="store_true", help="leave the cloud sound")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave configuration, journal and logs here")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    with place(options.keep) as directory:
        rig = Rig(directory)
        out.print(f"seed {seed}, {options.kills} kills")
        with rig.surroundings():
            try:
                report = crash(rig, seed=seed, kills=options.kills, faults=not options.no_faults, tell=tell)
            finally:
                (directory / "gateway.log").write_text("\n".join(rig.logs) + "\n")
    for line in report.lines():
        out.print(line)
    out.print(f"again: make reliability ARGS='--kills {options.kills} --seed {seed}'")
    return bool(report.verdict.faults)


def tell(report):
    if report.kills % 20 == 0:
        out.print(f"{report.kills} kills")


if __name__ == "__main__":
    sys.exit(main())
