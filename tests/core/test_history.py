"""A sink that keeps history gets every snapshot, in order, and `stored` tells the truth about it."""

import asyncio
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.bridge import BridgeSettings, HistorySink, Sink
from gateway.core.errors import GatewayError
from gateway.core.model import Snapshot
from tests.kit.bench import INVERTER, Bench
from tests.kit.clock import FakeClock, virtual, virtually

SN = INVERTER.serial


class Archive:
    """A plugin that keeps what it is given. `trouble` holds what to raise instead, in turn."""

    Settings: ClassVar = BridgeSettings
    backlog = 100

    def __init__(self, settings, context):
        self.kept = []
        self.states = []
        self.trouble = []
        self.open = asyncio.Event()
        self.open.set()
        self.starts = []
        """Whether each start works, in turn; after that all do."""

    async def start(self):
        if self.starts and not self.starts.pop(0):
            raise OSError("the disk is away")

    async def stop(self):
        pass

    async def deliver(self, updates):
        await self.open.wait()
        if self.trouble and (error := self.trouble.pop(0)):
            raise error
        self.kept += [snapshot.values["n"] for snapshot in updates.snapshots]
        self.states += list(updates.states)


class Short(Archive):
    backlog = 3


class Source:
    Settings: ClassVar = BridgeSettings

    def __init__(self, settings, context):
        self.context = context

    async def start(self):
        pass

    async def stop(self):
        pass


def snapshot(bench, n, *, source="source", age=0.0):
    time = bench.clock.now() - timedelta(seconds=age)
    return Snapshot(serial=SN, time=time, source=source, interval=60.0, values={"n": n})


class Scene:
    """A source and an archive under real supervisors."""

    def __init__(self, bench, archive=Archive):
        self.bench = bench
        self.runner = bench.run(archive, BridgeSettings(), "archive")
        self.archive = self.runner.bridge
        self.context = bench.run(Source, BridgeSettings(), "source").bridge.context
        bench.announce()

    def publish(self, *numbers):
        return [self.context.publish(snapshot(self.bench, n)) for n in numbers]


def scene(archive=Archive):
    def wrap(test):
        @virtually
        async def run(tmp_path):
            async with Bench(tmp_path, clock=FakeClock()) as bench:
                await test(Scene(bench, archive))

        run.__name__ = test.__name__
        return run

    return wrap


def test_what_is_a_history_sink():
    assert isinstance(Archive(None, None), HistorySink)
    assert not isinstance(Source(None, None), Sink)


@scene()
async def test_every_snapshot_in_order_and_none_conflated(it):
    it.publish(*range(50))
    await it.context.stored()
    assert it.archive.kept == list(range(50))
    it.publish(50)
    it.context.record(snapshot(it.bench, 51, age=3600))
    it.context.publish(snapshot(it.bench, 52, age=7200))
    await it.context.stored()
    assert it.archive.kept == list(range(53))
    assert it.context.state(SN).values == {"n": 50}


@scene()
async def test_of_an_unknown_device_nothing_is_kept(it):
    it.bench.router.withdraw("scripted", SN)
    it.publish(1)
    it.context.record(snapshot(it.bench, 2))
    await it.context.stored()
    await asyncio.sleep(1)
    assert it.archive.kept == []


