"""A setpoint written again unchanged: its dead-man's timer starts anew, and the cloud is not called."""

import asyncio

import pytest

from gateway.commands.executor import RESULT_TIMEOUT, UNCHANGED
from gateway.commands.policy.policy import ControlSettings
from gateway.core.controller import Outcome
from gateway.core.errors import RefusedError
from gateway.core.model import CommandState
from tests.commands.test_commands import ACCEPTED, EXPIRED, SENT, SUCCEEDED, UNKNOWN, last, quiet, steps
from tests.kit.bench import EVERYTHING, INVERTER, Bench, collected
from tests.kit.clock import FakeClock, virtual


def sent(bench):
    return [command.value for command in bench.controller.sent]


async def write(bench, value=50, *, setpoint="active_power_limit", **changes):
    command = bench.command(setpoint, value, **changes)
    await bench.dispatcher.submit(command)
    await quiet()
    return command


async def in_force(bench, value=50, **changes):
    """One device with good data, and a value set."""
    bench.announce()
    bench.publish(interval=600, ac_power=1.0)
    await asyncio.sleep(1)
    await write(bench, value, **changes)
    await asyncio.sleep(1)


@virtual
async def test_what_is_in_force_is_not_sent_again_and_takes_every_step(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        await in_force(bench)
        again = await write(bench, "50.0")
        assert sent(bench) == [50.0]
        assert steps(events, again) == [ACCEPTED, SENT, SUCCEEDED]
        assert last(events, again).detail == UNCHANGED
        assert [e.state for e in await bench.journal.history(again.id)] == [ACCEPTED, SENT, SUCCEEDED]


@virtual
async def test_the_dead_mans_timer_is_refreshed_and_fires_when_it_is_not(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench, revert_after=10)
        for _ in range(8):
            await asyncio.sleep(7)
            await write(bench, revert_after=10)
        assert sent(bench) == [50.0]
        await asyncio.sleep(9)
        assert sent(bench) == [50.0]
        await asyncio.sleep(2)
        assert sent(bench) == [50.0, 100.0]


@virtual
async def test_after_the_timer_has_fired_the_old_value_is_sent_again(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench, revert_after=10)
        await asyncio.sleep(11)
        await write(bench, revert_after=10)
        assert sent(bench) == [50.0, 100.0, 50.0]


@virtual
async def test_a_refresh_may_bring_other_seconds_or_none(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench, revert_after=10)
        await write(bench, revert_after=30, revert_value=80)
        await asyncio.sleep(29)
        assert sent(bench) == [50.0]
        await asyncio.sleep(2)
        assert sent(bench) == [50.0, 80.0]
        await write(bench, 50, revert_after=10)
        await write(bench, 50)
        await asyncio.sleep(60)
        assert sent(bench) == [50.0, 80.0, 50.0]
        assert await bench.journal.reverts() == []


@virtual
async def test_the_refreshed_timer_survives_a_restart(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        await in_force(bench, revert_after=20)
        await asyncio.sleep(15)
        await write(bench, revert_after=20)
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        await asyncio.sleep(15)
        assert sent(bench) == []
        await asyncio.sleep(10)
        assert sent(bench) == [100.0]


# whenever there is a doubt, it is sent


@virtual
async def test_another_value_is_sent(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        await write(bench, 51)
        await write(bench, 50)
        assert sent(bench) == [50.0, 51.0, 50.0]


@virtual
async def test_it_is_sent_when_somebody_else_has_changed_it_and_not_when_it_reads_the_same(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        bench.publish(active_power_limit=50)
        await write(bench)
        assert sent(bench) == [50.0]
        await asyncio.sleep(1)
        bench.publish(active_power_limit=70.0)
        await write(bench)
        assert sent(bench) == [50.0, 50.0]


@virtual
async def test_a_refresh_hides_no_change_that_is_heard_of_only_later(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        await asyncio.sleep(20)
        await write(bench)
        bench.publish(age=10, active_power_limit=70.0)
        assert bench.router.state(INVERTER.serial).values["active_power_limit"] == 70.0
        await write(bench)
        assert sent(bench) == [50.0, 50.0]


@virtual
async def test_a_read_back_from_before_says_nothing(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        await asyncio.sleep(5)
        bench.publish(age=30, interval=600, active_power_limit=70.0)
        await write(bench)
        assert sent(bench) == [50.0]


@virtual
async def test_confirmed_too_long_ago_it_is_sent_and_a_read_back_confirms_anew(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        await asyncio.sleep(100)
        bench.publish(interval=600, active_power_limit=50.0)
        await asyncio.sleep(100)
        await write(bench)
        assert sent(bench) == [50.0]
        await asyncio.sleep(30)
        await write(bench)
        assert sent(bench) == [50.0, 50.0]
        await asyncio.sleep(100)
        await write(bench)
        assert sent(bench) == [50.0, 50.0]


@virtual
async def test_refreshes_alone_prove_nothing(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        for _ in range(13):
            await asyncio.sleep(10)
            await write(bench)
        assert sent(bench) == [50.0, 50.0]


@pytest.mark.parametrize("values", [{"status": "offline"}, {}])
@virtual
async def test_it_is_sent_while_the_data_are_not_good(tmp_path, values):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        bench.publish(interval=10, ac_power=1.0, **values)
        await asyncio.sleep(40)
        bench.router.age()
        await write(bench)
        assert sent(bench) == [50.0, 50.0]


@pytest.mark.parametrize("trouble", [RefusedError("no"), Outcome(CommandState.UNKNOWN), Outcome(CommandState.FAILED)])
@virtual
async def test_after_a_command_that_did_not_succeed_it_is_sent(tmp_path, trouble):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench)
        if isinstance(trouble, Exception):
            bench.controller.answers = [trouble]
        else:
            bench.controller.outcomes = [trouble]
        await write(bench, 60)
        count = len(bench.controller.sent)
        await write(bench, 50)
        assert sent(bench)[count:] == [50.0]


@virtual
async def test_while_another_value_is_on_its_way_it_waits_and_is_sent(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        await in_force(bench)
        bench.controller.gate.clear()
        await write(bench, 60)
        again = await write(bench, 50)
        assert steps(events, again) == [ACCEPTED]
        bench.controller.gate.set()
        await quiet()
        assert sent(bench) == [50.0, 60.0, 50.0]


@virtual
async def test_one_that_has_expired_refreshes_nothing(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        await in_force(bench)
        bench.controller.gate.clear()
        blocked = await write(bench, 60, ttl=20)
        await asyncio.sleep(1)
        again = await write(bench, 50, ttl=5)
        await asyncio.sleep(RESULT_TIMEOUT + 5)
        assert steps(events, blocked) == [ACCEPTED, SENT, UNKNOWN]
        assert steps(events, again) == [ACCEPTED, EXPIRED]


@virtual
async def test_what_is_in_force_is_known_after_a_restart(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        await in_force(bench)
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        bench.publish(active_power_limit=50.0)
        await write(bench)
        assert sent(bench) == []
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        await asyncio.sleep(1)
        bench.publish(active_power_limit=70.0)
        await write(bench)
        assert sent(bench) == [50.0], "somebody else has changed it"
        bench.controller.gate.clear()
        await write(bench, 30)
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        bench.publish(active_power_limit=50.0)
        await write(bench, 50)
        assert sent(bench) == [50.0], "what was handed over last is not certain"


@virtual
async def test_it_can_be_switched_off(tmp_path):
    control = ControlSettings(**(EVERYTHING.model_dump() | {"refresh_within": 0}))
    async with Bench(tmp_path, control, clock=FakeClock()) as bench:
        await in_force(bench)
        await write(bench)
        assert sent(bench) == [50.0, 50.0]


@virtual
async def test_a_jump_of_the_wall_clock_keeps_nothing_in_force_for_longer(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        await in_force(bench)
        clock.jump(-3600)
        await asyncio.sleep(130)
        bench.publish(interval=600, ac_power=1.0)
        await write(bench)
        assert sent(bench) == [50.0, 50.0]


@virtual
async def test_of_a_group_only_what_changes_is_sent(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await in_force(bench, "charge", setpoint="battery_mode")
        await write(bench, 3000, setpoint="battery_power_target")
        await write(bench, "charge", setpoint="battery_mode")
        assert sent(bench) == ["charge", 3000.0]
        await asyncio.sleep(1)
        await write(bench, 2000, setpoint="battery_power_target")
        await write(bench, "charge", setpoint="battery_mode")
        assert sent(bench) == ["charge", 3000.0, 2000.0]
        assert bench.controller.in_force[-1] == {"battery_mode": "charge"}
