"""What the bridge counts, and what it says once of things that should not be."""

from collections import Counter
from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.core.metrics import Metrics, counter, gauge

SAY_AGAIN: Final = 3600.0
"""Seconds after which a kind of trouble is worth another line."""


class Tally:
    """Figures of one bridge."""

    def __init__(self, log: structlog.stdlib.BoundLogger, clock: Clock) -> None:
        self.messages = 0
        """Confirmed by the cluster."""
        self.items = 0
        """Commands in them."""
        self.results: Counter[str] = Counter()
        """What results came to, and `split`: messages that left some of a request open."""
        self.bad: Counter[str] = Counter()
        """Kind of oddity in what was received → how often."""
        self.waiting = 0
        """Commands whose result is waited for."""
        self.unauthorised: set[str] = set()
        """Serial numbers that GoodWe said were not whitelisted, the last time."""
        self._log = log
        self._clock = clock
        self._said: dict[str, float] = {}

    def odd(self, kind: str, text: str) -> None:
        """Count something odd; log it the first time, and from then on once an hour."""
        self.bad[kind] += 1
        now = self._clock.monotonic()
        said = self._said.get(kind)
        if said is None or now - said > SAY_AGAIN:
            self._said[kind] = now
            self._log.warning(text, kind=kind, times=self.bad[kind])


METRICS: Final = Metrics[Tally](
    counter("sems_gateway_batch_messages", "messages with commands that were confirmed", lambda tally: tally.messages),
    counter("sems_gateway_batch_commands", "commands in them", lambda tally: tally.items),
    gauge("sems_gateway_batch_waiting", "commands whose result is waited for", lambda tally: tally.waiting),
    gauge(
        "sems_gateway_batch_unauthorised",
        "devices that GoodWe said are not whitelisted",
        lambda tally: len(tally.unauthorised),
    ),
    counter("sems_gateway_batch_results", "results, by what they came to", lambda tally: tally.results, "kind"),
    counter("sems_gateway_batch_bad", "what was received and made no sense", lambda tally: tally.bad, "kind"),
)
