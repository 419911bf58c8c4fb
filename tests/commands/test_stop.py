"""After its stop nothing acts: what is under way is the journal's, and taken up at the next start."""

import asyncio

import pytest

from gateway.core.model import CommandState
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual
from tests.kit.journal import before_writing


@virtual
async def test_a_step_that_arms_a_timer_while_the_gateway_stops_leaves_it_to_the_journal(tmp_path, caplog):
    clock = FakeClock()
    bench = Bench(tmp_path, clock=clock)
    await bench.journal.open()
    await bench.dispatcher.start()
    bench.announce()
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(*events):
        if any(event.state is CommandState.SENT for event in events):
            begun.set()
            await go.wait()

    before_writing(bench.journal, slow)
    await bench.dispatcher.submit(bench.command(value=30, revert_after=5.0))
    await begun.wait()
    stopping = asyncio.create_task(bench.dispatcher.stop())
    await asyncio.sleep(3)
    go.set()
    await stopping
    (armed,) = await bench.journal.reverts()
    assert armed.value == 100.0
    await asyncio.sleep(60)
    assert [c.value for c in bench.controller.sent] == [30.0]
    assert not [o for o in await bench.journal.open_commands() if o.command.is_revert], "it fired after the stop"
    await bench.journal.close()
    await asyncio.sleep(60)
    async with Bench(tmp_path, clock=clock) as reborn:
        reborn.announce()
        await asyncio.sleep(1)
        assert [c.value for c in reborn.controller.sent] == [100.0]
        assert await reborn.journal.reverts() == []


@pytest.mark.parametrize("seconds", [0.0, 0.001, 1.0, 9.999, 10.0, 10.001])
@virtual
async def test_whenever_it_stops_a_timer_fires_exactly_once_over_the_restart(tmp_path, seconds):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=10.0))
        await asyncio.sleep(seconds)
    before = [c.value for c in bench.controller.sent]
    async with Bench(tmp_path, clock=clock) as reborn:
        reborn.announce()
        await asyncio.sleep(30)
        assert (before + [c.value for c in reborn.controller.sent]).count(100.0) == 1
