"""The map as the bridge uses it."""

from collections.abc import Mapping
from functools import cache
from typing import Final

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Layout
from gateway.bridges.modbus.maps.family import Family
from gateway.bridges.modbus.maps.goodwe.control import Controls
from gateway.bridges.modbus.maps.goodwe.rows import GOODWE
from gateway.bridges.modbus.maps.goodwe.values import values
from gateway.core.model import Device, DeviceKind, DeviceState, Value

KINDS: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE, DeviceKind.FLEET)
LARGEST: Final = 32_767
"""W. Of a larger one the software that this map is for reads powers with the wrong sign."""


@cache
def _layout() -> Layout:
    return Layout(GOODWE, WordOrder.ABCD)


class GoodweFamily(Family):
    """One layout for all inverters; remembers what was written to each."""

    def __init__(self, order: WordOrder) -> None:  # noqa: ARG002 - the real inverter has but one
        self.name = GOODWE.name
        self._layout = _layout()
        self._controls: dict[str, Controls] = {}

    def layout(self, device: Device) -> Layout | None:
        """See `Family.layout`."""
        if device.kind not in KINDS or (device.rated_power or 0) > LARGEST:
            return None
        self._controls.setdefault(device.serial, Controls())
        return self._layout

    def fields(self, state: DeviceState) -> Mapping[str, Value]:
        """See `Family.fields`."""
        controls = self._controls[state.device.serial]
        controls.learn(state)
        return {**values(state), **controls.shown()}

    def controls(self, serial: str) -> Controls | None:
        """See `Family.controls`."""
        return self._controls.get(serial)
