"""Who may go when many want to: commands wait here unsent, within the call budget, and reverts overtake them."""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

import msgspec

from gateway.core.errors import NotSentError
from gateway.sems.budget import Budget, Priority

UNDER_WAY: Final = 32
"""Calls with commands whose results are not known yet, at a time."""
CALLS_EACH: Final = 2
"""Calls that one with commands costs, usually: its own, and a question for the result."""
KEPT_EACH: Final = 6
"""Calls that there have to be for each that is let go: a device may be slow, and is asked about again."""
AT_ONCE: Final = 8
"""Calls for control that wait for an answer at a time."""
SOON: Final = 0.05
"""Seconds after which calls that come free are looked for, lest clocks that differ a little have it look for ever."""
SMALL: Final = 1e-9
"""What sums of parts of calls may be off by."""
FOR_REVERTS: Final = 2
"""As many more that only reverts may make."""


class _Turn(msgspec.Struct, eq=False):
    weight: float
    """What part of a call the command is."""
    granted: asyncio.Future[None]


class Turns:
    """Lets so many commands go that their calls and results fit into the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._turns: dict[str, _Turn] = {}
        """By the id of the command."""
        self._waiting: deque[_Turn] = deque()
        """Those not granted yet, in their order; and some of whom nobody waits any more."""
        self._load = 0.0
        """Calls' worth of commands that were let go, and have not ended."""
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, id_: str, batch: int) -> asyncio.Future[None]:
        """Return what is done once the command may go. Asked again, it is the same."""
        turn = self._turns.get(id_)
        if turn is None:
            turn = self._turns[id_] = _Turn(1 / batch, asyncio.get_running_loop().create_future())
            self._waiting.append(turn)
            if self._timer is None:
                self._grant()
        return turn.granted

    def leave(self, id_: str) -> None:
        """Wait no more, or make room for others."""
        turn = self._turns.pop(id_, None)
        if turn is None:
            return
        if turn.granted.done():
            self._carry(max(0.0, self._load - turn.weight))
            self._soon(0)
        else:
            turn.granted.cancel()

    def stop(self) -> None:
        """Grant no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _grant(self) -> None:
        self._timer = None
        room = self._budget.room(Priority.CONTROL)
        while self._waiting:
            turn = self._waiting[0]
            if turn.granted.done():
                self._waiting.popleft()
                continue
            load = self._load + turn.weight
            if load > UNDER_WAY + SMALL:
                break
            needed = min(KEPT_EACH * math.ceil(load - SMALL), self._budget.most(Priority.CONTROL))
            if room < needed:
                self._soon(self._budget.until(needed, Priority.CONTROL) + SOON)
                break
            self._waiting.popleft()
            self._carry(load)
            turn.granted.set_result(None)

    def _carry(self, load: float) -> None:
        """Have the budget keep what those that were let go need yet."""
        before = math.ceil(self._load - SMALL)
        self._load = load
        self._budget.wanted += KEPT_EACH * (math.ceil(load - SMALL) - before)

    def _soon(self, seconds: float) -> None:
        """Look again, once for all that changes until then."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._grant)


class Slots:
    """Calls that may be under way at a time; the most urgent of those that wait is next."""

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @asynccontextmanager
    async def taken(self, priority: Priority, timeout: float | None) -> AsyncIterator[None]:
        """Hold a slot. Raises NotSentError where none is free within `timeout` seconds."""
        if self._waiting or self._taken >= _most(priority):
            await self._wait(priority, timeout)
        else:
            self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._next()

    async def _wait(self, priority: Priority, timeout: float | None) -> None:
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._numbers), slot))
        self._next()
        try:
            async with asyncio.timeout(timeout):
                await slot
        except TimeoutError:
            raise NotSentError("too many calls are under way; its turn did not come in time") from None
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self._taken -= 1
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting:
            rank, _, slot = self._waiting[0]
            if slot.done():
                heapq.heappop(self._waiting)
            elif self._taken < _most(Priority(-rank)):
                heapq.heappop(self._waiting)
                self._taken += 1
                slot.set_result(None)
            else:
                return


def _most(priority: Priority) -> int:
    return AT_ONCE + FOR_REVERTS if priority is Priority.REVERT else AT_ONCE
