"""Calls side by side: a slow one costs itself."""

import asyncio

import pytest

from gateway.sems.lanes import MAX_SLOW, QUICK, SLOW_LANES, Lanes
from tests.kit.loops import LOOPS

VIRTUAL = pytest.mark.parametrize("loop", [name for name in LOOPS if "virtual" in name])


async def takes(seconds):
    await asyncio.sleep(seconds)


def now():
    return asyncio.get_running_loop().time()


@VIRTUAL
def test_a_worker_waits_for_a_quick_call_and_leaves_a_slow_one(loop):
    async def test():
        lanes, began = Lanes(), now()
        await lanes.run("a", takes(1))
        assert now() - began == pytest.approx(1, abs=0.1)
        await lanes.run("b", takes(100))
        assert now() - began == pytest.approx(1 + QUICK, abs=0.1)
        assert lanes.is_open("a")
        assert not lanes.is_open("b"), "one call at a time about who is slow"
        await asyncio.sleep(100)
        assert lanes.is_open("b")
        began = now()
        await lanes.run("b", takes(100))
        assert now() - began < 0.1, "no worker waits for who is known to be slow"
        await lanes.stop()

    _run(loop, test())


@VIRTUAL
def test_who_was_slow_shares_a_few_lanes_until_quick_again(loop):
    async def test():
        lanes = Lanes()
        names = [f"slow{n}" for n in range(SLOW_LANES + 1)]
        await asyncio.gather(*(lanes.run(name, takes(20)) for name in names))
        await asyncio.sleep(20)
        for name in names[:-1]:
            assert lanes.is_open(name)
            await lanes.run(name, takes(20))
        assert not lanes.is_open(names[-1])
        assert lanes.is_open("quick")
        await asyncio.sleep(20)
        await lanes.run(names[-1], takes(0.1))
        await asyncio.sleep(1)
        for name in names[:-1]:
            await lanes.run(name, takes(20))
        assert lanes.is_open(names[-1]), "it was quick again"
        await lanes.stop()

    _run(loop, test())


@VIRTUAL
def test_not_any_number_of_calls_is_left_to_itself(loop):
    async def test():
        lanes, under_way, most = Lanes(), 0, 0

        async def call():
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                await asyncio.sleep(60)
            finally:
                under_way -= 1

        async def worker(n):
            for m in range(20):
                await lanes.run((n, m), call())

        await asyncio.gather(*(worker(n) for n in range(4)))
        await lanes.stop()
        assert MAX_SLOW <= most <= MAX_SLOW + 4
        assert under_way == 0

    _run(loop, test())


@VIRTUAL
def test_what_a_call_raises_is_raised_even_when_nobody_waited(loop):
    async def fails(after):
        await asyncio.sleep(after)
        raise ValueError("boom")

    async def test():
        with pytest.raises(ValueError, match="boom"):
            await Lanes().run("a", fails(0.1))
        lanes = Lanes()
        await lanes.run("a", fails(60))
        await asyncio.sleep(60)
        with pytest.raises(ValueError, match="boom"):
            await lanes.run("b", takes(0.1))

    _run(loop, test())


@VIRTUAL
def test_a_worker_that_is_cancelled_takes_its_call_along(loop):
    async def test():
        lanes, ended = Lanes(), []

        async def call():
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        worker = asyncio.create_task(lanes.run("a", call()))
        await asyncio.sleep(0.1)
        worker.cancel()
        await asyncio.gather(worker, lanes.stop(), return_exceptions=True)
        assert ended == [True]

    _run(loop, test())


def _run(loop, work):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(work)
