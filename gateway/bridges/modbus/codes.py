"""Numbers that stand for words, on the wire and in registers. Once given, a number keeps its meaning."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from gateway.core.model import CommandState, DeviceKind, Quality, Reason
from gateway.core.points import ALARM_SEVERITIES


class ExceptionCode(IntEnum):
    """Exception codes of the Modbus Application Protocol V1.1b3, §7."""

    ILLEGAL_FUNCTION = 0x01
    ILLEGAL_DATA_ADDRESS = 0x02
    ILLEGAL_DATA_VALUE = 0x03
    SERVER_DEVICE_FAILURE = 0x04
    ACKNOWLEDGE = 0x05
    SERVER_DEVICE_BUSY = 0x06
    GATEWAY_PATH_UNAVAILABLE = 0x0A
    GATEWAY_TARGET_FAILED_TO_RESPOND = 0x0B


class ExceptionResponseError(Exception):
    """The request is answered with an exception response."""

    def __init__(self, code: ExceptionCode, text: str = "") -> None:
        super().__init__(text or code.name)
        self.code = code


REFUSALS: Final[Mapping[Reason, ExceptionCode]] = {
    Reason.CONTROL_DISABLED: ExceptionCode.ILLEGAL_FUNCTION,
    Reason.UNKNOWN_DEVICE: ExceptionCode.GATEWAY_PATH_UNAVAILABLE,
    Reason.UNKNOWN_SETPOINT: ExceptionCode.ILLEGAL_DATA_ADDRESS,
    Reason.NOT_PERMITTED: ExceptionCode.ILLEGAL_DATA_ADDRESS,
    Reason.BAD_VALUE: ExceptionCode.ILLEGAL_DATA_VALUE,
    Reason.OUT_OF_RANGE: ExceptionCode.ILLEGAL_DATA_VALUE,
    Reason.BAD_STEP: ExceptionCode.ILLEGAL_DATA_VALUE,
    Reason.RAMP_LIMITED: ExceptionCode.SERVER_DEVICE_BUSY,
    Reason.RATE_LIMITED: ExceptionCode.SERVER_DEVICE_BUSY,
    Reason.HALTED: ExceptionCode.ILLEGAL_FUNCTION,
    Reason.EXPIRED: ExceptionCode.SERVER_DEVICE_FAILURE,
    Reason.DUPLICATE: ExceptionCode.SERVER_DEVICE_FAILURE,
    Reason.NO_CONTROLLER: ExceptionCode.SERVER_DEVICE_FAILURE,
    Reason.BAD_REQUEST: ExceptionCode.ILLEGAL_DATA_VALUE,
    Reason.NOT_STORED: ExceptionCode.SERVER_DEVICE_FAILURE,
}
"""How a refused write is answered."""

ENDINGS: Final[Mapping[CommandState, ExceptionCode]] = {
    CommandState.FAILED: ExceptionCode.SERVER_DEVICE_FAILURE,
    CommandState.EXPIRED: ExceptionCode.SERVER_DEVICE_FAILURE,
    CommandState.SUPERSEDED: ExceptionCode.SERVER_DEVICE_FAILURE,
    CommandState.UNKNOWN: ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND,
}
"""How a write is answered that waited for its command's end (`answer_writes: done`), where that is no success.

Not ended in time is ACKNOWLEDGE: "the server has accepted the request and is processing it, but a long duration
of time will be required to do so" (V1.1b3 §7).
"""

KINDS: Final[Mapping[DeviceKind, int]] = {
    DeviceKind.INVERTER: 1,
    DeviceKind.STORAGE: 2,
    DeviceKind.BATTERY: 3,
    DeviceKind.METER: 4,
    DeviceKind.EV_CHARGER: 5,
    DeviceKind.DATA_LOGGER: 6,
    DeviceKind.WEATHER_STATION: 7,
    DeviceKind.PLANT: 8,
    DeviceKind.FLEET: 9,
    DeviceKind.LIMIT: 10,
}

QUALITIES: Final[Mapping[Quality, int]] = {Quality.GOOD: 0, Quality.STALE: 1, Quality.OFFLINE: 2}

STATUSES: Final[Mapping[str, int]] = {"offline": 0, "waiting": 1, "normal": 2, "fault": 3}
"""Numbered as in the point table."""

STATES: Final[Mapping[CommandState, int]] = {
    CommandState.ACCEPTED: 1,
    CommandState.SENT: 2,
    CommandState.SUCCEEDED: 3,
    CommandState.FAILED: 4,
    CommandState.UNKNOWN: 5,
    CommandState.REJECTED: 6,
    CommandState.EXPIRED: 7,
    CommandState.SUPERSEDED: 8,
}
"""0 is "no command yet"."""

REASONS: Final[Mapping[Reason, int]] = {
    Reason.CONTROL_DISABLED: 1,
    Reason.UNKNOWN_DEVICE: 2,
    Reason.UNKNOWN_SETPOINT: 3,
    Reason.NOT_PERMITTED: 4,
    Reason.BAD_VALUE: 5,
    Reason.OUT_OF_RANGE: 6,
    Reason.RATE_LIMITED: 7,
    Reason.EXPIRED: 8,
    Reason.DUPLICATE: 9,
    Reason.NO_CONTROLLER: 10,
    Reason.BAD_REQUEST: 11,
    Reason.NOT_STORED: 12,
    Reason.BAD_STEP: 13,
    Reason.RAMP_LIMITED: 14,
    Reason.HALTED: 15,
}
"""0 is "not rejected"."""

SETPOINT_INDEX: Final[Mapping[str, int]] = {
    "running": 0,
    "active_power_limit": 1,
    "reactive_power": 2,
    "power_factor": 3,
    "export_limit": 4,
    "work_mode": 5,
    "battery_mode": 6,
    "battery_power_target": 7,
    "battery_target_soc": 8,
    "charging": 9,
    "battery_reserve_soc": 10,
    "power_target": 11,
    "import_limit": 12,
}
"""A setpoint's place in every setpoint block, and its number in the command status."""


SEVERITIES: Final[Mapping[str, int]] = {word: number for number, word in enumerate(ALARM_SEVERITIES)}


def legend(codes: Mapping[Any, float]) -> str:
    """Return what numbers mean, for a register's description: `0 good, 1 stale`. Keys are words."""
    return ", ".join(f"{number} {word}" for word, number in codes.items())
