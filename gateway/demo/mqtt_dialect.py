"""One port for MQTT 3.1, 3.1.1 and 5, in front of a rumqttd that speaks only 5.

The broker inside iotcore 0.4 is rumqttd 0.20. It has a port for each version of MQTT, and some packets end it for
all clients. Here every client gets one port, a 3.x client's packets become those of MQTT 5 and back again, and the
broker sees only what it can stand. Everything else passes as it is: this is no broker.

What is done, and the defect of rumqttd 0.20.0 that it is for (files are in its `src`). [MQTT-…] and § with a number
from 3 on are MQTT 5.0 (OASIS, 7 March 2019), unless 3.1.1 (OASIS, 29 October 2014) is named.

On CONNECT, in `read_connect`:
 1. 3.1 and 3.1.1 become 5. Messages with MQTT 5 properties panic the 3.1.1 port (protocol/v4/mod.rs:364).
 2. Keep-alive 0, which means "never" (§3.1.2.10), becomes 65535 s; it would be refused (link/remote.rs).
 3. `+ $ # /` in a client identifier become private characters. It would not be accepted, and the next attempt
    would poison a lock that every CONNECT needs (router/routing.rs, validate_clientid; server/broker.rs:544).
 4. User name and password stay here: it checks none, and takes a password for text (§3.1.3.6: binary).
 5. Topic Alias Maximum is left out. It gives an alias to a filter, not to a topic: what matches a wildcard would
    arrive under a wrong topic (router/routing.rs, set_new_alias).
 6. A session that ends with its connection (expiry 0, §3.1.2.11.2) starts clean: it keeps what did not start clean.

On other packets of clients, in `Dialect.to_broker`:
 7. A topic that begins with a character beyond ASCII gets U+0001 in front, and the client does not see it: slicing
    such a topic ends the router thread, and with it the broker (protocol/mod.rs:658).
 8. Filters like `$SYS/#` get the same, and so match nothing: it would drop the client (validate_subscription).
 9. Packets that only a server sends, and a second CONNECT, end the connection: some panic (protocol/v5/mod.rs:429).
10. Acknowledgements are sent without reason and properties: it ignores a PUBREL that has some.
11. UNSUBACK comes from here: it sends one for each filter that was subscribed, so also several, or none (§3.11).
12. Shared subscriptions are refused in sessions that outlast their connection: they can panic the router
    (router/routing.rs, "group must exists").

On the way out, in `_Session`:
13. DISCONNECT is not passed on: the broker sees the connection end. After a DISCONNECT it forgets the client at
    once, and when a batch of 200 messages was under way to it, the report that these are sent ends the router
    thread, and with it the broker (router/scheduler.rs:63); `mosquitto_sub -C 1` with many retained messages does
    it. An end is reported only after that. A client with a will needs DISCONNECT, or the will would be published:
    it goes out once a PINGREQ has been answered twice with no message in between, so nothing is under way.
14. The connection stays open until the broker closes it: otherwise, after DISCONNECT, it is ended twice, the second
    time under a number that may be another client's by then (router/routing.rs, handle_disconnection).
15. DISCONNECT with a reason other than 0 becomes the end of the connection: it drops the will whatever the reason
    is ([MQTT-3.14.4-3]).
16. A client that takes over another's session (§3.1.4) waits until that has ended: otherwise the new one's will is
    published, not the old one's (server/broker.rs, remote).

What stays wrong, for mending it would take a broker:
- A subscription with wildcards and QoS 1 or 2 gets at most 100 retained messages; with QoS 0 it gets all.
- A filter that is subscribed already brings no retained messages again, and keeps its QoS ([MQTT-3.8.4-3]).
- An empty message clears the retained one also when it is not itself retained (§3.3.1.3).
- Messages arrive with the subscription's QoS, also when they were published with a lower one (§3.8.4).
- No Local, Retain As Published and Retain Handling have no effect (§3.8.3.1), nor has a client's Receive Maximum.
- A session that starts clean ends with its connection, whatever its expiry; others never expire (§3.1.2.11.2).
- A subscriber that is 10 MiB behind loses messages, of any QoS. One that acknowledges out of order is dropped.
- A client with a will that leaves while messages for it keep coming without a pause leaves like one that is gone.
- Unsubscribing from anything leaves all shared subscriptions; filters of one share group mix up their messages.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

MAX_PACKET: Final = 4 * 1024 * 1024
"""Bytes of a client's packet behind its fixed header."""

BATCH: Final = 500
_SHIELD: Final = b"\x01"
"""Before topics that the broker must not see as they are. §1.5.4 lets a server refuse control characters."""
_NEVER: Final = 0xFFFF
_CLIENT_ID: Final = str.maketrans("+$#/", "\ue000\ue001\ue002\ue003")


