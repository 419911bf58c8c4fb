"""`python -m tests.dialects --seeds 200`: the table of docs/reference/dialects.md."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.dialects.evaluate import APIS, WORLDS, evaluate, failures, markdown, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "dialects.md"
BEGIN, END = "<!-- dialects: begin -->\n", "<!-- dialects: end -->"
UNSEEN = 1000
"""Seeds below were looked at while the inference was made; the table is of those that nobody had seen."""
GROUP = 20
"""Dialects over one world."""
SHARE = 95.0
"""Percent of the identifiable lines that have to be restored."""


def main():
    """Print the table. Exit code 1 where too little was restored, or anything wrong was activated."""
    parser = argparse.ArgumentParser(prog="python -m tests.dialects", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many dialects of each API")
    parser.add_argument("--first", type=int, default=UNSEEN, help="seed to begin with")
    parser.add_argument("--api", action="append", choices=APIS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--failures", type=int, default=0, help="print that many lines that were not restored")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/reference/dialects.md")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    groups = [
        [(api, seed) for api in options.api or APIS for seed in seeds[n : n + GROUP]]
        for n in range(0, len(seeds), GROUP)
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        results = [
            one for group in pool.map(evaluate, (1 + n % WORLDS for n in range(len(groups))), groups) for one in group
        ]
    text = markdown(results, options.seeds)
    sys.stdout.write(f"{text}\n")
    for line, _ in zip(failures(results), range(options.failures), strict=False):
        sys.stdout.write(f"{line}\n")
    if options.write_docs:
        document = DOCUMENT.read_text()
        before, rest = document.split(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{rest.split(END, 1)[1]}")
    good = all(
        row["all"]["wrong"] == 0 and row["all"]["share"] >= SHARE
        for row in (table([one for one in results if one.api == api]) for api in {one.api for one in results})
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
