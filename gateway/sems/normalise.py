"""SEMS's answers into points and attributes, by the rows of the catalogue. Every answer is untrusted."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from gateway.core.model import Sample, Value
from gateway.core.points import NONE, POINTS, BadValueError, Point, Type, is_measured
from gateway.core.text import MAX_CODE, MAX_ID, MAX_NAME, MAX_REASON, MAX_TEXT, identifier, plain
from gateway.core.zones import hours_in
from gateway.sems import numbers
from gateway.sems.catalogue import Interface, Json, ResponseField
from gateway.sems.times import EARLIEST, MAX_SHOWN, Dates, Written, instant, is_there, written

SENTINEL_TOLERANCE: Final = 1e-6
"""Relative difference within which a number is one of the row's sentinels."""
EVERYWHERE_ABSENT: Final = (4294967295.0, 429496729.5, 42949672.95, 4294967.295)
"""32 bits of ones, in whatever decimals: "not there" in every field (SEMS.md, seen)."""
UNIT_ABSENT: Final = {
    "V": (65535.0, 6553.5),
    "A": (65535.0, 6553.5),
    "Hz": (65535.0, 6553.5, 655.35),
    "°C": (65535.0, 6553.5, 3276.7),
}
"""16 bits of ones, by the unit of the point: a power or an energy may well be such a number."""
DIGITS: Final = 6
TIMES: Final = ("local_time", "unix_seconds", "unix_milliseconds")
DATE_FORMAT: Final = "date_format"
"""Attribute by which an answer names the format of its dates."""
MAX_FIELDS: Final = 100
"""Of an answer, that are said to be unreadable."""
ATTRIBUTE_UNITS: Final[Mapping[str, str]] = {"rated_power": "W", "battery_power_max": "W", "lifetime": "s"}
IDENTIFIERS: Final = frozenset({"serial", "plant", "alarm", "receipt"})
"""Attributes that stand for something: whole or not at all."""
MAX_ATTRIBUTE: Final[Mapping[str, int]] = {
    "name": MAX_NAME, "model": MAX_NAME, "code": MAX_CODE, "said": MAX_CODE, "detail": MAX_REASON,
}  # fmt: skip
MAX_RECEIPT: Final = 128
"""Characters of a task's id."""

_MISSING: Final[Json] = "\0missing"
_LARGEST: Final = sys.float_info.max


class Reading(msgspec.Struct, frozen=True):
    """One object of an answer."""

    values: Mapping[str, Value]
    """Point id → value; None where SEMS has the field but nothing in it."""
    attributes: Mapping[str, Value]
    times: Mapping[str, datetime] = {}
    """Attribute → UTC, of those that are times and are there."""
    unread: Mapping[str, str] = {}
    """Attribute → text seen, of those that are times, are there, and can't be read."""
    local: datetime | None = None
    """When it was measured as it is written, without a zone; None where it has one of its own, or there is none."""
    unreadable: Mapping[str, str] = {}
    """Field → text seen, of those that would give a point its value and can't be read."""

    @property
    def empty(self) -> bool:
        """Whether there is not a single value in it: then nothing was measured."""
        return not is_measured(self.values)

    @property
    def time(self) -> datetime | None:
        """When it was measured, UTC; None where SEMS does not say."""
        return self.times.get("time")

    def text(self, attribute: str) -> str:
        """Return an attribute that is text; empty where it is not there."""
        value = self.attributes.get(attribute)
        return value if isinstance(value, str) else ""

    def number(self, attribute: str) -> float | None:
        """Return an attribute that is a number; None where it is not there."""
        value = self.attributes.get(attribute)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def entries(interface: Interface, data: Json) -> list[dict[str, Json]]:
    """Return the objects an answer holds: those of the first of its lists that has any, or the one it is."""
    if not interface.lists:
        return [entry for entry in (data if isinstance(data, list) else [data]) if isinstance(entry, dict)]
    empty = False
    for path in interface.lists:
        if not path and empty and isinstance(data, dict):
            continue  # the object that holds the empty list is no entry itself
        found = _walk(data, path.split(".") if path else [], {})
        if found:
            return found
        empty = empty or found is not None
    # A list that should lie deeper, bare.
    return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) and not empty else []


