"""What SEMS answers and the catalogue does not know, named once for each interface: a person may have use for it."""

from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final

from gateway.api.contexts import BaseContext
from gateway.core.findings import FindingCode
from gateway.core.text import MAX_FIELD, plain
from gateway.sems.catalogue import Interface, Json
from gateway.sems.normalise import entries

LOOKED_INTO: Final = 5
"""Entries of an answer: the others have the same fields."""
MAX_FIELDS: Final = 100
"""Of one interface."""


class UnknownFields:
    """The names, by interface. Whatever brings answers shows each to `look`."""

    def __init__(self, context: BaseContext) -> None:
        self._context = context
        self.fields: Final[dict[str, set[str]]] = {}
        """Interface → fields."""

    def look(self, interface: Interface, data: Json, but: AbstractSet[str] = frozenset()) -> None:
        """Look into an answer, and say what is new in it, `but` these. Any answer may come, and nothing is believed."""
        unknown = _unknown(interface, data) - but if interface.response else set()
        if not unknown:
            return
        kept = self.fields.setdefault(interface.name, set())
        new = sorted({plain(name, MAX_FIELD) for name in unknown} - kept)[: MAX_FIELDS - len(kept)]
        if not new:
            return
        kept.update(new)
        self._context.find(
            FindingCode.FIELDS_UNKNOWN,
            interface.name,
            f"SEMS answers {interface.name} with fields the catalogue does not know: {', '.join(sorted(kept))}",
            f"to use one: overrides: {{interfaces: {{{interface.name}: {{fields: {{{min(kept)}: "
            "{point: the point's id}}}}}, see docs/sems.md",
        )


def _unknown(interface: Interface, data: Json) -> set[str]:
    known, parents = _known_fields(interface)
    unknown: set[str] = set()
    for entry in entries(interface, data)[:LOOKED_INTO]:
        unknown |= entry.keys() - known
        for parent in parents:
            inner = entry.get(parent)
            if isinstance(inner, dict):
                unknown |= {f"{parent}.{name}" for name in inner} - known
    return unknown


@lru_cache(maxsize=4096)
def _known_fields(interface: Interface) -> tuple[frozenset[str], frozenset[str]]:
    """Return the fields that have a meaning, and those among them that hold others."""
    fields = {row.field for row in interface.response}
    parents = {field.rpartition(".")[0] for field in fields if "." in field}
    lists = {part for path in interface.lists for part in path.split(".")}
    return frozenset(fields | parents | lists), frozenset(parents)
