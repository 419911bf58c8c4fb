"""Totals that never lie: which rise and which fall of a counter is believed, for everything that shows it.

Who adds up a total takes a fall for a counter that began anew, and adds all of it once more; a number that is far too
high can't be taken back either. So one bad answer of a cloud is energy for ever. The router passes every reading
through here before anybody sees it: MQTT, Modbus, HTTP, Kafka and Home Assistant show the same. What is not believed
is held at what was shown last, and the reading after it decides. The rules, each with its reason:

| a reading that                                     | is                                                      |
|----------------------------------------------------|---------------------------------------------------------|
| rises by what the rating makes in that time        | shown; the time counts since it last rose, for clouds   |
|                                                    | are late and catch up                                   |
| rises by more                                      | held until it has stood (`JUMP`): perhaps another meter |
| is more than the rating makes in a whole period,   | held for a day, and only one that rises is a counter    |
| or is all ones (6553.5, 429496729.5)               | (`NEVER`): a register that has nothing stands still     |
| rises to what was before a fall                    | the old one: held (`NEVER`; `AGAIN` where the rating    |
|                                                    | could have made it since)                               |
| falls to what was before a jump, not of a lifetime  | held: the jump was wrong                                |
| falls by a tenth or less                           | held: a rounding, and none that Home Assistant resets at|
| falls deeper, the first time in a new day, month   | shown at once: it begins anew. When depends on when the |
| or year of the plant                               | cloud notices, e.g. in the morning                      |
| falls deeper after an hour without a reading       | held until it has stood and rises (`AWAKE`)             |
| falls deeper at another time of the day            | held for an hour, and until it rises (`ANEW`): zeros of |
|                                                    | an inverter that is away stand still                    |
| falls deeper, where nobody knows the zone          | held until it has stood (`MIDNIGHT`), once in 12 h      |
| falls deeper, of a lifetime                        | held for a day, and until it rises (`EXCHANGED`)        |
| falls deeper, of a charging session                | shown when a second one says so                         |
| is 0, the first ever of a lifetime                 | not shown until it has stood: a zero, and then the true |
|                                                    | one, would be all of it in an hour                      |
| rises in a new day whose first hours nobody read   | the new day's (`BEGUN`): 0 is shown before it, so that  |
|                                                    | the fall is seen that nobody was there for              |
| is below 0, or of a day that has ended             | held: no number of a counter, or old news               |

A rating that nobody knows is taken as large as it can be. State is kept over restarts by `gateway.core.totals_file`.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated, Final

import msgspec
import structlog

from gateway.core.model import Device, DeviceKind, Value
from gateway.core.points import POINTS, Kind
from gateway.core.zones import zone_named

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
DIP: Final = 0.9
"""A fall to this part of the value or above is a rounding, never a reset; the same limit as Home Assistant's."""
SILENCE: Final = HOUR
"""Seconds without a reading after which more may have happened than anybody saw."""
LATE: Final = 3 * HOUR
"""Seconds after midnight within which a counter may yet begin anew although it rises: clouds are late, zones wrong."""
TOLERANCE: Final = 120.0
"""Seconds by which a reading may be ahead of our clock; what was seen further ahead was seen by a wrong clock."""

log = structlog.get_logger("totals")


class Patience(msgspec.Struct, frozen=True):
    """What a doubted value needs to be believed: readings, seconds, and a rise to more than so many times itself."""

    readings: float
    seconds: float = 0
    rise: float = 0.0


SHOW: Final = Patience(0)
HOLD: Final = Patience(math.inf)
JUMP: Final = Patience(5, 300)
NEVER: Final = Patience(5, DAY, rise=1.0)
AGAIN: Final = Patience(5, 300, rise=1.0)
AWAKE: Final = Patience(5, 300, rise=1.0)
ANEW: Final = Patience(5, HOUR, rise=1.0)
MIDNIGHT: Final = Patience(5, 900)
EXCHANGED: Final = Patience(5, DAY, rise=1.0)
SESSION: Final = Patience(2)
FIRST: Final = Patience(5, 300)
BEGUN: Final = Patience(2, rise=1.02)
"""Yesterday's value does not rise by so much today; two sources may well round it differently."""
_LASTING: Final = (AWAKE, MIDNIGHT)
"""The reason for these is gone with the reading that began them."""
NEW_DAY_EVERY: Final = 12 * HOUR
"""Where the zone is not known, seconds between two falls that are taken for midnights."""


