"""FC8 and FC43: what a client asks of the server itself. Requests and answers are pymodbus' own."""

from typing import Final

from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.device import ModbusControlBlock, ModbusDeviceIdentification

import gateway
from gateway.bridges.modbus.codes import ExceptionCode

DIAGNOSTICS: Final = 0x08
ENCAPSULATED: Final = 0x2B
FUNCTIONS: Final = (DIAGNOSTICS, ENCAPSULATED)

ECHO: Final = 0x0000
COUNTERS: Final = {0x000B: "BusMessage", 0x000D: "BusExceptionError", 0x000E: "DeviceMessage"}
"""Subfunctions of FC8 (V1.1b3 §6.8) → pymodbus' counter. The others steer a serial line, or clear."""
READ_DEVICE_IDENTIFICATION: Final = 0x0E


class NotServedError(Exception):
    """The request is answered with this exception code."""

    def __init__(self, code: ExceptionCode) -> None:
        super().__init__(code.name)
        self.code = code


def identity(gateway_id: str) -> ModbusDeviceIdentification:
    """Return what FC43/14 says of the gateway (V1.1b3 §6.21)."""
    return ModbusDeviceIdentification(  # type: ignore[no-untyped-call]
        info_name={
            "VendorName": "sems-gateway",
            "ProductCode": "SEMS-GATEWAY",
            "MajorMinorRevision": gateway.__version__,
            "ProductName": "SEMS gateway",
            "ModelName": "Modbus TCP server",
            "UserApplicationName": gateway_id,
        }
    )


async def diagnose(decoder: DecodePDU, unit: int, pdu: bytes, messages: int, exceptions: int) -> bytes:
    """Return the answer's PDU. `messages` and `exceptions` are the server's counts. Raises NotServedError."""
    _check(pdu)
    request: ModbusPDU | None = decoder.decode(pdu)
    if request is None:
        raise NotServedError(ExceptionCode.ILLEGAL_DATA_VALUE)
    # pymodbus keeps these in one place for the whole process; what counts is this listener's.
    counters = ModbusControlBlock().Counter  # type: ignore[no-untyped-call]
    counters.BusMessage = counters.DeviceMessage = messages & 0xFFFF
    counters.BusExceptionError = exceptions & 0xFFFF
    # These requests read the control block only, so they get no datastore.
    answer = await request.datastore_update(None, unit)  # type: ignore[arg-type]
    return bytes([answer.function_code]) + answer.encode()


def _check(pdu: bytes) -> None:
    if pdu[0] == DIAGNOSTICS:
        if len(pdu) < 5:
            raise NotServedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        subfunction = int.from_bytes(pdu[1:3], "big")
        if subfunction != ECHO and subfunction not in COUNTERS:
            raise NotServedError(ExceptionCode.ILLEGAL_FUNCTION)
        if subfunction in COUNTERS and pdu[3:] != b"\0\0":
            raise NotServedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        return
    if len(pdu) < 2 or pdu[1] != READ_DEVICE_IDENTIFICATION:
        raise NotServedError(ExceptionCode.ILLEGAL_FUNCTION)
    if len(pdu) != 4 or not 1 <= pdu[2] <= 4:
        raise NotServedError(ExceptionCode.ILLEGAL_DATA_VALUE)
