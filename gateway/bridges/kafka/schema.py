"""What stands in the topics of one's own: JSON objects with a version. docs/kafka.md describes them for others.

Every message has the serial number of its device as the key, so one device's messages stay in order. What is read is
untrusted: a message of another version, or with a field of another type, is refused whole; unknown fields are left out.
"""

from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec

from gateway.bridges.kafka.checked import times
from gateway.commands.requests import ID_LIMIT
from gateway.core.model import Alarm, Command, CommandEvent, CommandState, Device, Reason, Snapshot, Value
from gateway.core.strict import check_keys
from gateway.core.text import identifier, plain

VERSION: Final = 1
MAX_SERIAL_CHARS: Final = 64
MAX_GATEWAY_CHARS: Final = 128
MAX_ALARMS: Final = 1000
"""Of one device, in one message."""
MAX_INTERVAL_SECONDS: Final = 30 * 86_400
"""Seconds between two measurements; times are reckoned with it."""
YEARS: Final = range(2000, 2200)
"""Of times that can be reckoned with: in another zone, or some intervals later, they are still times."""
SHOWN: Final = 80
"""Characters of a decoder's words that a log repeats."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The root of all."""

    v: int = VERSION
    gateway: str
    """`gateway.id` of who says it."""


class DeviceMessage(Message, frozen=True, kw_only=True):
    """Topic `devices`: what a device is. A tombstone says that it is gone."""

    device: Device


class SnapshotMessage(Message, frozen=True, kw_only=True):
    """Topic `snapshots`: what one source has read."""

    serial: str
    time: datetime
    source: Annotated[str, msgspec.Meta(max_length=128)]
    interval: Annotated[float, msgspec.Meta(ge=0, le=MAX_INTERVAL_SECONDS)]
    values: dict[str, Value]


class AlarmsMessage(Message, frozen=True, kw_only=True):
    """Topic `alarms`: all active alarms of a device, and those that have just been cleared."""

    serial: str
    active: Annotated[list[Alarm], msgspec.Meta(max_length=MAX_ALARMS)]
    cleared: Annotated[list[Alarm], msgspec.Meta(max_length=MAX_ALARMS)] = []


class CommandMessage(Message, frozen=True, kw_only=True):
    """Topic `commands`: a wish that another gateway carries out."""

    id: str
    serial: str
    setpoint: str
    value: Value
    origin: str
    created: datetime
    expires: datetime


class EventMessage(Message, frozen=True, kw_only=True):
    """Topic `events`: a step of a command."""

    id: str
    serial: str
    setpoint: str
    value: Value
    origin: str
    state: CommandState
    time: datetime
    reason: Reason | None = None
    detail: str = ""
    verified: bool = False
    correction: bool = False
    parent: str = ""
    """Of a command to a member of a fleet: the id of the fleet's."""


M = TypeVar("M", bound=Message)


class BadMessageError(Exception):
    """A message that can't be used, and could not if it came again."""

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(text or kind)
        self.kind = kind
        """Few words of ours, the same for all of their kind."""


_encoder: Final = msgspec.json.Encoder()
_decoders: Final[dict[type[Message], msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (DeviceMessage, SnapshotMessage, AlarmsMessage, CommandMessage, EventMessage)
}


def encode(message: Message) -> bytes:
    """Return a message as it stands in a topic."""
    return _encoder.encode(message)


def decode(kind: type[M], raw: bytes, key: str) -> M:
    """Return a message. Raises BadMessageError, also where it is not about the device that is its key."""
    try:
        message: M = _decoders[kind].decode(raw)
        if isinstance(message, CommandMessage):
            check_keys(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = f"this is no message of version {VERSION}: {plain(str(error), SHOWN)}"
        raise BadMessageError("no message", text) from None
    if message.v != VERSION:
        raise BadMessageError("version", f"its version is {message.v}; this gateway reads version {VERSION}")
    serial = message.device.serial if isinstance(message, DeviceMessage) else getattr(message, "serial", "")
    if serial != key or not 0 < len(serial) <= MAX_SERIAL_CHARS or not serial.isprintable():
        raise BadMessageError("its key is not the serial number that it is about")
    id_ = getattr(message, "id", "-")
    if not id_ or identifier(id_, ID_LIMIT) != id_:
        raise BadMessageError(
            "id", f"its id is no text of 1 to {ID_LIMIT} printable characters without blanks around it"
        )
    if not message.gateway or identifier(message.gateway, MAX_GATEWAY_CHARS) != message.gateway:
        raise BadMessageError("its gateway has no name that one can read")
    if isinstance(message, AlarmsMessage) and any(a.serial != serial for a in (*message.active, *message.cleared)):
        raise BadMessageError("an alarm of it is another device's")
    for moment in _times(message):
        if moment.tzinfo is None:
            raise BadMessageError("a time has no zone")
        if moment.year not in YEARS:
            raise BadMessageError("a time is out of reach")
    return message


def _times(message: Message) -> list[datetime]:
    if isinstance(message, AlarmsMessage):
        return times([*message.active, *message.cleared])
    return [value for name in message.__struct_fields__ if isinstance(value := getattr(message, name), datetime)]


def of_snapshot(gateway: str, snapshot: Snapshot) -> SnapshotMessage:
    """Return what is said of a snapshot. What is not there is left out."""
    return SnapshotMessage(
        gateway=gateway,
        serial=snapshot.serial,
        time=snapshot.time,
        source=snapshot.source,
        interval=snapshot.interval,
        values={point: value for point, value in snapshot.values.items() if value is not None},
    )


def of_event(gateway: str, event: CommandEvent) -> EventMessage:
    """Return what is said of a step of a command."""
    command = event.command
    return EventMessage(
        gateway=gateway,
        id=command.id,
        serial=command.serial,
        setpoint=command.setpoint,
        value=command.value,
        origin=str(command.origin),
        state=event.state,
        time=event.time,
        reason=event.reason,
        detail=event.detail,
        verified=event.verified,
        correction=event.correction,
        parent=command.parent,
    )


def of_command(gateway: str, command: Command) -> CommandMessage:
    """Return what asks another gateway to carry a command out. Dead-man's timers stay with whoever took it."""
    return CommandMessage(
        gateway=gateway,
        id=command.id,
        serial=command.serial,
        setpoint=command.setpoint,
        value=command.value,
        origin=str(command.origin),
        created=command.created,
        expires=command.expires,
    )
