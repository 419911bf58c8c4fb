"""Commands that share a call: whoever comes, expires and gives up whenever, each hears of its own.."""

import asyncio

import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.bridges.open_api import batcher
from gateway.bridges.open_api.batcher import Batcher
from gateway.core.clock import SystemClock
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.sems.budget import Priority
from gateway.sems.catalogue import load
from tests.kit.loops import run_on

MS = 0.001
INTERFACE = load("developer").interface("ControlTask.ActivePowerLimit")
USERS = st.lists(
    st.tuples(
        st.sampled_from([0, MS, 3 * MS]),  # comes
        st.sampled_from(["a", "b", "c"]),  # serial
        st.sampled_from([MS, 3 * MS, 1]),  # its time
        st.sampled_from([None, 0, MS, 3 * MS]),  # gives up
    ),
    min_size=1,
    max_size=6,
)


GIVEN_UP_AS_ANOTHER_COMES = [(0, "c", MS, 3 * MS), (0, "c", MS, MS), (0, "c", MS, 3 * MS), (3 * MS, "a", MS, None)]


@settings(max_examples=100)
@example(users=GIVEN_UP_AS_ANOTHER_COMES, fails=None)
@given(users=USERS, fails=st.sampled_from([None, NotSentError, UnsureError, RefusedError, ZeroDivisionError]))
def test_each_hears_of_its_own_command_and_nothing_is_left_under_way(users, fails):
    async def test():
        calls = []

        async def call(_, each, __, ___, timeout, ids):
            serials = [args["serial"] for args in each]
            assert len(set(serials)) == len(serials)
            assert timeout > 0
            calls.append(serials)
            await asyncio.sleep(2 * MS)
            if fails:
                raise fails("no")
            return serials

        gatherer = Batcher(call, SystemClock(), structlog.get_logger("test"))

        async def live(comes, serial, time, gives_up):
            await asyncio.sleep(comes)
            args = {"serial": serial, "serials": [serial], "active_power_limit": 50.0}
            user = asyncio.create_task(
                gatherer.send(serial, INTERFACE, args, "active_power_limit", Priority.CONTROL, time)
            )
            if gives_up is not None:
                await asyncio.sleep(gives_up)
                user.cancel()
            (fate,) = await asyncio.gather(user, return_exceptions=True)
            if isinstance(fate, list):
                assert serial in fate
            else:
                assert isinstance(fate, (asyncio.CancelledError, NotSentError, fails or NotSentError))
                assert not isinstance(fate, asyncio.CancelledError) or gives_up is not None

        await asyncio.gather(*(live(*user) for user in users))
        for _ in range(100):
            if not gatherer._tasks:
                break
            await asyncio.sleep(batcher.WINDOW / 10)
        assert not gatherer._tasks
        assert not gatherer._open

    run_on("virtual", test())
