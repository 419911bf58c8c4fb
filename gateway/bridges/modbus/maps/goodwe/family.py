"""The map as the bridge uses it."""

from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.goodwe.control import asks, written
from gateway.bridges.modbus.maps.goodwe.panel import Panel
from gateway.bridges.modbus.maps.goodwe.registers import SETTINGS
from gateway.bridges.modbus.maps.goodwe.rows import GOODWE, OWN
from gateway.bridges.modbus.maps.goodwe.values import values
from gateway.bridges.modbus.writes import Wish
from gateway.core.model import Command, CommandEvent, Device, DeviceKind, DeviceState, Value

KINDS: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE)


class GoodweFamily:
    """One layout for all inverters; remembers what was written to each."""

    name: Final = GOODWE.name

    def __init__(self, order: WordOrder) -> None:  # noqa: ARG002 - the real inverter has but one
        self._layout = Layout(GOODWE, WordOrder.ABCD)
        self._panels: dict[str, Panel] = {}

    def layout(self, device: Device) -> Layout | None:
        """See `Family.layout`."""
        return self._layout if device.kind in KINDS else None

    def fields(self, state: DeviceState) -> Mapping[str, Value]:
        """See `Family.fields`."""
        panel = self._panel(state.device.serial)
        panel.learn(state)
        return {**values(state), **_settings(panel)}

    def wishes(self, image: Image, address: int, payload: bytes) -> list[Wish]:
        """See `Family.wishes`."""
        return asks(self._panel(image.serial), written(address, payload))

    def accepted(self, image: Image, address: int, payload: bytes, ids: Mapping[str, str]) -> None:  # noqa: ARG002
        """See `Latching.accepted`."""
        panel = self._panel(image.serial)
        panel.keep(written(address, payload))
        image.amend(_settings(panel))

    def note(self, event: CommandEvent) -> None:
        """See `Latching.note`."""
        panel = self._panels.get(event.command.serial)
        if panel is not None:
            panel.note(event)

    def done(self, command: Command) -> None:
        """See `Latching.done`: what was written stands until it is lost, so there is nothing to let go."""

    def _panel(self, serial: str) -> Panel:
        return self._panels.setdefault(serial, Panel())


def _settings(panel: Panel) -> dict[str, Value]:
    """Return field → number in its unit, for the settings that say something."""
    return {
        OWN + SETTINGS[register].name: word * 10 ** SETTINGS[register].exponent
        for register, word in panel.words.items()
    }
