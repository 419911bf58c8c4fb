"""A map of the user's own: a CSV file with the columns that `sems-gateway registers --format csv` prints."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from gateway.bridges.modbus.codec import NUMBERS, Encoding, WordOrder
from gateway.bridges.modbus.image import Layout
from gateway.bridges.modbus.maps.family import FixedFamily
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.maps.row import INTERNAL_FIELDS, Block, MapError, RegisterMap, Row
from gateway.core import strict
from gateway.core.points import POINTS, SETPOINTS, Type

T = TypeVar("T")

NEEDED: Final = ("address", "type", "scale", "point", "access")
COMMENT: Final = "#"
MAX_REPORTED: Final = 10
LAST_ADDRESS: Final = 65535
LONGEST_TEXT: Final = 125
"""Registers: what one read can bring."""
LIVE: Final = frozenset({"data.age", "gateway.uptime"})
TEXTS: Final = frozenset(
    {row.field for row in NATIVE.rows if row.encoding is Encoding.STRING}
    | {point.id for point in POINTS.values() if point.type is Type.TEXT}
)
"""Fields that are words, not numbers."""
NUMERIC: Final = frozenset({"fault_code"})
"""Those of them that may be a number, and are shown as one where the row is for numbers."""
SCALES: Final[Mapping[str, int]] = {f"{10.0**exponent:g}": exponent for exponent in range(-9, 10)}


class Line(NamedTuple):
    """A row of the file that is in order."""

    number: int
    address: int
    end: int
    row: Row | None
    """None: reserved, reads as 0."""


class BadLineError(ValueError):
    """What is wrong with a line, and what to write."""


class CustomFamily(FixedFamily):
    """One that is read from a file."""

    def __init__(self, path: Path, order: WordOrder) -> None:
        """Read the file. Raises MapError that names each bad line as `file:line`."""
        lines = _read(path)
        super().__init__(layout_of(path.name, lines, order))
        self.lines: Final[Mapping[int, int]] = {line.address: line.number for line in lines}
        """Address of a row → line of the file."""


def _read(path: Path) -> list[Line]:
    """Return the lines by address. Raises MapError."""
    try:
        text = path.read_text("utf-8-sig")  # spreadsheets put a mark in front
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise MapError(f"{path} can't be read ({why}); name a CSV file, made with `registers --format csv`") from error
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in header else ",", strict=True)
    missing = [column for column in NEEDED if column not in (reader.fieldnames or ())]
    if missing:
        raise MapError(f"{path}:1: no column {', '.join(missing)}; the first line names {', '.join(NEEDED)}")
    lines: list[Line] = []
    troubles: list[str] = []
    try:
        for raw in reader:
            cells = {column: (cell or "").strip() for column, cell in raw.items() if isinstance(column, str)}
            if cells["address"].startswith(COMMENT):
                continue
            # `registers` prints what a value is in as `units`, and the device as `unit`; older files have but `unit`.
            cells["unit"] = cells.get("units", cells.get("unit", ""))
            try:
                lines.append(line_of(reader.line_num, cells))
            except BadLineError as error:
                troubles.append(f"{path}:{reader.line_num}: {error}")
    except csv.Error as error:
        troubles.append(f"{path}:{reader.line_num}: this is no CSV ({error}); check the quotes")
    return in_order(path, lines, troubles, empty="there is no row; add one, or leave the map out")


def in_order(source: object, lines: Iterable[Line], troubles: Iterable[str], *, empty: str) -> list[Line]:
    """Return lines by address. Raises MapError: `troubles`, lines that meet, or that there is none."""
    ordered = sorted(lines, key=lambda line: line.address)
    wrong = [*troubles, *_overlaps(source, ordered)]
    if not ordered and not wrong:
        wrong.append(f"{source}: {empty}")
    if wrong:
        more = f"; and {len(wrong) - MAX_REPORTED} more" if len(wrong) > MAX_REPORTED else ""
        raise MapError("; ".join(wrong[:MAX_REPORTED]) + more)
    return ordered


def line_of(number: int, cells: Mapping[str, str]) -> Line:
    """Return a line from its cells, all of them texts. Raises BadLineError."""
    address = _whole("address", cells["address"], 0, LAST_ADDRESS)
    if not cells["point"]:
        count = _whole("count", cells.get("count") or "1", 1, LAST_ADDRESS)
        return Line(number, address, address + count, None)
    encoding = _named("type", cells["type"].lower(), {e.value: e for e in Encoding})
    field = cells["point"]
    fields = {name: name for name in (*POINTS, *sorted(INTERNAL_FIELDS))}
    _named("point", field, fields)
    text = encoding is Encoding.STRING
    if field in TEXTS - NUMERIC and not text:
        raise BadLineError(f"type: {field} is text; write string, and its registers as count")
    row = Row(
        address=address,
        encoding=encoding,
        field=field,
        exponent=0 if text else _exponent(cells["scale"]),
        length=_whole("count", cells.get("count", ""), 1, LONGEST_TEXT) if text else 0,
        writable=_writable(cells["access"].upper(), field, encoding),
        # A point says these itself.
        text="" if field in POINTS else cells.get("description", ""),
        unit="" if field in POINTS else cells.get("unit", ""),
    )
    if row.end > LAST_ADDRESS + 1:
        raise BadLineError(f"address: {field} ends above {LAST_ADDRESS}; move it to {LAST_ADDRESS + 1 - row.count}")
    _check_unit(row, cells.get("unit", ""))
    said = cells.get("count", "")
    if said and row.encoding in NUMBERS and _whole("count", said, 1, LONGEST_TEXT) != row.count:
        raise BadLineError(f"count: {row.encoding} takes {row.count}, not {said}")
    return Line(number, address, row.end, row)


def _writable(access: str, field: str, encoding: Encoding) -> bool:
    if access not in {"R", "RW"}:
        raise BadLineError(f"access: {access!r} is neither R nor RW")
    if access == "RW" and field not in SETPOINTS:
        raise BadLineError(f"access: {field} is no setpoint; write R")
    if access == "RW" and encoding is Encoding.STRING:
        raise BadLineError(f"access: {field} can't be written as text; write R, or a type that is a number")
    return access == "RW"


def _check_unit(row: Row, unit: str) -> None:
    """Refuse a unit other than the point's: nobody would convert it."""
    if row.point and unit and unit != row.point.unit:
        raise BadLineError(
            f"unit: {row.field} is in {row.point.unit or 'no unit'}, not {unit}; change the scale instead"
        )


