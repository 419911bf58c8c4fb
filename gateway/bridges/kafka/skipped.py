"""Messages that can't be used: counted, named in the log by kind and place, and passed over."""

from collections import Counter
from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.core.metrics import Metrics, counter
from gateway.kafka import Received

AGAIN: Final = 3600.0
"""Seconds after which a kind of bad message is worth another line."""
MAX_LOGGED_KINDS: Final = 1000
"""Kinds that are remembered; the one told longest ago is forgotten first."""


class Skipped:
    """What a bridge has passed over."""

    def __init__(self, log: structlog.stdlib.BoundLogger, clock: Clock) -> None:
        self.counts: Counter[str] = Counter()
        """Topic → messages."""
        self._log = log
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    def note(self, message: Received, kind: str, text: str) -> None:
        """Count a message that can't be used; log its place, once an hour for its kind. `kind` is our own words."""
        self.counts[message.topic] += 1
        self._tell("a message can't be used; others like it are only counted", message, kind, text)

    def note_part(self, message: Received, kind: str, text: str) -> None:
        """Log that a part of a message can't be used."""
        self._tell("a part of a message can't be used, and the rest is", message, kind, text)

    def note_unsent(self, topic: str, text: str) -> None:
        """Count a message of ours that a topic does not take, and say why."""
        self.counts[topic] += 1
        if self._is_new(topic, "refused"):
            self._log.warning("a message can't be written; others like it are only counted", topic=topic, why=text)

    def _tell(self, event: str, message: Received, kind: str, text: str) -> None:
        place = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
        if self._is_new(message.topic, kind):
            self._log.warning(event, **place, why=text)
        else:
            self._log.debug("passed over", **place, why=text)

    def _is_new(self, topic: str, kind: str) -> bool:
        now = self._clock.monotonic()
        told = self._told.get((topic, kind))
        if told is not None and now - told < AGAIN:
            return False
        self._told.pop((topic, kind), None)
        self._told[topic, kind] = now
        if len(self._told) > MAX_LOGGED_KINDS:
            del self._told[next(iter(self._told))]
        return True


SKIPPED: Final = Metrics[Skipped](
    counter("sems_gateway_kafka_skipped", "messages that can't be used", lambda skipped: skipped.counts, "topic"),
)
