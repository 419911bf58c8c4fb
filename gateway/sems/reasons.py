"""What an envelope says of a refusal: its code, and the reason in whatever field its generation of SEMS has it."""

from collections.abc import Mapping
from typing import Final

from gateway.core.text import MAX_CODE, MAX_ID, MAX_REASON, plain
from gateway.sems.catalogue import Json

WORDS: Final = ("msg", "message", "description", "errorMsg", "error_description", "translationCode")
"""Fields with words in them, best first. The newer envelope has several, and `msg` may be empty (SEMS.md, seen)."""
MAX_WORDS: Final = 3
TRACE: Final = ("traceId", "trace_id")
"""Fields with what GoodWe finds the call by."""


def code_of(document: Mapping[str, Json], key: str = "code") -> str:
    """Return an envelope's code as text; "" where there is none that can be one."""
    return plain(document.get(key), MAX_CODE)


def reason_of(document: Json) -> str:
    """Return why SEMS refused, in its own words, bounded and on one line; "" where it does not say."""
    if not isinstance(document, Mapping):
        return ""
    said: list[str] = []
    for key in WORDS:
        text = plain(document.get(key), MAX_REASON)
        if text and not any(text in other for other in said):
            said.append(text)
    trace = next((text for key in TRACE if (text := plain(document.get(key), MAX_ID))), "")
    words = plain("; ".join(said[:MAX_WORDS]), MAX_REASON)
    return f"{words} (traceId {trace})" if trace and words else f"traceId {trace}" if trace else words