class Kind(IntEnum):
    """Control packet types, §2.1.2."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Reason(IntEnum):
    """Reason codes, §2.4."""

    SUCCESS = 0x00
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    BAD_CLIENT_ID = 0x85
    SERVER_UNAVAILABLE = 0x88
    TAKEN_OVER = 0x8E
    TOO_LARGE = 0x95
    NO_SHARED_SUBSCRIPTIONS = 0x9E


_ACKS: Final = frozenset({Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP})
_FLAGS: Final = {
    Kind.PUBACK: 0,
    Kind.PUBREC: 0,
    Kind.PUBREL: 2,
    Kind.PUBCOMP: 0,
    Kind.SUBSCRIBE: 2,
    Kind.UNSUBSCRIBE: 2,
    Kind.PINGREQ: 0,
    Kind.DISCONNECT: 0,
}
"""What a client may send besides CONNECT and PUBLISH, with the flags it has to have, §2.1.3."""
_PROTOCOLS: Final = frozenset({(b"MQIsdp", 3), (b"MQTT", 4), (b"MQTT", 5)})
_RETURN_CODES: Final[dict[int, int]] = {Reason.SUCCESS: 0, Reason.BAD_CLIENT_ID: 2, Reason.SERVER_UNAVAILABLE: 3}
"""3.1.1 §3.2.2.3. Any other is 5, not authorised."""
WRONG_VERSION: Final = b"\x20\x02\x00\x01"
"""CONNACK that a client of any version understands, 3.1.1 [MQTT-3.1.2-2]."""
PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
PROBE: Final = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"
"""CONNECT of a client without a name."""

_SESSION_EXPIRY: Final = 0x11
_TOPIC_ALIAS_MAXIMUM: Final = 0x22
_NUMBERS: Final = {_SESSION_EXPIRY: 4, 0x17: 1, 0x19: 1, 0x21: 2, _TOPIC_ALIAS_MAXIMUM: 2, 0x27: 4}
_STRINGS: Final = {0x15: 1, 0x16: 1, 0x26: 2}
"""The properties of CONNECT, §3.1.2.11: bytes of a number, or how many strings."""


class ProtocolError(Exception):
    """What the client sent ends its connection."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Packet(NamedTuple):
    """A control packet: the first byte, and what follows the length, §2.1."""

    head: int
    body: bytes = b""

    @property
    def kind(self) -> int:
        """A `Kind`, or 0 or 15."""
        return self.head >> 4

    def encode(self) -> bytes:
        """Return it as it goes over the wire."""
        return bytes((self.head,)) + _integer(len(self.body)) + self.body


class Framer:
    """Cuts a stream of bytes into packets."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._buffer += data

    def take(self, most: int = BATCH) -> list[Packet]:
        """Return complete packets. Raises ProtocolError when the next one can't become one."""
        packets: list[Packet] = []
        while len(packets) < most:
            try:
                packet = self._next()
            except ProtocolError:
                if packets:
                    break
                raise
            if packet is None:
                break
            packets.append(packet)
        return packets

    def _next(self) -> Packet | None:
        length = 0
        for at, byte in enumerate(self._buffer[1:5]):
            length |= (byte & 0x7F) << 7 * at
            if not byte & 0x80:
                break
        else:
            if len(self._buffer) >= 5:
                raise ProtocolError(Reason.MALFORMED)
            return None
        if length > self._limit:
            raise ProtocolError(Reason.TOO_LARGE)
        start, end = 2 + at, 2 + at + length
        if len(self._buffer) < end:
            return None
        packet = Packet(self._buffer[0], bytes(self._buffer[start:end]))
        del self._buffer[:end]
        return packet


class _Fields:
    """The fields of a packet, one after the other, §1.5. Too few bytes are a ProtocolError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ProtocolError(Reason.MALFORMED)
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def identifier(self) -> bytes:
        """Take a packet identifier, never 0, §2.2.1."""
        taken = self.take(2)
        if taken == b"\0\0":
            raise ProtocolError(Reason.PROTOCOL_ERROR)
        return taken

    def binary(self) -> bytes:
        return self.take(self.short())

    def text(self) -> bytes:
        """Take UTF-8 without U+0000 and surrogates, [MQTT-1.5.4-1] and -2; still in bytes."""
        taken = self.binary()
        try:
            text = taken.decode()
        except UnicodeDecodeError:
            raise ProtocolError(Reason.MALFORMED) from None
        if "\0" in text:
            raise ProtocolError(Reason.MALFORMED)
        return taken

    def block(self) -> bytes:
        """Take properties, without their length, §2.2.2."""
        length = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            length |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return self.take(length)
        raise ProtocolError(Reason.MALFORMED)


def _integer(value: int) -> bytes:
    """Encode a variable byte integer, §1.5.5."""
    encoded = bytearray()
    while True:
        value, low = divmod(value, 0x80)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def _binary(data: bytes) -> bytes:
    if len(data) > 0xFFFF:  # only the shield, or a client identifier's new characters, can make it so
        raise ProtocolError(Reason.MALFORMED)
    return len(data).to_bytes(2, "big") + data


def _block(properties: bytes) -> bytes:
    return _integer(len(properties)) + properties


def _shielded(topic: bytes) -> bytes:
    """Defect 7. Also for the will's topic, and for filters, so that they still match."""
    if not topic or topic.startswith(_SHIELD):  # [MQTT-4.7.3-1]
        raise ProtocolError(Reason.MALFORMED)
    return _SHIELD + topic if topic[0] > 0x7F else topic


