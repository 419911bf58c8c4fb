"""What registers show besides points: the device itself, its data's quality, and what became of commands."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from gateway.bridges.modbus.codes import KINDS, QUALITIES, REASONS, SETPOINT_INDEX, SEVERITIES, STATES, STATUSES
from gateway.bridges.modbus.maps.native import VERSION
from gateway.core.model import CommandEvent, CommandState, DeviceState, Value

BEGINNINGS: Final = (CommandState.ACCEPTED, CommandState.REJECTED)
COUNTER: Final = 0xFFFF_FFFF
"""Counters start again before this value, which would read as "not there"."""


def device_fields(state: DeviceState, updates: int) -> dict[str, Value]:
    """Return what the identity and state block shows, but for what changes by itself."""
    device = state.device
    return {
        "data.map_version": VERSION,
        "device.kind": KINDS[device.kind],
        "device.rated_power": device.rated_power,
        "device.serial": device.serial,
        "device.name": device.name,
        "device.model": device.model,
        "device.plant": device.plant,
        "device.firmware": state.values.get("firmware"),
        "data.status": STATUSES.get(str(state.values.get("status"))),
        "data.fault_text": state.values.get("fault_text"),
        **_alarms(state.values),
        "data.quality": QUALITIES[state.quality],
        "data.time": unix(state.time),
        "data.updates": updates % COUNTER,
    }


def _alarms(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return what is shown of alarms, also while measurements are not; nothing where nobody tells of any."""
    if "alarms_active" not in values:
        return {}
    return {
        "data.alarms_active": values["alarms_active"],
        "data.alarm_severity": SEVERITIES.get(str(values.get("alarm_severity"))),
        "data.alarm_time": _unix_of(values.get("alarm_time")),
        "data.alarm_code": values.get("alarm_code"),
        "data.alarm_text": values.get("alarm_text"),
    }


def _unix_of(text: Value) -> int | None:
    try:
        return unix(datetime.fromisoformat(str(text)))
    except ValueError:
        return None


def unix(moment: datetime | None) -> int | None:
    """Return whole seconds since 1970, UTC."""
    return None if moment is None else int(moment.timestamp())


class CommandStatus:
    """The newest command of one device, and the newest for each of its setpoints."""

    def __init__(self) -> None:
        self._count = 0
        self._last: CommandEvent | None = None
        self._by_setpoint: dict[str, CommandEvent] = {}

    def note(self, event: CommandEvent) -> None:
        """Take in a step. One of a command that a newer one has displaced changes nothing."""
        begins = event.state in BEGINNINGS
        self._count += begins
        if begins or _same(self._last, event):
            self._last = event
        setpoint = event.command.setpoint
        if begins or _same(self._by_setpoint.get(setpoint), event):
            self._by_setpoint[setpoint] = event

    def fields(self) -> dict[str, Value]:
        """Return what the command blocks show."""
        shown: dict[str, Value] = {"command.count": self._count % COUNTER}
        if self._last is not None:
            shown |= _step("command", self._last)
            shown["command.setpoint"] = SETPOINT_INDEX.get(self._last.command.setpoint)
            shown["command.id"] = self._last.command.id
            shown["command.detail"] = self._last.detail
        for setpoint, event in self._by_setpoint.items():
            shown |= _step(f"command.{setpoint}", event)
        return shown


def _same(known: CommandEvent | None, event: CommandEvent) -> bool:
    """Return whether the event goes on with what is known; so does the first heard of after a restart."""
    return known is None or known.command.id == event.command.id


def _step(prefix: str, event: CommandEvent) -> dict[str, Value]:
    return {
        f"{prefix}.state": STATES[event.state],
        f"{prefix}.reason": REASONS[event.reason] if event.reason else 0,
        f"{prefix}.time": unix(event.time),
    }
