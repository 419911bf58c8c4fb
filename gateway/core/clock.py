"""Time comes in as a clock, so that tests own it.

A deadline is kept by three clocks, and is over as soon as one of them says so: the loop's monotonic clock stands while
a machine sleeps, the boot clock stands while a virtual machine is paused, and the wall clock may be set. A clock that
is set back revives nothing then, and one that was wrong ends things early, which is the safe side.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import msgspec

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""Changes with every start of the machine: random(4)."""
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
LONGEST: Final = timedelta(days=3_650)
"""More than any deadline needs; keeps dates within what datetime can hold."""


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One instant on all three clocks."""

    monotonic: float
    """The event loop's clock, seconds."""
    boot: float
    """Seconds since the machine started, with the time that it slept (CLOCK_BOOTTIME)."""
    wall: datetime

    def later(self, seconds: float) -> Self:
        """Return the instant so many seconds from this one, on each clock."""
        ahead = max(-LONGEST, min(LONGEST, timedelta(seconds=seconds)))
        return type(self)(self.monotonic + seconds, self.boot + seconds, self.wall + ahead)

    def left(self, now: "Moment") -> float:
        """Return how many seconds are left from `now` until this one, by the clock that has it soonest."""
        return min(self.monotonic - now.monotonic, self.boot - now.boot, (self.wall - now.wall).total_seconds())


class Clock:
    """What the gateway asks of time. To wait, it awaits `asyncio.sleep`, which runs on the loop's clock."""

    _far: tuple[float, datetime] | None = None
    """What a far side's clock said, and when, on the boot clock."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the wall clock, in UTC. It may jump."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds that only ever grow; a machine that sleeps does not count them."""

    def boot(self) -> float:
        """Return seconds since the machine started, also those that it slept."""
        return self.monotonic()

    def boot_id(self) -> str:
        """Return what tells this start of the machine from every other; "" where nothing does."""
        return ""

    def moment(self) -> Moment:
        """Return this instant on all clocks."""
        return Moment(self.monotonic(), self.boot(), self.now())

    def hear(self, far: datetime) -> None:
        """Take in what a far side's clock says, e.g. the Date of an answer."""
        self._far = self.boot(), far

    @property
    def far(self) -> datetime | None:
        """What the far side's clock says by now; None where none was heard."""
        if self._far is None:
            return None
        at, said = self._far
        return said + timedelta(seconds=self.boot() - at)


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, for so many seconds at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()


class SystemClock(Clock):
    """The machine's clocks, and the own one of the event loop that asked first."""

    def __init__(self) -> None:
        self._boot_id = boot_id()
        self._loop_time: Callable[[], float] | None = None

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the event loop's clock, in seconds."""
        if self._loop_time is None:
            self._loop_time = asyncio.get_running_loop().time  # to ask for the loop each time is a system call
        return self._loop_time()

    def boot(self) -> float:
        """Return the boot clock, in seconds; the monotonic one where there is none."""
        return time.clock_gettime(_BOOT_CLOCK)

    def boot_id(self) -> str:
        """Return the kernel's boot id."""
        return self._boot_id


def boot_id() -> str:
    """Return the id of this start of the machine; "" where the system has none."""
    with suppress(OSError):
        return BOOT_ID.read_text("ascii").strip()
    return ""
