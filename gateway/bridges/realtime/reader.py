"""Makes the calls, and publishes what they bring. What is refused of one number is that number's own."""

import asyncio
from collections.abc import Sequence
from typing import Final

from gateway.bridges.realtime.listing import Listing
from gateway.bridges.realtime.plan import plan
from gateway.bridges.realtime.roster import Roster, State
from gateway.bridges.realtime.schedule import Job, Schedule
from gateway.bridges.realtime.seeker import Seeker
from gateway.bridges.realtime.settings import RealtimeSettings
from gateway.core.bridge import Context
from gateway.core.clock import set_within
from gateway.core.errors import GatewayError, NotSentError, RefusedError
from gateway.sems.alarms import Alarms
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry, told
from gateway.sems.catalogue import Catalogue, Interface, SemsError, Use
from gateway.sems.errors import BadAnswerError, BudgetSpentError, NoLicenceError, UnauthorisedError
from gateway.sems.normalise import KeptAside
from gateway.sems.readings import Readings
from gateway.sems.session import Session

TICK: Final = 0.01
"""Seconds that are not worth dividing: sums of times are not exact."""
PAUSE_FIRST: Final = 2.0
PAUSE_MOST: Final = 60.0
LICENCE_FIRST: Final = 600.0
LICENCE_MOST: Final = 6 * 3600.0
REPLAN_MOST: Final = 600.0
FIRST_SHARE: Final = 0.25
"""Of the calls that may be made now, that the first round may take at once."""
SAVE: Final = 10.0
"""Seconds between looks whether there is something to keep."""


