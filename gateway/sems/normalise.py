"""SEMS's answers into points and attributes, by the rows of the catalogue. Every answer is untrusted."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from gateway.core.model import Sample, Value
from gateway.core.points import POINTS, BadValueError, Point, Type
from gateway.sems.catalogue import Interface, Json, ResponseField

MAX_TEXT: Final = 256
SENTINEL_TOLERANCE: Final = 1e-6
"""Relative difference within which a number is one of the row's sentinels."""
DIGITS: Final = 6
AHEAD: Final = timedelta(minutes=2)
"""By how much SEMS's clock may be ahead of ours."""
TIMES: Final = ("local_time", "unix_seconds", "unix_milliseconds")
LOOKED_INTO: Final = 5
"""Entries of an answer: the others have the same fields."""
MAX_FIELDS: Final = 100
MAX_FIELD_NAME: Final = 64

_MISSING: Final[Json] = "\0missing"
_LARGEST: Final = sys.float_info.max
_TIME: Final = re.compile(
    r"""\s*
    (?: (?P<year>\d{4}) - (?P<month>\d\d?) (?: - (?P<day>\d\d?) )?
      | (?P<us_month>\d\d?) / (?P<us_day>\d\d?) / (?P<us_year>\d{4}) )?
    (?: (?:(?<=\d)[ T]|(?<!\d)) (?P<hour>\d\d?) : (?P<minute>\d\d) (?: : (?P<second>\d\d) (?: \.\d+ )? )?
        (?P<offset> Z | [+-]\d\d:?\d\d )? )?
    \s*""",
    re.VERBOSE | re.ASCII,
)
"""A day, a day and a time, or hours and minutes alone: `2026-06-21 13:05:00`, `06/21/2026 13:05:00`, `13:05`."""


class Reading(msgspec.Struct, frozen=True):
    """One object of an answer."""

    values: Mapping[str, Value]
    """Point id → value; None where SEMS has the field but nothing in it."""
    attributes: Mapping[str, Value]
    times: Mapping[str, datetime] = {}
    """Attribute → UTC, of those that are times and are there."""

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


def read(
    interface: Interface,
    entry: Mapping[str, Json],
    zone: tzinfo,
    now: datetime,
    day: datetime | None = None,
    after: datetime | None = None,
) -> Reading:
    """Return what one object says; `zone` is the plant's, for times without one.

    `day` is the local day that was asked for, for times that are hours and minutes only; `after` the time of the
    entry before, in a series. Where two fields give the same point or attribute, the first with a value counts.
    """
    values: dict[str, Value] = {}
    attributes: dict[str, Value] = {}
    times: dict[str, datetime] = {}
    for path, point, attribute, convert, is_time in _rows(interface):
        raw = entry.get(path[0], _MISSING) if len(path) == 1 else _find(entry, path)
        if raw is _MISSING:
            continue
        if is_time:
            time = _instant(convert(raw), zone, now, day, after)
            if time is not None:
                times.setdefault(attribute, time)
        elif point:
            if values.get(point) is None:
                values[point] = convert(raw)  # type: ignore[assignment]
        elif attributes.get(attribute) is None:
            attributes[attribute] = convert(raw)  # type: ignore[assignment]
    return Reading(values, attributes, times)


def samples(interface: Interface, data: Json, zone: tzinfo, now: datetime, day: datetime) -> list[Sample]:
    """Return the series that an answer holds, oldest first, one sample a time; what has no time is left out.

    SEMS counts local hours, and when clocks are set back one comes twice: there the order of the entries tells
    which is which.
    """
    found = entries(interface, data)
    series = _in_turn(interface, found, zone, now, day)
    if len(series) > 1 and series[0].time > series[-1].time:
        series = _in_turn(interface, found[::-1], zone, now, day)
    merged: dict[datetime, dict[str, Value]] = {}
    for sample in series:
        merged.setdefault(sample.time, {}).update(sample.values)
    return [Sample(time, merged[time]) for time in sorted(merged)]


class KeptAside:
    """Names of fields that SEMS answers and the catalogue does not know."""

    def __init__(self) -> None:
        self.fields: Final[dict[str, set[str]]] = {}
        """Interface → fields."""

    def look(self, interface: Interface, data: Json) -> str:
        """Look into an answer. Returns a line for the log when the interface's first are found, or ""."""
        known, parents = _known_fields(interface)
        unknown: set[str] = set()
        for entry in entries(interface, data)[:LOOKED_INTO]:
            unknown |= entry.keys() - known
            for parent in parents:
                inner = entry.get(parent)
                if isinstance(inner, dict):
                    unknown |= {f"{parent}.{name}" for name in inner} - known
        if not unknown:
            return ""
        first = interface.name not in self.fields
        kept = self.fields.setdefault(interface.name, set())
        kept.update(sorted(name[:MAX_FIELD_NAME] for name in unknown)[: MAX_FIELDS - len(kept)])
        if not first:
            return ""
        return (
            f"SEMS answers {interface.name} with fields the catalogue does not know: {', '.join(sorted(kept))}; "
            "to use one see overrides in docs/sems.md"
        )


class _Row(NamedTuple):
    """A response row, made ready: 10,000 devices of 60 fields each pass through here every few minutes."""

    path: tuple[str, ...]
    point: str
    attribute: str
    convert: Callable[[Json], Value | datetime | timedelta]
    is_time: bool


