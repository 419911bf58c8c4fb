"""Accepts connections within limits: one above them is closed before a byte of it is read, or any TLS is begun.

The one way in, for all that listens. A connection holds a seat from the moment it is accepted, through its TLS
handshake, until its socket is closed. All seats of the process come out of one room (`descriptors.ROOM`).
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar, cast

import msgspec

from gateway.core.timer import Timer
from gateway.http.descriptors import ROOM, Room

MAX_ACCEPTED_IN_A_ROW: Final = 32
"""Connections in a row; each holds the loop for some tenths of a millisecond."""
WAITING: Final = 2048
"""Connections that the kernel keeps until they are accepted."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for a TLS handshake."""
PAUSE: Final = 1.0
"""Seconds without accepting, where the system has nothing left to accept with."""


class Full(StrEnum):
    """What there is no seat for a connection by."""

    TOTAL = "total"
    ADDRESS = "address"
    DESCRIPTORS = "descriptors"


class Limits(msgspec.Struct, frozen=True):
    """How many may be connected at a time."""

    total: int
    per_address: int | None = None


P = TypeVar("P", bound=asyncio.BaseProtocol)


class Seat(Generic[P]):
    """What a connection holds."""

    __slots__ = ("_acceptor", "key", "peer", "protocol", "task", "transport")

    def __init__(self, acceptor: "Acceptor[P]", peer: str, key: str) -> None:
        self._acceptor = acceptor
        self.peer = peer
        """`ip:port`."""
        self.key = key
        """Under which its address is counted; "" where that is not limited."""
        self.protocol: P
        self.task: asyncio.Task[None]
        """Brings the connection about."""
        self.transport: asyncio.Transport | None = None
        """None while it is brought about."""

    def abort(self) -> None:
        """End the connection, whatever it is about."""
        if self.transport is not None:
            self.transport.abort()
        else:
            self.task.cancel()

    def leave(self) -> None:
        """Give the seat back, where that has not been done: the connection is closed."""
        self._acceptor.left(self)


class Owner(Protocol[P]):
    """Who listens."""

    def lets_in(self, peer: str) -> bool:
        """Return whether one from there may connect at all."""
        ...

    def protocol(self, seat: Seat[P]) -> P:
        """Return what speaks with who has just connected. It has the seat left when its connection is lost."""
        ...

    def full(self, why: Full, peer: str, key: str) -> bool:
        """Take note that there is no seat. Returns whether another connection was ended for this one."""
        ...

    def failed(self, seat: Seat[P], error: OSError) -> None:
        """Take note that a connection did not come about, such as by its TLS handshake."""
        ...


class Acceptor(Generic[P]):
    """Listens on sockets that are bound already."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        owner: Owner[P],
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
        key: Callable[[str], str] = str,
        room: Room = ROOM,
    ) -> None:
        """`key` says under which name an address is counted, and "" where it is not limited."""
        self.sockets = tuple(sockets)
        self.seats: dict[Seat[P], None] = {}
        """Those that are held, the oldest first."""
        self._owner = owner
        self._limits = limits
        self._tls = tls
        self._key = key
        self._room = room
        self._by_key: Counter[str] = Counter()
        self._again = Timer(self._listen)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accept, from now on. Raises OSError."""
        for listening in self.sockets:
            listening.setblocking(False)
            listening.listen(WAITING)
        self._room.enter(self, self._limits.total, len(self.sockets))
        self._listen()

    def close(self) -> None:
        """Accept no more, and break off what has not come about. Connections stay as they are."""
        self._again.cancel()
        self._deafen()
        for listening in self.sockets:
            listening.close()
        self._room.leave(self)
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until all that was broken off has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def left(self, seat: Seat[P]) -> None:
        """Take a seat back."""
        if seat in self.seats:
            del self.seats[seat]
            self._room.taken -= 1
            if seat.key:
                self._by_key[seat.key] -= 1
                if not self._by_key[seat.key]:
                    del self._by_key[seat.key]

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for listening in self.sockets:
            loop.add_reader(listening, self._accept, listening)

    def _deafen(self) -> None:
        loop = asyncio.get_running_loop()
        for listening in self.sockets:
            if listening.fileno() >= 0:
                loop.remove_reader(listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(MAX_ACCEPTED_IN_A_ROW):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # gone before it was accepted
                continue
            except OSError:
                # No descriptor or no memory: the connection waits in the kernel, and would call us without end.
                self._owner.full(Full.DESCRIPTORS, "", "")
                self._deafen()
                self._again.set(PAUSE)
                return
            try:
                accepted.setblocking(False)
                self._take(accepted, address)
            except BaseException:
                accepted.close()
                raise

    def _take(self, accepted: socket.socket, address: object) -> None:
        host, port = cast("tuple[str, int]", address)[:2] if isinstance(address, tuple) else ("", 0)
        peer = f"{host}:{port}"
        key = self._key(host)
        if not self._owner.lets_in(peer) or not self._has_seat(peer, key):
            accepted.close()
            return
        seat = Seat(self, peer, key)
        seat.protocol = self._owner.protocol(seat)
        self.seats[seat] = None
        self._room.taken += 1
        if key:
            self._by_key[key] += 1
        seat.task = asyncio.create_task(self._connect(seat, accepted), name=f"connection from {peer}")
        self._tasks.add(seat.task)
        seat.task.add_done_callback(self._tasks.discard)
        # Also where the task is cancelled before its first step.
        seat.task.add_done_callback(lambda task: _give_up(seat, accepted) if task.cancelled() else None)

    def _has_seat(self, peer: str, key: str) -> bool:
        """Return whether there is a seat, after others were ended for it where the owner does that."""
        total, most = self._limits.total, self._limits.per_address
        share = self._room.share(self)
        if key and most is not None and self._by_key[key] >= max(1, most * share // total):
            return self._owner.full(Full.ADDRESS, peer, key)
        if len(self.seats) < share and not self._room.is_full:
            return True
        return self._owner.full(Full.TOTAL if share == total else Full.DESCRIPTORS, peer, key)

    async def _connect(self, seat: Seat[P], accepted: socket.socket) -> None:
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: seat.protocol,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if self._tls else None,
            )
        except OSError as error:
            _give_up(seat, accepted)
            self._owner.failed(seat, error)
            return
        seat.transport = transport
        if self._tls is not None and transport.get_extra_info("cipher") is None:
            # The client went amid the handshake, and asyncio calls nothing.
            seat.leave()
            self._owner.failed(seat, ConnectionResetError("the client went"))


def _give_up(seat: Seat[P], accepted: socket.socket) -> None:
    with suppress(OSError):
        accepted.close()
    seat.leave()