class Reader:
    """Reads everything, by the plan."""

    def __init__(
        self,
        settings: RealtimeSettings,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        roster: Roster,
        listing: Listing,
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._session = session
        self._context = context
        self._roster = roster
        self._listing = listing
        self._schedule = Schedule(catalogue, roster, context.clock)
        self._seeker = Seeker(catalogue, roster, context.clock)
        self._readings = Readings(context)
        self._alarms = Alarms(context, listing.devices)
        self._kept_aside = KeptAside()
        self._planned_at: float | None = None
        self._planned_revision = -1
        self._failing: dict[str, str] = {}
        """Serial → what is wrong."""
        self._answered: set[str] = set()
        """Interfaces that SEMS has answered since the start."""
        self._paused_until = 0.0
        self._pause = PAUSE_FIRST
        self._licence_pause = LICENCE_FIRST
        self._settled = False
        self._listed = False
        self._under_way = 0
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self.plan = plan({}, catalogue, session.budget.for_polling, settings.poll_interval, settings.list_interval)

    @property
    def troubled(self) -> int:
        """How many numbers can't be read now, though they are not refused."""
        return len(self._failing)

    @property
    def roster(self) -> Roster:
        """The numbers."""
        return self._roster

    def listed(self) -> None:
        """Say that the list of devices was looked at, or can't be."""
        self._listed = True
        self._news.set()

    def changed(self) -> None:
        """Say that numbers may have come or gone."""
        self._news.set()

    async def run(self) -> None:
        """Make calls, up to `parallel` at a time, until cancelled."""
        workers = [asyncio.create_task(self._work(), name=f"reader {n}") for n in range(self._settings.parallel)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._session.budget.plan(self._context.name, 0)

    async def keep(self) -> None:
        """Write down what has been found out, again and again."""
        try:
            while True:
                await asyncio.sleep(SAVE)
                await self._roster.save()
        finally:
            await asyncio.shield(self._roster.save())

    async def _work(self) -> None:
        while True:
            async with self._turn:
                job = await self._next()
            self._under_way += 1
            try:
                await self._make(job)
            finally:
                self._under_way -= 1
            if not job.interval or self._planned_revision != self._roster.revision:
                self._news.set()
            self._judge()

    # what to do next

    async def _next(self) -> Job:
        """Wait for the next call that is due, and return it."""
        while True:
            now = self._context.clock.monotonic()
            wait = max(self._paused_until - now, self._session.budget.wait(Priority.POLLING))
            if wait > 0:
                await self._sleep(wait)
                continue
            self._replan(now)
            if self._listed and not self._schedule.soon:
                self._schedule.soon.extend(self._seeker.jobs())
            found = self._schedule.next()
            if isinstance(found, Job):
                return found
            self._judge()
            await self._sleep(min(found, REPLAN_MOST))

    async def _sleep(self, seconds: float) -> None:
        """Wait, or until there is something new."""
        self._news.clear()
        await set_within(self._news, max(TICK, seconds))

    def _replan(self, now: float) -> None:
        """Plan anew where numbers have changed, and every now and then: the account may have other users."""
        old = self._planned_at is None or now - self._planned_at >= REPLAN_MOST
        if not old and self._planned_revision == self._roster.revision:
            return
        self._planned_at, self._planned_revision = now, self._roster.revision
        budget, settings = self._session.budget, self._settings
        counts = {type_: len(serials) for type_, serials in self._roster.read().items()}
        limit = max(1.0, budget.share(self._context.name))
        self.plan = plan(counts, self._catalogue, limit, settings.poll_interval, settings.list_interval)
        budget.plan(self._context.name, self.plan.per_hour)
        self._seeker.allowance.per_hour = max(1, self.plan.soon)
        at_once = self.plan.round <= FIRST_SHARE * budget.room(Priority.POLLING)
        self._schedule.follow(self.plan, at_once=at_once)
        self._readings.keep(self._listing.devices)
        self._failing = {s: text for s, text in self._failing.items() if self._roster_reads(s)}

    def _roster_reads(self, serial: str) -> bool:
        return serial in self._roster and self._roster.state(serial) is State.READ

    # a call

    async def _make(self, job: Job) -> None:
        batch = tuple(serial for serial in job.batch if serial in self._roster)
        if not batch:
            self._seeker.done(job)
            return
        asked = [self._listing.target(serial, self._type(job.interface, serial)) for serial in batch]
        try:
            data = await self._session.call(job.interface.name, {"serials": list(batch)})
        except NotSentError as error:
            self._hold(job, error)
            return
        except NoLicenceError as error:
            self._unlicensed(job, error)
            return
        except GatewayError as error:
            self._failed(job, batch, error)
        else:
            self._pause, self._licence_pause = PAUSE_FIRST, LICENCE_FIRST
            self._answered.add(job.interface.name)
            if said := self._kept_aside.look(job.interface, data):
                self._context.log.info(said)
            entries_ = told(job.interface, data, asked, self._listing.devices, self._context.clock.now())
            await self._take(job, batch, [entry async for entry in entries_])
        self._seeker.done(job)

    def _type(self, interface: Interface, serial: str) -> str:
        """Return the type of a number; of one not known, what the interface is for."""
        return self._roster.type_of(serial) or interface.of[0]

    async def _take(self, job: Job, batch: Sequence[str], entries: Sequence[Entry]) -> None:
        """Take in an answer: data, and what was refused of single numbers."""
        wanted, refused = set(batch), set[str]()
        for entry in entries:
            if entry.serial in wanted and not self._is_well(entry):
                refused.add(entry.serial)
                self._refused(job, entry)
        if job.interface.use is Use.ALARMS:
            covered = [target for s in batch if s not in refused and (target := self._listing.devices.get(s))]
            self._alarms.take(covered, [entry for entry in entries if self._is_well(entry)])
            return
        told_of = set[str]()
        for entry in entries:
            if entry.serial in wanted and entry.serial not in refused:
                told_of.add(entry.serial)
                self._publish(job, entry)
                await asyncio.sleep(0)
        for serial in batch:
            if serial not in told_of and serial not in refused:
                self._missing(job, serial)

    def _is_well(self, entry: Entry) -> bool:
        said = entry.reading.text("said")
        return not said or said in self._catalogue.success

    def _publish(self, job: Job, entry: Entry) -> None:
        serial, type_ = entry.serial, self._type(job.interface, entry.serial)
        if type_ not in job.interface.of:
            return  # the type has changed meanwhile
        self._roster.answered(serial, type_)
        if self._failing.pop(serial, None) is not None:
            self._context.log.info("device can be read again", serial=serial)
        target = self._listing.know(serial, entry.type or "")
        interval = job.interval or self.plan.interval
        self._readings.take(target, job.interface, entry.reading, interval, live=True)

    def _refused(self, job: Job, entry: Entry) -> None:
        """Take in that a number was refused."""
        code, detail = entry.reading.text("said"), entry.reading.text("detail")
        text = f"{code}: {detail}" if detail else code
        if self._catalogue.error_of(code) is SemsError.UNAUTHORISED:
            self._failing.pop(entry.serial, None)
            self._roster.refuse(entry.serial, State.UNAUTHORISED, text)
        elif job.interface.use is Use.LIVE:
            self._missing(job, entry.serial, text)

    def _missing(self, job: Job, serial: str, text: str = "SEMS's answer leaves it out") -> None:
        """Take in that there are no data of a number: it is of another type, or there is none such."""
        given = self._settings.types.get(serial)
        if given is not None:
            said = f"{text}; is it of type {given}, as `types` says?"
            self._roster.refuse(serial, State.UNKNOWN, said)
        elif not job.interval or text != "SEMS's answer leaves it out":
            self._roster.rule_out(serial, job.interface.name, job.interface.of)
        else:
            self._in_trouble(serial, text)

    def _in_trouble(self, serial: str, text: str) -> None:
        if serial not in self._failing:
            self._context.log.warning("device can't be read", serial=serial, error=text)
        self._failing[serial] = text

    # when a call fails as a whole

    def _hold(self, job: Job, error: NotSentError) -> None:
        """Make the call again, after a pause."""
        self._schedule.again(job)
        now = self._context.clock.monotonic()
        if isinstance(error, BudgetSpentError):
            return  # a call of another kind came between; the next one is made when there is one to make
        if now >= self._paused_until:
            self._paused_until = now + max(self._pause, error.retry_after or 0.0)
            self._pause = min(self._pause * 2, PAUSE_MOST)
        self._context.report(up=False, detail=f"{error}; trying again")

    def _unlicensed(self, job: Job, error: NoLicenceError) -> None:
        """Make the call again much later: only GoodWe can change that."""
        self._schedule.again(job)
        now = self._context.clock.monotonic()
        if now >= self._paused_until:
            self._paused_until = now + self._licence_pause
            self._licence_pause = min(self._licence_pause * 2, LICENCE_MOST)
        minutes = (self._paused_until - now) / 60
        self._context.report(up=False, detail=f"{error.words}: {error}; {error.advice}. Next try in {minutes:.0f} min")

    def _failed(self, job: Job, batch: Sequence[str], error: GatewayError) -> None:
        """Find out whose trouble it is, where it may be one number's; else it is that of all."""
        if isinstance(error, UnauthorisedError) and len(batch) == 1:
            self._roster.refuse(batch[0], State.UNAUTHORISED, str(error))
            return
        known = job.interface.name in self._answered or isinstance(error, UnauthorisedError)
        if isinstance(error, (RefusedError, BadAnswerError)) and len(batch) > 1 and known and self._divide(job, batch):
            return
        if job.interface.use is not Use.LIVE:
            return  # the session has said it
        for serial in batch:
            if self._roster.type_of(serial):
                self._in_trouble(serial, str(error))
            elif isinstance(error, RefusedError):
                self._roster.rule_out(serial, job.interface.name, job.interface.of)

    def _divide(self, job: Job, batch: Sequence[str]) -> bool:
        """Ask about the halves of a batch: one number must not spoil the others'. False where no calls are left."""
        middle = len(batch) // 2
        halves = tuple(batch[:middle]), tuple(batch[middle:])
        if self._seeker.allowance.wait(len(halves)) > 0:
            return False
        for half in halves:
            self._seeker.allowance.take()
            self._schedule.soon.append(Job(job.interface, half, job.interval))
        self._news.set()
        return True

    # how it does

    def _judge(self) -> None:
        """Say how the bridge does."""
        if self._context.clock.monotonic() < self._paused_until:
            return  # that has been said
        read = sum(map(len, self._roster.read().values()))
        if self._failing and len(self._failing) >= read:
            last = next(reversed(self._failing.values()))
            self._context.report(up=False, detail=f"no device can be read; the last one: {last}")
            return
        refused = self._roster.words()
        if len(self._roster) and not read and refused and not self._seeker.busy:
            self._context.report(
                up=False, detail=f"{refused}. Have GoodWe put them on the whitelist; next try in a day"
            )
            return
        waiting = self._seeker.busy and self._seeker.allowance.wait() <= 0
        quiet = not self._under_way and not self._schedule.soon
        self._settled = self._settled or (self._listed and self._schedule.begun and quiet and not waiting)
        if self._settled:
            self._context.report(up=True, detail=refused)
