"""Runs a target on many inputs and keeps account of what came of it."""

import asyncio
import gc
import hashlib
import random
import sys
import time
import traceback
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import uvloop

from tests.fuzz import watch
from tests.kit.clock import VirtualLoop
from tests.kit.process import ROOT

FOUND = Path(__file__).with_name("found")
GROWTH = 50 * 1024 * 1024
"""Bytes that a process may grow by."""
TRACED_EVERY = 25
"""One input of so many is traced for paths that no other took; it is slow."""
SAME = 5
"""Finds of one kind that are kept."""
HERE = str(ROOT / "gateway")


class Find(msgspec.Struct):
    kind: str
    """`crash` or `stall`."""
    data: bytes
    text: str


class Report(msgspec.Struct):
    name: str
    inputs: int = 0
    refused: int = 0
    """Inputs that ended in one of the target's own errors."""
    paths: int = 0
    """Pairs of lines of `gateway` that followed each other in traced inputs; from atheris: branches that were taken."""
    late_paths: int = 0
    """Those that were first seen in the second half of the time."""
    slowest: float = 0.0
    """Seconds of CPU."""
    growth: int = 0
    """Bytes."""
    seconds: float = 0.0
    finds: list[Find] = []
    kinds: dict[str, int] = {}
    """Where a find came from → how often."""


def memory():
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


def loop_factory(target):
    """Return what makes the loop that a target runs on."""
    return VirtualLoop if target.virtual else uvloop.new_event_loop


class Paths:
    """Pairs of lines that followed each other."""

    def __init__(self):
        self.seen = set()

    def __enter__(self):
        self._before, self._other = len(self.seen), sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_):
        sys.settrace(self._other)

    @property
    def new(self):
        return len(self.seen) - self._before

    def _call(self, frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(HERE):
            return None
        last = -code.co_firstlineno
        seen = self.seen

        def line(frame, event, _):
            nonlocal last
            if event == "line":
                seen.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line


class Campaign:
    def __init__(self, target, seed=0, traced_every=TRACED_EVERY):
        """`traced_every` 0 traces none: coverage.py, in the tests, traces too."""
        self._traced_every = traced_every
        self.target = target
        self.dice = random.Random(f"{target.name} {seed}")
        self.report = Report(target.name)
        self._paths = Paths()

    def run(self, directory, *, seconds=None, inputs=None, given=()):
        """Feed inputs for so many seconds, or so many of them, or those that are given. Returns the report."""
        watch.begin()
        with asyncio.Runner(loop_factory=loop_factory(self.target)) as runner:
            runner.run(self._all(directory, seconds, inputs, given))
        return self.report

    async def begin(self, stack, directory):
        """Open the target, until `stack` is closed."""
        watch.on_loop()
        self._feed = await stack.enter_async_context(self.target.open(directory))
        self._grown_from = None
        self._began = time.monotonic()

    async def one(self, data, *, traced=False):
        """Feed an input."""
        took = await self._timed(data, traced=traced)
        self.report.inputs += 1
        if took > self.target.stall and not traced:
            # Once more: what was slow but once, was the collector, or a table that was built.
            took = await self._timed(data, traced=False)
            if took > self.target.stall:
                self._find("stall", data, f"{took * 1000:.0f} ms")
        if not traced:
            self.report.slowest = max(self.report.slowest, took)
        if self.report.inputs == self.target.settle:
            gc.collect()
            self._grown_from = memory()

    def end(self):
        """Return the report."""
        gc.collect()
        self.report.growth = max(0, memory() - self._grown_from) if self._grown_from else 0
        self.report.seconds = time.monotonic() - self._began
        return self.report

    async def _all(self, directory, seconds, inputs, given):
        async with AsyncExitStack() as stack:
            await self.begin(stack, directory)
            began = self._began
            for data in given or self._inputs(began, seconds, inputs):
                traced = not given and bool(self._traced_every) and self.report.inputs % self._traced_every == 0
                await self.one(data, traced=traced)
                if traced and (seconds is None or time.monotonic() - began > seconds / 2):
                    self.report.late_paths += self._paths.new
            self.end()
            self.report.paths = len(self._paths.seen)

    def _inputs(self, began, seconds, inputs):
        while self.report.inputs < inputs if inputs is not None else time.monotonic() - began < seconds:
            yield self.target.make(self.dice)

    async def _timed(self, data, *, traced):
        began = time.thread_time()
        try:
            if traced:
                with self._paths:
                    await self._feed(data)
            else:
                await self._feed(data)
        except self.target.own:
            self.report.refused += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is a find
            self._find("crash", data, traceback.format_exc()[-3000:])
        took = time.thread_time() - began
        if text := watch.caught():
            self._find("crash", data, text)
        return took

    def _find(self, kind, data, text):
        lines = [line.strip() for line in text.splitlines()]
        place = next((line for line in reversed(lines) if line.startswith("File") and "/gateway/" in line), "")
        key = f"{kind}: {place.rpartition('/gateway/')[2]}: {lines[-1][:100] if lines else ''}"
        self.report.kinds[key] = self.report.kinds.get(key, 0) + 1
        if self.report.kinds[key] <= SAME:
            self.report.finds.append(Find(kind, data, text))


def keep(report):
    """Keep the inputs of finds, for tests to come; return the files."""
    files = []
    for find in report.finds:
        folder = FOUND / report.name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / hashlib.sha256(find.data).hexdigest()[:16]
        file.write_bytes(find.data)
        files.append(file)
    return files
