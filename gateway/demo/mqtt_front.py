"""The public port before the demo's broker: a client's connection, both ways. `mqtt_dialect` says why and what."""

import asyncio
import socket
from contextlib import suppress
from typing import Final

from gateway.demo.mqtt_dialect import (
    BATCH,
    DISCONNECT,
    MAX_PACKET,
    PINGREQ,
    PROBE,
    WRONG_VERSION,
    Connect,
    Dialect,
    Framer,
    Kind,
    Packet,
    ProtocolError,
    Reason,
    read_connect,
)

INNER_HOST: Final = "127.0.0.1"
CONNECT_TIMEOUT: Final = 10.0
"""Seconds that a client has for CONNECT."""
LEAVE_TIMEOUT: Final = 5.0
"""Seconds that the broker has to let a client go, before its connection is cut."""
SETTLE: Final = 0.05
"""Seconds from the broker's end of a connection until it has also dealt with the will. It gives no sign of that;
it takes one tick of its timer, 1 ms."""
_READ: Final = 64 * 1024


class _Wire:
    """One connection, in packets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        self._reader = reader
        self._writer = writer
        self._framer = Framer(limit)

    async def packets(self, most: int = BATCH) -> list[Packet]:
        """Return what has come; nothing when the other side is gone. Raises ProtocolError."""
        while not (packets := self._framer.take(most)):
            try:
                data = await self._reader.read(_READ)
            except OSError:
                data = b""
            if not data:
                return []
            self._framer.feed(data)
        return packets

    def write(self, data: bytes | bytearray) -> None:
        if data and not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Wait while too much is unsent."""
        with suppress(OSError):  # the end of the connection is seen where it is read
            await self._writer.drain()

    def end(self) -> None:
        """Say that nothing more will come."""
        if not self._writer.is_closing():
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def cut(self) -> None:
        self._writer.transport.abort()


