"""All listeners of a bridge: a range of ports for each line of the configuration, and the units behind each port."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Final

from gateway.api.contexts import BaseContext
from gateway.bridges.modbus import tls
from gateway.bridges.modbus.access_policy import AccessPolicy
from gateway.bridges.modbus.connection import Service
from gateway.bridges.modbus.counts import FULL, Counts, Refused
from gateway.bridges.modbus.diagnostics import identity
from gateway.bridges.modbus.gateway_unit import UNITS as OWN_UNITS
from gateway.bridges.modbus.image import Unit
from gateway.bridges.modbus.requests import Write
from gateway.bridges.modbus.server import Listener
from gateway.bridges.modbus.settings import ListenerSpec, ModbusSettings
from gateway.bridges.modbus.units import LAST_UNIT, Place
from gateway.core.metrics import Metrics, counter, gauge


class Listeners:
    """The n-th port of every range serves the same units."""

    def __init__(
        self, settings: ModbusSettings, context: BaseContext, write: Write, own: Callable[[int], Unit]
    ) -> None:
        self._settings = settings
        self._context = context
        self._write = write
        self._own = own
        """Makes the units of the gateway itself, on the n-th port."""
        self.tables: Final[list[dict[int, Unit]]] = []
        """Unit → its registers, for each port of a range."""
        self._ranges: list[list[Listener]] = []
        """Those that are open, a list for each line of the configuration, the bridge's own first."""
        self._policies: list[AccessPolicy] = []

    def __iter__(self) -> Iterator[Listener]:
        """Walk over those that are open, the bridge's own first."""
        return chain.from_iterable(self._ranges)

    @property
    def first(self) -> Listener:
        """The bridge's own, on its first port."""
        return self._ranges[0][0]

    @property
    def counts(self) -> Counts:
        """The sum of all."""
        return Counts(
            messages=sum(listener.counts.messages for listener in self),
            exceptions=sum(listener.counts.exceptions for listener in self),
            refused={reason: sum(listener.counts.refused[reason] for listener in self) for reason in Refused},
            displaced={r: sum(listener.counts.displaced[r] for listener in self) for r in FULL.values()},
        )

    @property
    def served(self) -> Mapping[str, Place]:
        """Serial → place, of the devices served now."""
        return {
            unit.serial: Place(nth, number)
            for nth, table in enumerate(self.tables)
            for number, unit in table.items()
            if 1 <= number <= LAST_UNIT
        }

    def port(self, nth: int) -> int:
        """Return the n-th port of the bridge's own range, as it really is."""
        return self._ranges[0][nth].port

    async def start(self, ports: int) -> None:
        """Open everything, so many ports of each range, or nothing. Raises OSError."""
        self._ranges = [[] for _ in self._settings.doors]
        try:
            self._policies = [self._policy(door) for door in self._settings.doors]
            for _ in range(ports):
                await self.add_port()
        except OSError:
            await self.stop()
            raise

    async def add_port(self) -> None:
        """Open one more port of each range, or none. Raises OSError."""
        settings, context = self._settings, self._context
        nth = len(self.tables)
        units = dict.fromkeys(OWN_UNITS, self._own(nth))
        itself = identity(context.gateway_id)
        opened: list[Listener] = []
        try:
            for door, policy in zip(settings.doors, self._policies, strict=True):
                service = Service(units, self._write, policy, context.spawn, context.log, itself, Counts())
                port = door.port and door.port + nth
                listener = Listener(context.name, door.host, port, service, setting=door.setting)
                await listener.listen()
                opened.append(listener)
        except OSError:
            for listener in opened:
                await listener.close()
            raise
        self.tables.append(units)
        for listener, range_ in zip(opened, self._ranges, strict=True):
            range_.append(listener)
            if settings.idle_timeout is not None:
                context.spawn(listener.expire(settings.idle_timeout), f"idle connections of {listener.label}")
            context.log.info(
                "listening",
                host=listener.label.rpartition(":")[0],
                port=listener.port,
                **({"tls": True} if listener.service.policy.tls else {}),
                **({"read_only": True} if listener.service.policy.read_only else {}),
            )

    async def stop(self) -> None:
        """Close all ports and connections."""
        ranges, self._ranges = self._ranges, []
        for listener in chain.from_iterable(ranges):
            await listener.close()

    def _policy(self, door: ListenerSpec) -> AccessPolicy:
        """Return who may do what. Raises TlsError, an OSError."""
        access, context = door.access, self._context
        made = tls.context(access.tls.files) if access.tls else None
        if access.tls is not None:
            for warning in tls.warnings(access.tls.files, context.clock.now()):
                context.log.warning("certificate", why=warning)
        return AccessPolicy(
            max_connections=self._settings.max_connections,
            max_connections_per_host=self._settings.max_connections_per_host,
            read_only=access.read_only,
            allow=access.allow,
            tls=made,
            write_roles=access.tls.write_roles if access.tls else frozenset(),
            role=access.role or "",
        )


def _requests(listeners: Listeners) -> dict[tuple[str, str, str], int]:
    return {(one.label, c.peer, c.role): c.requests for one in listeners for c in one.connections}


def _seconds(listeners: Listeners) -> dict[tuple[str, str, str], float]:
    now = asyncio.get_running_loop().time()
    return {(one.label, c.peer, c.role): now - c.since for one in listeners for c in one.connections}


METRICS: Final = Metrics[Listeners](
    gauge(
        "sems_gateway_modbus_connections",
        "connections open now",
        lambda listeners: {one.label: len(one.connections) for one in listeners},
        "listener",
    ),
    counter(
        "sems_gateway_modbus_connections_refused",
        "connections closed at once, by setting",
        lambda listeners: {(one.label, why): n for one in listeners for why, n in one.counts.refused.items()},
        "listener",
        "reason",
    ),
    counter(
        "sems_gateway_modbus_connections_displaced",
        "connections closed for a newer one, having been idle longest, by setting",
        lambda listeners: {(one.label, why): n for one in listeners for why, n in one.counts.displaced.items()},
        "listener",
        "reason",
    ),
    counter(
        "sems_gateway_modbus_requests",
        "requests answered",
        lambda listeners: {one.label: one.counts.messages for one in listeners},
        "listener",
    ),
    counter(
        "sems_gateway_modbus_exceptions",
        "requests answered with an exception",
        lambda listeners: {one.label: one.counts.exceptions for one in listeners},
        "listener",
    ),
    counter(
        "sems_gateway_modbus_connection_requests",
        "requests of each open connection",
        _requests,
        "listener",
        "client",
        "role",
    ),
    gauge(
        "sems_gateway_modbus_connection_seconds",
        "how long each open connection has been so",
        _seconds,
        "listener",
        "client",
        "role",
    ),
)
