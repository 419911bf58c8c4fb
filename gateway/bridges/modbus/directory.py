"""The directory of a port's units, in units 0 and 255 beside the gateway itself. Read only.

The entry of a unit is where its number says, so a PLC needs no search: DIRECTORY + 10 + 40 * (unit - 1). Each port has
the directory of its own units, and says how many ports there are.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final, NamedTuple

from gateway.bridges.modbus.codec import Encoding, WordOrder
from gateway.bridges.modbus.codes import KINDS, QUALITIES, legend
from gateway.bridges.modbus.fields import COUNTER
from gateway.bridges.modbus.gateway_unit import GATEWAY
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.bridges.modbus.units import LAST_UNIT
from gateway.core.clock import Clock
from gateway.core.model import DeviceState, Value

DIRECTORY: Final = 1000
ENTRIES: Final = DIRECTORY + 10
ENTRY: Final = 40
"""Registers of an entry: three of them are one read."""


class Entry(NamedTuple):
    """One unit of the port."""

    unit: int
    state: DeviceState
    plant_port: int | None
    plant_unit: int | None


class Ports(NamedTuple):
    """What is said of the bridge's own range of ports."""

    this: int
    first: int
    ports: int


UINT16, UINT32, STRING = Encoding.UINT16, Encoding.UINT32, Encoding.STRING


def _entry(unit: int) -> list[Row]:
    """Return the rows of one unit. The columns of docs/reference, too: see `SHOWN`."""
    at, name = ENTRIES + ENTRY * (unit - 1), f"gateway.unit.{unit}"
    return [
        Row(at, UINT16, f"{name}.port", "Port where the device is"),
        Row(at + 1, UINT16, f"{name}.unit", "Its unit; 0 where this unit has no device"),
        Row(at + 2, UINT16, f"{name}.kind", f"Its kind: {legend(KINDS)}"),
        Row(at + 3, UINT16, f"{name}.quality", f"Quality of its data: {legend(QUALITIES)}"),
        Row(at + 4, UINT16, f"{name}.plant_port", "Port of the plant it belongs to"),
        Row(at + 5, UINT16, f"{name}.plant_unit", "Unit of that plant; a plant has its own here"),
        Row(at + 6, STRING, f"{name}.serial", "Serial number", length=18),
        Row(at + 24, STRING, f"{name}.name", "Name", length=16),
    ]


_OWN: Final = "gateway.directory"
_HEAD: Final = (
    Row(DIRECTORY, UINT16, f"{_OWN}.devices", "Devices on this port"),
    Row(DIRECTORY + 1, UINT16, f"{_OWN}.last_unit", "The highest unit that has a device; 0 for none"),
    Row(DIRECTORY + 2, UINT16, f"{_OWN}.port", "This port, of the bridge's own range"),
    Row(DIRECTORY + 3, UINT16, f"{_OWN}.first_port", "The first port of the range"),
    Row(DIRECTORY + 4, UINT16, f"{_OWN}.ports", "Ports of the range; each has a directory of its own"),
    Row(DIRECTORY + 6, UINT32, f"{_OWN}.changes", "Counts up when an entry changes, but for its quality"),
)
_TITLE: Final = "Directory of this port's units: units 0 and 255"


def directory(*units: int) -> RegisterMap:
    """Return the map with the entries of these units, in ascending order."""
    rows = [row for unit in units for row in _entry(unit)]
    end = rows[-1].end if rows else ENTRIES
    block = Block(start=DIRECTORY, count=end - DIRECTORY, title=_TITLE, live=True)
    return RegisterMap(GATEWAY.name, (block,), (*_HEAD, *rows))


SHOWN: Final = directory(1)
"""For people: the head, and the first entry."""


@cache
def layout_of(order: WordOrder) -> Layout:
    """Return the layout of all units: two thousand rows, so it is made once."""
    return Layout(directory(*range(1, LAST_UNIT + 1)), order)


def image_of(
    order: WordOrder, clock: Clock, ports: Callable[[], Ports], entries: Callable[[], Iterable[Entry]]
) -> Image:
    """Return the directory of one port. Brought up to date by reads, at most once a second."""
    image = Image("", layout_of(order), _News(clock, ports, entries))
    image.closed = False
    return image


class _News:
    """What has changed in one directory."""

    def __init__(self, clock: Clock, ports: Callable[[], Ports], entries: Callable[[], Iterable[Entry]]) -> None:
        self._clock = clock
        self._ports = ports
        self._entries = entries
        self._looked = -1
        self._lines: dict[int, tuple[Value, ...]] = {}
        self._changes = 0

    def __call__(self) -> Mapping[str, Value]:
        second = int(self._clock.monotonic())
        if second == self._looked:
            return {}
        self._looked = second
        ports = self._ports()
        entries = {entry.unit: entry for entry in self._entries()}
        lines: dict[int, tuple[Value, ...]] = {}
        news: dict[str, Value] = {}
        for unit in range(1, LAST_UNIT + 1):
            entry = entries.get(unit)
            prefix = f"gateway.unit.{unit}"
            if entry is None:
                if unit in self._lines or self._changes == 0:
                    news |= {f"{prefix}.{name}": None for name in _NAMES} | {f"{prefix}.unit": 0}
                continue
            device = entry.state.device
            kind = KINDS[device.kind]
            line = (ports.this, unit, kind, entry.plant_port, entry.plant_unit, device.serial, device.name)
            lines[unit] = line
            news |= zip((f"{prefix}.{name}" for name in _LINE), line, strict=True)
            news[f"{prefix}.quality"] = QUALITIES[entry.state.quality]
        if lines != self._lines or self._changes == 0:
            self._changes = (self._changes + 1) % COUNTER
            self._lines = lines
        return news | {
            "gateway.directory.devices": len(lines),
            "gateway.directory.last_unit": max(lines, default=0),
            "gateway.directory.port": ports.this,
            "gateway.directory.first_port": ports.first,
            "gateway.directory.ports": ports.ports,
            "gateway.directory.changes": self._changes,
        }


_LINE: Final = ("port", "unit", "kind", "plant_port", "plant_unit", "serial", "name")
_NAMES: Final = (*_LINE, "quality")
