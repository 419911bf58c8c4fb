"""A map of the user's own: a CSV file with the columns that `sems-gateway registers --format csv` prints."""

import csv
import io
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from gateway.bridges.modbus.codec import NUMBERS, Encoding, WordOrder
from gateway.bridges.modbus.image import Image, Layout
from gateway.bridges.modbus.maps.native import NATIVE
from gateway.bridges.modbus.maps.row import INTERNAL_FIELDS, Block, MapError, RegisterMap, Row
from gateway.bridges.modbus.writes import Wish, wishes
from gateway.core.model import Device, DeviceState, Value
from gateway.core.points import POINTS, SETPOINTS, Type

T = TypeVar("T")

NEEDED: Final = ("address", "type", "scale", "point", "access")
COMMENT: Final = "#"
MOST_REPORTED: Final = 10
LAST_ADDRESS: Final = 65535
LONGEST_TEXT: Final = 125
"""Registers: what one read can bring."""
LIVE: Final = frozenset({"data.age", "gateway.uptime"})
TEXTS: Final = frozenset(
    {row.field for row in NATIVE.rows if row.encoding is Encoding.STRING}
    | {point.id for point in POINTS.values() if point.type is Type.TEXT}
)
"""Fields that are words, not numbers."""
SCALES: Final[Mapping[str, int]] = {f"{10.0**exponent:g}": exponent for exponent in range(-9, 10)}


class _Line(NamedTuple):
    """A row of the file that is in order."""

    number: int
    address: int
    end: int
    row: Row | None
    """None: reserved, reads as 0."""


class _BadLineError(ValueError):
    """What is wrong with a line, and what to write."""


class CustomFamily:
    """The same layout for every device, read from a file."""

    def __init__(self, path: Path, order: WordOrder) -> None:
        """Read the file. Raises MapError that names each bad line as `file:line`."""
        self.name: Final = path.name
        lines = _read(path)
        self.lines: Final[Mapping[int, int]] = {line.address: line.number for line in lines}
        """Address of a row → line of the file."""
        self._layout = Layout(
            RegisterMap(path.name, tuple(_blocks(lines)), tuple(x.row for x in lines if x.row)), order
        )

    def layout(self, device: Device) -> Layout:  # noqa: ARG002 - it is for all
        """See `Family.layout`."""
        return self._layout

    def fields(self, state: DeviceState) -> Mapping[str, Value]:  # noqa: ARG002
        """See `Family.fields`."""
        return {}

    def wishes(self, image: Image, address: int, payload: bytes) -> list[Wish]:
        """See `Family.wishes`."""
        return wishes(image.layout, address, payload)


def _read(path: Path) -> list[_Line]:
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
    lines: list[_Line] = []
    troubles: list[str] = []
    try:
        for raw in reader:
            cells = {column: (cell or "").strip() for column, cell in raw.items() if isinstance(column, str)}
            if cells["address"].startswith(COMMENT):
                continue
            try:
                lines.append(_line(reader.line_num, cells))
            except _BadLineError as error:
                troubles.append(f"{path}:{reader.line_num}: {error}")
    except csv.Error as error:
        troubles.append(f"{path}:{reader.line_num}: this is no CSV ({error}); check the quotes")
    lines.sort(key=lambda line: line.address)
    troubles += _overlaps(path, lines)
    if not lines and not troubles:
        troubles.append(f"{path}: there is no row; add one, or leave the map out")
    if troubles:
        more = f"; and {len(troubles) - MOST_REPORTED} more" if len(troubles) > MOST_REPORTED else ""
        raise MapError("; ".join(troubles[:MOST_REPORTED]) + more)
    return lines


def _line(number: int, cells: Mapping[str, str]) -> _Line:
    """Take one line in. Raises _BadLineError."""
    address = _whole("address", cells["address"], 0, LAST_ADDRESS)
    if not cells["point"]:
        count = _whole("count", cells.get("count") or "1", 1, LAST_ADDRESS)
        return _Line(number, address, address + count, None)
    encoding = _named("type", cells["type"].lower(), {e.value: e for e in Encoding})
    field = cells["point"]
    fields = {name: name for name in (*POINTS, *sorted(INTERNAL_FIELDS))}
    _named("point", field, fields)
    text = encoding is Encoding.STRING
    if (field in TEXTS) and not text:
        raise _BadLineError(f"type: {field} is text; write string, and its registers as count")
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
        raise _BadLineError(f"address: {field} ends above {LAST_ADDRESS}; move it to {LAST_ADDRESS + 1 - row.count}")
    _check_unit(row, cells.get("unit", ""))
    _check_count(row, cells.get("count", ""))
    return _Line(number, address, row.end, row)


def _writable(access: str, field: str, encoding: Encoding) -> bool:
    if access not in {"R", "RW"}:
        raise _BadLineError(f"access: {access!r} is neither R nor RW")
    if access == "RW" and field not in SETPOINTS:
        raise _BadLineError(f"access: {field} is no setpoint; write R")
    if access == "RW" and encoding is Encoding.STRING:
        raise _BadLineError(f"access: {field} can't be written as text; write R, or a type that is a number")
    return access == "RW"


def _check_unit(row: Row, unit: str) -> None:
    """Refuse a unit other than the point's: nobody would convert it."""
    if row.point and unit and unit != row.point.unit:
        raise _BadLineError(
            f"unit: {row.field} is in {row.point.unit or 'no unit'}, not {unit}; change the scale instead"
        )


def _check_count(row: Row, count: str) -> None:
    if count and row.encoding in NUMBERS and _whole("count", count, 1, LONGEST_TEXT) != row.count:
        raise _BadLineError(f"count: {row.encoding} takes {row.count}, not {count}")


def _exponent(scale: str) -> int:
    try:
        return SCALES[f"{float(scale or 1):g}"]
    except (KeyError, ValueError):
        raise _BadLineError(f"scale: {scale!r} is no power of ten; write e.g. 0.01, 0.1, 1 or 10") from None


def _whole(column: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise _BadLineError(f"{column}: {text!r} is no whole number from {low} to {high}")
    return int(text)


def _named(column: str, word: str, known: Mapping[str, T]) -> T:
    if word in known:
        return known[word]
    near = get_close_matches(word, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else "`sems-gateway registers` lists those there are"
    raise _BadLineError(f"{column}: there is no {word!r}; {hint}")


def _overlaps(path: Path, lines: list[_Line]) -> Iterator[str]:
    for line, after in pairwise(lines):
        if line.end > after.address:
            yield (
                f"{path}:{after.number}: {_name(after)} at {after.address} meets {_name(line)} "
                f"at {line.address} to {line.end - 1} (line {line.number}); move one"
            )


def _name(line: _Line) -> str:
    return line.row.field if line.row else "what is reserved"


def _blocks(lines: list[_Line]) -> Iterator[Block]:
    """Yield a block for rows that follow each other without a gap: they can be read in one request."""
    group: list[_Line] = []
    for line in lines:
        if group and group[-1].end != line.address:
            yield _block(group)
            group = []
        group.append(line)
    yield _block(group)


def _block(lines: list[_Line]) -> Block:
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
