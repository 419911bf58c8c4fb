"""Of a target and an order for all batteries the newer one holds, also where the same was asked for before."""

import pytest

from gateway.commands.executor import KEPT, UNCHANGED
from gateway.core.model import CommandState
from tests.kit.clock import FakeClock, virtual
from tests.steering.fleet.world import Machine, World

SETTINGS = {"members": {"kinds": ["storage"]}}


def batteries():
    return [Machine(f"S{number}", stores=True, sun=3_000.0) for number in range(2)]


def fleet(tmp_path, clock=None):
    return World(tmp_path, clock or FakeClock(), batteries(), SETTINGS)


async def order(world, mode, power):
    """Order all batteries together; return the ids."""
    commands = [
        world.bench.command(setpoint, value, serial="fleet:north")
        for setpoint, value in (("battery_mode", mode), ("battery_power_target", power))
    ]
    await world.bench.dispatcher.submit(*commands)
    return [command.id for command in commands]


async def battery(world, mode, power):
    ends = [await world.end(id_) for id_ in await order(world, mode, power)]
    await world.wait(15)
    return ends


async def target(world, value, **changes):
    end = await world.end(await world.ask(value, **changes))
    await world.wait(15)
    return end


class Telling(Machine):
    """A battery that tells its order, as long as one runs; as SEMS does."""

    def values(self):
        shown = super().values() | {"battery_mode": self.set["battery_mode"]}
        runs = self.set["battery_mode"] != "auto"
        return shown | ({"battery_power_target": self.set["battery_power_target"]} if runs else {})


@virtual
async def test_a_target_that_a_battery_order_ended_is_carried_out_when_it_comes_again(tmp_path):
    async with fleet(tmp_path) as world:
        await target(world, 2_000)
        await battery(world, "charge", 1_000)
        assert world.power == pytest.approx(5_000)
        end = await target(world, 2_000)
        assert (end.detail != UNCHANGED, world.power) == (True, pytest.approx(2_000))


@virtual
async def test_a_battery_order_that_a_target_ended_is_carried_out_when_it_comes_again(tmp_path):
    async with fleet(tmp_path) as world:
        await battery(world, "charge", 1_000)
        await target(world, 2_000)
        ends = await battery(world, "charge", 1_000)
        assert (UNCHANGED in [end.detail for end in ends], world.power) == (False, pytest.approx(5_000))


@virtual
async def test_a_target_that_nothing_newer_ended_is_not_shared_out_again(tmp_path):
    async with fleet(tmp_path) as world:
        await battery(world, "charge", 1_000)
        await target(world, 2_000)
        assert (await target(world, 2_000)).detail == UNCHANGED


@virtual
async def test_the_power_of_an_order_that_a_target_ended_starts_no_order(tmp_path):
    async with fleet(tmp_path) as world:
        await battery(world, "charge", 1_000)
        await target(world, 2_000)
        end = await world.end(await world.ask(500, "battery_power_target"))
        await world.wait(15)
        assert (end.detail, world.power) == (KEPT, pytest.approx(2_000))
        assert (await target(world, 2_000)).detail == UNCHANGED


@virtual
async def test_a_target_for_a_fleet_that_was_stopped_is_not_said_to_be_in_force(tmp_path):
    async with fleet(tmp_path) as world:
        await target(world, 2_000)
        await world.end(await world.ask(False, "running"))
        id_ = await world.ask(2_000)
        await world.wait(5)
        assert [step.detail for step in await world.bench.dispatcher.steps(id_) if step.detail == UNCHANGED] == []


@virtual
async def test_after_a_restart_it_is_known_which_was_newer(tmp_path):
    clock = FakeClock()
    async with fleet(tmp_path, clock) as world:
        await target(world, 2_000)
        await battery(world, "charge", 1_000)
    async with fleet(tmp_path, clock) as world:
        await world.wait(15)
        assert (await target(world, 2_000)).detail != UNCHANGED


