"""What holds beside each other: a stop and who is out, a limit and an order for batteries, a ramp and a restart."""

import pytest

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import CommandState
from gateway.journal.journal import JournalError
from tests.kit.clock import FakeClock, virtual
from tests.steering.fleet.test_fleet import ALL, batteries, inverters
from tests.steering.fleet.world import Machine, World


def still_running(world):
    return [serial for serial, machine in world.machines.items() if machine.set["running"] is not False]


# a stop


@virtual
async def test_a_stop_is_for_members_too_that_are_out(tmp_path):
    machines = inverters(6)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        for machine in machines[:4]:
            machine.refuses = True
        await world.end(await world.ask(12_000))
        for machine in machines[:3]:
            machine.refuses = False
        assert world.state().values["members_out"] == 4
        machines[5].silent = True
        await world.wait(120)
        end = await world.end(await world.ask(False, "running"))
        assert still_running(world) == ["PV3"]
        assert (end.state, end.detail) == (CommandState.FAILED, "5 ok, 1 refused")


@virtual
async def test_a_stop_reaches_a_fleet_of_which_nobody_can_be_steered(tmp_path):
    machines = inverters(3)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        for machine in machines:
            machine.refuses = True
        await world.end(await world.ask(12_000))
        for machine in machines:
            machine.refuses = False
        end = await world.end(await world.ask(False, "running"))
        assert (end.state, still_running(world)) == (CommandState.SUCCEEDED, [])


@virtual
async def test_who_can_t_be_stopped_now_is_stopped_a_moment_later_and_not_after_the_command_has_expired(tmp_path):
    control = ControlSettings(
        enabled=True, allow=[Rule(devices=["*"], setpoints=["*"])], rates={"fleet/north": 8}, writes_per_day=1_000
    )
    async with World(tmp_path, FakeClock(), inverters(3), ALL, control) as world:
        for target in (9_000, 12_000):
            await world.ask(target)
            await world.wait(20)
        end = await world.end(await world.ask(False, "running", ttl=60))
        assert (end.state, end.detail[:4]) == (CommandState.SUCCEEDED, "3 ok")
        await world.wait(120)
        for target in (9_000, 12_000):
            await world.ask(target)
            await world.wait(3)
        end = await world.end(await world.ask(True, "running", ttl=5))
        assert end.state is CommandState.FAILED
        assert "never told" in end.detail
        running = still_running(world)
        assert len(running) < 3
        await world.wait(120)
        assert still_running(world) == running


# what the gateway itself does not pass on is no refusal


@virtual
async def test_members_that_were_not_told_because_of_our_own_journal_are_no_refusers(tmp_path, monkeypatch):
    async with World(tmp_path, FakeClock(), inverters(4), ALL) as world:
        assert (await world.end(await world.ask(20_000))).verified
        full, store = True, world.bench.journal._store
        commit = store.commit

        def on_a_full_disk(*args, **kwargs):
            if full:
                raise JournalError("no space left on the device")
            return commit(*args, **kwargs)

        monkeypatch.setattr(store, "commit", on_a_full_disk)
        world.machines["PV0"].sun = 0.0
        await world.wait(60)
        full = False
        await world.wait(60)
        assert world.state().values["members_out"] == 0
        assert world.power == pytest.approx(20_000, rel=0.02)


@virtual
async def test_members_that_are_commanded_too_often_are_no_refusers(tmp_path):
    control = ControlSettings(
        enabled=True, allow=[Rule(devices=["*"], setpoints=["*"])], rates={"fleet/north": 8}, writes_per_day=1_000
    )
    async with World(tmp_path, FakeClock(), inverters(4), ALL, control) as world:
        for target in (9_000, 12_000, 9_000, 16_000, 20_000):
            await world.ask(target)
            await world.wait(3)
        await world.wait(90)
        assert world.state().values["members_out"] == 0
        assert world.power == pytest.approx(20_000, rel=0.02)


# a limit on the fleet, and an order for its batteries


def mixed():
    suns = inverters(6)
    return [*suns, *(Machine(f"BAT{n}", 10_000.0, stores=True, sun=6_000.0, limit=True) for n in range(2))]


