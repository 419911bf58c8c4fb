"""Commits what has been read once every history has it, while reading goes on."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from gateway.api.contexts import SourceContext
from gateway.core.errors import GatewayError
from gateway.kafka import Consumer, Received

ROOM: Final = 2_000
"""Messages that may wait to be stored before reading slows down: what is replayed comes faster than it is stored."""
PATIENCE: Final = 5.0
"""Seconds that reading waits for room. Where a history is down it goes on then, for others want to see what is new."""
AGAIN: Final = 5.0
"""Seconds between two questions whether histories take anything again."""


class _Batch(msgspec.Struct, frozen=True):
    first: int
    """Lowest number by which the router knows what it brought; 0 where nothing waits to be stored."""
    last: list[Received]
    """The last message of each partition."""
    count: int


class Ledger:
    """What has been read and is not committed yet, in order."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._waiting: deque[_Batch] = deque()
        self._come = asyncio.Event()
        self._gone = asyncio.Event()
        self._count = 0

    def put(self, first: int, messages: Sequence[Received]) -> None:
        """Note that messages were handed to the router, under numbers from `first` on."""
        count = len(messages)
        last = {(message.topic, message.partition): message for message in messages}
        if last:
            bare = [msgspec.structs.replace(message, value=None) for message in last.values()]
            self._waiting.append(_Batch(first, bare, count))
            self._count += count
            self._come.set()

    async def room(self) -> None:
        """Wait until not too much waits to be stored, though not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._count > ROOM:
                    self._gone.clear()
                    await self._gone.wait()

    async def run(self, consumer: Consumer) -> None:
        """Commit until cancelled. Raises GatewayError where all since the last commit must be read again."""
        while True:
            while self._waiting:
                batch = self._waiting[0]
                if batch.first:
                    await self._stored(batch.first)
                consumer.commit(batch.last)
                self._waiting.popleft()
                self._count -= batch.count
                self._gone.set()
            self._come.clear()
            await self._come.wait()

    async def _stored(self, first: int) -> None:
        try:
            await self._context.stored(first)
        except GatewayError as error:
            self._context.log.warning("not all that was read could be stored; it is read again", why=str(error))
            while True:
                try:
                    await self._context.stored()
                except GatewayError:
                    await asyncio.sleep(AGAIN)
                else:
                    raise GatewayError("what was not stored is read again from Kafka") from None
