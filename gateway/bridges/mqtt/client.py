"""paho-mqtt on the asyncio loop, without its thread.

paho does the protocol; the loop watches its socket. Only opening a connection blocks (names, TCP, TLS), so
that alone runs in a thread. Each connection has a paho client of its own: nothing is left over from the last.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import msgspec
import structlog
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.bridges.mqtt import suspicion, troubles
from gateway.bridges.mqtt.families import family
from gateway.bridges.mqtt.limits import Why
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.suspicion import Suspicion
from gateway.bridges.mqtt.under_way import Outgoing, UnderWay, key_of, sent_filter
from gateway.bridges.mqtt.unsent import Unsent
from gateway.bridges.mqtt.wire import BufferedPaho, Wire
from gateway.core.clock import Clock
from gateway.core.rare_log import RareLog
from gateway.core.timer import Timer

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
BURST: Final = 0.1
"""Seconds of `limits.rate` that may go out at once."""
TICK: Final = 1.0
"""Seconds between looks at the keep-alive."""
DISCONNECT_WITH_WILL: Final = ReasonCode(PacketTypes.DISCONNECT, identifier=4)

_PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


OnRetained = Callable[[str, bytes, int, Callable[[bool], None] | None], Callable[[bool], None] | None]


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
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        on_unsent: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self.id = client_id
        self.will = will
        """Of the next connection."""
        self.opened = 0
        """How many connections got as far as CONNECT."""
        self._on_message_cb = on_message
        self._on_lost = on_lost
        self.on_retained: OnRetained = lambda _topic, _payload, _qos, done: done
        """Called with what the broker is to keep, or to forget; what it returns takes the place of `done`."""
        self._clock = clock
        """A wrong one is a cause of trouble with certificates."""
        self._log = log
        self._rarely = RareLog(log)
        self._loop = asyncio.get_running_loop()
        self._v5 = settings.protocol == "5"
        self.backlog = False
        """Whether the broker may still be delivering what waited for us in a kept session."""
        self._paho: BufferedPaho | None = None
        """The connection's; None while there is none. A callback of another is an echo of the past."""
        self._fd = -1
        self._writing = False
        self._ticker = Timer(self._tick)
        self._accepted: asyncio.Future[None] | None = None
        self._subscribed: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._trouble = "is not connected"
        self._told = settings.broker_limits
        """What the settings say of the broker."""
        self.limits = self._told
        """Of the connection, and before the first one of the settings."""
        self._will_limits = self._told
        """What a will may have: CONNECT goes out before the broker says what it takes."""

        def kind(topic: str) -> str:
            return family(settings.base, topic)

        self.unsent = Unsent(kind, log, on_unsent)
        self._suspicion = Suspicion(kind, self._loop.time)
        self._trying = False
        """Whether what is under way are suspects, and nothing else is."""
        self._leaving = False
        self._accepted_at = 0.0
        self._turn = 0.0
        """Time from which on the next message may be sent, where `limits` has a rate."""
        self._under_way = UnderWay(self._suspicion, self.unsent)
        self._unsent = 0
        self._since_yield = 0
        self._behind = False
        """Whether the loop will have us read on, unasked by the socket."""
        self._room = asyncio.Event()
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
        except ConnectionRefusedError as error:
            # It is started anew, perhaps with other rules.
            self._suspicion.forgive()
            raise ConnectError(troubles.of_error(error, self._clock.now())) from error
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                self._suspicion.broker_was_away()
            self._drop("did not accept the connection in time")
            raise ConnectError(troubles.of_error(error, self._clock.now())) from error
        except BaseException:
            self._drop("was not waited for")
            raise
        self._log.debug("connected", client_id=self.id, limits=self.limits)

    async def disconnect(self, timeout: float, *, with_will: bool = False) -> None:
        """Say goodbye; after `timeout` seconds just hang up.

        No will is published then, unless, in MQTT 5 only, `with_will` asks for it (MQTT 5.0 §3.14.2.1, 0x04).
        """
        with suppress(TimeoutError, LostError):
            async with asyncio.timeout(timeout):
                while self._paho is not None and (self._under_way or self._writing):
                    await self._wait_for_room()
                self._leaving = True
                if self._paho is not None:
                    self._paho.disconnect(DISCONNECT_WITH_WILL if with_will and self._v5 else None)
                while self._paho is not None:
                    await self._wait_for_room()
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
        unique: bool = False,
        done: Callable[[bool], None] | None = None,
    ) -> bool:
        """Hand over a message, within the broker's limits; wait while too many are under way. Raises LostError.

        Returns False for what the broker can't take, or has hung up on: it is left out, and logged. `unique`: the next
        message at this topic is another one, not a newer one. With QoS 1 or 2 `done` is called when the broker has
        acknowledged it, with whether it accepted it; never, where the connection ends before.
        """
        self.check()
        limits = self.limits
        correlation = kept.correlation if kept else None
        if not self._fits(topic, payload, correlation):
            return False
        if retain and not limits.retain:
            if not payload:
                # The broker keeps nothing that this could clear.
                return True
            retain = False
        qos = min(qos, limits.qos)
        if limits.rate:
            await self._wait_for_turn(limits.rate)
        unique = unique or kept is not None
        if self._suspicion.suspects:
            await self._with_care(key_of(topic, payload, unique=unique))
        while self._unsent >= MAX_UNSENT or len(self._under_way) >= limits.in_flight:
            await self._wait_for_room()
        paho = self._paho
        if paho is None:
            raise LostError(self._trouble)
        if retain:
            done = self.on_retained(topic, payload, qos, done)
        if correlation is None:
            info = paho.publish_plain(topic, payload, qos, retain)
        else:
            info = paho.publish(topic, payload, qos, retain, self._properties(correlation))
        self._unsent += 1
        if qos:
            self._under_way.add(Outgoing(info, topic, payload, unique, kept, done))
        else:
            self._under_way.add_unacknowledged(topic, len(payload), self._loop.time())
            if self._trying:
                self._ping()
        if self._unsent % FLUSH_EVERY == 0:
            self._guarded(self._write)
        self._since_yield += 1
        if self._since_yield >= YIELD_EVERY:
            self._since_yield = 0
            await asyncio.sleep(0)
        return True

    async def send(self, message: Message) -> bool:
        """Publish a message that must arrive: `take_back` has it while the broker has not confirmed it."""
        return await self.publish(message.topic, message.payload, message.qos, message.retain, kept=message)

    def room(self, topic: str, correlation: bytes | None = None) -> int:
        """Return how many bytes a payload at this topic may have."""
        return min(self.limits.room(topic, correlation), self._suspicion.room(topic))

    def _fits(self, topic: str, payload: bytes, correlation: bytes | None) -> bool:
        """Return whether the broker takes such a message; report it where it does not."""
        limits, size = self.limits, len(payload)
        why = limits.against(topic, size, correlation)
        limit = limits.room(topic, correlation) if why is Why.TOO_LARGE else None
        if why is None and self._suspicion.bars(topic, size):
            why = Why.HUNG_UP
        if why is None:
            return True
        self.unsent.add(why, topic, size, limit=limit)
        return False

    async def _wait_for_turn(self, rate: float) -> None:
        now = self._loop.time()
        self._turn = max(self._turn, now - BURST) + 1 / rate
        if self._turn > now:
            await self._pause(self._turn - now)

    async def _with_care(self, key: Hashable) -> None:
        """Wait until a message may be sent while there are suspects: few at a time, with nothing beside them."""
        if key in self._suspicion.suspects:
            # First the connection has to prove that it works without.
            await self._pause(self._accepted_at + suspicion.PROVEN_AFTER - self._loop.time())
            if not self._trying:
                await self._settle(1)
                self._trying = True
            await self._settle(self._suspicion.at_once)
        elif self._trying:
            await self._settle(1)
            self._trying = False

    async def _settle(self, fewer: int) -> None:
        """Wait until fewer than so many messages are under way. Of a broker that is slow nothing can be learnt."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                while self._under_way.unanswered >= fewer:
                    self._ping()
                    await self._wait_for_room()
        except TimeoutError:
            self._suspicion.suspects.clear()

    def _ping(self) -> None:
        """Have the broker show that it bears what was sent with QoS 0."""
        if self._paho is not None and self._under_way.needs_ping():
            self._paho.ping()

    async def _pause(self, seconds: float) -> None:
        """Wait, while there is a connection. Raises LostError."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self._wait_for_room()

    def take_back(self) -> list[Message]:
        """Return, once, what `send` had under way when the connection was lost, oldest first."""
        return self._under_way.take_back()

    async def subscribe(self, filters: Sequence[str], fresh: Sequence[str] = ()) -> None:
        """Subscribe with QoS 1, to as much as the broker takes and grants. Raises LostError.

        Of `fresh` ones only what is published from now on is wanted; a retained message that comes has its flag.
        """
        # As published: a retained request is known as one also when it is published while we listen.
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        new_only = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        how = dict.fromkeys(filters, options) | dict.fromkeys(fresh, new_only)
        for packet in self.limits.packets([filter_ for filter_ in how if self._may_subscribe(filter_)]):
            suspects = [filter_ for filter_ in packet if sent_filter(filter_).key in self._suspicion.suspects]
            if not suspects:
                await self._subscribe(packet, how)
                continue
            if rest := [filter_ for filter_ in packet if filter_ not in suspects]:
                await self._subscribe(rest, how)
            while suspects:
                await self._with_care(sent_filter(suspects[0]).key)
                some = suspects[: self._suspicion.at_once]
                del suspects[: len(some)]
                await self._subscribe(some, how)

    def _may_subscribe(self, filter_: str) -> bool:
        why = self.limits.against_filter(filter_)
        sent = sent_filter(filter_)
        if why is None and self._suspicion.bars(sent.topic, 0):
            why = Why.HUNG_UP
        if why is not None:
            self.unsent.add(why, sent.topic, 0)
        return why is None

    async def _subscribe(self, filters: Sequence[str], how: dict[str, SubscribeOptions]) -> None:
        """Send one SUBSCRIBE and wait for its answer. Raises LostError."""
        self.check()
        paho = cast("Paho", self._paho)
        self._under_way.subscribing = filters
        if self._v5:
            _, mid = paho.subscribe([(filter_, how[filter_]) for filter_ in filters])
        else:
            _, mid = paho.subscribe([(filter_, 1) for filter_ in filters])
        if mid is None:
            raise LostError(self._trouble)
        answer = self._subscribed[mid] = self._loop.create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                codes = await answer
        except TimeoutError:
            self._drop("does not answer to SUBSCRIBE")
            self.check()
        finally:
            self._subscribed.pop(mid, None)
        self._under_way.subscribing = ()
        for filter_, code in zip(filters, codes, strict=False):
            self._suspicion.acquit(sent_filter(filter_))
            self.unsent.accepted(sent_filter(filter_).topic)
            if code.is_failure:
                self.unsent.add(Why.REFUSED, sent_filter(filter_).topic, 0, said=str(code))

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
        will, bounds = self.will, self._will_limits
        paho.will_set(will.topic, will.payload, min(will.qos, bounds.qos), will.retain and bounds.retain)
        paho.on_connect = self._on_connect
        paho.on_disconnect = self._on_disconnect
        paho.on_message = self._on_message
        paho.on_plain = partial(self._on_plain, paho)
        paho.on_subscribe = self._on_subscribe
        paho.on_refused = self._under_way.refuse
        paho.on_pong = self._on_pong
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
        self._under_way.begin()
        self._trying = self._leaving = False
        self._unsent = 0
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
        self._ticker.cancel()
        if (sock := paho.socket()) is not None:
            sock.close()
        error = LostError(trouble)
        for waiting in (self._accepted, *self._subscribed.values()):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
        self._room.set()
        self._on_lost()

    def _hang_up(self, code: int, name: str, *, said: bool) -> None:
        """Take in that the broker has ended the connection; `said`: it gave this code itself."""
        paho = cast("BufferedPaho", self._paho)
        # What came just before the end.
        self._under_way.take_acknowledged()
        unproven = self._under_way.unproven(self._loop.time())
        if said:
            trouble = troubles.of_goodbye(code, name, self.id, unproven)
        elif paho.error is not None and isinstance(paho.error, ssl.SSLError):
            trouble = troubles.of_error(paho.error, self._clock.now())
        elif not self.connected:
            trouble = troubles.TOO_EARLY
        else:
            asked = [*map(sent_filter, self._under_way.subscribing)]  # at the beginning of a connection only
            trouble = troubles.of_silence(code, self._suspicion.known_of(unproven) or asked)
        if self.connected and not self._leaving and troubles.is_over_a_message(code, said=said):
            # Some brokers hang up on who does again what they have refused.
            for one in self._under_way.refused.values():
                self._suspicion.strike(one)
            if self._under_way.refused and not said:
                trouble = troubles.of_refused(list(self._under_way.refused))
            proven = self._loop.time() - self._accepted_at >= suspicion.PROVEN_AFTER
            self._suspicion.ended(unproven, proven=proven)
        self._drop(trouble)

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
    def _properties(correlation: bytes) -> Properties:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.CorrelationData = correlation
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
        if self._under_way.take_acknowledged():
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
                self._hang_up(0, "", said=False)
            return
        if all_sent and paho is self._paho and self._writing:
            self._loop.remove_writer(self._fd)
            self._writing = False
            self._unsent = 0
            self._room.set()

    def _tick(self) -> None:
        self._ticker.set(TICK)
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
            if code.value == troubles.NO_RETAIN:
                self._will_limits = msgspec.structs.replace(self._will_limits, retain=False)
            elif code.value == troubles.LOWER_QOS:
                highest = getattr(properties, "MaximumQoS", self.will.qos - 1)
                self._will_limits = msgspec.structs.replace(self._will_limits, qos=max(0, highest))
            elif code.value in troubles.AWAY:
                self._suspicion.broker_was_away()
            self._drop(troubles.of_refusal(code.value, str(code), self._settings.username, self.id))
            return
        limits = self._told.told(properties)
        changed = limits != self.limits
        if changed and self._accepted_at:
            self._suspicion.forgive()
        self.limits = self._will_limits = limits
        self.unsent.connected(other_limits=changed)
        self._accepted_at = self._loop.time()
        kept = getattr(properties, "SessionExpiryInterval", self._settings.session_expiry)
        if kept < self._settings.session_expiry:
            self._log.warning("the broker keeps sets for a shorter time than session_expiry", seconds=kept)
        self.backlog = flags.session_present
        self._accepted.set_result(None)

    def _on_pong(self) -> None:
        self._under_way.pong()
        self._room.set()

    def _on_disconnect(self, paho: Paho, _: Any, flags: Any, code: ReasonCode, __: Properties | None) -> None:
        if paho is self._paho:
            self._hang_up(code.value, str(code), said=flags.is_disconnect_packet_from_server)

    def _on_message(self, paho: Paho, _: Any, message: MQTTMessage) -> None:
        if paho is not self._paho:
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._rarely.warning("topic", "a message is passed over: its topic is no UTF-8", bytes=len(message.payload))
            return
        try:
            properties = message.properties
            self._on_message_cb(
                Message(
                    topic=topic,
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

    def _on_plain(self, paho: Paho, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if paho is not self._paho:
            return
        try:
            self._on_message_cb(Message(topic=topic, payload=payload, qos=qos, retain=retain, backlog=self.backlog))
        except Exception:  # noqa: BLE001 - the connection would be given up
            self._log.exception("message failed", bytes=len(payload))

    def _on_subscribe(self, paho: Paho, _: Any, mid: int, codes: list[ReasonCode], __: Any) -> None:
        waiting = self._subscribed.get(mid)
        if paho is self._paho and waiting is not None and not waiting.done():
            waiting.set_result(codes)
