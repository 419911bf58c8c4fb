"""Time for tests: an event loop that skips ahead instead of waiting, and a wall clock that follows it."""

import asyncio
import functools
import selectors
from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 6, 21, 12, 0, tzinfo=UTC)


class VirtualLoop(asyncio.SelectorEventLoop):
    """When nothing is left to do but wait for a timer, its time has come. Threads are waited for."""

    def __init__(self):
        super().__init__(_Selector(self))
        self._virtual = 1000.0
        self._threads = 0

    def time(self):
        return self._virtual

    def run_in_executor(self, executor, func, *args):
        self._threads += 1
        future = super().run_in_executor(executor, func, *args)
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


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        if self._loop._threads and timeout != 0:  # 0: something is to be run at once
            return super().select(0.05)
        events = super().select(0)
        if not events and timeout:
            self._loop._virtual += timeout
        elif not events and timeout is None:
            raise RuntimeError("the test waits for something that nothing will bring")
        return events


class FakeClock:
    """Wall clock over the running loop's time; `jump` moves the wall clock alone."""

    def __init__(self, start=NOON):
        self._start = start
        self._offset = asyncio.get_event_loop().time()

    def now(self):
        return self._start + timedelta(seconds=self.monotonic() - self._offset)

    def monotonic(self):
        return asyncio.get_running_loop().time()

    def jump(self, seconds):
        self._start += timedelta(seconds=seconds)


def virtual(test):
    """Run an async test on a loop whose time is free. The wall clock of such a test is a FakeClock."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(asyncio.wait_for(test(*args, **kwargs), 1e7))

    return run
