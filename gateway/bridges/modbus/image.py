"""A unit's registers as the bytes a read answers with. Encoded when data arrive, so a read is a slice."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from gateway.bridges.modbus.codec import Decoder, Encoder, Encoding, WordOrder, decoder, encoder
from gateway.bridges.modbus.codes import ExceptionCode, ExceptionResponseError
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.bridges.modbus.settling import Settling
from gateway.core.model import Origin, Value

_NOTHING: Final = object()
NEAR: Final = 123
"""Registers between two blocks that can be read across, so that every read that begins and ends in blocks is
answered: the longest is of 125. Clients join what lies near, Telegraf for one what is up to 50 registers apart."""


class Span(msgspec.Struct, frozen=True):
    """A block, as reads need it."""

    end: int
    """The first address that is no more in it."""
    shift: int
    """Byte of address a in the image: 2 * a + shift."""
    gated: bool
    live: bool
    gates: tuple[tuple[int, int], ...] = ()

    def shut(self, address: int, count: int) -> bool:
        """Return whether a read of these registers touches measurements, in a gated block."""
        return not self.gates or any(address < end and start < address + count for start, end in self.gates)


class Part(NamedTuple):
    """What a read brings of one block."""

    image: "Image"
    span: Span
    start: int
    end: int
    """Addresses."""


class Plan:
    """How a read that came before is answered. Part of a `Unit`, and valid as long as that is."""

    __slots__ = ("end", "gated", "head", "image", "live", "start")

    def __init__(self, head: bytes, image: "Image", start: int, end: int, gated: bool, live: bool) -> None:
        self.head: Final = head
        """Of the answer, from the protocol id to the byte count."""
        self.image: Final = image
        self.start: Final = start
        self.end: Final = end
        """Bytes of the image."""
        self.gated: Final = gated
        self.live: Final = live


class Slot(NamedTuple):
    """Where one row's bytes go."""

    start: int
    end: int
    encode: Encoder


class Layout:
    """A register map, made ready for encoding and serving. All units of one map share it."""

    def __init__(self, map_: RegisterMap, order: WordOrder) -> None:
        self.map = map_
        self.order = order
        self.spans: dict[int, Span] = {}
        """Address → the block it is in."""
        self.slots: dict[str, list[Slot]] = {}
        """Field → where it is shown."""
        self.writable: dict[int, tuple[Row, Decoder]] = {}
        """First address of a writable row → the row, and how to read what is written."""
        self.inside: set[int] = set()
        """The further addresses of writable rows."""
        self.measured: set[int] = set()
        """Addresses of measurements and states, which can't be set."""
        size = self._add_blocks(map_.blocks)
        blank = bytearray(size)
        for row in map_.rows:
            start = 2 * row.address + self.spans[row.address].shift
            encode = encoder(row.encoding, row.exponent, row.count, order, row.codes)
            slot = Slot(start, start + 2 * row.count, encode)
            self.slots.setdefault(row.field, []).append(slot)
            if row.constant is not None:
                blank[slot.start : slot.end] = slot.encode(row.constant)
            elif row.encoding is not Encoding.STRING:
                blank[slot.start : slot.end] = slot.encode(_blank(row.field))
            if row.constant is None and not row.is_setting and not row.writable:
                self.measured.update(range(row.address, row.end))
            if row.writable:
                decode = decoder(row.encoding, row.exponent, order, nullable=row.nullable, absent=not row.any_number)
                self.writable[row.address] = row, decode
                self.inside.update(range(row.address + 1, row.end))
        self.blank: Final = bytes(blank)
        """The image of a unit of which nothing is known: every row says "not there", the rest is 0."""

    def _add_blocks(self, blocks: tuple[Block, ...]) -> int:
        size = 0
        for block in blocks:
            span = Span(block.end, size - 2 * block.start, block.gated, block.live, block.gates)
            self.spans.update(dict.fromkeys(range(block.start, block.end), span))
            size += 2 * block.count
        return size


Act = Callable[[int, bytes, Origin], Awaitable[None]]
"""Takes an address, what is written from there on, and by whom. Raises WriteRefusedError."""


