"""Messages that can't be used: counted, logged once for each kind, and passed over."""

from collections import Counter
from typing import Final

import structlog

TOLD: Final = 1000
"""Kinds of bad messages that are logged, once each."""


class Skipped:
    """What a bridge has passed over."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self.counts: Counter[str] = Counter()
        """Topic → messages."""
        self._log = log
        self._told: set[tuple[str, str]] = set()

    def note(self, topic: str, kind: str, text: str) -> None:
        """Count a message, and say why it can't be used where nobody has said so yet."""
        self.counts[topic] += 1
        if (topic, kind) not in self._told and len(self._told) < TOLD:
            self._told.add((topic, kind))
            self._log.warning("a message can't be used; others like it are only counted", topic=topic, why=text)
