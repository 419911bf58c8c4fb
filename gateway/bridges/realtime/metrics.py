"""What Prometheus may know of the reading. Calls are the session's."""

from collections.abc import Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily

from gateway.bridges.realtime.reader import Reader
from gateway.bridges.realtime.roster import State
from gateway.core.metrics import BridgeMetrics, Family, Samples

PREFIX: Final = "sems_gateway_realtime"


class RealtimeMetrics(BridgeMetrics[Reader]):
    """One for all bridges of the type."""

    families = (
        Family(GaugeMetricFamily, f"{PREFIX}_numbers", "whitelisted serial numbers, by what is known of them",
               ("bridge", "state")),
        Family(GaugeMetricFamily, f"{PREFIX}_devices_in_trouble", "devices that can't be read now, though not refused",
               ("bridge",)),
        Family(GaugeMetricFamily, f"{PREFIX}_poll_interval_seconds",
               "seconds between readings of a device, by the plan", ("bridge",)),
        Family(GaugeMetricFamily, f"{PREFIX}_planned_calls_per_hour", "calls an hour that the plan makes",
               ("bridge", "interface")),
    )  # fmt: skip

    def fill(self, families: Sequence[Samples], bridge: str, watched: Reader) -> None:
        """See `BridgeMetrics.fill`."""
        numbers, troubled, interval, planned = families
        counts = watched.roster.counts()
        for state in State:
            numbers.add_metric((bridge, state), counts[state])
        troubled.add_metric((bridge,), watched.troubled)
        interval.add_metric((bridge,), watched.plan.interval)
        for row in watched.plan.rows:
            planned.add_metric((bridge, row.interface), row.per_hour)


METRICS: Final = RealtimeMetrics()
