"""The register map for people and their tools, made of the rows that the server serves."""

import csv
import io
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.bridges.modbus.codec import NUMBERS, Encoding
from gateway.bridges.modbus.codes import legend
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.maps.row import RegisterMap, Row
from gateway.bridges.modbus.units import UnitBook, units_path
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


COLUMNS: Final = Register.__struct_fields__


def registers(map_: RegisterMap = NATIVE) -> list[Register]:
    """Return the lines of a map, in the order of addresses."""
    return [_register(row) for row in sorted(map_.rows, key=lambda row: row.address)]


def cells(map_: RegisterMap = NATIVE) -> list[list[str]]:
    """Return the map as text: the header, then a line each."""
    lines = [[str(cell) for cell in msgspec.structs.astuple(register)] for register in registers(map_)]
    return [list(COLUMNS), *lines]


def render(format_: Format, units: Mapping[str, int] | None = None) -> str:
    """Return the map as text in that format; `units` (serial → unit) come along where it has a place for them."""
    return _RENDERERS[format_](units or {})


def assigned_units(data_dir: Path, bridge: str, settings: Any) -> dict[str, int]:
    """Return serial → unit as the bridge of that name has given them so far, pins included.

    `settings` are the bridge's ModbusSettings. Raises UnitsError, an OSError that says what to do.
    """
    return dict(UnitBook(units_path(data_dir, bridge), settings.units).load())


def _register(row: Row) -> Register:
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
    )


def _description(row: Row) -> str:
    text = row.text or (row.point.description if row.point else "")
    if row.codes:
        text += f": {legend(row.codes)}"
    elif row.point and row.point.type is Type.BOOLEAN:
        text += ": 0 no, 1 yes"
    return text


def _csv(_units: Mapping[str, int]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(cells())
    return out.getvalue()


def _json(units: Mapping[str, int]) -> str:
    whole = {"map": NATIVE.name, "units": dict(units), "registers": registers()}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def _markdown(units: Mapping[str, int]) -> str:
    parts = []
    if units:
        parts += [_table([["unit", "device"], *([str(unit), serial] for serial, unit in units.items())])]
    by_address = cells()
    for block in NATIVE.blocks:
        inside = [line for line in by_address[1:] if block.start <= int(line[0]) < block.end]
        parts += [f"### {block.title} ({block.start} to {block.end - 1})", _table([by_address[0], *inside])]
    return "\n\n".join(parts) + "\n"


def _table(lines: list[list[str]]) -> str:
    header, *rest = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rest))


def _plain(_units: Mapping[str, int]) -> str:
    lines = cells()
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


_RENDERERS: Final[Mapping[Format, Callable[[Mapping[str, int]], str]]] = {
    Format.TABLE: _plain,
    Format.CSV: _csv,
    Format.JSON: _json,
    Format.MARKDOWN: _markdown,
}
