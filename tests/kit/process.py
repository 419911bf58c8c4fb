"""The gateway, its simulator and its clients as the processes they are in a plant."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "gateway"]


class Process:
    """A running program whose output is kept, line by line."""

    def __init__(self, command, **options):
        self.lines = []
        self._popen = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, **options
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._popen.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self):
        return "\n".join(self.lines)

    def line(self, pattern, timeout=30):
        """Wait for a line that matches; returns the match."""
        return eventually(
            lambda: next((m for line in list(self.lines) if (m := re.search(pattern, line))), None),
            timeout,
            lambda: f"no line {pattern!r} in:\n{self.text}",
        )

    @property
    def code(self):
        """Its exit code, None while it runs."""
        return self._popen.poll()

    def send_signal(self, number):
        self._popen.send_signal(number)

    def wait(self, timeout=30):
        code = self._popen.wait(timeout)
        self._reader.join(timeout)
        return code

    def end(self, number=signal.SIGTERM, timeout=20):
        """End it; returns its exit code."""
        if self._popen.poll() is None:
            self.send_signal(number)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
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


def finished(*arguments, timeout=60, **options):
    """Run `sems-gateway …` to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )


def eventually(condition, timeout=30, otherwise="it did not come to be"):
    """Poll until `condition()` is true; returns what it returned."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(otherwise() if callable(otherwise) else otherwise)
        time.sleep(0.02)
    return result


def environment(**changes):
    return os.environ | changes
