"""Reads plants and devices: each by its own interfaces, or by its plant's lists where that saves calls."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gateway.api.bridge import Context
from gateway.bridges.open_api.discovery import PlantDiscovery
from gateway.bridges.open_api.planner import plan
from gateway.bridges.open_api.reading_errors import ReadingErrors
from gateway.bridges.open_api.source_overlap import SourceOverlap
from gateway.core.errors import GatewayError, RefusedError
from gateway.sems.calls import Entry, by_plant
from gateway.sems.catalogue import Catalogue, Interface, Use
from gateway.sems.errors import BadAnswerError, NoValuesError
from gateway.sems.plan import DISCOVERY_SHARE, Plan, PollIntervals
from gateway.sems.plants import PLANT, Target
from gateway.sems.poller import Poller
from gateway.sems.schedule import Job
from gateway.sems.session import Session

PARALLEL: Final = 4


class PlantPoller(Poller):
    """Reads what discovery finds."""

    def __init__(
        self,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        discovery: PlantDiscovery,
        intervals: PollIntervals,
    ) -> None:
        super().__init__(catalogue, session, context, discovery, discovery.devices.get, PARALLEL)
        self._discovery = discovery
        self._intervals = intervals
        self._troubles = ReadingErrors(catalogue, context, discovery.refusals)
        self._overlap = SourceOverlap(context, discovery.devices)
        self.on_read: Callable[..., None] = lambda *_, **__: None
        """Called with each reading with values: whose, of when, due again in how many seconds, whether it is live."""

    def discovered(self) -> None:
        """See `Poller.discovered`."""
        super().discovered()
        if not len(self._devices):
            self._judge()

    def invalidate(self, serial: str, setpoints: set[str]) -> None:
        """Say that a command may have changed setpoints: what was read of them before does not count any more."""
        self._readings.invalidate(serial, setpoints)
        target = self._devices.get(serial)
        if target is None:
            return
        own = next(self._catalogue.using(Use.LIVE, target.type), None)
        if own is not None and self._interval_of(own, target) > 2 * self._intervals.interval:
            self._ask_soon(own, target)

    # the plan

    @property
    def _revision(self) -> int:
        return self._devices.revision

    def _plan(self) -> Plan:
        budget, allowance = self._session.budget, self._discovery.allowance
        beyond = allowance.taken - DISCOVERY_SHARE * budget.for_polling
        made = plan(
            self._devices,
            self._catalogue,
            max(1.0, budget.share(self._context.name) - max(0.0, beyond)),
            self._intervals,
            self._overlap.serials,
            self._troubles.shelved,
            self._troubles.alone,
        )
        if self._discovered:
            allowance.per_hour = max(1, int(made.discovery_per_hour))
        self._schedule.at_once = self._discovered and made.at_once
        self._troubles.keep(self._devices)
        return made

    def _replan(self, now: float) -> float:
        self._stale_plan = self._overlap.look_for_silence() or self._stale_plan
        return min(super()._replan(now), self._overlap.next_look())

    # a call

    def _targets(self, job: Job) -> list[Target]:
        return [target for serial in job.unit if (target := self._devices.get(serial)) is not None]

    async def _take(self, job: Job, targets: Sequence[Target], entries: Sequence[Entry]) -> None:
        missing = set[str]()
        if job.interface.use is Use.ALARMS:
            self._alarms.take(self._covered(job.interface, targets), entries)
        else:
            missing = await self._read(job, targets, entries)
        self._troubles.answered(job.interface, targets[0].type)
        if len(targets) == 1 and not missing:
            self._isolate(job.interface, targets[0], alone=False)
        for target in targets if job.live else ():
            if target.serial in missing:
                self._in_trouble(job.interface, target.serial, "SEMS's answer has no value of it")
            else:
                self._well(job.interface, target.serial)

    async def _read(self, job: Job, targets: Sequence[Target], entries: Sequence[Entry]) -> set[str]:
        """Publish what an answer says. Returns the serials asked about of which it says nothing."""
        interface, asked = job.interface, {target.serial for target in targets}
        homes = {target.plant for target in targets}
        carried: set[str] = set()
        measured: set[str] = set()
        blank: set[str] = set()
        for entry in entries:
            target = self._devices.get(entry.serial)
            if target is None and interface.use is Use.LIVE and entry.serial and entry.type in interface.covers:
                target = self._discovery.carried(targets[0], entry)
            if target is None:
                continue
            if target.serial not in asked:
                if target.plant not in homes or target.type not in interface.covers:
                    continue
                carried.add(target.serial)
            (blank if entry.reading.empty else measured).add(target.serial)
            self._publish(job, target, entry)
            await asyncio.sleep(0)
        own = set[str]() if by_plant(interface) and interface.covers else asked
        if job.live:
            for serial in (own | blank) - measured:
                self._readings.nothing(serial, interface)
            if not measured:
                raise NoValuesError(f"SEMS answered {interface.name} with success, and without a single value")
        if interface.use is Use.LIVE and interface.covers and len(targets) == 1:
            self._discovery.answered(targets[0], carried)
        return own - measured if job.live else own - measured - blank

    def _publish(self, job: Job, target: Target, entry: Entry) -> None:
        self._stale_plan = self._overlap.look(target.serial) or self._stale_plan
        interval = job.interval or self._interval_of(job.interface, target)
        due = self.plan.interval if job.pushed else None
        if entry.reading.values:
            self.on_read(target, entry.reading.time, interval, live=job.live)
        if self._readings.take(target, job.interface, entry.reading, interval, live=job.live, due=due):
            own = next((i for i in self._catalogue.using(Use.ALARMS, target.type) if not by_plant(i)), None)
            home = self._devices.get(target.plant)
            whole = next(self._catalogue.using(Use.ALARMS, PLANT), None)
            if own is not None:
                self._ask_soon(own, target)
            elif whole is not None and home is not None:
                self._ask_soon(whole, home)

    def _covered(self, interface: Interface, targets: Sequence[Target]) -> list[Target]:
        """Return whose alarms an answer lists."""
        if by_plant(interface):
            return [target for plant in targets for target in self._devices.of(plant.serial)]
        return list(targets)

    def _ask_soon(self, interface: Interface, target: Target) -> None:
        """Make a call before its turn, where some are left for that. Otherwise its turn has to do."""
        if (interface.name, target.type) in self._troubles.shelved or self._spare.wait() > 0:
            return
        soon, unit = self._schedule.soon, (target.serial,)
        if any(job.interface is interface and job.unit == unit for job in soon):
            return
        self._spare.take()
        soon.append(Job(interface, unit))
        self._news.set()

    def _interval_of(self, interface: Interface, target: Target) -> float:
        found = (
            line.row.interval
            for line in self._schedule.lines
            if line.interface.name == interface.name and line.row.type == target.type
        )
        return next(found, self.plan.interval)

    # how it went

    def _failed(self, job: Job, targets: Sequence[Target], error: GatewayError) -> None:
        interface, first = job.interface, targets[0]
        if len(targets) == 1 or not job.live:
            self._troubles.never_answered(interface, first.type, error)
        if isinstance(error, (RefusedError, BadAnswerError)) and not isinstance(error, NoValuesError):
            can_help = job.interval and self._troubles.answers(interface, first.type)
            if len(targets) > 1 and can_help and self._halve(job, [target.serial for target in targets]):
                return
            if interface.batch > 1 and len(targets) == 1:
                self._isolate(interface, first, alone=True)
            if self._shelve(job, first, error):
                return
        if not job.live:
            return  # the session has said it
        for target in targets:
            self._in_trouble(interface, target.serial, str(error))

    def _isolate(self, interface: Interface, target: Target, *, alone: bool) -> None:
        """Ask about a device alone from now on, or together with others again."""
        news = self._troubles.isolate(interface, target.serial, alone=alone)
        self._stale_plan = news or self._stale_plan

    def _shelve(self, job: Job, first: Target, error: GatewayError) -> bool:
        """Stop asking for what SEMS has never answered, unless nothing else reads these devices."""
        if self._troubles.answers(job.interface, first.type):
            return False
        if not self._troubles.dispensable(job.interface, first, live=job.live):
            return False
        if self._troubles.refused(job.interface, first.type, error):
            self._stale_plan = True
            self._news.set()
        return True

    # how it does

    def _trouble(self) -> str:
        if self._discovery.unsure:
            # Not up, so that nobody takes what is missing for gone.
            return "SEMS lists much less than before the restart; it is asked again"
        return ""

    def _is_ready(self) -> bool:
        if not len(self._devices):
            return True
        pending = any(job.first for job in (*self._under_way, *self._schedule.soon))
        return not self._stale_plan and self._schedule.begun and not pending
