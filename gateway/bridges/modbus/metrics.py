"""What Prometheus may know of the servers."""

from collections.abc import Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.bridges.modbus.listeners import Listeners
from gateway.core.metrics import BridgeMetrics, Family, Samples

PREFIX: Final = "sems_gateway_modbus"
PLACE: Final = ("bridge", "listener")
CLIENT: Final = (*PLACE, "client", "role")


class ModbusMetrics(BridgeMetrics[Listeners]):
    """One for all servers."""

    families = (
        Family(GaugeMetricFamily, f"{PREFIX}_connections", "connections open now", PLACE),
        Family(
            CounterMetricFamily,
            f"{PREFIX}_connections_refused",
            "connections closed at once, by setting",
            (*PLACE, "reason"),
        ),
        Family(CounterMetricFamily, f"{PREFIX}_requests", "requests answered", PLACE),
        Family(CounterMetricFamily, f"{PREFIX}_exceptions", "requests answered with an exception", PLACE),
        Family(CounterMetricFamily, f"{PREFIX}_connection_requests", "requests of each open connection", CLIENT),
        Family(GaugeMetricFamily, f"{PREFIX}_connection_seconds", "how long each open connection has been so", CLIENT),
    )

    def fill(self, families: Sequence[Samples], bridge: str, watched: Listeners) -> None:
        """See `BridgeMetrics.fill`."""
        connections, refused, requests, exceptions, by_client, seconds = families
        for listener in watched:
            place = (bridge, listener.label)
            connections.add_metric(place, len(listener.connections))
            requests.add_metric(place, listener.counts.messages)
            exceptions.add_metric(place, listener.counts.exceptions)
            for reason, count in listener.counts.refused.items():
                refused.add_metric((*place, reason), count)
            for connection in listener.connections:
                client = (*place, connection.peer, connection.role)
                by_client.add_metric(client, connection.requests)
                seconds.add_metric(client, listener.loop.time() - connection.since)


METRICS: Final = ModbusMetrics()
