"""An HTTP server as a guest in our process: uvicorn, which leaves signals, logs and the loop alone."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import uvicorn
from cryptography import x509
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

GRACE: Final = 2
"""Seconds that requests have to end when the server is told to stop."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds that a client has for the head of a request."""
HEAD_BYTES: Final = 16 * 1024
ACCEPTED_AT_ONCE: Final = 32
"""Connections in a row; each holds the loop for some tenths of a millisecond."""
WAITING: Final = 2048
"""Connections that the kernel keeps until they are accepted."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def tls_context(certificate: Path, key: Path, now: datetime | None = None) -> ssl.SSLContext:
    """Return what a listener with TLS 1.2 or newer needs. Raises OSError, which says which file is wrong.

    With `now`, a certificate whose time is over is wrong too: the listener stays closed, and says why. The
    configuration is judged without: a whole gateway must not stand still because one certificate was forgotten.
    """
    for setting, path in (("certificate", certificate), ("key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise OSError(
                error.errno,
                f"tls.{setting}: {path} can't be read ({error.strerror}); name a PEM file we may read",
            ) from error
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise OSError(
            f"tls: {certificate} and {key} can't be used ({error.reason or error}); name a certificate with its chain, "
            "and the key it was made with, both in PEM form"
        ) from error
    if now is not None:
        _refuse_expired(certificate, now)
    return made


def _refuse_expired(certificate: Path, now: datetime) -> None:
    ends = x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc
    if ends < now:
        raise OSError(f"tls.certificate: {certificate} expired on {ends:%Y-%m-%d}; renew it")


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal, and wait.
    raise OSError("tls.key: the key is encrypted; store it without a password, readable by this user alone")


class HttpServer(uvicorn.Server):
    """Serves an ASGI application on a socket that listens already.

    `options` are uvicorn's, e.g. `limit_concurrency`, the connections it takes at a time.
    """

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        config = uvicorn.Config(
            app,
            http=_Impatient,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            # Who may speak for others is the application's business.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            h11_max_incomplete_event_size=HEAD_BYTES,
            backlog=ACCEPTED_AT_ONCE,
            **options,
        )
        config.load()
        config.ssl = tls
        super().__init__(config)
        self.ready = asyncio.Event()
        """Set when it answers, or has failed to begin."""

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until `should_exit` or cancelled, and close what there is. Cancelled, it breaks off all requests."""
        try:
            await self.serve([listener])
        finally:
            for server in getattr(self, "servers", []):
                server.close()
            for task in list(self.server_state.tasks):
                task.cancel()
            for connection in list(self.server_state.connections):
                connection.shutdown()
            listener.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        try:
            await super().startup(sockets)
            # asyncio has one number for both, and has just told it to the kernel.
            for listener in sockets or ():
                listener.listen(WAITING)
        finally:
            self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none: they are not a guest's business."""
        yield


class _Impatient(H11Protocol):
    """Closes a connection on which no request begins in time. uvicorn waits for ever for the first one."""

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_request:
            self._relax()
        elif self._clock is None and self.timeout_keep_alive_task is None:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self) -> None:
        self._clock = self.loop.call_later(HEAD_TIMEOUT, self._give_up)

    def _relax(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _give_up(self) -> None:
        self._clock = None
        if not self._has_request and not self.transport.is_closing():
            self.transport.close()