@lru_cache(maxsize=4096)
def _rows(interface: Interface) -> tuple[_Row, ...]:
    return tuple(
        _Row(tuple(row.field.split(".")), row.point, row.attribute, _converter(row), row.type in TIMES)
        for row in interface.response
    )


@lru_cache(maxsize=4096)
def _known_fields(interface: Interface) -> tuple[frozenset[str], frozenset[str]]:
    """Return the fields that have a meaning, and those among them that hold others."""
    fields = {row.field for row in interface.response}
    parents = {field.rpartition(".")[0] for field in fields if "." in field}
    lists = {part for path in interface.lists for part in path.split(".")}
    return frozenset(fields | parents | lists), frozenset(parents)


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
    interface: Interface, found: Sequence[Mapping[str, Json]], zone: tzinfo, now: datetime, day: datetime
) -> list[Sample]:
    series: list[Sample] = []
    after: datetime | None = None
    for entry in found:
        reading = read(interface, entry, zone, now, day, after or datetime.min.replace(tzinfo=UTC))
        if reading.time is not None:
            after = reading.time
            series.append(Sample(reading.time, reading.values))
    return series


def _find(entry: Mapping[str, Json], path: tuple[str, ...]) -> Json:
    """Return the value of a field that lies deeper, or `_MISSING`."""
    place: object = entry
    for key in path:
        if not isinstance(place, dict) or key not in place:
            return _MISSING
        place = place[key]
    return place  # type: ignore[return-value]


def _converter(row: ResponseField) -> Callable[[Json], Value | datetime | timedelta]:
    """Return what makes the gateway's value of SEMS's; None when it is not there or makes no sense."""
    point = POINTS.get(row.point)
    if row.type == "local_time":
        return _local_time
    if row.type in TIMES:
        return _unix_time(1000 if row.type == "unix_milliseconds" else 1)
    if row.options:
        return _fitting(point, lambda raw: row.options.get(_option_key(raw)))
    if row.type == "text":
        return _fitting(point, lambda raw: str(raw)[:MAX_TEXT] if isinstance(raw, (str, int, float)) else None)
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


def _scaled(row: ResponseField, point: Point | None) -> Callable[[Json], Value]:
    """Return what reads a number: in the point's range, and none of the row's sentinels."""
    low = -_LARGEST if point is None or point.low is None else point.low
    high = _LARGEST if point is None or point.high is None else point.high
    whole = point is not None and point.type is Type.INTEGER
    scale = row.scale
    sentinels = [(a - abs(a) * SENTINEL_TOLERANCE, a + abs(a) * SENTINEL_TOLERANCE) for a in row.absent]

    def convert(raw: Json) -> Value:
        number = _number(raw)
        if number is None:
            return None
        for least, most in sentinels:
            if least <= number <= most:
                return None
        if scale != 1:
            # Scaling must not add digits: 8.101 kW are 8101 W, not 8101.000000000001.
            number = round(number * scale, DIGITS)
        if not low <= number <= high:
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


def _unix_time(per_second: int) -> Callable[[Json], datetime | None]:
    def convert(raw: Json) -> datetime | None:
        number = _number(raw)
        try:
            return None if not number else datetime.fromtimestamp(number / per_second, UTC)
        except (ValueError, OverflowError, OSError):
            return None

    return convert


def _local_time(raw: Json) -> datetime | timedelta | None:
    """Read a time that has no zone, or a time of day, which comes as the time since midnight."""
    match = _TIME.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        return None
    part = match.groupdict()
    hour, minute, second = (int(part[name] or 0) for name in ("hour", "minute", "second"))
    if minute > 59 or second > 59 or hour * 3600 + minute * 60 + second > 24 * 3600:
        return None
    since_midnight = timedelta(hours=hour, minutes=minute, seconds=second)
    year, month = part["year"] or part["us_year"], part["month"] or part["us_month"]
    if year is None:
        return None if part["hour"] is None or part["offset"] else since_midnight
    try:
        # A day that ends at 24:00 ends when the next begins.
        local = datetime(int(year), int(month), int(part["day"] or part["us_day"] or 1)) + since_midnight  # noqa: DTZ001
        return local if part["offset"] is None else datetime.fromisoformat(f"{local.isoformat()}{part['offset']}")
    except (ValueError, OverflowError):
        return None


def _instant(
    said: Value | datetime | timedelta, zone: tzinfo, now: datetime, day: datetime | None, after: datetime | None
) -> datetime | None:
    """Return the time in UTC that a time of the plant's means.

    The hour that a clock set back shows twice has two meanings. In a series it is the first that comes after the
    entry before. Elsewhere it is the later one, for SEMS answers with the newest it has, unless that is yet to come.
    """
    if isinstance(said, timedelta):
        if day is None:
            return None
        said = datetime(day.year, day.month, day.day) + said  # noqa: DTZ001 - the zone follows
    if not isinstance(said, datetime):
        return None
    try:
        if said.tzinfo is not None:
            return said.astimezone(UTC)
        earlier, later = (said.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    except (ValueError, OverflowError):
        return None
    if later <= earlier:  # one meaning; or none, where clocks were set forward over it: then as if they were not yet
        return earlier
    if after is not None:
        return earlier if earlier > after else later
    return later if later <= now + AHEAD else earlier
