"""What is, or was, the matter with devices: trips, alarms raised by hand, and what happens by itself now and then."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from typing import Final, NamedTuple

import msgspec

from gateway.core.model import Alarm, Severity
from gateway.simulator.noise import derive, unit
from gateway.simulator.report import FAULT_CODE, FAULT_TEXT
from gateway.simulator.sky import DAY, Climate
from gateway.simulator.specs import PlantSpec

REMEMBERED: Final = timedelta(days=1)
"""How long a cleared alarm is still listed."""
_TRIP: Final = "trip"
_LONGEST: Final = 2400.0
_SHORTEST: Final = 300.0
"""Seconds that a trouble lasts."""


class Rule(NamedTuple):
    """A trouble that comes by itself, at most once a day."""

    code: str
    text: str
    severity: Severity
    battery: bool
    """Of batteries; else of inverters."""
    from_hour: float
    until_hour: float
    """When it begins, by the local clock."""
    chance: float
    """Of a day on which the weather is right for it."""
    warmer_than: float
    """°C of the air."""
    windier_than: float
    """m/s."""
    clearer_than: float
    """Part of the direct light that the clouds let through."""


# The codes are ours.
RULES: Final = (
    # A sunny and windy noon: everybody feeds in.
    Rule("131072", "Grid Overvoltage", Severity.WARNING, False, 11, 14.5, 0.15, -50, 6.0, 0.7),
    Rule("W24", "Battery Temperature High", Severity.WARNING, True, 14, 17, 0.2, 28, 0, 0),
)


class Trouble(NamedTuple):
    """Something that came by itself. Times are POSIX seconds of the physics clock."""

    serial: str
    rule: Rule
    begins: float
    ends: float

    def alarm(self, raised: datetime, cleared: datetime | None) -> Alarm:
        """Return it as an alarm, with its times by the wall clock."""
        return Alarm(
            serial=self.serial,
            id=f"{self.serial}-{self.begins:.0f}",
            code=self.rule.code,
            text=self.rule.text,
            severity=self.rule.severity,
            raised=raised,
            cleared=cleared,
        )


def troubles(plant: PlantSpec, climate: Climate, seed: int, start: float, end: float) -> Iterator[Trouble]:
    """Yield what began by itself on the local days from `start` to `end`, for all devices of a plant."""
    first, last = (datetime.fromtimestamp(time, plant.zone).date() for time in (start, end))
    for number in range(first.toordinal(), last.toordinal() + 1):
        midnight = datetime.combine(datetime.fromordinal(number), datetime.min.time(), plant.zone).timestamp()
        for rule in RULES:
            serials = [a.serial for a in plant.accessories if a.type == "battery"] if rule.battery else plant.by_serial
            for serial in serials:
                dice = derive(seed, serial, rule.code, str(number))
                begins = midnight + 3600 * (rule.from_hour + (rule.until_hour - rule.from_hour) * unit(dice, 1))
                if unit(dice, 0) < rule.chance and begins <= end and _fits(rule, climate, begins):
                    yield Trouble(serial, rule, begins, begins + _SHORTEST + (_LONGEST - _SHORTEST) * unit(dice, 2))


def _fits(rule: Rule, climate: Climate, time: float) -> bool:
    sky = climate.sky(time)
    return (
        sky.ambient > rule.warmer_than
        and climate.clearness(time) > rule.clearer_than
        and climate.weather(time, sky).wind_speed > rule.windier_than
    )


class AlarmBook:
    """Alarms that were raised by a trip or by hand."""

    def __init__(self) -> None:
        self._alarms: dict[str, list[Alarm]] = {}
        self._numbers = count(1)

    def of(self, serial: str, now: datetime) -> list[Alarm]:
        """Return a device's alarms, without those cleared long ago."""
        alarms = self._alarms.get(serial)
        if not alarms:
            return []
        kept = [alarm for alarm in alarms if alarm.cleared is None or now - alarm.cleared < REMEMBERED]
        self._alarms[serial] = kept
        return list(kept)

    def raise_(self, serial: str, code: str, text: str, severity: Severity, now: datetime, origin: str = "a") -> Alarm:
        """Raise an alarm; `origin` stands in its id."""
        alarm_id = f"{serial}-{origin}{next(self._numbers)}"
        alarm = Alarm(serial=serial, id=alarm_id, code=code, text=text, severity=severity, raised=now)
        self._alarms.setdefault(serial, []).append(alarm)
        return alarm

    def clear(self, serial: str, alarm_id: str, now: datetime) -> None:
        """Clear an alarm. Raises KeyError for one that is not active."""
        alarms = self._alarms.get(serial, [])
        for position, alarm in enumerate(alarms):
            if alarm.id == alarm_id and alarm.cleared is None:
                alarms[position] = msgspec.structs.replace(alarm, cleared=now)
                return
        raise KeyError(alarm_id)

    def trip(self, serial: str, now: datetime, *, tripped: bool) -> None:
        """Raise the alarm of a device that stands still with a fault, or clear it."""
        own = f"{serial}-{_TRIP}"
        active = [a for a in self._alarms.get(serial, []) if a.cleared is None and a.id.startswith(own)]
        if tripped and not active:
            self.raise_(serial, FAULT_CODE, FAULT_TEXT, Severity.FAULT, now, _TRIP)
        for alarm in [] if tripped else active:
            self.clear(serial, alarm.id, now)


def recent(start: float, end: float, speed: float) -> float:
    """Return from when on, by the physics clock, troubles may still be listed at `end`; not before `start`."""
    return max(start, end - min(REMEMBERED.total_seconds() * speed, 7 * DAY) - _LONGEST)
