"""Who waits for calls, and for results: whatever the order of asking, leaving and giving up. On both loops."""

import asyncio
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bridges.open_api.admission_queue import KEPT_EACH, UNDER_WAY, AdmissionQueue
from gateway.bridges.open_api.results import Results
from gateway.core.clock import SystemClock
from tests.kit.loops import BOTH_LOOPS, run_on


class Calls:
    """A budget with so many calls, of which more come free at once when it is told so."""

    def __init__(self, left):
        self.left = left
        self.wanted = 0

    def room(self, _):
        return self.left

    def most(self, _):
        return 1000

    def until(self, calls, _):
        return 0.0 if self.left >= calls else 0.001


@BOTH_LOOPS
def test_on_a_loop_that_gives_bare_handles_one_leaves_while_others_wait(loop):
    """TRIALS C1: two that leave in one turn, each of which sets the timer to now."""

    async def test():
        turns = AdmissionQueue(Calls(1000))
        asked = [turns.ask(str(n), 1) for n in range(UNDER_WAY + 4)]
        assert sum(turn.done() for turn in asked) == UNDER_WAY
        for n in range(4):
            turns.leave(str(n))
        await asyncio.gather(*asked)

    run_on(loop, test())


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "leave", "give up", "calls", "wait"]), st.integers(0, 11)), max_size=40
)


@BOTH_LOOPS
@settings(max_examples=150)
@given(operations=OPERATIONS, batch=st.sampled_from([1, 3]), calls=st.sampled_from([0, KEPT_EACH, 1000]))
def test_whoever_asks_and_leaves_the_load_is_what_was_granted_and_has_not_left(loop, operations, batch, calls):
    async def test():
        budget = Calls(calls)
        turns = AdmissionQueue(budget)
        asked = {}
        for operation, n in operations:
            match operation:
                case "ask":
                    asked[str(n)] = turns.ask(str(n), batch)
                case "leave":
                    turns.leave(str(n))
                    asked.pop(str(n), None)
                case "give up":
                    if (turn := asked.get(str(n))) is not None:
                        turn.cancel()
                case "calls":
                    budget.left = n * KEPT_EACH
                case "wait":
                    await asyncio.sleep(0.002 if n == 0 else 0)
            granted = sum(turn.done() and not turn.cancelled() for turn in asked.values())
            assert abs(turns._load - granted / batch) < 1e-6
        budget.left = 1000
        fresh = {name: turns.ask(name, batch) for name in asked}
        await asyncio.gather(*fresh.values())
        for name in fresh:
            turns.leave(name)
        assert abs(turns._load) < 1e-6
        assert budget.wanted == 0

    run_on(loop, test())


@BOTH_LOOPS
def test_one_who_asks_in_the_turn_in_which_the_last_one_gives_up_gets_an_answer(loop):
    async def test():
        asked, gate = [], asyncio.Event()
        entry = SimpleNamespace(reading=SimpleNamespace(text=lambda _: "succeeded"))

        async def ask(_, receipt, commands):
            asked.append(receipt)
            await gate.wait()
            return dict.fromkeys(commands, entry)

        results = Results(ask, SystemClock())

        async def settled():
            return await results.settled(SimpleNamespace(name="result"), "task", SimpleNamespace(serial="a"))

        async def twice():
            try:
                await settled()
            except asyncio.CancelledError:
                gate.set()
                return await settled()  # the worker was told to end, and has not ended yet

        impatient = asyncio.create_task(twice())
        while not asked:
            await asyncio.sleep(0)
        impatient.cancel()
        assert await asyncio.wait_for(impatient, 120) is entry
        assert not results._tasks

    run_on(loop, test())
