"""What SEMS's answers say of the catalogue: a pure function. It knows no network, no clock and no configuration."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from gateway.core.points import POINTS, Type
from gateway.core.points import Kind as PointKind
from gateway.learn.arithmetic import relations
from gateway.learn.columns import SIGNED, Column, Table, columns
from gateway.learn.envelope import Wrapping, unwrap
from gateway.learn.matching import GRADE_TEXT, Found, Name, find, near
from gateway.learn.names import concepts, meanings
from gateway.learn.observed import by_interface, data_of
from gateway.learn.plausible import plausible
from gateway.learn.pseudonyms import names_a_serial
from gateway.learn.report import Called, Candidate, Evidence, InterfaceReport, Kind, Line, Report, State
from gateway.learn.scales import Scales
from gateway.learn.signs import Signs, signs
from gateway.learn.times import order_of_dates, time_type
from gateway.learn.values import number
from gateway.sems.catalogue import Catalogue, Interface, Json, ResponseField, Use
from gateway.sems.recording import Answer

READING: Final = (Use.PLANTS, Use.DETAIL, Use.DEVICES, Use.LIVE, Use.ALARMS, Use.SERIES, Use.PARAMETERS)
"""What may be asked to find out: nothing of these sets anything."""
NAMES: Final = frozenset({"serial", "plant", "name", "model"})

WEAK: Final = frozenset({Kind.FORM})
"""What does not say which of an answer's numbers it is."""
OTHERS: Final = 2
"""Lines of an answer that have to be sure by more, for such evidence to do."""


def infer(catalogue: Catalogue, answers: Sequence[Answer]) -> Report:
    """Return what the answers say of a catalogue's lines.

    The same answers always give the same report. `answers` may be of one round or of several some minutes apart; with
    one round alone nothing is known of what grows.
    """
    wrapping = unwrap(catalogue, answers)
    asked = by_interface(catalogue, wrapping.good)
    found: dict[str, Found] = {}
    every: list[Column] = []
    for name, its in asked.items():
        interface = catalogue.interface(name)
        if interface.use in READING:
            data = [data_of(answer, wrapping.envelope) for answer, _ in its]
            found[name] = find(interface, its, wrapping.envelope, data)
            every += columns(interface, found[name])
    table = Table(every)
    scales = Scales(table)
    known = list(relations(table))
    scales.settle(known)
    scales.prove(known)
    serials = _serials(table, asked, catalogue)
    for name, one in found.items():
        one.placed = _sure_place(one, [column for column in every if column.interface.name == name], serials)
    judge = _Judge(table, scales, signs(table, scales), serials, _newest(answers))
    lines = [line for name, one in found.items() for line in judge.lines(catalogue.interface(name), one)]
    return Report(
        api=catalogue.api,
        date=_newest(answers),
        interfaces=tuple(_interface(interface, wrapping, found) for interface in catalogue.interfaces),
        lines=tuple(lines),
        top=wrapping.overrides,
        top_evidence=wrapping.evidence,
        date_format=order_of_dates(every, _newest(answers)),
    )


def _newest(answers: Sequence[Answer]) -> datetime | None:
    return max((answer.time for answer in answers), default=None)


def _serials(table: Table, asked: Mapping[str, Any], catalogue: Catalogue) -> frozenset[str]:
    """Return the serials and plants' ids that calls named, and were answered."""
    named = {sample.asked for column in table.columns for sample in column.samples if sample.asked}
    for name, its in asked.items():
        for row in catalogue.interface(name).request:
            for answer, _ in its:
                value = answer.args.get(row.field)
                if row.arg in ("serial", "plant", "serials", "plants") and value is not None:
                    named |= {str(one) for one in (value if isinstance(value, list) else [value])}
    return frozenset(named)