class _Period(msgspec.Struct, frozen=True):
    """When a total begins anew, and how long it counts at most."""

    key: Callable[[date], object] | None
    """Names the period that a day lies in; None where it does not depend on the day."""
    hours: float
    fall: Patience
    """For a fall that no end of a period explains."""


_LIFETIME: Final = _Period(None, 40 * 8766, EXCHANGED)
_SESSION: Final = _Period(None, 7 * 24, SESSION)
_PERIODS: Final[Mapping[str, _Period]] = {
    "today": _Period(lambda day: day, 25, ANEW),
    "month": _Period(lambda day: (day.year, day.month), 31 * 24 + 1, ANEW),
    "year": _Period(lambda day: day.year, 366 * 24 + 1, ANEW),
}
"""By the last word of the point's id."""

GUARDED: Final[Mapping[str, _Period]] = {
    point.id: _SESSION if "session" in point.id else _PERIODS.get(point.id.rpartition("_")[2], _LIFETIME)
    for point in POINTS.values()
    if point.kind is Kind.TOTAL
}

# How fast a total can rise, in its unit an hour: so many times the rating (kW), and so much whatever the rating.
_MADE: Final = (2.0, 0.0)
"""DC is larger than AC, and a battery fills beside it."""
_FLOWN: Final = (5.0, 50.0)
"""A house or a factory takes more than its inverter gives."""
_EARNED: Final = (20_000.0, 0.0)
"""10,000 of a currency for each kWh: there are such currencies."""
_CLOCK: Final = (0.0, 1.0)
_PACES: Final[Mapping[str, tuple[float, float]]] = {
    "energy": _MADE, "battery": _MADE, "ev": _MADE, "grid": _FLOWN, "load": _FLOWN, "income": _EARNED,
}  # fmt: skip
"""By the first word of the point's id; hours pass as they do."""
_SMALLEST: Final = 5.0
"""kW that every device is taken to have at least."""
_UNKNOWN: Final[Mapping[DeviceKind, float]] = {
    DeviceKind.PLANT: 10_000.0, DeviceKind.FLEET: 1_000_000.0, DeviceKind.METER: 2_000.0,
}  # fmt: skip
"""kW to reckon with where nobody says the rating."""
_UNKNOWN_DEVICE: Final = 500.0
"""The same of every other kind: no inverter is larger."""
_MIN_RATING_KW: Final = 0.1
"""kW. Less is a mistake, of kW for W."""
_ALL_ONES: Final = frozenset({0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF})


class Doubt(msgspec.Struct, gc=False):
    """A value that is not believed yet."""

    patience: Patience
    is_fall: bool
    first: float
    since: float
    last: float
    at: float
    readings: int = 1

    def agrees(self, value: float, at: float, pace: float, *, is_fall: bool) -> bool:
        """Return whether a reading goes on where this one was."""
        most = self.last + pace * max(0.0, at - self.at) / HOUR + _slack(pace)
        return is_fall == self.is_fall and DIP * self.first <= value <= most

    def stood(self, needed: Patience) -> bool:
        """Return whether it is to be believed."""
        rises = not needed.rise or self.last > self.first * needed.rise
        return self.readings >= needed.readings and self.at - self.since >= needed.seconds and rises


class Counter(msgspec.Struct, array_like=True, gc=False):
    """What was shown of one total. Times are seconds since 1970, of the measurements."""

    value: float | None
    rose: float
    """When the value came to be."""
    seen: float
    """When there was a reading, believed or not."""
    owed: bool = False
    """A period has ended, and the fall that comes with it has not been seen yet."""
    missed: bool = False
    """Nobody read it for the first hours of the new period, so that fall may never be seen."""
    fell: float = 0.0
    """When a fall was believed last."""
    old: float | None = None
    """What it was before that."""
    low: float | None = None
    """What it was before it jumped last."""


class Known(msgspec.Struct, array_like=True, gc=False):
    """The totals of one device."""

    counters: dict[str, Counter]
    day: Annotated[int, msgspec.Meta(ge=0, le=date.max.toordinal())] = 0
    """Of the plant, as an ordinal; of the newest reading."""
    seen: float = 0.0
    """When that was, seconds since 1970."""
    capacity: float = 0.0
    """kW, as the plant's own values say."""


class _Reading(msgspec.Struct, gc=False):
    """What all totals of one reading share."""

    at: float
    day: int
    midnight: float
    """When its day began."""
    has_zone: bool
    rating: float | None
    kind: DeviceKind
    is_old: bool
    """Of a day that has ended."""


