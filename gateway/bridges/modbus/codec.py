"""How a value becomes registers, and registers a value. Registers are big-endian (V1.1b3 §4.2)."""

import math
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Final

import msgspec

from gateway.core.model import Value
from gateway.core.points import NONE


class Encoding(StrEnum):
    """What registers hold."""

    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    INT32 = "int32"
    UINT64 = "uint64"
    ACC32 = "acc32"
    """SunSpec's accumulator: counts up, starts again after its highest value; 0 is "not there"."""
    ACC64 = "acc64"
    FLOAT32 = "float32"
    STRING = "string"
    """UTF-8, two bytes a register, filled up with zeros; cut at a character where it is too long."""


class WordOrder(StrEnum):
    """Which register of a 32-bit value comes first."""

    ABCD = "abcd"
    """High word first."""
    CDAB = "cdab"
    """Low word first."""


class NumberFormat(msgspec.Struct, frozen=True):
    """One way to write numbers."""

    code: str
    """For `struct`."""
    absent: bytes
    """What stands for "not there", high word first."""
    absent_text: str
    whole: bool = True
    none: float = math.inf
    """The number that stands for `none` (no limit, no setting), whatever the scale: the highest there is, but for
    that which is "not there"."""
    none_text: str = "+infinity"
    wraps: bool = False
    """What is too large starts again at 0, as a counter does."""

    @property
    def registers(self) -> int:
        """How many registers one number takes."""
        return len(self.absent) // 2


NUMBERS: Final[Mapping[Encoding, NumberFormat]] = {
    Encoding.UINT16: NumberFormat(">H", b"\xff\xff", "0xFFFF", none=0xFFFE, none_text="0xFFFE"),
    Encoding.INT16: NumberFormat(">h", b"\x80\x00", "0x8000", none=0x7FFF, none_text="0x7FFF"),
    Encoding.UINT32: NumberFormat(">I", b"\xff" * 4, "0xFFFFFFFF", none=0xFFFF_FFFE, none_text="0xFFFFFFFE"),
    Encoding.INT32: NumberFormat(">i", b"\x80\x00\x00\x00", "0x80000000", none=0x7FFF_FFFF, none_text="0x7FFFFFFF"),
    Encoding.UINT64: NumberFormat(
        ">Q", b"\xff" * 8, "0xFFFFFFFFFFFFFFFF", none=2**64 - 2, none_text="0xFFFFFFFFFFFFFFFE"
    ),
    Encoding.ACC32: NumberFormat(">I", bytes(4), "0", none=2**32 - 1, none_text="0xFFFFFFFF", wraps=True),
    Encoding.ACC64: NumberFormat(">Q", bytes(8), "0", none=2**64 - 1, none_text="0xFFFFFFFFFFFFFFFF", wraps=True),
    Encoding.FLOAT32: NumberFormat(">f", b"\x7f\xc0\x00\x00", "NaN", whole=False),
}
"""Every encoding but text. "Not there" reads as SunSpec's "not implemented" of the same type does."""

_EXACT: Final = 2**53
"""Beyond this a float no longer counts by one, so that no counter has got there."""

Encoder = Callable[[Value], bytes]
Decoder = Callable[[bytes], Value]


class _Numerals(dict[str, float]):
    """Text that is a number → that number, for every such text. Raises KeyError for any other."""

    def __missing__(self, text: str) -> float:
        """Read `512` and `0x200`."""
        digits, base = (text[2:], 16) if text[:2] in ("0x", "0X") else (text, 10)
        if digits.isascii() and digits.isalnum() and len(digits) <= _MAX_DIGITS:
            with suppress(ValueError):
                return int(digits, base)
        raise KeyError(text)


_MAX_DIGITS: Final = 20
"""Characters of a number in text."""
NUMERALS: Final[Mapping[str, float]] = _Numerals()
"""For a register that shows a text that may be a number, e.g. a fault code. What is none reads as "not there"."""


class NotAValueError(ValueError):
    """These registers hold no value: they say "not there", NaN or infinity."""


class AbsentError(NotAValueError):
    """They say "not there"."""


def encoder(encoding: Encoding, exponent: int, registers: int, order: WordOrder, codes: Mapping[str, float]) -> Encoder:
    """Return what writes a value as registers: number = value / 10**exponent, rounded.

    Words, and `none`, become numbers by `codes`, as they are. What is absent, unknown or does not fit reads as "not
    there".
    """
    if encoding is Encoding.STRING:
        return _text_encoder(registers * 2)
    form = NUMBERS[encoding]
    absent = _ordered(form.absent, order)
    pack = struct.Struct(form.code).pack
    up, down = 10 ** max(0, -exponent), 10 ** max(0, exponent)
    whole, wraps, swapped = form.whole, form.wraps, order is not WordOrder.ABCD

    # Called some ten thousand times a second: what it needs is in local variables.
    def encode(value: Value) -> bytes:
        if value is None:
            return absent
        try:
            number = codes[value] if isinstance(value, str) else value * up / down
            if whole:
                number = round(number)
                if wraps and 0 <= number < _EXACT:
                    number %= 256 ** len(absent)
            return _ordered(pack(number), order) if swapped else pack(number)
        except (ArithmeticError, LookupError, ValueError, struct.error):
            return absent

    return encode


def decoder(
    encoding: Encoding, exponent: int, order: WordOrder, *, nullable: bool = False, absent: bool = True
) -> Decoder:
    """Return what reads a number from the bytes of its registers; NONE where a `nullable` one has none.

    That raises NotAValueError. `absent`: whether one of the numbers says "not there".
    """
    form = NUMBERS[encoding]
    unpack = struct.Struct(form.code).unpack

    def decode(raw: bytes) -> Value:
        raw = _ordered(raw, order)
        (number,) = unpack(raw)
        if nullable and number == form.none:
            return NONE
        if (absent and raw == form.absent) or math.isnan(number):
            raise AbsentError(f"{raw.hex()} means: not there")
        if not math.isfinite(number):
            raise NotAValueError(f"{raw.hex()} means: no value")
        if not form.whole:
            # 50.1 comes as 50.099998…: seven digits are all that a float32 holds.
            number = float(f"{number:.7g}")
        value: float | int = number * 10**exponent if exponent >= 0 else number / 10**-exponent
        return value

    return decode


def _text_encoder(size: int) -> Encoder:
    def encode(value: Value) -> bytes:
        text = "" if value is None else str(value)
        whole_characters = text.encode(errors="replace")[:size].decode(errors="ignore")
        return whole_characters.encode().ljust(size, b"\0")

    return encode


def _ordered(raw: bytes, order: WordOrder) -> bytes:
    if order is WordOrder.ABCD:
        return raw
    return b"".join(raw[at : at + 2] for at in range(len(raw) - 2, -2, -2))
