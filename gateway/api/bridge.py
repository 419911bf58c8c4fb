"""What a bridge is: a class with inert constructor, `start`, `stop`, and the capabilities it has.

A bridge that brings data calls `context.announce` and `context.publish`; one that takes wishes calls
`context.submit`. One that shows things implements `Sink`, one that carries wishes out `Controller`.
"""

from typing import Any, ClassVar, Protocol

from gateway.api.capabilities import HistoryProvider, HistorySink, Sink
from gateway.api.contexts import Context
from gateway.config.settings import Settings

__all__ = ["Bridge", "BridgeSettings", "Context", "HistoryProvider", "HistorySink", "Sink"]


class BridgeSettings(Settings):
    """The root of every bridge's `Settings`: unknown keys are errors."""

    @property
    def roles(self) -> frozenset[str]:
        """The roles that its origins can have; a rule that names another one is a mistake."""
        return frozenset()

    @property
    def connections(self) -> int:
        """How many connections its listeners accept at most, all together."""
        return 0


class Bridge(Protocol):
    """One protocol, and nothing of the others.

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
