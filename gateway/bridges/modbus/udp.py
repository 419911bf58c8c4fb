"""Modbus over UDP as GoodWe's WiFi modules speak it, on the `goodwe` map. Off by default.

A request is a frame of Modbus RTU in one datagram: address, PDU, CRC. Its answer is the same behind AA 55. Some clients
ask first who is there, in a protocol without registers that begins with AA 55; that one question is answered.
Facts: PyPI `goodwe` 0.4 protocol.py and modbus.py, evcc meter/goodwe-wifi.go.

Anybody can send a datagram with any address as its source. So what is not a whole request is passed over in silence,
answers are limited by source, and nothing is written but for those whom the configuration names.
"""

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from gateway.bridges.modbus import requests
from gateway.bridges.modbus.codes import ExceptionCode, ExceptionResponseError
from gateway.bridges.modbus.counts import Counts
from gateway.bridges.modbus.image import Unit
from gateway.bridges.modbus.maps.goodwe.rows import GOODWE
from gateway.bridges.modbus.requests import RefusalLog, Write
from gateway.bridges.modbus.settings import UdpSettings
from gateway.bridges.modbus.settling import WriteRefusedError
from gateway.core.clock import Clock
from gateway.core.rare_log import RareLog
from gateway.http.addresses import address_of, home, within

HEAD: Final = b"\xaa\x55"
OWN_ADDRESSES: Final = (0xF7, 0x7F)
"""What clients call the one inverter behind a WiFi module, whatever it is: hybrids, and string inverters or evcc."""
SHORTEST, LONGEST = 4, 256
"""Bytes of an RTU frame: address, function and CRC at least."""
WHO_IS_THERE: Final = bytes.fromhex("aa55c07f0102000241")
_HERE: Final = bytes.fromhex("aa557fc00182")
MODEL: Final = struct.pack(">HH", 40173, 8)
"""Where evcc finds the name of the model, with which it begins. Not of the map: SunSpec's registers are there."""
BURST, PER_SECOND = 500.0, 100.0
"""Requests of one source: the library reads each setting by itself, a hundred in a row."""
MAX_SOURCES: Final = 1000
MAX_WRITES: Final = 16
"""Writes under way at a time."""


