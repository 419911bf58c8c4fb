"""Answers the command line."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import ClassVar, Final

import msgspec

from gateway.api.bridge import BridgeSettings, Context
from gateway.bridges.local.fleet import FleetCommand, outage_of, serve_fleet
from gateway.bridges.local.history import answer
from gateway.bridges.local.protocol import (
    MAX_LINE,
    SOCKET_NAME,
    ControlState,
    Devices,
    Examine,
    Examined,
    Explain,
    Explained,
    Failed,
    History,
    Inventory,
    Refused,
    Reload,
    Reloaded,
    Reply,
    Request,
    ResumeControl,
    Send,
    SendFleet,
    Step,
    StopControl,
    socket_path,
)
from gateway.bridges.local.settings import MAX_CONNECTIONS, LocalSettings
from gateway.commands.policy.halt import HaltError
from gateway.core import files, strict
from gateway.core.bad_json import BAD_JSON
from gateway.core.errors import GatewayError
from gateway.core.mailbox import Updates
from gateway.core.model import Command, CommandEvent, DeviceKind, Origin, new_command_id, plain
from gateway.core.rare_log import RareLog
from gateway.http.acceptor import Acceptor, Full, Limits, Seat

REQUEST_TIMEOUT: Final = 10.0


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's streams, with a seat."""

    def __init__(self, seat: Seat["_Protocol"], serve: Callable[..., Awaitable[None]]) -> None:
        super().__init__(asyncio.StreamReader(limit=MAX_LINE), lambda reader, writer: serve(self, reader, writer))
        self._seat = seat
        self.has_asked = False
        """Its request has come."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._seat.leave()


class LocalBridge:
    """Origin and sink."""

    Settings: ClassVar[type[BridgeSettings]] = LocalSettings

    def __init__(self, settings: LocalSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._acceptor: Acceptor[_Protocol] | None = None
        self._rarely = RareLog(context.log)
        self._followers: dict[str, Callable[[CommandEvent], None]] = {}
        """Command id → what passes steps on to the connection that follows it."""
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. What stands in the way was left behind by a crash, for `data_dir` is locked by now."""
        data_dir = self._context.data_dir
        files.make_directory(data_dir)
        with socket_path(data_dir) as path:
            with suppress(FileNotFoundError):
                (data_dir / SOCKET_NAME).unlink()
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            mask = os.umask(0o177)
            try:
                listening.bind(path)
            except OSError:
                listening.close()
                raise
            finally:
                os.umask(mask)
        self._acceptor = Acceptor([listening], self, Limits(MAX_CONNECTIONS))
        self._acceptor.start()

    async def stop(self) -> None:
        """Stop listening, and hang up."""
        for task in self._serving:
            task.cancel()
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
            self._acceptor = None
            with suppress(OSError):
                (self._context.data_dir / SOCKET_NAME).unlink()

    async def deliver(self, updates: Updates) -> None:
        """Pass steps on to who follows them."""
        for event in updates.events:
            follower = self._followers.get(event.command.id)
            if follower is not None:
                follower(event)
                if event.state.final:
                    self._followers.pop(event.command.id, None)

    # the acceptor's side: `Owner`

    def lets_in(self, _: str) -> bool:
        """Return True: the file's mode says who may."""
        return True

    def protocol(self, seat: Seat[_Protocol]) -> _Protocol:
        """Return what reads a request."""
        return _Protocol(seat, self._serve)

    def full(self, why: Full, peer: str, key: str) -> bool:  # noqa: ARG002 - the acceptor's signature
        """Have a connection make room: the oldest of those that have not asked for anything, or else of all.

        A command goes on without who follows it. Returns whether there is room.
        """
        seats = self._acceptor.seats if self._acceptor is not None and peer else {}
        longest = next((seat for seat in seats if not seat.protocol.has_asked), next(iter(seats), None))
        if longest is None:
            self._rarely.warning(f"{why} refused", "no room for a command", reason=why.value)
            return False
        self._rarely.warning(
            f"{why} displaced", "too many commands at a time, the oldest is closed for a newer one", reason=why.value
        )
        longest.abort()
        longest.leave()
        return True

    def failed(self, seat: Seat[_Protocol], error: OSError) -> None:
        """Do nothing: the command line went away."""

    async def _serve(self, protocol: _Protocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as one
        self._serving.add(task)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                line = await reader.readline()
            protocol.has_asked = True
            try:
                request: Request = strict.decode(line, Request)
            except BAD_JSON as error:
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
                context = self._context
                _put(writer, Inventory(list(context.announced()), list(context.bridges()), list(context.writes())))
            case Examine():
                _put(writer, self._examined())
            case Send():
                await self._send(request, writer)
            case Explain():
                _put(writer, Explained(self._context.explain(self._command(request, Origin(request.origin)))))
            case StopControl() | ResumeControl():
                await self._control(request, writer)
            case Reload():
                await self._reload(writer)
            case History():
                async with aclosing(answer(self._context, request)) as replies:
                    async for reply in replies:
                        _put(writer, reply)
                        await writer.drain()

    def _examined(self) -> Examined:
        context = self._context
        states = context.announced()
        return Examined(
            bridges=list(context.bridges()),
            journal_trouble=context.journal_trouble,
            halted=context.halted,
            quality=Counter(state.quality.value for state in states),
            plants=[state.device for state in states if state.device.kind is DeviceKind.PLANT],
            sheets=list(context.sheets()),
        )

    async def _send_fleet(self, request: SendFleet, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fleet = FleetCommand(self._context, request, self._settings.ttl)

        def follow(ids: list[str], receive: Callable[[CommandEvent], None]) -> None:
            self._followers.update(dict.fromkeys(ids, receive))

        try:
            await serve_fleet(fleet, reader, writer, follow)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            # Followed on to their ends, for the log.
            fleet.watched = False

    async def _send(self, request: Send, writer: asyncio.StreamWriter) -> None:
        command = self._command(request, Origin.of(self._context.name, detail=request.user), request.id, request.ttl)
        steps: asyncio.Queue[CommandEvent] = asyncio.Queue()
        self._followers[command.id] = steps.put_nowait
        try:
            outage = outage_of(self._context, command.setpoint, [command.serial])
            if outage.down:
                _put(writer, outage)
            (event,) = await self._context.submit(command)
            _put(writer, Step(event))
            first = event.state
            while not event.state.final:
                await writer.drain()
                event = await steps.get()
                if event.state is not first:
                    _put(writer, Step(event))
        finally:
            self._followers.pop(command.id, None)

    def _command(self, request: Send | Explain, who: Origin, id_: str = "", ttl: float | None = None) -> Command:
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

    async def _reload(self, writer: asyncio.StreamWriter) -> None:
        try:
            done = await self._context.reload()
        except GatewayError as error:
            _put(writer, Failed(str(error)))
        else:
            _put(writer, Reloaded(done))

    async def _control(self, request: StopControl | ResumeControl, writer: asyncio.StreamWriter) -> None:
        by = Origin.of(self._context.name, detail=request.user)
        before = self._context.halted
        try:
            if isinstance(request, StopControl):
                await self._context.halt(by, request.reason)
            else:
                await self._context.resume(by)
        except HaltError as error:
            _put(writer, Failed(str(error)))
        else:
            _put(writer, ControlState(self._context.halted, before))


def _put(writer: asyncio.StreamWriter, reply: Reply) -> None:
    # uvloop refuses to write where the connection is lost; that it is, `drain` says.
    if not writer.is_closing():
        writer.write(msgspec.json.encode(reply, enc_hook=plain) + b"\n")
