"""FC8 and FC43: what a client asks of the server itself."""

from collections.abc import Mapping
from typing import Final

import gateway
from gateway.bridges.modbus.codes import ExceptionCode, ExceptionResponseError

DIAGNOSTICS: Final = 0x08
ENCAPSULATED: Final = 0x2B
FUNCTIONS: Final = (DIAGNOSTICS, ENCAPSULATED)

ECHO: Final = 0x0000
MESSAGES: Final = (0x000B, 0x000E)
EXCEPTIONS: Final = 0x000D
"""Subfunctions of FC8 (V1.1b3 §6.8). The others steer a serial line, or clear."""
READ_DEVICE_IDENTIFICATION: Final = 0x0E
ONE: Final = 4
"""The code that asks for a single object of FC43/14 (V1.1b3 §6.21)."""
LAST_OBJECT: Final[Mapping[int, int]] = {1: 0x02, 2: 0x06, 3: 0xFF}
"""The other codes, basic, regular and extended → the last object that they ask for."""

Identity = Mapping[int, str]
"""Object id → its text, in ascending order."""


def identity(gateway_id: str) -> Identity:
    """Return what FC43/14 says of the gateway."""
    return {
        0x00: "sems-gateway",  # VendorName
        0x01: "SEMS-GATEWAY",  # ProductCode
        0x02: gateway.__version__,  # MajorMinorRevision
        0x04: "SEMS gateway",  # ProductName
        0x05: "Modbus TCP server",  # ModelName
        0x06: gateway_id,  # UserApplicationName
    }


def diagnose(itself: Identity, pdu: bytes, messages: int, exceptions: int) -> bytes:
    """Return the answer's PDU. `messages` and `exceptions` are the server's counts. Raises ExceptionResponseError."""
    return _count(pdu, messages, exceptions) if pdu[0] == DIAGNOSTICS else _identify(itself, pdu)


def _count(pdu: bytes, messages: int, exceptions: int) -> bytes:
    if len(pdu) < 5:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_DATA_VALUE)
    subfunction = int.from_bytes(pdu[1:3], "big")
    if subfunction == ECHO:
        return pdu
    if subfunction != EXCEPTIONS and subfunction not in MESSAGES:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_FUNCTION)
    if pdu[3:] != b"\0\0":
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_DATA_VALUE)
    count = exceptions if subfunction == EXCEPTIONS else messages
    return pdu[:3] + (count & 0xFFFF).to_bytes(2, "big")


def _identify(itself: Identity, pdu: bytes) -> bytes:
    if len(pdu) < 2 or pdu[1] != READ_DEVICE_IDENTIFICATION:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_FUNCTION)
    if len(pdu) != 4 or not 1 <= pdu[2] <= ONE:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_DATA_VALUE)
    code, first = pdu[2], pdu[3]
    if code == ONE and first not in itself:
        raise ExceptionResponseError(ExceptionCode.ILLEGAL_DATA_ADDRESS)
    last = LAST_OBJECT.get(code, first)
    if first not in itself or first > last:
        first = 0  # who asks from an object that there is not gets all
    from pymodbus.pdu.mei_message import ReadDeviceInformationResponse  # noqa: PLC0415 - all that needs pymodbus

    objects = {id_: text for id_, text in itself.items() if first <= id_ <= last}
    return pdu[:1] + ReadDeviceInformationResponse(code, objects).encode()