@virtual
async def test_without_such_sinks_it_is_stored_at_once(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        context = bench.run(Source, BridgeSettings(), "source").bridge.context
        bench.announce()
        context.publish(snapshot(bench, 1))
        await asyncio.wait_for(context.stored(), 0.001)


@scene()
async def test_it_waits_until_deliver_has_returned(it):
    await asyncio.sleep(1)
    it.archive.open.clear()
    it.publish(1)
    waiting = asyncio.create_task(it.context.stored())
    await asyncio.sleep(100)
    assert not waiting.done()
    it.publish(2)
    it.archive.open.set()
    await waiting
    assert it.archive.kept[0] == 1


@scene()
async def test_who_gives_up_waiting_harms_nobody(it):
    await asyncio.sleep(1)
    it.archive.open.clear()
    it.publish(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(it.context.stored(), 120)
    it.archive.open.set()
    await it.context.stored()
    assert it.archive.kept == [1]


@scene()
async def test_while_it_is_down_nothing_within_the_backlog_is_lost(it):
    await asyncio.sleep(1)
    it.archive.starts = [False, False, False]
    it.archive.trouble = [ValueError("torn page")]
    it.publish(1, 2)
    await asyncio.sleep(0.1)
    assert not next(s.up for s in it.bench.router.bridges() if s.name == "archive")
    it.publish(3)
    await it.context.stored()
    assert it.archive.kept == [1, 2, 3]
    assert SN in it.archive.states


@scene()
async def test_what_failed_is_delivered_again_however_often(it):
    it.archive.trouble = [OSError("full"), OSError("full"), None, OSError("full")]
    it.publish(1)
    await it.context.stored()
    it.publish(2)
    await it.context.stored()
    assert it.archive.kept == [1, 2]


@scene(Short)
async def test_past_the_backlog_the_oldest_is_dropped_counted_and_never_called_stored(it):
    await asyncio.sleep(1)
    it.archive.open.clear()
    it.publish(0)
    await asyncio.sleep(1)
    early = asyncio.create_task(it.context.stored(it.publish(1)[0]))
    await asyncio.sleep(1)
    it.publish(2, 3)
    late = asyncio.create_task(it.context.stored(it.publish(4)[0]))
    with pytest.raises(GatewayError, match="archive has not kept up, and the oldest of 3 snapshots"):
        await early
    await asyncio.sleep(1)
    assert not late.done()
    it.archive.open.set()
    await late
    assert it.archive.kept == [0, 2, 3, 4]
    mailbox = it.bench.router.attach("archive")
    assert mailbox.dropped["snapshots"] == 1


@scene(Short)
async def test_what_was_dropped_before_one_asks_is_not_stored_either(it):
    await asyncio.sleep(1)
    first, *_ = it.publish(1, 2, 3, 4)
    with pytest.raises(GatewayError):
        await it.context.stored()
    with pytest.raises(GatewayError):
        await it.context.stored(first)
    await asyncio.sleep(1)
    it.publish(5)
    await it.context.stored()
    assert it.archive.kept == [2, 3, 4, 5]


@scene()
async def test_when_the_gateway_stops_those_who_wait_are_told(it):
    await asyncio.sleep(1)
    it.archive.open.clear()
    it.publish(1)
    waiting = asyncio.create_task(it.context.stored())
    await asyncio.sleep(1)
    await it.runner.stop()
    with pytest.raises(GatewayError, match="archive was stopped"):
        await waiting


@virtual
async def test_all_of_several_must_have_it(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        it = Scene(bench)
        other = bench.run(Archive, BridgeSettings(), "other").bridge
        await asyncio.sleep(1)
        other.open.clear()
        it.publish(1)
        waiting = asyncio.create_task(it.context.stored())
        await asyncio.sleep(1)
        assert (it.archive.kept, waiting.done()) == ([1], False)
        other.open.set()
        await waiting
        assert other.kept == [1]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(1, 3)),
            st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.5, 90.0])),
            st.tuples(st.just("fail"), st.integers(1, 2)),
        ),
        max_size=25,
    )
)
def test_nothing_is_called_stored_that_is_not_kept(steps):
    import tempfile
    from pathlib import Path

    class Tight(Archive):
        backlog = 4

    @virtually
    async def run(directory):
        async with Bench(directory, clock=FakeClock()) as bench:
            it = Scene(bench, Tight)
            claimed, lost, tasks, n = set(), set(), [], 0

            async def ask(first, numbers):
                try:
                    await it.context.stored(first)
                except GatewayError:
                    lost.update(numbers)
                else:
                    assert set(numbers) <= set(it.archive.kept)
                    claimed.update(numbers)

            for what, value in steps:
                if what == "publish":
                    numbers = list(range(n, n + value))
                    n += value
                    tasks.append(asyncio.create_task(ask(it.publish(*numbers)[0], numbers)))
                elif what == "sleep":
                    await asyncio.sleep(value)
                else:
                    it.archive.trouble += [OSError("full")] * value
            await asyncio.gather(*tasks)
            assert claimed | lost == set(range(n))
            assert sorted(set(it.archive.kept)) == list(dict.fromkeys(it.archive.kept))

    with tempfile.TemporaryDirectory() as directory:
        run(Path(directory))
