"""What `learn` found out: a state for each line of the catalogue, candidates with their evidence, and the overrides."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from gateway.sems.catalogue import Json, ResponseField


class State(StrEnum):
    """What the answers say of a line of the catalogue."""

    CONFIRMED = "confirmed"
    """The field is there, and what stands in it is what the catalogue says."""
    EMPTY = "no value"
    """The field is there, with nothing in it."""
    ABSENT = "absent"
    """There is no such field; see the candidates."""
    CONTRADICTED = "contradicted"
    """The field is there, and what stands in it is not what the catalogue says."""
    UNKNOWN = "unknown field"
    """The catalogue has no line for the field."""


class Kind(StrEnum):
    """What kind a piece of evidence is. Two pieces of one kind are one."""

    NAME = "name"
    UNIT = "unit"
    RANGE = "range"
    VALUES = "values"
    """It has the values, or the form, that such a field has."""
    ARITHMETIC = "arithmetic"
    SAME = "same elsewhere"
    """Another interface says the same of the same device."""
    GROWTH = "growth"
    FAMILY = "family"
    """Other fields of the same answer are so."""
    FORM = "form"
    """It has the form of such a number, or is about as large: as many another has. Such evidence tells a scale, and
    goes with the catalogue's own name; of a field that is called otherwise it does not say that it is that one."""


class Evidence(msgspec.Struct, frozen=True):
    """One reason to believe it."""

    kind: Kind
    text: str


class Candidate(msgspec.Struct, frozen=True):
    """What a line may be here."""

    field: str
    """A path, as in the catalogue."""
    override: Mapping[str, Json]
    """What `overrides` would say of the line."""
    likeness: float
    """Of the names, 0 to 1."""
    evidence: tuple[Evidence, ...] = ()


class Line(msgspec.Struct, frozen=True):
    """One line of the catalogue, or a field that it does not know."""

    interface: str
    row: ResponseField | None
    """None for a field that the catalogue does not know."""
    field: str
    """Where it was found, a path; the catalogue's where it was not."""
    state: State
    sure: bool = False
    """Whether it can be relied on: by two kinds of evidence at least, and none against it."""
    override: Mapping[str, Json] | None = None
    """What `overrides` have to say for it; None where nothing, or nobody knows."""
    evidence: tuple[Evidence, ...] = ()
    against: tuple[str, ...] = ()
    """What speaks against the line as the catalogue has it, or against the override."""
    candidates: tuple[Candidate, ...] = ()
    weak: bool = False
    """Whether nothing speaks against it, and for it but the name and the form."""

    @property
    def gives(self) -> str:
        """The point or attribute it gives; empty for an unknown field."""
        return "" if self.row is None else self.row.point or self.row.attribute

    @property
    def key(self) -> str:
        """What it is called in `overrides`."""
        return self.field if self.row is None else self.row.field


class Called(StrEnum):
    """What became of an interface."""

    ANSWERED = "answered"
    EMPTY = "nothing in it"
    REFUSED = "refused"
    NOT_ASKED = "not asked"


class InterfaceReport(msgspec.Struct, frozen=True):
    """One interface."""

    name: str
    called: Called
    detail: str = ""
    """What SEMS said, or why it was not asked."""
    lists: tuple[str, ...] | None = None
    """Where the entries are, where that is not as the catalogue has it."""
    lists_sure: bool = False
    evidence: tuple[Evidence, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """All of it. `overrides` are what is sure; the rest is in the lines."""

    api: str
    date: datetime | None
    """Of the newest answer."""
    interfaces: tuple[InterfaceReport, ...]
    lines: tuple[Line, ...]
    top: Mapping[str, Json]
    """Of `overrides`, what is of no interface: `success`, `envelope`."""
    top_evidence: Mapping[str, str]
    date_format: str = ""
    """In which order dates have day and month, as the bridge's `date_format` takes it; empty where that is not seen."""
    notes: Sequence[str] = ()

    @property
    def overrides(self) -> dict[str, Json]:
        """What is sure, as `overrides` takes it."""
        interfaces: dict[str, Json] = {}
        for one in self.interfaces:
            said: dict[str, Json] = {}
            if one.lists is not None and one.lists_sure:
                said["lists"] = list(one.lists)
            fields: dict[str, Json] = {
                line.key: dict(line.override) for line in self.of(one.name) if line.sure and line.override is not None
            }
            if fields:
                said["fields"] = fields
            if said:
                interfaces[one.name] = said
        return {**self.top, **({"interfaces": interfaces} if interfaces else {})}

    def of(self, interface: str) -> list[Line]:
        """Return the lines of an interface."""
        return [line for line in self.lines if line.interface == interface]
