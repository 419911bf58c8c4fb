"""The call budget of one account: calls in any hour never exceed what SEMS allows.

What is most urgent goes first: each priority leaves free what those above it may need.

| priority | may use |
|---|---|
| revert | every call |
| control | all but `REVERT_RESERVE` of them |
| polling | `MAX_POLLING_SHARE` of them, less what commands under way want; leaves `MIN_HISTORY_SHARE` to history |
| history | what polling does not plan with, but at least `MIN_HISTORY_SHARE` |
"""

import asyncio
import math
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import msgspec
import structlog

from gateway.api.served import CallBudget
from gateway.core.clock import Clock
from gateway.sems.errors import BudgetSpentError, RateLimitedError
from gateway.sems.ledger import LEASE_SECONDS, Ledger, Spent

HOUR: Final = 3600.0
TRANSIT: Final = 60.0
"""Seconds that a call may be under way: SEMS counts it when it arrives, so for us an hour is that much longer."""
REVERT_RESERVE: Final = 0.02
MAX_POLLING_SHARE: Final = 0.9
MIN_HISTORY_SHARE: Final = 0.02
MAX_PLANNED_SHARE: Final = 0.85
"""What polling may plan with is less than what it may use: plans are not met to the second."""
LEASES_PER_HOUR: Final = 60
BUCKET: Final = 60.0
"""Seconds whose calls are written down together."""


class Priority(IntEnum):
    """Who goes first when calls are short."""

    HISTORY = 0
    POLLING = 1
    CONTROL = 2
    REVERT = 3


class _Lease(msgspec.Struct):
    """Calls that are on the disk already."""

    left: int
    until: float


