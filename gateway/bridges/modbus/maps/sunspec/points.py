"""What SunSpec models are made of: points, their types and scale factors.

After the SunSpec Device Information Model Specification V1.1, §6, and the SunSpec Modbus model definitions (JSON).
A model is a table of points in the order of their registers; offsets follow from the types.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from gateway.bridges.modbus.codec import NUMBERS, Encoding
from gateway.bridges.modbus.maps.sunspec.scales import Scale
from gateway.core.model import Value

PAD_VALUE: Final = -0x8000
"""What fills a model up to an even length (§6.5.2)."""


class Type(StrEnum):
    """Point types, named as in the model definitions."""

    INT16 = "int16"
    UINT16 = "uint16"
    ENUM16 = "enum16"
    BITFIELD16 = "bitfield16"
    COUNT = "count"
    SUNSSF = "sunssf"
    PAD = "pad"
    INT32 = "int32"
    UINT32 = "uint32"
    BITFIELD32 = "bitfield32"
    ACC32 = "acc32"
    FLOAT32 = "float32"
    UINT64 = "uint64"
    ACC64 = "acc64"
    STRING = "string"


_WRITTEN_AS: Final = {
    **dict.fromkeys((Type.ENUM16, Type.BITFIELD16, Type.COUNT), Encoding.UINT16),
    **dict.fromkeys((Type.SUNSSF, Type.PAD), Encoding.INT16),
    Type.BITFIELD32: Encoding.UINT32,
}
ENCODINGS: Final[Mapping[Type, Encoding]] = {type_: _WRITTEN_AS.get(type_) or Encoding(type_.value) for type_ in Type}
"""How each is written. Their "not implemented" values (§6.5) are those of the encodings."""


class Pt(msgspec.Struct, frozen=True):
    """One point of a model. Without `shows`, `constant` and `scale` it reads as "not implemented"."""

    name: str
    type: Type
    shows: str = ""
    """A gateway field, or the name of an expression (expressions.py), in the map's own name space."""
    unit: str = ""
    """SunSpec's. Where the gateway's point has another one, the value is converted (layout.py)."""
    sf: str = ""
    """The point of the model that holds its scale factor."""
    exponent: int = 0
    """The scale factor, where the model definition fixes it."""
    size: int = 0
    """Registers; only strings need it."""
    constant: Value = None
    scale: Scale | None = None
    """For a `sunssf`: what it scales."""

    @property
    def registers(self) -> int:
        """How many registers it takes."""
        return self.size if self.type is Type.STRING else NUMBERS[ENCODINGS[self.type]].registers


class Model(msgspec.Struct, frozen=True):
    """A model, without the ID and L before its points."""

    id: int
    title: str
    points: tuple[Pt, ...]
    gate: int | None = None
    """Offset of the first register of measurements, which are not to be read while data are not good. None: none."""

    @property
    def length(self) -> int:
        """L: the registers after ID and L."""
        return sum(point.registers for point in self.points)


def own(name: str) -> str:
    """Return the field of an expression, or of a model's point."""
    return f"sunspec.{name}"


def sf(name: str, scale: Scale | None = None) -> Pt:
    """Return a scale factor."""
    return Pt(name, Type.SUNSSF, scale=scale)
