"""The types that bridges and the router exchange. All are immutable; all times are aware UTC."""

import os
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

import msgspec

from gateway.core.findings import Finding
from gateway.core.text import MAX_DETAIL, MAX_ORIGIN, escaped
from gateway.core.text import plain as plain_text

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
    LIMIT = "limit"


class Quality(StrEnum):
    """How far a device's data may be trusted."""

    GOOD = "good"
    STALE = "stale"
    """Older than three expected intervals."""
    OFFLINE = "offline"
    """The cloud itself says that it does not hear the device."""


class Range(msgspec.Struct, frozen=True, gc=False):
    """What a device takes for one setpoint, in the setpoint's unit, bounds included."""

    low: float | None = None
    high: float | None = None
    step: float | None = None
    """Values are multiples of this; None: all between the bounds."""


class Device(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


class Written(msgspec.Struct, gc=False):
    """How often a setpoint of a device was written."""

    serial: str
    setpoint: str
    life: int = 0
    day: int = 0
    """Days since 1970-01-01, UTC."""
    today: int = 0
    """Of that day."""


def day_of(moment: datetime) -> int:
    """Return the day in which writes are counted: days since 1970-01-01, UTC."""
    return int(moment.timestamp() // 86_400)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one source knows of one device at one time."""

    serial: str
    time: datetime
    """When it was measured, as far as the cloud says, else when it was received."""
    source: str
    """Name of the bridge that brought it."""
    interval: float
    """Seconds until the next is due. Three of these without news make the device stale."""
    values: Mapping[str, Value]
    shown: float = 0.0
    """Seconds for which its values are shown beside those of another source, where that is longer than three intervals:
    its own source asks seldom because there is another, and does not keep the device good for longer by that."""


class DeviceState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


class RateLimitWait(msgspec.Struct, frozen=True):
    """A history waits, and goes on by itself."""

    until: datetime
    reason: str
    """In words for a person, e.g. that the call budget is used up."""


class HistoryPlan(msgspec.Struct, frozen=True):
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


class Origin(str):
    """Who asks: `<bridge>[/<role>][:<detail>]`, e.g. `modbus/operator:127.0.0.1:40122`.

    Policy knows the bridge and the role; the detail (address, user) is for people: it may be anything. It is made by
    `of`, so that a role which the far side chose can't pass for another.
    """

    __slots__ = ()

    @classmethod
    def of(cls, bridge: str, role: str = "", detail: str = "") -> Self:
        """Return who asks. In a role, `/`, `:` and `%` are percent-encoded."""
        named = f"{bridge}/{escape_role(role)}" if role else bridge
        return cls(escaped(f"{named}:{detail}" if detail else named, MAX_ORIGIN))

    @property
    def who(self) -> str:
        """`<bridge>[/<role>]`, by which policy judges."""
        return self.partition(":")[0]

    @property
    def bridge(self) -> str:
        """The bridge it came by, or `gateway`."""
        return self.who.partition("/")[0]

    @property
    def role(self) -> str:
        """The role as it stands in rules; "" for none."""
        return self.who.partition("/")[2]

    @property
    def detail(self) -> str:
        """Address, user or the like; "" for none."""
        return self.partition(":")[2]


_PARTING: Final = re.compile("[/:%]")
"""What a role must not have in clear: with `guest:x` or `a/b` it would pass for another."""


def escape_role(role: str) -> str:
    """Return a role as it stands in origins and rules."""
    return _PARTING.sub(lambda match: f"%{ord(match[0]):02X}", role)


GATEWAY: Final = Origin("gateway")
"""The gateway itself, in the audit."""
REVERT: Final = Origin("revert")
"""How people see who sends what a dead-man's timer falls back to. What it may do hangs on `Command.is_revert` alone."""
FLEET: Final = "fleet"
"""Who commands members: `fleet/<name>:<id of the fleet's own command>`."""
RESERVED: Final = frozenset({"cli", FLEET, "limit", GATEWAY, REVERT})
"""Names that no bridge of a configuration may have: who commands under them is somebody else."""


def plain(value: Any) -> Any:
    """Encode what msgspec has no own way for; the `enc_hook` of every encoder of what holds a Command."""
    if isinstance(value, Origin):
        return str(value)
    raise NotImplementedError(f"no way to encode {type(value)}")


def custom(type_: type, value: Any) -> Any:
    """Decode what msgspec has no own way for; the `dec_hook` of every decoder of what holds a Command."""
    if type_ is Origin and isinstance(value, str):
        return Origin(value)
    raise NotImplementedError(f"no way to decode {type_}")


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """All control is stopped: no new command is taken. Reverts go on."""

    by: str
    """Who stopped it: an Origin as text."""
    reason: str = ""
    """Why, in the words of who did it."""
    since: datetime


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A wish to set one setpoint of one device. Setpoints are absolute: twice is as good as once."""

    id: str
    serial: str
    setpoint: str
    value: Value
    origin: Origin
    """Who asked."""
    created: datetime
    expires: datetime
    """Not executed after this time, whatever happens."""
    revert_after: float | None = None
    """Dead-man's timer, seconds: not refreshed by then, `revert_value` is sent."""
    revert_value: Value = None
    is_revert: bool = False
    """A dead-man's timer sends it: it is not judged again, and no halt holds it back."""
    bulk: bool = False
    """One of a command for many devices: it lets others go ahead."""

    def __post_init__(self) -> None:
        if type(self.origin) is not Origin:
            msgspec.structs.force_setattr(self, "origin", Origin(self.origin))

    @property
    def parent(self) -> str:
        """Id of the command of a fleet of which this one carries out a part; "" for none."""
        return parent_of(self.origin)


def parent_of(origin: Origin) -> str:
    """Return the id of the command of a fleet on whose behalf somebody asks; "" for none."""
    return origin.detail if origin.bridge == FLEET else ""


def encode_command(command: Command) -> bytes:
    """Return a command as JSON."""
    return msgspec.json.encode(command, enc_hook=plain)


def decode_command(body: bytes) -> Command:
    """Return a command from JSON. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(body, type=Command, dec_hook=custom)


class CommandEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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

    def __post_init__(self) -> None:
        if self.detail:
            msgspec.structs.force_setattr(self, "detail", plain_text(self.detail, MAX_DETAIL))


class BridgeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a bridge does its work."""

    name: str
    type: str
    up: bool
    detail: str = ""
    """When down, what is wrong and what is being done about it."""
    since: datetime
    findings: tuple[Finding, ...] = ()
    """What it doubts, or has found out, about what the far side says."""


def new_command_id() -> str:
    """Return a UUIDv7 (RFC 9562 §5.7): sorts by the time it was made, to the millisecond."""
    stamp = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    tail = bytearray(os.urandom(10))
    tail[0] = tail[0] & 0x0F | 0x70
    tail[2] = tail[2] & 0x3F | 0x80
    return str(uuid.UUID(bytes=stamp + bytes(tail)))


def has_value(values: Mapping[str, Value]) -> bool:
    """Return whether there is a single value in it: a snapshot without one is none."""
    return any(value is not None for value in values.values())


def iso(moment: datetime) -> str:
    """Return the time as every text interface shows it: RFC 3339, UTC, milliseconds."""
    if moment.tzinfo is not UTC:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:  # the first or last hours there are, in another zone: nobody means them
            moment = moment.replace(tzinfo=UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"