@virtual
async def test_the_timer_of_a_target_ends_no_order_that_is_newer(tmp_path):
    async with fleet(tmp_path) as world:
        await target(world, 2_000, revert_after=100)
        await battery(world, "charge", 1_000)
        await world.wait(200)
        assert world.power == pytest.approx(5_000)


@virtual
async def test_the_timer_of_an_order_ends_no_target_that_is_newer(tmp_path):
    async with fleet(tmp_path) as world:
        await world.end(await world.ask("charge", "battery_mode", revert_after=100))
        await target(world, 2_000, revert_after=1_000)
        await world.wait(200)
        assert world.power == pytest.approx(2_000)


@virtual
async def test_letting_go_ends_once_its_members_have_said_done_and_reads_as_none(tmp_path):
    machines = [Telling(f"S{number}", stores=True, sun=3_000.0) for number in range(2)]
    async with World(tmp_path, FakeClock(), machines, SETTINGS) as world:
        await target(world, 2_000)
        end = await world.end(await world.ask("none"), within=30)
        assert (end.state, end.detail) == (CommandState.SUCCEEDED, "all are let go: 4 ok")
        assert world.state().values["power_target"] == "none"


@virtual
@pytest.mark.parametrize("newer", [("power_target", 1_000), ("battery_mode", "idle")])
async def test_what_was_let_go_is_none_though_a_newer_one_came_before_all_had_said_so(tmp_path, newer):
    async with fleet(tmp_path) as world:
        await target(world, 2_000)
        for machine in world.machines.values():
            machine.delay = 60.0
        first = await world.ask("none")
        await world.wait(20)
        setpoint, value = newer
        await world.ask(value, setpoint)
        assert (await world.end(first)).state is CommandState.SUCCEEDED
        assert world.state().values["power_target"] == "none"


@virtual
async def test_of_both_only_the_newer_one_is_shown(tmp_path):
    async with fleet(tmp_path) as world:
        shown = []
        for each in (target(world, 2_000), battery(world, "charge", 1_000), target(world, 2_500)):
            await each
            shown.append([world.state().values.get(name) for name in ("power_target", "battery_mode")])
        assert shown == [[2_000.0, None], ["none", "charge"], [2_500.0, "auto"]]
    async with fleet(tmp_path, world.bench.clock) as world:
        await world.wait(15)
        assert [world.state().values.get(name) for name in ("power_target", "battery_mode")] == [2_500.0, "auto"]
        assert world.fleet.goals.target == 2_500.0


@virtual
async def test_a_fleet_is_stopped_once_each_has_shown_it_and_no_earlier(tmp_path):
    async with fleet(tmp_path) as world:
        await world.wait(15)
        assert [world.state().values[name] for name in ("status", "running")] == ["normal", True]
        late, other = world.machines.values()
        late.delay = 40.0
        id_ = await world.ask(False, "running")
        await world.wait(25)
        assert (other.set["running"], world.state().values["status"]) == (False, "normal")
        assert (await world.end(id_)).state is CommandState.SUCCEEDED
        await world.wait(25)
        assert [world.state().values[name] for name in ("status", "running")] == ["waiting", False]
        other.set["running"] = True
        await world.wait(25)
        assert [world.state().values[name] for name in ("status", "running")] == ["normal", True]


@virtual
async def test_it_runs_while_its_members_are_told_something_else(tmp_path):
    async with fleet(tmp_path) as world:
        await world.wait(15)
        for machine in world.machines.values():
            machine.delay = 30.0
        await world.ask(2_000)
        await world.wait(15)
        assert world.state().values["running"] is True


@virtual
async def test_what_is_older_than_that_all_are_stopped_contradicts_nobody(tmp_path):
    async with World(tmp_path, FakeClock(), batteries(), SETTINGS, interval=1_000.0) as world:
        end = await world.end(await world.ask(False, "running"))
        assert (end.state, world.state().values["running"]) == (CommandState.SUCCEEDED, False)
