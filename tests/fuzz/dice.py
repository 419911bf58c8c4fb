# ruff: noqa: E501 - samples are tables, and read best a row a line
"""Broken inputs out of good ones. All is drawn from one `random.Random`, so a seed makes the same ones again."""

import json

WORDS = [
    "", " ", "0", "-1", "1e999", "NaN", "null", "true", "\x00", "\x1b[2J", "a" * 300, "é", "\u202e", "\ud83d\ude00", "%00",
    "../../etc/passwd", "9010KETU000W0001", "*", "#", "+", "a/b", "12/11/2026 10:00:00", "2026-06-21 12:00:00",
    "2026-06-21T12:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "UTC+10:00", "{", "[", '"', "45%", "30.3kWh",
    "--", "1,234.5", "٣", "1_000", "0x10", "+5", "1e5", "Infinity", "65535", "none", "auto", "off",
]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**53, 2**63, 2**64, 10**30, 10**400, -0.0,
    0.1, 1e-320, 1e308, -1e308, 1781956800, 1781956800000, 253402300800, -62135596801, 1e18,
]  # fmt: skip
ODD = [None, True, False, [], {}, [[]], [{}], {"": ""}, [None], "x"]
BYTES = [b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b'"', b"{", b"}", b"[", b"]", b",", b":", b"1e999", b"\\ud800",
         b"\\u0000", b"-", b"9" * 400, b"\xed\xa0\x80", b"[" * 2000, b'{"a":' * 1500, b"NaN", b" " * 50, b"\x80" * 12]  # fmt: skip
INTEGERS = (
    b"\0\0",
    b"\0\1",
    b"\x7f\xff",
    b"\x80\0",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
)


def value(dice):
    """Return some JSON value."""
    return dice.choice((WORDS, NUMBERS, ODD))[dice.randrange(10)] if dice.random() < 0.5 else _any(dice)


def _any(dice):
    match dice.randrange(5):
        case 0:
            return dice.choice(WORDS)
        case 1:
            return dice.choice(NUMBERS)
        case 2:
            return dice.choice(ODD)
        case 3:
            return dice.uniform(-1e6, 1e6)
        case _:
            return "".join(chr(dice.randrange(0x250)) for _ in range(dice.randrange(20)))


def tree(dice, node, strength=1.0):
    """Return a JSON value with some of its parts changed: replaced, dropped, doubled, moved, renamed."""
    for _ in range(1 + int(dice.random() * 3 * strength)):
        node = _changed(dice, node)
    return node


def _changed(dice, node):
    if isinstance(node, dict) and node and dice.random() < 0.9:
        node = dict(node)
        key = dice.choice(list(node))
        match dice.randrange(8):
            case 0:
                del node[key]
            case 1:
                node[dice.choice(WORDS)] = node[key]
            case 2:
                node[key] = node[dice.choice(list(node))]
            case 3:
                node[key] = [node[key]]
            case 4:
                node[key] = value(dice)
            case _:
                node[key] = _changed(dice, node[key])
        return node
    if isinstance(node, list) and node and dice.random() < 0.9:
        node = list(node)
        at = dice.randrange(len(node))
        match dice.randrange(7):
            case 0:
                del node[at]
            case 1:
                node.extend([node[at]] * dice.choice((1, 2, 40)))
            case 2:
                node[at] = value(dice)
            case 3:
                node.reverse()
            case _:
                node[at] = _changed(dice, node[at])
        return node
    if isinstance(node, str) and node and dice.random() < 0.4:
        return text(dice, node)
    if isinstance(node, (int, float)) and not isinstance(node, bool) and dice.random() < 0.4:
        return node * dice.choice((-1, 10, 1000)) + dice.choice((-1, 0, 1))
    return value(dice)


def text(dice, whole):
    """Return a text with a piece changed."""
    at = dice.randrange(len(whole) + 1)
    match dice.randrange(4):
        case 0:
            return whole[:at]
        case 1:
            return whole[:at] + dice.choice(WORDS) + whole[at:]
        case 2:
            return whole[:at] + chr(dice.randrange(0x110000 - 0x800) % 0xD800) + whole[at + 1 :]
        case _:
            return whole[:at] + whole[at:] * 2


def raw(dice, whole):
    """Return bytes with pieces changed: cut, doubled, flipped, replaced."""
    whole = bytearray(whole)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at, end = sorted((dice.randrange(len(whole) + 1), dice.randrange(len(whole) + 1)))
        match dice.randrange(8):
            case 0:
                del whole[at:]
            case 1:
                del whole[at : at + 1 + dice.randrange(8)]
            case 2:
                whole[at:at] = dice.choice(BYTES)
            case 3 if at < len(whole):
                whole[at] = dice.randrange(256)
            case 4 if at < len(whole):
                whole[at] ^= 1 << dice.randrange(8)
            case 5:
                piece = dice.choice(INTEGERS)
                whole[at : at + len(piece)] = piece
            case 6 if end - at < 2000:
                whole[at:at] = whole[at:end]
            case _:
                whole[at : at + 4] = dice.randbytes(4)
    return bytes(whole)


def json_of(dice, sample, strength=1.0):
    """Return JSON bytes: a sample with parts changed, and now and then bytes that are no JSON any more."""
    said = json.dumps(tree(dice, sample, strength), ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return raw(dice, said) if dice.random() < 0.15 else said