def _exponent(scale: str) -> int:
    try:
        return SCALES[f"{strict.number(scale or '1'):g}"]
    except (KeyError, ValueError):
        raise BadLineError(f"scale: {scale!r} is no power of ten; write e.g. 0.01, 0.1, 1 or 10") from None


def _whole(column: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise BadLineError(f"{column}: {text!r} is no whole number from {low} to {high}")
    return int(text)


def _named(column: str, word: str, known: Mapping[str, T]) -> T:
    if word in known:
        return known[word]
    near = get_close_matches(word, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "`sems-gateway registers` lists those there are"
    raise BadLineError(f"{column}: there is no {word!r}; {hint}")


def _overlaps(source: object, lines: Sequence[Line]) -> Iterator[str]:
    """Yield a sentence for each two lines, by address, that meet."""
    for line, after in pairwise(lines):
        if line.end > after.address:
            yield (
                f"{source}:{after.number}: {_name(after)} at {after.address} meets {_name(line)} "
                f"at {line.address} to {line.end - 1} (line {line.number}); move one"
            )


def _name(line: Line) -> str:
    return line.row.field if line.row else "what is reserved"


def layout_of(name: str, lines: Sequence[Line], order: WordOrder) -> Layout:
    """Return the layout of lines that are in order."""
    return Layout(RegisterMap(name, tuple(_blocks(lines)), tuple(line.row for line in lines if line.row)), order)


def _blocks(lines: Iterable[Line]) -> Iterator[Block]:
    """Yield a block for rows that follow each other without a gap: they can be read in one request."""
    group: list[Line] = []
    for line in lines:
        if group and group[-1].end != line.address:
            yield _block(group)
            group = []
        group.append(line)
    yield _block(group)


def _block(lines: list[Line]) -> Block:
    rows = [line.row for line in lines if line.row]
    measured = [row for row in rows if row.point is not None and row.field not in SETPOINTS]
    return Block(
        start=lines[0].address,
        count=lines[-1].end - lines[0].address,
        title="Rows",
        gated=bool(measured),
        gates=tuple((row.address, row.end) for row in measured),
        live=any(row.field in LIVE for row in rows),
    )
