"""Far sides that do not do what they should, on a loopback port; and waiting for what is meant."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, TypeVar

T = TypeVar("T")
PATIENCE: Final = 120.0
"""Seconds after which what should come will not. It is not there for what is slow."""
NONSENSE: Final = b"\x00\xff\x15\x03HTTP/9 999 {[\r\n" * 64


class Manner(StrEnum):
    """How a far side is of no use."""

    AWAY = "away"
    """Nobody listens."""
    SILENT = "silent"
    """Takes connections, and says nothing."""
    RUDE = "rude"
    """Closes each connection at once."""
    BABBLING = "babbling"
    """Says what is no protocol at all."""


class FarSide:
    """One of them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.met = 0
        """How many connections came."""


@asynccontextmanager
async def far_side(manner: Manner) -> AsyncIterator[FarSide]:
    """Have one there. Away, its port stays bound, so that nobody else gets it."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        it.met += 1
        writers.append(writer)
        if manner is Manner.BABBLING:
            writer.write(NONSENSE)
        if manner is Manner.RUDE:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, start_serving=manner is not Manner.AWAY)
    it = FarSide(server.sockets[0].getsockname()[1])
    try:
        yield it
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def eventually(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Wait until a condition holds; returns what it returned. Raises TimeoutError that says what did not come."""
    try:
        async with asyncio.timeout(patience):
            while True:
                found = condition()
                if found:
                    return found
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise TimeoutError(f"within {patience:g} s this did not come: {what}") from None
