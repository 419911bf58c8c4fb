"""Writes the log on a thread of its own: whoever does not read it (Ctrl-S, a full pipe) stops nothing but the log."""

import signal
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Final

MAX_WAITING: Final = 10_000
"""Lines that wait to be written; past that the newest are dropped, and counted."""
LOST: Final = "{} lines of the log were lost: nobody read them in time\n"


class LogWriter:
    """One for the process, once it is started; before that, lines are written where they arise."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._news = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. What the process forks off must not have begun before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            # A signal that the others leave to whoever waits for it would end the process in this one.
            masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
            self._thread.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    def write(self, text: str) -> None:
        """Have it written, soon."""
        if self._thread is None:
            _write(text)
        elif len(self._waiting) >= MAX_WAITING:
            self._lost += 1
        else:
            self._idle.clear()
            self._waiting.append(text)
            self._news.set()

    def flush(self, within: float) -> None:
        """Wait until all is written, for so many seconds at most."""
        if self._thread is not None:
            self._idle.wait(within)

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            while self._waiting:
                _write(self._waiting.popleft())
            lost, self._lost = self._lost, 0
            if lost:
                _write(LOST.format(lost))
            if not self._waiting:
                self._idle.set()


def _write(text: str) -> None:
    # Whoever read it may be gone; that must end nothing but the log.
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


writer: Final = LogWriter()
