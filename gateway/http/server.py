"""An HTTP server as a guest in our process: uvicorn, which leaves signals, logs and the loop alone.

Whom it serves, an `Acceptor` says; how long and how large a request may be, `gateway.http.connection`.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.core.metrics import Metrics, counter, gauge
from gateway.core.rare_log import RareLog
from gateway.http.acceptor import Acceptor, Full, Limits, Seat
from gateway.http.addresses import Network, address_of, home, within
from gateway.http.connection import Closed, Connection

GRACE: Final = 2
"""Seconds that requests have to end when the server stops."""
NO_LIMITS: Final = Limits(total=1000)
BEGUN_PER_TURN: Final = 20
"""Requests that begin to be worked on in a turn of the loop, some 2 ms: of hundreds that come at once others wait."""


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Return a socket that listens. Raises OSError, which names the setting to change."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(
            error.errno, f"can't listen on port {port} of {host} ({error.strerror or error}); set {setting}"
        ) from error
    # Connections inherit it. asyncio sets it by itself only where a socket names its protocol, and without it
    # every answer waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _InTurn:
    """Passes requests on, so many in a turn of the loop (ASGI)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begun = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request once it has its turn."""
        while self._begun >= BEGUN_PER_TURN:
            await asyncio.sleep(0)
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun += 1
        await self._app(scope, receive, send)

    def _next_turn(self) -> None:
        self._begun = 0


class HttpServer(uvicorn.Server):
    """Serves an ASGI application on a socket that is bound already."""

    def __init__(
        self,
        app: ASGIApp,
        tls: ssl.SSLContext | None = None,
        *,
        name: str = "",
        log: structlog.stdlib.BoundLogger | None = None,
        limits: Limits = NO_LIMITS,
        proxies: Sequence[Network] = (),
    ) -> None:
        """`name` is that of the bridge; without one there are no metrics.

        Addresses among `proxies` speak for many, so how many connections each has is not limited by itself.
        """
        config = uvicorn.Config(
            _InTurn(app),
            http=Connection,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            # Who may speak for others is the application's business.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        config.load()
        super().__init__(config)
        self.ready = asyncio.Event()
        """Set when it answers, or has failed to begin."""
        self.closed: Counter[Closed] = Counter()
        """Connections that were closed for a reason."""
        self.limits = limits
        self._name = name
        self._tls = tls
        self._proxies = tuple(proxies)
        self._rarely = RareLog(log or structlog.get_logger("http"))

    @property
    def connections(self) -> int:
        """How many are open, those in a TLS handshake among them."""
        return sum(len(server.seats) for server in getattr(self, "servers", []))

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until `should_exit` or cancelled, and close what there is. Cancelled, it breaks off all requests."""
        if self._name:
            METRICS.watch(self._name, self)
        try:
            await self.serve([listener])
        finally:
            METRICS.forget(self._name)
            for server in getattr(self, "servers", []):
                server.close()
            for task in list(self.server_state.tasks):
                task.cancel()
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            listener.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        acceptor = Acceptor(sockets or [], self, self.limits, tls=self._tls, key=self._home)
        self.servers = [acceptor]  # type: ignore[list-item]
        try:
            acceptor.start()
            self.started = True
        finally:
            self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none: they are not a guest's business."""
        yield

    def count(self, reason: Closed, peer: str, event: str = "a connection was closed") -> None:
        """Note that a connection was closed, and log it where strangers can't make that a flood."""
        self.closed[reason] += 1
        if reason is not Closed.IDLE:
            self._rarely.warning(reason, event, reason=reason.value, client=peer, **self._limit_of(reason))

    # the acceptor's side: `Owner`

    def lets_in(self, _: str) -> bool:
        """Return True: who may ask for what is the application's business."""
        return True

    def protocol(self, seat: Seat[Connection]) -> Connection:
        """Return what speaks with who has just connected."""
        return Connection(self.config, self.server_state, seat, lambda reason: self.count(reason, seat.peer))

    def full(self, why: Full, peer: str, key: str) -> bool:  # noqa: ARG002 - the acceptor's signature
        """Take note of a connection that there was no seat for. None is ended for another."""
        self.count(Closed[why.name], peer, "too many connections, further ones are closed at once")
        return False

    def failed(self, seat: Seat[Connection], error: OSError) -> None:  # noqa: ARG002 - as above
        """Take note of a handshake that failed, or took too long."""
        if self._tls is not None:
            self.count(Closed.TLS, seat.peer)

    def _limit_of(self, reason: Closed) -> dict[str, object]:
        limit = {Closed.TOTAL: self.limits.total, Closed.ADDRESS: self.limits.per_address}.get(reason)
        return {} if limit is None else {"limit": limit, "setting": f"bridges.{self._name}.{reason.value}"}

    def _home(self, host: str) -> str:
        """Return under what name connections are counted; "" for a proxy's, which are not."""
        address = address_of(host)
        if address is None:
            return host
        return "" if within(address, self._proxies) else home(address)


METRICS: Final = Metrics[HttpServer](
    gauge("sems_gateway_http_connections", "connections open now", lambda http: http.connections),
    counter(
        "sems_gateway_http_connections_closed",
        "connections closed by the gateway, by reason",
        lambda http: {reason: http.closed[reason] for reason in Closed},
        "reason",
    ),
)
