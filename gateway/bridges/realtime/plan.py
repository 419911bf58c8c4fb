"""The hour's plan of calls: which data types are asked how often, about which numbers. Pure; no I/O."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

import msgspec

from gateway.bridges.realtime.apart import Apart
from gateway.sems.budget import HOUR
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.discovery import PAGE_SIZE
from gateway.sems.plan import Plan, Role, Row, Unit, reserve
from gateway.sems.schedule import batched


def plan(
    numbers: Mapping[str, Sequence[str]],
    catalogue: Catalogue,
    limit: float,
    interval: float,
    list_interval: float,
    apart: Apart | None = None,
) -> Plan:
    """Return the plan for the numbers of each type within `limit` calls an hour, at `interval` if possible.

    `apart` says which numbers share no batch.
    """
    lists = any(catalogue.using(Use.DEVICES))
    made = reserve(limit, ceil(sum(map(len, numbers.values())) / PAGE_SIZE) + 1 if lists else 0, list_interval)
    drafts = list(_drafts(numbers, catalogue, apart or Apart()))
    weight = sum(len(units) / interface.rounds for interface, units in drafts)
    every = max(interval, HOUR * weight / (limit - made.per_hour))
    rows = tuple(
        Row(
            interface.name,
            Role.LIVE if interface.use is Use.LIVE else Role.SIDE,
            units,
            sum(map(len, units)),
            every * interface.rounds,
        )
        for interface, units in drafts
    )
    return msgspec.structs.replace(made, rows=rows, interval=every)


def reading(catalogue: Catalogue, type_: str) -> Interface | None:
    """Return the interface that reads a type of device."""
    return next(catalogue.using(Use.LIVE, type_), None)


def _drafts(
    numbers: Mapping[str, Sequence[str]], catalogue: Catalogue, apart: Apart
) -> Iterator[tuple[Interface, tuple[Unit, ...]]]:
    for interface in [*catalogue.using(Use.LIVE), *catalogue.using(Use.ALARMS)]:
        live = interface.use is Use.LIVE
        types = [t for t in numbers if (reading(catalogue, t) is interface if live else t in interface.of)]
        lots = apart.lots(interface.name, (serial for type_ in types for serial in numbers[type_]))
        if units := tuple(unit for lot in lots for unit in batched(lot, interface.batch)):
            yield interface, units