def has_list(interface: Interface, data: Json) -> bool:
    """Return whether an answer holds one of its interface's lists, be it empty: no list says nothing."""
    if isinstance(data, list):
        return True
    for path in interface.lists:
        place: Json = data
        for key in path.split(".") if path else ():
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, list):
            return True
    return False


def read(
    interface: Interface,
    entry: Mapping[str, Json],
    zone: tzinfo,
    now: datetime,
    day: datetime | None = None,
    after: datetime | None = None,
    dates: Dates | None = None,
) -> Reading:
    """Return what one object says; `zone` is the plant's, for times without one.

    `day` is the local day that was asked for, for times that are hours and minutes only; `after` the time of the
    entry before, in a series. `dates` knows in which order the account writes dates, and learns it. Where two fields
    give the same point or attribute, the first with a value counts.
    """
    dates = Dates() if dates is None else dates
    values: dict[str, Value] = {}
    attributes: dict[str, Value] = {}
    times: dict[str, datetime] = {}
    unread: dict[str, str] = {}
    local: datetime | None = None
    for path, point, attribute, convert, is_time in _rows(interface):
        raw = entry.get(path[0], _MISSING) if len(path) == 1 else _find(entry, path)
        if raw is _MISSING:
            continue
        if is_time:
            time, of_plant = instant(convert(raw), zone, now, day, after, dates)  # type: ignore[arg-type]
            if time is None:
                if is_there(raw):
                    unread.setdefault(attribute, plain(str(raw), MAX_SHOWN))
            elif attribute not in times:
                times[attribute] = time
                if attribute == "time":
                    local = of_plant
        elif point:
            if values.get(point) is None:
                values[point] = convert(raw)  # type: ignore[assignment]
        elif attributes.get(attribute) is None:
            attributes[attribute] = convert(raw)  # type: ignore[assignment]
            if attribute == DATE_FORMAT:
                dates.say(str(attributes[attribute]))
    if unread:
        unread = {attribute: text for attribute, text in unread.items() if attribute not in times}
    return Reading(values, attributes, times, unread, local, _unreadable(interface, entry, values))


def texts(interface: Interface, entry: Mapping[str, Json]) -> Mapping[str, str]:
    """Return the attributes of one object that are text: all that `read` finds of one without points, but its times."""
    found: dict[str, str] = {}
    for path, point, attribute, convert, is_time in _rows(interface):
        if not is_time and not point and attribute not in found:
            raw = entry.get(path[0], _MISSING) if len(path) == 1 else _find(entry, path)
            value = None if raw is _MISSING else convert(raw)
            if isinstance(value, str):
                found[attribute] = value
    return found


def samples(
    interface: Interface, data: Json, zone: tzinfo, now: datetime, day: datetime, dates: Dates | None = None
) -> list[Sample]:
    """Return the series that an answer holds, oldest first, one sample a time; what has no time is left out.

    SEMS counts local hours, and when clocks are set back one comes twice: there the order of the entries decides
    which is which.
    """
    found = entries(interface, data)
    dates = Dates() if dates is None else dates
    series = _in_turn(interface, found, zone, now, day, dates)
    if len(series) > 1 and series[0].time > series[-1].time:
        series = _in_turn(interface, found[::-1], zone, now, day, dates)
    merged: dict[datetime, dict[str, Value]] = {}
    for sample in series:
        merged.setdefault(sample.time, {}).update(sample.values)
    return [Sample(time, merged[time]) for time in sorted(merged)]


class _Row(NamedTuple):
    """A response row, made ready: 10,000 devices of 60 fields each pass through here every few minutes."""

    path: tuple[str, ...]
    point: str
    attribute: str
    convert: Callable[[Json], Value | datetime | Written]
    is_time: bool


@lru_cache(maxsize=4096)
def _rows(interface: Interface) -> tuple[_Row, ...]:
    # What the answer says of its dates comes before them.
    rows = sorted(interface.response, key=lambda row: row.attribute != DATE_FORMAT)
    return tuple(
        _Row(tuple(row.field.split(".")), row.point, row.attribute, _converter(row), row.type in TIMES) for row in rows
    )