@pytest.mark.parametrize("first", ["limit", "order"])
@virtual
async def test_a_limit_holds_beside_an_order_for_all_batteries(tmp_path, first):
    machines = mixed()
    async with World(tmp_path, FakeClock(), machines, ALL) as world:

        async def order():
            await world.end(await world.ask(4_000, "battery_power_target"))
            return await world.end(await world.ask("charge", "battery_mode"))

        if first == "order":
            await order()
            end = await world.end(await world.ask(25, "active_power_limit"))
        else:
            await world.end(await world.ask(25, "active_power_limit"))
            before = len(world.told)
            end = await order()
            lifted = [c.serial for c in world.told[before:] if c.setpoint == "active_power_limit" and c.value == 100]
            assert not lifted
        await world.wait(60)
        assert world.power == pytest.approx(20_000, rel=0.02)
        assert sum(machine.battery for machine in machines) == pytest.approx(-4_000)
        assert end.verified, end.detail
        machines[0].sun = 2_000.0
        await world.wait(60)
        assert world.power <= 20_000 * 1.02
        machines[0].sun = 8_000.0
        await world.wait(120)
        assert world.power <= 20_000 * 1.02
        await world.end(await world.ask(100, "active_power_limit"))
        await world.wait(60)
        assert world.power == pytest.approx(6 * 8_000 + 2 * 6_000 - 4_000)


@virtual
async def test_an_order_beyond_a_limit_is_partial_and_says_so(tmp_path):
    machines = batteries(4)
    for machine in machines:
        machine.device = Machine(machine.device.serial, stores=True, limit=True).device
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        await world.end(await world.ask(25, "active_power_limit"))
        await world.end(await world.ask(20_000, "battery_power_target"))
        end = await world.end(await world.ask("discharge", "battery_mode"))
        await world.wait(30)
        assert world.power <= 10_000 * 1.02
        assert not end.verified
        assert "active_power_limit is 25 %" in end.detail


# a ramp


RAMP = ALL | {"ramp": 10}


@virtual
async def test_a_restart_in_the_middle_of_a_ramp_goes_on_from_where_it_was(tmp_path):
    clock, machines = FakeClock(), inverters(10)
    async with World(tmp_path, clock, machines, RAMP) as world:
        await world.ask(70_000)
        await world.wait(900)
        await world.ask(10_000)
        await world.wait(120)
        before = world.power
        assert 45_000 < before < 65_000
    async with World(tmp_path, clock, machines, RAMP) as world:
        seen = [before]
        for _ in range(60):
            await world.wait(10)
            seen.append(world.power)
        assert seen[-1] == pytest.approx(10_000, abs=1_000)
        slope = 100_000 * 10 / 100 / 60
        for after in (2, 6, 12):
            falls = max(earlier - later for earlier, later in zip(seen, seen[after:], strict=False))
            assert falls <= slope * 10 * after + 0.06 * 100_000


@virtual
async def test_a_ramp_is_followed_in_steps_that_are_worth_a_write(tmp_path):
    machines = [Machine("BIG", 40_000.0, sun=32_000.0), *inverters(4)]
    async with World(tmp_path, FakeClock(), machines, RAMP) as world:
        await world.ask(60_000)
        await world.wait(900)
        before = {machine.device.serial: machine.writes for machine in machines}
        await world.ask(10_000)
        await world.wait(900)
        assert world.power == pytest.approx(10_000, rel=0.03)
        written = [machine.writes - before[machine.device.serial] for machine in machines]
        assert max(written) <= 16


@virtual
async def test_a_ramp_does_not_run_ahead_of_members_that_are_slow(tmp_path):
    machines = inverters(4)
    for machine in machines:
        machine.delay = 110.0
    async with World(tmp_path, FakeClock(), machines, RAMP) as world:
        await world.ask(30_000)
        await world.wait(3_000)
        await world.ask(4_000)
        last, seen = world.power, []
        for _ in range(600):
            await world.wait(5)
            seen.append(last - world.power)
            last = world.power
        assert last == pytest.approx(4_000, rel=0.03)
        assert max(seen) <= 3_000


# nobody asks any more, and a restart


@virtual
async def test_the_time_without_a_target_runs_on_over_a_restart(tmp_path):
    settings = ALL | {"fallback": {"after": 600, "value": 4_000}}
    clock, machines = FakeClock(), inverters(4)
    async with World(tmp_path, clock, machines, settings) as world:
        assert (await world.end(await world.ask(20_000))).verified
        await world.wait(500)
    async with World(tmp_path, clock, machines, settings) as world:
        await world.wait(60)
        assert world.power == pytest.approx(20_000, rel=0.02)
        await world.wait(120)
        assert world.power == pytest.approx(4_000, rel=0.02)
