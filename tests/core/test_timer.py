"""A timer acts once, never early, and asks the loop's handles nothing. On production's loop and on the virtual one."""

import asyncio
import math
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import timer as timer_module
from gateway.core.timer import Timer
from tests.kit.loops import BOTH_LOOPS, run_on

MS = 0.001


class Heard:
    """When a timer acted, on the loop's clock."""

    def __init__(self):
        self.times = []
        self.timer = Timer(self)

    def __call__(self):
        self.times.append(asyncio.get_running_loop().time())

    async def quiet(self):
        """Wait until the timer has nothing left to do."""
        while self.timer.is_set:
            await asyncio.sleep(MS)
        await asyncio.sleep(2 * MS)
        return self.times


@BOTH_LOOPS
@pytest.mark.parametrize("seconds", [0, -1, -math.inf, 1e-9, 2 * MS])
def test_it_acts_once_and_not_within_the_call(loop, seconds):
    async def test():
        heard, began = Heard(), asyncio.get_running_loop().time()
        heard.timer.set(seconds)
        assert heard.timer.is_set
        assert not heard.times
        (at,) = await heard.quiet()
        assert at >= began + max(0, seconds)
        assert not heard.timer.is_set

    run_on(loop, test())


@BOTH_LOOPS
def test_within_only_ever_makes_it_sooner(loop):
    async def test():
        heard = Heard()
        heard.timer.within(100)
        heard.timer.within(3 * MS)
        due = heard.timer.due
        heard.timer.within(50 * MS)
        assert heard.timer.due == due
        (at,) = await heard.quiet()
        assert due <= at < due + 50 * MS or loop == "uvloop"
        heard.timer.within(50 * MS)  # what has acted may be set anew
        assert heard.timer.is_set
        heard.timer.within(0)
        assert len(await heard.quiet()) == 2

    run_on(loop, test())


@BOTH_LOOPS
def test_set_anew_it_is_later_too(loop):
    async def test():
        heard = Heard()
        heard.timer.set(0)
        heard.timer.set(4 * MS)
        due = heard.timer.due
        (at,) = await heard.quiet()
        assert at >= due

    run_on(loop, test())


@BOTH_LOOPS
def test_cancelled_in_the_turn_in_which_it_is_due_it_does_not_act(loop):
    async def test():
        acted = []

        def act(mine, others):
            acted.append(mine)
            for other in others:
                timers[other].cancel()

        # Each cancels the one before it and the one behind it: two neighbours never act.
        timers = [Timer(partial(act, n, {max(0, n - 1), min(4, n + 1)} - {n})) for n in range(5)]
        for timer in timers:
            timer.set(2 * MS)
        while any(timer.is_set for timer in timers):
            await asyncio.sleep(MS)
        await asyncio.sleep(3 * MS)
        assert acted
        assert len(acted) == len(set(acted))
        assert not any(n + 1 in acted for n in acted)
        timers[0].cancel()  # behind its time: harmless

    run_on(loop, test())


@BOTH_LOOPS
def test_it_may_set_itself_again_as_it_acts(loop):
    async def test():
        times = []

        def act():
            times.append(asyncio.get_running_loop().time())
            if len(times) < 5:
                timer.set(MS)

        timer = Timer(act)
        timer.set(0)
        while timer.is_set:
            await asyncio.sleep(MS)
        assert len(times) == 5
        assert all(later - earlier >= MS * 0.999 for earlier, later in pairwise(times))

    run_on(loop, test())


@BOTH_LOOPS
def test_what_is_never_due_or_far_away_is_looked_at_again_and_does_not_act(loop, monkeypatch):
    monkeypatch.setattr(timer_module, "MAX_WAIT", 2 * MS)

    async def test():
        heard = Heard()
        heard.timer.set(math.inf)
        assert not heard.timer.is_set
        heard.timer.set(1e12)
        await asyncio.sleep(20 * MS)
        assert heard.timer.is_set
        assert not heard.times
        heard.timer.set(9 * MS)
        due = heard.timer.due
        (at,) = await heard.quiet()
        assert at >= due
        heard.timer.cancel()

    run_on(loop, test())


@BOTH_LOOPS
def test_an_action_that_fails_leaves_it_usable(loop):
    async def test():
        met, heard = [], Heard()
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: met.append(context["exception"]))
        failing = Timer(lambda: 1 / 0)
        failing.set(0)
        while not met:
            await asyncio.sleep(MS)
        assert not failing.is_set
        heard.timer.set(0)
        assert len(await heard.quiet()) == 1

    run_on(loop, test())


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["set", "within"]), st.sampled_from([-1, 0, 1e-7, 0.3 * MS, MS, 1.4999 * MS, 3 * MS])
        ),
        st.tuples(st.just("cancel"), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0, 0.3 * MS, MS, 2 * MS])),
    ),
    max_size=12,
)


@BOTH_LOOPS
@settings(max_examples=150)
@given(operations=OPERATIONS)
def test_any_order_of_orders_acts_when_due_and_only_then(loop, operations):
    async def test():
        running = asyncio.get_running_loop()
        acted = []
        timer = Timer(lambda: acted.append((running.time(), due.pop())))
        due = []
        """What the timer ought to be due at, at most one."""
        for operation, seconds in operations:
            now = running.time()
            match operation:
                case "set":
                    timer.set(seconds)
                    assert timer.due >= now + max(0, seconds)
                    due[:] = [timer.due]
                case "within":
                    timer.within(seconds)
                    assert timer.due >= min([now + max(0, seconds), *due])
                    assert timer.due <= min(due, default=math.inf) + 1e-6, "as near as binary fractions tell"
                    due[:] = [timer.due]
                case "cancel":
                    due.clear()
                    timer.cancel()
                case "wait":
                    await asyncio.sleep(seconds)
            assert [timer.due] == (due or [math.inf])
        while timer.is_set:
            await asyncio.sleep(MS)
        assert not due
        assert all(at >= when for at, when in acted)
        if loop == "virtual":
            assert all(at < when + MS + 1e-6 for at, when in acted)

    run_on(loop, test())
