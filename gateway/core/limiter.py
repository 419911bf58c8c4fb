"""How many may do something at a time: slots, and who waits for one.

Each who waits has one future, and it is settled once: by a slot, or by the end of their time. So no slot can be given
to somebody who is gone, whatever comes in the same turn of the loop; and whoever is cancelled while a slot is on its
way hands it on.
"""

import asyncio
import math
from collections import OrderedDict
from typing import Final

import msgspec

from gateway.core.timer import Timer

GRANTED: Final = True
TOO_LATE: Final = False


class NoSlotError(TimeoutError):
    """No slot was free in time. What it was for was not begun."""


class _Waiter(msgspec.Struct, eq=False):
    deadline: float
    """On the loop's clock."""
    settled: asyncio.Future[bool]
    """GRANTED or TOO_LATE."""


class Limiter:
    """So many slots. The highest rank goes first, and of one rank whoever came first."""

    def __init__(self, slots: int, *, reserve: int = 0, urgent: int = 1) -> None:
        """Of `slots` anybody may have one; of `reserve` more, those whose rank is `urgent` or higher."""
        self.taken = 0
        """Slots in use, or on their way to one who waits."""
        self._slots = slots
        self._reserve = reserve
        self._urgent = urgent
        self._waiting: dict[int, OrderedDict[_Waiter, None]] = {}
        """By rank. In order, and nobody who is gone."""

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return sum(map(len, self._waiting.values()))

    def slot(self, rank: int = 0, timeout: float | None = None) -> "_Slot":
        """Return what holds a slot while one is in it: `async with limiter.slot():`.

        Raises NoSlotError where none is free within `timeout` seconds.
        """
        return _Slot(self, rank, timeout)

    async def take(self, rank: int, timeout: float | None) -> None:
        """Wait for a slot, and have it. See `slot`."""
        if self._room(rank):  # then nobody waits who goes before
            self.taken += 1
        else:
            await self._wait(rank, timeout)

    def release(self) -> None:
        """Give a slot back: to whoever is next."""
        self.taken -= 1
        for rank in sorted(self._waiting, reverse=True):
            while self._room(rank) and (waiting := self._waiting.get(rank)):
                waiter = next(iter(waiting))
                in_time = asyncio.get_running_loop().time() < waiter.deadline
                self._settle(rank, waiter, GRANTED if in_time else TOO_LATE)

    async def _wait(self, rank: int, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = math.inf if timeout is None else loop.time() + timeout
        waiter = _Waiter(deadline, loop.create_future())
        timer = Timer(lambda: self._settle(rank, waiter, TOO_LATE))
        self._waiting.setdefault(rank, OrderedDict())[waiter] = None
        if timeout is not None:
            timer.set(timeout)
        try:
            if not await waiter.settled:
                raise NoSlotError
        except BaseException:
            self._forget(rank, waiter)
            if waiter.settled.done() and not waiter.settled.cancelled() and waiter.settled.result() is GRANTED:
                self.release()
            raise
        finally:
            timer.cancel()

    def _settle(self, rank: int, waiter: _Waiter, how: bool) -> None:
        self._forget(rank, waiter)
        if not waiter.settled.done():
            self.taken += how is GRANTED
            waiter.settled.set_result(how)

    def _forget(self, rank: int, waiter: _Waiter) -> None:
        waiting = self._waiting.get(rank)
        if waiting is not None and waiting.pop(waiter, waiter) is None and not waiting:
            del self._waiting[rank]

    def _room(self, rank: int) -> bool:
        return self.taken < self._slots + (self._reserve if rank >= self._urgent else 0)


class _Slot:
    """One use of a limiter. A class, for an asynchronous generator would not end when it is closed."""

    def __init__(self, limiter: Limiter, rank: int, timeout: float | None) -> None:
        self._limiter = limiter
        self._rank = rank
        self._timeout = timeout

    async def __aenter__(self) -> None:
        await self._limiter.take(self._rank, self._timeout)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.release()