def _interface(interface: Interface, wrapping: Wrapping, found: Mapping[str, Found]) -> InterfaceReport:
    name = interface.name
    if name in found and found[name].entries:
        one = found[name]
        evidence: list[Evidence] = []
        if one.moved:
            exact = len(one.matches)
            evidence = [Evidence(Kind.VALUES, f"{exact} of the {len(interface.response)} lines are found there")]
            sure = one.placed
            return InterfaceReport(name, Called.ANSWERED, "", one.lists, sure, tuple(evidence))
        return InterfaceReport(name, Called.ANSWERED)
    if name in wrapping.refused:
        return InterfaceReport(name, Called.REFUSED, wrapping.refused[name])
    if name in found:
        return InterfaceReport(name, Called.EMPTY, "the answer has no entry")
    why = {
        Use.CONTROL: "it sets", Use.DISPATCH: "it sets", Use.PARAMETERS_TASK: "it gives a device a task",
        Use.RESULT: "it wants the receipt of a command", Use.LOGIN: "it is the login",
    }.get(interface.use)  # fmt: skip
    return InterfaceReport(name, Called.NOT_ASKED, why or "there is nothing it could be asked about")


def _sure_place(found: Found, its: Sequence[Column], serials: frozenset[str]) -> bool:
    """Return whether the entries lie where they were found: by lines that are named so, and no other place.

    Two that are spelt as in the catalogue, or three in other words, or the serials that SEMS answers for.
    """
    if not found.moved:
        return True
    spelt = sum(match.name >= Name.SPELT for match in found.matches.values())
    known = any(column.gives == "serial" and plausible(column, serials) is not None for column in its)
    return not found.rivals and (spelt >= 2 or len(found.matches) >= 3 or (known and len(found.matches) >= 2))


def _borne_out(lines: list[Line]) -> list[Line]:
    """Return lines, with those sure that want nothing but a second kind, where others of the answer have theirs.

    An answer whose other fields are measured now, of this very device, is no statistic or forecast.
    """
    known = sum(line.sure and bool({one.kind for one in line.evidence} - WEAK - {Kind.NAME}) for line in lines)
    if known < OTHERS:
        return lines
    proof = Evidence(Kind.FAMILY, f"{known} other lines of this answer are sure")
    return [
        msgspec.structs.replace(line, sure=True, evidence=(*line.evidence, proof)) if line.weak else line
        for line in lines
    ]


