"""What a bridge is: a class with inert constructor, `start`, `stop`, and the capabilities it has.

A bridge that brings data calls `context.announce` and `context.publish`; one that takes wishes calls
`context.submit`. One that shows things implements `Sink`, one that carries wishes out `Controller`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from gateway.api.capabilities import HistoryProvider, HistorySink, Sink
from gateway.api.contexts import Context
from gateway.config.settings import Settings

__all__ = [
    "EVERYWHERE",
    "Bridge",
    "BridgeSettings",
    "Claim",
    "Context",
    "HistoryProvider",
    "HistorySink",
    "Sink",
    "tcp_ports",
]


EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - not listened on here
"""Hosts that stand for every address of the machine."""


def _stands_for(everywhere: str, host: str) -> bool:
    """Return whether a host is every address, and another one of them: `::` has those of IPv6 alone."""
    if everywhere == "::":
        return ":" in host or not host
    return everywhere in EVERYWHERE and ":" not in host


class Claim(NamedTuple):
    """Something that one bridge alone can have, as a port."""

    setting: str
    """Which setting claims it, and is to be changed, e.g. `port`."""
    what: str
    """What it is, in words; the same words are the same thing, e.g. `TCP port 502`."""
    host: str = ""
    """On which address of this machine; "" for all of them."""
    port: int = 0
    """Of TCP, where it listens."""

    def meets(self, other: "Claim") -> bool:
        """Return whether both can't be had at the same time."""
        return self.what == other.what and (
            self.host == other.host or any(map(_stands_for, (self.host, other.host), (other.host, self.host)))
        )


def tcp_ports(host: str, port: int, count: int = 1, setting: str = "port") -> list[Claim]:
    """Return the claims of a listener; none where port is 0, which is any free one."""
    where = "127.0.0.1" if host == "localhost" else host
    return [Claim(setting, f"TCP port {port + n}", where, port + n) for n in range(count)] if port else []


class BridgeSettings(Settings):
    """The root of every bridge's `Settings`: unknown keys are errors."""

    @property
    def roles(self) -> frozenset[str] | None:
        """The roles that its origins can have; a rule that names another one is a mistake.

        None where it is the far side that names them.
        """
        return frozenset()

    @property
    def connections(self) -> int:
        """How many connections its listeners accept at most, all together."""
        return 0

    def claims(self, gateway_id: str) -> Iterable[Claim]:  # noqa: ARG002 - most need none
        """Return what no other bridge may have. `gateway_id` is `gateway.id`."""
        return ()

    def conflicts(self, data_dir: Path, name: str) -> Iterable[str]:  # noqa: ARG002 - most keep nothing
        """Return where these settings and what a bridge of that name keeps in `data_dir` do not fit, each in words.

        Blocks. Raises OSError where that can't be read.
        """
        return ()


class Bridge(Protocol):
    """One protocol, and nothing of the others.

    One may say whom it talks to, or where it listens, for the line that is logged once at start: `where`, a property.
    One that finds no devices by itself, but waits to be called, says so: `listens: ClassVar[bool] = True`.
    """

    Settings: ClassVar[type[BridgeSettings]]

    def __init__(self, settings: Any, context: Context) -> None:
        """Keep both; do nothing."""
        ...

    async def start(self) -> None:
        """Begin. A far side that does not answer is no reason to raise: report it and go on trying.

        Raises OSError where something local is in the way, e.g. a port in use; the supervisor tries again.
        """
        ...

    async def stop(self) -> None:
        """End in good order; also called after a failed start. Spawned tasks have been cancelled before."""
        ...
