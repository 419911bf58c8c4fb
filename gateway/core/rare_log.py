"""Log lines that a stranger can cause: one of a kind at once, then one a minute with how many there were."""

import asyncio
from typing import Final

import msgspec
import structlog

EVERY: Final = 60.0
"""Seconds between two lines of a kind."""


class _Kind(msgspec.Struct):
    again: float
    """When the next line may come, on the loop's clock."""
    unsaid: int = 0


class RareLog:
    """Warns, and seldom."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._kinds: dict[str, _Kind] = {}

    def warning(self, kind: str, event: str, **fields: object) -> None:
        """Log this, or count it where its kind was logged within the last minute. Kinds must be few."""
        now = asyncio.get_running_loop().time()
        known = self._kinds.setdefault(kind, _Kind(now))
        if now < known.again:
            known.unsaid += 1
            return
        more = {"others_meanwhile": known.unsaid} if known.unsaid else {}
        self._kinds[kind] = _Kind(now + EVERY)
        self._log.warning(event, **fields, **more)
