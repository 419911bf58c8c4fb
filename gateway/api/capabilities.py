"""What a bridge may be able to do: it implements the methods, and is found to have the capability by that.

`Controller`, `Admitting` and `Estimator` are in `gateway.core.controller`, for commands know them. A source
and an origin need no method: they call their context.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gateway.core.model import HistoryPlan, Page, RateLimitWait, Resolution
from gateway.core.probe import Probe

if TYPE_CHECKING:
    from gateway.core.mailbox import Updates


@runtime_checkable
class Sink(Protocol):
    """A bridge that shows what the router knows."""

    async def deliver(self, updates: "Updates") -> None:
        """Take the mail. While this runs, newer states replace older ones in the mailbox."""
        ...


@runtime_checkable
class HistorySink(Sink, Protocol):
    """A sink that keeps every snapshot: none is conflated, and `deliver` returns once they are stored.

    When `deliver` raises, or the bridge stops while it runs, the same updates are delivered again once the bridge
    is up again: each snapshot at least once, in order.
    """

    backlog: int
    """How many snapshots wait for it at most, also while it is down. Past that the oldest is dropped and counted."""


@runtime_checkable
class Probing(Protocol):
    """A bridge that can say, without being started, whether what it needs is there."""

    def probe(self) -> AsyncIterator[Probe]:
        """Look at one thing after another, as far as it goes; change nothing, and publish nothing."""
        ...


@runtime_checkable
class Steering(Protocol):
    """What commands devices by itself: a fleet, a limit."""

    def steers(self, serial: str, setpoint: str = "") -> bool:
        """Return whether it would set this setpoint of a device, or any; also where it does not do so now."""
        ...


@runtime_checkable
class HistoryProvider(Protocol):
    """A bridge that can tell a device's past."""

    def keeps(self, serial: str) -> bool:
        """Return whether there is a history of that device."""
        ...

    def history_plan(self, serial: str, start: datetime, end: datetime, resolution: Resolution) -> HistoryPlan:
        """Return what `history` would bring. Raises RefusedError where there is none of that resolution."""
        ...

    def history(
        self, serial: str, start: datetime, end: datetime, resolution: Resolution
    ) -> AsyncIterator[Page | RateLimitWait]:
        """Tell it page by page, oldest first, from the page that `start` lies in.

        Waits where calls are limited, and says so when it begins to. Raises RefusedError where there is none of
        that resolution, and what the far side raises.
        """
        ...
