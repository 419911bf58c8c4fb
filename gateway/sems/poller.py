"""Makes the calls of a plan, spread evenly over each row's interval, and holds them when SEMS does not take any.

What is called, and what an answer means, is for a way in to say: by plants, or by serial numbers alone.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Final

import msgspec

from gateway.api.bridge import Context
from gateway.core.clock import set_within
from gateway.core.errors import GatewayError, NotSentError
from gateway.core.metrics import Metrics, gauge
from gateway.sems.alarms import Alarms
from gateway.sems.allowance import Allowance
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry, arguments, read_entries
from gateway.sems.catalogue import Catalogue, Interface
from gateway.sems.discovery import Discovery
from gateway.sems.errors import BudgetSpentError
from gateway.sems.lanes import Lanes
from gateway.sems.plan import Plan, reserve
from gateway.sems.plants import Target
from gateway.sems.readings import Readings
from gateway.sems.schedule import TICK, Job, Schedule
from gateway.sems.session import Session

PAUSE_FIRST: Final = 2.0
MAX_PAUSE_SECONDS: Final = 60.0
MIN_REPLAN_SECONDS: Final = 1.0
"""Seconds between two plans, for each thousand devices."""
MAX_REPLAN_SECONDS: Final = 600.0


class Poller(ABC):
    """Reads everything, by the plan."""

    def __init__(
        self,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        discovery: Discovery,
        known: Callable[[str], object],
        parallel: int,
    ) -> None:
        """`known` says whether there is a plant, device or number; `parallel` calls are under way at a time."""
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._devices = discovery.devices
        self._known = known
        self._parallel = parallel
        self.plan = reserve(session.budget.for_polling, 0, MAX_REPLAN_SECONDS)
        self._schedule = Schedule(catalogue, context.clock)
        self._readings = Readings(context, catalogue, discovery.times)
        self._alarms = Alarms(context, discovery.devices)
        self._spare = Allowance(0, context.clock)
        """Calls for what can't wait its turn."""
        self._failing: dict[tuple[str, str], str] = {}
        """Live interface and serial → what is wrong."""
        self._live_total = 0
        self._answered: dict[str, float] = {}
        """Interface that SEMS has answered since the start → when it did so last, on the monotonic clock."""
        self._planned_at = -inf
        self._planned_revision = -1
        self._stale_plan = True
        self._discovered = False
        self._paused_until = 0.0
        self._pause = PAUSE_FIRST
        self._under_way: list[Job] = []
        self._settled = False
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._lanes = Lanes()

    @property
    def troubled(self) -> int:
        """How many plants and devices can't be read now."""
        return len({serial for _, serial in self._failing})

    def discovered(self) -> None:
        """Say that a look for devices has come to its end, or is not needed."""
        self._discovered = self._stale_plan = True
        self._news.set()

    def found(self) -> None:
        """Say that plants or devices may have come or gone."""
        self._news.set()

    async def run(self) -> None:
        """Make calls, so many at a time, until cancelled."""
        workers = [asyncio.create_task(self._work(), name=f"reader {n}") for n in range(self._parallel)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, self._lanes.stop(), return_exceptions=True)
            self._session.budget.plan(self._context.name, 0)  # history may have it all

    async def _work(self) -> None:
        while True:
            async with self._turn:
                job = await self._next()
            await self._lanes.run(job.who, self._do(job))

    async def _do(self, job: Job) -> None:
        self._under_way.append(job)
        try:
            await self._make(job)
        finally:
            self._under_way.remove(job)
        if not job.interval or self._planned_revision != self._revision:
            self._news.set()
        self._judge()

    # what to do next

    async def _next(self) -> Job:
        """Wait for the next call that is due, and return it."""
        while True:
            now = self._context.clock.monotonic()
            replan = self._replan(now)
            wait = max(self._paused_until - now, self._hold, self._session.budget.wait(Priority.POLLING))
            if wait > 0:
                await self._sleep(wait)
                continue
            if not self._schedule.soon:
                self._schedule.soon.extend(self._out_of_turn())
            found = self._schedule.next(self._lanes.is_open)
            if isinstance(found, Job):
                return found
            self._judge()
            await self._sleep(min(found, replan))

    async def _sleep(self, seconds: float) -> None:
        """Wait, or until there is something new to plan for."""
        self._news.clear()
        await set_within(self._news, max(TICK, seconds))

    def _replan(self, now: float) -> float:
        """Plan anew where there is a reason to, and the last plan is not too young; return when to look again.

        It is done every now and then in any case: the account may have other users.
        """
        since = now - self._planned_at
        if not self._stale_plan and self._planned_revision == self._revision and since < MAX_REPLAN_SECONDS:
            return MAX_REPLAN_SECONDS - since
        least = MIN_REPLAN_SECONDS * len(self._devices) / 1000
        if since < least:
            return least - since
        self._stale_plan = False
        self._planned_at, self._planned_revision = now, self._revision
        self.plan = self._plan()
        self._spare.per_hour = max(1, self.plan.soon)
        self._session.budget.plan(self._context.name, self.plan.per_hour)
        self._schedule.follow(self.plan.rows, self._known)
        self._readings.keep(self._known)
        live = self._live()
        self._live_total = len(live)
        self._failing = {key: text for key, text in self._failing.items() if key in live}
        return MAX_REPLAN_SECONDS

    def _live(self) -> Collection[tuple[str, str]]:
        """Return whom which interface is to keep fresh."""
        return {(row.interface, serial) for row in self.plan.rows if row.live for unit in row.units for serial in unit}

    @property
    @abstractmethod
    def _revision(self) -> int:
        """Grows when what there is to read changes."""

    @property
    def _hold(self) -> float:
        """Seconds for which nothing is to be asked, whatever the account's budget says."""
        return 0.0

    @abstractmethod
    def _plan(self) -> Plan:
        """Return the plan for what there is."""

    def _out_of_turn(self) -> Iterable[Job]:
        """Return what is to be asked besides the plan's rows."""
        return ()

    # a call

    async def _make(self, job: Job) -> None:
        targets = self._targets(job)
        if not targets:
            return
        try:
            with self._session.reading(job.interface.name, *(target.serial for target in targets)):
                data = await self._session.call(job.interface.name, arguments(targets))
                self._pause = PAUSE_FIRST
                self._answered[job.interface.name] = self._context.clock.monotonic()
                now = self._context.clock.now()
                entries = [entry async for entry in read_entries(job.interface, data, targets, self._devices, now)]
                await self._take(job, targets, entries)
        except NotSentError as error:
            self._put_off(job, error)
        except GatewayError as error:
            self._failed(job, targets, error)

    @abstractmethod
    def _targets(self, job: Job) -> list[Target]:
        """Return whom a call asks about, as far as they are there still."""

    @abstractmethod
    async def _take(self, job: Job, targets: Sequence[Target], entries: Sequence[Entry]) -> None:
        """Publish what an answer says. Raises NoValuesError where it was to keep these fresh, and has no value."""

    @abstractmethod
    def _failed(self, job: Job, targets: Sequence[Target], error: GatewayError) -> None:
        """Find out whose trouble it is that a call has failed as a whole."""

    def _put_off(self, job: Job, error: NotSentError) -> None:
        """Make a call again, and wait with everything: what stands in the way of one stands in the way of all."""
        self._schedule.again(job)
        if isinstance(error, BudgetSpentError):
            return  # a call of another kind came between; the next one is made when there is one to make
        now = self._context.clock.monotonic()
        if now >= self._paused_until:
            self._paused_until = now + max(self._pause, error.retry_after or 0.0)
            self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)
        self._context.report(up=False, detail=f"{error}; trying again")

    def _halve(self, job: Job, serials: Sequence[str]) -> bool:
        """Ask about the halves of a batch: one must not spoil the others'. False where no calls are left for that."""
        middle = len(serials) // 2
        halves = tuple(serials[:middle]), tuple(serials[middle:])
        if self._spare.wait(len(halves)) > 0:
            return False
        for half in halves:
            self._spare.take()
            since = job.since or self._context.clock.monotonic()
            self._schedule.soon.append(msgspec.structs.replace(job, unit=half, since=since))
        self._news.set()
        return True

    def _in_trouble(self, interface: Interface, serial: str, error: str) -> None:
        """Note, and say once, that a device can't be read."""
        if (interface.name, serial) not in self._failing:
            self._context.log.warning("device can't be read", serial=serial, interface=interface.name, error=error)
        self._failing[interface.name, serial] = error

    def _well(self, interface: Interface, serial: str) -> None:
        """Note that a device can be read."""
        if self._failing.pop((interface.name, serial), None) is not None:
            self._context.log.info("device can be read again", serial=serial, interface=interface.name)

    # how it does

    def _judge(self) -> None:
        """Say how the bridge does."""
        if self._context.clock.monotonic() < self._paused_until:
            return  # that has been said
        trouble = self._trouble()
        if not trouble and self._live_total and len(self._failing) >= self._live_total:
            trouble = f"no device can be read; the last one: {next(reversed(self._failing.values()))}"
        if trouble:
            self._context.report(up=False, detail=trouble)
            return
        self._settled = self._settled or (self._discovered and self._is_ready())
        if self._settled:
            self._context.report(up=True, detail=self._detail())

    def _trouble(self) -> str:
        """Return why the bridge is not up, whatever can be read; empty where nothing is wrong."""
        return ""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether all has been read once that is about to be, at the start."""

    def _detail(self) -> str:
        """Return what the state says besides while the bridge is up."""
        return ""


def _planned(poller: Poller) -> dict[str, float]:
    calls: dict[str, float] = {}
    for row in poller.plan.rows:
        calls[row.interface] = calls.get(row.interface, 0.0) + row.per_hour
    return calls


def polling_metrics(prefix: str) -> Metrics[Poller]:
    """Return what Prometheus may know of the polling of all bridges of a type. Calls are the session's."""
    return Metrics(
        gauge(
            f"{prefix}_devices_in_trouble",
            "plants and devices that can't be read now, though not refused",
            lambda poller: poller.troubled,
        ),
        gauge(
            f"{prefix}_poll_interval_seconds",
            "seconds between live readings of a device, by the plan",
            lambda poller: poller.plan.interval,
        ),
        gauge(f"{prefix}_planned_calls_per_hour", "calls an hour that the plan makes", _planned, "interface"),
    )
