"""What SEMS says of powers, for the watch over signs (`gateway.core.balance`), and the override that turns one."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache, partial

from gateway.core.balance import SIGNED, Config, Flows
from gateway.sems.catalogue import Catalogue, Interface
from gateway.sems.normalise import Reading


def flows(
    catalogue: Catalogue, interface: Interface, serial: str, time: datetime, reading: Reading, place: Sequence[str]
) -> Flows:
    """Return an answer as the watch takes it. `place` is where the configuration has the `overrides` of this source."""
    return Flows(
        serial=serial,
        where=interface.name,
        time=time,
        values=reading.values,
        turned=partial(_turned, catalogue, interface, tuple(place)),
    )


@lru_cache(maxsize=4096)
def has_powers(interface: Interface) -> bool:
    """Return whether its answers have anything that the watch could add up."""
    return not interface.points.isdisjoint((*SIGNED, "pv_power", "load_power", "ev_power"))


def _turned(catalogue: Catalogue, interface: Interface, place: tuple[str, ...], point: str) -> Config:
    """Return the overrides with which a point has the other sign.

    The same field means the same in all interfaces for these devices, the series too, where it has the same scale.
    """
    lines = {(row.field, row.scale) for row in interface.response if row.point == point}
    interfaces: Config = {}
    for one in catalogue.interfaces:
        fields = {
            row.field: {"scale": _number(-row.scale)}
            for row in one.response
            if row.point == point and (row.field, row.scale) in lines and set(one.of) & set(interface.of)
        }
        if fields:
            interfaces[one.name] = {"fields": fields}
    config: Config = {"overrides": {"interfaces": interfaces}}
    for key in reversed(place):
        config = {key: config}
    return config


def _number(scale: float) -> float | int:
    return int(scale) if float(scale).is_integer() else scale
