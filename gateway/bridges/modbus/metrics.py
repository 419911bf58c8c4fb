"""What Prometheus may know of the servers: registered while at least one bridge runs."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from gateway.bridges.modbus.listeners import Listeners

PREFIX: Final = "sems_gateway_modbus"
PLACE: Final = ("bridge", "listener")
CLIENT: Final = (*PLACE, "client", "role")

FAMILIES: Final[tuple[tuple[type[CounterMetricFamily] | type[GaugeMetricFamily], str, str, tuple[str, ...]], ...]] = (
    (GaugeMetricFamily, "connections", "connections open now", PLACE),
    (CounterMetricFamily, "connections_refused", "connections closed at once, by setting", (*PLACE, "reason")),
    (CounterMetricFamily, "requests", "requests answered", PLACE),
    (CounterMetricFamily, "exceptions", "requests answered with an exception", PLACE),
    (CounterMetricFamily, "connection_requests", "requests of each open connection", CLIENT),
    (GaugeMetricFamily, "connection_seconds", "how long each open connection has been so", CLIENT),
)


class ModbusMetrics(Collector):
    """One for all bridges, since a metric's samples must stand together."""

    def __init__(self) -> None:
        self._watched: dict[str, Listeners] = {}

    def watch(self, bridge: str, listeners: Listeners) -> None:
        """Show a bridge from now on."""
        if not self._watched:
            REGISTRY.register(self)
        self._watched[bridge] = listeners

    def forget(self, bridge: str) -> None:
        """Show it no more."""
        if self._watched.pop(bridge, None) is not None and not self._watched:
            REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples."""
        return [make(f"{PREFIX}_{name}", text, labels=labels) for make, name, text, labels in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as of now."""
        families = [make(f"{PREFIX}_{name}", text, labels=labels) for make, name, text, labels in FAMILIES]
        connections, refused, requests, exceptions, by_client, seconds = families
        for bridge, listeners in self._watched.items():
            for listener in listeners:
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
        yield from families


METRICS: Final = ModbusMetrics()
