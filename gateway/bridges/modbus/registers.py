"""The register map for people and their tools, made of the rows that the server serves."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.bridges.modbus.codec import NUMBERS, Encoding
from gateway.bridges.modbus.codes import legend
from gateway.bridges.modbus.gateway_unit import GATEWAY
from gateway.bridges.modbus.maps.chosen import build, tables
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.maps.row import RegisterMap, Row
from gateway.bridges.modbus.settings import ModbusSettings
from gateway.bridges.modbus.units import Place, UnitBook, units_path
from gateway.core.points import Type


class Format(StrEnum):
    """How the map may be printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"


class Register(msgspec.Struct, frozen=True):
    """A line of the documentation. The fields are its columns."""

    address: int
    """0-based, as on the wire."""
    holding: int
    """The same in the 4xxxx notation of FC3; FC4 has 3xxxx."""
    count: int
    type: str
    scale: str
    """A register's number times this is the value in `unit`; empty for text."""
    unit: str
    access: str
    """R or RW."""
    point: str
    absent: str
    """What is read when there is no value."""
    description: str
    map: str


COLUMNS: Final = Register.__struct_fields__
_ADDRESS: Final = COLUMNS.index("address")


class Document(NamedTuple):
    """What is to be rendered."""

    units: Mapping[str, int]
    ports: Mapping[str, int]
    maps: Sequence[RegisterMap]


def registers(*maps: RegisterMap) -> list[Register]:
    """Return the lines of maps, each in the order of addresses; without any, of the native one."""
    return [
        _register(map_.name, row)
        for map_ in maps or (NATIVE,)
        for row in sorted(map_.rows, key=lambda row: row.address)
    ]


def cells(*maps: RegisterMap) -> list[list[str]]:
    """Return maps as text: the header, then a line each; without any, the native one."""
    lines = [[str(cell) for cell in msgspec.structs.astuple(register)] for register in registers(*maps)]
    return [list(COLUMNS), *lines]


def render(
    format_: Format,
    units: Mapping[str, int] | None = None,
    ports: Mapping[str, int] | None = None,
    maps: Sequence[RegisterMap] = (NATIVE,),
) -> str:
    """Return maps as text in that format.

    `units` (serial → unit), and `ports` (serial → port) where there are several, come along where it has a place.
    """
    return _RENDERERS[format_](Document(units or {}, ports or {}, maps))


def configured(settings: ModbusSettings) -> list[RegisterMap]:
    """Return every map that a bridge with these settings serves, that of the gateway itself last."""
    return [*tables(build(settings.maps, settings.word_order)), GATEWAY]


def assigned(data_dir: Path, bridge: str, settings: ModbusSettings) -> Mapping[str, Place]:
    """Return serial → place as the bridge of that name has given them so far, pins included.

    Raises UnitsError, an OSError that says what to do.
    """
    return dict(UnitBook(units_path(data_dir, bridge), settings.pins, settings.ports).load())


def assigned_units(data_dir: Path, bridge: str, settings: ModbusSettings) -> dict[str, int]:
    """Return serial → unit; see `assigned`."""
    return {serial: place.unit for serial, place in assigned(data_dir, bridge, settings).items()}


def assigned_ports(data_dir: Path, bridge: str, settings: ModbusSettings) -> dict[str, int]:
    """Return serial → port; empty where the bridge has but one. See `assigned`."""
    if settings.ports == 1:
        return {}
    return {serial: settings.port + place.nth for serial, place in assigned(data_dir, bridge, settings).items()}


def _register(map_: str, row: Row) -> Register:
    text = row.encoding is Encoding.STRING
    return Register(
        address=row.address,
        holding=40001 + row.address,
        count=row.count,
        type=row.encoding,
        scale="" if text else f"{10.0**row.exponent:g}",
        unit=row.point.unit if row.point else row.unit,
        access="RW" if row.writable else "R",
        point=row.field,
        absent="" if text else NUMBERS[row.encoding].absent_text,
        description=_description(row),
        map=map_,
    )


def _description(row: Row) -> str:
    text = row.text or (row.point.description if row.point else "")
    if row.codes:
        text += f": {legend(row.codes)}"
    elif row.point and row.point.type is Type.BOOLEAN:
        text += ": 0 no, 1 yes"
    return text


def _csv(document: Document) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(cells(*document.maps))
    return out.getvalue()


def _json(document: Document) -> str:
    whole = {
        "maps": [map_.name for map_ in document.maps],
        "units": dict(document.units),
        **({"ports": dict(document.ports)} if document.ports else {}),
        "registers": registers(*document.maps),
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def _markdown(document: Document) -> str:
    parts = []
    if document.units:
        parts += [_table(places(document.units, document.ports))]
    for map_ in document.maps:
        header, *by_address = cells(map_)
        for block in map_.blocks:
            inside = [line for line in by_address if block.start <= int(line[_ADDRESS]) < block.end]
            parts += [f"### {block.title} ({block.start} to {block.end - 1})", _table([header, *inside])]
    return "\n\n".join(parts) + "\n"


def places(units: Mapping[str, int], ports: Mapping[str, int]) -> list[list[str]]:
    """Return which device is where, as text: the header, then a line each."""
    where = sorted((ports.get(serial, 0), unit, serial) for serial, unit in units.items())
    if not ports:
        return [["unit", "device"], *([str(unit), serial] for _, unit, serial in where)]
    return [["port", "unit", "device"], *([str(port), str(unit), serial] for port, unit, serial in where)]


def _table(lines: list[list[str]]) -> str:
    header, *rest = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rest))


def _plain(document: Document) -> str:
    lines = cells(*document.maps)
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


_RENDERERS: Final[Mapping[Format, Callable[[Document], str]]] = {
    Format.TABLE: _plain,
    Format.CSV: _csv,
    Format.JSON: _json,
    Format.MARKDOWN: _markdown,
}
