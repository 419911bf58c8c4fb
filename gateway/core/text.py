"""Text from outside: one line, bounded, and free of what moves the cursor or turns the direction of writing.

Whatever takes text in from SEMS, a broker, a client or a file of somebody else has it go through here before it is
kept, logged or passed on. Each kind of text has one limit.
"""

import re
from typing import Final

MAX_CODE: Final = 64
"""Characters of a code: of an error, an alarm or a fault."""
MAX_ID: Final = 64
"""Of a serial number, the id of a plant or of a task. A longer one is none: cut short it might be another's."""
MAX_NAME: Final = 128
"""Of a name or a model."""
MAX_FIELD: Final = 64
"""Of the name of a field."""
MAX_REASON: Final = 200
"""Of the reason of a refusal, or of what an exception says."""
MAX_HALT_REASON: Final = 500
"""Of why control is halted."""
MAX_TEXT: Final = 256
"""Of any other text, e.g. an alarm's or a fault's."""
MAX_DETAIL: Final = 1000
"""Of what a person is told of a bridge, an error or a command: our words, with texts from outside in them."""
MAX_ORIGIN: Final = 500
"""Of who asks: an address, a user, a gateway and its bridge."""
MAX_LINE: Final = 4000
"""Of a line on a terminal, and of a text in the log."""
CUT: Final = "…"
"""What a text ends with that was longer."""

_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_INVISIBLE: Final = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]+"
)
"""Overrides and marks of direction, what has no width, halves of characters, tags."""
_HARMFUL: Final = re.compile(f"{_BREAKS.pattern}|{_INVISIBLE.pattern}")


def plain(raw: object, limit: int) -> str:
    """Return a text as one line of at most `limit` characters, without control characters; numbers as text.

    Empty for what is neither text nor a number. What was longer ends with `CUT`.
    """
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        return ""
    text = raw if isinstance(raw, str) else _number(raw)
    if len(text) <= limit and text.isprintable():
        return text.strip()
    # Not all of it is looked at: it may be megabytes.
    text, is_longer = text[: 4 * limit], len(text) > 4 * limit
    text = _INVISIBLE.sub("", _BREAKS.sub(" ", text)).strip()
    return _cut(text + CUT if is_longer else text, limit)


def identifier(raw: object, limit: int = MAX_ID) -> str:
    """Return a text that stands for something, e.g. a serial number; empty for one that is too long or not clean."""
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        return ""
    text = raw.strip() if isinstance(raw, str) else _number(raw)
    return text if len(text) <= limit and text.isprintable() else ""


def escaped(text: str, limit: int | None = MAX_LINE, keep: str = "") -> str:
    r"""Return a text with what `plain` takes out shown in its place, as JSON has it: `\u001b`, `\u202e`.

    For what is only shown: terminals, logs, and names that must not become another's by what they lose. `keep` are
    control characters that may stay; without a `limit` nothing is cut off.
    """
    if limit is not None:
        text = _cut(text, limit)
    if text.isprintable():
        return text
    text = _HARMFUL.sub(lambda run: "".join(char if char in keep else _code(char) for char in run[0]), text)
    return text if limit is None else _cut(text, limit)


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, at least 3, without its middle: names differ at their ends."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def _cut(text: str, limit: int) -> str:
    return text[: limit - len(CUT)] + CUT if len(text) > limit else text


def _code(char: str) -> str:
    """Return a character as JSON escapes it."""
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _number(raw: float) -> str:
    if isinstance(raw, float) and raw.is_integer() and abs(raw) < 1e15:
        return str(int(raw))
    # An integer of a million digits is no number that anybody meant, and Python refuses to write it.
    return str(raw) if isinstance(raw, float) or raw.bit_length() <= 128 else ""
