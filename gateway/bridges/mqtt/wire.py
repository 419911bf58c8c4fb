"""The socket below paho, with a buffer each way.

paho sends every packet by a system call of its own and reads each in three or more. Here what it sends within one
turn of the loop goes out together, and what has come is read together. A WebSocket keeps paho's own buffers.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Literal

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessageInfo, time_func
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

MAX_UNSENT_BYTES: Final = 64 * 1024
"""Bytes to keep for a peer that does not read; paho keeps its packets then."""
READ_SIZE: Final = 64 * 1024
REASON_AT: Final = 2
"""Where the reason code of a PUBREC stands, after the packet id (MQTT 5.0 §3.5.2)."""
ONE_BYTE_LENGTH: Final = 0x7F
"""The longest packet whose length stands in one byte; a larger byte says that another one follows."""
PUBACK: Final = 0x40
PUBLISH: Final = 0x30
"""First bytes of packets; a PUBLISH has its flags in the lower half."""
FAILURE: Final = 0x80
"""Reason codes from here on are failures."""


_SUCCESS: Final = {
    cmd: (ReasonCode(kind), Properties(kind))  # type: ignore[no-untyped-call]
    for cmd, kind in (("PUBACK", PacketTypes.PUBACK), ("PUBCOMP", PacketTypes.PUBCOMP))
}


class Wire:
    """What paho takes for a socket. Not blocking once paho has it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._out = bytearray()
        self._in = b""
        self._read_to = 0

    @property
    def unsent(self) -> bool:
        """Whether anything waits that `flush` has to send."""
        return bool(self._out)

    @property
    def is_full(self) -> bool:
        """Whether `send` may raise BlockingIOError."""
        return len(self._out) >= MAX_UNSENT_BYTES

    def send(self, data: bytes | bytearray) -> int:
        """Take all of it, for `flush`. Raises BlockingIOError while too much waits."""
        if len(self._out) >= MAX_UNSENT_BYTES:
            self.flush()
            if len(self._out) >= MAX_UNSENT_BYTES:
                raise BlockingIOError
        self._out += data
        return len(data)

    def flush(self) -> None:
        """Send what the operating system takes now. Raises OSError when the connection is gone."""
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass

    def recv(self, most: int) -> bytes:
        """Return some bytes, b"" at the end. Raises as a socket does that has none now."""
        start = self._read_to
        if start >= len(self._in):
            self._in, start = self._sock.recv(READ_SIZE), 0
        piece = self._in[start : start + most]
        self._read_to = start + len(piece)
        return piece

    def whole_packet(self) -> tuple[int, bytes, int] | None:
        """Return the next packet, where all of it has been read and it is no large one; it stays until `skip`.

        Its first byte, what follows its length, and how many bytes it has in all (MQTT 5.0 §2.1).
        """
        data, at = self._in, self._read_to + 2
        if len(data) < at:
            return None
        size = data[at - 1]
        if size > ONE_BYTE_LENGTH:
            if len(data) == at or data[at] > ONE_BYTE_LENGTH:
                return None
            size, at = size & ONE_BYTE_LENGTH | data[at] << 7, at + 1
        end = at + size
        return None if len(data) < end else (data[self._read_to], data[at:end], end - self._read_to)

    def skip(self, count: int) -> None:
        """Take so many bytes of what has been read as dealt with."""
        self._read_to += count

    def pending(self) -> int:
        """Return how many bytes can be read of which the loop sees nothing on the socket."""
        within_tls = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._in) - self._read_to + within_tls

    def fileno(self) -> int:
        """Return what the loop watches."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """As of a socket."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Send what goes out at once, e.g. a DISCONNECT, and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self._sock.close()


class Published:
    """A message of QoS 0 or 1 that was sent; what paho's own `MQTTMessage` and its info are, without their locks."""

    __slots__ = ("_published", "mid", "qos", "rc")

    def __init__(self, mid: int, qos: int) -> None:
        self.mid = mid
        self.qos = qos
        self.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        self._published = False

    @property
    def info(self) -> "Published":
        """As of paho's message."""
        return self

    def is_published(self) -> bool:
        """Return whether it is acknowledged."""
        return self._published

    def _set_as_published(self) -> None:
        self._published = True


