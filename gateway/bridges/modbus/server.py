"""The listener: pymodbus' TCP server, whose connections are ours."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, Protocol

import msgspec
import structlog
from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.bridges.modbus import tls
from gateway.bridges.modbus.connection import PULSES, Connection
from gateway.bridges.modbus.handshake import Handshake
from gateway.bridges.modbus.image import Unit

_TROUBLE: Final = {
    errno.EADDRINUSE: (
        "port {port} on {host} is in use by another program; stop it or set bridges.{name}.{setting} to another one"
    ),
    errno.EACCES: (
        "this user may not listen on port {port}; set bridges.{name}.{setting} to 1024 or more, "
        "or give the program the right (CAP_NET_BIND_SERVICE)"
    ),
    errno.EADDRNOTAVAIL: "{host} is no address of this machine; set bridges.{name}.host to one, or to 0.0.0.0 for all",
}
_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))
"""Seconds of silence, seconds between probes, probes: a client that is gone is noticed in two minutes."""
MOST_TOLD: Final = 256
"""Hosts whose refusal is remembered as logged. A network scanner is one line a host, not one a try."""


class Refused(StrEnum):
    """Why a connection was closed at once: the setting that says so."""

    LIMIT = "max_connections"
    ALLOW = "allow"
    TLS = "tls"


class Write(Protocol):
    """Carries a write request out. Raises WriteRefusedError."""

    async def __call__(self, unit: Unit, role: str, peer: str, address: int, payload: bytes) -> None:
        """`role` may be "", `peer` is `ip:port`; `payload` holds the registers from `address` on, big-endian."""
        ...


class Counts(msgspec.Struct):
    """What a listener has done since it was started."""

    messages: int = 0
    """Requests answered, exceptions among them."""
    exceptions: int = 0
    refused: dict[Refused, int] = msgspec.field(default_factory=lambda: dict.fromkeys(Refused, 0))
    """Connections closed at once."""

    @property
    def refused_connections(self) -> int:
        """Those of all reasons."""
        return sum(self.refused.values())


class Gate(msgspec.Struct, frozen=True):
    """Who may do what."""

    max_connections: int
    read_only: bool = False
    allow: tuple[IPv4Network | IPv6Network, ...] | None = None
    tls: ssl.SSLContext | None = None
    write_roles: frozenset[str] = frozenset()
    role: str = ""
    """Of every client, where no certificate says it."""

    def lets_in(self, host: str) -> bool:
        """Return whether a client of that address may connect."""
        if self.allow is None:
            return True
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.allow)

    def why_read_only(self, role: str) -> str:
        """Return why a client of that role may not write; "" where it may."""
        if self.read_only:
            return "this listener is read-only (read_only: true)"
        if self.tls is None or role in self.write_roles:
            return ""
        return f"the role {role!r} is not among tls.write_roles" if role else "the client's certificate has no role"


class Listener(ModbusTcpServer):
    """Listens on one port. What it serves are `units`; who connects gets a `Connection`."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        *,
        units: dict[int, Unit],
        gate: Gate,
        write: Write,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
        log: structlog.stdlib.BoundLogger,
        identity: ModbusDeviceIdentification,
        setting: str = "port",
    ) -> None:
        # pymodbus wants a datastore of its own; nobody asks it anything.
        unused = SimDevice(0, [SimData(0, values=0, datatype=DataType.REGISTERS)])
        super().__init__(unused, address=address, identity=identity)
        self.name = name
        self.units = units
        """Unit → its registers."""
        self.gate = gate
        self.write = write
        self.spawn = spawn
        self.log = log
        self.counts = Counts()
        self.pulse = 0
        """Counts up PULSES times in an idle time-out."""
        self._setting = setting
        self._admitted: dict[str, Connection] = {}
        self._handshakes: set[Handshake] = set()
        self._full = False
        self._told: set[tuple[Refused, str]] = set()

    @property
    def port(self) -> int:
        """The port it really listens on."""
        return int(self.transport.sockets[0].getsockname()[1])  # type: ignore[attr-defined]

    @property
    def label(self) -> str:
        """`host:port`."""
        host, _ = self.comm_params.source_address or ("", 0)
        return f"{host}:{self.port}"

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return [connection for connection in self._admitted.values() if connection.transport is not None]

    async def listen(self) -> bool:
        """Begin to listen. Raises OSError that says what to do, where pymodbus would but log."""
        self.is_closing = False
        self.is_listener = True
        host, port = self.comm_params.source_address or ("", 0)
        try:
            self.transport = await self.call_create()
        except OSError as error:
            text = _TROUBLE.get(error.errno or 0, "can't listen on port {port} of {host} ({error})")
            raise OSError(
                text.format(host=host, port=port, name=self.name, setting=self._setting, error=error)
            ) from error
        for listening in self.transport.sockets:  # type: ignore[attr-defined]
            _keep_alive(listening)
        return True

    async def expire(self, idle_timeout: float) -> None:
        """Close connections that have not been heard for `idle_timeout` seconds, for ever."""
        while True:
            await asyncio.sleep(idle_timeout / PULSES)
            self.pulse += 1
            for connection in self.connections:
                connection.close_if_idle()

    async def close_all(self) -> None:
        """Close the port and every connection."""
        for handshake in list(self._handshakes):
            handshake.abort()
        await self.shutdown()  # type: ignore[no-untyped-call]

    # what pymodbus and connections call

    def callback_new_connection(self) -> Connection:
        """Return what will serve a client that has just connected."""
        return Connection(self)

    def handle_new_connection(self) -> asyncio.BaseProtocol:  # type: ignore[override]
        """Return what speaks with a client that has just connected: TLS comes first, where it is asked for."""
        connection = super().handle_new_connection()
        if self.gate.tls is None or not isinstance(connection, Connection):
            return connection
        handshake = Handshake(self, connection, self.gate.tls)
        self._handshakes.add(handshake)
        return handshake

    def admit(self, connection: Connection) -> bool:
        """Return whether a connection may stay. Asked again when its role is known."""
        if self.transport is None:
            return False
        if connection.unique_id not in self._admitted:
            host = connection.peer.rpartition(":")[0]
            if not self.gate.lets_in(host):
                self.refuse(connection, Refused.ALLOW, "its address is in none of the networks")
                return False
            if len(self._admitted) >= self.gate.max_connections:
                self._refuse_for_lack_of_room()
                return False
            self._admitted[connection.unique_id] = connection
        shown = connection.transport and connection.transport.get_extra_info("ssl_object")
        connection.role = tls.role(shown.getpeercert(binary_form=True)) if shown else self.gate.role
        connection.since = self.loop.time()
        connection.read_only = self.gate.why_read_only(connection.role)
        return True

    def refuse(self, connection: Connection, reason: Refused, why: str) -> None:
        """Count a refusal, and log it where this host's was not."""
        self.counts.refused[reason] += 1
        host = connection.peer.rpartition(":")[0]
        if (reason, host) in self._told:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add((reason, host))
        self.log.warning(
            "connection refused, further ones of this host are only counted",
            client=connection.peer,
            listener=self.label,
            setting=reason.value,
            why=why,
        )

    def departed(self, connection: Connection) -> None:
        """Note that a connection has ended."""
        self._admitted.pop(connection.unique_id, None)
        if self._full and len(self._admitted) < self.gate.max_connections:
            self.log.info("connections are accepted again")
            self._full = False

    def shaken(self, handshake: Handshake, connection: Connection, *, failed: str = "") -> None:
        """Note that a TLS handshake has ended: well, or `failed` for that reason, or not even begun."""
        self._handshakes.discard(handshake)
        if failed:
            self.refuse(connection, Refused.TLS, failed)
        if connection.transport is None:
            self.active_connections.pop(connection.unique_id, None)
            self.departed(connection)

    def _refuse_for_lack_of_room(self) -> None:
        self.counts.refused[Refused.LIMIT] += 1
        if not self._full:
            self.log.warning(
                "too many connections, further ones are closed at once",
                limit=self.gate.max_connections,
                setting=f"bridges.{self.name}.max_connections",
            )
            self._full = True


def _keep_alive(listening: socket.socket) -> None:
    """Have the system probe clients that are silent. Connections inherit that from their listener."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
