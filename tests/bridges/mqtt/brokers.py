"""Brokers that mosquitto isn't: one that misbehaves, and one that takes little and refuses much."""

import asyncio
from contextlib import asynccontextmanager

CONNACK = b"\x20\x03\x00\x00\x00"
"""MQTT 5.0 §3.2: accepted, no properties."""


@asynccontextmanager
async def pretender(answer):
    """Something that listens like a broker and answers to CONNECT with `answer`."""
    ended = asyncio.Event()

    async def serve(reader, writer):
        await reader.read(1024)
        writer.write(answer)
        await ended.wait()
        writer.close()

    async with _listening(serve) as server:
        try:
            yield server
        finally:
            ended.set()


class Narrow:
    """An MQTT 5 broker that acknowledges only when nothing more comes, and grants what it is told to."""

    def __init__(self, receive_maximum=65535, granted=1):
        self.receive_maximum = receive_maximum
        self.granted = granted
        self.acknowledging = True
        self.topics = []
        self._writers = []
        self.most = 0
        """Most messages that were open at once."""

    def break_connections(self):
        while self._writers:
            self._writers.pop().transport.abort()

    async def serve(self, reader, writer):
        self._writers.append(writer)
        await _packet(reader)
        writer.write(b"\x20\x06\x00\x00\x03\x21" + self.receive_maximum.to_bytes(2))
        open_ = []
        try:
            while True:
                try:
                    async with asyncio.timeout(0.02 if open_ and self.acknowledging else None):
                        kind, body = await _packet(reader)
                except TimeoutError:
                    writer.writelines(b"\x40\x02" + mid for mid in open_)
                    open_ = []
                    continue
                if kind == 0x30:
                    end = 2 + int.from_bytes(body[:2])
                    self.topics.append(body[2:end].decode())
                    open_.append(body[end : end + 2])
                    self.most = max(self.most, len(open_))
                elif kind == 0x80:
                    writer.write(b"\x90\x05" + body[:2] + b"\x00" + bytes([self.granted] * 2))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _packet(reader):
    """Return type and body of the next packet; a first byte is waited for, the rest is there."""
    kind = (await reader.readexactly(1))[0] & 0xF0
    length, shift, byte = 0, 0, 128
    while byte & 128:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
    return kind, await reader.readexactly(length)


@asynccontextmanager
async def narrow(**options):
    broker = Narrow(**options)
    async with _listening(broker.serve) as server:
        broker.host, broker.port = server.host, server.port
        yield broker


@asynccontextmanager
async def _listening(serve):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.host, server.port = server.sockets[0].getsockname()
    try:
        yield server
    finally:
        server.close()
