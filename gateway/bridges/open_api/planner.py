"""The hour's plan: which interfaces are called how often, for which plants and devices. Pure; no I/O.

In this order:

1. Everything at the interval wanted, each device by its own live interface.
2. Where that does not fit, devices whose plant has a list that brings live values along (`covers`) are read by that
   list, if it saves calls, and by their own interfaces every so often, from a share of the calls kept for that.
3. Where that does not fit either, the interval becomes as long as it takes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import Final

import msgspec

from gateway.sems.budget import HOUR
from gateway.sems.calls import PLANT_ARGS, SERIAL_ARGS, by_plant
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.discovery import PAGE_SIZE
from gateway.sems.plan import Plan, PollIntervals, Role, Row, Unit, reserve
from gateway.sems.plants import PLANT, Target
from gateway.sems.schedule import batched

DETAIL_SHARE: Final = 0.25
"""Of the calls for reading, kept for devices' own interfaces where plants' lists stand in for them."""
HALVINGS: Final = 40


class _Draft(msgspec.Struct, frozen=True):
    """A row whose interval is still open."""

    interface: Interface
    role: Role
    type: str
    units: tuple[Unit, ...]
    reaches: int
    pushed: bool = False

    @property
    def weight(self) -> float:
        """Calls a round, where it takes part in every `rounds`th of them."""
        return len(self.units) / self.interface.rounds

    def row(self, interval: float, pushed_interval: float) -> Row:
        every = interval * self.interface.rounds
        if self.pushed:
            every = max(every, pushed_interval)
        return Row(self.interface.name, self.role, self.units, self.reaches, every, self.type, self.pushed)


def plan(
    targets: Iterable[Target],
    catalogue: Catalogue,
    limit: float,
    wanted: PollIntervals,
    pushed: Collection[str] = (),
    shelved: Collection[tuple[str, str]] = (),
    alone: Collection[tuple[str, str]] = (),
) -> Plan:
    """Return the plan for these plants and devices within `limit` calls an hour.

    `pushed` are serials that another bridge brings fresh data of; `shelved` are interfaces, each with a type, that
    SEMS does not answer for this account; `alone` are interfaces, each with a serial that spoils a batch.
    """
    known = list(targets)
    made = reserve(limit, discovery_calls(known, catalogue), wanted.discovery_interval)
    ways = _Ways(known, catalogue, pushed, shelved, alone)
    rows = _fit(ways, limit - made.per_hour, wanted)
    interval = max([wanted.interval, *(_base(row, catalogue) for row in rows if row.live)])
    return msgspec.structs.replace(made, rows=rows, interval=interval, unreached=ways.unreached)


def discovery_calls(targets: Sequence[Target], catalogue: Catalogue) -> int:
    """Return how many calls one look for new devices takes."""
    plants = sum(target.type == PLANT for target in targets)
    devices = sum(target.type != PLANT and not target.carrier for target in targets)
    calls = ceil(plants / PAGE_SIZE) + 1
    details = next(catalogue.using(Use.DETAIL), None)
    for interface in [*catalogue.using(Use.DEVICES), *([details] if details else [])]:
        if interface.args & PLANT_ARGS:
            calls += ceil(plants / interface.batch)
        elif interface.args & SERIAL_ARGS:
            # In batches of one lot of plants each, so some are not full.
            calls += ceil(devices / interface.batch) + plants // PAGE_SIZE
    return calls


def _base(row: Row, catalogue: Catalogue) -> float:
    return 0.0 if row.pushed else row.interval / catalogue.interface(row.interface).rounds


def _fit(ways: "_Ways", free: float, wanted: PollIntervals) -> tuple[Row, ...]:
    direct = ways.direct()
    if _shortest(direct, free, wanted) <= wanted.interval:
        return tuple(draft.row(wanted.interval, wanted.pushed_interval) for draft in direct)
    kept_fresh, detail = ways.covered()
    interval = max(wanted.interval, _shortest(kept_fresh, free * (1 - DETAIL_SHARE) if detail else free, wanted))
    rows = [draft.row(interval, wanted.pushed_interval) for draft in kept_fresh]
    if detail:
        left = free - sum(row.per_hour for row in rows)
        every = max(interval, HOUR * sum(draft.weight for draft in detail) / left)
        rows += [draft.row(every, wanted.pushed_interval) for draft in detail]
    return tuple(rows)


def _shortest(drafts: Sequence[_Draft], free: float, wanted: PollIntervals) -> float:
    """Return the shortest interval at which these take no more than `free` calls an hour.

    Rows of pushed devices keep to an interval of their own, so what others take is found by halving.
    """
    longest = HOUR * sum(draft.weight for draft in drafts) / free
    if not any(draft.pushed for draft in drafts):
        return longest
    shortest = 0.0
    for _ in range(HALVINGS):
        middle = (shortest + longest) / 2
        per_hour = sum(draft.row(middle, wanted.pushed_interval).per_hour for draft in drafts)
        shortest, longest = (middle, longest) if per_hour > free else (shortest, middle)
    return longest


class _Ways:
    """By which interfaces which plants and devices can be read."""

    def __init__(
        self,
        targets: Sequence[Target],
        catalogue: Catalogue,
        pushed: Collection[str],
        shelved: Collection[tuple[str, str]],
        alone: Collection[tuple[str, str]],
    ) -> None:
        self._catalogue = catalogue
        self._alone = alone
        self._pushed = pushed
        self._shelved = shelved
        self._plants = [target for target in targets if target.type == PLANT]
        self._by_type: dict[str, list[Target]] = {}
        self._carried: dict[str, int] = {}
        for target in targets:
            if target.carrier:
                self._carried[target.carrier] = self._carried.get(target.carrier, 0) + 1
            else:
                self._by_type.setdefault(target.type, []).append(target)
        self._members = self._count_members(targets)
        self._own = {type_: own for type_ in self._by_type if (own := self._own_live(type_)) is not None}
        """Type → the interface that keeps such devices fresh. A list does it better than one of every few rounds."""
        self.unreached = frozenset(self._by_type.keys() - self._own.keys() - self._coverable())

    def direct(self) -> list[_Draft]:
        """Return rows that read each device by its own live interface."""
        lists = [t for t in self._by_type if t not in self._own and t in self._coverable()]
        covers = self._covers({t.plant: [t] for type_ in lists for t in self._by_type[type_]}, lists)
        own = [d for type_, some in self._by_type.items() for d in self._per_device(type_, some, Role.LIVE, Role.SIDE)]
        return [*own, *covers, *self._sides()]

    def covered(self) -> tuple[list[_Draft], list[_Draft]]:
        """Return rows that use plants' lists where that saves calls, and devices' own besides."""
        coverable = self._coverable()
        by_plant_: dict[str, list[Target]] = {}
        for type_ in coverable:
            for target in self._by_type.get(type_, ()):
                by_plant_.setdefault(target.plant, []).append(target)
        saved = {plant: some for plant, some in by_plant_.items() if self._saves(some)}
        standing_in = {target.serial for some in saved.values() for target in some}
        fresh, detail = list[_Draft](), list[_Draft]()
        for type_, some in self._by_type.items():
            fresh += self._per_device(type_, [t for t in some if t.serial not in standing_in], Role.LIVE, Role.SIDE)
            detail += self._per_device(type_, [t for t in some if t.serial in standing_in], Role.DETAIL, Role.DETAIL)
        return [*fresh, *self._covers(saved, coverable), *self._sides()], detail

    # devices' own interfaces

    def _own_live(self, type_: str) -> Interface | None:
        own = min(self._live(type_), key=lambda interface: interface.rounds, default=None)
        return None if own is not None and own.rounds > 1 and type_ in self._coverable() else own

    def _live(self, type_: str) -> Iterator[Interface]:
        for interface in self._catalogue.using(Use.LIVE, type_):
            if (interface.name, type_) not in self._shelved:
                yield interface

    def _per_device(self, type_: str, targets: Sequence[Target], live: Role, others: Role) -> Iterator[_Draft]:
        own = self._own.get(type_)
        slow = [target for target in targets if target.serial in self._pushed] if self._pushed else []
        usual = [target for target in targets if target.serial not in self._pushed] if slow else targets
        for pushed, some in ((False, usual), (True, slow)):
            carried = sum(self._carried.get(target.serial, 0) for target in some) if self._carried else 0
            for interface in self._live(type_) if some else ():
                role = live if interface is own else others
                yield _Draft(interface, role, type_, self._batched(some, interface), len(some) + carried, pushed)

    # plants' lists

    def _lists(self) -> Iterator[Interface]:
        for interface in self._catalogue.using(Use.DEVICES):
            if interface.covers and by_plant(interface):
                yield interface

    def _coverable(self) -> set[str]:
        return {t for i in self._lists() for t in i.covers if (i.name, t) not in self._shelved}

    def _saves(self, targets: Sequence[Target]) -> bool:
        """Return whether one call about their plant is cheaper than the calls about each."""
        own = sum(1 / self._own[t.type].batch if t.type in self._own else 2.0 for t in targets)
        return own > 1

    def _covers(self, plants: Mapping[str, Sequence[Target]], types: Collection[str]) -> Iterator[_Draft]:
        ids = {plant.serial: plant for plant in self._plants}
        for interface in self._lists():
            covered = set(interface.covers) & set(types)
            for pushed in (False, True):
                some = [
                    ids.get(plant, members[0])
                    for plant, members in plants.items()
                    if any(t.type in covered for t in members)
                    and all(t.serial in self._pushed for t in members if t.type in covered) is pushed
                ]
                if some:
                    reaches = sum(self._members.get((plant.plant, type_), 0) for plant in some for type_ in covered)
                    yield _Draft(interface, Role.LIVE, some[0].type, self._batched(some, interface), reaches, pushed)

    # what changes slowly

    def _sides(self) -> Iterator[_Draft]:
        """Yield rows of details that bring values, and of alarms: by plant where SEMS has that, else by device."""
        for interface in self._catalogue.using(Use.DETAIL):
            if self._plants and interface.points and (interface.name, PLANT) not in self._shelved:
                units = self._batched(self._plants, interface)
                yield _Draft(interface, Role.SIDE, PLANT, units, len(self._plants))
        of_plants = [i for i in self._catalogue.using(Use.ALARMS, PLANT) if (i.name, PLANT) not in self._shelved]
        if of_plants and self._plants:
            everything = sum(map(len, self._by_type.values())) + sum(self._carried.values())
            yield _Draft(of_plants[0], Role.SIDE, PLANT, self._batched(self._plants, of_plants[0]), everything)
            return
        asked: set[str] = set()
        for interface in self._catalogue.using(Use.ALARMS):
            for type_ in interface.of:
                some = self._by_type.get(type_, [])
                if some and type_ not in asked and (interface.name, type_) not in self._shelved:
                    asked.add(type_)
                    yield _Draft(interface, Role.SIDE, type_, self._batched(some, interface), len(some))

    def _count_members(self, targets: Iterable[Target]) -> dict[tuple[str, str], int]:
        counts: dict[tuple[str, str], int] = {}
        for target in targets:
            key = target.plant, target.type
            counts[key] = counts.get(key, 0) + 1
        return counts

    def _batched(self, targets: Sequence[Target], interface: Interface) -> tuple[Unit, ...]:
        if interface.batch == 1:
            return tuple((target.serial,) for target in targets)
        serials = [target.serial for target in targets]
        alone = [s for s in serials if (interface.name, s) in self._alone] if self._alone else []
        rest = [s for s in serials if s not in alone] if alone else serials
        return (*((serial,) for serial in alone), *batched(rest, interface.batch))
