"""Notices when a setpoint that was confirmed reads otherwise later on: somebody used the app.

Drift is an alarm of the device, so every protocol shows it; besides, it is logged and stands in the audit. It ends
when the setpoint reads as it was set again, or when the next command for it is sent. After a restart nothing is known.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.control.lane import PointKey
from gateway.core.control.verify import in_words
from gateway.core.journal.audit import Deed, Note
from gateway.core.model import Alarm, Command, Severity, Snapshot, Value
from gateway.core.points import SETPOINTS
from gateway.core.router import Router

log = structlog.get_logger("control")

CODE: Final = "drift"
SOURCE: Final = ":control"
"""Who tells of these alarms: a name that no bridge can have."""


class _Set(msgspec.Struct):
    """What a command has set."""

    value: Value
    time: datetime
    """When it succeeded, or what was seen last was measured."""
    confirmed: bool
    alarm: Alarm | None = None
    """While it drifts."""


class Drift:
    """Watches what commands have set. `keep` is given what the audit is to hold."""

    def __init__(self, router: Router, clock: Clock, keep: Callable[[Note], None]) -> None:
        self._router = router
        self._clock = clock
        self._keep = keep
        self._set: dict[str, dict[str, _Set]] = {}
        """Serial → setpoint → what was set."""
        self.count = 0
        """How often a setpoint has drifted in this run."""

    def succeeded(self, command: Command, *, verified: bool) -> None:
        """Take in that a command has succeeded; `verified` where that was read back."""
        known = self._set.setdefault(command.serial, {})
        known[command.setpoint] = _Set(command.value, self._clock.now(), verified)

    def verified(self, command: Command) -> bool:
        """Return whether what a command asks for is set, and was read back."""
        known = self._set.get(command.serial, {}).get(command.setpoint)
        return known is not None and known.confirmed and known.alarm is None and known.value == command.value

    def leaves(self, command: Command, carried: Mapping[str, Value]) -> None:
        """Take in that a command is about to be sent, with these values for the others of its group."""
        known = self._set.get(command.serial)
        if known is None:
            return
        for setpoint, value in [(command.setpoint, None), *carried.items()]:
            if setpoint in known and known[setpoint].value != value:
                alarm = known.pop(setpoint).alarm
                if alarm is not None:
                    self._tell(command.serial)
        if not known:
            del self._set[command.serial]

    def seen(self, snapshot: Snapshot) -> None:
        """Take in what a source has measured."""
        for setpoint, known in self._set.get(snapshot.serial, {}).items():
            value = snapshot.values.get(setpoint)
            if value is None or snapshot.time <= known.time:
                continue
            known.time = snapshot.time
            if SETPOINTS[setpoint].same(value, known.value):
                known.confirmed = True
                if known.alarm is not None:
                    self._ends(snapshot.serial, setpoint, known)
            elif known.confirmed and known.alarm is None:
                self._begins((snapshot.serial, setpoint), known, value)

    def restored(self) -> None:
        """Clear what was drifting before a restart: nobody knows any more what it was set to."""
        for serial in {alarm.serial for alarm in self._router.alarm_book if alarm.code == CODE}:
            self._router.alarm_book.take(SOURCE, serial, [])

    def _begins(self, key: PointKey, known: _Set, found: Value) -> None:
        serial, setpoint = key
        asked, read = in_words(setpoint, known.value, found)
        text = f"{setpoint} was set to {asked} and reads {read} now"
        now = self._clock.now()
        known.alarm = Alarm(
            serial=serial, id=f"{CODE}/{setpoint}", code=CODE, text=text, severity=Severity.WARNING, raised=now
        )
        self.count += 1
        log.warning("somebody else has changed a setpoint", serial=serial, setpoint=setpoint, set=asked, reads=read)
        self._keep(
            Note(
                deed=Deed.DRIFTED,
                time=now,
                origin="gateway",
                detail=text,
                serial=serial,
                setpoint=setpoint,
                value=found,
            )
        )
        self._tell(serial)

    def _ends(self, serial: str, setpoint: str, known: _Set) -> None:
        known.alarm = None
        log.info("the setpoint is as it was set again", serial=serial, setpoint=setpoint)
        self._tell(serial)

    def _tell(self, serial: str) -> None:
        alarms = [known.alarm for known in self._set.get(serial, {}).values() if known.alarm is not None]
        self._router.alarms(SOURCE, serial, alarms)
