"""Points into SEMS's fields: the response rows of the catalogue, read backwards, with the cloud's oddities."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from gateway.core.model import Value
from gateway.core.points import NONE, POINTS, Kind
from gateway.sems.catalogue import Interface, Json, ResponseField
from gateway.simulator.noise import derive

LOCAL_TIME: Final = "%Y-%m-%d %H:%M:%S"
LOCAL_DAY: Final = "%Y-%m-%d"
LOCAL_HOUR: Final = "%H:%M"
CURVE: Final = "pv"
"""The shape whose times say no more than they must: the hour within a day, the day within a month."""
_DECIMALS: Final = {"W": 0, "var": 0, "VA": 0, "%": 0, "V": 1, "A": 1, "°C": 1, "h": 1, "Hz": 2, "kWh": 2, "kW": 2}
"""Unit → decimals that SEMS gives; what has no row here gets `_ELSE`."""
_ELSE: Final = 6
_UNKNOWN: Final[Mapping[str, Json]] = {"reserved": None, "ext": {"v": [1]}}
"""Fields that no catalogue has: clients must not mind them."""

Attributes = Mapping[str, Value | datetime]


class Quirks(NamedTuple):
    """How this device's data logger and the cloud behind it write things."""

    sentinels: bool
    """What is not there is a number such as 6553.5, where the catalogue knows one; else null."""
    texts: bool
    """Totals are text; and so is every value that lies deeper than its entry."""
    newer: bool
    """Of an interface with two shapes, it is answered in the second."""
    extended: bool
    """There are fields that no catalogue has."""

    @classmethod
    @lru_cache(maxsize=65_536)
    def of(cls, serial: str) -> "Quirks":
        """Return a device's own; always the same."""
        dice = derive(0, "quirks", serial)
        return Quirks(*(bool(dice & 1 << bit) for bit in range(4)))


class Record(NamedTuple):
    """What an answer says of one thing."""

    serial: str
    zone: ZoneInfo
    attributes: Attributes
    values: Mapping[str, Value] = {}


Writer = Callable[[Value | datetime, ZoneInfo], Json]
"""From a value, which is there, to SEMS's field. Answers are many, so what a row says is worked out beforehand."""


class _Field(NamedTuple):
    """A response row, made ready for devices with certain quirks."""

    name: str
    source: str
    """The point, or the attribute."""
    is_point: bool
    write: Writer
    absent: Json
    """What stands for nothing."""


class _Group(NamedTuple):
    """The fields of one object within an entry, or of the entry itself."""

    path: tuple[str, ...]
    fields: tuple[_Field, ...]


def _field(row: ResponseField, quirks: Quirks, time_form: str) -> _Field:
    return _Field(
        row.field.rpartition(".")[2],
        row.point or row.attribute,
        bool(row.point),
        _writer(row, quirks, time_form),
        row.absent[0] if row.absent and quirks.sentinels else None,
    )


def _writer(row: ResponseField, quirks: Quirks, time_form: str) -> Writer:
    point = POINTS.get(row.point)
    is_total = point is not None and point.kind is Kind.TOTAL
    as_text = row.type == "text" or (quirks.texts and (is_total or "." in row.field))
    if row.type == "local_time":
        return lambda value, zone: _moment(value).astimezone(zone).strftime(time_form)
    if row.type in {"unix_seconds", "unix_milliseconds"}:
        factor = 1 if row.type == "unix_seconds" else 1000
        return lambda value, _: round(_moment(value).timestamp() * factor)
    if row.options:
        # The first option of a meaning is the one that is written.
        options: dict[Value, Json] = {
            meaning: _numeral(option, as_text) for option, meaning in reversed(list(row.options.items()))
        }
        return lambda value, _: None if isinstance(value, datetime) else options.get(value)
    decimals = _DECIMALS.get(point.unit, _ELSE) if point and point.kind is not Kind.SETPOINT else _ELSE
    number = _finer(row.scale) if abs(row.scale) < 1 else _number(row.scale, decimals)
    if row.none is not None:
        number = _or_none(number, row.none)
    return (lambda value, zone: str(number(value, zone))) if as_text else number


