"""A promise outlives discovery: a device about which something is open is not withdrawn from control."""

import asyncio

from gateway.core.errors import NotSentError
from gateway.core.model import CommandState, Quality, Reason
from tests.kit.bench import INVERTER, Bench, collected
from tests.kit.clock import FakeClock, virtual

SN = INVERTER.serial


@virtual
async def test_while_a_timer_runs_the_device_stays_and_takes_commands_and_then_it_goes(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.publish(ac_power=1.0)
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0))
        await asyncio.sleep(1)
        bench.router.withdraw("scripted", SN)
        assert bench.router.state(SN) is not None
        await bench.dispatcher.submit(bench.command(value=40, revert_after=600.0))
        await asyncio.sleep(590)
        bench.router.age()
        assert bench.router.state(SN).quality is Quality.STALE, "nobody brings data of it"
        await asyncio.sleep(20)
        assert [c.value for c in bench.controller.sent] == [30.0, 40.0, 100.0]
        assert events[-1].state is CommandState.SUCCEEDED
        assert bench.router.state(SN) is None
        (refused,) = await bench.dispatcher.submit(bench.command(value=50))
        assert refused.reason is Reason.UNKNOWN_DEVICE


@virtual
async def test_while_a_command_is_open_the_device_stays(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [NotSentError("away")] * 3
        await bench.dispatcher.submit(bench.command(value=30))
        bench.router.withdraw("scripted", SN)
        await asyncio.sleep(60)
        assert events[-1].state is CommandState.SUCCEEDED
        assert bench.router.state(SN) is None


@virtual
async def test_found_again_meanwhile_it_stays(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=10.0))
        await asyncio.sleep(1)
        bench.router.withdraw("scripted", SN)
        bench.announce()
        await asyncio.sleep(60)
        assert bench.router.state(SN) is not None
