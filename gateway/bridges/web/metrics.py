"""What Prometheus is told of the gateway as a whole. Each bridge brings metrics of its own."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.core.bridge import Context
from gateway.core.model import Quality, Severity


class GatewayCollector(Collector):
    """Reads the router when it is asked; keeps nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def describe(self) -> Iterable[Metric]:
        """Say nothing in advance: there is nothing to read before the gateway runs."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return the samples of now."""
        info = GaugeMetricFamily("sems_gateway_info", "Always 1", labels=["gateway", "version"])
        info.add_metric([self._context.gateway_id, __version__], 1)
        yield info

        bridges = GaugeMetricFamily("sems_gateway_bridge_up", "1 while the bridge works", labels=["bridge", "type"])
        for status in self._context.bridges():
            bridges.add_metric([status.name, status.type], status.up)
        yield bridges

        halted = GaugeMetricFamily("sems_gateway_halted", "1 while control is halted")
        halted.add_metric([], self._context.halted is not None)
        yield halted

        states = self._context.states()
        counts = Counter(state.quality for state in states)
        devices = GaugeMetricFamily("sems_gateway_devices", "Devices by quality of their data", labels=["quality"])
        for quality in Quality:
            devices.add_metric([quality], counts[quality])
        yield devices

        active = Counter(alarm.severity for alarm in self._context.active_alarms())
        alarms = GaugeMetricFamily("sems_gateway_alarms", "Active alarms by severity", labels=["severity"])
        for severity in Severity:
            alarms.add_metric([severity], active[severity])
        yield alarms

        now = self._context.clock.now()
        ages = GaugeMetricFamily(
            "sems_gateway_data_age_seconds", "Age of a device's newest data", labels=["serial", "kind"]
        )
        for state in states:
            if state.time is not None:
                ages.add_metric([state.device.serial, state.device.kind], (now - state.time).total_seconds())
        yield ages
