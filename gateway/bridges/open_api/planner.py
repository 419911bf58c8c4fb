"""The hour's plan: which interfaces are called how often, for which plants and devices. Pure; no I/O.

The sum of a plan never exceeds what polling may spend: intervals follow from the calls there are, not the other way
round. In this order:

1. Everything at the interval wanted, each device by its own live interface.
2. Where that does not fit, devices whose plant has a list that brings live values along (`covers`) are read by that
   list, if it saves calls, and by their own interfaces every so often, from a share of the calls kept for that.
3. Where that does not fit either, the interval becomes as long as it takes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from math import ceil
from typing import Final, TypeVar

import msgspec

from gateway.sems.budget import HOUR
from gateway.sems.calls import PLANT_ARGS, SERIAL_ARGS, by_plant
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.plants import PLANT, Target

T = TypeVar("T")

DISCOVERY_SHARE: Final = 0.1
"""Of what polling may spend; discovery takes less where it needs less."""
SOON_SHARE: Final = 0.03
"""The same for what can't wait its turn: the alarms of a device that has a fault now, and reading back."""
LOGIN_SHARE: Final = 0.1
LOGINS: Final = 2.0
"""Logins an hour: a token lasts one hour or two (SEMS.md, seen)."""
DETAIL_SHARE: Final = 0.25
"""Of the calls for reading, kept for devices' own interfaces where plants' lists stand in for them."""
LIST_PAGE: Final = 100
HALVINGS: Final = 40


class Role(StrEnum):
    """What a row of the plan is for."""

    LIVE = "live"
    """Keeps devices fresh."""
    SIDE = "side"
    """Changes slowly: income, statistics, weather, details, alarms."""
    DETAIL = "detail"
    """Devices' own interfaces, where a list keeps them fresh."""


class Row(msgspec.Struct, frozen=True):
    """One interface, and all its calls of one round."""

    interface: str
    role: Role
    units: tuple[tuple[Target, ...], ...]
    """What each call asks about: devices of one type, or plants."""
    reaches: int
    """How many plants and devices the calls bring values of, or alarms."""
    interval: float
    """Seconds from one call about a unit to the next."""
    pushed: bool = False
    """Whether it is for devices that another bridge brings fresh data of."""

    @property
    def calls(self) -> int:
        """Calls a round."""
        return len(self.units)

    @property
    def per_hour(self) -> float:
        """Calls an hour."""
        return self.calls * HOUR / self.interval


class Plan(msgspec.Struct, frozen=True):
    """What is called in an hour."""

    rows: tuple[Row, ...]
    limit: float
    """Calls an hour that polling may spend."""
    interval: float
    """Seconds between live readings of a device."""
    discovery_calls: int
    """Of one look for new devices."""
    discovery_interval: float
    """Seconds from one look to the next; longer than wanted where it would cost too much."""
    discovery_per_hour: float
    logins: float
    """Calls an hour kept for logging in."""
    soon: int
    """Calls an hour kept for what can't wait its turn."""
    unreached: frozenset[str] = frozenset()
    """Types of devices that no interface reads."""

    @property
    def per_hour(self) -> float:
        """Calls an hour, of everything."""
        return sum(row.per_hour for row in self.rows) + self.discovery_per_hour + self.logins + self.soon

    @property
    def at_once(self) -> bool:
        """Whether the first round may be made at once: there are calls enough to make it besides the rest."""
        return sum(row.calls for row in self.rows) + self.per_hour <= self.limit

    @property
    def oldest(self) -> float:
        """Seconds that what is live is old at most, when polled."""
        return max((row.interval for row in self.rows if row.role is Role.LIVE), default=self.interval)

    @property
    def detail_interval(self) -> float:
        """Seconds between readings of a device by its own interface, where a list stands in; 0 where none does."""
        return min((row.interval for row in self.rows if row.role is Role.DETAIL), default=0.0)


class Wishes(msgspec.Struct, frozen=True):
    """What the configuration asks for."""

    interval: float = 60.0
    pushed_interval: float = 900.0
    discovery_interval: float = 3600.0


class _Draft(msgspec.Struct, frozen=True):
    """A row whose interval is still open."""

    interface: Interface
    role: Role
    units: tuple[tuple[Target, ...], ...]
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
        return Row(self.interface.name, self.role, self.units, self.reaches, every, self.pushed)


def plan(
    targets: Iterable[Target],
    catalogue: Catalogue,
    limit: float,
    wishes: Wishes,
    pushed: Collection[str] = (),
    shelved: Collection[tuple[str, str]] = (),
    alone: Collection[tuple[str, str]] = (),
) -> Plan:
    """Return the plan for these plants and devices within `limit` calls an hour.

    `pushed` are serials that another bridge brings fresh data of; `shelved` are interfaces, each with a type, that
    SEMS does not answer for this account; `alone` are interfaces, each with a serial that spoils a batch.
    """
    known = list(targets)
    look = discovery_calls(known, catalogue)
    look_per_hour = min(look * HOUR / wishes.discovery_interval, DISCOVERY_SHARE * limit)
    logins = min(LOGINS, LOGIN_SHARE * limit)
    soon = int(SOON_SHARE * limit)
    free = limit - look_per_hour - logins - soon
    ways = _Ways(known, catalogue, pushed, shelved, alone)
    rows = _fit(ways, free, wishes)
    return Plan(
        rows=rows,
        limit=limit,
        interval=max([wishes.interval, *(_base(row, catalogue) for row in rows if row.role is Role.LIVE)]),
        discovery_calls=look,
        discovery_interval=max(wishes.discovery_interval, look * HOUR / look_per_hour),
        discovery_per_hour=look_per_hour,
        logins=logins,
        soon=soon,
        unreached=ways.unreached,
    )


