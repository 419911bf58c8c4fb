"""Finds register maps by the names in `maps:`, over entry points of `sems_gateway.modbus_maps`, ours and strangers'.

A stranger's is a `RegisterTable`. Ours are classes: called with the word order, and their options by keyword, they make
a `Family`. What takes options has a class attribute `Options`, a pydantic model of them; see maps/chosen.py.
"""

from functools import cache
from typing import Any, Final

from gateway.api.modbus import RegisterTable
from gateway.api.registry import Kind, Registry, found
from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.maps.family import Family
from gateway.bridges.modbus.maps.tables import TableFamily


def _lacks(loaded: Any) -> str:
    return "" if isinstance(loaded, RegisterTable) or callable(loaded) else "is no RegisterTable"


MAP: Final = Kind("map", "register map", "sems_gateway.modbus_maps", _lacks)


@cache
def installed() -> Registry[Any]:
    """Return the registry of register maps that are installed."""
    return found(MAP)


def make(name: str, order: WordOrder, **options: Any) -> Family:
    """Make a map by its name. Raises PluginError, or MapError for a table that is wrong."""
    loaded = installed().load(name)
    if isinstance(loaded, RegisterTable):
        return TableFamily(name, loaded, order)
    made: Family = loaded(order, **options)
    return made
