"""Open files and sockets: how many this process may have, and how many of them its listeners.

The rest is kept back for what the gateway opens by itself: the cloud, the broker, the journal, files. However many
connect to it, that much is left.
"""

import resource
from contextlib import suppress
from typing import Final

import msgspec

KEPT_BACK: Final = 256
"""Descriptors for the gateway's own use; half of all where there are few."""
MIN_CONNECTIONS: Final = 8
"""Connections that a listener is allowed where there is too little for all that listen."""


def raise_limit() -> None:
    """Have as many descriptors as this process may give itself: the soft limit becomes the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a limit that the system does not take stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def kept_back(of: int) -> int:
    """Return how many of so many descriptors no listener may use."""
    return min(KEPT_BACK, of // 2)


def shortage(asked: int) -> str:
    """Return what is wrong where listeners are to accept `asked` connections, and what to do; "" where nothing is."""
    has = limit()
    free = has - kept_back(has)
    if asked <= free:
        return ""
    return (
        f"only {has} files and sockets may be open here, {free} of them by listeners, and the configuration has them "
        f"accept {asked} connections, so each accepts fewer; raise the limit to {asked + KEPT_BACK} (ulimit -Hn, "
        "LimitNOFILE= of systemd, ulimits: of compose), or lower max_connections"
    )


class Room(msgspec.Struct, eq=False):
    """What all listeners of the process may use, shared out by what each of them asks for."""

    taken: int = 0
    """Connections that are open now."""
    _asked: dict[object, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Who listens → connections asked for, sockets that listen."""

    @property
    def seats(self) -> int:
        """Connections that all of them may have together."""
        has = limit()
        return max(1, has - kept_back(has) - sum(sockets for _, sockets in self._asked.values()))

    @property
    def is_full(self) -> bool:
        """Whether no more may be accepted, whoever listens."""
        return self.taken >= self.seats

    def enter(self, listener: object, connections: int, sockets: int) -> None:
        """Note that somebody listens, and how many connections it would have."""
        self._asked[listener] = connections, sockets

    def leave(self, listener: object) -> None:
        """Note that it listens no more."""
        self._asked.pop(listener, None)

    def share(self, listener: object) -> int:
        """Return how many connections it may have: all it asks for, or its part where that is too much for the rest."""
        own, _ = self._asked[listener]
        total = sum(connections for connections, _ in self._asked.values())
        seats = self.seats
        return own if total <= seats else max(min(own, MIN_CONNECTIONS), own * seats // total)


ROOM: Final = Room()
"""The limit is the process's, so this is, too."""