class BufferedPaho(Paho):
    """A paho client over a `Wire`, that says what paho keeps to itself: refusals, pongs, and why a read failed."""

    error: Exception | None = None
    """What ended the connection, where that was an error."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_refused: Callable[[int, ReasonCode], None] = lambda _mid, _code: None
        """Called with the packet id of a publish that the broker does not accept, before it counts as acknowledged."""
        self.on_pong: Callable[[], None] = lambda: None
        self.on_plain: Callable[[str, bytes, int, bool], None] = lambda _topic, _payload, _qos, _retain: None
        """Called with a message of QoS 0 or 1 that has no properties, instead of `on_message`."""

    def ping(self) -> None:
        """Ask for a pong: when it comes, the broker has dealt with all that was sent before."""
        # paho has pings for the keep-alive only.
        self._send_pingreq()

    def publish_plain(self, topic: str, payload: bytes, qos: int, retain: bool) -> MQTTMessageInfo | Published:
        """Publish a message without properties: as `publish`, at a third of its cost. Raises ValueError."""
        wire = self._sock
        if qos > 1 or self._out_packet or not isinstance(wire, Wire) or wire.is_full:
            return self.publish(topic, payload, qos, retain)
        name = topic.encode()
        self._raise_for_invalid_topic(name)
        message = Published(self._mid_generate(), qos)
        head = len(name).to_bytes(2) + name
        if qos:
            if message.mid in self._out_messages:  # 65,535 are under way
                return self.publish(topic, payload, qos, retain)
            head += message.mid.to_bytes(2)
            self._out_messages[message.mid] = message  # type: ignore[assignment]
            self._inflight_messages += 1
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            head += b"\0"
        packet = bytearray((PUBLISH | qos << 1 | retain,))
        self._pack_remaining_length(packet, len(head) + len(payload))
        wire.send(packet + head + payload)
        self._last_msg_out = time_func()
        self._call_socket_register_write()
        return message

    def _packet_read(self) -> MQTTErrorCode:
        # Nearly all that comes are acknowledgements and plain messages, and paho reads a packet in three parts, with
        # objects, locks and log lines for each. What is anything else, or not in order, is paho's.
        wire = self._sock
        if isinstance(wire, Wire) and not self._in_packet["command"]:
            packet = wire.whole_packet()
            if packet is None:
                try:
                    self._sock_recv(0)  # takes none, but has the wire read where all of it is taken
                except BlockingIOError:
                    return MQTTErrorCode.MQTT_ERR_AGAIN
                except OSError:
                    return MQTTErrorCode.MQTT_ERR_CONN_LOST
                packet = wire.whole_packet()
            if packet is not None and self._take(wire, *packet):
                self._last_bytes_received = time_func()
                return MQTTErrorCode.MQTT_ERR_SUCCESS
        return super()._packet_read()

    def _take(self, wire: Wire, first: int, body: bytes, size: int) -> bool:
        """Deal with a packet; False where it is left to paho."""
        # A reason may follow, e.g. that nobody has subscribed to it (0x10); properties stand only behind one.
        if first == PUBACK and (len(body) == REASON_AT or (len(body) == REASON_AT + 1 and body[REASON_AT] < FAILURE)):
            wire.skip(size)
            message = self._out_messages.pop(int.from_bytes(body[:REASON_AT]), None)
            if message is not None:
                message.info._set_as_published()  # noqa: SLF001 - what paho's own does of it, but for what is unset here
                self._inflight_messages -= 1
            return True
        qos = first >> 1 & 3
        if first & 0xF0 != PUBLISH or qos > 1 or len(body) < 2:
            return False
        topic_to = 2 + int.from_bytes(body[:2])
        payload_at = topic_to + (2 if qos else 0)
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            if body[payload_at : payload_at + 1] != b"\0":  # it has properties
                return False
            payload_at += 1
        if payload_at > len(body):
            return False
        try:
            topic = body[2:topic_to].decode()
        except UnicodeDecodeError:
            return False
        wire.skip(size)
        self.on_plain(topic, body[payload_at:], qos, bool(first & 1))
        if qos:
            self._send_puback(int.from_bytes(body[topic_to : topic_to + 2]))
        return True

    def _handle_pingresp(self) -> MQTTErrorCode:
        code = super()._handle_pingresp()
        self.on_pong()
        return code

    def _do_on_publish(self, mid: int, reason_code: ReasonCode, properties: Properties) -> MQTTErrorCode:
        # paho's own callback costs more than the message with QoS 0, and tells nothing then.
        if reason_code.is_failure:
            self.on_refused(mid, reason_code)
        return super()._do_on_publish(mid, reason_code, properties)

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        # One that has a packet id and nothing else means success: no need to build what says so for each.
        packet = self._in_packet["packet"]
        if len(packet) != REASON_AT:
            return super()._handle_pubackcomp(cmd)
        mid = int.from_bytes(packet)
        with self._out_message_mutex:
            if mid in self._out_messages:
                return self._do_on_publish(mid, *_SUCCESS[cmd])
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubrec(self) -> MQTTErrorCode:
        # paho goes on with a message that was refused, and its packet id is free at the broker already.
        packet = self._in_packet["packet"]
        if len(packet) > REASON_AT and packet[REASON_AT] >= FAILURE:
            mid = int.from_bytes(packet[:REASON_AT])
            with self._out_message_mutex:
                if mid in self._out_messages:
                    code = ReasonCode(PacketTypes.PUBREC, identifier=packet[REASON_AT])
                    return self._do_on_publish(mid, code, Properties(PacketTypes.PUBREC))  # type: ignore[no-untyped-call]
        return super()._handle_pubrec()

    def _sock_recv(self, bufsize: int) -> bytes:
        try:
            return super()._sock_recv(bufsize)
        except BlockingIOError:
            raise
        except OSError as error:
            self.error = error
            raise

    def _create_socket(self) -> Any:
        # paho's one place where connections of all kinds are opened, since its 2.0; there is no public one.
        sock = super()._create_socket()
        # A WebSocket is no socket here but an object of paho's.
        return Wire(sock) if isinstance(sock, socket.socket) else sock

    def flush(self) -> bool:
        """Send what waits, as far as it goes; return whether all went. Raises OSError when the connection is gone."""
        self.loop_write()
        wire = self.socket()
        if isinstance(wire, Wire):
            wire.flush()
            return not wire.unsent and not self.want_write()
        return not self.want_write()
