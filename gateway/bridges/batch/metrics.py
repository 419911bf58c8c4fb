"""What Prometheus may know of batch bridges."""

from collections.abc import Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.bridges.batch.tally import Tally
from gateway.core.metrics import BridgeMetrics, Family, Samples


class BatchMetrics(BridgeMetrics[Tally]):
    """One for all bridges of the type."""

    families = (
        Family(
            CounterMetricFamily,
            "sems_gateway_batch_messages",
            "messages with commands that were confirmed",
            ("bridge",),
        ),
        Family(CounterMetricFamily, "sems_gateway_batch_commands", "commands in them", ("bridge",)),
        Family(GaugeMetricFamily, "sems_gateway_batch_waiting", "commands whose result is waited for", ("bridge",)),
        Family(
            GaugeMetricFamily,
            "sems_gateway_batch_unauthorised",
            "devices that GoodWe said are not whitelisted",
            ("bridge",),
        ),
        Family(CounterMetricFamily, "sems_gateway_batch_results", "results, by what they came to", ("bridge", "kind")),
        Family(
            CounterMetricFamily, "sems_gateway_batch_bad", "what was received and made no sense", ("bridge", "kind")
        ),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Tally) -> None:
        """See `BridgeMetrics.fill`."""
        messages, commands, waiting, unauthorised, results, bad = families
        for family, value in (
            (messages, watched.messages),
            (commands, watched.items),
            (waiting, watched.waiting),
            (unauthorised, len(watched.unauthorised)),
        ):
            family.add_metric((bridge,), value)
        for family, counts in ((results, watched.results), (bad, watched.bad)):
            for kind, count in counts.items():
                family.add_metric((bridge, kind), count)


METRICS: Final = BatchMetrics()
