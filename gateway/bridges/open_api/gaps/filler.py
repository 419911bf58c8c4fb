"""Reads again what was missed, oldest first, a call a device and day, with what calls are left to history.

Samples go to sinks that keep history, and nowhere else. What they have stored is noted, so it is not read again after a
restart; a crash in between may repeat the CHUNK samples of one device that were under way.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.api.bridge import Context, HistoryProvider
from gateway.bridges.open_api.gaps.book import Book
from gateway.bridges.open_api.gaps.coverage import STEP, Coverage, Gap, Row
from gateway.bridges.open_api.gaps.estimate import types
from gateway.bridges.open_api.history import History, Known, midnight
from gateway.core.clock import set_within
from gateway.core.errors import GatewayError, RefusedError, UnsureError
from gateway.core.metrics import Metrics, counter, gauge
from gateway.core.model import Page, RateLimitWait, Resolution, Sample, Snapshot, iso
from gateway.sems.catalogue import Catalogue
from gateway.sems.errors import TimeUnreadableError
from gateway.sems.plants import Target

TRIES: Final = 4
"""Answers without what is missing after which it is taken as not there."""
TRY_AGAIN: Final = (600.0, 3_600.0, 21_600.0)
"""Seconds from one such answer to the next try: loggers upload later what they could not."""
FIRST_FAILED_AGAIN_SECONDS: Final = 10.0
MAX_FAILED_AGAIN_SECONDS: Final = 300.0
"""Seconds after which a call that failed is made again: first, and at most; twice as long each time in between."""
UNKNOWN_AGAIN: Final = 60.0
"""Seconds after which a device that is not known any more, or not yet, is looked at again."""
TAIL: Final = 900.0
"""Seconds before the end of a gap in which there has to be a sample, or SEMS does not have all of it yet."""
CHUNK: Final = 24
"""Samples given to sinks at a time."""
SAMPLE_INTERVAL: Final = 300.0
"""Seconds between two samples, as sinks get it; usual at SEMS."""
LET_GO: Final = 0.5
"""Seconds that a stop waits for sinks to store what they were given."""
LOOK_ROUND: Final = 300.0
"""Seconds between two looks at what other bridges bring."""
QUIET: Final = 120.0
"""Seconds without a gap to fill after which the log says how it went: devices are read one after another."""
SLICE: Final = 200
"""Devices looked at before others on the loop have their turn."""
MAX_NAMED: Final = 20
"""Gaps given up that are named in the log; of more the number."""


class Filler:
    """Fills the gaps of one account's devices."""

    def __init__(
        self,
        within: float,
        catalogue: Catalogue,
        context: Context,
        history: History,
        plants: Known,
        bridge: HistoryProvider,
    ) -> None:
        self._within = within
        self._context = context
        self._history = history
        self._plants = plants
        self._bridge = bridge
        self._types = types(catalogue)
        self._book = Book(context.data_dir / f"{context.name}-gaps.jsonl", self._rows, context.log)
        self._coverage = Coverage(within, self._book.add)
        self._failed_again: dict[str, float] = {}
        """Serial number → seconds that it waited after its last failure; those that went well since are not there."""
        self._open = False
        self._news = asyncio.Event()
        self._answers = False
        """Whether something was read since the start."""
        self.samples = 0
        """Samples that sinks have stored."""
        self._calls = 0
        self._given_up = 0
        self._begun_at: float | None = None
        """When the filling that is under way began, on the monotonic clock."""
        self._at_begin = (0, 0, 0)
        """Samples, calls and gaps given up by then."""

    @property
    def waiting(self) -> int:
        """How many gaps there are."""
        return self._coverage.waiting

    @property
    def devices(self) -> int:
        """How many devices have some."""
        return self._coverage.devices

    @property
    def oldest(self) -> datetime | None:
        """Where the oldest begins."""
        oldest = self._coverage.oldest
        return None if oldest is None else _moment(oldest)

    @property
    def given_up(self) -> int:
        """Gaps, or what was left of some, that SEMS had nothing for, or that were too many or too old."""
        return self._given_up + self._coverage.given_up

    # life

    async def start(self, spawn: Callable[..., None]) -> None:
        """Take up where it was, and go on in tasks of its own; nothing where no sink keeps history."""
        if not self._within or not self._types or not self._context.keeps_history:
            return
        self._coverage = Coverage(self._within, self._book.add)
        self._coverage.restore(await self._book.open())
        self._open = True
        spawn(self._book.run(), "notes of what was read")
        spawn(self._look_round(), "what others bring")
        spawn(self._run(), "gaps")

    async def stop(self) -> None:
        """Note what was read to the end."""
        if self._open:
            await self._look()
            self._open = False
            await self._book.close()

    def _rows(self) -> Iterator[Row]:
        return self._coverage.rows()

    # what is read

    def read(self, target: Target, time: datetime | None, interval: float, *, live: bool) -> None:
        """Take in that values of a device were read: a measurement of `time`, or of now; due again in `interval` s.

        `live` is what is read to keep the device fresh. The rest says nothing of gaps, and must not: it may come first
        after an outage.
        """
        if not live or not self._open or target.type not in self._types:
            return
        now = self._context.clock.now().timestamp()
        measured = now if time is None else min(time.timestamp(), now)
        gap = self._coverage.read(target.serial, measured, now, interval)
        if gap is not None or not self._answers:
            self._answers = True
            self._news.set()

    async def _look_round(self) -> None:
        while True:
            await asyncio.sleep(LOOK_ROUND)
            await self._look()
            self._coverage.forget_old(self._context.clock.now().timestamp())

    async def _look(self) -> None:
        """Take in what other bridges bring of the same devices: what they push needs not be read again."""
        at = self._context.clock.now().timestamp()
        for count, state in enumerate(self._context.states(), 1):
            if count % SLICE == 0:
                await asyncio.sleep(0)
            serial = state.device.serial
            target = self._plants.get(serial)
            if target is None or target.type not in self._types or state.time is None:
                continue
            if self._context.heard_elsewhere(serial) is not None:
                self._coverage.read(serial, min(state.time.timestamp(), at), at, LOOK_ROUND)

    # filling

    async def _run(self) -> None:
        clock = self._context.clock
        idle: float | None = None
        await self._news.wait()  # SEMS answers again
        while True:
            self._news.clear()
            now = clock.now().timestamp()
            serial = self._coverage.next(now)
            if serial is not None:
                idle = None
                self._began()
                await self._fill(serial)
                await asyncio.sleep(0)
                continue
            if idle is None:
                idle = now
            if now - idle >= QUIET:
                self._ended()
            due = self._coverage.next_due()
            await set_within(self._news, QUIET if due is None else min(QUIET, max(1.0, due - now)))

    async def _fill(self, serial: str) -> None:
        """Fill what is missing of a device on one day: the oldest that is."""
        now = self._context.clock.now()
        first = self._coverage.gaps(serial)[0]
        target = self._plants.get(serial)
        if target is None:
            self._coverage.postpone(serial, now.timestamp() + UNKNOWN_AGAIN, tried=False)
            return
        if not self._is_mine(serial):
            self._coverage.done(serial, self._coverage.gaps(serial)[-1].end)
            return
        day = _moment(first.start + STEP).astimezone(target.zone).date()
        begins, ends = midnight(day, target.zone), midnight(day + timedelta(days=1), target.zone)
        try:
            found = await self._day(serial, begins, min(ends, now))
        except (RefusedError, TimeUnreadableError) as error:
            self._nothing(serial, ends, str(error))
            return
        except UnsureError as error:
            self._context.log.debug("what was missed can't be read now", device=serial, error=str(error))
            self._failed(serial, now)
            return
        if not found:
            self._nothing(serial, ends, "SEMS has nothing for that day")
            return
        try:
            await self._hand_over(serial, found, ends.timestamp())
        except GatewayError as error:  # a sink has dropped some of it, and says so itself
            self._context.log.debug("what was missed was read and not stored", device=serial, error=str(error))
            if self._coverage.gaps(serial):
                self._failed(serial, now)
        else:
            self._failed_again.pop(serial, None)

    def _failed(self, serial: str, now: datetime) -> None:
        """Have it tried again soon, and later each time."""
        pause = min(self._failed_again.get(serial, FIRST_FAILED_AGAIN_SECONDS / 2) * 2, MAX_FAILED_AGAIN_SECONDS)
        self._failed_again[serial] = pause
        self._coverage.postpone(serial, now.timestamp() + pause, tried=False)

    def _is_mine(self, serial: str) -> bool:
        """Return whether it is for this bridge: of several that have the minutes of a device, the first does."""
        other = self._context.history_provider(serial)
        if other is None or other is self._bridge:
            return True
        now = self._context.clock.now()
        try:
            other.history_plan(serial, now - timedelta(hours=1), now, Resolution.MINUTES)
        except RefusedError:
            return True
        return False

    async def _day(self, serial: str, begins: datetime, ends: datetime) -> list[Sample]:
        """Return what SEMS has of a day, oldest first. Waits for as long as calls are short, or SEMS is away."""
        found: list[Sample] = []
        self._calls += 1
        async for part in self._history.history(serial, begins, ends, Resolution.MINUTES):
            match part:
                case Page(samples=samples):
                    found += samples
                case RateLimitWait(reason=reason):
                    self._context.log.debug("gaps wait", reason=reason)
        return [sample for sample in found if any(value is not None for value in sample.values.values())]

    async def _hand_over(self, serial: str, found: Sequence[Sample], ends: float) -> None:
        """Give sinks what lies in the gaps of a day, and note what they have stored. Raises GatewayError."""
        newest = found[-1].time.timestamp()
        for gap in [gap for gap in self._coverage.gaps(serial) if gap.start < ends - STEP]:
            missing = [sample for sample in found if gap.start < sample.time.timestamp() < gap.end]
            for start in range(0, len(missing), CHUNK):
                await self._stored(serial, missing[start : start + CHUNK])
            if gap.end <= ends and newest < gap.end - TAIL and self._try_again(serial, gap):
                return
            self._coverage.done(serial, min(gap.end, ends - STEP))
        await self._book.written()

    async def _stored(self, serial: str, samples: Sequence[Sample]) -> None:
        """Give sinks some samples; return when they have stored them, and that is noted. A stop waits for it a little.

        Raises GatewayError.
        """
        work = asyncio.create_task(self._store(serial, samples), name="gaps: store")
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work}, timeout=LET_GO)
            work.cancel()
            raise

    async def _store(self, serial: str, samples: Sequence[Sample]) -> None:
        numbers = [
            self._context.record(
                Snapshot(
                    serial=serial,
                    time=sample.time,
                    source=self._context.name,
                    interval=SAMPLE_INTERVAL,
                    values=sample.values,
                )
            )
            for sample in samples
        ]
        await self._context.stored(numbers[0])
        self.samples += len(samples)
        self._coverage.done(serial, samples[-1].time.timestamp())
        await self._book.written()

    # what SEMS does not have

    def _try_again(self, serial: str, gap: Gap) -> bool:
        """Have the first gap of a device tried again later; False where that was done often enough."""
        if gap.tries + 1 >= TRIES:
            return False
        self._coverage.postpone(serial, self._context.clock.now().timestamp() + TRY_AGAIN[gap.tries], tried=True)
        return True

    def _nothing(self, serial: str, ends: datetime, why: str) -> None:
        """Try a day again later, or give it up."""
        first = self._coverage.gaps(serial)[0]
        if self._try_again(serial, first):
            return
        until = min(first.end, ends.timestamp() - STEP)
        self._given_up += 1
        if self.given_up - self._at_begin[2] <= MAX_NAMED:
            self._context.log.warning(
                "what was missed stays missing",
                device=serial,
                begins=iso(_moment(first.start)),
                ends=iso(_moment(until)),
                reason=why,
            )
        first.tries = 0
        self._coverage.done(serial, until)

    # what is logged

    def _began(self) -> None:
        if self._begun_at is not None:
            return
        self._begun_at = self._context.clock.monotonic()
        self._at_begin = self.samples, self._calls, self.given_up
        oldest = self.oldest
        self._context.log.info(
            "reads again what was missed",
            devices=self.devices,
            gaps=self.waiting,
            since=iso(oldest) if oldest else "",
        )

    def _ended(self) -> None:
        """Say how it went, where it is over; what is tried again later is not waited for."""
        if self._begun_at is None:
            return
        samples, calls, given_up = self._at_begin
        self._context.log.info(
            "has read again what was missed",
            samples=self.samples - samples,
            calls=self._calls - calls,
            given_up=self.given_up - given_up,
            waiting=self.waiting,
            seconds=round(self._context.clock.monotonic() - self._begun_at),
        )
        self._begun_at = None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


METRICS: Final = Metrics[Filler](
    gauge("sems_gateway_open_api_gaps_waiting", "gaps that are yet to be filled", lambda filler: filler.waiting),
    gauge("sems_gateway_open_api_gap_devices", "plants and devices that have gaps", lambda filler: filler.devices),
    gauge(
        "sems_gateway_open_api_gap_oldest_timestamp_seconds",
        "where the oldest gap begins; 0 where there is none",
        lambda filler: filler.oldest.timestamp() if filler.oldest else 0.0,
    ),
    counter(
        "sems_gateway_open_api_gap_samples", "samples read again and stored by sinks", lambda filler: filler.samples
    ),
    counter("sems_gateway_open_api_gaps_given_up", "gaps, or days of some, that stay", lambda filler: filler.given_up),
)
