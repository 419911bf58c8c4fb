"""Brokers that mosquitto isn't: one that misbehaves, and one that takes little and refuses much."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

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

    async with _listening(serve) as (host, port):
        try:
            yield SimpleNamespace(host=host, port=port)
        finally:
            ended.set()


class Narrow:
    """A broker that acknowledges only when nothing more comes, and grants what it is told to.

    `properties` are those of its CONNACK, encoded; a client of MQTT 3.1.1 gets none.
    """

    def __init__(self, receive_maximum=65535, granted=1, properties=b""):
        self.properties = b"\x21" + receive_maximum.to_bytes(2) + properties
        self.granted = granted
        self.acknowledging = True
        self.topics = []
        self.retained = []
        """Those with the retain flag."""
        self.qos = []
        """Of each message."""
        self.subscribes = []
        """The filters of each SUBSCRIBE."""
        self.unbearable = ()
        """Topics, and filters, on which it hangs up; or what says of a topic and a payload whether it does."""
        self.hung_up = 0
        self.opened = 0
        self._writers = []
        self.most = 0
        """Most messages that were open at once."""

    def break_connections(self):
        while self._writers:
            self._writers.pop().transport.abort()

    async def serve(self, reader, writer):
        self._writers.append(writer)
        self.opened += 1
        _, _, connect = await _packet(reader)
        v5 = connect[6] == 5
        told = bytes([len(self.properties)]) + self.properties if v5 else b""
        writer.write(b"\x20" + bytes([2 + len(told)]) + b"\x00\x00" + told)
        open_ = []
        try:
            while True:
                try:
                    async with asyncio.timeout(0.02 if open_ and self.acknowledging else None):
                        kind, flags, body = await _packet(reader)
                except TimeoutError:
                    writer.writelines(b"\x40\x02" + mid for mid in open_)
                    open_ = []
                    continue
                if kind == 0x30:
                    end = 2 + int.from_bytes(body[:2])
                    topic, qos = body[2:end].decode(), flags >> 1 & 3
                    self.topics.append(topic)
                    self.qos.append(qos)
                    if flags & 1:
                        self.retained.append(topic)
                    if self._hates(topic, body[end + (2 if qos else 0) + (1 if v5 else 0) :]):
                        break
                    if qos:
                        open_.append(body[end : end + 2])
                        self.most = max(self.most, len(open_))
                elif kind == 0x80:
                    filters = _filters(body[3 if v5 else 2 :])
                    self.subscribes.append(filters)
                    if any(self._hates(filter_, b"") for filter_ in filters):
                        break
                    codes = (b"\x00" if v5 else b"") + bytes([self.granted] * len(filters))
                    writer.write(b"\x90" + bytes([2 + len(codes)]) + body[:2] + codes)
                elif kind == 0xC0:
                    writer.write(b"\xd0\x00")
                elif kind == 0xE0:
                    writer.close()
                    return
            self.hung_up += 1
            writer.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _hates(self, topic, payload):
        return self.unbearable(topic, payload) if callable(self.unbearable) else topic in self.unbearable


def _filters(body):
    """Return the filters of a SUBSCRIBE, after its packet id and properties."""
    filters = []
    while body:
        end = 2 + int.from_bytes(body[:2])
        filters.append(body[2:end].decode())
        body = body[end + 1 :]
    return filters


async def _packet(reader):
    """Return type, flags and body of the next packet; a first byte is waited for, the rest is there."""
    first = (await reader.readexactly(1))[0]
    length, shift, byte = 0, 0, 128
    while byte & 128:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
    return first & 0xF0, first & 0x0F, await reader.readexactly(length)


@asynccontextmanager
async def narrow(**options):
    broker = Narrow(**options)
    async with _listening(broker.serve) as (broker.host, broker.port):
        yield broker


@asynccontextmanager
async def _listening(serve):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
