"""Which scale each unit of an answer is in, by relations between its numbers.

Each relation says that a product of numbers, each in its group's scale, lies between two bounds. Scales are powers of
ten, so bounds may be wide. A relation strikes out the scales that can't be; what is left alone is known.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from math import prod
from typing import Final

import msgspec

from gateway.learn.columns import SCALES, Column, Group, Table
from gateway.learn.report import Evidence, Kind
from gateway.learn.values import factor

AGREEING: Final = 0.7
"""Part of a relation's instances that have to hold."""

Term = tuple[Group, int]
"""A group, and the power to which its scale enters."""


class Relation(msgspec.Struct, frozen=True):
    """One instance: the scales to their powers, times `ratio`, lie from `low` to `high`."""

    kind: Kind
    name: str
    """Instances of one name and of the same groups are judged together."""
    terms: tuple[Term, ...]
    ratio: float
    low: float
    high: float
    text: str
    columns: tuple[Column, ...]

    def holds(self, scales: Mapping[Group, float]) -> bool:
        """Return whether it does with these scales."""
        value = self.ratio * prod(scales[group] ** power for group, power in self.terms)
        return self.low <= value <= self.high


class Scales:
    """Which scales each group may have yet."""

    def __init__(self, table: Table) -> None:
        self.possible: dict[Group, set[float]] = {}
        for column in table.columns:
            if column.group is not None:
                said = {size for unit in column.units if (size := factor(unit, column.unit)) is not None}
                self.possible.setdefault(column.group, set()).update(SCALES[column.unit], {abs(column.row.scale)}, said)

    def of(self, group: Group) -> float | None:
        """Return a group's scale; None while it may have several."""
        left = self.possible[group]
        return next(iter(left)) if len(left) == 1 else None

    def settle(self, relations: Iterable[Relation]) -> None:
        """Strike out what can't be, until nothing changes."""
        groups: dict[tuple[str, tuple[Term, ...]], list[Relation]] = {}
        for relation in relations:
            groups.setdefault((relation.name, relation.terms), []).append(relation)
        changed = True
        while changed:
            changed = False
            for (_, terms), instances in groups.items():
                changed = self._strike(terms, instances) or changed

    def _strike(self, terms: tuple[Term, ...], instances: list[Relation]) -> bool:
        names = list(dict.fromkeys(group for group, _ in terms))
        options = [sorted(self.possible[name]) for name in names]
        holding = []
        for combination in product(*options):
            scales = dict(zip(names, combination, strict=True))
            if sum(instance.holds(scales) for instance in instances) >= AGREEING * len(instances):
                holding.append(combination)
        if not holding:
            return False  # it says nothing that can be; see `prove`
        changed = False
        for position, name in enumerate(names):
            left = {combination[position] for combination in holding}
            if left < self.possible[name]:
                self.possible[name] = left
                changed = True
        return changed

    def prove(self, relations: Iterable[Relation]) -> None:
        """Note at each column which relations speak for its scale, and which against it.

        For it speaks one that holds, and would not with another scale of its group, all others being known. Against it,
        one that would hold with another; a few may: a cloud, an upload that is late.
        """
        doubts: dict[int, tuple[Column, list[str]]] = {}
        for_it: Counter[int] = Counter()
        for relation in relations:
            names = list(dict.fromkeys(group for group, _ in relation.terms))
            known = {name: self.of(name) for name in names}
            if any(scale is None for scale in known.values()):
                continue
            scales = {name: scale for name, scale in known.items() if scale is not None}
            if not relation.holds(scales):
                for column in relation.columns:
                    if column.group in scales and (self._would(relation, scales, column) or _beyond(relation, scales)):
                        doubts.setdefault(id(column), (column, []))[1].append(relation.text)
                continue
            for column in relation.columns:
                group = column.group
                if group is not None and group in scales and self._tells(relation, scales, group, column):
                    for_it[id(column)] += 1
                    evidence = Evidence(relation.kind, relation.text)
                    if all(known.text != evidence.text for known in column.proofs):
                        column.proofs.append(evidence)

        for column, texts in doubts.values():
            if len(texts) > (1 - AGREEING) * (len(texts) + for_it[id(column)]):
                column.against.extend(dict.fromkeys(texts))

    @staticmethod
    def _would(relation: Relation, scales: Mapping[Group, float], column: Column) -> bool:
        """Return whether a relation that does not hold would, with another scale of a column's group."""
        group = column.group
        return group is not None and any(
            relation.holds({**scales, group: other}) for other in SCALES[column.unit] if other != scales[group]
        )

    @staticmethod
    def _tells(relation: Relation, scales: Mapping[Group, float], group: Group, column: Column) -> bool:
        others = (set(SCALES[column.unit]) | {abs(column.row.scale)}) - {scales[group]}
        return not any(relation.holds({**scales, group: other}) for other in others)


def _beyond(relation: Relation, scales: Mapping[Group, float]) -> bool:
    """Return whether it is about a value that can't be, in whatever scale: too much, or no grid's."""
    if relation.kind is not Kind.RANGE:
        return False
    ((group, _),) = relation.terms
    return relation.ratio * scales[group] > relation.high or relation.columns[0].unit == "Hz"
