"""A listener: one port, whose connections are accepted within limits."""

import asyncio
import errno
import socket
from collections.abc import Collection
from typing import Final

from gateway.bridges.modbus import tls
from gateway.bridges.modbus.connection import Connection, Service
from gateway.bridges.modbus.counts import FULL, Counts, Refused
from gateway.core.rare_log import RareLog
from gateway.http.acceptor import Acceptor, Full, Limits, Seat

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
LOOKS: Final = 8
"""Looks for idle connections within an idle time-out."""
MAX_LOGGED_HOSTS: Final = 256
"""Hosts whose refusal is remembered as logged. A network scanner is one line a host, not one a try."""


class Listener:
    """Listens on one port. What it serves are the units of its `service`; who connects gets a `Connection`."""

    def __init__(self, name: str, host: str, port: int, service: Service, *, setting: str = "port") -> None:
        """`name` is the bridge's, `setting` that of the port, for messages."""
        self.name = name
        self.service = service
        self.looks = 0
        """Looks for idle connections until now."""
        self._address = host, port
        self._setting = setting
        self._acceptor: Acceptor[Connection] | None = None
        self._logged: set[tuple[Refused, str]] = set()
        self._rarely = RareLog(service.log)

    @property
    def counts(self) -> Counts:
        """What it has done since it was started."""
        return self.service.counts

    @property
    def port(self) -> int:
        """The port it really listens on."""
        assert self._acceptor is not None  # noqa: S101 - only what listens is asked
        return int(self._acceptor.sockets[0].getsockname()[1])

    @property
    def label(self) -> str:
        """`host:port`."""
        return f"{self._address[0]}:{self.port}"

    @property
    def seats(self) -> Collection[Seat[Connection]]:
        """What all connections hold, those in a TLS handshake among them."""
        return self._acceptor.seats if self._acceptor else ()

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return [seat.protocol for seat in self.seats if seat.protocol.transport is not None]

    async def listen(self) -> None:
        """Begin to listen. Raises OSError that says what to do."""
        host, port = self._address
        try:
            sockets = await _bound(host, port)
        except OSError as error:
            text = _TROUBLE.get(error.errno or 0, "can't listen on port {port} of {host} ({error})")
            raise OSError(
                text.format(host=host, port=port, name=self.name, setting=self._setting, error=error)
            ) from error
        policy = self.service.policy
        limits = Limits(policy.max_connections, policy.max_connections_per_host)
        self._acceptor = Acceptor(sockets, self, limits, tls=policy.tls)
        self._acceptor.start()

    async def expire(self, idle_timeout: float) -> None:
        """Close connections that were silent for `idle_timeout` seconds, until cancelled."""
        while True:
            await asyncio.sleep(idle_timeout / LOOKS)
            self.looks += 1
            for connection in self.connections:
                connection.close_if_idle(idle_timeout)

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._acceptor is not None:
            self._acceptor.close()
            for seat in list(self.seats):
                seat.protocol.close()
            await self._acceptor.wait_closed()

    # what the acceptor calls: `Owner`

    def lets_in(self, peer: str) -> bool:
        """Return whether one from there may connect at all."""
        if self.service.policy.lets_in(peer.rpartition(":")[0]):
            return True
        self.refuse(peer, Refused.ALLOW, "its address is in none of the networks")
        return False

    def protocol(self, seat: Seat[Connection]) -> Connection:
        """Return what will serve a client that has just connected."""
        return Connection(self.service, seat)

    def full(self, why: Full, peer: str, key: str) -> bool:
        """Have the connection that was idle longest make room: of its host, where that has too many, or of all.

        Modbus Messaging on TCP/IP V1.0b, §4.3.1. Who waits for an answer is not idle. Returns whether there is room.
        """
        reason = FULL[why]
        idle = [seat for seat in self.seats if (not key or why is not Full.ADDRESS or seat.key == key)]
        idle = [seat for seat in idle if not seat.protocol.is_busy]
        if not peer or not idle:
            self.counts.refused[reason] += 1
            self._rarely.warning(f"{reason} refused", "no room for a connection", client=peer, **self._limit_of(reason))
            return False
        longest = min(idle, key=lambda seat: seat.protocol.heard_at)
        self.counts.displaced[reason] += 1
        self._rarely.warning(
            f"{reason} displaced",
            "too many connections, the one that was idle longest is closed for a newer one",
            client=longest.peer,
            idle=round(asyncio.get_running_loop().time() - longest.protocol.heard_at, 1),
            newer=peer,
            **self._limit_of(reason),
        )
        longest.protocol.abort()
        return True

    def failed(self, seat: Seat[Connection], error: OSError) -> None:
        """Take note of a TLS handshake that failed, or took too long."""
        if self.service.policy.tls is not None:
            self.refuse(seat.peer, Refused.TLS, tls.in_words(error))

    def refuse(self, peer: str, reason: Refused, why: str) -> None:
        """Count a refusal, and log it where this host's was not."""
        self.counts.refused[reason] += 1
        host = peer.rpartition(":")[0]
        if (reason, host) in self._logged:
            return
        if len(self._logged) >= MAX_LOGGED_HOSTS:
            self._logged.clear()
        self._logged.add((reason, host))
        self.service.log.warning(
            "connection refused, further ones of this host are only counted",
            client=peer,
            listener=self.label,
            setting=reason.value,
            why=why,
        )

    def _limit_of(self, reason: Refused) -> dict[str, object]:
        policy = self.service.policy
        limit = {Refused.LIMIT: policy.max_connections, Refused.HOST: policy.max_connections_per_host}.get(reason)
        return (
            {"reason": reason.value} if limit is None else {"limit": limit, "setting": f"bridges.{self.name}.{reason}"}
        )


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address that a host's name stands for. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, type_, protocol, _, address in dict.fromkeys(found):
            bound = socket.socket(family, type_, protocol)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Connections inherit both.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(bound)
            bound.bind(address)
            bound.listen()
    except OSError:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def _keep_alive(listening: socket.socket) -> None:
    """Have the system probe clients that are silent. Connections inherit that from their listener."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
