"""The gateway, its simulator and its clients as the processes they are in a plant."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from tests.kit.forked import Forked, forkable

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "gateway"]
PATIENCE = 150
"""Seconds after which what should come will not: it is not there for what is slow."""


def _started(command, stdout, stderr, *, fresh=False, **options):
    """Start a program, a module of ours without loading it anew unless it is to be `fresh`."""
    if not fresh and forkable(command, options):
        return Forked(command, stdout, stderr, **options)
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, **options)


class Process:
    """A running program whose output is kept, line by line. `fresh`: it loads itself, as in a shell."""

    def __init__(self, command, **options):
        self.lines = []
        reading, writing = os.pipe()
        self._output = os.fdopen(reading, encoding="utf-8", errors="replace")
        try:
            self._popen = _started(command, writing, writing, **options)
        finally:
            os.close(writing)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self._output as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    @property
    def text(self):
        return "\n".join(self.lines)

    def line(self, pattern, timeout=PATIENCE):
        """Wait for a line that matches; returns the match."""
        return eventually(
            lambda: next((m for line in list(self.lines) if (m := re.search(pattern, line))), None),
            timeout,
            lambda: f"no line {pattern!r} in:\n{self.text}",
        )

    @property
    def pid(self):
        return self._popen.pid

    @property
    def code(self):
        """Its exit code, None while it runs."""
        return self._popen.poll()

    def send_signal(self, number):
        self._popen.send_signal(number)

    def wait(self, timeout=PATIENCE):
        code = self._popen.wait(timeout)
        self._reader.join(timeout)
        return code

    def end(self, number=signal.SIGTERM, timeout=PATIENCE):
        """End it; returns its exit code."""
        if self._popen.poll() is None:
            self.send_signal(number)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self.wait()
            raise


@contextmanager
def running(*command, **options):
    process = Process(list(command), **options)
    try:
        yield process
    finally:
        process.end()


def sems_gateway(*arguments, **options):
    """A `sems-gateway …` in the background, as a context manager."""
    return running(*COMMAND, *map(str, arguments), **options)


def finished(*arguments, timeout=180, **options):
    """Run `sems-gateway …` to its end."""
    command = [*COMMAND, *map(str, arguments)]
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = _started(command, stdout.fileno(), stderr.fileno(), **options)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = [file.seek(0) or file.read().decode() for file in (stdout, stderr)]
    return subprocess.CompletedProcess(command, code, *said)


def eventually(condition, timeout=PATIENCE, otherwise="it did not come to be"):
    """Poll until `condition()` is true; returns what it returned."""
    deadline = time.monotonic() + timeout
    begun = time.monotonic()
    while not (result := condition()):
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(otherwise() if callable(otherwise) else otherwise)
        # Whoever is waited for needs the processor more than the one who looks.
        time.sleep(max(0.02, 4 * (now - begun)))
        begun = time.monotonic()
    return result


def environment(**changes):
    return os.environ | changes
