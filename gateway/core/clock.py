"""Time comes in as a clock, so that tests own it."""

import asyncio
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the gateway asks of time. To wait, it awaits `asyncio.sleep`, which runs on the loop's clock."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC. It may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow. Deadlines within one process run on these."""
        ...


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, for so many seconds at most."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        pass


class SystemClock:
    """The machine's wall clock, and the event loop's own."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the event loop's clock, in seconds."""
        return asyncio.get_running_loop().time()
