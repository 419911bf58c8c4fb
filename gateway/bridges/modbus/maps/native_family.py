"""The native map as the bridge uses it."""

from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.writes import Wish, wishes
from gateway.core.model import Device, DeviceState, Value


class NativeFamily:
    """The same layout for every device; shows points and the bridge's own fields, and no more."""

    name: Final = NATIVE.name

    def __init__(self, order: WordOrder) -> None:
        self._layout = Layout(NATIVE, order)

    def layout(self, device: Device) -> Layout:  # noqa: ARG002 - it is for all
        """See `Family.layout`."""
        return self._layout

    def fields(self, state: DeviceState) -> Mapping[str, Value]:  # noqa: ARG002
        """See `Family.fields`."""
        return {}

    def wishes(self, image: Image, address: int, payload: bytes) -> list[Wish]:
        """See `Family.wishes`."""
        return wishes(image.layout, address, payload)