def _number(scale: float, decimals: int) -> Writer:
    def write(value: Value | datetime, _: ZoneInfo) -> Json:
        if not isinstance(value, (int, float)):
            return _word(value)
        if not decimals and scale == 1:
            return round(value)
        number = round(float(value), decimals)
        if scale != 1:  # The scale must not bring digits of its own.
            number = round(number / scale, _ELSE)
        return int(number) if number.is_integer() else number

    return write


def _finer(scale: float) -> Writer:
    """Return how to write a unit that is finer than ours, such as seconds for hours."""
    return lambda value, _: round(value / scale) if isinstance(value, (int, float)) else _word(value)


def _or_none(number: Writer, none: float) -> Writer:
    """Return how to write what may be `none`."""
    word = int(none) if float(none).is_integer() else none
    return lambda value, zone: word if value == NONE else number(value, zone)


def _word(value: Value | datetime) -> Json:
    return value if isinstance(value, str) else None


def _moment(value: Value | datetime) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError(value)
    return value


class Encoder:
    """Writes the answers of one interface."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._shapes = interface.lists or ("",)
        lends = bool(interface.lists) and "plants" in interface.args
        self._lent = tuple(row for row in interface.response if lends and row.attribute == "plant")
        """Rows that each plant's object has once, around the list of its devices."""
        self._rows = tuple(row for row in interface.response if row not in self._lent)
        self._layouts: dict[tuple[Quirks, str], tuple[_Group, ...]] = {}

    def answer(self, records: Sequence[Record], asker: str = "", plants: Sequence[Record] = ()) -> Json:
        """Return `data` of an answer.

        `asker` is the serial whose quirks decide which of two shapes it has. `plants` are those whose devices the
        records are, where the answer is arranged by plant.
        """
        shape = self._shapes[Quirks.of(asker).newer % len(self._shapes)]
        if not self._interface.lists:
            return self._entry(records[0], shape)
        if not self._lent:
            return _at(shape, [self._entry(record, shape) for record in records])
        devices: dict[Value | datetime, list[Json]] = {plant.serial: [] for plant in plants}
        for record in records:
            devices[record.attributes["plant"]].append(self._entry(record, shape))
        return [self._plant(plant, _at(shape, devices[plant.serial])) for plant in plants]

    def _plant(self, plant: Record, below: Json) -> Json:
        lent: dict[str, Json] = {row.field: plant.serial for row in self._lent}
        return lent | below if isinstance(below, dict) else below

    def _entry(self, record: Record, shape: str) -> dict[str, Json]:
        quirks = Quirks.of(record.serial)
        entry: dict[str, Json] = dict(_UNKNOWN) if quirks.extended else {}
        layout = self._layouts.get((quirks, shape)) or self._lay_out(quirks, shape)
        _, zone, attributes, values = record
        for path, fields in layout:
            place: dict[str, Json] = {} if path else entry
            for name, source, is_point, write, absent in fields:
                known = values if is_point else attributes
                value = known.get(source)
                if value is not None:
                    place[name] = write(value, zone)
                elif not path or source in known:
                    # An object within an entry has what this type of device knows, and no more.
                    place[name] = absent
            if path and place:
                _within(entry, path).update(place)
        return entry

    def _lay_out(self, quirks: Quirks, shape: str) -> tuple[_Group, ...]:
        time_form = LOCAL_TIME
        if self._interface.step and shape == CURVE:
            time_form = LOCAL_HOUR if self._interface.step == "minutes" else LOCAL_DAY
        groups: dict[tuple[str, ...], list[_Field]] = {}
        for row in self._rows:
            if row.shape in {None, shape}:
                *path, _ = row.field.split(".")
                groups.setdefault(tuple(path), []).append(_field(row, quirks, time_form))
        layout = tuple(_Group(path, tuple(fields)) for path, fields in groups.items())
        self._layouts[quirks, shape] = layout
        return layout


def _within(entry: dict[str, Json], path: tuple[str, ...]) -> dict[str, Json]:
    for key in path:
        below = entry.setdefault(key, {})
        if isinstance(below, dict):
            entry = below
    return entry


def _at(path: str, below: Json) -> Json:
    """Return an object that has something at a path."""
    for key in reversed(path.split(".") if path else []):
        below = {key: below}
    return below


def _numeral(option: str, as_text: bool) -> Json:
    return int(option) if not as_text and option.removeprefix("-").isdigit() else option