class _Session:
    """One client, from its CONNECT until the broker has let it go."""

    def __init__(self, client: _Wire, connect: Connect) -> None:
        self._client = client
        self._connect = connect
        self._dialect = Dialect(connect.level, persistent=connect.persistent)
        self._accepted = asyncio.Event()
        self._taken_over: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._leaving = False
        """From here on the client gets nothing."""
        self._says_goodbye = False
        self._quiet = False
        """No message has come since the last PINGREQ went out."""
        self._unanswered = 0
        """PINGREQs that the broker has still to answer."""
        self.over = asyncio.Event()

    def take_over(self) -> None:
        """End it for another one with the same client identifier, [MQTT-3.1.4-3]."""
        if not self._taken_over.done():
            self._taken_over.set_result(Reason.TAKEN_OVER)

    async def run(self, inner_port: int, before: "_Session | None") -> None:
        try:
            if before is not None:  # defect 16
                before.take_over()
                await before.over.wait()
            try:
                reader, writer = await asyncio.open_connection(INNER_HOST, inner_port)
            except OSError:
                self._client.write(self._dialect.refusal(Reason.SERVER_UNAVAILABLE))
                return
            broker = _Wire(reader, writer, 2 * MAX_PACKET)
            try:
                await self._relay(broker)
            finally:
                broker.cut()
        finally:
            self.over.set()

    async def _relay(self, broker: _Wire) -> None:
        broker.write(self._connect.packet)
        up = asyncio.create_task(self._to_broker(broker), name="mqtt to broker")
        down = asyncio.create_task(self._to_client(broker), name="mqtt to client")
        try:
            await asyncio.wait((up, down, self._taken_over), return_when=asyncio.FIRST_COMPLETED)
            why: Reason | None = None
            if up.done():
                why = up.result()
            elif self._taken_over.done():
                why = self._taken_over.result()
            await self._leave(broker, why, up, down)
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _leave(
        self, broker: _Wire, why: Reason | None, up: asyncio.Task[Reason | None], down: asyncio.Task[None]
    ) -> None:
        """Let the client go, then wait until the broker has done so too."""
        if why:
            self._client.write(self._dialect.goodbye(why))
        self._client.close()
        if not down.done():
            self._leaving = True
            up.cancel()
            if why is Reason.SUCCESS and self._connect.will:  # defect 13
                self._says_goodbye = True
                self._ask(broker)
            else:
                broker.end()
            await asyncio.wait((down,), timeout=LEAVE_TIMEOUT)  # defect 14
        if down.done():
            down.result()
        else:
            self._client.cut()
        if self._connect.client_id:
            await asyncio.sleep(SETTLE)

    async def _to_broker(self, broker: _Wire) -> Reason | None:
        """Return SUCCESS for a client that took its leave, None for one that is gone, else what it did wrong."""
        await self._accepted.wait()  # who says DISCONNECT right behind CONNECT also gets CONNACK
        try:
            while packets := await self._client.packets():
                batch = bytearray()
                try:
                    for packet in packets:
                        translated = self._dialect.to_broker(packet)
                        if packet.kind == Kind.DISCONNECT:
                            return None if any(packet.body[:1]) else Reason.SUCCESS  # defect 15
                        self._unanswered += packet.kind == Kind.PINGREQ
                        self._client.write(self._dialect.answer(packet))
                        batch += translated
                finally:
                    broker.write(batch)
                await broker.drain()
        except ProtocolError as error:
            return error.reason
        return None

    def _ask(self, broker: _Wire) -> None:
        self._unanswered += 1
        broker.write(PINGREQ)

    def _say_goodbye(self, broker: _Wire, kind: int) -> None:
        """Look at what the broker sends to a client that has left, until it has no more for it."""
        if kind == Kind.PUBLISH:
            self._quiet = False
        elif kind == Kind.PINGRESP and not self._unanswered:
            if self._quiet:
                self._says_goodbye = False
                broker.write(DISCONNECT)
            else:
                self._quiet = True
                self._ask(broker)

    async def _to_client(self, broker: _Wire) -> None:
        while packets := await broker.packets():
            batch = bytearray()
            for packet in packets:
                self._unanswered -= packet.kind == Kind.PINGRESP
                if not self._leaving:
                    batch += self._dialect.to_client(packet)
                elif self._says_goodbye:
                    self._say_goodbye(broker, packet.kind)
            self._client.write(batch)
            self._accepted.set()
            await self._client.drain()


class Front:
    """Serves clients on a listening port, with the broker on `inner_port` of this machine behind it."""

    def __init__(self, inner_port: int) -> None:
        self._inner_port = inner_port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._sessions: dict[str, _Session] = {}

    async def start(self, bound: socket.socket) -> None:
        """Listen on a socket that has its address, and own it. Raises OSError when another listens there."""
        self._server = await asyncio.start_server(self._accept, sock=bound)

    async def stop(self) -> None:
        """Close the port and end every connection, without a word."""
        if self._server is None:
            return
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(_Wire(reader, writer, MAX_PACKET)), name="mqtt client")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, client: _Wire) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                packets = await client.packets(1)
            if packets:
                await self._seat(client, read_connect(packets[0]))
        except ProtocolError as error:
            if error.reason is Reason.UNSUPPORTED_VERSION:
                client.write(WRONG_VERSION)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            client.cut()
            raise
        finally:
            client.close()

    async def _seat(self, client: _Wire, connect: Connect) -> None:
        session = _Session(client, connect)
        before = None
        if connect.client_id:
            before = self._sessions.get(connect.client_id)
            self._sessions[connect.client_id] = session
        try:
            await session.run(self._inner_port, before)
        finally:
            if self._sessions.get(connect.client_id) is session:
                del self._sessions[connect.client_id]


async def answers(inner_port: int) -> bool:
    """Tell whether the broker takes clients."""
    try:
        reader, writer = await asyncio.open_connection(INNER_HOST, inner_port)
    except OSError:
        return False
    try:
        writer.write(PROBE)
        writer.write_eof()
        return (await reader.read())[:1] == bytes((Kind.CONNACK << 4,))
    except OSError:
        return False
    finally:
        writer.close()
