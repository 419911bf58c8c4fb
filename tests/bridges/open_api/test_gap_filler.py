"""What becomes of a gap: found or not, tried again, given up; and how small it stays for 10,000 devices."""

import asyncio
import gc
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import structlog

from gateway.bridges.open_api.gaps.book import Book
from gateway.bridges.open_api.gaps.coverage import MAX_GAPS, Coverage
from gateway.bridges.open_api.gaps.filler import TRIES, Filler
from gateway.core.errors import GatewayError, RefusedError, UnsureError
from gateway.core.model import Device, DeviceKind, Page, Sample, Snapshot
from gateway.sems.catalogue import load
from tests.bridges.open_api.kit import Desk, target
from tests.kit.clock import NOON, FakeClock, virtual
from tests.kit.process import PATIENCE

DAY = timedelta(days=1)
WEEK = 7 * 86_400.0
T = NOON.timestamp()


class Office(Desk):
    """A context whose histories store at once, or as `troubles` say."""

    keeps_history = True

    def __init__(self, clock, directory):
        super().__init__(clock)
        self.data_dir = directory
        self.recorded = []
        self.troubles = []
        self.others = {}

    def record(self, snapshot):
        self.recorded.append(snapshot)
        return len(self.recorded)

    async def stored(self, first=None):
        if self.troubles:
            raise self.troubles.pop(0)

    def states(self):
        return self.router.states()

    def history_provider(self, serial):
        return self.others.get(serial)


class Past:
    """SEMS's series, as `answer` says: samples, or an exception."""

    def __init__(self):
        self.calls = []
        self.answer = every_five

    async def history(self, serial, begins, ends, resolution):
        self.calls.append((serial, begins))
        found = self.answer(begins, ends)
        if isinstance(found, Exception):
            raise found
        yield Page(begins, ends, found)


