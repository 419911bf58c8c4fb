"""Time for tests: event loops that skip ahead instead of waiting, and a wall clock that follows them.

`virtual` runs a test on both: asyncio's, where threads are played and each run is like the one before, and uvloop,
which production runs on, with real threads.
"""

import asyncio
import functools
import heapq
import itertools
import random
import selectors
import weakref
from collections import deque
from datetime import UTC, datetime, timedelta

import pytest
import uvloop

from gateway.core.clock import Clock

NOON = datetime(2026, 6, 21, 12, 0, tzinfo=UTC)
START = 1000
"""What the loops' clocks show at first, in seconds."""
NOTHING_WILL = "the test waits for something that nothing will bring"


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's loop. When nothing is left to do but wait for a timer, its time has come.

    There are no threads: what is given to an executor runs between two turns of the loop, in the order of a thread
    pool with one worker, and how many turns it waits, and how many its result is on the way, is drawn from `seed`.
    So a test that went wrong goes wrong again.
    """

    def __init__(self, seed=0):
        super().__init__(_Selector(self))
        self._virtual = float(START)
        self._draw = random.Random(seed)
        self._given = weakref.WeakKeyDictionary()
        self._born = weakref.WeakKeyDictionary()
        self._number = itertools.count()

    def time(self):
        return self._virtual

    def run_in_executor(self, executor, func, *args):
        if executor is not None:
            executor.submit(int)  # raises where it takes nothing more
        future = self.create_future()
        given = self._given.setdefault(executor or self, deque())
        given.append((functools.partial(func, *args), future))
        self._after(self._draw.randint(1, 4), self._work, given)
        return future

    def _after(self, turns, callback, *args):
        if turns:
            self.call_soon(self._after, turns - 1, callback, *args)
        else:
            callback(*args)

    def _work(self, given):
        work, future = given.popleft()
        if future.cancelled():
            return
        found = asyncio.Future(loop=self)
        try:
            found.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever awaits it is told
            found.set_exception(error)
        self._after(self._draw.randint(0, 3), self._tell, found, future)

    @staticmethod
    def _tell(found, future):
        error = found.exception()
        if future.cancelled():
            return
        if error is None:
            future.set_result(found.result())
        else:
            future.set_exception(error)

    def create_task(self, coro, **kwargs):
        task = super().create_task(coro, **kwargs)
        self._born[task] = next(self._number)
        return task

    def tasks(self):
        """Return what has not ended, oldest first; `asyncio.all_tasks` has it in an order of chance."""
        return sorted(asyncio.all_tasks(self), key=self._born.__getitem__)


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        events = super().select(0)
        if not events and timeout:
            self._loop._virtual += timeout
        elif not events and timeout is None:
            raise RuntimeError(NOTHING_WILL)
        return events


class VirtualUvloop(uvloop.Loop):
    """uvloop with its own callbacks, handles, sockets and threads, but timers that are skipped ahead to.

    Timers are as uvloop's are: on a grid of milliseconds, to which delays are rounded, so that they may be early by
    half of one; one that rounds to none is a call in the next turn, whose handle has no `when`; those of the same
    millisecond run in one turn, one right after the other.
    """

    QUIET = 3
    """Turns without anything to do after which nothing but a timer is waited for."""

    def __init__(self):
        super().__init__()
        self._now = START * 1000
        """In milliseconds."""
        self._timers = []
        self._number = itertools.count()
        self._threads = 0
        self._quiet = 0
        self._stuck = False

    def time(self):
        return self._now / 1000

    def call_soon(self, callback, *args, context=None):
        self._quiet = 0
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(self, callback, *args, context=None):
        self._quiet = 0
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_later(self, delay, callback, *args, context=None):
        delay = round(max(0.0, min(delay, 1e9)) * 1000)
        if delay == 0:
            return self.call_soon(callback, *args, context=context)
        timer = asyncio.TimerHandle((self._now + delay) / 1000, callback, args, self, context)
        heapq.heappush(self._timers, (self._now + delay, next(self._number), timer))
        return timer

    def _timer_handle_cancelled(self, handle):
        """Satisfy asyncio's handles. A cancelled one is passed over when its time has come."""

    def run_forever(self):
        self._stuck = False
        self._watch()
        try:
            super().run_forever()
        finally:
            self._watching.cancel()
        if self._stuck:
            raise RuntimeError(NOTHING_WILL)

    def _watch(self):
        """Look, each turn, whether there is anything to do but to wait for a timer."""
        self._quiet = 0 if self._threads else self._quiet + 1
        if self._quiet > self.QUIET:
            self._skip()
        self._watching = super().call_later(0.001 * bool(self._threads), self._watch)

    def _skip(self):
        self._quiet = 0
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            self._stuck = True
            self.stop()
            return
        self._now = self._timers[0][0]
        while self._timers and self._timers[0][0] <= self._now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                timer._run()

    def run_in_executor(self, executor, func, *args):
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _):
        self._threads -= 1

    async def shutdown_default_executor(self, *args):
        self._threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._threads -= 1


class FakeClock(Clock):
    """Wall clock over the running loop's time.

    `jump` moves the wall clock alone, as when it is set or the machine is paused; `sleep` the boot clock too, as when
    it sleeps; `reboot` begins a new start of the machine.
    """

    def __init__(self, start=NOON):
        self._start = start
        self._offset = asyncio.get_event_loop().time()
        self._slept = 0.0
        self._boots = 1

    def boot(self):
        return self.monotonic() + self._slept

    def boot_id(self):
        return f"boot-{self._boots}"

    def sleep(self, seconds):
        self._slept += seconds
        self.jump(seconds)

    def reboot(self):
        self._boots += 1
        self._slept -= 500.0

    def now(self):
        return self._start + timedelta(seconds=self.monotonic() - self._offset)

    def monotonic(self):
        return asyncio.get_running_loop().time()

    def jump(self, seconds):
        self._start += timedelta(seconds=seconds)


virtual = pytest.mark.virtual
"""Run an async test where time is free, on each of `LOOPS`. The wall clock of such a test is a FakeClock."""

LOOPS = {"virtual": VirtualLoop, "uvloop": VirtualUvloop}


def virtually(work):
    """Have an async function run where time is free, and be called like any other: for the examples of hypothesis."""

    @functools.wraps(work)
    def run(*args, **kwargs):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(work(*args, **kwargs))

    return run
