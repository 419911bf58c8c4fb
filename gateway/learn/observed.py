"""Answers as they lie before the inference: by interface, whose each entry is, and its fields by their paths."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from gateway.sems.catalogue import Catalogue, Envelope, Interface, Json
from gateway.sems.normalise import entries
from gateway.sems.recording import Answer

MAX_ENTRIES: Final = 500
"""Of one answer; the others are alike."""
MAX_FIELDS: Final = 400
MAX_DEEP: Final = 4
MAX_PLACES: Final = 60


class Entry(msgspec.Struct, frozen=True):
    """One object of an answer."""

    asked: str
    """The one serial, or plant's id, that the call named; empty for none or several."""
    time: datetime
    turn: int
    """Which time it was that this was asked, from 0."""
    fields: Mapping[str, Json]
    """Path → what stands there."""


def data_of(answer: Answer, envelope: Envelope) -> Json:
    """Return `data` of an answer; None where it has none."""
    return answer.body.get(envelope.data) if isinstance(answer.body, dict) else None


def subject_of(interface: Interface, args: Mapping[str, Any]) -> str:
    """Return the one serial, or plant's id, that a call named; empty for none or several."""
    for row in interface.request:
        if row.arg in ("serial", "serials", "plant", "plants"):
            place: Any = args
            for key in row.field.split("."):
                if isinstance(place, dict):
                    place = place.get(key)
                elif isinstance(place, list) and key.isdigit() and int(key) < len(place):
                    place = place[int(key)]
                else:
                    place = None
            if isinstance(place, list):
                place = place[0] if len(place) == 1 else None
            return "" if place is None else str(place)
    return ""


def flat(entry: Mapping[str, Json]) -> dict[str, Json]:
    """Return the plain fields of an entry, those that lie deeper by their path."""
    found: dict[str, Json] = {}

    def walk(node: Mapping[str, Json], prefix: str, deep: int) -> None:
        for key, value in node.items():
            if len(found) >= MAX_FIELDS or not isinstance(key, str) or "." in key:
                continue
            if isinstance(value, dict) and value and deep < MAX_DEEP:
                walk(value, f"{prefix}{key}.", deep + 1)
            elif not isinstance(value, (list, dict)):
                found[prefix + key] = value

    walk(entry, "", 1)
    return found


def places(data: Json) -> list[str]:
    """Return the paths of all that may be an answer's entries: lists of objects, and objects, nearest first."""
    found: dict[str, None] = {}

    def walk(node: Json, path: str, deep: int) -> None:
        if len(found) >= MAX_PLACES or deep > MAX_DEEP:
            return
        if isinstance(node, list):
            for item in node[:5]:
                if isinstance(item, dict):
                    found.setdefault(path)
                    walk_in(item, path, deep)
        elif isinstance(node, dict):
            found.setdefault(path)
            walk_in(node, path, deep)

    def walk_in(node: Mapping[str, Json], path: str, deep: int) -> None:
        for key, value in node.items():
            if isinstance(value, (dict, list)) and isinstance(key, str) and "." not in key and key:
                walk(value, f"{path}.{key}" if path else key, deep + 1)

    walk(data, "", 0)
    return list(found)


def own_fields(data: Sequence[Json], path: str) -> set[str]:
    """Return the fields of all that lies at a path, without what is lent from above."""
    found: set[str] = set()

    def walk(node: Json, keys: list[str]) -> None:
        if isinstance(node, list):
            for item in node[:MAX_ENTRIES]:
                walk(item, keys)
        elif isinstance(node, dict):
            if keys:
                walk(node.get(keys[0]), keys[1:])
            else:
                found.update(flat(node))

    for one in data:
        walk(one, path.split(".") if path else [])
    return found


def in_turn(answers: Iterable[Answer]) -> Iterator[tuple[Answer, int]]:
    """Yield the answers, with which time it was that the same was asked."""
    seen: dict[tuple[str, str], int] = {}
    for answer in answers:
        key = (answer.interface, repr(sorted(answer.args.items(), key=str)))
        turn = seen[key] = seen.get(key, -1) + 1
        yield answer, turn


def observe(
    interface: Interface, answers: Sequence[tuple[Answer, int]], lists: tuple[str, ...], envelope: Envelope
) -> list[Entry]:
    """Return the entries that an interface's answers hold, where its lists are there."""
    there = msgspec.structs.replace(interface, lists=lists)
    return [
        Entry(subject_of(interface, answer.args), answer.time, turn, flat(entry))
        for answer, turn in answers
        for entry in entries(there, data_of(answer, envelope))[:MAX_ENTRIES]
    ]


def by_interface(catalogue: Catalogue, answers: Sequence[Answer]) -> dict[str, list[tuple[Answer, int]]]:
    """Return the answers of each interface that the catalogue has."""
    known = {interface.name for interface in catalogue.interfaces}
    found: dict[str, list[tuple[Answer, int]]] = {}
    for answer, turn in in_turn(answers):
        if answer.interface in known:
            found.setdefault(answer.interface, []).append((answer, turn))
    return found
