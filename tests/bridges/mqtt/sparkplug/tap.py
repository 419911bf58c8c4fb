"""A tap in the wire between the gateway and mosquitto: keeps every packet that the gateway sends."""

import asyncio
from contextlib import asynccontextmanager

import msgspec

CONNECT, PUBLISH, SUBSCRIBE, DISCONNECT = 1, 3, 8, 14


class Packet(msgspec.Struct):
    kind: int
    flags: int
    body: bytes

    @property
    def topic(self):
        """Of a PUBLISH."""
        return self.body[2 : 2 + int.from_bytes(self.body[:2])].decode()

    @property
    def qos(self):
        return self.flags >> 1 & 3

    @property
    def retain(self):
        return bool(self.flags & 1)


class Connect(msgspec.Struct):
    """A CONNECT taken apart (MQTT 3.1.1 §3.1, MQTT 5.0 §3.1)."""

    level: int
    flags: int
    session_expiry: int
    will_topic: str
    will_payload: bytes

    @property
    def clean(self):
        return bool(self.flags & 2)

    @property
    def will_qos(self):
        return self.flags >> 3 & 3

    @property
    def will_retain(self):
        return bool(self.flags & 0x20)


def connect_of(packet):
    assert packet.kind == CONNECT
    body = packet.body
    assert body[:6] == b"\x00\x04MQTT"
    level, flags, at = body[6], body[7], 10
    expiry = 0
    if level == 5:
        end = at + 1 + body[at]
        at += 1
        while at < end:
            if body[at] == 0x11:
                expiry = int.from_bytes(body[at + 1 : at + 5])
            assert body[at] in (0x11, 0x27), "a property this reader knows, all of four bytes"
            at += 5
    _, at = _string(body, at)
    if level == 5:
        assert body[at] == 0, "no will properties"
        at += 1
    topic, at = _string(body, at)
    payload, at = _string(body, at)
    return Connect(level, flags, expiry, topic.decode(), payload)


def _string(body, at):
    length = int.from_bytes(body[at : at + 2])
    return body[at + 2 : at + 2 + length], at + 2 + length


class Tap:
    host = "127.0.0.1"

    def __init__(self, broker):
        self._broker = broker
        self.port = 0
        self.packets = []
        self.refusing = False
        self._writers = []

    def of(self, kind):
        return [packet for packet in self.packets if packet.kind == kind]

    def published(self):
        return [packet.topic for packet in self.of(PUBLISH)]

    def cut(self):
        """End every connection, without a word."""
        while self._writers:
            self._writers.pop().transport.abort()

    async def serve(self, reader, writer):
        if self.refusing:
            writer.transport.abort()
            return
        back, forth = await asyncio.open_connection(self._broker.host, self._broker.port)
        self._writers += [writer, forth]
        answers = asyncio.create_task(self._answer(back, writer))
        try:
            while True:
                head = await reader.readexactly(1)
                raw, length, shift, byte = head, 0, 0, 128
                while byte & 128:
                    more = await reader.readexactly(1)
                    byte = more[0]
                    raw += more
                    length |= (byte & 127) << shift
                    shift += 7
                body = await reader.readexactly(length)
                self.packets.append(Packet(head[0] >> 4, head[0] & 15, body))
                forth.write(raw + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            forth.close()
        finally:
            await answers

    @staticmethod
    async def _answer(back, writer):
        try:
            while some := await back.read(65536):
                writer.write(some)
        except ConnectionError:
            pass
        writer.close()


@asynccontextmanager
async def tapped(broker):
    tap = Tap(broker)
    server = await asyncio.start_server(tap.serve, tap.host, 0)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
    finally:
        server.close()
        tap.cut()
