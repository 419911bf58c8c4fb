"""The register map for people and their tools, made of the rows that the server serves."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.bridges.modbus.codec import NUMBERS, Encoding
from gateway.bridges.modbus.codes import legend
from gateway.bridges.modbus.maps.native import NATIVE, OWN
from gateway.bridges.modbus.maps.row import RegisterMap, Row
from gateway.bridges.modbus.settings import MAX_PORTS, ModbusSettings
from gateway.bridges.modbus.units import Place, UnitBook, units_path
from gateway.core.points import Type


class Format(StrEnum):
    """How the map may be printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    KEPWARE = "kepware"
    IGNITION = "ignition"
    TELEGRAF = "telegraf"
    NODE_RED = "node-red"
    HOME_ASSISTANT = "home-assistant"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One register, of one unit where that is known. The fields are the columns."""

    bridge: str = ""
    port: int | None = None
    """None where that is any free one (`port: 0`)."""
    unit: int | None = None
    """None for a sample."""
    serial: str = ""
    name: str = ""
    kind: str = ""
    map: str
    address: int
    """0-based, as on the wire."""
    holding: int
    """The same in the 4xxxx notation of FC3, with six digits above 49999; FC4 has 3xxxx."""
    count: int
    type: str
    scale: str
    """A register's number times this is the value in `units`; empty for text."""
    units: str
    access: str
    """R or RW."""
    point: str
    absent: str
    """What is read when there is no value."""
    description: str
    word_order: str = ""


FIVE_DIGITS: Final = 9999
"""Addresses that five digits have room for."""
COLUMNS: Final = Line.__struct_fields__
OF_A_MAP: Final = (
    "address", "holding", "count", "type", "scale", "units", "access", "point", "absent", "description", "map",
)  # fmt: skip
"""The columns of docs/reference."""


def registers(*maps: RegisterMap, **who: Any) -> list[Line]:
    """Return the lines of maps, each in the order of addresses; without any, of the native one. `who`: whose."""
    return [
        _line(map_.name, row, who)
        for map_ in maps or (NATIVE,)
        for row in sorted(map_.rows, key=lambda row: row.address)
    ]


def cells(lines: Iterable[Line], columns: Sequence[str] = COLUMNS) -> list[list[str]]:
    """Return lines as text: one header, then a line each."""
    return [list(columns), *([_cell(getattr(line, column)) for column in columns] for line in lines)]


def table(lines: Iterable[Line], columns: Sequence[str]) -> str:
    """Return lines as a table of Markdown."""
    header, *rest = ([cell.replace("|", "\\|") for cell in row] for row in cells(lines, columns))
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rest))


def markdown(*maps: RegisterMap) -> str:
    """Return maps as the tables of docs/reference, one for each block; without any, the native one."""
    parts = []
    for map_ in maps or (NATIVE,):
        lines = registers(map_)
        for block in map_.blocks:
            inside = [line for line in lines if block.start <= line.address < block.end]
            parts.append(f"### {block.title} ({block.start} to {block.end - 1})\n\n{table(inside, OF_A_MAP)}")
    return "\n".join(parts)


def assigned(data_dir: Path, bridge: str, settings: ModbusSettings) -> Mapping[str, Place]:
    """Return serial → place as the bridge of that name has given them so far, pins included.

    Raises UnitsError, an OSError that says what to do.
    """
    return dict(UnitBook(units_path(data_dir, bridge), settings.pins, settings.ports or MAX_PORTS).load())


def _line(map_: str, row: Row, who: Mapping[str, Any]) -> Line:
    text = row.encoding is Encoding.STRING
    return Line(
        map=map_,
        address=row.address,
        holding=holding(row.address),
        count=row.count,
        type=row.encoding,
        scale="" if text else f"{10.0**row.exponent:g}",
        units=row.point.unit if row.point else row.unit,
        access="RW" if row.writable else "R",
        point=row.field.removeprefix(OWN),
        absent="" if text else NUMBERS[row.encoding].absent_text,
        description=_description(row),
        **who,
    )


def holding(address: int) -> int:
    """Return an address in the 4xxxx notation: 40001 to 49999, and with six digits what is above."""
    return address + (40_001 if address < FIVE_DIGITS else 400_001)


def _description(row: Row) -> str:
    text = row.text or (row.point.description if row.point else "")
    if row.nullable:
        text += f"; none: {NUMBERS[row.encoding].none_text}"
    elif row.codes:
        text += f": {legend(row.codes)}"
    elif row.point and row.point.type is Type.BOOLEAN:
        text += ": 0 no, 1 yes"
    return text


def _cell(value: object) -> str:
    return "" if value is None else str(value)