class Budget:
    """Counts calls over a sliding hour; with a ledger, over restarts and for all processes that share it."""

    def __init__(self, per_hour: int, clock: Clock, ledger: Ledger | None = None) -> None:
        self.per_hour = per_hour
        self.wanted = 0
        """Calls that commands under way need yet; polling and history leave them free."""
        self._plans: dict[str, float] = {}
        """Bridge → calls an hour that its polling plans to make."""
        self._clock = clock
        self._ledger = ledger
        self._user = uuid.uuid4().hex
        self._calls: deque[tuple[float, Priority]] = deque()
        self._by_priority: Counter[Priority] = Counter()
        self._others: Sequence[Spent] = ()
        self._lease = _Lease(0, -math.inf)
        self._writing = asyncio.Lock()
        self._writers: set[asyncio.Task[None]] = set()
        self._held_until = -math.inf
        self._unwritten = False
        self._log = structlog.get_logger("sems")

    @classmethod
    def shared(cls, path: Path, per_hour: int, clock: Clock) -> "Budget":
        """Return the one budget of this process that is kept in a file; where two differ, the smaller one counts."""
        path = path.absolute()
        budget = _SHARED.get(path)
        if budget is None:
            budget = _SHARED[path] = cls(per_hour, clock, Ledger(path))
        budget.per_hour = min(budget.per_hour, per_hour)
        return budget

    # Shares

    @property
    def planned(self) -> float:
        """Calls an hour that polling plans to make; history takes what is left."""
        return sum(self._plans.values())

    def plan(self, bridge: str, per_hour: float) -> None:
        """Take note of how many calls an hour the polling of a bridge plans to make; 0 where it ends."""
        self._plans.pop(bridge, None)
        if per_hour:
            self._plans[bridge] = per_hour

    def share(self, bridge: str) -> float:
        """Return how many calls an hour a bridge may plan with: what others leave, and an even share at least."""
        others = self.planned - self._plans.get(bridge, 0.0)
        users = len(self._plans.keys() | {bridge})
        return max(self.for_polling - others, self.for_polling / users)

    @property
    def for_polling(self) -> int:
        """Calls an hour that polling may plan with."""
        return max(1, min(int(self.per_hour * MAX_PLANNED_SHARE), self._polling_most - self._history_least))

    @property
    def _control_most(self) -> int:
        return max(1, self.per_hour - max(1, int(self.per_hour * REVERT_RESERVE)))

    @property
    def _polling_most(self) -> int:
        return max(1, min(int(self.per_hour * MAX_POLLING_SHARE), self._control_most - 1))

    @property
    def _history_least(self) -> int:
        return min(max(1, int(self.per_hour * MIN_HISTORY_SHARE)), self._polling_most - 1)

    @property
    def _unwanted(self) -> int:
        return max(0, min(self._polling_most, self._control_most - self.wanted))

    def _limits(self, priority: Priority) -> tuple[int, int]:
        """Return how many calls there may be of all priorities together, and how many of this one."""
        match priority:
            case Priority.REVERT:
                return self.per_hour, self.per_hour
            case Priority.CONTROL:
                return self._control_most, self.per_hour
            case Priority.POLLING:
                return self._unwanted, self._polling_most - self._history_least
            case Priority.HISTORY:
                unplanned = math.floor(self._polling_most - self.planned * (HOUR + TRANSIT) / HOUR)
                return self._unwanted, max(self._history_least, unplanned)

    # Asking

    @property
    def used(self) -> int:
        """Calls made within the last hour; what other processes have leased is among them."""
        return self._count(self._clock.monotonic())

    def status(self) -> CallBudget:
        """Return how it stands, for who looks at it."""
        return CallBudget(
            account=str(self._ledger.path) if self._ledger is not None else self._user,
            per_hour=self.per_hour,
            used=self.used,
            planned=math.ceil(self.planned),
            left=self.room(Priority.REVERT),
            held=max(0.0, self._held_until - self._clock.monotonic()),
        )

    def wait(self, priority: Priority = Priority.POLLING) -> float:
        """Return the seconds until a call may be made; 0 when it may be made now."""
        now = self._clock.monotonic()
        return max(self._held_until - now, self._own_wait(priority, now), 0.0)

    def most(self, priority: Priority) -> int:
        """Return how many calls an hour there may be when nobody else makes any."""
        return min(self._limits(priority))

    def room(self, priority: Priority) -> int:
        """Return how many calls may be made now."""
        now = self._clock.monotonic()
        if self._held_until > now:
            return 0
        total_most, most = self._limits(priority)
        return max(0, min(total_most - self._count(now), most - self._by_priority[priority]))

    def until(self, calls: int, priority: Priority) -> float:
        """Return the seconds until so many calls may be made, if nobody makes any before.

        Of more calls than an hour has, those of the hours after the first follow in whole hours.
        """
        now = self._clock.monotonic()
        most = max(1, self.most(priority))
        hours, left = divmod(max(calls, 1) - 1, most)
        gone = self._count(now) + left + 1 - most
        wait = self._when_gone(gone, now) - now if gone > 0 else 0.0
        return max(self._held_until - now, wait, 0.0) + hours * (HOUR + TRANSIT)

    def check(self, priority: Priority) -> None:
        """Raise BudgetSpentError or RateLimitedError unless a call may be made now."""
        now = self._clock.monotonic()
        wait = self._held_until - now
        if wait > 0:
            raise RateLimitedError(f"SEMS limits this account's calls; next in {wait:.0f} s", wait)
        wait = self._own_wait(priority, now)
        if wait > 0:
            raise BudgetSpentError(
                f"this account's {self.per_hour} calls an hour are used up for {priority.name.lower()}; "
                f"next in {wait:.0f} s",
                wait,
            )

    def _count(self, now: float) -> int:
        """Forget what is over an hour old, and count the rest."""
        while self._calls and self._calls[0][0] <= now - HOUR - TRANSIT:
            _, priority = self._calls.popleft()
            self._by_priority[priority] -= 1
        return len(self._calls) + sum(count for time, count in self._others if time > now - HOUR - TRANSIT)

    def _own_wait(self, priority: Priority, now: float) -> float:
        total_most, most = self._limits(priority)
        excess = self._count(now) - total_most
        own_excess = self._by_priority[priority] - most
        free = now
        if excess >= 0:
            free = self._when_gone(excess + 1, now)
        if own_excess >= 0:
            times = (time for time, whose in self._calls if whose is priority)
            free = max(free, next(islice(times, own_excess, None), now) + HOUR + TRANSIT)
        return max(0.0, free - now)

    def _when_gone(self, count: int, now: float) -> float:
        """Return when that many of the calls that count now do not any more."""
        gone = now - HOUR - TRANSIT
        spent = [entry for entry in self._others if entry[0] > gone] + [(time, 1) for time, _ in self._calls]
        for time, calls in sorted(spent):
            count -= calls
            if count <= 0:
                return time + HOUR + TRANSIT
        return now + HOUR + TRANSIT

    # Spending

    async def take(self, priority: Priority) -> None:
        """Count a call that is about to be made. Raises as `check` does; nothing is counted then."""
        self.check(priority)
        while self._ledger is not None and not self._leased:
            await self._write(lease=True)
            self.check(priority)
        self.spend(priority)

    def spend(self, priority: Priority = Priority.POLLING) -> None:
        """Count a call in memory alone. Raises as `check` does."""
        self.check(priority)
        self._lease.left -= 1
        self._calls.append((self._clock.monotonic(), priority))
        self._by_priority[priority] += 1

    def hold(self, seconds: float) -> None:
        """Let nobody call for a while: SEMS says so."""
        self._held_until = max(self._held_until, self._clock.monotonic() + seconds)
        if self._ledger is not None:
            self._written_soon()

    async def settle(self) -> None:
        """Learn what others have spent, earlier runs among them, and give back what was leased and is not needed."""
        if self._ledger is not None:
            await self._write(lease=False)

    @property
    def _leased(self) -> bool:
        return self._lease.left > 0 and self._clock.monotonic() < self._lease.until

    async def _write(self, *, lease: bool) -> None:
        """Write in a thread, for the loop must not wait for the disk. Whoever waits may be cancelled, the writing not.

        Two writers would undo each other's.
        """
        await asyncio.shield(self._written_soon(lease=lease))

    def _written_soon(self, *, lease: bool = False) -> "asyncio.Task[None]":
        writer = asyncio.create_task(self._write_alone(lease=lease), name="SEMS budget")
        self._writers.add(writer)
        writer.add_done_callback(self._writers.discard)
        return writer

    async def _write_alone(self, *, lease: bool) -> None:
        async with self._writing:
            if self._ledger is None or (lease and self._leased):
                return
            self._lease.left = 0  # or a call would be made that is not written
            now = self._clock.monotonic()
            self._count(now)
            most = max(1, self.per_hour // LEASES_PER_HOUR) if lease else 0
            try:
                leased = await asyncio.to_thread(
                    self._ledger.lease,
                    self._user,
                    self._own(),
                    most=most,
                    per_hour=self.per_hour,
                    now=now,
                    wall=self._clock.now(),
                    window=HOUR + TRANSIT,
                    held=max(0.0, self._held_until - now),
                )
            except OSError as error:
                if not self._unwritten:
                    self._log.warning(
                        "calls to SEMS are counted in memory only, so a restart forgets them",
                        file=str(self._ledger.path),
                        error=str(error),
                    )
                self._unwritten, calls = True, most
            else:
                if self._unwritten:
                    self._log.info("calls to SEMS are counted on disk again", file=str(self._ledger.path))
                self._unwritten, calls, self._others = False, leased.calls, leased.others
                self._held_until = max(self._held_until, now + leased.held)
            self._lease = _Lease(calls, now + LEASE_SECONDS)

    def _own(self) -> list[Spent]:
        """Return this process's calls by the minute, rounded up."""
        return sorted(Counter(math.ceil(time / BUCKET) * BUCKET for time, _ in self._calls).items())


_SHARED: Final[WeakValueDictionary[Path, Budget]] = WeakValueDictionary()
