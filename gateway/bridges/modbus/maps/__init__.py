"""Register maps, as tables of rows. `FAMILIES` names those that a configuration may ask for."""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.bridges.modbus.maps.family import Family
from gateway.bridges.modbus.maps.goodwe import GoodweFamily
from gateway.bridges.modbus.maps.native_family import NativeFamily
from gateway.bridges.modbus.maps.sunspec import SunSpecFamily

FAMILIES: Final[Mapping[str, Callable[..., Family]]] = {
    "native": NativeFamily,
    "goodwe": GoodweFamily,
    "sunspec": SunSpecFamily,
}
"""Name → what makes the map for a bridge: called with the word order, and its options by keyword.

What takes options has a class attribute `Options`, a pydantic model of them; see maps/chosen.py.
"""