def _walk(node: Json, path: list[str], lent: dict[str, Json]) -> list[dict[str, Json]] | None:
    """Return the entries where a path leads to, with the plain fields of the objects on the way; None without any."""
    if isinstance(node, list):
        below = [_walk(item, path, lent) for item in node if isinstance(item, dict)]
        found = [entry for entries in below if entries is not None for entry in entries]
        return found if found or not node else None
    if not isinstance(node, dict):
        return None
    if not path:
        return [{**lent, **node}] if lent else [node]
    plain = {key: value for key, value in node.items() if not isinstance(value, (dict, list))}
    return _walk(node.get(path[0]), path[1:], {**lent, **plain})


def _in_turn(
    interface: Interface,
    found: Sequence[Mapping[str, Json]],
    zone: tzinfo,
    now: datetime,
    day: datetime,
    dates: Dates,
) -> list[Sample]:
    series: list[Sample] = []
    after: datetime | None = None
    unread: Mapping[str, str] = {}
    for entry in found:
        reading = read(interface, entry, zone, now, day, after or datetime.min.replace(tzinfo=UTC), dates)
        unread = unread or reading.unread
        if reading.time is not None:
            after = reading.time
            series.append(Sample(reading.time, reading.values))
    dates.note(interface.name, "", {} if series else unread)
    return series


def _find(entry: Mapping[str, Json], path: tuple[str, ...]) -> Json:
    """Return the value of a field that lies deeper, or `_MISSING`."""
    place: object = entry
    for key in path:
        if not isinstance(place, dict) or key not in place:
            return _MISSING
        place = place[key]
    return place  # type: ignore[return-value]


def _converter(row: ResponseField) -> Callable[[Json], Value | datetime | Written]:
    """Return what makes the gateway's value of SEMS's; None when it is not there or makes no sense."""
    point = POINTS.get(row.point)
    if row.type == "local_time":
        return written
    if row.type in TIMES:
        return _unix_time(1000 if row.type == "unix_milliseconds" else 1)
    if row.attribute == "time_span":
        return _span(_scaled(row, None))
    if row.options:
        return _fitting(point, lambda raw: row.options.get(_option_key(raw)))
    if row.type == "text" or (point is not None and point.type is Type.TEXT):
        return _fitting(point, _text(row))
    if point is not None and point.type not in (Type.FLOAT, Type.INTEGER):
        return _fitting(point, _scaled(row, None))
    return _scaled(row, point)


def _fitting(point: Point | None, convert: Callable[[Json], Value]) -> Callable[[Json], Value]:
    if point is None:
        return convert

    def fit(raw: Json) -> Value:
        value = convert(raw)
        try:
            return None if value is None else point.parse(value)
        except BadValueError:
            return None

    return fit


def _text(row: ResponseField) -> Callable[[Json], Value]:
    """Return what reads a text: on one line, and no longer than its kind may be."""
    if row.attribute in IDENTIFIERS:
        most = MAX_RECEIPT if row.attribute == "receipt" else MAX_ID
        return lambda raw: identifier(raw, most) or None
    limit = MAX_CODE if row.point == "fault_code" else MAX_ATTRIBUTE.get(row.attribute, MAX_TEXT)

    def convert(raw: Json) -> Value:
        if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
            return None
        text = plain(raw, limit).strip()
        return None if not text or (row.point and numbers.is_nothing(text)) else text

    return convert


def _span(convert: Callable[[Json], Value]) -> Callable[[Json], Value]:
    """Return what reads hours that a clock is from UTC; as a text where that is no number of hours."""

    def hours(raw: Json) -> Value:
        said = hours_in(raw) if isinstance(raw, str) else None
        number = convert(raw if said is None else said)
        return number if number is not None else plain(raw, MAX_SHOWN) or None

    return hours


def _unit(row: ResponseField) -> str:
    """Return the unit that a row's number is wanted in; "money" for amounts."""
    if row.point.startswith("income_"):
        return "money"
    if row.point == "signal_strength":
        return "dBm"
    return POINTS[row.point].unit if row.point in POINTS else ATTRIBUTE_UNITS.get(row.attribute, "")


