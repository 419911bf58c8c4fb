"""Answers the command line."""

import asyncio
import os
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import ClassVar, Final

import msgspec
from pydantic import Field

from gateway.bridges.local.history import tell
from gateway.bridges.local.protocol import (
    MAX_LINE,
    SOCKET_NAME,
    Devices,
    History,
    Inventory,
    Refused,
    Reply,
    Request,
    Send,
    Step,
    socket_path,
)
from gateway.core.bridge import BridgeSettings, Context, Updates
from gateway.core.model import Command, CommandEvent, new_command_id

DEFAULT_TTL: Final = 60.0
REQUEST_TIMEOUT: Final = 10.0


class LocalSettings(BridgeSettings):
    """`type: local`. Every gateway has one already, named `cli`."""

    ttl: float = Field(default=DEFAULT_TTL, gt=0, description="seconds until an unsent command expires")


class LocalBridge:
    """Origin and sink."""

    Settings: ClassVar[type[BridgeSettings]] = LocalSettings

    def __init__(self, settings: LocalSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._server: asyncio.Server | None = None
        self._followers: dict[str, asyncio.Queue[CommandEvent]] = {}
        """Command id → the connection that follows it."""
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. What stands in the way was left behind by a crash, for `data_dir` is locked by now."""
        data_dir = self._context.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        with socket_path(data_dir) as path:
            with suppress(FileNotFoundError):
                (data_dir / SOCKET_NAME).unlink()
            mask = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_LINE)
            finally:
                os.umask(mask)

    async def stop(self) -> None:
        """Stop listening, and hang up."""
        for task in self._serving:
            task.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(OSError):
                (self._context.data_dir / SOCKET_NAME).unlink()

    async def deliver(self, updates: Updates) -> None:
        """Pass steps on to who follows them."""
        for event in updates.events:
            follower = self._followers.get(event.command.id)
            if follower is not None:
                follower.put_nowait(event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as one
        self._serving.add(task)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                line = await reader.readline()
            try:
                request = msgspec.json.decode(line, type=Request)
            except msgspec.MsgspecError as error:
                _put(writer, Refused(f"not understood: {error}"))
            else:
                await self._answer(request, writer)
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            self._context.log.debug("command line went away")
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        match request:
            case Devices():
                _put(writer, Inventory(list(self._context.states()), list(self._context.bridges())))
            case Send():
                await self._send(request, writer)
            case History():
                async with aclosing(tell(self._context, request)) as replies:
                    async for reply in replies:
                        _put(writer, reply)
                        await writer.drain()

    async def _send(self, request: Send, writer: asyncio.StreamWriter) -> None:
        now = self._context.clock.now()
        command = Command(
            id=request.id or new_command_id(),
            serial=request.serial,
            setpoint=request.setpoint,
            value=request.value,
            origin=f"{self._context.name}:{request.user}",
            created=now,
            expires=now + timedelta(seconds=request.ttl or self._settings.ttl),
            revert_after=request.revert_after,
            revert_value=request.revert_value,
        )
        steps: asyncio.Queue[CommandEvent] = asyncio.Queue()
        self._followers[command.id] = steps
        try:
            (event,) = await self._context.submit(command)
            _put(writer, Step(event))
            first = event.state
            while not event.state.final:
                await writer.drain()
                event = await steps.get()
                if event.state is not first:
                    _put(writer, Step(event))
        finally:
            del self._followers[command.id]


def _put(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(msgspec.json.encode(reply) + b"\n")