class Totals:
    """Those of every device."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.changed = False
        """Something was read since it was stored."""
        self.urgent = False
        """Something fell since: a restart must not show again what was before."""
        self.held = 0
        """How many numbers were not believed."""
        self.plant_time: Callable[[datetime], datetime] | None = None
        """From our time to that of simulated plants, where theirs is another one."""
        self._doubts: dict[tuple[str, str], Doubt] = {}

    def judge(self, device: Device, values: Mapping[str, Value], time: datetime, now: datetime) -> Mapping[str, Value]:
        """Return the values to show of a reading: the same, but for totals that are not believed."""
        measured = [(point, value) for point, value in values.items() if value is not None and point in GUARDED]
        if not measured:
            return values
        if self.plant_time is not None:
            time, now = self.plant_time(time), self.plant_time(now)
        known = self.known.get(device.serial)
        if known is None:
            known = self.known[device.serial] = Known({})
        capacity = values.get("capacity")
        if isinstance(capacity, (int, float)) and capacity > 0:
            known.capacity = float(capacity)
        if known.seen > now.timestamp() + TOLERANCE:
            _set_back(known, time.timestamp())
        reading = _reading(device, known, time)
        if not reading.is_old:
            _turn(known, reading)
        self.changed = True
        shown = {
            point: self._shown((device.serial, point), known, float(value), reading)
            for point, value in measured
            if isinstance(value, (int, float))
        }
        held = {point: value for point, value in shown.items() if value != values[point]}
        self.held += len(held)
        return {**values, **held} if held else values

    def _shown(self, which: tuple[str, str], known: Known, value: float, reading: _Reading) -> float | None:
        point = which[1]
        counter = known.counters.get(point)
        if counter is None:
            counter = known.counters[point] = Counter(None, reading.at, reading.at)
        if reading.is_old or value < 0:
            return counter.value
        pace = _pace(point, reading.kind, reading.rating)
        silent = reading.at - counter.seen >= SILENCE
        if silent and counter.owed and counter.seen < reading.midnight:
            is_late = reading.at - reading.midnight >= LATE or reading.at - counter.seen >= DAY
            counter.missed = is_late and bool(counter.value)  # what stood at 0 has nothing to fall from
        counter.seen = max(counter.seen, reading.at)
        patience = _patience(counter, GUARDED[point], pace, value, reading, silent=silent)
        if patience is HOLD:
            self._doubts.pop(which, None)
            return counter.value
        if patience is not SHOW:
            if not self._stands(which, counter, patience, value, reading.at, pace):
                return counter.value
            if patience is BEGUN:
                value = 0.0
            elif counter.value is not None and value > counter.value:
                log.warning("a total rose by more than it can, and has stood: it is shown", device=which[0],
                            point=point, before=counter.value, value=value)  # fmt: skip
        self._doubts.pop(which, None)
        self._believe(counter, value, reading)
        if patience is BEGUN:
            counter.rose, counter.old = reading.midnight, None
        return value

    def _stands(
        self, which: tuple[str, str], counter: Counter, patience: Patience, value: float, at: float, pace: float
    ) -> bool:
        is_fall = counter.value is not None and value < counter.value and patience is not BEGUN
        doubt = self._doubts.get(which)
        if doubt is None or not doubt.agrees(value, at, pace, is_fall=is_fall):
            doubt = self._doubts[which] = Doubt(patience, is_fall, value, at, value, at)
        elif at > doubt.at:
            # The same answer read twice is one reading.
            doubt.last, doubt.at, doubt.readings = value, at, doubt.readings + 1
        return doubt.stood(doubt.patience if doubt.patience in _LASTING else patience)

    def _believe(self, counter: Counter, value: float, reading: _Reading) -> None:
        before = counter.value
        if before is None or value > before:
            # What rises so late in its day has begun anew unseen, e.g. from zero.
            counter.owed = counter.owed and (counter.missed or reading.at - reading.midnight < LATE)
            if before is not None and value - before > max(1.0, 0.1 * before):
                counter.low = before
        elif value < before:
            counter.old, counter.low, counter.fell = before, None, reading.at
            counter.owed = counter.missed = False
            self.urgent = True
        if value != before:
            counter.value, counter.rose = value, reading.at


def _patience(
    counter: Counter, period: _Period, pace: float, value: float, reading: _Reading, *, silent: bool
) -> Patience:
    """Return what a value needs to be believed: the table above, row by row."""
    shown, most = counter.value, pace * period.hours
    beyond = value > most or _is_all_ones(value)
    if shown is None:
        return NEVER if beyond else FIRST if value == 0 and period is _LIFETIME else SHOW
    if counter.missed and value >= DIP * shown and not beyond:
        made = pace * (reading.at - reading.midnight) / HOUR + _slack(pace)
        if period.hours > _PERIODS["today"].hours or value <= made:
            return BEGUN
    if value == shown:
        return SHOW
    if value > shown:
        return _rise(counter, shown, pace, value, reading, most=most, beyond=beyond, silent=silent)
    if value >= DIP * shown:
        return HOLD
    return _fall(counter, period, pace, value, reading, silent=silent)


def _rise(
    counter: Counter, shown: float, pace: float, value: float, reading: _Reading, *, most: float, beyond: bool,
    silent: bool,
) -> Patience:  # fmt: skip
    allowed = pace * max(0.0, reading.at - counter.rose) / HOUR + _slack(pace)
    possible = value - shown <= allowed
    if beyond and not (possible and shown > most):
        # Where it is there already the rating is wrong.
        return NEVER
    old = counter.old
    if old is not None and shown < old / 2 and 0.98 * old <= value <= old + allowed and value - shown > 0.1 * old:
        return NEVER if not possible else SHOW if silent else AGAIN
    return SHOW if possible else JUMP


def _fall(counter: Counter, period: _Period, pace: float, value: float, reading: _Reading, *, silent: bool) -> Patience:
    if period.key is None:
        return period.fall
    if not reading.has_zone:
        return MIDNIGHT if reading.at - counter.fell >= NEW_DAY_EVERY else ANEW
    if counter.owed:
        return SHOW
    made = pace * max(0.0, reading.at - counter.rose) / HOUR + _slack(pace)
    if counter.low is not None and 0.98 * counter.low <= value <= counter.low + made:
        return HOLD
    return AWAKE if silent else period.fall


def _reading(device: Device, known: Known, time: datetime) -> _Reading:
    zone = zone_named(device.time_zone)
    local = time.astimezone(zone or UTC)
    at, day = time.timestamp(), local.toordinal()
    rating = (device.rated_power or 0.0) / 1000 or known.capacity
    return _Reading(
        at=at,
        day=day,
        # On a day of 23 or 25 hours an hour off, which is within what is late.
        midnight=at - local.hour * HOUR - local.minute * 60 - local.second,
        has_zone=zone is not None,
        rating=rating if rating >= _MIN_RATING_KW else None,
        kind=device.kind,
        is_old=day < known.day,
    )


def _turn(known: Known, reading: _Reading) -> None:
    """Take in that a day of the plant has ended, if one has."""
    before, known.day = known.day, reading.day
    known.seen = max(known.seen, reading.at)
    if before == reading.day or not reading.has_zone:
        return
    day, was = date.fromordinal(reading.day), date.fromordinal(max(1, before))
    for point, counter in known.counters.items():
        key = GUARDED[point].key
        if key is not None and key(was) != key(day):
            counter.owed, counter.missed = True, False


def _set_back(known: Known, at: float) -> None:
    """Set back what a wrong clock has seen in the future: else nothing would be new for years."""
    known.day, known.seen = 0, at
    for counter in known.counters.values():
        counter.seen, counter.rose, counter.fell = min(counter.seen, at), min(counter.rose, at), 0.0


@lru_cache(maxsize=65_536)
def _pace(point: str, kind: DeviceKind, rating: float | None) -> float:
    """Return how fast a total can rise, in its unit an hour; `rating` in kW."""
    times, plus = _PACES.get(point.partition("_")[0], _CLOCK) if not point.endswith("time") else _CLOCK
    if rating is None:
        rating = _UNKNOWN.get(kind, _UNKNOWN_DEVICE)
    return times * max(rating, _SMALLEST) + plus


def _slack(pace: float) -> float:
    """Return what a total may rise by in no time: steps that a cloud rounds to, and clocks that differ."""
    return max(1.0, min(0.1 * pace, 200.0))


def _is_all_ones(value: float) -> bool:
    """Return whether a register of all ones makes this number, whatever its scale."""
    return value > 30 and any(round(value * scale, 6) in _ALL_ONES for scale in (1, 10, 100, 1000))