def _scaled(row: ResponseField, point: Point | None) -> Callable[[Json], Value]:
    """Return what reads a number: in the point's range, and none of the row's sentinels."""
    low = -_LARGEST if point is None or point.low is None else point.low
    high = _LARGEST if point is None or point.high is None else point.high
    smallest = 0.0 if point is None else point.least  # of a power factor
    whole = point is not None and point.type is Type.INTEGER
    scale = row.scale
    none = row.none
    unit = _unit(row)
    absent = {*row.absent, *EVERYWHERE_ABSENT, *UNIT_ABSENT.get(unit, ())}
    sentinels = [(a - abs(a) * SENTINEL_TOLERANCE, a + abs(a) * SENTINEL_TOLERANCE) for a in absent]

    def convert(raw: Json) -> Value:
        number = _number(raw)
        said = numbers.parse(raw) if number is None and isinstance(raw, str) else None
        if said is not None and said.unit:
            # The unit says how much a number is, the scale in which direction it counts.
            number = numbers.converted(said, unit)
            number = None if number is None else number / abs(scale)
        elif said is not None:
            number = said.number
        if number is None:
            return None
        if number == none:
            return NONE
        for least, most in sentinels:
            if least <= number <= most or (said is not None and least <= said.number <= most):
                return None
        if scale != 1 or said is not None:
            # Scaling must not add digits: 8.101 kW are 8101 W, not 8101.000000000001. Nor a sign to nothing: -0.0.
            number = round(number * scale, DIGITS) + 0.0
        if not low <= number <= high or abs(number) < smallest:
            return None
        return round(number) if whole else number

    return convert


def _number(raw: Json) -> float | None:
    if isinstance(raw, str):
        if "_" in raw:  # Python's own 1_000 is nobody else's number
            return None
    elif isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        number = float(raw)
    except (ValueError, OverflowError):
        return None
    return number if -_LARGEST <= number <= _LARGEST else None


def _option_key(raw: Json) -> str:
    number = _number(raw)
    if number is not None and number.is_integer():
        return str(int(number))
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return str(raw)


def _unreadable(interface: Interface, entry: Mapping[str, Json], values: Mapping[str, Value]) -> Mapping[str, str]:
    """Return what is there, would give a point its value, and can't be read."""
    if all(value is not None for value in values.values()):
        return {}
    found: dict[str, str] = {}
    for row, path, is_only in _point_rows(interface):
        if values.get(row.point, 0) is not None or len(found) >= MAX_FIELDS:
            continue
        raw = _find(entry, path)
        if raw is not _MISSING and _is_odd(row, raw, is_only=is_only):
            found[row.field] = plain(raw, MAX_CODE) if isinstance(raw, (str, int, float)) else type(raw).__name__
    return found


@lru_cache(maxsize=4096)
def _point_rows(interface: Interface) -> tuple[tuple[ResponseField, tuple[str, ...], bool], ...]:
    rows = [row for row in interface.response if row.point]
    count = Counter(row.point for row in rows)
    return tuple((row, tuple(row.field.split(".")), count[row.point] == 1) for row in rows)


def _is_odd(row: ResponseField, raw: Json, *, is_only: bool) -> bool:
    """Return whether a field that gave no value should have: a number out of its range, or a sentinel, need not."""
    if raw is None or (isinstance(raw, str) and numbers.is_nothing(raw)):
        return False
    if row.options:
        # Where several fields say it together, not each has a word for it.
        return is_only and _option_key(raw) not in row.options
    if isinstance(raw, str):
        said = numbers.parse(raw)
        return _number(raw) is None and (
            said is None or (said.unit != "" and numbers.converted(said, _unit(row)) is None)
        )
    return isinstance(raw, (bool, dict, list))


def _unix_time(per_second: int) -> Callable[[Json], datetime | Written | None]:
    """Return what reads a Unix time; or a time as text, for how SEMS writes some is assumed."""

    def convert(raw: Json) -> datetime | Written | None:
        number = _number(raw)
        if number is None:
            return written(raw)
        try:
            time = None if not number else datetime.fromtimestamp(number / per_second, UTC)
        except (ValueError, OverflowError, OSError):
            return None
        return time if time is None or time.year >= EARLIEST else None

    return convert
