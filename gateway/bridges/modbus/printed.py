"""The registers that are served, a line each, for people and their tools: read from the layouts that devices have."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from gateway.bridges.modbus.directory import directory
from gateway.bridges.modbus.gateway_unit import GATEWAY
from gateway.bridges.modbus.image import Layout
from gateway.bridges.modbus.maps.chosen import SAMPLES, build
from gateway.bridges.modbus.maps.family import Family
from gateway.bridges.modbus.plants import with_plants
from gateway.bridges.modbus.registers import COLUMNS, Line, cells, registers, table
from gateway.bridges.modbus.settings import ModbusSettings
from gateway.bridges.modbus.units import Place
from gateway.config.document import nearest
from gateway.core.model import Device
from gateway.core.text import shortened

SAMPLE: Final = "sample"
"""Stands for the serial number where a device is not known: what is printed is that of one of 10 kW."""
OWN_UNIT: Final = 255


SHORT: Final = ("unit", "address", "type", "scale", "units", "access", "point")
"""What a client needs, and fits into 80 columns of a terminal with the names of all points told apart."""
MAX_CELL: Final = 34
"""Characters of a cell of the short form."""


class Filter(msgspec.Struct, frozen=True):
    """Which lines are wanted; "" and None: all."""

    unit: int | None = None
    device: str = ""
    map: str = ""

    def takes(self, line: Line) -> bool:
        """Return whether it is one of them. A device may be named by its serial number or its name."""
        return (
            (self.unit is None or line.unit == self.unit)
            and (not self.device or self.device in (line.serial, line.name))
            and (not self.map or self.map == line.map)
        )

    def why_none(self, lines: Iterable[Line]) -> str:
        """Return which of what is wanted none of all lines has, and what there is instead."""
        places = list(dict.fromkeys((line.serial, line.name, line.unit, line.map) for line in lines))
        among = "here"
        for what, wanted, columns in (
            ("device", self.device, (0, 1)), ("unit", self.unit, (2,)), ("map", self.map, (3,)),
        ):  # fmt: skip
            if wanted in (None, ""):
                continue
            found = [place for place in places if wanted in [place[column] for column in columns]]
            if not found:
                known = dict.fromkeys(str(place[c]) for c in columns for place in places if place[c] not in (None, ""))
                return f"--{what} {wanted}: there is no such {what} {among}; {nearest(str(wanted), list(known))}"
            places, among = found, f"with {what} {wanted}"
        return "no register is served"


def served(
    bridge: str, settings: ModbusSettings, places: Mapping[str, Place], devices: Mapping[str, Device], gateway_id: str
) -> Iterator[Line]:
    """Yield every register of a bridge, by port, unit and address.

    `devices` are those that a running gateway knows, by serial number. A unit whose device is not among them has the
    maps that are the same for all; of the others there are samples, marked as such.
    """
    families = build(settings.maps, settings.word_order)
    devices = with_plants(devices.values())
    fixed = {family.name: layout for family in families if (layout := _same_for_all(family)) is not None}
    unknown = False
    for serial, place in sorted(places.items(), key=lambda pair: pair[1]):
        device = devices.get(serial)
        who = (bridge, settings.port and settings.port + place.nth, place.unit, serial)
        unknown = unknown or device is None
        for family in families:
            layout = fixed.get(family.name) if device is None else family.layout(device)
            if layout is not None:
                yield from _lines(*who, device.name if device else "", device.kind if device else "", layout)
    if unknown or not places:
        for device in SAMPLES:
            for family in families:
                layout = family.layout(device)
                if layout is not None and (family.name not in fixed or not places):
                    name = f"{SAMPLE} of 10 kW"
                    yield from _lines(bridge, settings.port, None, SAMPLE, name, device.kind, layout)
    for nth in range(1 + max((place.nth for place in places.values()), default=0)):
        here = sorted(place.unit for place in places.values() if place.nth == nth)
        port = settings.port and settings.port + nth
        for map_ in (GATEWAY, directory(*here)):
            yield from _lines(bridge, port, OWN_UNIT, "", gateway_id, "gateway", Layout(map_, settings.word_order))


def _same_for_all(family: Family) -> Layout | None:
    """Return a map's layout where it has but one, for every kind of device."""
    layouts = [family.layout(device) for device in SAMPLES]
    return layouts[0] if all(layout is layouts[0] for layout in layouts) else None


def _lines(bridge: str, port: int, unit: int | None, serial: str, name: str, kind: str, layout: Layout) -> list[Line]:
    order = layout.order.value
    return registers(
        layout.map, bridge=bridge, port=port or None, unit=unit, serial=serial, name=name, kind=kind, word_order=order
    )


def _csv(lines: Sequence[Line], columns: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(cells(lines, columns))
    return out.getvalue()


def _json(lines: Sequence[Line], columns: Sequence[str]) -> str:
    rows = [{column: getattr(line, column) for column in columns} for line in lines]
    return msgspec.json.format(msgspec.json.encode({"registers": rows}), indent=2).decode() + "\n"


def _table(lines: Sequence[Line], columns: Sequence[str]) -> str:
    rows = cells(lines, columns)
    if len(columns) < len(COLUMNS):
        rows = [[shortened(cell, MAX_CELL) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


PRINTERS: Final[Mapping[str, Callable[[Sequence[Line], Sequence[str]], str]]] = {
    "table": _table,
    "csv": _csv,
    "json": _json,
    "markdown": table,
}
"""Format → what makes text of lines, with these columns."""