def _shielded_filter(topic_filter: bytes) -> bytes:
    """Defects 7 and 8."""
    if topic_filter.startswith(b"$share/"):
        group, _, shared = topic_filter.removeprefix(b"$share/").partition(b"/")
        return b"$share/" + group + b"/" + _shielded(shared)  # §4.8.2
    return _SHIELD + topic_filter if topic_filter.startswith(b"$") else _shielded(topic_filter)


class Connect(NamedTuple):
    """What a CONNECT says."""

    level: int
    """3, 4 and 5: MQTT 3.1, 3.1.1 and 5."""
    client_id: str
    """As the broker knows it. Empty: the broker makes one up."""
    persistent: bool
    """The session outlasts the connection."""
    will: bool
    """It leaves a message for when it goes without DISCONNECT."""
    packet: bytes
    """The CONNECT for the broker."""


def read_connect(packet: Packet) -> Connect:
    """Read a client's first packet, §3.1. Raises ProtocolError."""
    if packet.head != Kind.CONNECT << 4:  # [MQTT-3.1.0-1]
        raise ProtocolError(Reason.PROTOCOL_ERROR)
    fields = _Fields(packet.body)
    name, level = fields.binary(), fields.byte() & 0x7F  # the bridges of mosquitto set the highest bit
    if (name, level) not in _PROTOCOLS:
        raise ProtocolError(Reason.UNSUPPORTED_VERSION)
    flags, keep_alive = fields.byte(), fields.short()
    clean = bool(flags & 0x02)
    properties = b""
    if level == 5:
        properties, outlasts = _connect_properties(fields.block())
        clean = clean or not outlasts  # defect 6
    client_id = fields.text().decode().translate(_CLIENT_ID)  # defect 3
    will = b""
    if flags & 0x04:
        will = (
            _block(fields.block() if level == 5 else b"") + _binary(_shielded(fields.text())) + _binary(fields.binary())
        )
    if flags & 0x80:
        fields.text()
    if flags & 0x40:
        fields.binary()
    if fields.left() or flags & 0x01:  # [MQTT-3.1.2-3]
        raise ProtocolError(Reason.MALFORMED)
    body = (
        b"\x00\x04MQTT\x05"
        + bytes((flags & 0x3C | clean << 1,))  # defect 4
        + (keep_alive or _NEVER).to_bytes(2, "big")  # defect 2
        + _block(properties)
        + _binary(client_id.encode())
        + will
    )
    return Connect(level, client_id, not clean, bool(will), Packet(Kind.CONNECT << 4, body).encode())


def _connect_properties(properties: bytes) -> tuple[bytes, bool]:
    """Return those for the broker, and whether the session outlasts the connection."""
    fields = _Fields(properties)
    kept, outlasts = b"", False
    while fields.left():
        key = fields.byte()
        if key in _NUMBERS:
            value = fields.take(_NUMBERS[key])
        elif key in _STRINGS:
            value = b"".join(_binary(fields.binary()) for _ in range(_STRINGS[key]))
        else:
            raise ProtocolError(Reason.MALFORMED)
        if key == _SESSION_EXPIRY:
            outlasts = any(value)
        if key != _TOPIC_ALIAS_MAXIMUM:  # defect 5
            kept += bytes((key,)) + value
    return kept, outlasts


