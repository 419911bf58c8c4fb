"""What a request asks for and how it is answered, whatever carries it: a PDU in, a PDU out (V1.1b3 §4.1)."""

from typing import Final, Protocol

import structlog

from gateway.bridges.modbus.codes import ExceptionCode, ExceptionResponseError
from gateway.bridges.modbus.image import Unit
from gateway.bridges.modbus.settling import WriteRefusedError

READS: Final = frozenset({0x03, 0x04})
"""Read Holding Registers, Read Input Registers."""
WRITE_SINGLE, WRITE_MULTIPLE = 0x06, 0x10
WRITES: Final = frozenset({WRITE_SINGLE, WRITE_MULTIPLE})
MAX_READ_REGISTERS: Final = 125
MAX_WRITTEN_REGISTERS: Final = 123


class Write(Protocol):
    """Executes a write request. Raises WriteRefusedError."""

    async def __call__(
        self, unit: Unit, role: str, peer: str, address: int, payload: bytes, waited: float = 0.0
    ) -> None:
        """`role` may be "", `peer` is `ip:port`; `payload` holds the registers from `address` on, big-endian.

        `waited`: seconds since it was received.
        """
        ...


class RefusalLog:
    """Says why a write was refused, for the client learns but a number: once, where it keeps trying."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._last: tuple[object, ...] = ()

    def refused(self, error: WriteRefusedError, client: str, address: int, **where: object) -> None:
        """Log this, but for one that is like the last. `where` says which device or unit."""
        refusal = (*where.values(), address, str(error))
        if refusal != self._last:
            self._last = refusal
            answer = f"exception {error.code:02X}"
            self._log.info("write refused", client=client, **where, address=address, answer=answer, why=str(error))

    def taken(self) -> None:
        """Take in that a write was not refused."""
        self._last = ()


def read(unit: Unit, pdu: bytes) -> bytes:
    """Return the answer to an FC3 or FC4 request (§6.3, §6.4). Raises ExceptionResponseError."""
    address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if len(pdu) != 5 or not 1 <= count <= MAX_READ_REGISTERS:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_DATA_VALUE)
    data = unit.read(address, count)
    if data is None:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_DATA_ADDRESS)
    return bytes((pdu[0], len(data))) + data


def payload_of(pdu: bytes) -> bytes:
    """Return the registers of an FC6 or FC16 request (§6.6, §6.12).

    Raises ExceptionResponseError for another function (01), and where the request's lengths don't agree (03).
    """
    if pdu[0] == WRITE_SINGLE:
        whole, payload = len(pdu) == 5, pdu[3:]
    elif pdu[0] == WRITE_MULTIPLE:
        count, payload = int.from_bytes(pdu[3:5], "big"), pdu[6:]
        whole = 1 <= count <= MAX_WRITTEN_REGISTERS and pdu[5:6] == bytes((2 * count,)) and len(payload) == 2 * count
    else:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_FUNCTION)
    if not whole:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_DATA_VALUE)
    return payload


def written(pdu: bytes) -> bytes:
    """Return the answer to a write: FC6 echoes the request, FC16 its address and quantity."""
    return pdu[:5]


def exception(function: int, code: ExceptionCode) -> bytes:
    """Return an exception response (§7)."""
    return bytes((function | 0x80, code))
