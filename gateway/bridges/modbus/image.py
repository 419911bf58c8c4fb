"""A unit's registers as the bytes a read answers with. Encoded when data arrive, so a read is a slice."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from gateway.bridges.modbus.codec import Decoder, Encoder, Encoding, WordOrder, decoder, encoder
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.core.model import Value


class Span(msgspec.Struct, frozen=True):
    """A block, as reads need it."""

    end: int
    """The first address that is no more in it."""
    shift: int
    """Byte of address a in the image: 2 * a + shift."""
    gated: bool
    live: bool


class Slot(NamedTuple):
    """Where one row's bytes go."""

    start: int
    end: int
    encode: Encoder


class Layout:
    """A register map, made ready for encoding and serving. All units of one map share it."""

    def __init__(self, map_: RegisterMap, order: WordOrder) -> None:
        self.map = map_
        self.spans: dict[int, Span] = {}
        """Address → the block it is in."""
        self.slots: dict[str, list[Slot]] = {}
        """Field → where it is shown."""
        self.writable: dict[int, tuple[Row, Decoder]] = {}
        """First address of a writable row → the row, and how to read what is written."""
        self.inside: set[int] = set()
        """The further addresses of writable rows."""
        size = self._add_blocks(map_.blocks)
        blank = bytearray(size)
        for row in map_.rows:
            slot = self._slot(row, order)
            self.slots.setdefault(row.field, []).append(slot)
            if row.encoding is not Encoding.STRING:
                blank[slot.start : slot.end] = slot.encode(_blank(row.field))
            if row.writable:
                self.writable[row.address] = row, decoder(row.encoding, row.exponent, order)
                self.inside.update(range(row.address + 1, row.end))
        self.blank: Final = bytes(blank)
        """The image of a unit of which nothing is known: every row says "not there", the rest is 0."""

    def _add_blocks(self, blocks: tuple[Block, ...]) -> int:
        size = 0
        for block in blocks:
            span = Span(block.end, size - 2 * block.start, block.gated, block.live)
            self.spans.update(dict.fromkeys(range(block.start, block.end), span))
            size += 2 * block.count
        return size

    def _slot(self, row: Row, order: WordOrder) -> Slot:
        start = 2 * row.address + self.spans[row.address].shift
        return Slot(start, start + 2 * row.count, encoder(row.encoding, row.exponent, row.count, order, row.codes))


class Image:
    """The registers of one unit."""

    __slots__ = ("_live", "closed", "data", "layout", "serial")

    def __init__(self, serial: str, layout: Layout, live: Callable[[], Mapping[str, Value]]) -> None:
        self.serial: Final = serial
        self.layout: Final = layout
        self.data = bytearray(layout.blank)
        """All blocks, one after another; `Span.shift` finds an address in it."""
        self.closed = True
        """Gated blocks are not to be read: there are no good data."""
        self._live = live

    def show(self, fields: Mapping[str, Value]) -> None:
        """Encode everything anew. What is not in `fields` is absent."""
        self.data[:] = self.layout.blank
        self._put(fields)

    def refresh(self) -> None:
        """Bring up to date what changes by itself, e.g. the age; called for reads that touch it."""
        self._put(self._live())

    def _put(self, fields: Mapping[str, Value]) -> None:
        slots = self.layout.slots
        data = self.data
        for field, value in fields.items():
            for start, end, encode in slots.get(field, ()):
                data[start:end] = encode(value)


def _blank(field: str) -> Value:
    """Return what a row shows before anything is known. Codes of commands have a 0 for "none yet"."""
    is_command_code = field.startswith("command.") and field.endswith((".state", ".reason", ".count"))
    return 0 if is_command_code else None
