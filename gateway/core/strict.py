"""Numbers and JSON that mean something as they are told, and to everybody the same.

Python takes more for a number than others do: `5_0`, and the digits of every script. JSON whose key stands there twice
says two things, of which each reader takes the one it likes. Nothing that commands is read so.
"""

import json
from typing import Any

import msgspec


class DoubledKeyError(msgspec.DecodeError):
    """An object says the same twice. It is one of `BAD_JSON`."""


def number(text: str) -> float:
    """Return the number that a text says in ASCII digits, as JSON and C write it. Raises ValueError."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is no number")
    return float(text)


def decode(raw: bytes | str, kind: Any = Any) -> Any:
    """Return what JSON says, as a `kind`. Raises one of `BAD_JSON`, DoubledKeyError among them."""
    found = msgspec.json.decode(raw, type=kind)  # first, for it knows what is well formed
    check_keys(raw)
    return found


def check_keys(raw: bytes | str) -> None:
    """Raise DoubledKeyError where a key stands twice in an object of JSON that is well formed."""
    text = raw if isinstance(raw, str) else raw.decode()
    if text.count(":") > 1:
        # Numbers stay texts: only keys are looked at.
        json.loads(text, object_pairs_hook=_once_each, parse_int=str, parse_float=str, strict=False)


def _once_each(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise DoubledKeyError(f"the key {key[:64]!r} stands there twice")
        seen.add(key)
