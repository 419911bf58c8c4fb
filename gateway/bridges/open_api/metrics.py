"""What Prometheus may know of the polling. Calls are the session's."""

from collections.abc import Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily

from gateway.bridges.open_api.polling import Poller
from gateway.core.metrics import BridgeMetrics, Family, Samples

PREFIX: Final = "sems_gateway_open_api"


class OpenApiMetrics(BridgeMetrics[Poller]):
    """One for all bridges of the type."""

    families = (
        Family(
            GaugeMetricFamily, f"{PREFIX}_devices_in_trouble", "plants and devices that can't be read now", ("bridge",)
        ),
        Family(
            GaugeMetricFamily,
            f"{PREFIX}_poll_interval_seconds",
            "seconds between live readings of a device, by the plan",
            ("bridge",),
        ),
        Family(
            GaugeMetricFamily,
            f"{PREFIX}_planned_calls_per_hour",
            "calls an hour that the plan makes",
            ("bridge", "interface"),
        ),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Poller) -> None:
        """See `BridgeMetrics.fill`."""
        troubled, interval, planned = families
        troubled.add_metric((bridge,), watched.troubled)
        interval.add_metric((bridge,), watched.interval)
        calls: dict[str, float] = {}
        for row in watched.plan.rows:
            calls[row.interface] = calls.get(row.interface, 0.0) + row.per_hour
        for interface, per_hour in calls.items():
            planned.add_metric((bridge, interface), per_hour)


METRICS: Final = OpenApiMetrics()
