"""Reads whitelisted numbers, many in a call. What is refused of one number is that number's own."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from math import inf
from typing import Final

from gateway.api.bridge import Context
from gateway.bridges.realtime.licence import Licence
from gateway.bridges.realtime.listing import Listing
from gateway.bridges.realtime.plan import plan
from gateway.bridges.realtime.roster import Roster, State
from gateway.bridges.realtime.seeker import Seeker
from gateway.bridges.realtime.settings import RealtimeSettings
from gateway.core.errors import GatewayError, NotSentError, RefusedError
from gateway.sems.budget import Priority
from gateway.sems.calls import Entry
from gateway.sems.catalogue import Catalogue, Interface, SemsError, Use
from gateway.sems.errors import BadAnswerError, NoLicenceError, NoValuesError, UnauthorisedError
from gateway.sems.plan import Plan
from gateway.sems.plants import Target
from gateway.sems.poller import Poller
from gateway.sems.schedule import Job
from gateway.sems.session import Session

FIRST_SHARE: Final = 0.25
"""Of the calls that may be made now, that the first round may take at once."""
RECENT: Final = 1.5
"""Intervals within which an answer shows that an interface works."""
MAX_HALVED_BATCHES: Final = 7
"""Batches of an interface that has never answered, that are asked in halves: 100 numbers down to 12."""
SAVE: Final = 10.0
"""Seconds between looks whether there is something to keep."""
LEFT_OUT: Final = "SEMS's answer leaves it out"


class NumberPoller(Poller):
    """Reads the numbers of the roster."""

    def __init__(
        self,
        settings: RealtimeSettings,
        catalogue: Catalogue,
        session: Session,
        context: Context,
        roster: Roster,
        listing: Listing,
        licence: Licence,
    ) -> None:
        super().__init__(catalogue, session, context, listing, roster.__contains__, settings.parallel)
        self._settings = settings
        self._roster = roster
        self._listing = listing
        self._licence = licence
        self._seeker = Seeker(catalogue, roster, self._spare)
        self._tried: Counter[str] = Counter()
        """Interface that has never answered → batches that were asked in halves."""

    def unlisted(self, error: GatewayError) -> None:
        """Take note that the list of devices can't be looked at: numbers of the configuration are known without it."""
        if not isinstance(error, NotSentError) and not self._settings.whitelist.everything:
            self.discovered()
        if isinstance(error, NoLicenceError):
            self._unlicensed(error)

    def _unlicensed(self, error: NoLicenceError) -> None:
        """Take note that SEMS says there is no licence. Only GoodWe can change that, so it is asked much later."""
        self._licence.refused()
        self._say_unlicensed(f"{error.words}: {error}; {error.advice}")

    def _say_unlicensed(self, why: str) -> None:
        self._context.report(up=False, detail=f"{why}. Next try in {self._licence.wait / 60:.0f} min")

    async def run(self) -> None:
        """See `Poller.run`."""
        if self._licence.wait > 0:
            self._say_unlicensed(f"{NoLicenceError.words}, as of the last run; {NoLicenceError.advice}")
        await super().run()

    async def keep(self) -> None:
        """Write down what has been found out, again and again."""
        try:
            while True:
                await asyncio.sleep(SAVE)
                await self._roster.save()
        finally:
            await asyncio.shield(self._roster.save())

    # the plan

    @property
    def _revision(self) -> int:
        return self._roster.revision

    @property
    def _hold(self) -> float:
        return self._licence.wait

    def _plan(self) -> Plan:
        budget, settings = self._session.budget, self._settings
        made = plan(
            self._roster.read(),
            self._catalogue,
            max(1.0, budget.share(self._context.name)),
            settings.poll_interval,
            settings.list_interval,
            self._roster.apart,
        )
        self._listing.plan_interval = made.discovery_interval
        self._schedule.at_once = made.round <= FIRST_SHARE * budget.room(Priority.POLLING)
        return made

    def _live(self) -> Collection[tuple[str, str]]:
        # Those that are asked alone are read, too.
        names = {interface.name for interface in self._catalogue.using(Use.LIVE)}
        alone = {(name, s) for name, known in self._roster.apart.alone.items() if name in names for s in known}
        return {*super()._live(), *alone}

    def _out_of_turn(self) -> Iterator[Job]:
        """Ask about numbers whose type or refusal is to be looked into, and those that spoil every batch."""
        if not self._discovered:
            return
        yield from self._seeker.jobs()
        now = self._context.clock.now()
        there = {interface.name for interface in self._catalogue.interfaces}
        for name, serial in [found for found in self._roster.apart.due(now) if found[0] in there]:
            if self._spare.wait() > 0:
                return
            self._spare.take()
            self._roster.apart.put_alone(name, serial, now)
            interface = self._catalogue.interface(name)
            yield Job(interface, (serial,), self.plan.interval, interface.use is Use.LIVE)

    # a call

    def _targets(self, job: Job) -> list[Target]:
        known = [serial for serial in job.unit if serial in self._roster]
        if not known:
            self._seeker.done(job)
        return [self._listing.target(serial, self._type(job.interface, serial)) for serial in known]

    def _type(self, interface: Interface, serial: str) -> str:
        """Return the type of a number; of one not known, what the interface is for."""
        return self._roster.type_of(serial) or interface.of[0]

    async def _take(self, job: Job, targets: Sequence[Target], entries: Sequence[Entry]) -> None:
        """Take in an answer: data, and what was refused of single numbers."""
        self._licence.granted()
        batch = [target.serial for target in targets]
        if self._roster.apart.is_well(job.interface.name, batch):
            self._roster.revision += 1
        wanted, refused = set(batch), set[str]()
        for entry in entries:
            if entry.serial in wanted and not self._is_well(entry):
                refused.add(entry.serial)
                self._refused(job, entry)
        if job.interface.use is Use.ALARMS:
            covered = [target for s in batch if s not in refused and (target := self._devices.get(s))]
            self._alarms.take(covered, [entry for entry in entries if self._is_well(entry)])
        else:
            await self._read(job, batch, refused, entries)
        self._seeker.done(job)

    async def _read(self, job: Job, batch: Sequence[str], refused: Collection[str], entries: Sequence[Entry]) -> None:
        """Publish what an answer says of the numbers that it does not refuse."""
        wanted, measured, blank = set(batch) - set(refused), set[str](), set[str]()
        for entry in entries:
            if entry.serial in wanted:
                if entry.reading.empty:
                    blank.add(entry.serial)
                    continue
                measured.add(entry.serial)
                self._publish(job, entry)
                await asyncio.sleep(0)
        if job.live and not measured and not refused:
            raise NoValuesError(f"SEMS answered {job.interface.name} with success, and without a single value")
        for serial in batch:
            if serial in measured or serial in refused:
                continue
            if serial in blank and self._roster.type_of(serial):
                self._in_trouble(job.interface, serial, "SEMS's answer has no value of it")
                self._readings.nothing(serial, job.interface)
            else:
                self._missing(job, serial)

    def _is_well(self, entry: Entry) -> bool:
        said = entry.reading.text("said")
        return not said or said in self._catalogue.success

    def _publish(self, job: Job, entry: Entry) -> None:
        serial, type_ = entry.serial, self._type(job.interface, entry.serial)
        if type_ not in job.interface.of:
            return  # the type has changed meanwhile
        self._roster.answered(serial, type_)
        self._well(job.interface, serial)
        target = self._listing.know(serial, entry.type or "")
        self._readings.take(target, job.interface, entry.reading, job.interval or self.plan.interval, live=True)

    def _refused(self, job: Job, entry: Entry) -> None:
        """Take in that a number was refused."""
        code, detail = entry.reading.text("said"), entry.reading.text("detail")
        text = f"{code}: {detail}" if detail else code
        if self._catalogue.error_of(code) is SemsError.UNAUTHORISED:
            self._refuse(entry.serial, State.UNAUTHORISED, text)
        elif job.interface.use is Use.LIVE:
            self._missing(job, entry.serial, text)

    def _refuse(self, serial: str, state: State, text: str) -> None:
        """Read a number no more for a day."""
        self._failing = {key: error for key, error in self._failing.items() if key[1] != serial}
        self._roster.refuse(serial, state, text)

    def _missing(self, job: Job, serial: str, text: str = LEFT_OUT) -> None:
        """Take in that there are no data of a number: it is of another type, or there is none such."""
        given = self._settings.types.get(serial)
        if given is not None:
            self._refuse(serial, State.UNKNOWN, f"{text}; is it of type {given}, as `types` says?")
        elif not job.interval or text != LEFT_OUT:
            self._roster.rule_out(serial, job.interface.name, job.interface.of)
        else:
            self._in_trouble(job.interface, serial, text)

    # when a call fails as a whole

    def _failed(self, job: Job, targets: Sequence[Target], error: GatewayError) -> None:
        if isinstance(error, NoLicenceError):
            self._schedule.again(job)
            self._unlicensed(error)
            return
        self._blame(job, [target.serial for target in targets], error)
        self._seeker.done(job)

    def _blame(self, job: Job, batch: Sequence[str], error: GatewayError) -> None:
        """Find out whose trouble it is, where it may be one number's; else it is that of all."""
        if isinstance(error, UnauthorisedError) and len(batch) == 1:
            self._refuse(batch[0], State.UNAUTHORISED, str(error))
            return
        known = job.interface.name in self._answered or isinstance(error, UnauthorisedError)
        alone = isinstance(error, (RefusedError, BadAnswerError)) and not isinstance(error, NoValuesError)
        if alone and len(batch) > 1 and (known or self._may_try(job)):
            if self._divide(job, batch):
                return
            if not job.interval:
                return  # types are found out when there are calls again
        if alone and len(batch) == 1 and self._answers_others(job) and self._note_spoiler(job, batch[0], error):
            return
        if job.interface.use is not Use.LIVE:
            return  # the session has said it
        for serial in batch:
            if self._roster.type_of(serial):
                self._in_trouble(job.interface, serial, str(error))
                if isinstance(error, NoValuesError):
                    self._readings.nothing(serial, job.interface)
            elif isinstance(error, RefusedError):
                self._roster.rule_out(serial, job.interface.name, job.interface.of)

    def _may_try(self, job: Job) -> bool:
        """Return whether an interface that has never answered may be asked in halves: a few times, or all are lost."""
        if job.interface.use is not Use.LIVE:
            return False
        self._tried[job.interface.name] += 1
        return self._tried[job.interface.name] <= MAX_HALVED_BATCHES

    def _answers_others(self, job: Job) -> bool:
        """Return whether SEMS answers the interface for others: else it is no number's trouble but that of all."""
        recently = self._context.clock.monotonic() - RECENT * self.plan.interval
        return self._answered.get(job.interface.name, -inf) >= (job.since or recently)

    def _note_spoiler(self, job: Job, serial: str, error: GatewayError) -> bool:
        """Keep that a number alone is what a call is refused for. False where it is to be seen otherwise."""
        if job.interface.use is Use.LIVE and isinstance(error, RefusedError):
            if not self._roster.type_of(serial):
                return False
            self._refuse(serial, State.UNKNOWN, str(error))
            return True
        if self._roster.type_of(serial) and not self._roster.apart.is_alone(job.interface.name, serial):
            # Of alarms it is no trouble of the device, and what could not be read may be in order the next time.
            self._roster.apart.put_alone(job.interface.name, serial, self._context.clock.now())
            self._roster.revision += 1
        return False

    def _divide(self, job: Job, batch: Sequence[str]) -> bool:
        """Ask about the halves of a batch; where no calls are left for that, they are batches of the next round."""
        if job.interval and (self._answers_others(job) or job.interface.name not in self._answered):
            middle = len(batch) // 2
            self._roster.apart.divide(job.interface.name, batch[:middle], batch[middle:])
            self._roster.revision += 1
        return self._halve(job, batch)

    # how it does

    def _judge(self) -> None:
        if self._licence.wait <= 0:  # else that has been said
            super()._judge()

    def _trouble(self) -> str:
        refused = self._roster.words()
        if refused and not self._seeker.busy and not self._roster.read():
            return f"{refused}. Have GoodWe put them on the whitelist; next try in a day"
        return ""

    def _is_ready(self) -> bool:
        waiting = self._seeker.busy and self._spare.wait() <= 0
        return self._schedule.begun and not self._under_way and not self._schedule.soon and not waiting

    def _detail(self) -> str:
        return self._roster.words()
