"""The same targets by atheris: what reached code that no input had reached is changed further (libFuzzer).

Its bytes are the dice that the table's inputs are made with, so each input is one that the seeded engine could have
made, and what is found is kept in the same form. It runs in a process of its own, for it never returns, and it comes
before `gateway` is imported, whose every branch it marks.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import atheris
import msgspec

with atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz import watch
    from tests.fuzz.__main__ import HALF
    from tests.fuzz.campaign import Campaign, loop_factory
    from tests.fuzz.steered import Steered
    from tests.fuzz.targets import TARGETS

SEEDS = 64
"""Random bytes that it begins with: without them its first inputs would all be cut to nothing."""
LENGTH = 512
"""Bytes that steer one input."""


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided")
    parser.add_argument("--alone", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="to work in; whoever starts this removes it")
    said = parser.parse_args()
    fuzz(TARGETS[said.alone], said.seed, said.seconds, said.directory)


def fuzz(target, seed, seconds, directory):
    """Does not return: prints the report and ends the process."""
    corpus, data_dir = directory / "corpus", directory / "data"
    corpus.mkdir()
    data_dir.mkdir()
    dice = random.Random(seed)
    for number in range(SEEDS):
        (corpus / str(number)).write_bytes(dice.randbytes(LENGTH))
    campaign = Campaign(target, traced_every=0)
    watch.begin()
    runner = asyncio.Runner(loop_factory=loop_factory(target))
    stack = AsyncExitStack()  # held to the end: what nobody holds is closed
    runner.run(campaign.begin(stack, data_dir))
    began, is_half = time.monotonic(), False

    def one(steering):
        nonlocal is_half
        runner.run(campaign.one(target.make(Steered(steering))))
        took = time.monotonic() - began
        if not is_half and took > seconds / 2:
            is_half = True
            os.write(2, b"\n" + HALF + b"\n")
        if took > seconds:
            os.write(1, msgspec.json.encode(campaign.end()))
            os._exit(0)

    flags = [f"-seed={1 + seed % 2**31}", f"-max_len={LENGTH}", "-len_control=0", "-rss_limit_mb=0", "-timeout=600"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
