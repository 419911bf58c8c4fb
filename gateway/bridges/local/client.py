"""The command line's side of the socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gateway.bridges.local.protocol import MAX_LINE, Reply, Request, socket_path


class NotRunningError(Exception):
    """No gateway listens there."""


class LocalClient:
    """Talks to the gateway that runs with this `data_dir`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    async def ask(self, request: Request) -> AsyncIterator[Reply]:
        """Send a request and yield the replies. Raises NotRunningError."""
        try:
            with socket_path(self._data_dir) as path:
                reader, writer = await asyncio.open_unix_connection(path, limit=64 * MAX_LINE)
        except OSError as error:
            raise NotRunningError(
                f"no gateway runs with data_dir {self._data_dir}; start it with `sems-gateway run`"
            ) from error
        try:
            writer.write(msgspec.json.encode(request) + b"\n")
            await writer.drain()
            while line := await reader.readline():
                yield msgspec.json.decode(line, type=Reply)
        finally:
            writer.close()