class Image:
    """The registers of one map of one unit."""

    __slots__ = ("_live", "_shown", "act", "closed", "controls", "data", "layout", "serial")

    def __init__(
        self,
        serial: str,
        layout: Layout,
        live: Callable[[], Mapping[str, Value]],
        controls: Settling | None = None,
        act: Act | None = None,
    ) -> None:
        self.serial: Final = serial
        self.layout: Final = layout
        self.controls: Final = controls
        """Its registers that mean something together; None: each that is writable is a setpoint."""
        self.act: Final = act
        """What does at once what a write asks for; None: a write is a command."""
        self.data = bytearray(layout.blank)
        """All blocks, one after another; `Span.shift` finds an address in it."""
        self.closed = True
        """Gated blocks are not to be read: there are no good data."""
        self._live = live
        self._shown: dict[str, Value] = {}
        """What `data` shows now, so that only what has changed is encoded."""

    def show(self, fields: Mapping[str, Value]) -> None:
        """Bring everything up to date. What is not in `fields` is absent."""
        self._put(fields)
        if len(self._shown) > len(fields):
            self._blank(self._shown.keys() - fields.keys())

    def amend(self, fields: Mapping[str, Value]) -> None:
        """Bring these up to date; the rest stays."""
        self._put(fields)

    def refresh(self) -> None:
        """Bring up to date what changes by itself, e.g. the age; called for reads that touch it."""
        self._put(self._live())

    def _put(self, fields: Mapping[str, Value]) -> None:
        shown, slots, data = self._shown, self.layout.slots, self.data
        for field, value in fields.items():
            known = shown.get(field, _NOTHING)
            # 1, 1.0 and True are equal, and differ as text.
            if known == value and type(known) is type(value):
                continue
            shown[field] = value
            for start, end, encode in slots.get(field, ()):
                data[start:end] = encode(value)

    def _blank(self, fields: Iterable[str]) -> None:
        for field in fields:
            del self._shown[field]
            for start, end, _ in self.layout.slots.get(field, ()):
                self.data[start:end] = self.layout.blank[start:end]


class Unit:
    """What one unit id answers: one image a map. The maps' addresses don't meet."""

    __slots__ = ("images", "plans", "serial")

    def __init__(self, serial: str, images: Sequence[Image]) -> None:
        self.serial: Final = serial
        self.images: Final = tuple(images)
        self.plans: Final[dict[bytes, Plan]] = {}
        """Read requests but for their transaction id → how to answer. Kept by connection.py."""

    def find(self, address: int) -> tuple[Image, Span] | None:
        """Return the image and the block that an address is in."""
        for image in self.images:
            span = image.layout.spans.get(address)
            if span is not None:
                return image, span
        return None

    def parts(self, address: int, count: int) -> list[Part] | None:
        """Return what a read of these registers touches, in order; what lies between reads as 0.

        None where it touches no block, or a register is neither in one nor between two that are near each other. A
        read of nothing but a gap is thus refused: so clients find out what a device does not have.
        """
        end = address + count
        blocks = sorted(
            (block.start, block.end, n) for n, image in enumerate(self.images) for block in image.layout.map.blocks
        )
        found: list[Part] = []
        at, before = address, -1 - NEAR
        for start, stop, n in blocks:
            if stop > at:
                if start > at and start - before > NEAR:
                    return None
                if start < end:
                    image = self.images[n]
                    found.append(Part(image, image.layout.spans[start], max(start, at), min(stop, end)))
                at = max(start, stop) if start < end else end
                if at >= end:
                    return found or None
            before = stop
        return None

    def read(self, address: int, count: int) -> bytes | None:
        """Return registers, which may lie in several blocks. None where there are none, or some of them, by `parts`.

        Raises ExceptionResponseError where they are measurements that are not good (`stale: exception`).
        """
        parts = self.parts(address, count)
        if parts is None:
            return None
        data = bytearray(2 * count)
        for image, span, start, end in parts:
            if span.gated and image.closed and span.shut(start, end - start):
                raise ExceptionResponseError(ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND)
            if span.live:
                image.refresh()
            data[2 * (start - address) : 2 * (end - address)] = image.data[
                2 * start + span.shift : 2 * end + span.shift
            ]
        return bytes(data)


def _blank(field: str) -> Value:
    """Return what a row shows before anything is known. Codes of commands have a 0 for "none yet"."""
    is_command_code = field.startswith("command.") and field.endswith((".state", ".reason", ".count"))
    return 0 if is_command_code else None
