"""`make clients`: builds all client programs, runs them against one gateway, and prints what came of it."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog
import uvloop

from tests.clients import programs, table
from tests.clients.judge import CHECKS, everything, judged
from tests.clients.table import Checks


def _built():
    """Build each language; return those that could not be, with the reason."""
    failed = {}
    for language in programs.BUILDS:
        sys.stderr.write(f"building {language} …\n")
        try:
            programs.build(language)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            failed[language] = str(error)
    return failed


def _unbuilt(program, reason):
    checks = Checks(program.name, program.version, program.language)
    checks.say("is built", reason)
    return checks.rows


async def _run(wanted, failed):
    rows = []
    usable = [program for program in programs.ALL if program.language not in failed]
    with tempfile.TemporaryDirectory() as directory:
        async with everything(Path(directory), usable) as there:
            for check, program in wanted:
                sys.stderr.write(f"{program.name} …\n")
                reason = failed.get(program.language)
                rows += _unbuilt(program, reason) if reason else await judged(there, check, program)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="clients whose name has one of these")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/clients.md")
    options = parser.parse_args()
    names = [name.lower() for name in options.only or [""]]
    wanted = [(c, program) for c, program in CHECKS if any(name in program.name.lower() for name in names)]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    rows = uvloop.run(_run(wanted, _built()))
    sys.stdout.write(table.plain(rows) + "\n")
    if options.write_docs:
        table.write(rows)
    sys.exit(not all(row.good for row in rows))


if __name__ == "__main__":
    main()
