"""Values to registers and back."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bridges.modbus.codec import NUMBERS, Encoding, NotAValueError, WordOrder, decoder, encoder

ABCD, CDAB = WordOrder


def encode(value, encoding=Encoding.INT32, exponent=0, registers=2, order=ABCD, codes=None):
    return encoder(encoding, exponent, registers, order, codes or {})(value)


@pytest.mark.parametrize(
    ("value", "encoding", "exponent", "expected"),
    [
        (1234, Encoding.INT32, 0, "000004d2"),
        (-1, Encoding.INT32, 0, "ffffffff"),
        (230.06, Encoding.INT32, -1, "000008fd"),
        (12_345, Encoding.UINT16, 1, "04d2"),
        (-0.95, Encoding.INT16, -3, "fc4a"),
        (True, Encoding.UINT16, 0, "0001"),
        (0xFFFFFFFE, Encoding.UINT32, 0, "fffffffe"),
        (1.5, Encoding.FLOAT32, 0, "3fc00000"),
        (True, Encoding.FLOAT32, 0, "3f800000"),
    ],
)
def test_numbers_are_scaled_and_big_endian(value, encoding, exponent, expected):
    assert encode(value, encoding, exponent).hex() == expected


@pytest.mark.parametrize("value", [None, math.nan, 1e300, "no such option"])
@pytest.mark.parametrize("encoding", NUMBERS)
def test_what_is_absent_or_does_not_fit_reads_as_absent(encoding, value):
    assert encode(value, encoding) == NUMBERS[encoding].absent


def test_a_total_too_large_for_its_scale_reads_as_absent_not_as_something_else():
    assert encode(300e6, exponent=-1).hex() == "80000000"


def test_the_low_word_comes_first_in_cdab():
    assert encode(0x12345678, order=CDAB).hex() == "56781234"
    assert encode(None, order=CDAB).hex() == "00008000"
    assert encode(0x1234, Encoding.UINT16, order=CDAB).hex() == "1234"
    assert decoder(Encoding.INT32, 0, CDAB)(bytes.fromhex("56781234")) == 0x12345678


def test_text_is_utf8_cut_at_a_character():
    def text(value):
        return encode(value, Encoding.STRING, registers=4)

    assert text("Köln") == b"K\xc3\xb6ln\0\0\0"
    assert text("1234567é") == b"1234567\0"
    assert text(None) == bytes(8)
    assert text("\ud800") == b"?" + bytes(7)


@pytest.mark.parametrize("encoding", [e for e in NUMBERS if e is not Encoding.FLOAT32])
@given(data=st.data())
def test_whole_numbers_come_back_as_they_went(encoding, data):
    width = 8 * len(NUMBERS[encoding].absent)
    raw = data.draw(st.integers(0, 2**width - 1)).to_bytes(width // 8, "big")
    order = data.draw(st.sampled_from(WordOrder))
    exponent = data.draw(st.integers(-3, 2))
    try:
        value = decoder(encoding, exponent, order)(raw)
    except NotAValueError:
        return
    if abs(value) / 10**exponent > 2**52:
        return  # that many digits are more than a float holds
    assert encode(value, encoding, exponent, order=order) == raw


def test_a_float_is_taken_with_the_digits_it_has():
    assert decoder(Encoding.FLOAT32, 0, ABCD)(struct.pack(">f", 50.1)) == 50.1


@pytest.mark.parametrize("raw", ["7fc00000", "7f800000", "ff800000", "7fa00000"])
def test_nan_and_infinity_are_no_values(raw):
    with pytest.raises(NotAValueError, match=r"no value|not there"):
        decoder(Encoding.FLOAT32, 0, ABCD)(bytes.fromhex(raw))
