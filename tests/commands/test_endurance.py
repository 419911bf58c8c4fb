"""An inverter's memory wears out: its writes are counted for life, and limited by day."""

import asyncio
from datetime import timedelta

from gateway.commands.policy.policy import ControlSettings
from gateway.core.errors import NotSentError
from gateway.core.model import CommandState, Reason
from tests.kit.bench import EVERYTHING, INVERTER, Bench, collected
from tests.kit.clock import FakeClock, virtual

FEW = ControlSettings(**(EVERYTHING.model_dump() | {"writes_per_day": 3}))


async def ask(bench, *args, **more):
    (event,) = await bench.dispatcher.submit(bench.command(*args, **more))
    await asyncio.sleep(1)
    return event


def counted(bench, setpoint="active_power_limit"):
    return bench.dispatcher.wear.of(INVERTER.serial)[setpoint].life


@virtual
async def test_the_budget_of_a_day_holds_over_a_restart_and_begins_anew_at_midnight(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, FEW, clock) as bench:
        bench.announce()
        bench.publish(ac_power=1.0)
        for value in (10, 20):
            assert (await ask(bench, value=value)).reason is None
    async with Bench(tmp_path, FEW, clock) as bench:
        bench.announce()
        bench.publish(ac_power=1.0)
        assert (await ask(bench, "running", value=False)).reason is None
        refused = await ask(bench, value=40)
        assert (refused.state, refused.reason) == (CommandState.REJECTED, Reason.RATE_LIMITED)
        assert "3 writes today" in refused.detail
        assert bench.dispatcher.explain(bench.command(value=40)).refusal.reason is Reason.RATE_LIMITED
        assert (counted(bench), counted(bench, "running")) == (2, 1)
        clock.jump(timedelta(hours=12).total_seconds())
        assert (await ask(bench, value=40)).reason is None
        assert counted(bench) == 3


@virtual
async def test_an_unchanged_value_is_no_write_and_neither_is_what_never_left(tmp_path):
    async with Bench(tmp_path, FEW, FakeClock()) as bench:
        bench.announce()
        bench.publish(ac_power=1.0)
        for _ in range(9):
            assert (await ask(bench, value=10)).reason is None
        assert counted(bench) == 1
        bench.controller.answers = [NotSentError("away")] * 5
        assert (await ask(bench, value=20, ttl=5)).reason is None
        await asyncio.sleep(10)
        assert counted(bench) == 1
        assert {w.setpoint: w.life for w in await bench.journal.written()} == {"active_power_limit": 1}


@virtual
async def test_reverts_and_halts_are_not_held_back(tmp_path):
    async with Bench(tmp_path, FEW, FakeClock()) as bench:
        bench.announce()
        bench.publish(ac_power=1.0)
        await ask(bench, value=10)
        await ask(bench, value=20)
        await ask(bench, value=30, revert_after=20.0)
        await bench.halting.halt("cli:me")
        await asyncio.sleep(30)
        assert [c.value for c in bench.controller.sent] == [10.0, 20.0, 30.0, 100.0]
        assert counted(bench) == 4


@virtual
async def test_what_was_accepted_within_the_budget_and_waited_is_looked_at_again_before_it_leaves(tmp_path):
    async with Bench(tmp_path, FEW, FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.publish(ac_power=1.0)
        bench.controller.gate.clear()
        first, waiting = bench.command(value=10), bench.command(value=11)
        await bench.dispatcher.submit(first)
        await bench.dispatcher.submit(waiting)
        for n, (setpoint, value) in enumerate({"running": False, "battery_mode": "charge"}.items()):
            await ask(bench, setpoint, value=value)
            assert bench.dispatcher.wear.today(INVERTER.serial) == n + 2
        bench.controller.gate.set()
        await asyncio.sleep(1)
        ends = {e.command.id: e for e in events if e.state.final}
        assert ends[first.id].state is CommandState.SUCCEEDED
        assert ends[waiting.id].state is CommandState.EXPIRED
        assert "writes today" in ends[waiting.id].detail
