"""What Prometheus may know of the sessions. No account is named."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.core.metrics import BridgeMetrics, Family, Samples
from gateway.sems.budget import Budget

PREFIX: Final = "sems_gateway_sems"


class Watched(msgspec.Struct, frozen=True):
    """A session's numbers."""

    calls: Counter[str]
    """By interface."""
    errors: Mapping[str, int]
    """By kind."""
    budget: Budget


class SemsMetrics(BridgeMetrics[Watched]):
    """One for all sessions."""

    families = (
        Family(CounterMetricFamily, f"{PREFIX}_calls", "calls made to SEMS", ("bridge", "interface")),
        Family(
            CounterMetricFamily,
            f"{PREFIX}_errors",
            "calls to SEMS that did not work out; see docs/errors.md",
            ("bridge", "error"),
        ),
        Family(
            GaugeMetricFamily,
            f"{PREFIX}_budget_used",
            "calls the account made within the last hour",
            ("bridge",),
        ),
        Family(GaugeMetricFamily, f"{PREFIX}_budget_calls", "calls the account may make within an hour", ("bridge",)),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Watched) -> None:
        """See `BridgeMetrics.fill`."""
        calls, errors, used, allowed = families
        for interface, count in watched.calls.items():
            calls.add_metric((bridge, interface), count)
        for kind, count in watched.errors.items():
            errors.add_metric((bridge, kind), count)
        used.add_metric((bridge,), watched.budget.used)
        allowed.add_metric((bridge,), watched.budget.per_hour)


METRICS: Final = SemsMetrics()
