"""One client's connection: frames in, answers out, strictly in order.

Frames are those of Modbus Messaging on TCP/IP V1.0b, §3.1: transaction id, protocol id (0), length of what
follows, unit; then the PDU of the Modbus Application Protocol V1.1b3. Reads are answered at once from images;
what takes time (a write waits for the journal) goes through a queue, and everything behind it waits.

A client polls the same registers again and again, one request at a time. What such a request resolved to is
remembered with its unit (see `Unit.plans`), so that `data_received` answers it in a few steps; all else takes the
general path below it, which gives the same answers.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import msgspec
import structlog

from gateway.bridges.modbus import requests, tls
from gateway.bridges.modbus.access_policy import AccessPolicy
from gateway.bridges.modbus.codes import ExceptionCode, ExceptionResponseError
from gateway.bridges.modbus.counts import Counts
from gateway.bridges.modbus.diagnostics import FUNCTIONS, Identity, diagnose
from gateway.bridges.modbus.image import Plan, Unit
from gateway.bridges.modbus.requests import MAX_READ_REGISTERS, READS, RefusalLog, Write
from gateway.bridges.modbus.settling import WriteRefusedError
from gateway.core.timer import Timer
from gateway.http.acceptor import Seat

SHORTEST, LONGEST = 2, 254
"""Lengths an MBAP header may say: unit and function at least, unit and the longest PDU at most."""
MAX_QUEUED_REQUESTS: Final = 16
"""Requests that wait behind a slow one. Then nothing more is read until all are answered."""
LINGER: Final = 10.0
"""Seconds for a client to read the rest of its answers once its connection is closed."""
MAX_REMEMBERED_REQUESTS: Final = 256
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

_unpack_header = _HEADER.unpack_from
_unpack_range = _RANGE.unpack_from


class Service(msgspec.Struct):
    """What all connections of a listener share."""

    units: dict[int, Unit]
    """Unit → its registers."""
    write: Write
    policy: AccessPolicy
    spawn: Callable[[Coroutine[Any, Any, None], str], None]
    log: structlog.stdlib.BoundLogger
    identity: Identity
    counts: Counts


class Connection(asyncio.Protocol):
    """Serves one client."""

    def __init__(self, service: Service, seat: "Seat[Connection]") -> None:
        self._service = service
        self._units = service.units
        self._counts = service.counts
        self._seat = seat
        self._time = asyncio.get_running_loop().time
        self.heard_at = self._time()
        """When something last came, or was answered late, on the loop's clock; at first, when it connected."""
        self.transport: asyncio.Transport | None = None
        """None before the connection is there, and once it is closed."""
        self._closed = False
        self._rest = b""
        """Received, not yet looked at: a part of a frame, or all that came after reading was paused."""
        self._queue: deque[tuple[bytes, float]] = deque()
        """Frames that wait, and since when; the first of them is worked on. Whole frames, headers checked."""
        self._working = False
        """A task answers the queue."""
        self._held = False
        """Reading is paused: the queue was full, or the client does not read its answers."""
        self._clogged = False
        self._half_closed = False
        self._refusals = RefusalLog(service.log)
        self._write: Callable[[bytes], None]
        """The transport's."""
        self.peer = seat.peer
        """The client's `ip:port`."""
        self.role = ""
        """What the client's certificate says it is, or the listener says of all."""
        self.read_only = ""
        """Why this client may not write; empty where it may."""
        self.requests = 0
        self._lingering = Timer(seat.abort)
        self.since = 0.0
        """When it could be spoken over, on the loop's clock."""

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        transport = cast("asyncio.Transport", transport)
        if self._closed:
            transport.abort()
            return
        self.transport, self._write = transport, transport.write
        policy = self._service.policy
        shown = transport.get_extra_info("ssl_object")
        self.role = tls.role(shown.getpeercert(binary_form=True)) if shown else policy.role
        self.read_only = policy.why_read_only(self.role)
        self.since = self._time()

    def data_received(self, data: bytes) -> None:
        """Answer what has come. The case that makes up nearly all traffic first, the general one in `_take`."""
        self.heard_at = self._time()
        # One read request, with nothing before or behind it, that came before: then its unit has a plan for it.
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
            self.transport.pause_reading()

    def eof_received(self) -> bool:
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

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Forget the client."""
        self.transport, self._closed, self._rest = None, True, b""
        self._lingering.cancel()
        self._seat.leave()

    # what the listener calls

    def close(self) -> None:
        """End the connection. What a client who does not read has yet to get is thrown away."""
        transport, self.transport = self.transport, None
        self._closed, self._rest = True, b""
        if transport is None:
            return
        if self._clogged:
            transport.abort()
        transport.close()
        if transport.get_write_buffer_size():
            self._lingering.set(LINGER)

    def abort(self) -> None:
        """End the connection at once, also while its TLS handshake is under way."""
        self._seat.abort()
        if self.transport is None:
            self._seat.leave()
        self.close()

    @property
    def is_busy(self) -> bool:
        """Whether its client waits for an answer, or it has been closed: then there is nothing to close for another."""
        waits = bool(self._queue) and not self._clogged
        return waits or self._closed

    def close_if_idle(self, timeout: float) -> None:
        """Close when the idle time-out is over. Who waits for an answer is not idle, unless it does not read."""
        if not self.is_busy and self._time() - self.heard_at >= timeout:
            self._service.log.debug("idle connection closed", client=self.peer)
            self.close()

    # frames

    def _take(self, data: bytes) -> None:
        """Answer or queue what can be, keep the rest, or close where that is no Modbus."""
        used = self._answer(data)
        self._rest = data[used:] if used < len(data) else b""
        if len(self._rest) >= _MBAP.size and not self._held:
            self._check_header()

    def _answer(self, data: bytes) -> int:
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
                    self._write(b"".join(replies))
                    replies.clear()
                    pending = 0
            at = end
        self._counts.messages += answered
        self.requests += answered
        if replies:
            self._write(replies[0] if len(replies) == 1 else b"".join(replies))
        return at

    def _check_header(self) -> None:
        """Close the connection where what follows is no Modbus: where the next frame begins is unknown."""
        _, protocol, length = _MBAP.unpack_from(self._rest)
        if not protocol and SHORTEST <= length <= LONGEST:
            return
        if self._queue:
            self._held = True  # what came before is answered first; see _proceed
            return
        what = f"protocol id {protocol}" if protocol else f"length {length}"
        self._service.log.warning("no Modbus TCP frame, connection closed", client=self.peer, found=what)
        self.close()

    def _read(self, data: bytes, at: int, transaction: int, length: int, unit: int, function: int) -> bytes:
        """Return the answer to the FC3 or FC4 request at `data[at:]`."""
        registers = self._units.get(unit)
        if registers is None:
            return self._exception(transaction, unit, function, ExceptionCode.GATEWAY_PATH_UNAVAILABLE)
        asked = data[at + 2 : at + 6 + length]
        plan = registers.plans.get(asked) or _plan(registers, asked)
        if plan is None:
            try:
                return self._frame(transaction, unit, requests.read(registers, asked[5:]))
            except ExceptionResponseError as error:
                return self._exception(transaction, unit, function, error.code)
        image = plan.image
        if plan.gated and image.closed:
            return self._exception(transaction, unit, function, ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND)
        if plan.live:
            image.refresh()
        return data[at : at + 2] + plan.head + image.data[plan.start : plan.end]

    def _exception(self, transaction: int, unit: int, function: int, code: ExceptionCode) -> bytes:
        self._counts.exceptions += 1
        return self._frame(transaction, unit, requests.exception(function, code))

    @staticmethod
    def _frame(transaction: int, unit: int, pdu: bytes) -> bytes:
        return _ENVELOPE.pack(transaction, 0, len(pdu) + 1, unit) + pdu

    # what takes time

    def _enqueue(self, frame: bytes) -> None:
        self._queue.append((frame, self._time()))
        if not self._working:
            self._working = True
            self._service.spawn(self._work(), f"requests of {self.peer}")
        if len(self._queue) >= MAX_QUEUED_REQUESTS:
            self._held = True

    async def _work(self) -> None:
        """Answer the queue. Ends when it is empty."""
        while self._queue:
            reply = await self._reply(*self._queue[0])
            self._counts.messages += 1
            self.requests += 1
            if self.transport is None:
                self._queue.clear()
                return
            self._write(reply)
            self.heard_at = self._time()
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
                self.transport.resume_reading()
        if self._half_closed and not self._queue and not self._held:
            self.close()

    async def _reply(self, frame: bytes, received: float) -> bytes:
        """Return the answer to one frame, whatever happens."""
        transaction, _, length, unit, function = _unpack_header(frame)
        try:
            if function in READS:
                return self._read(frame, 0, transaction, length, unit, function)
            return self._frame(transaction, unit, await self._execute(unit, frame[7:], received))
        except ExceptionResponseError as error:
            if isinstance(error, WriteRefusedError):
                self._refusals.refused(error, self.peer, int.from_bytes(frame[8:10], "big"), unit=unit)
            return self._exception(transaction, unit, function, error.code)
        except Exception:
            self._service.log.exception("request failed", client=self.peer, request=frame.hex())
            return self._exception(transaction, unit, function, ExceptionCode.SERVER_DEVICE_FAILURE)

    async def _execute(self, unit: int, pdu: bytes, received: float) -> bytes:
        """Return the answer's PDU to any request but a read. Raises ExceptionResponseError."""
        registers, function = self._units.get(unit), pdu[0]
        if registers is None:
            raise ExceptionResponseError(ExceptionCode.GATEWAY_PATH_UNAVAILABLE)
        if function in FUNCTIONS:
            counts = self._counts
            return diagnose(self._service.identity, pdu, counts.messages, counts.exceptions)
        if self.read_only and function in requests.WRITES:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_FUNCTION, self.read_only)
        payload = requests.payload_of(pdu)
        address, waited = int.from_bytes(pdu[1:3], "big"), self._time() - received
        await self._service.write(registers, self.role, self.peer, address, payload, waited)
        self._refusals.taken()
        return requests.written(pdu)


def _plan(registers: Unit, asked: bytes) -> Plan | None:
    """Find out how to answer a read, and remember it. None where the range is not in one block, or is none."""
    if len(asked) != _READ_REQUEST - 2:
        return None
    address, count = _unpack_range(asked, 6)
    found = registers.find(address)
    if found is None or not 1 <= count <= MAX_READ_REGISTERS or address + count > found[1].end:
        return None
    image, span = found
    size = 2 * count
    start = 2 * address + span.shift
    unit, function = asked[4:6]
    gated = span.gated and span.shut(address, count)
    plan = Plan(_READ_HEAD.pack(0, size + 3, unit, function, size), image, start, start + size, gated, span.live)
    if len(registers.plans) >= MAX_REMEMBERED_REQUESTS:
        registers.plans.clear()  # clients that ask the same again and again are soon back in it
    registers.plans[asked] = plan
    return plan
