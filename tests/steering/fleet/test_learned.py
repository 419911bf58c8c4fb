"""What members refused is known after a restart too: nobody is asked for it again in each life."""

import pytest

from gateway.core.errors import RefusedError
from tests.kit.clock import FakeClock, virtual
from tests.steering.fleet.test_fleet import ALL, batteries, inverters
from tests.steering.fleet.world import World

DAY = 86_400


class Counting(World):
    """Counts what its machines refuse."""

    refused = 0

    async def send(self, command, in_force, timeout):
        try:
            return await super().send(command, in_force, timeout)
        except RefusedError:
            self.refused += 1
            raise


def small_batteries():
    machines = batteries(4)
    for machine in machines[:3]:
        machine.most = 4_000.0
    return machines


async def killed_in(tmp_path, world):
    """Return how to bring back what lay on the disk a while before the gateway ends, as if it were killed now."""
    await world.wait(15)
    file = tmp_path / "fleet-north-learned.json"
    text = file.read_bytes() if file.exists() else None

    def restore():
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_bytes(text)

    return restore


@virtual
async def test_what_a_battery_takes_is_known_after_a_kill(tmp_path):
    machines, clock = small_batteries(), FakeClock()
    async with Counting(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(await world.ask(-20_500))).verified
        assert world.refused
        restore = await killed_in(tmp_path, world)
    restore()
    async with Counting(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(await world.ask(-2_000))).verified
        assert (await world.end(await world.ask(-20_000))).verified
        assert world.power == pytest.approx(-20_000, rel=0.02)
        assert world.refused == 0


@virtual
async def test_on_another_day_a_battery_is_tried_with_one_step_more(tmp_path):
    machines, clock = small_batteries(), FakeClock()
    async with Counting(tmp_path, clock, machines, ALL | {"share": "equal"}) as world:
        assert (await world.end(await world.ask(-20_500))).verified
        await world.wait(DAY)
        before = world.refused
        assert (await world.end(await world.ask(-2_000))).verified
        assert (await world.end(await world.ask(-18_000))).verified
        assert before < world.refused <= before + 3, "once each"
        for machine in machines[:3]:
            machine.most = 10_000.0
        await world.wait(DAY)
        assert (await world.end(await world.ask(-2_000))).verified
        before = world.refused
        assert not (await world.end(await world.ask(-26_000))).verified
        await world.wait(DAY)
        assert (await world.end(await world.ask(-2_000))).verified
        assert (await world.end(await world.ask(-26_000))).verified
        assert world.refused == before, "it takes more now, and is given it"


@virtual
async def test_who_refuses_all_is_not_asked_anew_by_each_start(tmp_path):
    machines, clock = inverters(6), FakeClock()
    machines[0].refuses = True
    async with Counting(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(await world.ask(24_000))).verified
        restore = await killed_in(tmp_path, world)
    restore()
    async with Counting(tmp_path, clock, machines, ALL) as world:
        await world.wait(60)
        assert world.state().values["members_out"] == 1
        assert (await world.end(await world.ask(18_000))).verified
        assert world.refused == 0
        await world.wait(1_200)
        assert (await world.end(await world.ask(27_000))).verified
        assert world.refused == 1, "after ten minutes"


@virtual
async def test_who_contradicted_three_times_stays_out_until_midnight_through_a_restart(tmp_path):
    machines, clock = inverters(10), FakeClock()
    machines[3].ignores = True
    async with World(tmp_path, clock, machines, ALL) as world:
        for target in (30_000, 31_000, 20_000):
            assert (await world.end(await world.ask(target))).verified
            await world.wait(1_500)
        assert world.fleet.crew.mates["PV3"].trouble == "contradicted"
        restore = await killed_in(tmp_path, world)
    restore()
    async with World(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(await world.ask(30_000))).verified
        assert "PV3" not in {command.serial for command in world.told}
        assert world.fleet.crew.mates["PV3"].trouble == "contradicted"
        await world.wait(DAY)
        assert world.fleet.crew.mates["PV3"].trouble == ""


@virtual
async def test_what_those_taught_that_never_come_back_is_forgotten_with_the_day(tmp_path):
    machines, clock = small_batteries(), FakeClock()
    async with World(tmp_path, clock, machines, ALL) as world:
        assert (await world.end(await world.ask(-20_500))).verified
    async with World(tmp_path, clock, machines[2:], ALL) as world:
        await world.wait(30)
        assert b"BAT0" in (tmp_path / "fleet-north-learned.json").read_bytes()
        await world.wait(DAY)
        assert b"BAT0" not in (tmp_path / "fleet-north-learned.json").read_bytes()


@virtual
async def test_a_damaged_file_is_said_and_costs_only_what_it_held(tmp_path, caplog):
    (tmp_path / "fleet-north-learned.json").write_bytes(b'{"day": 1, "members": {"BAT0": {"mo')
    machines = small_batteries()
    async with Counting(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(-20_500))).verified
        assert world.refused


@virtual
async def test_a_battery_that_refuses_mode_and_power_is_asked_again_after_ten_minutes_not_twenty(tmp_path):
    machines = batteries(4)
    machines[0].refuses = True
    async with Counting(tmp_path, FakeClock(), machines, ALL) as world:
        await world.ask(36_000)
        await world.wait(60)
        mate = world.fleet.crew.mates["BAT0"]
        assert mate.refusals == 1
        assert 500 < (mate.again - world.bench.clock.now()).total_seconds() < 600


@virtual
async def test_a_contradiction_does_not_make_it_forget_what_a_battery_takes(tmp_path):
    machines = small_batteries()
    async with Counting(tmp_path, FakeClock(), machines, ALL) as world:
        assert (await world.end(await world.ask(-20_500))).verified
        learned = world.fleet.crew.mates["BAT0"].most
        assert learned < 4_000
        machines[0].contradicts = True
        await world.end(await world.ask(-2_000))
        await world.wait(60)
        mate = world.fleet.crew.mates["BAT0"]
        assert (mate.contradictions, mate.most) == (1, learned)


@virtual
async def test_after_a_start_a_target_for_all_is_not_out_of_the_range_of_those_found_first(tmp_path):
    clock, machines = FakeClock(), [*inverters(4), *batteries(2)]
    async with World(tmp_path, clock, machines, ALL) as world:
        await world.wait(15)
        whole = world.state().device.setpoints["power_target"]
        assert (whole.low, whole.high) == (-20_000, 60_000)
    async with World(tmp_path, clock, machines[:2], ALL) as world:
        await world.wait(5)
        assert world.state().device.setpoints["power_target"] == whole
        assert (await world.end(await world.ask(50_000))).detail.startswith("partial: asked 50000 W")
        await world.wait(400)
        assert world.state().device.setpoints["power_target"].high == 20_000, "the others are gone"