def discovery_calls(targets: Sequence[Target], catalogue: Catalogue) -> int:
    """Return how many calls one look for new devices takes."""
    plants = sum(target.type == PLANT for target in targets)
    devices = sum(target.type != PLANT and not target.carrier for target in targets)
    calls = ceil(plants / LIST_PAGE) + 1
    details = next(catalogue.using(Use.DETAIL), None)
    for interface in [*catalogue.using(Use.DEVICES), *([details] if details else [])]:
        if interface.args & PLANT_ARGS:
            calls += ceil(plants / interface.batch)
        elif interface.args & SERIAL_ARGS:
            # In batches of one lot of plants each, so some are not full.
            calls += ceil(devices / interface.batch) + plants // LIST_PAGE
    return calls


def _base(row: Row, catalogue: Catalogue) -> float:
    return 0.0 if row.pushed else row.interval / catalogue.interface(row.interface).rounds


def _fit(ways: "_Ways", free: float, wishes: Wishes) -> tuple[Row, ...]:
    direct = ways.direct()
    if _shortest(direct, free, wishes) <= wishes.interval:
        return tuple(draft.row(wishes.interval, wishes.pushed_interval) for draft in direct)
    kept_fresh, detail = ways.covered()
    interval = max(wishes.interval, _shortest(kept_fresh, free * (1 - DETAIL_SHARE) if detail else free, wishes))
    rows = [draft.row(interval, wishes.pushed_interval) for draft in kept_fresh]
    if detail:
        left = free - sum(row.per_hour for row in rows)
        every = max(interval, HOUR * sum(draft.weight for draft in detail) / left)
        rows += [draft.row(every, wishes.pushed_interval) for draft in detail]
    return tuple(rows)


def _shortest(drafts: Sequence[_Draft], free: float, wishes: Wishes) -> float:
    """Return the shortest interval at which these take no more than `free` calls an hour.

    Rows of pushed devices keep to an interval of their own, so what others take is found by halving.
    """
    longest = HOUR * sum(draft.weight for draft in drafts) / free
    if not any(draft.pushed for draft in drafts):
        return longest
    shortest = 0.0
    for _ in range(HALVINGS):
        middle = (shortest + longest) / 2
        per_hour = sum(draft.row(middle, wishes.pushed_interval).per_hour for draft in drafts)
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
                yield _Draft(interface, role, self._batched(some, interface), len(some) + carried, pushed)

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
                    yield _Draft(interface, Role.LIVE, self._batched(some, interface), reaches, pushed)

    # what changes slowly

    def _sides(self) -> Iterator[_Draft]:
        """Yield rows of details that bring values, and of alarms: by plant where SEMS has that, else by device."""
        for interface in self._catalogue.using(Use.DETAIL):
            if self._plants and interface.points and (interface.name, PLANT) not in self._shelved:
                units = self._batched(self._plants, interface)
                yield _Draft(interface, Role.SIDE, units, len(self._plants))
        of_plants = [i for i in self._catalogue.using(Use.ALARMS, PLANT) if (i.name, PLANT) not in self._shelved]
        if of_plants and self._plants:
            everything = sum(map(len, self._by_type.values())) + sum(self._carried.values())
            yield _Draft(of_plants[0], Role.SIDE, self._batched(self._plants, of_plants[0]), everything)
            return
        asked: set[str] = set()
        for interface in self._catalogue.using(Use.ALARMS):
            for type_ in interface.of:
                some = self._by_type.get(type_, [])
                if some and type_ not in asked and (interface.name, type_) not in self._shelved:
                    asked.add(type_)
                    yield _Draft(interface, Role.SIDE, self._batched(some, interface), len(some))

    def _count_members(self, targets: Iterable[Target]) -> dict[tuple[str, str], int]:
        counts: dict[tuple[str, str], int] = {}
        for target in targets:
            key = target.plant, target.type
            counts[key] = counts.get(key, 0) + 1
        return counts

    def _batched(self, targets: Sequence[Target], interface: Interface) -> tuple[tuple[Target, ...], ...]:
        if interface.batch == 1:
            return tuple((target,) for target in targets)
        alone = [target for target in targets if (interface.name, target.serial) in self._alone] if self._alone else []
        rest = [target for target in targets if target not in alone] if alone else targets
        batches = (tuple(rest[start : start + interface.batch]) for start in range(0, len(rest), interface.batch))
        return (*((target,) for target in alone), *batches)
