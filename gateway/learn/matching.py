"""Which field of an answer is which line of the catalogue, by their names; and where its entries are."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from gateway.core.points import POINTS, Kind
from gateway.learn.names import concepts, likeness, meanings, squeezed, turns
from gateway.learn.observed import Entry, observe, own_fields, places
from gateway.learn.values import is_nothing
from gateway.sems.catalogue import Envelope, Interface, Json, ResponseField, Use
from gateway.sems.recording import Answer

MIN_LIKENESS: Final = 0.6
"""Likeness of names from which a field is a candidate."""


class Name(IntEnum):
    """How a name is the catalogue's."""

    NONE = 0
    WORDS = 1
    """Other words for the same."""
    SPELT = 2
    """The same word, spelt or placed otherwise."""
    EXACT = 3


GRADE_TEXT: Final[Mapping[Name, str]] = {
    Name.EXACT: "named as in the catalogue",
    Name.SPELT: "the same name, spelt or placed otherwise",
    Name.WORDS: "other words for the same",
}


class Match(msgspec.Struct, frozen=True):
    """A field for a line."""

    field: str
    name: Name


class Found(msgspec.Struct):
    """What an interface's answers are, by name."""

    lists: tuple[str, ...]
    entries: list[Entry]
    matches: dict[str, Match]
    """Field of the catalogue → what it is here."""
    unsettled: dict[str, list[str]]
    """Field of the catalogue → the several that it may be."""
    rest: list[str]
    """Fields that are of no line."""
    moved: bool = False
    """Whether the entries lie elsewhere than the catalogue says."""
    rivals: int = 0
    """How many other places there were that looked as good."""
    placed: bool = True
    """Whether the entries surely lie there."""


def rows_of(interface: Interface, shape: str | None = None) -> list[ResponseField]:
    """Return the lines of an interface; of one with several shapes, those of that one."""
    return [row for row in interface.response if shape is None or row.shape in (None, shape)]


def find(
    interface: Interface, answers: Sequence[tuple[Answer, int]], envelope: Envelope, data: Sequence[Json]
) -> Found:
    """Return where an interface's entries are, and which field is which line."""
    own = interface.lists
    here = observe(interface, answers, own, envelope)
    best = _match(interface, own, here)
    if len(own) > 1:  # each shape is one that was seen, so nothing is sought elsewhere
        return best
    ranked = [(_rank(interface, best, data), best)]
    for path in dict.fromkeys(path for one in data[:5] for path in places(one)):
        if (path,) != own and (path or own) and not turns(path):
            other = _match(interface, (path,), observe(interface, answers, (path,), envelope))
            ranked.append((_rank(interface, other, data), other))
    top, winner = max(ranked, key=lambda one: one[0])
    if winner is not best:
        winner.moved = True
        winner.rivals = sum(rank[0] > top[0] * 0.8 and not _on_one_way(found, winner) for rank, found in ranked)
    return winner


def _on_one_way(one: Found, other: Found) -> bool:
    """Return whether one place lies within the other: both then lead to the same fields."""
    here, there = (f"{'.'.join(found.lists)}." if any(found.lists) else "" for found in (one, other))
    return here.startswith(there) or there.startswith(here)


def _rank(interface: Interface, found: Found, data: Sequence[Json]) -> tuple[float, int, int]:
    """Return how well a place fits: by the lines found there; then by how few lie above it; then by how deep it is.

    What lies above lends its plain fields to what lies below, and what lies deeper is found from above by its path.
    """
    if not found.entries:
        return 0.0, 0, 0
    weight = {Name.EXACT: 1.0, Name.SPELT: 0.97, Name.WORDS: 0.9, Name.NONE: 0.0}
    rows = {row.field: row for row in interface.response}
    score = 0.5 * len(found.unsettled)
    for key, match in found.matches.items():
        placed = key.rpartition(".")[2] == match.field.rpartition(".")[2]
        score += (1.0 if placed else weight[match.name]) * (3 if rows[key].attribute == "serial" else 1)
    place = found.lists[0] if found.lists else ""
    own = own_fields(data[:5], place)
    lent = sum(match.field not in own for match in found.matches.values())
    return round(score, 6), -lent, place.count(".") + bool(place)


