"""A cloud that says the same otherwise: names, units, signs, times, envelopes and nesting drawn from a seed.

The lines of the catalogue that a dialect has otherwise are a catalogue again, which the simulator answers by. What no
catalogue says, such as how a date is written, is changed in the answer's JSON afterwards.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.points import POINTS, Kind
from gateway.sems.catalogue import Catalogue, Interface, Json, ResponseField, Use
from gateway.simulator.answers import LOCAL_DAY, LOCAL_TIME
from gateway.simulator.vocabulary import (
    ATTRIBUTES,
    GROUPS,
    LISTS,
    NOISE,
    OBJECTS,
    PAGES,
    PLANT_ATTRIBUTES,
    camel,
    pascal,
    point_names,
    snake,
    squeezed,
    words,
)

READ: Final = (Use.PLANTS, Use.DEVICES, Use.DETAIL, Use.LIVE, Use.ALARMS, Use.SERIES)
"""Uses whose answers differ. Logins and orders stay as they are."""


class Line(msgspec.Struct, frozen=True):
    """What a dialect makes of one line of the catalogue."""

    interface: str
    before: ResponseField
    after: ResponseField | None
    """None: the field is not there."""


class ZoneStyle(StrEnum):
    """How a plant's zone is written."""

    IANA = "iana"
    OFFSET = "offset"
    """`UTC+02:00`."""
    SPAN = "span"
    """Hours, of the other sign (SEMS.md: `time_span`)."""
    NONE = "none"


class TextStyle(StrEnum):
    """How a number is written."""

    NUMBER = "number"
    TEXT = "text"
    UNIT = "unit"
    """`8.1kW`."""
    BRACKETS = "brackets"
    """`8.1(kW)`."""


DATE_FORMAT: Final = "date_format"
DATE_FORMATS: Final = ("%d/%m/%Y", "%d.%m.%Y", "%m.%d.%Y", "%m/%d/%Y", "%Y/%m/%d")
SCALES: Final[Mapping[str, tuple[float, ...]]] = {
    "W": (1, 1000), "kWh": (1, 0.001), "V": (1, 0.1), "A": (1, 0.1), "Hz": (1, 0.01), "°C": (1, 0.1),
}  # fmt: skip
"""Unit of a point → scales that SEMS may give it in."""
UNITS: Final[Mapping[tuple[str, float], str]] = {
    ("W", 1): "W", ("W", 1000): "kW", ("kWh", 1): "kWh", ("kWh", 0.001): "Wh", ("V", 1): "V", ("A", 1): "A",
    ("Hz", 1): "Hz", ("°C", 1): "℃", ("%", 1): "%", ("var", 1): "var", ("VA", 1): "VA", ("h", 1): "h",
}  # fmt: skip
"""Unit of a point and scale → what is written behind the number."""
SIGNED: Final = ("grid_power", "battery_power", "battery_current")
"""Points that some count the other way."""
MESSAGES: Final = ("success", "Success", "操作成功", "ok")
TIME_SPAN: Final = "time_span"
NOTHING: Final = "--"
_UNSCALED: Final = frozenset({"ev_session_time", "capacity", "battery_capacity"})


