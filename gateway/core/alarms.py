"""Which alarms are active: raised once, cleared once, whoever tells of them, and remembered over restarts."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.clock import Clock
from gateway.core.kept_file import restored
from gateway.core.model import Alarm, Severity, Value, iso

FILE: Final = "alarms.json"
FORMAT: Final = 1
RETRY: Final = 10.0
"""Seconds until a file that could not be written is tried again."""
MAX_CLEARED_MARKS: Final = 200
WORST_FIRST: Final = (Severity.FAULT, Severity.WARNING, Severity.INFO)
POINTS: Final = ("alarms_active", "alarm_severity", "alarm_code", "alarm_text", "alarm_time")
"""Points that the alarms of a device give it."""

log = structlog.get_logger("alarms")


class _Active(msgspec.Struct):
    """An alarm, and who says that it is active."""

    alarm: Alarm
    says: dict[str, str]
    """Source → the alarm's id there."""


class _File(msgspec.Struct):
    version: int
    active: list[_Active]


class _Device(msgspec.Struct):
    """What is known of one device."""

    active: list[_Active] = msgspec.field(default_factory=list)
    listed: dict[str, set[str]] = msgspec.field(default_factory=dict)
    """Source → marks of all that was in its last list."""
    told: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=MAX_CLEARED_MARKS))
    """Marks of alarms that were cleared, for sources that come to know of them later."""


