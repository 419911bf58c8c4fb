"""Answers the command line."""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import ClassVar, Final

import msgspec
from pydantic import Field

from gateway.bridges.local.fleet import FleetCommand, serve_fleet
from gateway.bridges.local.history import tell
from gateway.bridges.local.protocol import (
    MAX_LINE,
    SOCKET_NAME,
    ControlState,
    Devices,
    Explain,
    Explained,
    Failed,
    History,
    Inventory,
    Refused,
    Reply,
    Request,
    ResumeControl,
    Send,
    SendFleet,
    Step,
    StopControl,
    socket_path,
)
from gateway.core.bridge import BridgeSettings, Context, Updates
from gateway.core.model import Command, CommandEvent, new_command_id
from gateway.core.policy.halt import HaltError
from gateway.core.policy.origins import origin

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
        self._followers: dict[str, Callable[[CommandEvent], None]] = {}
        """Command id → what tells the connection that follows it."""
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
                follower(event)

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
                await self._answer(request, reader, writer)
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            self._context.log.debug("command line went away")
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match request:
            case SendFleet():
                await self._send_fleet(request, reader, writer)
            case Devices():
                _put(writer, Inventory(list(self._context.states()), list(self._context.bridges())))
            case Send():
                await self._send(request, writer)
            case Explain():
                _put(writer, Explained(self._context.explain(self._command(request, request.origin))))
            case StopControl() | ResumeControl():
                await self._control(request, writer)
            case History():
                async with aclosing(tell(self._context, request)) as replies:
                    async for reply in replies:
                        _put(writer, reply)
                        await writer.drain()

    async def _send_fleet(self, request: SendFleet, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fleet = FleetCommand(self._context, request, self._settings.ttl)

        def follow(ids: list[str], tell: Callable[[CommandEvent], None]) -> None:
            self._followers.update(dict.fromkeys(ids, tell))

        try:
            await serve_fleet(fleet, reader, writer, follow)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for id_ in fleet.ids:
                self._followers.pop(id_, None)

    async def _send(self, request: Send, writer: asyncio.StreamWriter) -> None:
        command = self._command(request, origin(self._context.name, detail=request.user), request.id, request.ttl)
        steps: asyncio.Queue[CommandEvent] = asyncio.Queue()
        self._followers[command.id] = steps.put_nowait
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

    def _command(self, request: Send | Explain, who: str, id_: str = "", ttl: float | None = None) -> Command:
        now = self._context.clock.now()
        return Command(
            id=id_ or new_command_id(),
            serial=request.serial,
            setpoint=request.setpoint,
            value=request.value,
            origin=who,
            created=now,
            expires=now + timedelta(seconds=ttl or self._settings.ttl),
            revert_after=request.revert_after,
            revert_value=request.revert_value,
        )

    async def _control(self, request: StopControl | ResumeControl, writer: asyncio.StreamWriter) -> None:
        by = origin(self._context.name, detail=request.user)
        try:
            if isinstance(request, StopControl):
                await self._context.halt(by, request.reason)
            else:
                await self._context.resume(by)
        except HaltError as error:
            _put(writer, Failed(str(error)))
        else:
            _put(writer, ControlState(self._context.halted))


def _put(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(msgspec.json.encode(reply) + b"\n")
