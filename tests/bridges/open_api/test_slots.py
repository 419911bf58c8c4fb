"""A cloud that hangs while many commands wait for it, and is well again: nothing of the bridge is lost (TRIALS C2)."""

import asyncio

import pytest

from gateway.bridges.open_api import OpenApiBridge
from gateway.bridges.open_api.control import MAX_CONCURRENT_CALLS
from gateway.core.model import CommandState
from tests.bridges.open_api.kit import CLASSIC, CONTROL, DEVELOPER, cloud, ended, order, settings, status
from tests.bridges.open_api.test_fleet import connected as simulated_fleet
from tests.bridges.open_api.test_fleet import sent_to_all
from tests.kit.bench import Bench, until
from tests.kit.clock import virtual
from tests.kit.loops import run_on

LIMIT = "active_power_limit"
COMMANDS = 40
UNVERIFIED = CONTROL.model_copy(update={"verify_within": 0})


def free(runner):
    slots = runner.bridge._control._slots
    return (slots.taken, slots.waiting) == (0, 0)


@pytest.mark.parametrize("login", [CLASSIC, DEVELOPER], ids=["classic", "developer"])
def test_after_a_cloud_that_hung_every_command_goes_again(tmp_path, login, monkeypatch):
    """Over HTTP, on production's loop, where time-outs of the same length end in the same turn."""
    monkeypatch.setattr("gateway.bridges.open_api.control.READ_BACK_PAUSE", 0.01)
    control = "SetActivePowerLimit" if login is CLASSIC else "ControlTask.ActivePowerLimit"

    async def test():
        async with cloud(plants=20) as simulator, Bench(tmp_path, UNVERIFIED) as bench:
            runner = bench.run(OpenApiBridge, settings(simulator, login, poll_interval=2), "sems")
            bench.dispatcher.use({"sems": runner.bridge})
            await until(lambda: status(bench) and status(bench).up)

            def takers():
                return [s.device.serial for s in bench.router.states() if LIMIT in s.device.setpoints][:COMMANDS]

            await until(lambda: len(takers()) == COMMANDS)
            for round_ in range(2):
                simulator.cloud.spoil(order({"answers": [{"delay": 60, "interfaces": [control], "times": None}]}))
                late = [bench.command(LIMIT, 10 + round_, serial=serial, ttl=3) for serial in takers()]
                ends = await ended(bench, *late)
                assert not {e.state for e in ends} & {CommandState.FAILED, CommandState.REJECTED}
                assert login is DEVELOPER or CommandState.EXPIRED in {e.state for e in ends}
                simulator.cloud.spoil(order({"clear": True}))
                await until(lambda: free(runner))
                ends = await ended(bench, *(bench.command(LIMIT, 60 + round_, serial=serial) for serial in takers()))
                assert {e.state for e in ends} == {CommandState.SUCCEEDED}, [e.detail for e in ends]

    run_on("uvloop", test())


@virtual
async def test_after_sixty_seconds_without_an_answer_no_slot_is_lost(monkeypatch):
    async with simulated_fleet(monkeypatch, CLASSIC, 60) as fleet:
        serials = fleet.serials[:COMMANDS]
        fleet.line.latency = 60
        ends, _, _ = await sent_to_all(fleet, fleet.commands(serials, 10, ttl=3), pause=0.1)
        assert CommandState.EXPIRED in {e.state for e in ends}
        fleet.line.latency = 0.2
        await fleet.passed(lambda: free(fleet.runner))
        fleet.line.most = 0
        ends, _, _ = await sent_to_all(fleet, fleet.commands(serials, 70))
        assert {e.state for e in ends} == {CommandState.SUCCEEDED}
        assert fleet.line.most >= MAX_CONCURRENT_CALLS
        await asyncio.sleep(1)
        assert free(fleet.runner)
