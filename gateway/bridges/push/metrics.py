"""What Prometheus may know of pushes."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily

from gateway.core.metrics import BridgeMetrics, Family, Samples
from gateway.sems.pushed import Outcome


class PushMetrics(BridgeMetrics[Counter[Outcome]]):
    """One for all bridges of the type."""

    families = (
        Family(
            CounterMetricFamily,
            "sems_gateway_pushes",
            "what GoodWe has pushed, by what became of it",
            ("bridge", "outcome"),
        ),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Counter[Outcome]) -> None:
        """See `BridgeMetrics.fill`."""
        (pushes,) = families
        for outcome in Outcome:
            pushes.add_metric((bridge, outcome), watched[outcome])


METRICS: Final = PushMetrics()
