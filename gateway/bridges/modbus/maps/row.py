"""What a register map is made of: rows, and the blocks that may be read."""

import re
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Final

import msgspec

from gateway.bridges.modbus.codec import NUMBERS, NUMERALS, Encoding
from gateway.core.model import Value
from gateway.core.points import NONE, POINTS, SETPOINTS, Point, Type

INTERNAL_FIELDS: Final = frozenset(
    {
        *(f"device.{name}" for name in ("kind", "serial", "name", "model", "plant", "rated_power", "firmware")),
        *(f"data.{name}" for name in ("map_version", "quality", "status", "fault_text", "age", "time", "updates")),
        *(f"data.{name}" for name in ("alarms_active", "alarm_severity", "alarm_code", "alarm_text", "alarm_time")),
        "gateway.uptime",
        *(f"command.{name}" for name in ("count", "setpoint", "state", "reason", "time", "id", "detail")),
        *(f"command.{point.id}.{name}" for point in POINTS.values() for name in ("state", "reason", "time")),
        *(f"command.{point}.reverts_in" for point in SETPOINTS),
    }
)
"""What a register may show that is no point: see fields.py."""


_OF_A_MODEL: Final = re.compile(r"sunspec\.\d+\.")
"""A point of a SunSpec model that shows nothing of the gateway's own: a control, or "not implemented"."""


class MapError(ValueError):
    """A map contradicts itself. The message names the row."""


class Row(msgspec.Struct, frozen=True, dict=True):
    """One value, in one or more registers."""

    address: int
    """0-based, as on the wire (V1.1b3 §4.4)."""
    encoding: Encoding
    field: str
    """A point id, one of INTERNAL_FIELDS, or `<map>.…`, which the map's family fills in."""
    text: str = ""
    """What it is, where the point table does not say it."""
    exponent: int = 0
    """The register counts in steps of 10**exponent of the point's unit."""
    unit: str = ""
    """Where the point table does not say it."""
    length: int = 0
    """Registers; only text needs it."""
    writable: bool = False
    any_number: bool = False
    """Whatever is written is a number: none says "not there"."""
    constant: Value = None
    """What it always reads as, where that is so."""

    @cached_property
    def point(self) -> Point | None:
        """The row of the point table behind it."""
        return POINTS.get(self.field)

    @property
    def is_setting(self) -> bool:
        """Whether it says what was set, or could be, and not what the device says by itself."""
        return self.field in SETPOINTS or bool(_OF_A_MODEL.match(self.field))

    @cached_property
    def count(self) -> int:
        """How many registers it takes."""
        return self.length if self.encoding is Encoding.STRING else NUMBERS[self.encoding].registers

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.count

    @cached_property
    def codes(self) -> Mapping[str, float]:
        """Word → number, where the point is an enum, takes `none`, or is text that may be a number."""
        if self.nullable:
            return {NONE: NUMBERS[self.encoding].none}
        if self.point is not None and self.point.type is Type.TEXT:
            return NUMERALS
        options = self.point.options if self.point and self.point.type is Type.ENUM else ()
        return {word: number for number, word in enumerate(options)}

    @property
    def nullable(self) -> bool:
        """Whether its number may say `none`: no limit, no setting."""
        return self.point is not None and self.point.nullable and self.encoding in NUMBERS


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that may be read in one request. Those without a row read as 0."""

    start: int
    count: int
    title: str
    gated: bool = False
    """Holds measurements: not answered while the device's data are not good (by policy)."""
    gates: tuple[tuple[int, int], ...] = ()
    """Where only parts of a gated block hold measurements: these, each its first address and the first after."""
    live: bool = False
    """Holds values that are brought up to date when they are read."""

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.start + self.count


class RegisterMap(msgspec.Struct, frozen=True):
    """Rows and blocks that fit together: no overlaps, nothing outside a block, no unknown field."""

    name: str
    blocks: tuple[Block, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        """Check the map. Raises MapError."""
        blocks = sorted(self.blocks, key=lambda block: block.start)
        rows = sorted(self.rows, key=lambda row: row.address)
        for one, next_ in pairwise(blocks):
            if one.end > next_.start:
                raise MapError(f"map {self.name}: blocks {one.title!r} and {next_.title!r} overlap")
        for row, after in pairwise(rows):
            if row.end > after.address:
                raise MapError(f"map {self.name}: {row.field} at {row.address} runs into {after.field}")
        own = f"{self.name.partition(' ')[0]}."  # behind a blank stands, for people, what tells tables of a map apart
        for row in rows:
            if row.field not in POINTS and row.field not in INTERNAL_FIELDS and not row.field.startswith(own):
                raise MapError(f"map {self.name}: there is no point {row.field!r} (at {row.address})")
            if row.count < 1:
                raise MapError(f"map {self.name}: {row.field} at {row.address} needs a length")
            if not any(block.start <= row.address and row.end <= block.end for block in blocks):
                raise MapError(f"map {self.name}: {row.field} at {row.address} is in no block")
