"""Watches whether the loop turns: while one thing holds it up, nothing else is read, answered or sent.

A timer of the loop beats; how late a beat comes is how long the loop was held up, but for `BEAT`. A thread looks at the
beats, and where one is missing for long, at what the loop's thread is doing just then.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

import structlog

from gateway.core.metrics import Metrics, gauge

BEAT: Final = 0.05
"""Seconds between two beats, and two looks of the thread: together some 0.2 % of a core."""
LONG: Final = 0.25
"""Seconds after which what holds up the loop is logged."""
AT_LAST: Final = 10.0
"""Seconds after which it is logged though it has not ended: it may never."""
LOG_EVERY: Final = 60.0
"""Seconds for which nothing more is logged after a line; what came meanwhile is counted in the next one."""
WINDOW: Final = 60.0
"""Seconds over which the metric has the longest, and those before them: no scrape misses one."""
MAX_FRAMES: Final = 25

log = structlog.get_logger("gateway")


class LoopMonitor:
    """Watches the loop that it is started on."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._watcher = threading.Thread(target=self._watch, name="loop monitor", daemon=True)
        self._stopped = threading.Event()
        self._watched = 0
        """The loop's thread."""
        self._cpu_clock = 0
        self._beats = 0
        self._due = self._cpu = 0.0
        """When the next beat is to come, monotonic; CPU time of the thread at the one before."""
        self._held_up = self._busy = 0.0
        """Seconds by which the last beat was late, and CPU time of the thread meanwhile."""
        self._longest = self._longest_before = 0.0
        self._window_ends = 0.0
        self._next_line = 0.0
        self._unlogged = 0
        self.stack: list[str] = []
        """What holds up the loop now, for so long that it is logged: innermost first."""

    @property
    def longest(self) -> float:
        """The longest that the loop was held up in this window and the one before; seconds."""
        return max(self._longest, self._longest_before)

    def start(self) -> None:
        """Begin; call it on the loop."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._cpu_clock = time.pthread_getcpuclockid(self._watched)
        self._window_ends = time.monotonic() + WINDOW
        self._expect()
        self._watcher.start()
        METRICS.watch("", self)

    def stop(self) -> None:
        """End."""
        METRICS.forget("")
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()
        self._watcher.join()

    def _expect(self) -> None:
        self._cpu = time.clock_gettime(self._cpu_clock)
        self._due = time.monotonic() + BEAT
        self._timer = self._loop.call_later(BEAT, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        self._held_up = max(0.0, now - self._due)
        self._busy = time.clock_gettime(self._cpu_clock) - self._cpu
        if now >= self._window_ends:
            self._longest_before, self._longest = self._longest, 0.0
            self._window_ends = now + WINDOW
        self._longest = max(self._longest, self._held_up)
        self._beats += 1
        self._expect()

    def _watch(self) -> None:
        """Look, on a thread, until stopped."""
        while not self._stopped.wait(BEAT):
            beats = self._beats
            if time.monotonic() - self._due > LONG:
                self._note(beats)

    def _note(self, beats: int) -> None:
        """Log what holds up the loop, once that is over or has gone on for too long."""
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the documented way to another thread's stack
        frames = islice(traceback.walk_stack(frame), MAX_FRAMES) if frame is not None else ()
        self.stack = [f"{f.f_code.co_filename}:{line} {f.f_code.co_qualname}" for f, line in frames]
        began, has_logged = self._due, False
        while self._beats == beats and not self._stopped.wait(BEAT):
            if not has_logged and time.monotonic() - began > AT_LAST:
                has_logged = True
                self._log(time.monotonic() - began, time.clock_gettime(self._cpu_clock) - self._cpu)
        if not has_logged:
            self._log(self._held_up, self._busy)
        self.stack = []

    def _log(self, seconds: float, cpu: float) -> None:
        now = time.monotonic()
        if now < self._next_line:
            self._unlogged += 1
            return
        self._next_line = now + LOG_EVERY
        unlogged, self._unlogged = self._unlogged, 0
        log.warning(
            "the loop was held up: nothing was read, answered or sent meanwhile",
            seconds=round(seconds, 3),
            cpu=round(cpu, 3),
            at=self.stack,
            **({"others_before": unlogged} if unlogged else {}),
        )


@contextmanager
def watched_loop() -> Iterator[LoopMonitor]:
    """Watch the running loop for a while."""
    monitor = LoopMonitor()
    monitor.start()
    try:
        yield monitor
    finally:
        monitor.stop()


METRICS: Final = Metrics[LoopMonitor](
    gauge(
        "sems_gateway_loop_stall_seconds",
        "The longest that the gateway's loop was held up within the last one to two minutes",
        lambda monitor: monitor.longest,
    ),
    whole=True,
)
