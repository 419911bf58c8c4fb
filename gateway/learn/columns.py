"""The numbers of a field, whose they are and when; and which scales a unit may have."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.core.points import POINTS, SETPOINTS
from gateway.learn.matching import Found, Match
from gateway.learn.report import Evidence
from gateway.learn.values import is_nothing, number
from gateway.sems.catalogue import Interface, Json, ResponseField, Use

SCALES: Final[Mapping[str, tuple[float, ...]]] = {
    "W": (1, 1000), "var": (1, 1000), "VA": (1, 1000), "kWh": (1, 0.001), "V": (1, 0.1), "A": (1, 0.1),
    "Hz": (1, 0.01, 0.1), "°C": (1, 0.1),
}  # fmt: skip
"""Unit of a point → what SEMS's number may have to be multiplied with. Of other units, the catalogue's scale stands."""
FIXED: Final = frozenset({"ev_session_time", "battery_capacity", "capacity"})
SIGNED: Final = ("grid_power", "battery_power", "battery_current")
"""Points whose sign another may count the other way."""

Group = tuple[str, str]
"""Interface and unit: what one answer has in one unit is in one scale."""


class Sample(msgspec.Struct, frozen=True):
    """One value of a field."""

    serial: str
    turn: int
    time: datetime
    raw: Json
    number: float | None
    """None where it is no number, or nothing."""
    unit: str
    """Written behind the number."""
    asked: str
    """The one serial, or plant's id, that the call named."""
    entry: int
    """Which entry of the interface's it is of."""


class Column(msgspec.Struct, eq=False):
    """A field that is a line of the catalogue."""

    interface: Interface
    row: ResponseField
    match: Match
    samples: list[Sample]
    proofs: list[Evidence] = msgspec.field(default_factory=list)
    """By values, not by the name."""
    against: list[str] = msgspec.field(default_factory=list)

    @property
    def gives(self) -> str:
        """The point or attribute."""
        return self.row.point or self.row.attribute

    @property
    def unit(self) -> str:
        """Of the point; empty for an attribute."""
        point = POINTS.get(self.row.point)
        return point.unit if point is not None else ""

    @property
    def group(self) -> Group | None:
        """What has one scale with it; None where the catalogue's stands."""
        if (
            self.row.point in FIXED
            or self.row.point in SETPOINTS
            or self.row.options
            or self.row.type != "number"
            or self.unit not in SCALES
        ):
            return None
        return self.interface.name, self.unit

    @property
    def numbers(self) -> list[float]:
        """All numbers of it."""
        return [sample.number for sample in self.samples if sample.number is not None]

    @property
    def units(self) -> list[str]:
        """What is written behind its numbers."""
        return sorted({sample.unit for sample in self.samples if sample.unit})

    @property
    def there(self) -> bool:
        """Whether anything stands in it anywhere."""
        return any(not is_nothing(sample.raw) for sample in self.samples)


def columns(interface: Interface, found: Found) -> list[Column]:
    """Return the columns of an interface, the serial of each entry by what it says, or else by what was asked."""
    serial = next(
        (
            found.matches[row.field].field
            for row in interface.response
            if row.attribute == "serial" and row.field in found.matches
        ),
        None,
    )
    made = []
    for row in interface.response:
        match = found.matches.get(row.field)
        if match is None:
            continue
        samples = []
        for position, entry in enumerate(found.entries):
            if match.field not in entry.fields:
                continue
            raw = entry.fields[match.field]
            said = entry.fields.get(serial) if serial is not None else None
            whose = entry.asked if is_nothing(said) else str(said)
            turn = position if interface.use is Use.SERIES else entry.turn
            value = number(raw)
            if value is not None and any(abs(value[0] - one) <= abs(one) * 1e-6 for one in row.absent):
                value = None
            samples.append(
                Sample(
                    whose,
                    turn,
                    entry.time,
                    raw,
                    value[0] if value else None,
                    value[1] if value else "",
                    entry.asked,
                    position,
                )
            )
        made.append(Column(interface, row, match, samples))
    return made


class Table:
    """All columns, to be looked up."""

    def __init__(self, every: Iterable[Column]) -> None:
        self.columns: Final = list(every)
        self._at: dict[tuple[str, int], dict[str, list[tuple[Column, Sample]]]] = {}
        for column in self.columns:
            if column.interface.use is Use.SERIES:
                continue
            for sample in column.samples:
                if sample.number is not None and sample.serial:
                    there = self._at.setdefault((sample.serial, sample.turn), {})
                    there.setdefault(column.gives, []).append((column, sample))

    @property
    def scaled(self) -> Iterator[tuple[Column, Group]]:
        """The columns whose scale is to be found out, and what has it in common with them."""
        return ((column, column.group) for column in self.columns if column.group is not None)

    @property
    def subjects(self) -> list[tuple[str, int]]:
        """Serials and turns of which there are values."""
        return list(self._at)

    def at(self, serial: str, turn: int, gives: str) -> list[tuple[Column, Sample]]:
        """Return all that says a point of a device in one turn."""
        return self._at.get((serial, turn), {}).get(gives, [])

    def gives(self, serial: str, turn: int) -> Mapping[str, list[tuple[Column, Sample]]]:
        """Return all that is said of a device in one turn."""
        return self._at.get((serial, turn), {})

    def of(self, gives: str) -> Sequence[Column]:
        """Return the columns of a point or attribute."""
        return [column for column in self.columns if column.gives == gives]

    def homes(self) -> dict[str, str]:
        """Return device → plant, as the lists of devices say it."""
        found: dict[str, str] = {}
        listing = [column for column in self.columns if column.interface.use is Use.DEVICES]
        for column in listing:
            by_plant = {"plant", "plants"} & column.interface.args
            for sample in column.samples:
                if column.row.attribute == "plant" and sample.serial and not is_nothing(sample.raw):
                    found[sample.serial] = str(sample.raw)
                elif column.row.attribute == "serial" and by_plant and sample.serial and sample.asked:
                    found.setdefault(sample.serial, sample.asked)
        return found