class _Judge:
    """Makes lines of what was found."""

    def __init__(
        self, table: Table, scales: Scales, found: Signs, serials: frozenset[str], now: datetime | None
    ) -> None:
        self._scales = scales
        self._signs = found
        self._serials = serials
        self._now = now
        self._columns = {(column.interface.name, column.row.field): column for column in table.columns}
        self._proved = {column.group for column in table.columns if column.proofs and column.group is not None}

    def lines(self, interface: Interface, found: Found) -> list[Line]:
        """Return the lines of an interface, its unknown fields last."""
        made = []
        for row in interface.response:
            column = self._columns.get((interface.name, row.field))
            if column is None:
                made.append(self._absent(interface, row, found))
            else:
                line = self._present(interface, row, column)
                made.append(line if found.placed else msgspec.structs.replace(line, sure=False))
        made = _borne_out(made) if found.placed else made
        made += [self._unknown(interface, field, found) for field in found.rest if not self._named(field)]
        return made

    def _named(self, field: str) -> bool:
        """Return whether a path has a serial in it: such a field is a device, and the report is for others to see."""
        return names_a_serial(field) or any(part in self._serials for part in field.split("."))

    def _absent(self, interface: Interface, row: ResponseField, found: Found) -> Line:
        candidates = [
            Candidate(field, {"field": field}, 1.0, (Evidence(Kind.NAME, GRADE_TEXT[Name.WORDS]),))
            for field in dict.fromkeys(found.unsettled.get(row.field, ()))
        ]
        candidates += [
            Candidate(field, {"field": field}, likeness)
            for field, likeness in near(row, found.rest)
            if all(field != one.field for one in candidates)
        ]
        return Line(interface.name, row, row.field, State.ABSENT, candidates=tuple(candidates))

    def _unknown(self, interface: Interface, field: str, found: Found) -> Line:
        values = [entry.fields[field] for entry in found.entries if field in entry.fields]
        known = {row.point for row in interface.response if (interface.name, row.field) in self._columns}
        candidates = [
            Candidate(field, {"point": point.id}, 1.0, (Evidence(Kind.NAME, GRADE_TEXT[Name.WORDS]),))
            for point in POINTS.values()
            if point.id not in known
            and point.type is Type.FLOAT
            and point.kind is not PointKind.SETPOINT
            and any(number(raw) is not None for raw in values)
            and concepts(field.rpartition(".")[2]) in meanings(point.id, point.id)
        ]
        return Line(interface.name, None, field, State.UNKNOWN, candidates=tuple(candidates))

    def _present(self, interface: Interface, row: ResponseField, column: Column) -> Line:
        match = column.match
        named = Evidence(Kind.NAME, GRADE_TEXT[match.name])
        override: dict[str, Json] = {} if match.field == row.field else {"field": match.field}
        if not column.there:
            moved = override or None
            return Line(interface.name, row, match.field, State.EMPTY, override=moved, evidence=(named,))
        evidence = [named, *column.proofs]
        against = list(column.against)
        sure = True
        if row.type in ("local_time", "unix_seconds", "unix_milliseconds"):
            type_, proof = time_type(column)
            if type_ is None:
                against.append("what stands in it can't be read as a time")
            elif proof is not None:
                evidence.append(proof)
            if type_ is not None and type_ != row.type:
                override["type"] = type_
            sure = type_ is not None and proof is not None
        elif column.group is not None:
            sure = self._scale(row, column, override, evidence, against)
        else:
            proof = plausible(column, self._serials)
            if proof is None:
                against.append("what stands in it is not what such a field has")
                sure = False
            else:
                evidence.append(proof)
        kinds = {one.kind for one in evidence} - (WEAK if match.name is Name.WORDS else set())
        weak = sure and not against and len(kinds) < 2 and len({one.kind for one in evidence}) >= 2
        sure = sure and len(kinds) >= 2 and not against
        state = State.CONFIRMED
        if against or "scale" in override:
            state = State.CONTRADICTED
        elif override:
            state = State.ABSENT if "field" in override else State.CONTRADICTED
        return Line(
            interface.name,
            row,
            match.field,
            state,
            sure,
            override or None,
            tuple(evidence),
            tuple(against[:5]),
            weak=weak,
        )

    def _scale(
        self,
        row: ResponseField,
        column: Column,
        override: dict[str, Json],
        evidence: list[Evidence],
        against: list[str],
    ) -> bool:
        """Put scale and sign into the override. Returns whether both are sure."""
        group = column.group
        if group is None:
            return False
        scale = self._scales.of(group)
        if scale is None:
            return False
        sign = -1 if row.scale < 0 else 1
        sure = True
        if row.point in SIGNED:
            known = self._signs.known(column)
            if known is None:
                sure = False
            else:
                sign = known
                evidence.append(self._signs.why[id(column)])
        if sign * scale != row.scale:
            override["scale"] = _plain(sign * scale)
        if not column.proofs:
            if group not in self._proved:
                return False
            evidence.append(Evidence(Kind.FAMILY, f"other fields of this answer in {column.unit} are in this scale"))
        point = POINTS[row.point]
        for value in column.numbers:
            worth = value * scale * sign
            if (point.low is not None and worth < point.low) or (point.high is not None and worth > point.high):
                against.append(f"{value:g} would be {worth:g} {point.unit}, which is out of range")
                break
        return sure


def _plain(scale: float) -> int | float:
    return int(scale) if float(scale).is_integer() else scale