class UdpListener(asyncio.DatagramProtocol):
    """One UDP port, with one inverter at the default address."""

    def __init__(
        self,
        name: str,
        settings: UdpSettings,
        host: str,
        *,
        find: Callable[[int], Unit | None],
        write: Write,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._name = name
        self._settings = settings
        self._host = settings.host or host
        self._find = find
        """Returns the unit that an address means."""
        self._write = write
        self._spawn = spawn
        self._clock = clock
        self._log = log
        self._rarely = RareLog(log)
        self._transport: asyncio.DatagramTransport | None = None
        self._sources: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Source → requests left to it, and when that was so."""
        self._writing = 0
        self._clogged = False
        self._refusals = RefusalLog(log)
        self.counts = Counts()

    @property
    def port(self) -> int:
        """The port it really listens on; 0 while it does not."""
        return int(self._transport.get_extra_info("sockname")[1]) if self._transport else 0

    async def start(self) -> None:
        """Listen. Raises OSError that says what to do."""
        loop = asyncio.get_running_loop()
        address = (self._host or "0.0.0.0", self._settings.port)  # noqa: S104 - "" means that
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=address)
        except OSError as error:
            raise OSError(
                f"can't listen on UDP port {self._settings.port} of {self._host} ({error}); set "
                f"bridges.{self._name}.udp to another port or host"
            ) from error
        self._log.info("listening", host=self._host, port=self.port, protocol="udp")

    def stop(self) -> None:
        """Close the port."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # what asyncio calls

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer what is a request; all else is passed over."""
        allow = self._settings.allow
        source = address_of(addr[0])
        if (allow is not None and not within(source, allow)) or not self._may_ask(home(source)):
            return
        if data == WHO_IS_THERE:
            self._introduce(addr)
        elif SHORTEST <= len(data) <= LONGEST and _crc(data[:-2]) == data[-2:]:
            unit = self._find(data[0])
            if unit is not None:
                self.counts.messages += 1
                self._ask(unit, data[0], bytes(data[1:-2]), addr)

    def pause_writing(self) -> None:
        """Leave answers out: the system does not take them."""
        self._clogged = True

    def resume_writing(self) -> None:
        """Answer again."""
        self._clogged = False

    def error_received(self, exc: Exception) -> None:
        """Do nothing: a client has gone, and its system says so."""

    # requests

    def _may_ask(self, source: str) -> bool:
        now = self._clock.monotonic()
        left, at = self._sources.pop(source, (BURST, now))
        left = min(BURST, left + (now - at) * PER_SECOND)
        self._sources[source] = (max(left - 1, 0.0), now)
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        if left >= 1:
            return True
        self._rarely.warning("udp too many", "too many requests over UDP, some are not answered", client=source)
        return False

    def _ask(self, unit: Unit, address: int, pdu: bytes, client: tuple[str, int]) -> None:
        function = pdu[0]
        try:
            if function in requests.READS:
                self._answer(address, _read(unit, pdu), client)
                return
            if self._settings.read_only:
                raise ExceptionResponseError(ExceptionCode.ILLEGAL_FUNCTION)
            payload = requests.payload_of(pdu)
            if self._writing >= MAX_WRITES:
                raise ExceptionResponseError(ExceptionCode.SERVER_DEVICE_BUSY)
        except ExceptionResponseError as error:
            self._answer(address, requests.exception(function, error.code), client)
            return
        self._writing += 1
        self._spawn(self._execute(unit, address, pdu, payload, client), f"udp write of {client[0]}")

    async def _execute(self, unit: Unit, address: int, pdu: bytes, payload: bytes, client: tuple[str, int]) -> None:
        """Execute a write as one over TCP is, and answer."""
        first = int.from_bytes(pdu[1:3], "big")
        peer = f"{client[0]}:{client[1]}"
        try:
            await self._write(unit, self._settings.role or "", peer, first, payload)
        except WriteRefusedError as error:
            self._refusals.refused(error, peer, first, serial=unit.serial)
            answer = requests.exception(pdu[0], error.code)
        except Exception:  # noqa: BLE001 - whatever happens, the client gets an answer, and the port goes on
            self._log.exception("request failed", client=peer, request=pdu.hex())
            answer = requests.exception(pdu[0], ExceptionCode.SERVER_DEVICE_FAILURE)
        else:
            self._refusals.taken()
            answer = requests.written(pdu)
        finally:
            self._writing -= 1
        self._answer(address, answer, client)

    def _introduce(self, client: tuple[str, int]) -> None:
        """Say which model and serial number there is, and nothing where no inverter is served."""
        unit = self._find(OWN_ADDRESSES[0])
        known = unit.read(35003, 13) if unit is not None else None
        if known is None:
            return
        self.counts.messages += 1
        serial, model = known[:16], known[16:26]
        payload = b"     " + model + bytes(16) + serial + bytes(4) + b" " * 12 + bytes(14)
        answer = _HERE + bytes([len(payload)]) + payload
        self._send(answer + sum(answer).to_bytes(2, "big"), client)

    def _answer(self, address: int, pdu: bytes, client: tuple[str, int]) -> None:
        self.counts.exceptions += pdu[0] >= 0x80
        body = bytes([address]) + pdu
        self._send(HEAD + body + _crc(body), client)

    def _send(self, answer: bytes, client: tuple[str, int]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._clogged:
            return
        try:
            transport.sendto(answer, client)
        except (OSError, ValueError) as error:
            # A forged source may be no address that can be sent to, port 0 for one.
            self._log.debug("an answer over UDP can't be sent", client=client[0], error=str(error))


def only_goodwe(unit: Unit | None) -> Unit | None:
    """Return a unit with its `goodwe` registers alone; None where it has none."""
    images = [image for image in unit.images if image.layout.map.name == GOODWE.name] if unit is not None else []
    return Unit(unit.serial, images) if unit is not None and images else None


def _read(unit: Unit, pdu: bytes) -> bytes:
    """Return the answer's PDU to a read. Raises ExceptionResponseError."""
    known = _model(unit) if pdu[1:] == MODEL else None
    return requests.read(unit, pdu) if known is None else bytes((pdu[0], len(known))) + known


def _model(unit: Unit) -> bytes | None:
    known = unit.read(35011, 5)
    return None if known is None else known.rstrip(b"\0").ljust(16)


def _crc(data: bytes) -> bytes:
    """Return the CRC of Modbus RTU, as it is sent."""
    from pymodbus.framer.rtu import FramerRTU  # noqa: PLC0415 - only needed where there is UDP

    return FramerRTU.compute_CRC(data).to_bytes(2, "big")
