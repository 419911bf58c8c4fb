"""`make mutants`: breaks each promise on purpose, in a copy of the tree, and sees that what is named finds it.

A mutant is a patch under `mutants/`. The lines before it say which promise it breaks, and what must fail then:

    Promise: A dead-man's timer takes a setpoint back, also after a restart.
    Caught by: pytest tests/commands/test_commands.py -k across_a_restart
    Caught by: kills --kills 8 --seed 1

`pytest …` are named tests, `kills …` a kill run (`python -m tests.reliability`).
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.kit.process import ROOT

MUTANTS = Path(__file__).with_name("mutants")
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", ".coverage*", "data")
PROGRAMS = {
    "pytest": ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"],
    "kills": ["-m", "tests.reliability"],
}
FAILED = 1
"""Exit code of both where something was found; a mistake in the command, or no test, is another."""
LIMIT = 900
"""Seconds for one command. One that does not end is no finding."""

out = Console(highlight=False, markup=False, soft_wrap=True)


class MutantError(Exception):
    """A patch that is of no use: without its header, or for another tree."""


@dataclass(frozen=True)
class Mutant:
    name: str
    path: Path
    promise: str
    commands: tuple[str, ...]

    @classmethod
    def read(cls, path):
        """Read a patch. Raises MutantError."""
        header, _, patch = path.read_text().partition("\n--- ")
        promise = re.findall(r"^Promise: (\S.*)$", header, re.MULTILINE)
        commands = re.findall(r"^Caught by: (\S.*)$", header, re.MULTILINE)
        if len(promise) != 1 or not commands or not patch:
            raise MutantError(f"{path.name}: it needs one line `Promise: …`, a line `Caught by: …`, and a patch")
        if strange := [command for command in commands if command.split()[0] not in PROGRAMS]:
            raise MutantError(f"{path.name}: {strange[0]}: not one of {', '.join(PROGRAMS)}")
        return cls(path.stem, path, promise[0], tuple(commands))


def all_mutants(names=()):
    """Return those whose names have one of `names` in them, or all, by name. Raises MutantError."""
    found = [Mutant.read(path) for path in sorted(MUTANTS.glob("*.patch"))]
    return [mutant for mutant in found if not names or any(name in mutant.name for name in names)]


class Copy:
    """The tree as it is here, also what is not committed, to be broken."""

    def __init__(self, directory):
        self.root = Path(directory) / "tree"
        shutil.copytree(ROOT, self.root, ignore=LEFT_OUT)

    def apply(self, mutant, *options):
        """Patch it, or with `--check` only see whether that goes. Raises MutantError."""
        done = subprocess.run(
            ["git", "apply", *options, str(mutant.path)],
            cwd=self.root, env=os.environ | {"GIT_CEILING_DIRECTORIES": str(self.root.parent)}, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise MutantError(f"{mutant.name} does not apply: {done.stderr.strip()}")

    def run(self, command):
        """Run one of a mutant's commands here; returns its exit code (None: no end) and output."""
        program, *arguments = shlex.split(command)
        # Its own program is run: its directory goes before what is installed. Files change fast, so no cache.
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(self.root)}
        environment |= {"SEMS_GATEWAY_NO_SHRINK": "1"}  # that something fails is enough
        try:
            done = subprocess.run(
                [sys.executable, *PROGRAMS[program], *arguments],
                cwd=self.root, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, "it did not end"
        return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Result:
    mutant: Mutant
    command: str
    caught: bool
    seconds: float
    output: str


def soundness(copy, mutants):
    """Run every command where nothing is broken. Raises MutantError for one that fails: it proves nothing."""
    for command in together(command for mutant in mutants for command in mutant.commands):
        code, output = copy.run(command)
        if code != 0:
            raise MutantError(f"{command} fails without any mutant:\n{output[-3000:]}")


def together(commands):
    """Return each once, and all tests in one command."""
    distinct = dict.fromkeys(commands)
    files, names, others = {}, {}, []
    for command in distinct:
        program, *arguments = shlex.split(command)
        if program != "pytest" or arguments[1:2] not in ([], ["-k"]):
            others.append(command)
            continue
        files[arguments[0]] = None
        names[arguments[2] if arguments[1:] else Path(arguments[0]).stem] = None
    tests = [f"pytest {' '.join(files)} -k '{' or '.join(names)}'"] if files else []
    return [*tests, *others]


def hunt(copy, mutant, kinds=tuple(PROGRAMS)):
    """Yield what each of a mutant's commands of these kinds has found."""
    copy.apply(mutant)
    try:
        for command in mutant.commands:
            if command.split()[0] in kinds:
                begun = time.monotonic()
                code, output = copy.run(command)
                yield Result(mutant, command, code == FAILED, time.monotonic() - begun, output)
    finally:
        copy.apply(mutant, "--reverse")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.mutate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("names", nargs="*", help="only mutants with this in their name")
    parser.add_argument("--only", choices=list(PROGRAMS), action="append", help="only commands of this kind")
    parser.add_argument("--not-sound", action="store_true", help="do not run the commands without mutants first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sems-mutants-") as directory:
        copy = Copy(directory)
        try:
            results = [*campaign(copy, options)]
        except MutantError as error:
            out.print(str(error))
            return 1
    survivors = [result for result in results if not result.caught]
    out.print(table(results))
    for result in survivors:
        out.print(f"survived: {result.mutant.name}, {result.command}\n{result.output[-1500:]}")
    out.print(f"{len({result.mutant.name for result in results})} mutants, {len(survivors)} survived")
    return bool(survivors) or not results


def campaign(copy, options):
    """Yield what was found of each mutant, after all of them were seen to be of use. Raises MutantError."""
    kinds = tuple(options.only or PROGRAMS)
    mutants = all_mutants(options.names)
    for mutant in mutants:
        copy.apply(mutant, "--check")
    if not options.not_sound:
        soundness(copy, [Mutant(m.name, m.path, m.promise, tuple(c for c in m.commands if c.split()[0] in kinds))
                         for m in mutants])  # fmt: skip
    for mutant in mutants:
        for result in hunt(copy, mutant, kinds):
            out.print(f"{'caught  ' if result.caught else 'SURVIVED'} {mutant.name}  {result.seconds:.0f} s")
            yield result


def table(results):
    shown = Table("mutant", "promise", "caught by", "seconds", show_lines=True)
    for result in results:
        caught = result.command if result.caught else f"SURVIVED {result.command}"
        shown.add_row(result.mutant.name, result.mutant.promise, caught, f"{result.seconds:.0f}")
    return shown


if __name__ == "__main__":
    sys.exit(main())