class Dialect:
    """How one API of the simulated cloud talks."""

    def __init__(self, seed: int, catalogue: Catalogue, now: Callable[[], datetime]) -> None:
        """Draw it; `now` is for the offset of a zone."""
        self.seed = seed
        self.base = catalogue
        self._now = now
        self._dice = dice = Random(f"{seed} {catalogue.api}")  # noqa: S311 - no secret
        self.case = dice.choice((None, camel, snake, pascal))
        """None: each name is spelt as the catalogue has it."""
        self.fluency = dice.choice((0.0, 0.15, 0.5, 1.0))
        """Part of the names that are other words."""
        self.date = dice.choice((None, None, *DATE_FORMATS))
        self.unix = dice.choice((None, None, "unix_seconds", "unix_milliseconds")) if self.date is None else None
        self.zone = dice.choice((ZoneStyle.IANA, *ZoneStyle))
        attributes = {row.attribute for interface in catalogue.interfaces for row in interface.response}
        if self.zone is ZoneStyle.SPAN and TIME_SPAN not in attributes:
            self.zone = ZoneStyle.OFFSET
        self.gives_date_format = dice.choice((True, False))
        """Whether it gives the format of its dates, where there is a field for it."""
        self.inverse = frozenset(
            point
            for points, odds in ((("grid_power",), 0.4), (("battery_power", "battery_current"), 0.25))
            if dice.random() < odds
            for point in points
        )
        self.message = dice.choice((None, "msg", "description", "errorMsg"))
        self.success = dice.choice(MESSAGES)
        self.code_as_text = dice.choice((None, True, False))
        self.drops = dice.choice((0.0, 0.05))
        self.noise = dice.choice((0, 2, 5))
        self._chosen: dict[str, str] = {}
        """Point or attribute → its name here, so that interfaces agree."""
        self.texts: dict[str, TextStyle] = {}
        """Interface → how its numbers are written."""
        self._noise: dict[str, dict[str, Json]] = {}
        self._lone: dict[str, str] = {}
        """Interface whose one object lies deeper → below which key."""
        self.lines: list[Line] = []
        """Every line of the catalogue that is read, changed or not."""
        self.catalogue = msgspec.structs.replace(
            catalogue, interfaces=tuple(self._interface(interface) for interface in catalogue.interfaces)
        )

    # The catalogue

    def _interface(self, interface: Interface) -> Interface:
        if interface.use not in READ:
            return interface
        dice = self._dice
        text = dice.choice((TextStyle.NUMBER, TextStyle.NUMBER, TextStyle.NUMBER, *TextStyle))
        self.texts[interface.name] = text
        lists = self._lists(interface)
        moved = dict(zip(interface.lists, lists, strict=False))
        group = self._group(interface)
        units = {unit: dice.choice(scales) for unit, scales in SCALES.items() if dice.random() < 0.4}
        taken = {squeezed(row.field.rpartition(".")[2]) for row in interface.response}
        rows = []
        for row in interface.response:
            after = self._row(interface, row, group, units, taken)
            if after is not None and row.shape is not None:
                after = msgspec.structs.replace(after, shape=moved.get(row.shape, row.shape))
            if after is not None:
                rows.append(after)
            self.lines.append(Line(interface.name, row, after))
        self._noise[interface.name] = self._unknown(taken) if interface.use is not Use.SERIES else {}
        return msgspec.structs.replace(interface, response=tuple(rows), lists=lists)

    def _row(
        self,
        interface: Interface,
        row: ResponseField,
        group: str | None,
        units: Mapping[str, float],
        taken: set[str],
    ) -> ResponseField | None:
        dice = self._dice
        point = POINTS.get(row.point)
        droppable = point is not None and interface.use in {Use.LIVE, Use.DETAIL}
        if droppable and dice.random() < self.drops:
            return None
        if row.attribute == "time_zone" and self.zone is ZoneStyle.NONE:
            return None
        path, _, name = row.field.rpartition(".")
        name = self._name(interface, row, name, taken)
        if group is not None and row.point:
            path = group
        after = msgspec.structs.replace(row, field=f"{path}.{name}" if path else name)
        if point is not None and point.kind is not Kind.SETPOINT and not row.options and row.type == "number":
            scale = row.scale
            if point.id not in _UNSCALED and interface.use is not Use.SERIES:
                scale = units.get(point.unit, scale)
            if point.id in self.inverse:
                scale = -scale
            after = msgspec.structs.replace(after, scale=scale)
        if row.attribute in {"time", "raised", "cleared"}:
            after = self._timed(interface, after)
        return after

    def _timed(self, interface: Interface, row: ResponseField) -> ResponseField:
        if interface.use is Use.SERIES:
            return row
        if self.unix is not None:
            return msgspec.structs.replace(row, type=self.unix)
        if self.date is not None:
            return msgspec.structs.replace(row, type="local_time")
        return row

    def _name(self, interface: Interface, row: ResponseField, name: str, taken: set[str]) -> str:
        """Return what a field is called; never as another of its interface is, or was."""
        if interface.use in {Use.SERIES, Use.ALARMS} and row.attribute != "serial":
            return self._spelt(name)
        of_plant = interface.use in {Use.PLANTS, Use.DETAIL} or row.attribute == "plant" or "plants" in interface.args
        of_plant = of_plant and not (interface.use is Use.DEVICES and row.attribute != "plant")
        known = (PLANT_ATTRIBUTES if of_plant else ATTRIBUTES).get(row.attribute, ())
        options = point_names(row.point) if row.point else known
        if not options or self._dice.random() >= self.fluency:
            return self._spelt(name)
        key = row.point or f"{of_plant} {row.attribute}"
        usual = self._chosen.get(key)
        free = [option for option in options if squeezed(option) not in taken]
        if usual not in free and free:
            usual = self._dice.choice(free)
        if not free or usual is None:
            return self._spelt(name)
        self._chosen.setdefault(key, usual)
        taken.add(squeezed(usual))
        return (self.case or camel)(usual)

    def _spelt(self, name: str) -> str:
        return name if self.case is None else self.case(words(name))

    def _lists(self, interface: Interface) -> tuple[str, ...]:
        """Return where the entries are."""
        dice = self._dice
        if not interface.lists:
            if interface.use in {Use.LIVE, Use.DETAIL} and dice.random() < 0.2:
                self._lone[interface.name] = dice.choice(OBJECTS)
                return (self._lone[interface.name],)
            return ()
        if len(interface.lists) > 1 or interface.lists == ("",) or dice.random() >= 0.3:
            return interface.lists
        key = (self.case or camel)(dice.choice(LISTS))
        return (dice.choice((key, f"{dice.choice(PAGES)}.{key}")),)

    def _group(self, interface: Interface) -> str | None:
        """Return below which key the points are; None: where they were."""
        if interface.use is not Use.LIVE or self._dice.random() >= 0.15:
            return None
        grouped = any("." in row.field for row in interface.response)
        return "" if grouped and self._dice.random() < 0.5 else (self.case or camel)(self._dice.choice(GROUPS))

    def _unknown(self, taken: set[str]) -> dict[str, Json]:
        names = [name for name in NOISE if squeezed(name) not in taken]
        chosen = self._dice.sample(names, min(self.noise, len(names)))
        return {(self.case or camel)(name): self._dice.choice(NOISE[name]) for name in chosen}  # type: ignore[misc]

    # The answers

    def say(self, interface: Interface | None, document: Json) -> Json:
        """Return an answer, or a refusal, as this cloud gives it; `interface` as the dialect's catalogue has it."""
        if not isinstance(document, dict) or "code" not in document or (interface and interface.bare):
            return document
        said = dict(document)
        if interface is not None and interface.use in READ and said.get("data") is not None:
            said["data"] = self._data(interface, said["data"])
        return self._envelope(said)

    def _envelope(self, said: dict[str, Json]) -> dict[str, Json]:
        code, message, data = said["code"], said.pop("msg", None), said.pop("data", None)
        done = str(code) in self.base.success
        if self.code_as_text is not None and str(code).isdigit() and str(int(code)) == str(code):  # type: ignore[arg-type]
            said["code"] = str(code) if self.code_as_text else int(code)  # type: ignore[arg-type]
        message = self.success if done else message
        if self.message in {None, "msg"}:
            said["msg"] = message
        else:
            said |= {str(self.message): message, "traceId": f"{self.seed:08x}"}
        if self.message == "msg":
            said |= {"hasError": not done, "language": "en"}
        return said | {"data": data}

    def _data(self, interface: Interface, data: Json) -> Json:
        writers = [(tuple(row.field.split(".")), self._writer(interface, row)) for row in interface.response]
        for entry in _entries(data, interface.lists):
            for path, write in writers:
                *above, name = path
                place: Any = entry
                for key in above:
                    place = place.get(key) if isinstance(place, dict) else None
                if isinstance(place, dict) and name in place and write is not None:
                    place[name] = write(place[name])
            self._add_styles(interface, entry)
            entry.update(self._noise.get(interface.name, {}))
        lone = self._lone.get(interface.name)
        if lone is not None and isinstance(data, dict) and isinstance(listed := data.get(lone), list):
            return {**data, lone: listed[0] if listed else {}}
        return data

    def _writer(self, interface: Interface, row: ResponseField) -> Callable[[Json], Json] | None:
        if row.type == "local_time" and self.date is not None:
            return self._dated
        if row.attribute == "time_zone" and self.zone is ZoneStyle.OFFSET:
            return self._offset
        if row.attribute in {TIME_SPAN, DATE_FORMAT}:
            return None
        style = self.texts[interface.name]
        if not is_number(row) or style is TextStyle.NUMBER:
            return None
        unit = unit_of(row)
        ends = {TextStyle.UNIT: unit, TextStyle.BRACKETS: f"({unit})" if unit else ""}.get(style, "")
        return lambda value: NOTHING if value is None else f"{value}{ends}"

    def _add_styles(self, interface: Interface, entry: dict[str, Json]) -> None:
        """Say what the plain cloud leaves out: a zone in hours, and how dates are written."""
        names = {row.attribute: row.field for row in interface.response if row.field in entry}
        if self.zone is ZoneStyle.SPAN and TIME_SPAN in names and "time_zone" in names:
            entry[names[TIME_SPAN]] = -self._hours(entry[names["time_zone"]])
            entry[names["time_zone"]] = None
        if self.gives_date_format and DATE_FORMAT in names:
            form = self.date or LOCAL_DAY
            entry[names[DATE_FORMAT]] = form.replace("%d", "dd").replace("%m", "MM").replace("%Y", "yyyy")

    def _dated(self, value: Json) -> Json:
        for form in (LOCAL_TIME, LOCAL_DAY):
            try:
                time = datetime.strptime(str(value), form)  # noqa: DTZ007 - the plant's own
            except ValueError:
                continue
            return time.strftime(form.replace(LOCAL_DAY, self.date or LOCAL_DAY))
        return value

    def _hours(self, value: Json) -> float:
        offset = ZoneInfo(str(value)).utcoffset(self._now().replace(tzinfo=None)) if value else None
        return offset.total_seconds() / 3600 if offset is not None else 0.0

    def _offset(self, value: Json) -> Json:
        hours = self._hours(value)
        return f"UTC{'-' if hours < 0 else '+'}{abs(int(hours)):02}:{round(abs(hours) % 1 * 60):02}"


def is_number(row: ResponseField) -> bool:
    """Return whether a row is a number that SEMS may write as text."""
    setpoint = row.point in POINTS and POINTS[row.point].kind is Kind.SETPOINT
    if row.attribute == TIME_SPAN:
        return False
    return row.type == "number" and not row.options and not setpoint and row.point != "fault_code"


def unit_of(row: ResponseField) -> str:
    """Return what SEMS writes behind a row's number; empty for nothing."""
    point = POINTS.get(row.point)
    return UNITS.get((point.unit, abs(row.scale)), "") if point is not None and is_number(row) else ""


def _entries(data: Json, lists: Sequence[str]) -> Iterator[dict[str, Json]]:
    """Yield the objects of an answer whose fields have a meaning, those on the way to them too."""
    for path in lists or ("",):
        yield from _walk(data, path.split(".") if path else [])


def _walk(node: Json, path: Sequence[str]) -> Iterator[dict[str, Json]]:
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, path)
    elif isinstance(node, dict):
        if not path:
            yield node
        elif path[0] in node:
            yield from _walk(node[path[0]], path[1:])
