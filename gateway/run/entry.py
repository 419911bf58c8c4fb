"""Text of what a bridge hands in, made plain: whatever a bridge forgot, be it ours or a stranger's, ends here.

Nothing is made again where it is in order, which it is nearly always.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from gateway.core.model import Alarm, Command, Device, Origin, Snapshot, Value
from gateway.core.text import MAX_CODE, MAX_ID, MAX_NAME, MAX_ORIGIN, MAX_TEXT, escaped, identifier, plain

S = TypeVar("S", bound=msgspec.Struct)
_DEVICE: Final = {"name": MAX_NAME, "model": MAX_NAME, "time_zone": MAX_NAME}
_ALARM: Final = {"id": MAX_NAME, "code": MAX_CODE, "text": MAX_TEXT}


def plain_device(device: Device) -> Device | None:
    """Return a device with plain texts; None where its serial number is none."""
    if identifier(device.serial) != device.serial or not device.serial:
        return None
    cleaned = _cleaned(device, _DEVICE)
    if identifier(device.plant) != device.plant:
        cleaned = msgspec.structs.replace(cleaned, plant="")
    return cleaned


def plain_snapshot(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot whose texts are plain."""
    values = _values(snapshot.values)
    return snapshot if values is snapshot.values else msgspec.structs.replace(snapshot, values=values)


def plain_alarms(alarms: Sequence[Alarm]) -> Sequence[Alarm]:
    """Return alarms whose texts are plain."""
    return [_cleaned(alarm, _ALARM) for alarm in alarms]


def plain_command(command: Command) -> Command:
    """Return a command with what is harmful in its texts escaped: so it can't pass for what is known or permitted."""
    changed: dict[str, object] = {}
    for name, limit in (("serial", MAX_ID), ("setpoint", MAX_ID), ("value", MAX_TEXT), ("revert_value", MAX_TEXT)):
        said = getattr(command, name)
        if isinstance(said, str) and (shown := escaped(said, limit)) != said:
            changed[name] = shown
    if (origin := escaped(command.origin, MAX_ORIGIN)) != command.origin:
        changed["origin"] = Origin(origin)
    return msgspec.structs.replace(command, **changed) if changed else command


def _values(values: Mapping[str, Value]) -> Mapping[str, Value]:
    # A snapshot has many numbers and few texts, and each one that is published comes by here.
    odd = {
        point: text or None
        for point, value in values.items()
        if isinstance(value, str) and (text := plain(value, MAX_TEXT)) != value
    }
    return {**values, **odd} if odd else values


def _cleaned(struct: S, limits: Mapping[str, int]) -> S:
    texts = {name: getattr(struct, name) for name in limits}
    cleaned = {name: plain(text, limits[name]) for name, text in texts.items()}
    return struct if cleaned == texts else msgspec.structs.replace(struct, **cleaned)