class Alarms:
    """The active alarms of every device. `tell` gets each that is raised or cleared, in order."""

    def __init__(self, clock: Clock, tell: Callable[[Alarm], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._devices: dict[str, _Device] = {}
        self._path: Path | None = None
        self._changed = asyncio.Event()
        self._writing: asyncio.Future[None] | None = None

    def __iter__(self) -> Iterator[Alarm]:
        return (active.alarm for device in self._devices.values() for active in device.active)

    def of(self, serial: str) -> list[Alarm]:
        """Return the active alarms of a device, in the order in which they were told."""
        device = self._devices.get(serial)
        return [] if device is None else [active.alarm for active in device.active]

    def points(self, serial: str) -> Mapping[str, Value]:
        """Return what a device's alarms are as points; nothing while nobody has told of any."""
        device = self._devices.get(serial)
        if device is None:
            return {}
        alarms = [active.alarm for active in device.active]
        newest = max(alarms, key=lambda alarm: alarm.raised, default=None)
        worst = next((severity for severity in WORST_FIRST if any(a.severity is severity for a in alarms)), "none")
        shown = (newest.code, newest.text, iso(newest.raised)) if newest else (None, None, None)
        return dict(zip(POINTS, (len(alarms), str(worst), *shown), strict=True))

    def take(self, source: str, serial: str, listed: Sequence[Alarm]) -> bool:
        """Take in all that a source says of a device; True where the device's points may have changed.

        Those with a `cleared` are not active any more. One that came and went between two lists of a source is
        raised and cleared at once; of its first list nobody knows what is news.
        """
        is_new = serial not in self._devices
        device = self._devices.setdefault(serial, _Device())
        before = [(active.alarm, dict(active.says)) for active in device.active]
        listed = [_named(alarm, serial) for alarm in listed]
        gone = [alarm for alarm in listed if alarm.cleared is not None]
        marks_before = {mark for active in device.active for mark in _marks(active.alarm, *active.says.values())}
        kept = [self._say(device, source, alarm) for alarm in listed if alarm.cleared is None]
        for active in list(device.active):
            if not any(active is other for other in kept):
                self._unsay(device, active, source, gone)
        self._tell_brief(device, source, gone, marks_before)
        device.listed[source] = {mark for alarm in listed for mark in _marks(alarm)}
        if before == [(active.alarm, active.says) for active in device.active]:
            return is_new
        self._changed.set()
        return True

    def withdraw(self, source: str, serial: str) -> bool:
        """Forget what a source said of a device; True where its points may have changed."""
        device = self._devices.get(serial)
        if device is None or not (source in device.listed or any(source in active.says for active in device.active)):
            return False
        changed = self.take(source, serial, [])
        del device.listed[source]
        return changed

    def forget(self, serial: str) -> None:
        """Forget a device that is gone, without a word of its alarms: they went with it."""
        device = self._devices.pop(serial, None)
        if device is not None and device.active:
            self._changed.set()

    def _say(self, device: _Device, source: str, alarm: Alarm) -> _Active:
        """Note that a source says an alarm is active, and raise it where nobody has said so before."""
        active = _find(device.active, source, alarm)
        if active is None:
            active = _Active(alarm, {source: alarm.id})
            device.active.append(active)
            self._tell(alarm)
            return active
        active.says[source] = alarm.id
        if next(iter(active.says)) == source:
            # Its text or severity may be another now. That is no event.
            active.alarm = msgspec.structs.replace(alarm, id=active.alarm.id)
        return active

    def _unsay(self, device: _Device, active: _Active, source: str, gone: Sequence[Alarm]) -> None:
        """Note that a source does not say an alarm is active; it is cleared when none is left that does."""
        id_ = active.says.pop(source, active.alarm.id)
        if active.says:
            return
        # By identity: another may look alike.
        device.active = [other for other in device.active if other is not active]
        said = next((alarm.cleared for alarm in gone if alarm.id == id_ or _same(alarm, active.alarm)), None)
        cleared = max(said or self._clock.now(), active.alarm.raised)
        device.told.extend(_marks(active.alarm, id_))
        self._tell(msgspec.structs.replace(active.alarm, cleared=cleared))

    def _tell_brief(self, device: _Device, source: str, gone: Sequence[Alarm], known: set[str]) -> None:
        """Tell of those that came and went since the source's last list."""
        if source not in device.listed:
            return
        known = known.union(device.told, *device.listed.values())
        for alarm in gone:
            marks = _marks(alarm)
            if known.isdisjoint(marks):
                device.told.extend(marks)
                self._tell(msgspec.structs.replace(alarm, cleared=None))
                self._tell(alarm)

    # over restarts

    def restore(self, directory: Path, sources: Collection[str]) -> None:
        """Read what was active when the gateway stopped, and keep the file from now on.

        What only sources said that there are no more is cleared by the first that tells of the device. A file
        that can't be read is logged; then alarms are raised anew.
        """
        self._path = directory / FILE
        try:
            found = restored(self._path, _File, log, FORMAT)
        except FileNotFoundError:
            return
        except (OSError, *BAD_JSON) as error:
            log.warning(
                "the file of active alarms can't be read; those still active are raised again",
                file=str(self._path),
                error=str(error),
            )
            return
        for active in found.active:
            says = {source: id_ for source, id_ in active.says.items() if source in sources}
            device = self._devices.setdefault(active.alarm.serial, _Device())
            device.active.append(_Active(active.alarm, says))

    async def keep(self) -> None:
        """Write the file whenever something has changed, for ever. To be run as a task after `restore`."""
        failing = False
        while True:
            await self._changed.wait()
            try:
                await self.save()
            except OSError as error:
                if not failing:
                    log.error("active alarms can't be stored", file=str(self._path), error=str(error))
                failing = True
                await asyncio.sleep(RETRY)
            else:
                if failing:
                    log.info("active alarms can be stored again", file=str(self._path))
                failing = False

    async def save(self) -> None:
        """Write the file if something has changed. Raises OSError; cancelled, it leaves the writing to the next."""
        await self._written()
        if self._path is None or not self._changed.is_set():
            return
        self._changed.clear()
        active = [
            _Active(active.alarm, dict(active.says)) for device in self._devices.values() for active in device.active
        ]
        self._writing = asyncio.ensure_future(asyncio.to_thread(_write, self._path, _File(FORMAT, active)))
        await self._written()

    async def _written(self) -> None:
        """Wait until nothing is being written. Raises OSError where that failed."""
        writing = self._writing
        if writing is not None:
            await asyncio.wait([writing])
            self._writing = None
            if writing.exception() is not None:
                self._changed.set()
            writing.result()


def _write(path: Path, file: _File) -> None:
    files.keep(path, msgspec.json.encode(file) + b"\n")


def _named(alarm: Alarm, serial: str) -> Alarm:
    """Return the alarm with a serial and an id: code and time raised are one, where the source has none."""
    if alarm.id and alarm.serial == serial:
        return alarm
    return msgspec.structs.replace(alarm, serial=serial, id=alarm.id or f"{alarm.code}@{iso(alarm.raised)}")


def _marks(alarm: Alarm, *ids: str) -> set[str]:
    """Return what it may be known by: its ids, and its code with the time."""
    return {alarm.id, *ids, *([f"{alarm.code}@{iso(alarm.raised)}"] if alarm.code else [])}


def _same(one: Alarm, other: Alarm) -> bool:
    """Return whether two sources' alarms are one, whatever id it has."""
    return bool(one.code) and (one.code, one.raised) == (other.code, other.raised)


def _find(active: Sequence[_Active], source: str, alarm: Alarm) -> _Active | None:
    """Return the active alarm that this one is: the source's own, else one that only others have told of."""
    for known in active:
        if known.says.get(source) == alarm.id:
            return known
    others = [known for known in active if source not in known.says]
    by_id = next((known for known in others if alarm.id == known.alarm.id or alarm.id in known.says.values()), None)
    return by_id or next((known for known in others if _same(known.alarm, alarm)), None)
