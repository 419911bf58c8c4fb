"""A fleet over members that obey, refuse, lie, fall silent: what comes of a target."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import msgspec
import pytest
from pydantic import ValidationError

import gateway.steering.fleet.fleet as fleet_module
from gateway.core.mailbox import Mailbox, Updates
from gateway.core.model import CommandState, Origin, Snapshot
from gateway.steering.fleet.crew import Crew
from gateway.steering.fleet.fleet import LOOK, Fleet
from gateway.steering.fleet.settings import FleetSettings
from tests.kit.bench import collected
from tests.kit.clock import NOON, FakeClock, virtual
from tests.steering.fleet.world import Machine, World


def inverters(count, rated=10_000.0, sun=8_000.0):
    return [Machine(f"PV{n}", rated, sun=sun) for n in range(count)]


def batteries(count, rated=10_000.0, soc=50.0):
    return [Machine(f"BAT{n}", rated, stores=True, soc=soc) for n in range(count)]


ALL = {"members": {"devices": ["*"]}}


@virtual
async def test_a_target_is_shared_out_and_held(tmp_path):
    async with World(tmp_path, FakeClock(), inverters(4), ALL) as world:
        end = await world.end(await world.ask(16_000))
        assert (end.state, end.verified) == (CommandState.SUCCEEDED, True), end
        assert "holding" in end.detail
        assert world.power == pytest.approx(16_000, rel=0.02)
        assert [machine.power for machine in world.machines.values()] == [4_000] * 4
        await world.wait(20)
        values = world.state().values
        assert values["ac_power"] == pytest.approx(16_000)
        assert (values["fleet_state"], values["members"], values["members_out"]) == ("holding", 4, 0)


@virtual
async def test_whoever_commands_one_device_goes_ahead_of_what_members_are_told(tmp_path):
    settings = ALL | {"fallback": {"after": 60, "value": 4_000}}
    async with (
        World(tmp_path, FakeClock(), inverters(4), settings) as world,
        collected(world.bench.router) as (events, _),
    ):
        await world.end(await world.ask(16_000))
        await world.wait(200)
        assert [machine.power for machine in world.machines.values()] == [1_000] * 4
        assert len(world.told) == 8
        assert all(command.bulk for command in world.told)
        targets = {event.command.id: event.command for event in events if event.command.serial == "fleet:north"}
        assert len(targets) == 2
        assert not any(command.bulk for command in targets.values())


@virtual
async def test_who_refuses_is_out_and_its_share_goes_to_the_others(tmp_path):
    machines = inverters(4)
    machines[0].refuses = True
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        end = await world.end(await world.ask(16_000))
        assert end.verified, end
        assert world.power == pytest.approx(16_000, rel=0.02)
        assert machines[0].power == 8_000
        assert world.state().values["members_out"] == 1
        asked = sum(command.serial == "PV0" for command in world.told)
        machines[0].refuses = False
        await world.wait(700)
        await world.end(await world.ask(12_000))
        assert sum(command.serial == "PV0" for command in world.told) > asked, "asked again after ten minutes"
        assert world.power == pytest.approx(12_000, rel=0.02)


@virtual
async def test_who_says_done_and_does_otherwise_is_counted_as_it_reads(tmp_path):
    machines = inverters(10)
    machines[3].contradicts = True
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        end = await world.end(await world.ask(30_000))
        assert end.verified, end
        assert world.power == pytest.approx(30_000, rel=0.02)
        assert machines[3].power == 8_000


@virtual
async def test_who_reads_as_told_and_gives_more_is_counted_and_out_the_third_time(tmp_path):
    machines = inverters(10)
    machines[3].ignores = True
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(30_000))).verified
        assert world.power == pytest.approx(30_000, rel=0.02)
        for minutes in (11, 21):
            await world.wait(60 * minutes)
            await world.end(await world.ask(30_000 + 100 * minutes))
            await world.wait(60)
            assert world.power == pytest.approx(30_000 + 100 * minutes, rel=0.02)
        end = await world.end(await world.ask(20_000))
        assert "9 of 10 members well, 1 contradicted" in end.detail
        assert world.power == pytest.approx(20_000, rel=0.02)


@virtual
async def test_who_falls_silent_counts_at_its_last_power(tmp_path):
    machines = inverters(4)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        machines[0].silent = True
        await world.wait(60)
        end = await world.end(await world.ask(20_000))
        assert end.verified, end
        assert world.power == pytest.approx(20_000, rel=0.02)
        told = sorted((command.serial, command.value) for command in world.told)
        assert told == [("PV1", 40), ("PV2", 40), ("PV3", 40)], "at once, and nobody twice"
        assert world.state().values["members_out"] == 1


@virtual
async def test_what_can_not_be_given_is_partial_with_the_watts_that_are_missing(tmp_path):
    async with World(tmp_path, FakeClock(), inverters(4), ALL) as world:
        end = await world.end(await world.ask(40_000))
        assert (end.state, end.verified) == (CommandState.SUCCEEDED, False), end
        assert "partial" in end.detail
        assert "8000 W missing" in end.detail
        assert world.state().values["unplaced_power"] == pytest.approx(8_000)


@virtual
async def test_batteries_charge_and_discharge_and_are_let_go(tmp_path):
    machines = batteries(4)
    machines[0].soc = 5.0  # below the reserve: it gives nothing
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(12_000))).verified
        assert [machine.power for machine in machines] == [0, 4_000, 4_000, 4_000]
        assert (await world.end(await world.ask(-20_000))).verified
        assert [machine.power for machine in machines] == [-5_000] * 4
        await world.end(await world.ask("none"))
        assert {machine.set["battery_mode"] for machine in machines} == {"auto"}


@virtual
async def test_a_newer_target_comes_in_the_middle(tmp_path):
    machines = inverters(6)
    for machine in machines:
        machine.delay = 20.0
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        first = await world.ask(6_000)
        await world.wait(5)
        second = await world.ask(24_000)
        assert (await world.end(first)).state is CommandState.FAILED
        assert (await world.end(second)).verified
        assert world.power == pytest.approx(24_000, rel=0.02)


@virtual
async def test_clouds_are_followed_by_few(tmp_path):
    machines = inverters(20)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(80_000))).verified
        writes = sum(machine.writes for machine in machines)
        for machine in machines[:4]:
            machine.sun = 1_000.0  # a cloud: 12 kW are missing
        await world.wait(60)
        assert world.power == pytest.approx(80_000, rel=0.02)
        assert sum(machine.writes for machine in machines) - writes <= 8


@virtual
async def test_a_limit_is_the_most_and_lets_go_where_all_give_less(tmp_path):
    machines = inverters(4)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(50, "active_power_limit"))).verified
        assert world.power == pytest.approx(20_000, rel=0.02)
        for machine in machines:
            machine.sun = 2_000.0
        await world.wait(60)
        assert world.power == 8_000
        await world.end(await world.ask(100, "active_power_limit"))
        for machine in machines:
            machine.sun = 9_000.0
        await world.wait(60)
        assert world.power == 36_000


@virtual
async def test_running_goes_to_each(tmp_path):
    machines = inverters(4)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        end = await world.end(await world.ask(False, "running"))
        assert end.state is CommandState.SUCCEEDED, end
        assert [machine.set["running"] for machine in machines] == [False] * 4


@virtual
async def test_halt_stops_it_and_it_goes_on_after(tmp_path):
    machines = inverters(4)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        await world.end(await world.ask(16_000))
        await world.bench.halting.halt("cli", "lunch")
        told = len(world.told)
        machines[0].sun = 0.0
        await world.wait(60)
        assert len(world.told) == told
        await world.bench.halting.resume("cli")
        await world.wait(60)
        assert world.power == pytest.approx(16_000, rel=0.02)


@virtual
async def test_a_second_fleet_gets_no_member_of_the_first(tmp_path):
    async with World(tmp_path, FakeClock(), inverters(2), ALL) as world:
        other = world.bench.run(type(world.fleet), world.settings, "fleet:south")
        await world.wait(5)
        assert not other.bridge.crew.mates
        assert "is steered by fleet:north" in world.bench.router.bridges()[-1].findings[0].text


@virtual
async def test_who_falls_silent_upstream_is_replaced_by_the_fallback(tmp_path):
    machines = inverters(4)
    settings = ALL | {"fallback": {"after": 300, "value": 4_000}}
    async with World(tmp_path, FakeClock(), machines, settings) as world:
        assert (await world.end(await world.ask(20_000))).verified
        await world.wait(200)
        await world.ask(20_000)
        await world.wait(250)
        assert world.power == pytest.approx(20_000, rel=0.02)
        await world.wait(120)
        assert world.power == pytest.approx(4_000, rel=0.02)
        told = len(world.told)
        await world.wait(600)
        assert len(world.told) == told
        await world.wait(20_000)
        assert world.power == pytest.approx(4_000, rel=0.02), "their own timers are renewed"
        assert len(world.told) == told, "and nothing is written for that"


@virtual
async def test_members_fall_back_by_themselves_where_the_fleet_is_no_more(tmp_path):
    machines = inverters(4)
    settings = ALL | {"fallback": {"after": 300, "value": 4_000}}
    async with World(tmp_path, FakeClock(), machines, settings) as world:
        assert (await world.end(await world.ask(20_000))).verified
        await world.runner.stop()
        world.bench.runners.remove(world.runner)
        await world.wait(7_000)
        assert world.power == pytest.approx(20_000, rel=0.02)
        await world.wait(1_000)
        assert world.power == 32_000, "let go, one after the other"


@virtual
async def test_a_ramp_is_kept(tmp_path):
    machines = inverters(4)
    async with World(tmp_path, FakeClock(), machines, ALL | {"ramp": 10}) as world:
        id_ = await world.ask(16_000)
        seen = []
        for _ in range(6):
            seen.append(world.power)
            await world.wait(60)
        steps = [a - b for a, b in pairwise(seen)]
        assert max(steps) <= 4_000 * 1.3, seen
        assert (await world.end(id_)).verified


@virtual
async def test_a_day_of_targets_costs_no_member_more_writes_than_it_has(tmp_path):
    machines = inverters(8) + batteries(2)
    start = NOON.replace(hour=0)
    async with World(tmp_path, FakeClock(start), machines, ALL | {"writes_per_day": 24}, interval=60.0) as world:
        for n in range(48):
            target = (20_000, 44_000, 33_000)[n % 3]
            end = await world.end(await world.ask(target))
            assert end.verified, (n, end.detail)
            await world.wait(1_700 - (world.bench.clock.now() - start).total_seconds() % 1_800)
        assert max(machine.writes for machine in machines) <= 24


@virtual
async def test_what_has_no_writes_left_is_stopped_and_limited_all_the_same(tmp_path):
    machines = inverters(2)
    async with World(tmp_path, FakeClock(), machines, ALL | {"writes_per_day": 1}) as world:
        assert (await world.end(await world.ask(8_000))).verified
        end = await world.end(await world.ask(12_000))
        assert not end.verified
        assert "2 without writes left today" in end.detail
        assert (await world.end(await world.ask(10.0, "active_power_limit"))).verified
        assert world.power <= 2_000
        assert (await world.end(await world.ask(False, "running"))).state is CommandState.SUCCEEDED


@virtual
async def test_what_would_come_of_a_target_is_said_before(tmp_path):
    machines = inverters(3)
    machines[0].sun = 1_000.0
    async with World(tmp_path, FakeClock(), machines, ALL) as world:

        def explain(target):
            command = world.bench.command("power_target", target, serial="fleet:north")
            return world.bench.dispatcher.explain(command).foretold

        told = explain(9_000)
        shares = {each.serial: (each.power, each.detail) for each in told.members}
        assert {shares["PV1"], shares["PV2"]} == {(4_300, "active_power_limit 43"), (4_200, "active_power_limit 42")}
        assert "3 members" in told.text
        told = explain(20_000)
        assert "3000 W can't be placed" in told.text
        assert {each.detail for each in told.members} == {"active_power_limit 100; gives all it can"}
        assert not world.told


@virtual
async def test_all_batteries_are_ordered_as_one(tmp_path):
    machines = batteries(3) + inverters(2)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        command = world.bench.command("battery_power_target", 9_000, serial="fleet:north")
        mode = world.bench.command("battery_mode", "charge", serial="fleet:north")
        await world.bench.dispatcher.submit(mode, command)
        assert (await world.end(mode.id)).verified
        assert [machine.power for machine in machines] == [-3_000] * 3 + [8_000] * 2
        assert world.state().values["battery_power"] == -9_000
        assert (await world.end(await world.ask(25_000))).verified
        assert world.power == pytest.approx(25_000, rel=0.02)
        await world.end(await world.ask("auto", "battery_mode"))
        assert {machine.set["battery_mode"] for machine in machines[:3]} == {"auto"}


@virtual
async def test_a_fleet_that_begins_anew_in_the_middle_goes_on_with_its_target(tmp_path):
    machines = inverters(6)
    for machine in machines:
        machine.delay = 20.0
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        id_ = await world.ask(24_000)
        await world.wait(5)
        world.runner.begin_anew()
        assert (await world.end(id_)).verified
        assert world.power == pytest.approx(24_000, rel=0.02)


@virtual
async def test_other_settings_in_the_middle_of_a_target_bring_no_older_one_back(tmp_path):
    async with World(tmp_path, FakeClock(), inverters(4), ALL) as world:
        await world.end(await world.ask(16_000))
        world.machines["PV3"].silent = True  # so that it is not known for long what comes of the next
        id_ = await world.ask(8_000)
        await world.wait(60)
        await world.replace(ALL | {"deadband": 1})
        told = len(world.told)
        targets = set()
        for _ in range(60):
            await world.wait(1)
            targets.add(world.fleet.goals.target)
        assert targets == {8_000}
        assert not [command.value for command in world.told[told:] if command.value > 40], "nobody is raised again"
        await world.end(id_)
        assert world.state().values["power_target"] == 8_000


@virtual
async def test_a_target_right_after_another_is_the_one_that_holds(tmp_path):
    machines = inverters(6)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        ids = [await world.ask(target) for target in (6_000, 12_000, 18_000, 30_000, 24_000)]
        ends = [await world.end(id_) for id_ in ids]
        assert [end.state.final for end in ends] == [True] * 5
        assert ends[-1].verified
        assert world.power == pytest.approx(24_000, rel=0.02)


@virtual
async def test_a_gateway_that_starts_anew_holds_on_to_the_target_that_was_in_force(tmp_path):
    clock = FakeClock()
    async with World(tmp_path, clock, inverters(6), ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        machines = list(world.machines.values())
    async with World(tmp_path, clock, machines, ALL) as world:
        await world.wait(30)
        assert world.told == [], "who obeys is left alone"
        machines[0].sun = 0.0
        await world.wait(60)
        assert world.power == pytest.approx(24_000, rel=0.02)


@virtual
async def test_a_member_whose_end_was_lost_on_its_way_is_steered_again(tmp_path, monkeypatch):
    """What waits for a bridge is bounded; where more comes at once, steps are dropped."""
    put, is_full = Mailbox.put_event, True

    def put_or_drop(mailbox, event):
        if not (is_full and mailbox.name == "fleet:north" and event.command.serial.startswith("PV")):
            put(mailbox, event)

    monkeypatch.setattr(Mailbox, "put_event", put_or_drop)
    machines = inverters(6)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        await world.ask(24_000)
        await world.wait(60)
        is_full = False
        machines[0].sun = 0.0
        await world.wait(300)
        assert world.power == pytest.approx(24_000, rel=0.02)
        written = world.fleet.crew.mates
        assert [written[serial].writes for serial in world.machines] == [m.writes for m in machines]


@virtual
async def test_a_battery_that_takes_less_than_its_inverter_is_ordered_less(tmp_path):
    machines = batteries(4)
    machines[0].most = machines[1].most = 3_000.0
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        assert world.power == pytest.approx(24_000, rel=0.02)
        assert all(0 < machine.power <= 3_000 for machine in machines[:2])
        assert world.state().values["members_out"] == 0


@virtual
@pytest.mark.parametrize("first", [4_000, 24_000])
async def test_what_a_battery_refuses_for_a_while_is_not_the_most_that_it_takes(tmp_path, first):
    """Neither a little, nor what it did before, can be too much for it."""
    machines = batteries(4)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(first))).verified
        machines[0].refuses = True
        assert (await world.end(await world.ask(0.7 * first))).verified
        machines[0].refuses = False
        await world.wait(3_600)
        assert (await world.end(await world.ask(36_000))).verified
        assert world.power == pytest.approx(36_000, rel=0.02)


@virtual
async def test_a_battery_that_refuses_whatever_it_is_ordered_is_soon_out(tmp_path):
    machines = batteries(4)
    machines[0].refuses = True
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(20_000))).verified
        await world.wait(120)
        assert world.power == pytest.approx(20_000, rel=0.02)
        for target in (8_000, 24_000, 12_000, 28_000, 20_000):
            assert (await world.end(await world.ask(target))).verified
        assert world.state().values["members_out"] == 1
        assert sum(command.serial == "BAT0" for command in world.told) <= 8


@virtual
async def test_after_a_start_nobody_makes_up_for_members_that_are_not_heard_of_yet(tmp_path):
    clock = FakeClock()
    async with World(tmp_path, clock, inverters(6), ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        machines = list(world.machines.values())
    for machine in machines[3:]:
        machine.silent = True
    async with World(tmp_path, clock, machines, ALL) as world:
        await world.wait(60)
        for machine in machines[3:5]:
            machine.silent = False
        machines[0].sun = 0.0
        await world.wait(60)
        assert world.told == []
        await world.wait(300)
        assert world.told != [], "who is never heard of holds nobody up for ever"
        assert world.power == pytest.approx(24_000, rel=0.02), "and counts as what it was told"


@virtual
async def test_where_many_tell_nothing_the_others_are_not_driven_to_their_bounds(tmp_path):
    machines = inverters(10)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        world.interval = 20.0
        await world.wait(15)
        for machine in machines[:5]:
            machine.tells_nothing = machine.silent = True
        id_ = await world.ask(40_000)
        await world.wait(5)
        for _ in range(10):
            await world.wait(5)
            assert world.power == 40_000
        for machine in machines[:5]:
            machine.silent = False
        assert (await world.end(id_)).verified
        assert max(machine.writes for machine in machines) == 1


@virtual
async def test_where_one_tells_nothing_and_does_nothing_the_others_make_up_for_it(tmp_path):
    machines = inverters(20)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        world.interval = 20.0
        await world.wait(15)
        machines[0].tells_nothing = machines[0].contradicts = machines[0].silent = True
        await world.ask(80_000)
        await world.wait(50)
        assert world.power == pytest.approx(80_000, rel=0.02)


@virtual
async def test_a_limit_orders_no_battery_anything(tmp_path):
    """It is the most that all may give: who gives less is left alone, and a battery is held by its limit."""
    machines = [Machine(f"BAT{n}", stores=True, limit=True, sun=sun) for n, sun in enumerate((300.0, 0.0))]
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        end = await world.end(await world.ask(10, "active_power_limit"))
        assert end.state is CommandState.SUCCEEDED
        assert world.told == [], "300 W are no more than 2,000"
        machines[0].sun, machines[1].sun = 6_000.0, 3_000.0
        await world.wait(60)
        assert world.power == pytest.approx(2_000, rel=0.05)
        assert {command.setpoint for command in world.told} == {"active_power_limit"}
        await world.end(await world.ask(100, "active_power_limit"))
        assert world.power == 9_000
        assert {machine.set["battery_mode"] for machine in machines} == {"auto"}
        assert (await world.end(await world.ask(-4_000))).verified, "and its batteries are free for the next target"


@virtual
async def test_letting_go_touches_nobody_whom_the_fleet_does_not_hold(tmp_path):
    machines = batteries(2) + inverters(1)
    machines[0].set |= {"battery_mode": "charge", "battery_power_target": 500.0}
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        for value, setpoint in ((100, "active_power_limit"), ("none", "power_target")):
            await world.end(await world.ask(value, setpoint))
        assert world.told == []
        assert machines[0].set["battery_mode"] == "charge"


@virtual
async def test_before_members_are_known_a_target_is_tried_again_and_not_refused(tmp_path):
    async with World(tmp_path, FakeClock(), [], ALL) as world:
        id_ = await world.ask(4_000)
        for machine in inverters(2):
            world.machines[machine.device.serial] = machine
            world.bench.router.good_once.add(machine.device.serial, world.bench.clock.now())
            world.bench.router.announce("world", machine.device)
        assert (await world.end(id_)).verified
        assert world.power == pytest.approx(4_000, rel=0.02)


@virtual
async def test_what_nobody_can_make_up_for_is_unplaced(tmp_path):
    machines = inverters(2)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(16_000))).verified
        machines[0].sun = 0.0
        await world.wait(60)
        values = world.state().values
        assert (values["fleet_state"], values["unplaced_power"]) == ("partial", pytest.approx(8_000))


@virtual
async def test_a_target_that_a_restart_interrupts_sets_no_battery_against_another(tmp_path):
    clock = FakeClock()
    async with World(tmp_path, clock, batteries(2), ALL) as world:
        assert (await world.end(await world.ask(6_000))).verified
        for machine in world.machines.values():
            machine.delay = 30.0
        id_ = await world.ask(-6_000)
        await world.wait(2)
        machines = list(world.machines.values())
    async with World(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(id_)).state is CommandState.SUCCEEDED
        await world.wait(60)
        assert world.power == pytest.approx(-6_000, rel=0.02)
        assert all(machine.power < 0 for machine in machines), [machine.power for machine in machines]


@virtual
async def test_a_restart_tells_no_member_anew_what_it_does_already(tmp_path):
    clock, machines = FakeClock(), inverters(6) + batteries(2)
    async with World(tmp_path, clock, machines, ALL) as world:
        id_ = await world.ask(24_000)
        await world.wait(1)
    before = [machine.writes for machine in machines]
    async with World(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(id_)).verified
        await world.wait(120)
    assert [machine.writes for machine in machines] == before
    assert world.power == pytest.approx(24_000, rel=0.01)


@virtual
async def test_what_was_told_right_before_a_restart_is_not_told_again_by_old_data(tmp_path):
    clock, machines = FakeClock(), inverters(6, sun=9_000.0)
    async with World(tmp_path, clock, machines, ALL, interval=120.0) as world:
        assert (await world.end(await world.ask(20_000))).verified
        await world.wait(240 - world.bench.clock.monotonic() % 120)
        old = {serial: machine.values() for serial, machine in world.machines.items()}
        await world.ask(40_000)
        await world.wait(5)
        time = clock.now()
    before = [machine.writes for machine in machines]
    for machine in machines:
        machine.silent = True
    async with World(tmp_path, clock, machines, ALL, interval=120.0) as world:
        for serial, values in old.items():  # as the cloud has them: from before the last order
            world.bench.router.publish(
                Snapshot(serial=serial, time=time - timedelta(seconds=20), source="world", interval=120, values=values)
            )
        await world.wait(30)
        assert [machine.writes for machine in machines] == before
        assert world.power == pytest.approx(40_000, rel=0.01)


@virtual
async def test_two_targets_within_the_time_of_one_reading_are_both_met(tmp_path):
    machines = inverters(6, sun=9_000.0)
    async with World(tmp_path, FakeClock(), machines, ALL, interval=60.0) as world:
        assert (await world.end(await world.ask(12_000))).verified
        await world.ask(20_000)
        await world.wait(3)
        await world.ask(45_000)
        await world.wait(5)
        assert world.power == pytest.approx(45_000, rel=0.01)


@virtual
async def test_what_is_under_way_at_a_restart_is_waited_for(tmp_path):
    clock, machines = FakeClock(), inverters(6, sun=9_000.0)
    async with World(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(await world.ask(12_000))).verified
        for machine in machines:
            machine.delay = 40.0
        id_ = await world.ask(45_000)
        await world.wait(2)
    before = [machine.writes for machine in machines]
    async with World(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(id_)).verified
        await world.wait(60)
    assert max(after.writes - writes for after, writes in zip(machines, before, strict=True)) == 1


@virtual
async def test_a_limit_is_not_exceeded_by_a_step(tmp_path):
    machines = inverters(3, rated=20_000.0, sun=15_000.0)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        await world.end(await world.ask(0.9, "active_power_limit"))  # 540 W, and a step is 200
        assert world.power == 400


@virtual
async def test_what_a_fleet_shows_itself_is_no_reason_to_look_again(tmp_path):
    looks = []
    async with World(tmp_path, FakeClock(), inverters(4), ALL, interval=30.0) as world:
        survey = world.fleet._survey
        world.fleet._survey = lambda now: looks.append(now) or survey(now)
        await world.wait(60)
        assert 60 / LOOK <= len(looks) + 1 <= 60 / LOOK + 5


@virtual
async def test_sun_that_moves_behind_a_battery_is_no_contradiction_and_made_up_for(tmp_path):
    machines = batteries(4)
    for machine in machines:
        machine.sun = 1_000.0
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(12_000))).verified
        for sun in (2_000.0, 3_500.0, 500.0):
            for machine in machines:
                machine.sun = sun
            await world.wait(60)
            assert world.state().values["members_out"] == 0
            assert world.power == pytest.approx(12_000, rel=0.02)


@virtual
async def test_a_battery_that_does_not_discharge_as_told_is_a_contradiction_under_any_sun(tmp_path):
    machines = batteries(4)
    machines[2].contradicts = True
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        await world.end(await world.ask(12_000))
        assert world.power == pytest.approx(12_000, rel=0.02)
        assert world.state().values["members_out"] == 1


@virtual
@pytest.mark.parametrize(("target", "soc"), [(12_000, 10.4), (-12_000, 99.6)])
async def test_a_battery_that_comes_to_its_end_is_no_contradiction_and_made_up_for(tmp_path, target, soc):
    machines = batteries(4)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(target))).verified
        machines[0].soc, machines[0].spent = soc, True
        await world.wait(60)
        assert world.state().values["members_out"] == 0
        assert world.power == pytest.approx(target, rel=0.02)


@virtual
async def test_a_timer_is_renewed_with_what_the_battery_was_told_whatever_the_sun_does(tmp_path):
    machines = batteries(2)
    for machine in machines:
        machine.sun = 2_000.0
    fallback = {"fallback": {"after": 1_800, "value": 8_000}}
    async with World(tmp_path, FakeClock(), machines, ALL | fallback) as world:
        assert (await world.end(await world.ask(8_000))).verified
        await world.wait(2_000)
        machines[0].sun, machines[1].sun = 1_000.0, 3_000.0  # together as before
        await world.wait(4_000)
        assert [machine.set["battery_power_target"] for machine in machines] == [2_000, 2_000]


@virtual
async def test_who_has_no_rated_power_yet_is_no_trouble_and_who_never_has_is(tmp_path):
    class Unrated(Machine):
        power = 8_000.0

    machines = [*inverters(1), Unrated("PV1")]
    machines[1].device = msgspec.structs.replace(machines[1].device, rated_power=None)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:

        def found():
            return [f.subject for s in world.bench.router.bridges() for f in s.findings]

        await world.wait(250)
        assert found() == []
        await world.wait(100)
        assert found() == ["PV1"]


@virtual
async def test_orders_that_are_done_count_though_the_cloud_says_nothing_new(tmp_path):
    machines = batteries(10)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        for machine in machines:
            machine.silent = True
        await world.wait(5)
        await world.ask(40_000)
        for n in range(60):
            await world.wait(15)
            assert world.power <= 41_000
            told = machines[n % 10]  # now and then one is heard of, as it was before it was told
            world.bench.router.publish(
                Snapshot(serial=told.device.serial, time=world.bench.clock.now() - timedelta(seconds=25),
                         source="world", interval=10, values=told.values())
            )  # fmt: skip


@virtual
async def test_what_a_limit_takes_of_a_target_is_said(tmp_path):
    async with World(tmp_path, FakeClock(), inverters(4), ALL) as world:
        assert (await world.end(await world.ask(50.0, "active_power_limit"))).state is CommandState.SUCCEEDED
        end = await world.end(await world.ask(30_000))
        assert (end.state, end.verified) == (CommandState.SUCCEEDED, False)
        assert "10000 W missing for active_power_limit is 50 %" in end.detail
        values = world.state().values
        assert (values["fleet_state"], values["unplaced_power"]) == ("partial", 10_000)


@virtual
async def test_a_target_below_a_limit_lifts_the_limit_of_no_full_battery(tmp_path):
    class Full(Machine):
        battery = 0.0  # it takes nothing, whatever it is ordered

    machine = Full("BAT", stores=True, sun=9_000.0, soc=100.0, limit=True)
    async with World(tmp_path, FakeClock(), [machine], ALL) as world:
        assert (await world.end(await world.ask(30.0, "active_power_limit"))).verified
        await world.ask(2_000)
        for _ in range(20):
            await world.wait(15)
            assert world.power <= 3_000
        await world.ask("none")
        await world.ask(100.0, "active_power_limit")
        await world.wait(60)
        assert world.power == 9_000


@virtual
async def test_a_restart_in_the_middle_of_a_limit_loses_no_target(tmp_path):
    clock, machines = FakeClock(), inverters(6)
    async with World(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(await world.ask(20_000))).verified
        for machine in machines:
            machine.delay = 30.0
        await world.ask(20.0, "active_power_limit")
        await world.wait(2)
    for machine in machines:
        machine.delay = 0.0
    async with World(tmp_path, clock, machines, ALL) as world:
        await world.wait(120)
        assert world.power == pytest.approx(12_000, rel=0.02)
        await world.ask(100.0, "active_power_limit")
        await world.wait(60)
        assert world.power == pytest.approx(20_000, rel=0.02)


@virtual
async def test_an_order_for_batteries_outlives_a_restart_in_its_middle_and_after(tmp_path):
    clock, machines = FakeClock(), batteries(2)
    async with World(tmp_path, clock, machines, ALL) as world:
        await world.ask(4_000.0, "battery_power_target")
        for machine in machines:
            machine.delay = 20.0
        await world.ask("discharge", "battery_mode")
        await world.wait(2)
    for machine in machines:
        machine.delay = 0.0
    for _ in range(2):
        async with World(tmp_path, clock, machines, ALL) as world:
            await world.wait(400)
            assert world.power == pytest.approx(4_000, rel=0.02)


@virtual
async def test_a_halt_in_the_middle_of_a_round_is_no_refusal(tmp_path, monkeypatch):
    machines = inverters(6)
    monkeypatch.setattr(fleet_module, "A_TURN", 2)
    async with World(tmp_path, FakeClock(), machines, ALL) as world:
        send = world.fleet._send

        async def halted_after(commands):
            await send(commands)
            await world.bench.halting.halt("cli:me")

        monkeypatch.setattr(world.fleet, "_send", halted_after)
        id_ = await world.ask(24_000)
        await world.wait(30)
        monkeypatch.setattr(world.fleet, "_send", send)
        assert not [mate for mate in world.fleet.crew.mates.values() if mate.trouble == "refused"]
        await world.bench.policy.resume(Origin("cli"))
        await world.wait(60)
        assert world.power == pytest.approx(24_000, rel=0.02)
        assert (await world.end(id_)).verified


@pytest.mark.parametrize(
    "wrong",
    [{"weights": {"A": float("nan")}}, {"weights": {"A": float("inf")}}, {"ramp": float("inf")},
     {"fallback": {"after": 60, "value": float("nan")}}],
)  # fmt: skip
def test_what_is_no_number_is_no_setting(wrong):
    with pytest.raises(ValidationError, match="finite number"):
        FleetSettings.model_validate(ALL | wrong)


@virtual
async def test_after_a_start_a_slow_reader_takes_a_part_of_its_members_for_no_whole_fleet(tmp_path, monkeypatch):
    """The gateway knows all of 10,000 while the fleet has looked at half: those would be told to do it alone."""
    clock, deliver = FakeClock(), Fleet.deliver

    async def in_halves(fleet, updates):
        states = list(updates.states.items())
        await deliver(fleet, msgspec.structs.replace(updates, states=dict(states[:4])))
        if clock.monotonic() - begun < 20:
            await asyncio.sleep(8)
        await deliver(fleet, Updates(states=dict(states[4:])))

    async with World(tmp_path, clock, inverters(8), ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        machines = list(world.machines.values())
    begun = clock.monotonic()
    monkeypatch.setattr(Fleet, "deliver", in_halves)
    async with World(tmp_path, clock, machines, ALL) as world:
        shown = set()
        for _ in range(60):
            await world.wait(1)
            state = world.state()
            if state is not None and state.values.get("ac_power") is not None:
                shown.add(state.values["members"])
        assert world.told == []
        assert shown == {8}
        assert world.power == pytest.approx(24_000, rel=0.02)


@virtual
async def test_after_a_start_a_target_waits_for_who_is_not_heard_of_yet_and_expires_meanwhile(tmp_path):
    clock = FakeClock()
    async with World(tmp_path, clock, inverters(6), ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        machines = list(world.machines.values())
    for machine in machines[1:]:
        machine.silent = True
    async with World(tmp_path, clock, machines, ALL) as world:
        short, longer = await world.ask(36_000, ttl=8), await world.ask(30, "active_power_limit", ttl=60)
        assert (await world.end(short)).state is CommandState.EXPIRED
        assert world.told == []
        for machine in machines[1:5]:
            machine.silent = False
        end = await world.end(longer)
        assert end.state is CommandState.SUCCEEDED, "one that is never heard of holds nobody up for more than a moment"
        await world.wait(60)
        assert world.power <= 18_000 * 1.02


@virtual
async def test_after_a_start_nobody_makes_up_for_members_whose_power_is_not_read_yet(tmp_path):
    """Data come in parts: what is known of a battery, or of a status, says nothing of the power."""
    clock = FakeClock()

    class InParts(World):
        async def read(self):
            for machine in list(self.machines.values())[3:]:
                snapshot = Snapshot(
                    serial=machine.device.serial, time=clock.now(), source="world", interval=60.0,
                    values={"status": "normal", "running": True},
                )  # fmt: skip
                self.bench.router.publish(snapshot)
                machine.silent = True
            reading = asyncio.create_task(super().read())
            await asyncio.sleep(45)
            for machine in self.machines.values():
                machine.silent = False
            await reading

    async with World(tmp_path, clock, inverters(6), ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        await world.wait(120)
        machines = list(world.machines.values())
    async with InParts(tmp_path, clock, machines, ALL) as world:
        await world.wait(90)
        assert world.told == []


@virtual
async def test_after_a_start_nobody_makes_up_for_members_that_were_never_told_anything(tmp_path):
    clock, machines = FakeClock(), [*batteries(1), *inverters(2)]
    async with World(tmp_path, clock, machines, ALL | {"share": "soc"}) as world:
        assert (await world.end(await world.ask(20_000))).verified
        assert {command.serial for command in world.told} == {"BAT0"}
        await world.wait(120)
    for machine in machines[1:]:
        machine.silent = True
    async with World(tmp_path, clock, machines, ALL | {"share": "soc"}) as world:
        await world.wait(15)
        for machine in machines[1:]:
            machine.silent = False
        await world.wait(60)
        assert world.told == []
        assert world.state().values["ac_power"] == pytest.approx(20_000, rel=0.02)


@virtual
async def test_after_a_start_members_that_come_while_others_are_looked_at_are_missing_in_no_sum(tmp_path, monkeypatch):
    clock, deliver, judge, late = FakeClock(), Fleet.deliver, Crew.judge, []

    async def a_part(fleet, updates):
        states = list(updates.states.items())
        late.extend(state for _, state in states[4:])
        await deliver(fleet, msgspec.structs.replace(updates, states=dict(states[:4])))

    def the_rest_comes(crew, mates, now):
        judge(crew, mates, now)
        while late and len(crew.mates) >= 4:
            crew.look(late.pop(0))

    async with World(tmp_path, clock, inverters(8), ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        await world.wait(120)
        machines = list(world.machines.values())
    monkeypatch.setattr(Fleet, "deliver", a_part)
    monkeypatch.setattr(Crew, "judge", the_rest_comes)
    async with World(tmp_path, clock, machines, ALL) as world:
        await world.wait(60)
        assert len(world.fleet.crew.mates) == 8
        assert world.told == []
