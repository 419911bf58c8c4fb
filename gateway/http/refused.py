"""What a listener for HTTP has refused: counted by reason, and logged seldom."""

from collections import Counter
from typing import Final

import structlog

from gateway.core.metrics import Metrics, counter
from gateway.core.rare_log import RareLog


class Refused:
    """Of one listener."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = RareLog(log)
        self.counts: Counter[str] = Counter()
        """By reason. Wrong secrets are logged where they are limited: `gateway.http.login_throttle`."""

    def note(self, reason: str, text: str, source: str) -> None:
        """Count a request, and log it where none like it was lately.

        `text` says why it was refused, `source` who sent it.
        """
        self._log.warning(reason, "a request is refused", reason=reason, why=text, source=source)
        self.counts[reason] += 1


METRICS: Final = Metrics[Refused](
    counter(
        "sems_gateway_http_refused",
        "Requests refused for where they come from, what they are, or a wrong secret",
        lambda refused: refused.counts,
        "reason",
    ),
)
