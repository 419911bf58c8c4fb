"""Makes the calls of the plan, spread evenly over each row's interval, and publishes what they bring."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import msgspec

from gateway.bridges.open_api.discovery import Discovery
from gateway.bridges.open_api.elsewhere import Elsewhere
from gateway.bridges.open_api.planner import DISCOVERY_SHARE, Role, Row, Wishes, plan
from gateway.bridges.open_api.troubles import ReadingTroubles
from gateway.core.bridge import Context
from gateway.core.clock import set_within
from gateway.core.errors import GatewayError, NotSentError, RefusedError
from gateway.sems.alarms import Alarms
from gateway.sems.allowance import Allowance
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry, arguments, by_plant, told
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.errors import BadAnswerError, BudgetSpentError
from gateway.sems.normalise import KeptAside
from gateway.sems.plants import PLANT, Plants, Target
from gateway.sems.readings import Readings
from gateway.sems.session import Session

PARALLEL: Final = 4
TICK: Final = 0.01
"""Seconds that are not worth dividing: sums of times are not exact."""
PAUSE_FIRST: Final = 2.0
PAUSE_MOST: Final = 60.0
REPLAN_LEAST: Final = 1.0
"""Seconds between two plans, for each thousand devices."""
REPLAN_MOST: Final = 600.0

Unit = tuple[Target, ...]


class _Line(msgspec.Struct):
    """A row of the plan under way."""

    row: Row
    interface: Interface
    queue: deque[Unit]
    due: float
    """When its next call is due, on the monotonic clock."""

    @property
    def spacing(self) -> float:
        return self.row.interval / max(1, self.row.calls)

    @property
    def key(self) -> tuple[str, str, bool]:
        return self.row.interface, self.row.units[0][0].type, self.row.pushed


class _Job(msgspec.Struct):
    """A call to make."""

    interface: Interface
    unit: Unit
    line: _Line | None = None
    """None for what can't wait its turn."""
    first: bool = False
    """Whether it is the first that is to keep these fresh."""

    @property
    def live(self) -> bool:
        """Whether it keeps devices fresh."""
        return self.line is not None and self.line.row.role is Role.LIVE


