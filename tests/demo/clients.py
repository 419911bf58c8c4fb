"""MQTT clients for these tests: paho's, and one that sends bytes as it is told."""

import asyncio
import socket
from contextlib import asynccontextmanager

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.demo.mqtt_dialect import Framer
from tests.kit.bench import until

V31, V311, V5 = paho.MQTTv31, paho.MQTTv311, paho.MQTTv5


class Client:
    def __init__(self, version, client_id="", *, clean=True, expiry=0, will=None, keepalive=60, credentials=()):
        sessions = {} if version == V5 else {"clean_session": clean}
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False, **sessions
        )
        if will:
            self.paho.will_set(*will)
        if credentials:
            self.paho.username_pw_set(*credentials)
        self._version = version
        self._keepalive = keepalive
        self._clean = clean
        self._expiry = expiry
        self._answered = {}
        self.accepted = None
        self.session_present = None
        self.ended = None
        self.messages = []
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_message = lambda client, data, message: self.messages.append(message)
        self.paho.on_subscribe = lambda client, data, mid, codes, properties: self._answered.update({mid: codes})
        self.paho.on_unsubscribe = lambda client, data, mid, codes, properties: self._answered.update({mid: codes})

    def _on_connect(self, client, data, flags, reason, properties):
        self.accepted = reason
        self.session_present = flags.session_present

    def _on_disconnect(self, client, data, flags, reason, properties):
        self.ended = reason

    async def connect(self, port):
        extra = {}
        if self._version == V5:
            extra["clean_start"] = self._clean
            if self._expiry:
                extra["properties"] = Properties(PacketTypes.CONNECT)
                extra["properties"].SessionExpiryInterval = self._expiry
        self.paho.connect("127.0.0.1", port, self._keepalive, **extra)
        self.paho.loop_start()
        await until(lambda: self.accepted is not None, "CONNACK")
        assert not self.accepted.is_failure, self.accepted

    async def subscribe(self, topic_filter, qos=1, **options):
        _, mid = self.paho.subscribe(topic_filter, qos, **options)
        return await until(lambda: self._answered.pop(mid, None), "SUBACK")

    async def unsubscribe(self, topic_filter):
        _, mid = self.paho.unsubscribe(topic_filter)
        await until(lambda: mid in self._answered, "UNSUBACK")

    async def publish(self, topic, payload=b"x", qos=1, retain=False, properties=None):
        info = self.paho.publish(topic, payload, qos, retain, properties)
        await until(info.is_published, "PUBACK")

    async def got(self, count=1):
        """Return topics and payloads of the first messages, once there are so many."""
        await until(lambda: len(self.messages) >= count, f"{count} messages")
        return [(message.topic, message.payload) for message in self.messages]

    async def vanish(self):
        """Go without a word."""
        self.paho.socket().shutdown(socket.SHUT_RDWR)
        await until(lambda: self.ended is not None, "the end of the connection")
        self.paho.loop_stop()

    async def leave(self):
        self.paho.disconnect()
        await until(lambda: self.ended is not None, "the end of the connection")
        self.paho.loop_stop()


@asynccontextmanager
async def client(port, version, *args, **options):
    made = Client(version, *args, **options)
    await made.connect(port)
    try:
        yield made
    finally:
        if made.ended is None:
            await made.leave()
        made.paho.loop_stop()


class Raw:
    """Packets in bytes, both ways."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self._framer = Framer(1 << 28)
        self.packets = []

    def send(self, data):
        self._writer.write(data)

    async def receive(self, timeout=10.0):
        """Return the next packet, or None at the end of the connection."""
        async with asyncio.timeout(timeout):
            while not self.packets:
                try:
                    data = await self._reader.read(65536)
                except OSError:
                    data = b""
                if not data:
                    return None
                self._framer.feed(data)
                self.packets += self._framer.take()
        return self.packets.pop(0)

    async def receive_all(self):
        packets = []
        while (packet := await self.receive()) is not None:
            packets.append(packet)
        return packets

    def vanish(self):
        self._writer.transport.abort()


@asynccontextmanager
async def raw(port, *packets):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    made = Raw(reader, writer)
    for packet in packets:
        made.send(packet)
    try:
        yield made
    finally:
        writer.close()


def packet(head, *parts):
    body = b"".join(parts)
    length = bytearray()
    rest = len(body)
    while True:
        rest, low = divmod(rest, 128)
        length.append(low | (128 if rest else 0))
        if not rest:
            return bytes([head]) + bytes(length) + body


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return len(data).to_bytes(2, "big") + data


def connect(level, client_id="", *, flags=2, keepalive=60, properties=b"\0", tail=b"", name=None):
    name = name or ("MQIsdp" if level == 3 else "MQTT")
    return packet(
        0x10, text(name), bytes([level, flags]), keepalive.to_bytes(2, "big"),
        properties if level == 5 else b"", text(client_id), tail,
    )  # fmt: skip