class Dialect:
    """What a client's packets are to the broker, and the broker's to the client. Bytes in, bytes out."""

    def __init__(self, level: int, *, persistent: bool = False) -> None:
        self._level = level
        self._v5 = level == 5
        self._persistent = persistent

    def to_broker(self, packet: Packet) -> bytes:
        """Translate what a client sends after CONNECT. Raises ProtocolError."""
        kind = packet.kind
        if kind == Kind.PUBLISH:
            return Packet(packet.head, self._publish(packet)).encode()
        if kind not in _FLAGS:
            raise ProtocolError(Reason.PROTOCOL_ERROR)  # defect 9
        if packet.head & 0x0F != _FLAGS[Kind(kind)]:
            raise ProtocolError(Reason.MALFORMED)
        if kind in _ACKS:
            return Packet(packet.head, _Fields(packet.body).identifier()).encode()  # defect 10
        if kind in {Kind.SUBSCRIBE, Kind.UNSUBSCRIBE}:
            return Packet(packet.head, self._filters(packet)).encode()
        return packet.encode()

    def answer(self, packet: Packet) -> bytes:
        """Return what the client gets at once for a packet that `to_broker` took: an UNSUBACK, defect 11."""
        if packet.kind != Kind.UNSUBSCRIBE:
            return b""
        body = packet.body[:2]
        if self._v5:
            body += b"\0" + bytes(len(list(self._each_filter(packet))))
        return Packet(Kind.UNSUBACK << 4, body).encode()

    def to_client(self, packet: Packet) -> bytes:
        """Translate what the broker sends; empty when the client gets nothing."""
        kind = packet.kind
        if kind == Kind.PUBLISH:
            return Packet(packet.head, self._delivery(packet)).encode()
        if kind == Kind.UNSUBACK:  # defect 11
            return b""
        if self._v5 or kind == Kind.PINGRESP:
            return packet.encode()
        fields = _Fields(packet.body)
        if kind == Kind.CONNACK:
            flags, reason = fields.byte(), fields.byte()
            return self._connack(flags, reason)
        if kind in _ACKS:
            return Packet(packet.head, fields.take(2)).encode()
        if kind == Kind.SUBACK:
            identifier, _ = fields.take(2), fields.block()
            codes = bytes(min(code, 0x80) for code in fields.rest())  # 3.1.1 §3.9.3
            return Packet(packet.head, identifier + codes).encode()
        return b""  # DISCONNECT: in 3.1.1 a server just closes the connection

    def refusal(self, reason: Reason) -> bytes:
        """Return the CONNACK that says no, §3.2.2.2."""
        return Packet(Kind.CONNACK << 4, bytes((0, reason, 0))).encode() if self._v5 else self._connack(0, reason)

    def goodbye(self, reason: Reason) -> bytes:
        """Return what says why the connection ends, where the client's version has that, §3.14."""
        return Packet(Kind.DISCONNECT << 4, bytes((reason,))).encode() if self._v5 else b""

    def _connack(self, flags: int, reason: int) -> bytes:
        present = flags & 1 if self._level == 4 else 0  # 3.1 has no such flag
        return Packet(Kind.CONNACK << 4, bytes((present, _RETURN_CODES.get(reason, 5)))).encode()

    def _publish(self, packet: Packet) -> bytes:
        """§3.3: topic, identifier, properties, payload."""
        fields = _Fields(packet.body)
        topic = fields.text()
        if topic or not self._v5:  # in 5 an alias may stand for the topic
            topic = _shielded(topic)
        qos = packet.head >> 1 & 3
        if qos == 3:  # [MQTT-3.3.1-4]
            raise ProtocolError(Reason.MALFORMED)
        identifier = fields.identifier() if qos else b""
        return _binary(topic) + identifier + (b"" if self._v5 else b"\0") + fields.rest()

    def _delivery(self, packet: Packet) -> bytes:
        fields = _Fields(packet.body)
        topic = fields.binary().removeprefix(_SHIELD)
        identifier = fields.take(2) if packet.head & 6 else b""
        if not self._v5:
            fields.block()
        return _binary(topic) + identifier + fields.rest()

    def _filters(self, packet: Packet) -> bytes:
        """§3.8 and §3.10: identifier, properties, filters; in SUBSCRIBE each filter with its options."""
        fields = _Fields(packet.body)
        head = fields.identifier() + _block(fields.block() if self._v5 else b"")
        filters = b"".join(_binary(_shielded_filter(f)) + options for f, options in self._each_filter(packet))
        if not filters:  # [MQTT-3.8.3-2], [MQTT-3.10.3-2]
            raise ProtocolError(Reason.PROTOCOL_ERROR)
        return head + filters

    def _each_filter(self, packet: Packet) -> Iterator[tuple[bytes, bytes]]:
        fields = _Fields(packet.body)
        fields.identifier()
        if self._v5:
            fields.block()
        while fields.left():
            topic_filter, options = fields.text(), b""
            if self._persistent and topic_filter.startswith(b"$share/"):  # defect 12
                raise ProtocolError(Reason.NO_SHARED_SUBSCRIPTIONS)
            if packet.kind == Kind.SUBSCRIBE:
                options = fields.take(1)
                if not self._v5 and options > b"\x02":  # 3.1.1 [MQTT-3-8.3-4]; 5 has options there
                    raise ProtocolError(Reason.MALFORMED)
            yield topic_filter, options
