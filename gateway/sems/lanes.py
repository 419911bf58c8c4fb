"""Calls side by side, where a slow answer costs whom it is about, and nobody else.

A call that takes long goes on, but another may begin in its place. Whoever was slow has lanes of its own together with
all who were, until an answer is quick again. So a cloud that is slow as a whole is asked as much as a quick one.
"""

import asyncio
from collections.abc import Coroutine, Hashable
from typing import Any, Final

QUICK: Final = 5.0
"""Seconds within which an answer is quick."""
SLOW_LANES: Final = 4
MAX_SLOW: Final = 12
"""Calls that may go on for longer at a time: each of them may hold an answer of several megabytes."""


class Lanes:
    """Runs the calls of several workers."""

    def __init__(self, quick: float = QUICK) -> None:
        self._quick = quick
        self._slow: set[Hashable] = set()
        """Whose last answer was slow."""
        self._under_way: dict[asyncio.Task[None], Hashable] = {}
        self._left: set[asyncio.Task[None]] = set()
        """Calls that no worker waits for any more."""
        self._failure: BaseException | None = None

    def is_open(self, who: Hashable) -> bool:
        """Return whether a call about these may begin: of who was slow, only alone, and where a lane is free."""
        if who not in self._slow:
            return True
        slow = [other for other in self._under_way.values() if other in self._slow]
        return who not in slow and len(slow) < SLOW_LANES

    async def run(self, who: Hashable, call: Coroutine[Any, Any, None]) -> None:
        """Make a call; return when it is done, or others may go on beside it. Raises what a call raised."""
        task = asyncio.create_task(call, name="call")
        began = asyncio.get_running_loop().time()
        self._under_way[task] = who
        task.add_done_callback(lambda _: self._done(who, task, began))
        try:
            if who not in self._slow:
                await asyncio.wait([task], timeout=self._quick)
            if not task.done():
                self._slow.add(who)
                self._left.add(task)
                while len(self._left) > MAX_SLOW and not task.done():
                    await asyncio.wait(self._left, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """End all calls."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, who: Hashable, task: asyncio.Task[None], began: float) -> None:
        if asyncio.get_running_loop().time() - began < self._quick:
            self._slow.discard(who)
        self._under_way.pop(task, None)
        self._left.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
