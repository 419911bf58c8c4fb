"""The command line's side of the socket."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from gateway.bridges.local.protocol import MAX_LINE, Answer, History, Reply, Request, socket_path
from gateway.core.model import custom

FIRST_REPLY_WITHIN: Final = 20.0
"""Seconds. The first reply needs no cloud, unless history is asked for; what follows may wait for one."""


class NotRunningError(Exception):
    """No gateway listens there."""


class HungUpError(Exception):
    """A gateway listens there, and closed the connection before all was said: it stops, or has no seat left."""

    def __init__(self, what: str = "the gateway closed the connection before it had answered") -> None:
        super().__init__(f"{what}; see its log, and try again")


class SilentError(HungUpError):
    """A gateway listens there, and says nothing: it hangs, or was stopped with SIGSTOP."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the gateway has said nothing for {seconds:g} s; what was asked may still be done, or not")


class Conversation:
    """A request, its replies, and what is said in between."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, message: Request | Answer) -> None:
        """Send something. Raises HungUpError."""
        self._writer.write(msgspec.json.encode(message) + b"\n")
        with _hung_up():
            await self._writer.drain()

    async def replies(self, first_within: float | None = None) -> AsyncGenerator[Reply, None]:
        """Yield what comes, until the gateway closes. Raises HungUpError where it does so before all was said.

        `first_within`: seconds, then SilentError.
        """
        try:
            async with asyncio.timeout(first_within):
                line = await self._line()
        except TimeoutError:
            raise SilentError(first_within or 0.0) from None
        if not line:
            raise HungUpError
        while line:
            yield msgspec.json.decode(line, type=Reply, dec_hook=custom)
            line = await self._line()

    async def _line(self) -> bytes:
        with _hung_up():
            line = await self._reader.readline()
        if line and not line.endswith(b"\n"):
            raise HungUpError
        return line


class LocalClient:
    """Talks to the gateway that runs with this `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    @asynccontextmanager
    async def converse(self, request: Request) -> AsyncGenerator[Conversation, None]:
        """Send a request. Raises NotRunningError or HungUpError."""
        try:
            with socket_path(self._data_dir) as path:
                reader, writer = await asyncio.open_unix_connection(path, limit=64 * MAX_LINE)
        except OSError as error:
            raise NotRunningError(
                f"no gateway runs with data_dir {self._data_dir}; start it with `sems-gateway run`"
            ) from error
        try:
            conversation = Conversation(reader, writer)
            await conversation.say(request)
            yield conversation
        finally:
            writer.close()

    async def ask(self, request: Request) -> AsyncGenerator[Reply, None]:
        """Send a request and yield the replies. Raises NotRunningError or HungUpError."""
        first_within = None if isinstance(request, History) else FIRST_REPLY_WITHIN
        async with self.converse(request) as conversation:
            async for reply in conversation.replies(first_within):
                yield reply


@contextmanager
def _hung_up() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # reset, or a broken pipe
        raise HungUpError from error
