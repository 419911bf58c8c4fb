"""paho-mqtt on the asyncio loop, without its thread.

paho does the protocol; the loop watches its socket. Only opening a connection blocks (names, TCP, TLS), so
that alone runs in a thread. Each connection has a paho client of its own: nothing is left over from the last.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import structlog
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import ConnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.bridges.mqtt import troubles
from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.wire import BufferedPaho, Wire

MAX_UNACKNOWLEDGED: Final = 500
"""Messages of QoS 1 and 2 under way, where the broker takes as many."""
MAX_UNSENT: Final = 500
"""Packets not yet handed to the operating system."""
FLUSH_EVERY: Final = 20
"""Packets handed to the operating system together, so that the broker works while we do."""
YIELD_EVERY: Final = 50
"""Messages after which others on the loop get their turn."""
SEND_BUFFER: Final = 128 * 1024
"""Bytes. The megabytes that a system takes by itself would all go out before a result that comes after them."""
READS_PER_TURN: Final = 100
"""Reads after which others on the loop get their turn; each takes at least a packet."""
MAX_PACKET: Final = 4 * 1024 * 1024
"""Bytes; MQTT 5 brokers keep larger packets from us."""
ANSWER_TIMEOUT: Final = 10.0
"""Seconds a broker has for CONNACK and SUBACK."""
TICK: Final = 1.0
"""Seconds between looks at the keep-alive."""
DISCONNECT_WITH_WILL: Final = ReasonCode(PacketTypes.DISCONNECT, identifier=4)

_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


class ConnectError(Exception):
    """No connection came about. The text ends a sentence about the broker."""


class LostError(Exception):
    """The connection is gone. The text ends a sentence about the broker."""


class Client:
    """One client, one connection at a time. Callbacks run on the loop and must not raise or block."""

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        will: Message,
        *,
        on_message: Callable[[Message], None],
        on_lost: Callable[[], None],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._settings = settings
        self.id = client_id
        self.will = will
        """Of the next connection."""
        self.opened = 0
        """How many connections got as far as CONNECT."""
        self._on_message_cb = on_message
        self._on_lost = on_lost
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._v5 = settings.protocol == "5"
        self.backlog = False
        """Whether the broker may still be delivering what waited for us in a kept session."""
        self._paho: BufferedPaho | None = None
        """The connection's; None while there is none. A callback of another is an echo of the past."""
        self._fd = -1
        self._writing = False
        self._ticker: asyncio.TimerHandle | None = None
        self._accepted: asyncio.Future[None] | None = None
        self._subscribed: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._trouble = "is not connected"
        self._window = MAX_UNACKNOWLEDGED
        self._unacknowledged: deque[tuple[MQTTMessageInfo, Message | None, Callable[[bool], None] | None]] = deque()
        self._refused: set[int] = set()
        """Packet ids of those that the broker has refused."""
        self._unsent = 0
        self._since_yield = 0
        self._behind = False
        """Whether the loop will have us read on, unasked by the socket."""
        self._room = asyncio.Event()
        self._refusal = ""
        """What the broker said to the first publish of this connection that it refused."""
        self._refusal_told = False
        self._failure_told = False

    # what the bridge calls

    @property
    def connected(self) -> bool:
        """True from the broker's acceptance to the end of the connection."""
        return self._paho is not None and self._accepted is not None and self._accepted.done()

    async def connect(self) -> None:
        """Connect and wait until the broker has accepted. Raises ConnectError."""
        paho = self._build()
        try:
            await asyncio.to_thread(self._open, paho)
            self._attach(paho)
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await cast("asyncio.Future[None]", self._accepted)
        except LostError as error:
            raise ConnectError(str(error)) from None
        except Exception as error:
            self._drop("did not accept the connection in time")
            raise ConnectError(troubles.of_error(error)) from error
        except BaseException:
            self._drop("was not waited for")
            raise
        self._log.debug("connected", client_id=self.id, window=self._window)

    async def disconnect(self, timeout: float, *, with_will: bool = False) -> None:
        """Say goodbye; after `timeout` seconds just hang up.

        No will is published then, unless, in MQTT 5 only, `with_will` asks for it (MQTT 5.0 §3.14.2.1, 0x04).
        """
        try:
            async with asyncio.timeout(timeout):
                while self._paho is not None and (self._unacknowledged or self._writing):
                    await self._wait_for_room()
                if self._paho is not None:
                    self._paho.disconnect(DISCONNECT_WITH_WILL if with_will and self._v5 else None)
                while self._paho is not None:
                    await self._wait_for_room()
        except (TimeoutError, LostError):
            pass
        self._drop("was left")

    def check(self) -> None:
        """Raise LostError when the connection is gone."""
        if self._paho is None:
            raise LostError(self._trouble)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        *,
        kept: Message | None = None,
        done: Callable[[bool], None] | None = None,
    ) -> None:
        """Hand over a message; wait while too many are under way. Raises LostError, ValueError for a bad topic.

        With QoS 1 or 2 `done` is called when the broker has acknowledged it, with whether it accepted it; never, where
        the connection ends before.
        """
        while self._unsent >= MAX_UNSENT or len(self._unacknowledged) >= self._window:
            await self._wait_for_room()
        paho = self._paho
        if paho is None:
            raise LostError(self._trouble)
        info = paho.publish(topic, payload, qos, retain, self._properties(kept) if kept else None)
        self._unsent += 1
        if qos:
            self._unacknowledged.append((info, kept, done))
        if self._unsent % FLUSH_EVERY == 0:
            self._guarded(self._write)
        self._since_yield += 1
        if self._since_yield >= YIELD_EVERY:
            self._since_yield = 0
            await asyncio.sleep(0)

    async def send(self, message: Message) -> None:
        """Publish a message that must arrive: `take_back` has it while the broker has not confirmed it."""
        await self.publish(message.topic, message.payload, message.qos, message.retain, kept=message)

    def take_back(self) -> list[Message]:
        """Return, once, what `send` had under way when the connection was lost, oldest first."""
        back = [message for info, message, _ in self._unacknowledged if message is not None and not info.is_published()]
        self._unacknowledged.clear()
        return back

    async def subscribe(self, filters: Sequence[str], fresh: Sequence[str] = ()) -> list[str]:
        """Subscribe with QoS 1; return the filters that the broker refuses. Raises LostError.

        Of `fresh` ones only what is published from now on is wanted; a retained message that comes has its flag.
        """
        self.check()
        paho = cast("Paho", self._paho)
        if self._v5:
            # As published: a retained wish is known as one also when it is published while we listen.
            options = SubscribeOptions(qos=1, retainAsPublished=True)
            new_only = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            _, mid = paho.subscribe([*((f, options) for f in filters), *((f, new_only) for f in fresh)])
        else:
            _, mid = paho.subscribe([(filter_, 1) for filter_ in (*filters, *fresh)])
        if mid is None:
            raise LostError(self._trouble)
        answer = self._subscribed[mid] = self._loop.create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                codes = await answer
        except TimeoutError:
            self._drop("does not answer")
            self.check()
        finally:
            self._subscribed.pop(mid, None)
        return [filter_ for filter_, code in zip((*filters, *fresh), codes, strict=False) if code.is_failure]

    # one connection, from its opening to its end

    def _build(self) -> BufferedPaho:
        paho = BufferedPaho(
            CallbackAPIVersion.VERSION2,
            client_id=self.id,
            protocol=_PROTOCOLS[self._settings.protocol],
            transport=self._settings.transport,
            reconnect_on_failure=False,
        )
        if self._settings.transport == "websockets":
            headers = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
            paho.ws_set_options(self._settings.path, headers)
        # `publish` keeps within the broker's window by itself, for paho can't change its own once connected.
        paho.max_inflight_messages_set(0)
        password = self._settings.password
        if self._settings.username is not None:
            paho.username_pw_set(self._settings.username, password.get_secret_value() if password else None)
        paho.will_set(self.will.topic, self.will.payload, self.will.qos, self.will.retain)
        paho.on_connect = self._on_connect
        paho.on_disconnect = self._on_disconnect
        paho.on_message = self._on_message
        paho.on_subscribe = self._on_subscribe
        if self._settings.sending(TopicClass.STATE).qos:
            # With QoS 0 this would cost paho more than the message itself, and tell nothing.
            paho.on_publish = self._on_publish
        paho.on_socket_close = self._on_socket_close
        paho.on_socket_register_write = self._on_register_write
        return paho

    def _open(self, paho: Paho) -> None:
        """Open the connection and queue CONNECT. Runs in a thread."""
        if (tls := self._settings.tls) is not None:
            paho.tls_set_context(tls.context())
        settings = self._settings
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = MAX_PACKET
            if settings.session_expiry:
                properties.SessionExpiryInterval = settings.session_expiry
            clean = not settings.session_expiry
            paho.connect(settings.host, settings.port, settings.keepalive, clean_start=clean, properties=properties)
        else:
            paho.connect(settings.host, settings.port, settings.keepalive)
        if (sock := paho.socket()) is not None:
            # A result must not wait for the acknowledgement of the one before it. A WebSocket hides its socket.
            with socket.socket(fileno=os.dup(sock.fileno())) as twin:
                twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                twin.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def _attach(self, paho: BufferedPaho) -> None:
        sock = paho.socket()
        if sock is None:
            raise ConnectionResetError
        self._paho = paho
        self.opened += 1
        self._fd = sock.fileno()
        self._accepted = self._loop.create_future()
        self._window = MAX_UNACKNOWLEDGED
        self._unacknowledged.clear()
        self._refused.clear()
        self._unsent = 0
        self._refusal = ""
        self._writing = False
        self._loop.add_reader(self._fd, self._guarded, self._read)
        if paho.want_write():
            self._on_register_write(paho)
        self._tick()

    def _drop(self, trouble: str) -> None:
        """End the connection, whoever wants it ended. Does nothing when there is none."""
        paho, self._paho = self._paho, None
        if paho is None:
            return
        self._trouble = trouble
        self._unwatch()
        if self._ticker is not None:
            self._ticker.cancel()
        if (sock := paho.socket()) is not None:
            sock.close()
        error = LostError(trouble)
        for waiting in (self._accepted, *self._subscribed.values()):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
        self._room.set()
        self._on_lost()

    def _unwatch(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
            self._writing = False

    async def _wait_for_room(self) -> None:
        self.check()
        self._room.clear()
        await self._room.wait()

    @staticmethod
    def _properties(message: Message) -> Properties | None:
        if message.correlation is None:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = message.correlation
        return properties

    # what the loop calls

    def _guarded(self, work: Callable[[BufferedPaho], object]) -> None:
        """Run a piece of paho. What it can't digest ends the connection, not the loop."""
        if self._paho is None:
            return
        try:
            work(self._paho)
        except Exception as error:  # noqa: BLE001 - paho raises what it likes over a broken packet
            if not self._failure_told:
                self._failure_told = True
                self._log.exception("connection failed")
            self._drop(f"said what can't be understood ({error})")

    def _read(self, paho: Paho) -> None:
        # What was read or decrypted already is nothing that the loop could see on the socket.
        for _ in range(READS_PER_TURN):
            paho.loop_read()
            if paho is not self._paho or (sock := cast("Wire | None", paho.socket())) is None or not sock.pending():
                break
        else:
            # One at a time: else each turn that the socket asks for would begin another such row of turns.
            if not self._behind:
                self._behind = True
                self._loop.call_soon(self._read_on)
        unacknowledged = self._unacknowledged
        if unacknowledged and unacknowledged[0][0].is_published():
            while unacknowledged and unacknowledged[0][0].is_published():
                info, _, done = unacknowledged.popleft()
                refused = info.mid in self._refused
                self._refused.discard(info.mid)
                if done is not None:
                    done(not refused)
            self._room.set()

    def _read_on(self) -> None:
        self._behind = False
        self._guarded(self._read)

    def _write(self, paho: BufferedPaho) -> None:
        try:
            all_sent = paho.flush()
        except OSError:
            # The broker may have said why before it hung up.
            self._read(paho)
            if paho is self._paho:
                self._drop(troubles.of_silence(0, self._refusal))
            return
        if all_sent and paho is self._paho and self._writing:
            self._loop.remove_writer(self._fd)
            self._writing = False
            self._unsent = 0
            self._room.set()

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(TICK, self._tick)
        self._guarded(Paho.loop_misc)

    # what paho calls; each may come from a connection that was given up

    def _on_register_write(self, paho: Paho, *_: Any) -> None:
        if paho is self._paho and self._fd >= 0 and not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._guarded, self._write)

    def _on_socket_close(self, paho: Paho, *_: Any) -> None:
        if paho is self._paho:
            self._unwatch()

    def _on_connect(
        self, paho: Paho, _: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if paho is not self._paho or self._accepted is None or self._accepted.done():
            return
        if code.is_failure:
            self._drop(troubles.of_refusal(code.value, str(code), self._settings.username, self.id))
            return
        self._window = min(MAX_UNACKNOWLEDGED, getattr(properties, "ReceiveMaximum", MAX_UNACKNOWLEDGED))
        self.backlog = flags.session_present
        self._accepted.set_result(None)

    def _on_disconnect(self, paho: Paho, _: Any, flags: Any, code: ReasonCode, __: Properties | None) -> None:
        if paho is not self._paho:
            return
        if flags.is_disconnect_packet_from_server:
            self._drop(troubles.of_goodbye(code.value, str(code), self.id))
        else:
            self._drop(troubles.of_silence(code.value, self._refusal))

    def _on_message(self, paho: Paho, _: Any, message: MQTTMessage) -> None:
        if paho is not self._paho:
            return
        try:
            properties = message.properties
            self._on_message_cb(
                Message(
                    topic=message.topic,
                    payload=bytes(message.payload),
                    qos=message.qos,
                    retain=message.retain,
                    response_topic=getattr(properties, "ResponseTopic", None),
                    correlation=getattr(properties, "CorrelationData", None),
                    expiry=getattr(properties, "MessageExpiryInterval", None),
                    backlog=self.backlog,
                )
            )
        except Exception:  # noqa: BLE001 - paho would hang up on us
            self._log.exception("message failed", bytes=len(message.payload))

    def _on_subscribe(self, paho: Paho, _: Any, mid: int, codes: list[ReasonCode], __: Any) -> None:
        waiting = self._subscribed.get(mid)
        if paho is self._paho and waiting is not None and not waiting.done():
            waiting.set_result(codes)

    def _on_publish(self, paho: Paho, _: Any, mid: int, code: ReasonCode, __: Any) -> None:
        if paho is not self._paho or not code.is_failure:
            return
        self._refused.add(mid)
        if self._refusal:
            return
        self._refusal = str(code)
        if not self._refusal_told:
            self._refusal_told = True
            self._log.warning("the broker refuses what the gateway publishes", reason=self._refusal)
