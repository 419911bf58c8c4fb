"""One HTTP connection: how long a client may take, how large a head may be, and how it ends where it should not be.

uvicorn waits for ever for a first request, for a client that does not read, and for one that is closed and does not
go; and h11 measures a head that has not come whole, but not one that has.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gateway.core.timer import Timer

if TYPE_CHECKING:
    import asyncio

    from gateway.http.acceptor import Seat

HEAD_TIMEOUT: Final = 10.0
"""Seconds that a client has for the head of a request."""
HEAD_BYTES: Final = 16 * 1024
"""Of the request line and all headers, with the empty line behind them."""
STALL_TIMEOUT: Final = 30.0
"""Seconds in which a client must have read something of what it is sent."""
LINGER: Final = 2.0
"""Seconds for a client to stop sending after a request was refused, so that it can read why."""
LINGER_BYTES: Final = 1024 * 1024
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
"""A target in absolute form, as proxies are sent it."""


class Closed(StrEnum):
    """Why a connection was closed."""

    TOTAL = "max_connections"
    """At once: so many are open."""
    ADDRESS = "max_connections_per_address"
    """At once: so many of its address are open."""
    DESCRIPTORS = "descriptors"
    """At once: what is left is kept back."""
    TLS = "tls"
    HEAD_TIMEOUT = "head_timeout"
    HEAD_TOO_LARGE = "head_too_large"
    MALFORMED = "malformed"
    """No HTTP."""
    NOT_READING = "not_reading"
    IDLE = "idle"
    """No further request came in time."""


class _Parser(h11.Connection):
    """Refuses a head that is too large also where it comes in one piece, and one with two lengths of its body.

    A proxy before us may go by the other one, and see other requests than we do (RFC 9112 §6.1).
    """

    too_large = False

    def next_event(self) -> Any:
        """See h11. Raises RemoteProtocolError."""
        before = len(self.trailing_data[0]) if self.their_state is h11.IDLE else 0
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.too_large = error.error_status_hint == 431
            raise
        if type(event) is h11.Request and before - len(self.trailing_data[0]) > HEAD_BYTES:
            self.too_large = True
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        return _checked(event) if type(event) is h11.Request else event


def _checked(request: h11.Request) -> h11.Request:
    """Return a request as others send it. Raises RemoteProtocolError."""
    names = {name for name, _ in request.headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
    found = _ABSOLUTE.fullmatch(request.target)
    if found is None:
        return request
    # RFC 9112 §3.2.2: to be taken, and what it says of the host counts, not the header.
    authority, rest = found.groups()
    headers = [(b"host", authority), *((name, value) for name, value in request.headers if name != b"host")]
    return h11.Request(
        method=request.method,
        target=rest if rest.startswith(b"/") else b"/" + rest,
        headers=headers,
        http_version=request.http_version,
    )


class Connection(H11Protocol):
    """Serves one client."""

    def __init__(
        self, config: Config, state: ServerState, seat: "Seat[Connection]", count: Callable[[Closed], None]
    ) -> None:
        super().__init__(config, state, {})
        self.conn = _Parser(h11.SERVER, HEAD_BYTES)
        self._seat = seat
        self._count = count
        self._clock = Timer(self._give_up)
        self._stall = Timer(self._look_at_unsent)
        self._unsent = 0
        self._refused = False
        """A refusal was sent; what still comes is thrown away."""
        self._thrown_away = 0

    # what asyncio calls

    def connection_made(self, transport: "asyncio.Transport") -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._refused:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        if self._refused:
            return
        if self._has_request:
            self._clock.cancel()
        elif not self._clock.is_set and self.timeout_keep_alive_task is None:
            self._expect()

    def pause_writing(self) -> None:
        """See to it that a client that does not read holds nothing for ever."""
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stall.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._clock.cancel()
        self._stall.cancel()
        super().connection_lost(exc)
        # uvicorn leaves it set where the connection broke.
        self._unset_keepalive_if_required()
        self._seat.leave()

    # what uvicorn calls

    def on_response_complete(self) -> None:
        """See to it that a connection that is closed ends."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_unsent()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong, and let the client read it: closed with bytes unread, TCP would throw it away."""
        too_large = self.conn.too_large  # type: ignore[attr-defined]
        self._count(Closed.HEAD_TOO_LARGE if too_large else Closed.MALFORMED)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        status, text = (431, f"the head has more than {HEAD_BYTES} bytes") if too_large else (400, msg)
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
        try:
            self.transport.write(
                b"".join(
                    self.conn.send(event) or b""
                    for event in (
                        h11.Response(status_code=status, headers=headers),
                        h11.Data(data=text.encode()),
                        h11.EndOfMessage(),
                    )
                )
            )
        except h11.LocalProtocolError:  # an answer is on its way already
            self.transport.abort()
            return
        finally:
            self._refused = True
        self._clock.set(LINGER)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """End in good order, where nothing was refused."""
        if self._refused:
            self.transport.abort()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which no further request came."""
        if not self.transport.is_closing():
            self._count(Closed.IDLE)
            self.conn.send(h11.ConnectionClosed())
            self.transport.close()
            self._watch_unsent()

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self) -> None:
        self._clock.set(HEAD_TIMEOUT)

    def _give_up(self) -> None:
        if self._refused:
            self.transport.abort()
        elif not self._has_request and not self.transport.is_closing():
            self._count(Closed.HEAD_TIMEOUT)
            self.transport.abort()

    def _watch_unsent(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._stall.set(STALL_TIMEOUT)

    def _look_at_unsent(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left < self._unsent:
            self._watch_unsent()
            return
        if left:
            self._count(Closed.NOT_READING)
        self.transport.abort()