class Poller:
    """Reads everything, by the plan."""

    def __init__(
        self,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        plants: Plants,
        discovery: Discovery,
        wishes: Wishes,
    ) -> None:
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._plants = plants
        self._discovery = discovery
        self._wishes = wishes
        self._readings = Readings(context)
        self._alarms = Alarms(context, plants)
        self._kept_aside = KeptAside()
        self.plan = plan([], catalogue, session.budget.for_polling, wishes)
        self._planned_at: float | None = None
        self._planned_revision = -1
        self._stale_plan = True
        self._discovered = False
        self._lines: list[_Line] = []
        self._asked: dict[tuple[str, str], float] = {}
        """Interface and serial → when it was last asked."""
        self._soon: deque[_Job] = deque()
        self._soon_allowance = Allowance(0, context.clock)
        self._troubles = ReadingTroubles(catalogue, context)
        self._elsewhere = Elsewhere(context, plants)
        self._paused_until = 0.0
        self._pause = PAUSE_FIRST
        self._live_total = 0
        self._first_under_way = 0
        self._settled = False
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def interval(self) -> float:
        """Seconds between live readings of a device."""
        return self.plan.interval

    @property
    def troubled(self) -> int:
        """How many plants and devices can't be read."""
        return len({serial for _, serial in self._troubles.failing})

    def discovered(self) -> None:
        """Say that a look for devices has come to its end."""
        self._discovered = self._stale_plan = True
        self._news.set()
        if not len(self._plants):
            self._judge()

    def found(self) -> None:
        """Say that plants or devices have come or gone."""
        self._news.set()

    def unsettle(self, serial: str, setpoints: set[str]) -> None:
        """Say that a command may have changed setpoints: what was read of them before does not count any more."""
        self._readings.unsettle(serial, setpoints)
        target = self._plants.get(serial)
        if target is None:
            return
        own = next(self._catalogue.using(Use.LIVE, target.type), None)
        if own is not None and self._interval_of(own, target) > 2 * self._wishes.interval:
            self._ask_soon(own, (target,))

    async def run(self) -> None:
        """Make calls, up to PARALLEL at a time, until cancelled."""
        workers = [asyncio.create_task(self._work(), name=f"reader {n}") for n in range(PARALLEL)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._session.budget.plan(self._context.name, 0)  # history may have it all

    async def _work(self) -> None:
        while True:
            async with self._turn:
                job = await self._next()
            await self._make(job)

    # what to do next

    async def _next(self) -> _Job:
        """Wait for the next call that is due, and return it."""
        while True:
            now = self._context.clock.monotonic()
            self._replan(now)
            wait = max(self._paused_until - now, self._session.budget.wait(Priority.POLLING))
            if wait > 0:
                await self._sleep(wait)
                continue
            if self._soon:
                return self._soon.popleft()
            line = min(self._lines, key=lambda line: line.due, default=None)
            if line is None or line.due > now:
                await self._sleep(min(REPLAN_MOST, self._next_look(), (line.due if line else now + REPLAN_MOST) - now))
                continue
            unit = line.queue.popleft()
            line.queue.append(unit)
            first = line.row.role is Role.LIVE and not self._was_asked(line, unit)
            for target in unit:
                self._asked[line.interface.name, target.serial] = now
            line.due = now if self._at_once(line) else max(line.due + line.spacing, now)
            return _Job(line.interface, unit, line, first)

    def _next_look(self) -> float:
        seconds = self._elsewhere.next_look()
        return REPLAN_MOST if seconds is None else seconds

    async def _sleep(self, seconds: float) -> None:
        """Wait, or until there is something new to plan for."""
        self._news.clear()
        await set_within(self._news, max(TICK, seconds))

    def _at_once(self, line: _Line) -> bool:
        """Return whether its next call belongs to a first round that there is room to make at once."""
        return self._discovered and self.plan.at_once and not self._was_asked(line, line.queue[0])

    def _was_asked(self, line: _Line, unit: Unit) -> bool:
        return any((line.interface.name, target.serial) in self._asked for target in unit)

    # the plan

    def _replan(self, now: float) -> None:
        """Plan anew where there is a reason to, and the last plan is not too young."""
        self._stale_plan = self._elsewhere.look_for_silence() or self._stale_plan
        since = now - self._planned_at if self._planned_at is not None else REPLAN_MOST
        stale = self._stale_plan or self._planned_revision != self._plants.revision or since >= REPLAN_MOST
        young = self._planned_at is not None and since < REPLAN_LEAST * len(self._plants) / 1000
        if not stale or young:
            return
        self._stale_plan = False
        self._planned_at, self._planned_revision = now, self._plants.revision
        budget = self._session.budget
        beyond = self._discovery.allowance.taken - DISCOVERY_SHARE * budget.for_polling
        limit = max(1.0, budget.share(self._context.name) - max(0.0, beyond))
        self.plan = plan(
            self._plants,
            self._catalogue,
            limit,
            self._wishes,
            self._elsewhere.serials,
            self._troubles.shelved,
            self._troubles.alone,
        )
        budget.plan(self._context.name, self.plan.per_hour)
        self._soon_allowance.per_hour = self.plan.soon
        if self._discovered:
            self._discovery.allowance.per_hour = max(1, int(self.plan.discovery_per_hour))
        self._lines = self._lined(now)
        self._forget()

    def _lined(self, now: float) -> list[_Line]:
        """Return the plan's rows as lines; those whose turn is longest ago come first in each."""
        before = {line.key: line for line in self._lines}
        lines: list[_Line] = []
        for position, row in enumerate(self.plan.rows, 1):
            interface = self._catalogue.interface(row.interface)
            line = _Line(row, interface, deque(sorted(row.units, key=self._age(interface))), now)
            known = before.get(line.key)
            if not self._at_once(line):
                first = line.spacing * position / (len(self.plan.rows) + 1)
                line.due = min(known.due, now + line.spacing) if known else now + first
            lines.append(line)
        return lines

    def _age(self, interface: Interface) -> Callable[[Unit], float]:
        return lambda unit: min(self._asked.get((interface.name, target.serial), -inf) for target in unit)

    def _forget(self) -> None:
        """Drop what is remembered of targets that are gone, or that are read otherwise now."""
        live = {
            (line.interface.name, target.serial)
            for line in self._lines
            if line.row.role is Role.LIVE
            for unit in line.queue
            for target in unit
        }
        self._live_total = len(live)
        self._troubles.keep(live, self._plants)
        self._asked = {key: at for key, at in self._asked.items() if self._plants.get(key[1])}
        self._readings.keep(self._plants)

    # a call

    async def _make(self, job: _Job) -> None:
        try:
            missing = await self._carry_out(job)
        except NotSentError as error:
            self._hold(job, error)
        except GatewayError as error:
            self._failed(job, error)
        else:
            self._succeeded(job, missing)

    async def _carry_out(self, job: _Job) -> set[str]:
        """Make a call and take in the answer. Returns the serials asked about of which it says nothing."""
        self._first_under_way += job.first
        try:
            data = await self._session.call(job.interface.name, arguments(job.unit))
            told_ = told(job.interface, data, job.unit, self._plants, self._context.clock.now())
            entries = [entry async for entry in told_]
            if job.interface.use is not Use.ALARMS:
                return await self._read(job, entries)
            self._alarms.take(self._covered(job), entries)
            return set()
        finally:
            self._first_under_way -= job.first

    async def _read(self, job: _Job, entries: Sequence[Entry]) -> set[str]:
        """Publish what an answer says. Returns the serials asked about of which it says nothing."""
        interface, asked = job.interface, {target.serial for target in job.unit}
        homes = {target.plant for target in job.unit}
        carried: set[str] = set()
        for entry in entries:
            target = self._plants.get(entry.serial)
            if target is None and interface.use is Use.LIVE and entry.serial and entry.type in interface.covers:
                target = self._discovery.carried(job.unit[0], entry)
            if target is None:
                continue
            if target.serial not in asked:
                if target.plant not in homes or target.type not in interface.covers:
                    continue
                carried.add(target.serial)
            self._publish(job, target, entry)
            await asyncio.sleep(0)
        if interface.use is Use.LIVE and interface.covers and len(job.unit) == 1:
            self._discovery.answered(job.unit[0], carried)
        return set() if by_plant(interface) and interface.covers else asked - {entry.serial for entry in entries}

    def _publish(self, job: _Job, target: Target, entry: Entry) -> None:
        role = job.line.row.role if job.line else Role.SIDE
        self._stale_plan = self._elsewhere.look(target.serial) or self._stale_plan
        interval = job.line.row.interval if job.line else self._interval_of(job.interface, target)
        if self._readings.take(target, job.interface, entry.reading, interval, live=role is Role.LIVE):
            own = next((i for i in self._catalogue.using(Use.ALARMS, target.type) if not by_plant(i)), None)
            home = self._plants.get(target.plant)
            whole = next(self._catalogue.using(Use.ALARMS, PLANT), None)
            if own is not None:
                self._ask_soon(own, (target,))
            elif whole is not None and home is not None:
                self._ask_soon(whole, (home,))

    def _covered(self, job: _Job) -> list[Target]:
        """Return whose alarms an answer lists."""
        if by_plant(job.interface):
            return [target for plant in job.unit for target in self._plants.of(plant.serial)]
        return list(job.unit)

    def _ask_soon(self, interface: Interface, unit: Unit) -> None:
        """Make a call before its turn, where some are left for that. Otherwise its turn has to do."""
        if (interface.name, unit[0].type) in self._troubles.shelved or self._soon_allowance.wait() > 0:
            return
        if any(job.interface is interface and job.unit == unit for job in self._soon):
            return
        self._soon_allowance.take()
        self._soon.append(_Job(interface, unit))
        self._news.set()

    def _interval_of(self, interface: Interface, target: Target) -> float:
        found = (
            line.row.interval
            for line in self._lines
            if line.interface.name == interface.name and line.row.units[0][0].type == target.type
        )
        return next(found, self.plan.interval)

    # how it went

    def _hold(self, job: _Job, error: NotSentError) -> None:
        """Wait with everything: what stands in the way of one call stands in the way of all."""
        if job.line is None:
            self._soon.appendleft(job)
        else:
            for target in job.unit:
                self._asked.pop((job.interface.name, target.serial), None)
            if job.unit in job.line.queue:
                job.line.queue.remove(job.unit)
                job.line.queue.appendleft(job.unit)
        now = self._context.clock.monotonic()
        if isinstance(error, BudgetSpentError):
            return  # a call of another kind came between; the next one is made when there is one to make
        if now >= self._paused_until:
            self._paused_until = now + max(self._pause, error.retry_after or 0.0)
            self._pause = min(self._pause * 2, PAUSE_MOST)
        self._context.report(up=False, detail=f"{error}; trying again")

    def _failed(self, job: _Job, error: GatewayError) -> None:
        if isinstance(error, (RefusedError, BadAnswerError)):
            if len(job.unit) > 1 and self._divide(job):
                return
            if job.interface.batch > 1 and len(job.unit) == 1:
                self._isolate(job, alone=True)
            if self._shelve(job, error):
                return
        if not job.live:
            return  # the session has said it
        for target in job.unit:
            self._troubles.failed(job.interface, target.serial, str(error))
        self._judge()

    def _isolate(self, job: _Job, *, alone: bool) -> None:
        """Ask about a device alone from now on, or together with others again."""
        news = self._troubles.isolate(job.interface, job.unit[0].serial, alone=alone)
        self._stale_plan = news or self._stale_plan

    def _divide(self, job: _Job) -> bool:
        """Ask about the halves of a batch: one device must not spoil the others'. False where that is no help."""
        if job.line is None or not self._troubles.answers(job.interface, job.unit[0].type):
            return False
        middle = len(job.unit) // 2
        for half in (job.unit[:middle], job.unit[middle:]):
            if self._soon_allowance.wait() > 0:
                return False
            self._soon_allowance.take()
            self._soon.append(_Job(job.interface, half, job.line))
        return True

    def _shelve(self, job: _Job, error: GatewayError) -> bool:
        """Stop asking for what SEMS has never answered, unless nothing else reads these devices."""
        first, interface = job.unit[0], job.interface
        if self._troubles.answers(interface, first.type):
            return False
        if not self._troubles.dispensable(interface, first, live=job.live):
            return False
        if self._troubles.refused(interface, first.type, error):
            self._stale_plan = True
            self._news.set()
        return True

    def _succeeded(self, job: _Job, missing: set[str]) -> None:
        self._pause = PAUSE_FIRST
        self._troubles.answered(job.interface, job.unit[0].type)
        if len(job.unit) == 1 and not missing:
            self._isolate(job, alone=False)
        for target in job.unit if job.live else ():
            if target.serial in missing:
                self._troubles.failed(job.interface, target.serial, "SEMS's answer leaves it out")
            else:
                self._troubles.read(job.interface, target.serial)
        self._judge()

    def _judge(self) -> None:
        """Say how the bridge does."""
        failing = self._troubles.failing
        if self._live_total and len(failing) >= self._live_total:
            last = next(reversed(failing.values()))
            self._context.report(up=False, detail=f"no device can be read; the last one: {last}")
            return
        self._settled = self._settled or (self._discovered and not self._in_first_round())
        if self._settled:
            self._context.report(up=True)

    def _in_first_round(self) -> bool:
        """Return whether something is yet to be read for the first time that is about to be."""
        if not len(self._plants):
            return False
        live = [line for line in self._lines if line.row.role is Role.LIVE]
        if self._stale_plan:
            return True
        waiting = any(not self._was_asked(line, unit) for line in live for unit in line.queue)
        return self.plan.at_once and (waiting or self._first_under_way > 0)
