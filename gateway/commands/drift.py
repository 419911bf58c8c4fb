"""Notices when a setpoint that was confirmed reads otherwise later on: somebody used the app.

Drift is an alarm of the device, so every protocol shows it; besides, it is logged and stands in the audit. It ends
when the setpoint reads as it was set again, or when the next command for it is sent.

A cloud stamps a message when it sends it, and puts what it heard last into it: so what differs right after a command
may be the value of before. It counts from the source's next interval on.

A limit changes what it shows by itself: its failsafe begins, or it ends. That is nobody else's doing, so no drift.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from gateway.commands.lane import PointKey
from gateway.commands.memory import SetpointMemory, Setting
from gateway.commands.verify import in_words
from gateway.core.clock import Clock
from gateway.core.model import GATEWAY, Alarm, Command, DeviceKind, Severity, Snapshot, Value
from gateway.core.points import SETPOINTS
from gateway.core.router import Router
from gateway.journal.audit import AuditAction, Note

log = structlog.get_logger("control")

MAX_MEASURING: Final = timedelta(minutes=5)
"""Between two uploads of a data logger: how much older a value may be than the time that the cloud has for it."""
CODE: Final = "drift"
SOURCE: Final = ":control"
"""Who raises these alarms: a name that no bridge can have."""


class Drift:
    """Watches what commands have set. `keep` is given what the audit is to hold."""

    def __init__(self, router: Router, memory: SetpointMemory, clock: Clock, keep: Callable[[Note], None]) -> None:
        self._router = router
        self._memory = memory
        self._clock = clock
        self._keep = keep
        self.count = 0
        """How often a setpoint has drifted in this run."""

    def leaves(self, command: Command) -> None:
        """Take in that a command is about to be sent: what it sets anew does not drift any more."""
        setting = self._memory.get((command.serial, command.setpoint))
        if setting is not None and setting.alarm is not None:
            setting.alarm = None
            self._publish(command.serial)

    def seen(self, snapshot: Snapshot) -> None:
        """Take in what a source has measured."""
        for setpoint, setting in self._memory.of(snapshot.serial).items():
            value = snapshot.values.get(setpoint)
            if value is None or not setting.certain or setting.seen is None or snapshot.time <= setting.seen:
                continue
            setting.seen = snapshot.time
            key = snapshot.serial, setpoint
            if SETPOINTS[setpoint].same(value, setting.value):
                self._memory.read_back(key, snapshot.time)
                if setting.alarm is not None:
                    self._ends(key, setting)
            elif setting.confirmed and setting.alarm is None and self._counts(snapshot, setting):
                self._begins(key, setting, value)

    def restored(self) -> None:
        """Take up what was drifting before a restart; clear what nothing is known of any more."""
        for serial in {alarm.serial for alarm in self._router.alarm_book if alarm.code == CODE}:
            for alarm in [alarm for alarm in self._router.alarm_book if alarm.serial == serial]:
                setting = self._memory.get((serial, alarm.id.removeprefix(f"{CODE}/")))
                if alarm.code == CODE and setting is not None and setting.certain and setting.confirmed:
                    setting.alarm = alarm
            self._router.alarm_book.take(SOURCE, serial, self._active(serial))

    def _counts(self, snapshot: Snapshot, setting: Setting) -> bool:
        state = self._router.state(snapshot.serial)
        is_limit = state is not None and state.device.kind is DeviceKind.LIMIT
        return not is_limit and not _began_before(snapshot, setting)

    def _begins(self, key: PointKey, setting: Setting, found: Value) -> None:
        serial, setpoint = key
        asked, read = in_words(setpoint, setting.value, found)
        text = f"{setpoint} was set to {asked} and reads {read} now"
        now = self._clock.now()
        setting.alarm = Alarm(
            serial=serial, id=f"{CODE}/{setpoint}", code=CODE, text=text, severity=Severity.WARNING, raised=now
        )
        self.count += 1
        log.warning("somebody else has changed a setpoint", serial=serial, setpoint=setpoint, set=asked, reads=read)
        self._keep(
            Note(
                action=AuditAction.DRIFTED,
                time=now,
                origin=GATEWAY,
                detail=text,
                serial=serial,
                setpoint=setpoint,
                value=found,
            )
        )
        self._publish(serial)

    def _ends(self, key: PointKey, setting: Setting) -> None:
        serial, setpoint = key
        setting.alarm = None
        log.info("the setpoint is as it was set again", serial=serial, setpoint=setpoint)
        self._publish(serial)

    def _publish(self, serial: str) -> None:
        self._router.alarms(SOURCE, serial, self._active(serial))

    def _active(self, serial: str) -> list[Alarm]:
        return [s.alarm for s in self._memory.of(serial).values() if s.alarm is not None]


def _began_before(snapshot: Snapshot, setting: Setting) -> bool:
    """Return whether some of a reading may be from before the command was done."""
    measuring = min(timedelta(seconds=snapshot.interval), MAX_MEASURING)
    return setting.since is not None and snapshot.time - measuring < setting.since.wall
