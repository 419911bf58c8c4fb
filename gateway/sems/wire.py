"""HTTP with a far side that nobody vouches for: what arrives is bounded while it arrives, and while it is unpacked.

Only gzip is asked for, so nothing else is taken; nothing is packed twice. What comes before an answer (its head, and
any number of `100 Continue`) is bounded like the answer itself.
"""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from ssl import SSLContext
from typing import Any, Final

import httpcore
import httpx

from gateway.core.text import MAX_NAME, plain
from gateway.sems.errors import BadEncodingError, TooLongError, TruncatedError, UnreachableError

if find_spec("sniffio") is None:
    # httpcore tries to import it for each lock and event: a search through all of sys.path, a sixth of a call's time.
    sys.modules["sniffio"] = None  # type: ignore[assignment]

MAX_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of an answer, packed or not."""
MAX_HEAD: Final = 64 * 1024
"""Bytes before it."""
HEAD_PIECE: Final = 4096
"""Bytes of a head that are read at a time: what they hold is looked at in one turn of the loop."""
MAX_PIECES: Final = 50_000
"""Chunks of an answer: a chunk for each byte would cost a core for a minute."""
PIECES_A_TURN: Final = 64
TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
MAX_CONNECTIONS: Final = 100
MAX_KEPT: Final = 20
"""Connections that stay open without a call."""
MAX_IDLE_SECONDS: Final = 3.0
"""Seconds for which they do. Servers end them after 5 (uvicorn, Node, Apache), just as the next call leaves."""
GZIP: Final = ("gzip", "x-gzip")


class Call:
    """What is known of a call under way. It is httpcore's `trace` as well: called at each step."""

    def __init__(self, name: str, may_leave: Callable[[], bool] | None = None) -> None:
        self._name = name
        self._may_leave = may_leave
        self._left = MAX_HEAD
        self._in_body = False
        self._has_connected = False
        self._has_begun = False

    @property
    def found_it_closed(self) -> bool:
        """Whether, of a call that broke off, the connection was one kept open, and not a byte of an answer came."""
        return self._has_begun and not self._has_connected and self._left == MAX_HEAD

    async def __call__(self, event: str, _: Mapping[str, Any]) -> None:
        """Stop a request that may not leave any more before its first byte does."""
        if event.startswith("connection.connect"):
            self._has_connected = True
        if event.endswith("send_request_headers.started") and self._may_leave is not None and not self._may_leave():
            raise UnreachableError(f"no time was left to ask SEMS for {self._name}")
        if event.endswith("send_request_headers.started"):
            self._has_begun = True
        if event.endswith("receive_response_headers.complete"):
            self._in_body = True

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Have the bytes that are read inside counted as this call's."""
        token = _CALL.set(self)
        try:
            yield
        finally:
            _CALL.reset(token)

    def at_once(self, wanted: int) -> int:
        """Return how many bytes may be read now. Raises TooLongError."""
        if self._in_body:
            return wanted
        if self._left <= 0:
            raise TooLongError(f"SEMS sent more than {MAX_HEAD >> 10} KiB before its answer to {self._name}")
        return min(wanted, HEAD_PIECE)

    def read(self, count: int) -> None:
        """Count bytes."""
        self._left -= count


_CALL: Final[ContextVar[Call | None]] = ContextVar("the call under way", default=None)


def trusted() -> SSLContext:
    """Return whom the calls of a session trust: slow to make, so that clients share it."""
    return httpx.create_ssl_context(trust_env=False)


def client(trust: SSLContext, kept: int = MAX_KEPT) -> httpx.AsyncClient:
    """Return what makes the calls of a session. It follows no redirect, and takes nothing from the environment.

    It keeps at most `kept` connections open for further calls; with 0 each call has one of its own.
    """
    limits = httpx.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=kept, keepalive_expiry=MAX_IDLE_SECONDS
    )
    return httpx.AsyncClient(
        transport=Transport(verify=trust, trust_env=False, limits=limits),
        headers={"Accept-Encoding": "gzip"},
        timeout=TIMEOUT,
        follow_redirects=False,
        trust_env=False,
    )


async def read_body(name: str, answer: httpx.Response) -> bytes:
    """Return the body of the answer to the interface `name`. Raises TooLongError, TruncatedError, BadEncodingError."""
    packed = _is_packed(name, answer)
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed else None
    body = bytearray()
    count = 0
    async for piece in _pieces(name, answer.aiter_raw()):
        count += len(piece)
        try:
            body += piece if unpacker is None else unpacker.decompress(piece, MAX_ANSWER + 1 - len(body))
        except zlib.error:
            raise BadEncodingError(f"SEMS answered {name} with what can't be unpacked") from None
        if count > MAX_ANSWER or len(body) > MAX_ANSWER:
            raise TooLongError(f"SEMS answered {name} with more than {MAX_ANSWER >> 20} MiB")
        if unpacker is not None and unpacker.unused_data:
            raise BadEncodingError(f"SEMS answered {name} with what can't be unpacked: it goes on after its end")
    if unpacker is not None and count and not unpacker.eof:
        raise TruncatedError(f"SEMS's answer to {name} ends after {count} bytes, packed")
    return bytes(body)


def _is_packed(name: str, answer: httpx.Response) -> bool:
    said = [part.strip().lower() for part in answer.headers.get("content-encoding", "").split(",")]
    encodings = [part for part in said if part not in ("", "identity")]
    if len(encodings) > 1 or any(part not in GZIP for part in encodings):
        how = plain(", ".join(encodings), MAX_NAME)
        raise BadEncodingError(f"SEMS packed its answer to {name} in a way that was not asked for: {how}")
    return bool(encodings)


async def _pieces(name: str, raw: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    count = 0
    async for piece in raw:
        count += 1
        if count > MAX_PIECES:
            raise TooLongError(f"SEMS answered {name} in more than {MAX_PIECES} pieces")
        if count % PIECES_A_TURN == 0:
            await asyncio.sleep(0)  # pieces that are there already would keep everything else waiting
        yield piece


class Transport(httpx.AsyncHTTPTransport):
    """httpx's own, over connections whose bytes are counted."""

    def __init__(self, *, verify: SSLContext, trust_env: bool, limits: httpx.Limits) -> None:
        super().__init__(verify=verify, trust_env=trust_env, limits=limits)
        self._pool._network_backend = _Backend(self._pool._network_backend)  # noqa: SLF001 - httpx has no other way in


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        call = _CALL.get()
        if call is None:
            return await self._stream.read(max_bytes, timeout)
        data = await self._stream.read(call.at_once(max_bytes), timeout)
        call.read(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            # httpcore leaves one to the collector that is cancelled in its handshake.
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
