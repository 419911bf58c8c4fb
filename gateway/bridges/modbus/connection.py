"""One client's connection: frames in, answers out, strictly in order.

Frames are those of Modbus Messaging on TCP/IP V1.0b, §3.1: transaction id, protocol id (0), length of what
follows, unit; then the PDU of the Modbus Application Protocol V1.1b3. Reads are answered at once from images;
what takes time (a write waits for the journal) goes through a queue, and everything behind it waits its turn.

A client polls the same registers again and again, one request at a time. What such a request resolved to is
remembered with its unit (see `Unit.plans`), so that `data_received` answers it in a few steps; all else takes the
general path below it, which gives the same answers.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from pymodbus.transport import CommParams, CommType, ModbusProtocol

from gateway.bridges.modbus.codes import ExceptionCode
from gateway.bridges.modbus.diagnostics import FUNCTIONS, NotServedError, diagnose
from gateway.bridges.modbus.image import Plan, Unit
from gateway.bridges.modbus.writes import WriteRefusedError

if TYPE_CHECKING:
    from gateway.bridges.modbus.server import Listener

READS: Final = frozenset({0x03, 0x04})
"""Read Holding Registers, Read Input Registers."""
WRITE_SINGLE, WRITE_MULTIPLE = 0x06, 0x10
SHORTEST, LONGEST = 2, 254
"""Lengths an MBAP header may say: unit and function at least, unit and the longest PDU at most."""
MOST_READ: Final = 125
MOST_WRITTEN: Final = 123
MOST_QUEUED: Final = 16
"""Requests that wait behind a slow one. Then nothing more is read until all are answered."""
PULSES: Final = 8
"""Parts of an idle time-out that are told apart."""
MOST_PLANS: Final = 256
"""Requests remembered for one unit."""
BATCH: Final = 32 * 1024
"""Bytes of answers after which they are sent, so that a client who does not read is noticed."""

_HEADER: Final = struct.Struct(">HHHBB")
_ENVELOPE: Final = struct.Struct(">HHHB")
_MBAP: Final = struct.Struct(">HHH")
_RANGE: Final = struct.Struct(">HH")
_READ_HEAD: Final = struct.Struct(">HHBBB")
_READ_REQUEST: Final = 12
"""Bytes."""
_EXCEPTION: Final = struct.Struct(">HHHBBB")

_unpack_header = _HEADER.unpack_from
_unpack_range = _RANGE.unpack_from


class Connection(ModbusProtocol):
    """Serves one client."""

    def __init__(self, listener: "Listener") -> None:
        super().__init__(CommParams(comm_name="modbus", comm_type=CommType.TCP), is_server=True, is_sync=True)
        self._listener = listener
        self._units = listener.units
        self._counts = listener.counts
        self._heard = True
        """Something has come since the last pulse of the idle time-out."""
        self._silence = 0
        """Pulses since then."""
        self._rest = b""
        """Received, not yet looked at: a part of a frame, or all that came after reading was paused."""
        self._queue: deque[bytes] = deque()
        """Frames that wait, the first of them being worked on. Whole frames, headers checked."""
        self._working = False
        """A task answers the queue."""
        self._held = False
        """Reading is paused: the queue was full, or the client does not read its answers."""
        self._clogged = False
        self._half_closed = False
        self._last_refusal: tuple[int, int, str] | None = None
        self._write: Callable[[bytes], None]
        """The transport's, from `callback_connected` on."""
        self.peer = ""
        """The client's `ip:port`."""
        self.role = ""
        """What the client's certificate says it is, or the listener says of all."""
        self.read_only = ""
        """Why this client may not write; empty where it may."""
        self.requests = 0
        self.since = 0.0
        """When it was admitted, on the clock of `Listener`."""

    # what pymodbus and asyncio call

    def callback_connected(self) -> None:
        """Begin, or refuse to."""
        self._write = self._transport.write
        host, port, *_ = self.transport.get_extra_info("peername") or ("?", 0)
        self.peer = f"{host}:{port}"
        if not self._listener.admit(self):
            self.close()

    def callback_disconnected(self, exc: Exception | None) -> None:
        """Nothing more is to be done than `close` does."""

    def data_received(self, data: bytes) -> None:
        """Answer what has come. The case that makes up nearly all traffic first, the general one in `_take`."""
        self._heard = True
        # One read request, with nothing before or behind it, that was asked before: then its unit has a plan for it.
        if len(data) == _READ_REQUEST and not (self._rest or self._queue or self._held):
            unit = self._units.get(data[6])
            plan = unit.plans.get(data[2:]) if unit is not None else None
            if plan is not None and not (plan.gated and plan.image.closed):
                image = plan.image
                if plan.live:
                    image.refresh()
                self._counts.messages += 1
                self.requests += 1
                self._write(data[:2] + plan.head + image.data[plan.start : plan.end])
                return
        self._take(self._rest + data if self._rest else data)
        if self._held and self.transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection (True) of a client who sends no more but waits for answers."""
        self._half_closed = True
        return bool(self._queue or self._held)

    def pause_writing(self) -> None:
        """Answer no more, for the client does not read."""
        self._clogged = self._held = True

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        self._clogged = False
        self._proceed()

    def callback_new_connection(self) -> ModbusProtocol:
        """Not for a connection: only listeners are asked this."""
        raise NotImplementedError

    def close(self, reconnect: bool = False) -> None:
        """End the connection. What a client who does not read has yet to get is thrown away."""
        if self.transport is None:
            return
        if self._clogged:
            self._transport.abort()
        super().close(reconnect)
        self._rest = b""
        self._listener.departed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        super().connection_lost(exc)
        self._rest = b""
        self._listener.departed(self)

    def close_if_idle(self) -> None:
        """Close when the idle time-out is over. Who waits for an answer is not idle, unless it does not read."""
        self._silence = 0 if self._heard else self._silence + 1
        self._heard = False
        if self._silence >= PULSES and (self._clogged or not self._queue):
            self._listener.log.debug("idle connection closed", client=self.peer)
            self.close()

    @property
    def _transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self.transport)

    # frames

    def _take(self, data: bytes) -> None:
        """Answer or queue what can be, keep the rest, or close where that is no Modbus."""
        used = self.callback_data(data)
        self._rest = data[used:] if used < len(data) else b""
        if len(self._rest) >= _MBAP.size and not self._held:
            self._check_header()

    def callback_data(self, data: bytes, addr: tuple[str, int] | None = None) -> int:  # noqa: ARG002 - pymodbus' signature
        """Answer or queue the frames in `data`, until held. Returns how many bytes these were."""
        at, size = 0, len(data)
        replies: list[bytes] = []
        pending = answered = 0
        while not self._held and size - at >= _HEADER.size:
            transaction, protocol, length, unit, function = _unpack_header(data, at)
            if protocol or not SHORTEST <= length <= LONGEST:
                break
            end = at + 6 + length
            if end > size:
                break
            if self._queue or function not in READS:
                self._enqueue(data[at:end])
            else:
                reply = self._read(data, at, transaction, length, unit, function)
                replies.append(reply)
                answered += 1
                pending += len(reply)
                if pending > BATCH:
                    self._transport.write(b"".join(replies))
                    replies.clear()
                    pending = 0
            at = end
        self._counts.messages += answered
        self.requests += answered
        if replies:
            self._transport.write(replies[0] if len(replies) == 1 else b"".join(replies))
        return at

    def _check_header(self) -> None:
        """Close the connection where what follows is no Modbus: there is no telling where a frame begins."""
        _, protocol, length = _MBAP.unpack_from(self._rest)
        if not protocol and SHORTEST <= length <= LONGEST:
            return
        if self._queue:
            self._held = True  # what came before is answered first; see _proceed
            return
        what = f"protocol id {protocol}" if protocol else f"length {length}"
        self._listener.log.warning("no Modbus TCP frame, connection closed", client=self.peer, found=what)
        self.close()

    def _read(self, data: bytes, at: int, transaction: int, length: int, unit: int, function: int) -> bytes:
        """Return the answer to the FC3 or FC4 request at `data[at:]` (V1.1b3 §6.3, §6.4)."""
        registers = self._units.get(unit)
        if registers is None:
            return self._exception(transaction, unit, function, ExceptionCode.GATEWAY_PATH_UNAVAILABLE)
        if length != 6:
            return self._exception(transaction, unit, function, ExceptionCode.ILLEGAL_DATA_VALUE)
        asked = data[at + 2 : at + _READ_REQUEST]
        plan = registers.plans.get(asked)
        if plan is None:
            address, count = _unpack_range(data, at + 8)
            if not 1 <= count <= MOST_READ:
                return self._exception(transaction, unit, function, ExceptionCode.ILLEGAL_DATA_VALUE)
            plan = _plan(registers, asked, address, count)
            if plan is None:
                return self._exception(transaction, unit, function, ExceptionCode.ILLEGAL_DATA_ADDRESS)
        image = plan.image
        if plan.gated and image.closed:
            return self._exception(transaction, unit, function, ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND)
        if plan.live:
            image.refresh()
        return data[at : at + 2] + plan.head + image.data[plan.start : plan.end]

    def _exception(self, transaction: int, unit: int, function: int, code: ExceptionCode) -> bytes:
        """Return an exception response (V1.1b3 §7)."""
        self._counts.exceptions += 1
        return _EXCEPTION.pack(transaction, 0, 3, unit, function | 0x80, code)

    # what takes time

    def _enqueue(self, frame: bytes) -> None:
        self._queue.append(frame)
        if not self._working:
            self._working = True
            self._listener.spawn(self._work(), f"requests of {self.peer}")
        if len(self._queue) >= MOST_QUEUED:
            self._held = True

    async def _work(self) -> None:
        """Answer the queue. Ends when it is empty."""
        while self._queue:
            reply = await self._reply(self._queue[0])
            self._counts.messages += 1
            self.requests += 1
            if self.transport is None:
                self._queue.clear()
                return
            self._transport.write(reply)
            self._queue.popleft()
            self._proceed()
        self._working = False

    def _proceed(self) -> None:
        """Take up again what was held back, once nothing stands against it."""
        if self.transport is None:
            return
        if self._held and not self._queue and not self._clogged:
            self._held = False
            self._take(self._rest)
            if not self._held and self.transport is not None:
                self._transport.resume_reading()
        if self._half_closed and not self._queue and not self._held:
            self.close()

    async def _reply(self, frame: bytes) -> bytes:
        """Return the answer to one frame, whatever happens."""
        transaction, _, length, unit, function = _unpack_header(frame)
        registers = self._units.get(unit)
        try:
            if function in READS:
                return self._read(frame, 0, transaction, length, unit, function)
            if registers is None:
                raise NotServedError(ExceptionCode.GATEWAY_PATH_UNAVAILABLE)
            pdu = await self._execute(registers, unit, frame[7:])
        except (NotServedError, WriteRefusedError) as error:
            if isinstance(error, WriteRefusedError):
                self._tell_refusal(unit, frame, error)
            return self._exception(transaction, unit, function, error.code)
        except Exception:
            self._listener.log.exception("request failed", client=self.peer, request=frame.hex())
            return self._exception(transaction, unit, function, ExceptionCode.SERVER_DEVICE_FAILURE)
        return _ENVELOPE.pack(transaction, 0, len(pdu) + 1, unit) + pdu

    async def _execute(self, registers: Unit, unit: int, pdu: bytes) -> bytes:
        """Return the answer's PDU to any request but a read. Raises NotServedError or WriteRefusedError."""
        function = pdu[0]
        if function in FUNCTIONS:
            counts = self._counts
            return await diagnose(self._listener.decoder, unit, pdu, counts.messages, counts.exceptions)
        if function not in {WRITE_SINGLE, WRITE_MULTIPLE}:
            raise NotServedError(ExceptionCode.ILLEGAL_FUNCTION)
        if self.read_only:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_FUNCTION, self.read_only)
        payload = pdu[3:] if function == WRITE_SINGLE else pdu[6:]
        if not _well_formed(pdu):
            raise NotServedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        await self._listener.write(registers, self.role, self.peer, int.from_bytes(pdu[1:3], "big"), payload)
        self._last_refusal = None
        # FC6 echoes the request, FC16 its address and quantity; both are its first five bytes.
        return pdu[:5]

    def _tell_refusal(self, unit: int, frame: bytes, error: WriteRefusedError) -> None:
        """Log why a write was refused: the client learns but a number. Once, where it keeps trying."""
        refusal = unit, int.from_bytes(frame[8:10], "big"), str(error)
        if refusal != self._last_refusal:
            self._last_refusal = refusal
            self._listener.log.info(
                "write refused",
                client=self.peer,
                unit=unit,
                address=refusal[1],
                answer=f"exception {error.code:02X}",
                why=str(error),
            )


def _plan(registers: Unit, asked: bytes, address: int, count: int) -> Plan | None:
    """Find out how to answer a read, and remember it. None where the range is not in one block."""
    found = registers.find(address)
    if found is None or address + count > found[1].end:
        return None
    image, span = found
    size = 2 * count
    start = 2 * address + span.shift
    unit, function = asked[4:6]
    gated = span.gated and span.shut(address, count)
    plan = Plan(_READ_HEAD.pack(0, size + 3, unit, function, size), image, start, start + size, gated, span.live)
    if len(registers.plans) >= MOST_PLANS:
        registers.plans.clear()  # clients that ask the same again and again are soon back in it
    registers.plans[asked] = plan
    return plan


def _well_formed(pdu: bytes) -> bool:
    """Return whether a write request's lengths agree (V1.1b3 §6.6, §6.12)."""
    if pdu[0] == WRITE_SINGLE:
        return len(pdu) == 5
    if len(pdu) < 6:
        return False
    quantity, size = int.from_bytes(pdu[3:5], "big"), pdu[5]
    return 1 <= quantity <= MOST_WRITTEN and size == 2 * quantity == len(pdu) - 6
