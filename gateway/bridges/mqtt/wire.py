"""The socket below paho, with a buffer each way.

paho sends every packet by a system call of its own and reads each in three or more. Here what it sends within one
turn of the loop goes out together, and what has come is read together. A WebSocket keeps paho's own buffers.
"""

import contextlib
import socket
import ssl
from typing import Any, Final

from paho.mqtt.client import Client as Paho

MOST_UNSENT: Final = 64 * 1024
"""Bytes to keep for a peer that does not read; paho keeps its packets then."""
READ_SIZE: Final = 64 * 1024


class Wire:
    """What paho takes for a socket. Not blocking once paho has it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._out = bytearray()
        self._in = b""
        self._read_to = 0

    @property
    def unsent(self) -> bool:
        """Whether anything waits that `flush` has to send."""
        return bool(self._out)

    def send(self, data: bytes | bytearray) -> int:
        """Take all of it, for `flush`. Raises BlockingIOError while too much waits."""
        if len(self._out) >= MOST_UNSENT:
            self.flush()
            if len(self._out) >= MOST_UNSENT:
                raise BlockingIOError
        self._out += data
        return len(data)

    def flush(self) -> None:
        """Send what the operating system takes now. Raises OSError when the connection is gone."""
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass

    def recv(self, most: int) -> bytes:
        """Return some bytes, b"" at the end. Raises as a socket does that has none now."""
        start = self._read_to
        if start >= len(self._in):
            self._in, start = self._sock.recv(READ_SIZE), 0
        piece = self._in[start : start + most]
        self._read_to = start + len(piece)
        return piece

    def pending(self) -> int:
        """Return how many bytes can be read of which the loop sees nothing on the socket."""
        within_tls = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._in) - self._read_to + within_tls

    def fileno(self) -> int:
        """Return what the loop watches."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """As of a socket."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Send what goes out at once, e.g. a DISCONNECT, and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self._sock.close()


class BufferedPaho(Paho):
    """A paho client over a `Wire`."""

    def _create_socket(self) -> Any:
        # paho's one place where connections of all kinds are opened, since its 2.0; there is no public one.
        sock = super()._create_socket()
        # A WebSocket is no socket here but an object of paho's.
        return Wire(sock) if isinstance(sock, socket.socket) else sock

    def flush(self) -> bool:
        """Send what waits, as far as it goes; return whether all went. Raises OSError when the connection is gone."""
        self.loop_write()
        wire = self.socket()
        if isinstance(wire, Wire):
            wire.flush()
            return not wire.unsent and not self.want_write()
        return not self.want_write()
