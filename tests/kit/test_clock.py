"""The loops on which time is free: they skip, they don't get stuck, and they do as the real ones do."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from tests.kit.clock import LOOPS, VirtualLoop, VirtualUvloop, virtual


def on(loop_factory, work):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


@virtual
async def test_a_day_takes_no_time():
    loop, began, really = asyncio.get_running_loop(), asyncio.get_running_loop().time(), time.monotonic()
    for _ in range(24):
        await asyncio.sleep(3600)
    assert loop.time() == began + 86400
    assert time.monotonic() - really < 30


@virtual
async def test_what_an_executor_that_was_shut_down_refuses_is_waited_for_by_nobody():
    """Counted all the same, it would hold time for ever."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        asyncio.get_running_loop().run_in_executor(pool, int)
    await asyncio.sleep(3600)


@virtual
async def test_time_stands_while_a_thread_works():
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await asyncio.gather(asyncio.to_thread(time.sleep, 0.05), asyncio.to_thread(int, "7")) == [None, 7]
    with pytest.raises(ValueError, match="invalid literal"):
        await asyncio.to_thread(int, "x")
    assert loop.time() == began


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_wait_for_nothing_fails(loop):
    with pytest.raises(RuntimeError, match="nothing will bring"):
        on(loop, asyncio.Event().wait())


async def two_pools():
    """Give two pools work at the same time, as the journal does; return the order in which it was done and told."""
    loop, done = asyncio.get_running_loop(), []
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:

        async def give(pool, name):
            await loop.run_in_executor(pool, done.append, name)
            done.append(f"{name} told")

        await asyncio.gather(*(give(pool, f"{name}{n}") for n in range(3) for pool, name in ((one, "a"), (other, "b"))))
    return done


def test_a_seed_decides_which_of_two_threads_is_first_and_one_thread_keeps_its_order():
    orders = [on(lambda seed=seed: VirtualLoop(seed), two_pools()) for seed in range(20)]
    assert orders == [on(lambda seed=seed: VirtualLoop(seed), two_pools()) for seed in range(20)]
    assert len({tuple(order) for order in orders}) > 10
    assert {order[0] for order in orders} == {"a0", "b0"}
    for order in orders:
        for name in "ab":
            assert [each for each in order if each in {f"{name}0", f"{name}1", f"{name}2"}] == [
                f"{name}0",
                f"{name}1",
                f"{name}2",
            ]


async def turns():
    """What happens in which order, where timers of one millisecond, calls, tasks and futures meet."""
    loop, seen = asyncio.get_running_loop(), []
    future = loop.create_future()

    def first():
        seen.append("first timer")
        loop.call_soon(seen.append, "called soon by the first timer")
        future.set_result(None)
        second.cancel()

    async def wait():
        await future
        seen.append("task")

    async def time_out():
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(60)
        except TimeoutError:
            seen.append("timed out")

    begun = loop.time()
    loop.call_at(begun + 0.02, first)
    second = loop.call_at(begun + 0.02, seen.append, "cancelled by the first")
    loop.call_at(begun + 0.02, seen.append, "third timer")
    loop.call_later(0.0003, seen.append, "no delay to uvloop")
    loop.call_soon(seen.append, "soon")
    await asyncio.gather(wait(), time_out())
    none = loop.call_at(loop.time(), seen.append, "now")
    later = loop.call_later(0.001, int)
    seen.append((hasattr(none, "when"), hasattr(later, "when")))
    later.cancel()
    await asyncio.sleep(0.002)
    return seen


def test_free_time_on_uvloop_goes_as_uvloop_goes():
    assert on(VirtualUvloop, turns()) == on(uvloop.new_event_loop, turns())


async def test_tests_run_on_the_loop_of_production():
    assert type(asyncio.get_running_loop()) is uvloop.Loop
