"""Text from outside is one line, bounded, and says nothing to a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.text import CUT, MAX_ID, identifier, plain


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Haus am See", "Haus am See"),
        ("Père  Noël 家", "Père  Noël 家"),
        ("\x1b[2Jgone\x00\r\nnext\tline\u2028end", "[2Jgone next line e…"),
        ("evil\u202egnp.exe\u202c", "evilgnp.exe"),
        ("\ud800x\ufeff\u200b", "x"),
        ("x" * 21, "x" * 19 + CUT),
        ("\n" * 1000 + "late", CUT),
        (7, "7"),
        (7.0, "7"),
        (0.5, "0.5"),
        (10**400, ""),
        (True, ""),
        (None, ""),
        (["x"], ""),
        ({"x": 1}, ""),
    ],
)
def test_what_is_shown(raw, shown):
    assert plain(raw, 20) == shown


@given(st.text(), st.integers(min_value=2, max_value=40))
def test_any_text_is_one_short_line_that_stays_as_it_is(text, limit):
    shown = plain(text, limit)
    assert len(shown) <= limit
    assert shown == plain(shown, limit)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in shown)
    shown.encode()


def test_a_megabyte_is_not_walked_through():
    assert plain("\x00" * 5_000_000 + "x", 10) == CUT


@pytest.mark.parametrize(
    ("raw", "known"),
    [(" 9010KETU ", "9010KETU"), (12345, "12345"), ("x" * MAX_ID, "x" * MAX_ID), ("x" * (MAX_ID + 1), ""),
     ("a\x00b", ""), ("a\u202eb", ""), (1.5, ""), (True, ""), (None, ""), (10**400, "")],
)  # fmt: skip
def test_what_stands_for_something_is_whole_or_nothing(raw, known):
    assert identifier(raw) == known