def every_five(begins, ends):
    count = int((ends - begins).total_seconds() // 300) + 1
    times = (begins + timedelta(minutes=5 * n) for n in range(count))
    return [Sample(time, {"ac_power": 1.0}) for time in times if time < ends]


class Plant:
    def __init__(self, tmp_path, *targets, within=WEEK):
        self.clock = FakeClock()
        self.office = Office(self.clock, tmp_path)
        self.past = Past()
        self.targets = {t.serial: t for t in targets or (target("SN", "inverter"),)}
        for each in self.targets.values():
            self.office.announce(each.device)
        self.tasks = []
        self.filler = Filler(within, load("open_api"), self.office, self.past, self.targets, object())

    def spawn(self, work, name):
        self.tasks.append(asyncio.create_task(work, name=name))

    async def __aenter__(self):
        await self.filler.start(self.spawn)
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.filler.stop()

    def read(self, serial="SN", *, ago=0.0, interval=60.0, live=True):
        self.filler.read(self.targets[serial], self.clock.now() - timedelta(seconds=ago), interval, live=live)

    async def outage(self, hours, serial="SN"):
        self.read(serial)
        await asyncio.sleep(hours * 3600)
        self.read(serial)


@virtual
async def test_a_day_that_sems_has_nothing_for_is_asked_for_a_few_times_and_given_up(tmp_path):
    async with Plant(tmp_path) as it:
        it.past.answer = lambda *_: []
        await it.outage(1)
        await asyncio.sleep(9 * 3600)
        assert len(it.past.calls) == TRIES
        assert (it.filler.waiting, it.filler.given_up, it.filler.samples) == (0, 1, 0)
        await asyncio.sleep(8 * 3600)
        assert len(it.past.calls) == TRIES
    async with Plant(tmp_path) as again:
        again.read()
        await asyncio.sleep(600)
        assert not again.past.calls


@virtual
async def test_what_comes_later_is_taken_when_it_comes(tmp_path):
    async with Plant(tmp_path) as it:
        late = it.clock.now() + timedelta(minutes=20)
        it.past.answer = lambda begins, ends: every_five(begins, min(ends, late))
        await it.outage(1)
        await asyncio.sleep(300)
        first = [s.time for s in it.office.recorded]
        assert first == [NOON + timedelta(minutes=5 * n) for n in range(1, 4)]
        it.past.answer = every_five
        await asyncio.sleep(900)
        assert [s.time for s in it.office.recorded] == [NOON + timedelta(minutes=5 * n) for n in range(1, 12)]
        assert (it.filler.waiting, it.filler.given_up) == (0, 0)


@virtual
async def test_a_device_that_was_off_at_the_end_of_a_gap_is_no_reason_to_give_up(tmp_path):
    async with Plant(tmp_path) as it:
        dusk = it.clock.now() + timedelta(minutes=20)
        it.past.answer = lambda begins, ends: every_five(begins, min(ends, dusk))
        await it.outage(1)
        await asyncio.sleep(9 * 3600)
        assert (it.filler.waiting, it.filler.given_up, it.filler.samples) == (0, 0, 3)


@virtual
@pytest.mark.parametrize(("trouble", "given_up"), [(UnsureError("HTTP 500"), 0), (RefusedError("no right"), 1)])
async def test_a_call_that_fails_is_made_again_and_one_that_is_refused_not_for_ever(tmp_path, trouble, given_up):
    async with Plant(tmp_path) as it:
        it.past.answer = lambda *_: trouble
        await it.outage(1)
        await asyncio.sleep(9 * 3600)
        assert it.filler.given_up == given_up
        assert not it.office.recorded
        it.past.answer = every_five
        await asyncio.sleep(600)
        assert it.filler.samples == (0 if given_up else 11)


@virtual
async def test_after_a_failed_call_it_is_made_again_soon_and_less_and_less_often(tmp_path):
    async with Plant(tmp_path) as it:
        made, begins = [], asyncio.get_running_loop().time

        def fail(*_):
            made.append(begins())
            return UnsureError("it broke off")

        it.past.answer = fail
        await it.outage(1)
        await asyncio.sleep(1800)
        assert [round(later - one) for one, later in pairwise(made)] == [10, 20, 40, 80, 160, 300, 300, 300, 300]
        it.past.answer = every_five
        await asyncio.sleep(300)
        assert it.filler.samples == 11
        made.clear()
        it.past.answer = fail
        await it.outage(1)
        await asyncio.sleep(60)
        assert [round(later - one) for one, later in pairwise(made[:3])] == [10, 20]  # as at first


@virtual
async def test_what_a_sink_has_dropped_is_read_again(tmp_path):
    async with Plant(tmp_path) as it:
        it.office.troubles = [GatewayError("kafka has not kept up")]
        await it.outage(1)
        await asyncio.sleep(900)
        assert it.filler.samples == 11
        assert len(it.past.calls) == 2


@virtual
async def test_several_gaps_of_a_day_take_one_call(tmp_path):
    async with Plant(tmp_path) as it:
        it.past.answer = lambda *_: UnsureError("not yet")
        for _ in range(3):
            await it.outage(0.5)
        assert it.filler.waiting == 3
        it.past.answer = every_five
        it.past.calls.clear()
        await asyncio.sleep(400)
        assert len(it.past.calls) == 1
        assert it.filler.samples == 15
        times = [s.time for s in it.office.recorded]
        assert times == sorted(set(times))


@virtual
async def test_a_night_without_news_is_no_gap_and_neither_is_what_another_bridge_brings(tmp_path):
    async with Plant(tmp_path) as it:
        for n in range(600):
            it.read(ago=60.0 * n)
            await asyncio.sleep(60)
        it.read()
        assert not it.filler.waiting
        for _ in range(60):
            it.office.router.announce("push", Device(serial="SN", kind=DeviceKind.INVERTER))
            now = it.clock.now()
            it.office.router.publish(
                Snapshot(serial="SN", time=now, source="push", interval=60, values={"ac_power": 1.0})
            )
            await asyncio.sleep(60)
        it.read()
        assert not it.filler.waiting
        await it.outage(1)
        assert it.filler.waiting == 1


@virtual
async def test_of_two_accounts_with_the_minutes_of_a_device_one_fills(tmp_path):
    class Other:
        def __init__(self, *, has):
            self.has = has

        def history_plan(self, *_):
            if not self.has:
                raise RefusedError("no minutes")

    async with Plant(tmp_path) as it:
        it.office.others["SN"] = Other(has=True)
        await it.outage(1)
        await asyncio.sleep(300)
        assert (it.past.calls, it.filler.waiting) == ([], 0)
        it.office.others["SN"] = Other(has=False)
        await it.outage(1)
        await asyncio.sleep(300)
        assert it.filler.samples == 11


@virtual
async def test_what_is_too_old_is_given_up(tmp_path):
    async with Plant(tmp_path, within=6 * 3600.0) as it:
        it.past.answer = lambda *_: UnsureError("away")
        await it.outage(1)
        await asyncio.sleep(6 * 3600 + 700)
        assert (it.filler.waiting, it.filler.given_up) == (0, 1)


def test_a_device_has_no_more_gaps_than_a_small_file_holds():
    rows = []
    coverage = Coverage(WEEK, rows.append)
    for n in range(MAX_GAPS + 3):
        for device in range(1000):
            coverage.read(f"d{device}", T + 3600 * n, T + 3600 * n, 60)
    assert coverage.waiting == 1000 * MAX_GAPS
    assert coverage.given_up == 2000
    again = Coverage(WEEK, rows.append)
    again.restore(list(rows))
    assert again.waiting == 1000 * MAX_GAPS
    assert Counter(row[0] for row in again.rows()) == {"r": 1000, "g": 1000 * MAX_GAPS}
    assert again.gaps("d7")[0].start == T + 3600 * 2


@virtual
async def test_what_is_read_besides_hides_no_gap_when_it_comes_first_after_an_outage(tmp_path):
    """It did, and a device lost the hour that a busy gateway was away."""
    async with Plant(tmp_path) as it:
        it.read()
        await asyncio.sleep(3600)
        it.read(interval=300.0, live=False)
        it.read()
        assert it.filler.waiting == 1
        await asyncio.sleep(300)
        assert it.filler.samples == 11


@virtual(only="uvloop")
async def test_a_file_that_was_torn_is_taken_up_and_stays_small(tmp_path):
    path, rows = tmp_path / "gaps.jsonl", [("r", f"d{n}", T, T) for n in range(1000)]
    path.write_bytes(b'["r","a",1,2]\n["x"]\n\xff\xfe\n["g","a",5,9]\n["d","a"')
    book = Book(path, lambda: rows, structlog.get_logger())
    assert await book.open() == [("r", "a", 1.0, 2.0), ("g", "a", 5.0, 9.0)]
    for _ in range(60):
        for row in rows:
            book.add(row)
        await book.written()
    assert path.stat().st_size < 1_100_000
    assert path.stat().st_mode & 0o777 == 0o600
    await book.close()


@pytest.fixture
def alone():
    """What tests before have left is not looked through by the garbage collector: that takes a third of a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("alone")
async def test_no_turn_of_the_loop_is_long_at_10_000_devices(tmp_path, monkeypatch):
    """An outage of all of them: noted, found, and filled for a while, by the real clock and loop."""
    targets = [target(f"SN{n:05}", "inverter", f"p{n % 500}") for n in range(10_000)]
    it = Plant(tmp_path, *targets)
    it.clock = it.office.clock = Shifted()
    monkeypatch.setattr("gateway.bridges.open_api.gaps.coverage.MAX_SETTLE_SECONDS", 0.0)
    longest = 0.0

    async def watch():
        nonlocal longest
        while True:
            at = time.thread_time()  # others use the machine too
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - at)

    async def read_all():
        for n, each in enumerate(targets):
            it.filler.read(each, None, 60.0, live=True)
            if n % 20 == 0:
                await asyncio.sleep(0)

    async with it:
        await read_all()
        it.clock.shift += timedelta(hours=1)
        # What comes after, not the start of it.
        watcher = asyncio.create_task(watch())
        await read_all()
        begun = time.monotonic()
        while it.filler.samples < 2_000 and time.monotonic() - begun < PATIENCE:
            await asyncio.sleep(0.05)
        watcher.cancel()
        assert it.filler.samples >= 2_000
        assert (tmp_path / "sems-gaps.jsonl").stat().st_size < 4_000_000
    assert longest < 0.1


class Shifted(FakeClock):
    def __init__(self):
        self.shift = timedelta()

    def now(self):
        return datetime.now(UTC) + self.shift
