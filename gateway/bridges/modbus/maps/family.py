"""What a map is to the bridge: layouts for devices, values for layouts, wishes from writes."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.writes import Wish
from gateway.core.model import Command, CommandEvent, Device, DeviceState, Value


class Family(Protocol):
    """One register map, for every device it is for. Named in `bridges.<name>.maps`."""

    @property
    def name(self) -> str:
        """As it stands in the configuration."""
        ...

    def layout(self, device: Device) -> Layout | None:
        """Return where this device's values go; None where the map is not for such a device.

        The same object for devices of one shape: a layout is large. It may change only with the device itself.
        """
        ...

    def fields(self, state: DeviceState) -> Mapping[str, Value]:
        """Return what the map shows beside points and the bridge's own fields (fields.py): field → value."""
        ...

    def wishes(self, image: Image, address: int, payload: bytes) -> list[Wish]:
        """Return what a write of the registers from `address` on, big-endian in `payload`, asks for.

        May be empty where the map only latches values. Must change nothing where it raises WriteRefusedError.
        """
        ...


@runtime_checkable
class Latching(Protocol):
    """What a family has beside, when it keeps registers as written until a command has made them so."""

    def accepted(self, image: Image, address: int, payload: bytes, ids: Mapping[str, str]) -> None:
        """Take in that all this write asks for was accepted; `ids`: setpoint → its command.

        Steps of these commands may have been noted before.
        """
        ...

    def note(self, event: CommandEvent) -> None:
        """Take in a step of any command, before the device's registers are shown anew."""
        ...

    def done(self, command: Command) -> None:
        """Take in that the far side says a command is done: its value shows, though its end is yet to come."""
        ...
