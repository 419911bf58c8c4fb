"""Alarms as SEMS lists them, handed to the router device by device."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from gateway.api.contexts import SourceContext
from gateway.core.model import Alarm, Severity, iso
from gateway.sems.calls import Entry
from gateway.sems.plants import Plants, Target
from gateway.sems.times import AHEAD

MAX_LISTED: Final = 1000
"""Of one device; what is beyond is hostile."""


class Alarms:
    """Which there are."""

    def __init__(self, context: SourceContext, plants: Plants) -> None:
        self._context = context
        self._plants = plants
        self._first_seen: dict[tuple[str, str], datetime] = {}
        """Of those that SEMS gives no time for, or one that is yet to come."""

    def take(self, covered: Iterable[Target], entries: Iterable[Entry]) -> None:
        """Take in an answer that lists all alarms of the `covered`; those without entries have none.

        An alarm with a time at which it was cleared is not active any more; the router takes that time from it.
        """
        listed: dict[str, dict[str, Alarm]] = {target.serial: {} for target in covered}
        for entry in entries:
            mine = listed.get(entry.serial)
            if mine is not None and len(mine) < MAX_LISTED:
                alarm = self._alarm(entry)
                mine.setdefault(alarm.id, alarm)
        for serial, alarms in listed.items():
            self._context.alarms(serial, list(alarms.values()))
        self._first_seen = {
            (serial, id_): time
            for (serial, id_), time in self._first_seen.items()
            if id_ in listed.get(serial, {id_: None}) and self._plants.get(serial)
        }

    def _alarm(self, entry: Entry) -> Alarm:
        reading = entry.reading
        code, text = reading.text("code"), reading.text("text")
        raised = reading.times.get("raised")
        id_ = reading.text("alarm") or "@".join(part for part in (code or text, raised and iso(raised)) if part)
        now, cleared = self._context.clock.now(), reading.times.get("cleared")
        if raised is None or raised > now + AHEAD or (entry.serial, id_) in self._first_seen:
            raised = self._first_seen.setdefault((entry.serial, id_), now)
        said = reading.text("severity")
        severity = Severity(said) if said in list(Severity) else Severity.FAULT
        return Alarm(serial=entry.serial, id=id_, code=code, text=text, severity=severity, raised=raised,
                     cleared=cleared and min(cleared, now))  # fmt: skip
