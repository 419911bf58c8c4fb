"""The native map as the bridge uses it."""

from collections.abc import Mapping
from functools import cache
from typing import Final

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Layout
from gateway.bridges.modbus.lasting import lasting
from gateway.bridges.modbus.maps.family import FixedFamily
from gateway.bridges.modbus.maps.native import KEPT, NATIVE, NOW
from gateway.core.model import DeviceState, Value
from gateway.core.points import POINTS, Type

ALL: Final[Mapping[str, str]] = {**KEPT, **NOW}
WORDS: Final = {
    field: {word: number for number, word in enumerate(POINTS[point].options)}
    for field, point in ALL.items()
    if POINTS[point].type is Type.ENUM
}
"""Field → word → number, for a row of the map's own has no point to look it up by."""


@cache
def _layout(order: WordOrder) -> Layout:
    return Layout(NATIVE, order)


class NativeFamily(FixedFamily):
    """Shows points and the bridge's own fields."""

    def __init__(self, order: WordOrder) -> None:
        super().__init__(_layout(order))

    def fields(self, state: DeviceState) -> Mapping[str, Value]:
        """See `Family.fields`. These blocks can be read at any time, so that what is old must not look new."""
        values = lasting(state)
        shown = {field: values.get(point) for field, point in ALL.items()}
        return shown | {field: numbers.get(str(shown[field])) for field, numbers in WORDS.items()}