def _match(interface: Interface, lists: tuple[str, ...], entries: list[Entry]) -> Found:
    fields = list(dict.fromkeys(path for entry in entries for path in entry.fields))
    rows = rows_of(interface)
    matches: dict[str, Match] = {}
    taken: set[str] = set()
    for row in rows:
        if row.field in fields:
            matches[row.field] = Match(row.field, Name.EXACT)
            taken.add(row.field)
    unsettled: dict[str, list[str]] = {}
    for grade in (Name.SPELT, Name.WORDS):
        open_rows = [row for row in rows if row.field not in matches]
        free = [field for field in fields if field not in taken]
        claims: dict[str, list[ResponseField]] = {}
        for field in free:
            wanting = [row for row in open_rows if _fits(interface, row, field, grade)]
            if wanting:
                claims[field] = wanting
        for key, field in _settle(claims, entries, unsettled, grade):
            matches[key] = Match(field, grade)
            taken.add(field)
            unsettled.pop(key, None)
    rest = [field for field in fields if field not in taken]
    return Found(lists, entries, matches, {k: v for k, v in unsettled.items() if k not in matches}, rest)


def _fits(interface: Interface, row: ResponseField, field: str, grade: Name) -> bool:
    above, _, name = field.rpartition(".")
    own = row.field.rpartition(".")[2]
    if not turns(above) <= turns(row.field):
        return False  # `yesterday.eday` is no `eday`
    if grade is Name.SPELT:
        return squeezed(name) == squeezed(own)
    gives = row.point or row.attribute
    if not gives or not name:
        return False
    point = POINTS.get(row.point)
    if point is not None and point.kind is Kind.SETPOINT:
        return False
    said = concepts(name)
    if not said or said not in meanings(gives, own):
        return False
    if row.attribute in ("serial", "name"):
        of_plant = (
            interface.use is Use.PLANTS
            or interface.use is Use.DETAIL
            or (interface.use is Use.LIVE and bool({"plant", "plants"} & interface.args))
        )
        return ("plant" in said) == ("plant" in concepts(own)) or of_plant
    return True


def _settle(
    claims: Mapping[str, list[ResponseField]],
    entries: Sequence[Entry],
    unsettled: dict[str, list[str]],
    grade: Name,
) -> list[tuple[str, str]]:
    """Return which field is which line, where there is no doubt: (line, field)."""
    by_meaning: dict[str, list[str]] = {}
    for field, wanting in claims.items():
        meant = {row.point or row.attribute for row in wanting}
        if len(meant) > 1:
            for row in wanting:
                unsettled.setdefault(row.field, []).append(field)
            continue
        key = wanting[0].field if grade is Name.SPELT and len(wanting) == 1 else meant.pop()
        by_meaning.setdefault(key, []).append(field)
    settled: list[tuple[str, str]] = []
    for fields in by_meaning.values():
        open_rows = list(dict.fromkeys(row.field for field in fields for row in claims[field]))
        if len(fields) > 1 and not _alike(fields, entries):
            for key in open_rows:
                unsettled.setdefault(key, []).extend(fields)
            continue
        settled.extend(zip(open_rows, fields, strict=False))
    return settled


def _alike(fields: Sequence[str], entries: Sequence[Entry]) -> bool:
    """Return whether fields always say the same, and say something."""
    said = False
    for entry in entries:
        values = [entry.fields.get(field) for field in fields]
        if any(value != values[0] for value in values[1:]):
            return False
        said = said or not is_nothing(values[0])
    return said


def near(row: ResponseField, fields: Sequence[str]) -> list[tuple[str, float]]:
    """Return fields whose names are like a line's, the most like first."""
    gives = row.point or row.attribute
    others = (row.field.rpartition(".")[2], gives)
    said = [(field, _like(field, row, others)) for field in fields]
    return sorted((one for one in said if one[1] >= MIN_LIKENESS), key=lambda one: -one[1])[:5]


def _like(field: str, row: ResponseField, others: tuple[str, ...]) -> float:
    name = field.rpartition(".")[2]
    here = concepts(name)
    shared = max(
        (
            len(here & said) / len(here | said)
            for said in meanings(row.point or row.attribute, others[0])
            if here | said
        ),
        default=0.0,
    )
    return max(likeness(name, others), shared)
