"""The types that bridges and the router exchange. All are immutable; all times are aware UTC."""

import os
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

Value = float | int | str | bool | None
"""A point's value. None means "not there"; NaN and sentinels never get this far."""


class DeviceKind(StrEnum):
    """What a device is."""

    INVERTER = "inverter"
    STORAGE = "storage"
    BATTERY = "battery"
    METER = "meter"
    EV_CHARGER = "ev_charger"
    DATA_LOGGER = "data_logger"
    WEATHER_STATION = "weather_station"
    PLANT = "plant"
    FLEET = "fleet"


class Quality(StrEnum):
    """How far a device's data may be trusted."""

    GOOD = "good"
    STALE = "stale"
    """Older than three expected intervals."""
    OFFLINE = "offline"
    """The cloud itself says that it does not hear the device."""


class Range(msgspec.Struct, frozen=True):
    """What a device takes for one setpoint, in the setpoint's unit, bounds included."""

    low: float | None = None
    high: float | None = None
    step: float | None = None
    """Values are multiples of this; None: all between the bounds."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One thing SEMS knows. `serial` names it everywhere; a plant's is its SEMS plant id."""

    serial: str
    kind: DeviceKind
    name: str = ""
    model: str = ""
    plant: str = ""
    """Serial of the plant it belongs to; empty for a plant."""
    rated_power: float | None = None
    """W."""
    time_zone: str = ""
    """IANA name of the zone in which its days begin; empty where that is not known."""
    setpoints: Mapping[str, Range] = {}
    """Setpoint id → what this device takes."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What one source knows of one device at one time."""

    serial: str
    time: datetime
    """When it was measured, as far as the cloud says, else when it was received."""
    source: str
    """Name of the bridge that brought it."""
    interval: float
    """Seconds until the next is due. Three of these without news make the device stale."""
    values: Mapping[str, Value]


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """The last-value store's answer for one device: what sinks show."""

    device: Device
    quality: Quality
    time: datetime | None
    """Time of measurement of the newest value; None while there are none."""
    source: str
    values: Mapping[str, Value]


class Severity(StrEnum):
    """How bad an alarm is."""

    INFO = "info"
    WARNING = "warning"
    FAULT = "fault"


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something is, or was, the matter with a device."""

    serial: str
    id: str
    """Tells it from the device's other alarms, now and later."""
    code: str = ""
    """As the device or the cloud has it."""
    text: str = ""
    severity: Severity = Severity.FAULT
    raised: datetime
    cleared: datetime | None = None
    """None while it is active."""


class Sample(msgspec.Struct, frozen=True):
    """What was measured at one time."""

    time: datetime
    values: Mapping[str, Value]


class Page(msgspec.Struct, frozen=True):
    """A part of a device's history: all there is from `start` to before `end`."""

    start: datetime
    end: datetime
    samples: list[Sample]
    """Oldest first."""


class Pause(msgspec.Struct, frozen=True):
    """A history waits, and goes on by itself."""

    until: datetime
    reason: str
    """In words for a person, e.g. that the call budget is used up."""


class Outline(msgspec.Struct, frozen=True):
    """What a history will hold."""

    pages: int
    points: tuple[str, ...]
    """The points that its samples may have, whatever the time."""


class Resolution(StrEnum):
    """How far apart the samples of a history are."""

    MINUTES = "minutes"
    """As the cloud keeps them, usually every five."""
    DAY = "day"
    MONTH = "month"


class CommandState(StrEnum):
    """Where a command stands. `accepted → sent → succeeded | failed | unknown`, or one of the others."""

    ACCEPTED = "accepted"
    SENT = "sent"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"

    @property
    def final(self) -> bool:
        """True when no further step follows."""
        return self not in _OPEN_STATES


_OPEN_STATES = (CommandState.ACCEPTED, CommandState.SENT)


class Reason(StrEnum):
    """Why a command was rejected. Origins map these to their protocol's own error codes."""

    CONTROL_DISABLED = "control_disabled"
    UNKNOWN_DEVICE = "unknown_device"
    UNKNOWN_SETPOINT = "unknown_setpoint"
    NOT_PERMITTED = "not_permitted"
    BAD_VALUE = "bad_value"
    OUT_OF_RANGE = "out_of_range"
    BAD_STEP = "bad_step"
    """Between two of the steps that are permitted."""
    RAMP_LIMITED = "ramp_limited"
    """Too far from what was in force within the last minute."""
    RATE_LIMITED = "rate_limited"
    HALTED = "halted"
    """Somebody has stopped all control. Nothing new is taken until it is resumed."""
    EXPIRED = "expired"
    DUPLICATE = "duplicate"
    NO_CONTROLLER = "no_controller"
    BAD_REQUEST = "bad_request"
    NOT_STORED = "not_stored"
    """The journal cannot be written. Nothing is executed that could be forgotten."""


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """All control is stopped: no new command is taken. Reverts go on."""

    by: str
    """Who stopped it, as in `Command.origin`."""
    reason: str = ""
    """Why, in the words of who did it."""
    since: datetime


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to set one setpoint of one device. Setpoints are absolute: twice is as good as once."""

    id: str
    serial: str
    setpoint: str
    value: Value
    origin: str
    """Who asked: `<bridge>[/<role>][:<detail>]`, e.g. `modbus/operator:127.0.0.1:40122`.

    Policy knows the bridge and the role; the detail (address, user) is for people.
    """
    created: datetime
    expires: datetime
    """Not executed after this time, whatever happens."""
    revert_after: float | None = None
    """Dead-man's timer, seconds: not refreshed by then, `revert_value` is sent."""
    revert_value: Value = None


class CommandEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One step in the life of a command."""

    command: Command
    state: CommandState
    time: datetime
    reason: Reason | None = None
    """Set when rejected."""
    detail: str = ""
    """What happened, in words for a person."""
    verified: bool = False
    """Of a success: true where a read-back showed the value in force, false where the far side only said it is done."""
    correction: bool = False
    """True where this is no step, but what became known of an `unknown` after its end."""


class BridgeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a bridge does its work."""

    name: str
    type: str
    up: bool
    detail: str = ""
    """When down, what is wrong and what is being done about it."""
    since: datetime


def new_command_id() -> str:
    """Return a UUIDv7 (RFC 9562 §5.7): sorts by the time it was made, to the millisecond."""
    stamp = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    tail = bytearray(os.urandom(10))
    tail[0] = tail[0] & 0x0F | 0x70
    tail[2] = tail[2] & 0x3F | 0x80
    return str(uuid.UUID(bytes=stamp + bytes(tail)))


def iso(moment: datetime) -> str:
    """Return the time as every text interface shows it: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
