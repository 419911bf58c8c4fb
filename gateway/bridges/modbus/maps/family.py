"""What a map is to the bridge: layouts for devices, values for layouts, and what writes mean."""

from collections.abc import Mapping

from gateway.bridges.modbus.image import Layout
from gateway.bridges.modbus.settling import Settling
from gateway.core.model import Device, DeviceState, Value


class Family:
    """One register map, for every device it is for. Named in `bridges.<name>.maps`."""

    name: str
    """As it stands in the configuration."""

    def layout(self, device: Device) -> Layout | None:
        """Return where this device's values go; None where the map is not for such a device.

        The same object for devices of one shape: a layout is large. It may change only with the device itself.
        """
        raise NotImplementedError

    def fields(self, state: DeviceState) -> Mapping[str, Value]:  # noqa: ARG002 - there need be none
        """Return what the map shows beside points and the bridge's own fields (fields.py): field → value."""
        return {}

    def controls(self, serial: str) -> Settling | None:  # noqa: ARG002
        """Return the registers that mean something together, of a device that has been laid out.

        None where there are none: then each writable register is a setpoint.
        """
        return None


class FixedFamily(Family):
    """The same layout for every device."""

    def __init__(self, layout: Layout) -> None:
        self.name = layout.map.name
        self._layout = layout

    def layout(self, device: Device) -> Layout:  # noqa: ARG002 - it is for all
        """See `Family.layout`."""
        return self._layout
