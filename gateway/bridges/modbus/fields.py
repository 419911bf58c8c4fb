"""What registers show besides points: the device itself, its data's quality, and what became of commands."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil
from typing import Final

from gateway.bridges.modbus.codes import KINDS, QUALITIES, REASONS, SETPOINT_INDEX, SEVERITIES, STATES, STATUSES
from gateway.bridges.modbus.lasting import status
from gateway.bridges.modbus.maps.native import VERSION
from gateway.core.model import CommandEvent, CommandState, DeviceState, Value

BEGINNINGS: Final = (CommandState.ACCEPTED, CommandState.REJECTED)
TIMED: Final = (CommandState.SUCCEEDED, CommandState.UNKNOWN)
"""Ends of a command after which its timer runs."""
COUNTER: Final = 0xFFFF_FFFF
"""Counters start again before this value, which would read as "not there"."""
SERIAL_BYTES: Final = 32
"""16 registers, as SunSpec's model 1 and the native map have for a serial."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def device_fields(state: DeviceState, updates: int) -> dict[str, Value]:
    """Return what the identity and state block shows, but for what changes by itself."""
    device = state.device
    return {
        "data.map_version": VERSION,
        "device.kind": KINDS[device.kind],
        "device.rated_power": device.rated_power,
        "device.serial": short_serial(device.serial),
        "device.name": device.name,
        "device.model": device.model,
        "device.plant": short_serial(device.plant),
        "device.firmware": state.values.get("firmware"),
        "data.status": STATUSES.get(str(status(state))),
        "data.fault_text": state.values.get("fault_text"),
        **_alarms(state.values),
        "data.quality": QUALITIES[state.quality],
        "data.time": unix(state.time),
        "data.updates": updates % COUNTER,
    }


def short_serial(serial: str) -> str:
    """Return a serial that is as long as registers have room for, the same wherever registers show it.

    A plant's is a UUID of 36 characters in SEMS: that goes without its dashes. Of any other that is too long the
    beginning is left, and a digest that tells it from others which begin alike.
    """
    if len(serial.encode()) <= SERIAL_BYTES:
        return serial
    if _UUID.fullmatch(serial):
        return serial.replace("-", "")
    mark = f"~{sha256(serial.encode()).hexdigest()[:8]}"
    return serial.encode()[: SERIAL_BYTES - len(mark)].decode(errors="ignore") + mark


def _alarms(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return what is shown of alarms, also while measurements are not; nothing where no source has alarms."""
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
        self._sent: dict[str, tuple[str, datetime]] = {}
        """Setpoint → the command on its way that has a timer, and when that fires."""
        self._reverts: dict[str, datetime] = {}
        """Setpoint → when the timer of what is in force fires."""

    def note(self, event: CommandEvent) -> None:
        """Take in a step. One of a command that a newer one has superseded changes nothing."""
        self._follow_timer(event)
        begins = event.state in BEGINNINGS
        self._count += begins
        if begins or _same(self._last, event):
            self._last = event
        setpoint = event.command.setpoint
        if begins or _same(self._by_setpoint.get(setpoint), event):
            self._by_setpoint[setpoint] = event

    def _follow_timer(self, event: CommandEvent) -> None:
        command, setpoint = event.command, event.command.setpoint
        if event.state is CommandState.SENT and command.revert_after is not None:
            self._sent[setpoint] = command.id, event.time + timedelta(seconds=command.revert_after)
        elif event.state.final:
            id_, due = self._sent.get(setpoint, ("", event.time))
            own = id_ == command.id
            if own:
                del self._sent[setpoint]
            if own and event.state in TIMED:
                self._reverts[setpoint] = due
            elif event.state is CommandState.SUCCEEDED:
                self._reverts.pop(setpoint, None)

    def reverting(self, now: datetime) -> dict[str, Value]:
        """Return how many seconds are left until timers revert what is in force."""
        return {
            f"command.{setpoint}.reverts_in": max(0, ceil((due - now).total_seconds()))
            for setpoint, due in self._reverts.items()
        }

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


def soonest(lefts: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    """Return how many seconds are left until the first of several devices' timers reverts something."""
    found: dict[str, Value] = {}
    for left in lefts:
        for field, seconds in left.items():
            known = found.get(field)
            first = isinstance(known, int) and isinstance(seconds, int) and known <= seconds
            found[field] = known if first else seconds
    return found


def _same(known: CommandEvent | None, event: CommandEvent) -> bool:
    """Return whether the event continues what is known; so does the first one after a restart."""
    return known is None or known.command.id == event.command.id


def _step(prefix: str, event: CommandEvent) -> dict[str, Value]:
    return {
        f"{prefix}.state": STATES[event.state],
        f"{prefix}.reason": REASONS[event.reason] if event.reason else 0,
        f"{prefix}.time": unix(event.time),
    }
