"""The TLS handshake in front of a connection. Apart, so that whom it fails for is known, counted and logged."""

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from gateway.bridges.modbus.connection import Connection
    from gateway.bridges.modbus.server import Listener

TIMEOUT: Final = 10.0
"""Seconds for the handshake, and for the good-bye."""


class Handshake(asyncio.Protocol):
    """Holds the client's place until it has shown its certificate; then the `Connection` takes over."""

    def __init__(self, listener: "Listener", connection: "Connection", context: ssl.SSLContext) -> None:
        self._listener = listener
        self._connection = connection
        self._context = context
        self._socket: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, where the client may connect at all: a stranger gets no handshake."""
        host, port, *_ = transport.get_extra_info("peername") or ("?", 0)
        self._connection.peer = f"{host}:{port}"
        if self._listener.admit(self._connection):
            # The socket starts anew, as one accepted but not yet read from: `start_tls` would have to be quicker than
            # the client's first bytes, and on uvloop it is not.
            self._socket = transport.get_extra_info("socket").dup()
            self._listener.spawn(self._shake(), f"handshake with {self._connection.peer}")
        else:
            self._listener.shaken(self, self._connection)
        cast("asyncio.Transport", transport).abort()

    def abort(self) -> None:
        """Give up, where it has not begun."""
        if self._socket is not None:
            self._socket.close()

    async def _shake(self) -> None:
        """Do the handshake. When it is done, asyncio tells the connection that it is made."""
        assert self._socket is not None  # noqa: S101 - see above
        accepted, self._socket = self._socket, None
        failed = ""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=TIMEOUT,
                ssl_shutdown_timeout=TIMEOUT,
            )
        except OSError as error:
            failed = _in_words(error)
        self._listener.shaken(self, self._connection, failed=failed)


def _in_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return f"no TLS connection: {reason}"
    return f"no TLS connection: {str(error) or type(error).__name__}"
