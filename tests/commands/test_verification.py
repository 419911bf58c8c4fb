"""What the far side says is done is compared with what sources read back; and with what they read later on."""

import asyncio

import pytest

from gateway.commands.policy.policy import ControlSettings
from gateway.core.controller import Outcome
from gateway.core.model import CommandState
from tests.commands.test_commands import FAILED, SENT, SUCCEEDED, SUPERSEDED, last, quiet, steps
from tests.kit.bench import EVERYTHING, INVERTER, Bench, collected
from tests.kit.clock import FakeClock, virtual

LIMIT = "active_power_limit"


def bench_at(tmp_path, **control):
    return Bench(tmp_path, ControlSettings(**(EVERYTHING.model_dump() | control)), clock=FakeClock())


async def written(bench, value=50, *, setpoint=LIMIT, **changes):
    """A device whose source tells of the setpoint, and a command that the far side says is done."""
    bench.announce()
    bench.publish(interval=600, **{setpoint: 100.0})
    await asyncio.sleep(1)
    return await write(bench, value, setpoint=setpoint, **changes)


async def write(bench, value, *, setpoint=LIMIT, **changes):
    command = bench.command(setpoint, value, **changes)
    await bench.dispatcher.submit(command)
    await asyncio.sleep(1)
    return command


@virtual
async def test_it_succeeds_verified_once_a_source_reads_it_back(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        command = await written(bench)
        assert steps(events, command)[-1] is SENT
        bench.publish(interval=600, **{LIMIT: 50.3})
        await quiet()
        event = last(events, command)
        assert (event.state, event.verified) == (SUCCEEDED, True)
        assert (await bench.journal.last_event(command.id)).verified


@virtual
async def test_another_value_read_back_until_the_end_is_failed_with_both(tmp_path):
    async with bench_at(tmp_path, verify_within=60) as bench, collected(bench.router) as (events, _):
        command = await written(bench)
        bench.publish(interval=600, **{LIMIT: 100.0})
        await asyncio.sleep(58)
        assert steps(events, command)[-1] is SENT, "the device may need a moment"
        await asyncio.sleep(2)
        event = last(events, command)
        assert event.state is FAILED
        assert "asked for 50 %, read back 100 %" in event.detail


@virtual
async def test_what_was_measured_before_it_was_handed_over_says_nothing(tmp_path):
    async with bench_at(tmp_path, verify_within=60) as bench, collected(bench.router) as (events, _):
        command = await written(bench)
        bench.publish(age=30, interval=600, **{LIMIT: 50.0})
        await asyncio.sleep(61)
        event = last(events, command)
        assert (event.state, event.verified) == (SUCCEEDED, False)
        assert "no source has read it back" in event.detail


@virtual
async def test_it_may_obey_only_after_a_while(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        command = await written(bench)
        bench.publish(interval=600, **{LIMIT: 100.0})
        await asyncio.sleep(30)
        bench.publish(interval=600, **{LIMIT: 50.0})
        await quiet()
        assert last(events, command).verified


@pytest.mark.parametrize("control", [{}, {"verify_within": 0}])
@virtual
async def test_where_nothing_can_read_it_back_or_nobody_wants_it_it_ends_at_once_unverified(tmp_path, control):
    async with bench_at(tmp_path, **control) as bench, collected(bench.router) as (events, _):
        bench.announce()
        if control:
            bench.publish(interval=600, **{LIMIT: 100.0})
        await asyncio.sleep(1)
        command = await write(bench, 50)
        event = last(events, command)
        assert (event.state, event.verified) == (SUCCEEDED, False)


@virtual
async def test_a_controller_that_has_read_it_back_itself_is_believed(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        bench.controller.outcomes = [Outcome(SUCCEEDED, "read back", verified=True)]
        command = await written(bench)
        assert last(events, command).verified


@virtual
async def test_a_newer_command_does_not_wait_for_the_read_back_of_the_one_before(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        old = await written(bench, 50)
        new = await write(bench, 60)
        event = last(events, old)
        assert (event.state, event.verified) == (SUCCEEDED, False)
        assert "before the next command" in event.detail
        assert [c.value for c in bench.controller.sent] == [50.0, 60.0]
        bench.publish(interval=600, **{LIMIT: 60.0})
        await quiet()
        assert last(events, new).verified


@virtual
async def test_neither_does_one_that_waits_already(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        bench.controller.gate.clear()
        await written(bench, 50)
        new = await write(bench, 60)
        bench.controller.gate.set()
        await quiet()
        assert [c.value for c in bench.controller.sent] == [50.0, 60.0]
        assert steps(events, new)[-1] is SENT


@virtual
async def test_the_others_of_its_group_do_not_wait_either(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        mode = await written(bench, "charge", setpoint="battery_mode")
        power = await write(bench, 3000, setpoint="battery_power_target")
        assert [c.value for c in bench.controller.sent] == ["charge", 3000.0]
        assert steps(events, mode)[-1] is SENT
        bench.publish(interval=600, battery_mode="charge", battery_power_target=3000.0)
        await quiet()
        assert [last(events, c).state for c in (mode, power)] == [SUCCEEDED, SUCCEEDED]
        assert last(events, mode).verified


@virtual
async def test_a_call_that_carries_another_value_ends_the_waiting(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        mode = await written(bench, "charge", setpoint="battery_mode")
        power, other = bench.command("battery_power_target", 3000), bench.command("battery_mode", "discharge")
        await bench.dispatcher.submit(power, other)
        await asyncio.sleep(1)
        assert bench.controller.in_force[-1] == {"battery_mode": "discharge"}
        assert last(events, mode).state is SUCCEEDED
        assert not last(events, mode).verified


@virtual
async def test_its_own_dead_mans_timer_ends_the_waiting_and_fires_in_time(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        command = await written(bench, 50, revert_after=10.0)
        await asyncio.sleep(9.5)
        assert steps(events, command)[-1] is SUCCEEDED
        assert [c.value for c in bench.controller.sent] == [50.0, 100.0]


@virtual
async def test_a_value_that_was_not_obeyed_leaves_the_timer_of_the_one_before(tmp_path):
    async with bench_at(tmp_path, verify_within=20) as bench:
        await written(bench, 30, revert_after=200.0)
        bench.publish(interval=600, **{LIMIT: 30.0})
        await write(bench, 40)
        bench.publish(interval=600, **{LIMIT: 30.0})
        await asyncio.sleep(300)
        assert [c.value for c in bench.controller.sent] == [30.0, 40.0, 100.0]


@virtual
async def test_a_value_not_obeyed_may_be_obeyed_late_so_its_own_timer_runs(tmp_path):
    async with bench_at(tmp_path, verify_within=20) as bench, collected(bench.router) as (events, _):
        command = await written(bench, 30, revert_after=200.0)
        bench.publish(interval=600, **{LIMIT: 80.0})
        await asyncio.sleep(30)
        assert last(events, command).state is FAILED
        await asyncio.sleep(200)
        assert [c.value for c in bench.controller.sent] == [30.0, 100.0]


@virtual
async def test_after_a_restart_what_was_done_is_not_asked_for_again(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        command = await written(bench)
    async with Bench(tmp_path, clock=clock) as bench, collected(bench.router) as (events, _):
        bench.controller.gate.clear()
        await quiet()
        assert steps(events, command) == [SUCCEEDED]
        assert not last(events, command).verified
        assert bench.controller.sent == []


@virtual
async def test_an_older_one_waiting_for_its_read_back_is_not_superseded(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        command = await written(bench)
        for value in (51, 52, 53):
            await bench.dispatcher.submit(bench.command(value=value))
        await quiet()
        assert SUPERSEDED not in steps(events, command)


@virtual
async def test_sinks_are_told_that_it_is_done_before_it_is_read_back(tmp_path):
    async with bench_at(tmp_path) as bench:
        mailbox = bench.router.attach("sink")
        command = await written(bench)
        assert (await mailbox.take()).done == [command]


# drift

SHORT = 0.5
"""Seconds between readings of a source that tells of drift at once."""


def alarms(bench):
    return [alarm.text for alarm in bench.router.alarm_book]


async def confirmed(bench, value=50):
    command = await written(bench, value)
    bench.publish(interval=600, **{LIMIT: float(value)})
    await asyncio.sleep(1)
    return command


@virtual
async def test_a_value_that_somebody_else_has_changed_is_an_alarm_until_it_is_back(tmp_path):
    async with bench_at(tmp_path) as bench:
        await confirmed(bench)
        assert alarms(bench) == []
        bench.publish(interval=SHORT, **{LIMIT: 70.0})
        assert alarms(bench) == ["active_power_limit was set to 50 % and reads 70 % now"]
        assert bench.router.state(INVERTER.serial).values["alarms_active"] == 1
        assert bench.dispatcher.drift.count == 1
        await asyncio.sleep(1)
        bench.publish(interval=SHORT, **{LIMIT: 71.0})
        assert bench.dispatcher.drift.count == 1, "it drifts still"
        await asyncio.sleep(1)
        bench.publish(interval=600, **{LIMIT: 50.0})
        assert alarms(bench) == []


@virtual
async def test_the_value_of_before_in_a_message_stamped_after_the_command_is_no_drift_until_it_stays(tmp_path):
    async with bench_at(tmp_path) as bench:
        bench.publish(interval=30, **{LIMIT: 100.0})
        await asyncio.sleep(1)
        await confirmed(bench)
        for _ in range(9):
            await asyncio.sleep(3)
            bench.publish(interval=30, **{LIMIT: 100.0})
            assert alarms(bench) == []
        await asyncio.sleep(3)
        bench.publish(interval=30, **{LIMIT: 100.0})
        assert alarms(bench) == ["active_power_limit was set to 50 % and reads 100 % now"]


@virtual
async def test_a_source_that_speaks_once_an_hour_hides_drift_for_five_minutes_only(tmp_path):
    async with bench_at(tmp_path) as bench:
        await confirmed(bench)
        await asyncio.sleep(300)
        bench.publish(interval=3600, **{LIMIT: 70.0})
        assert bench.dispatcher.drift.count == 1


@virtual
async def test_drift_ends_when_the_next_command_is_sent(tmp_path):
    async with bench_at(tmp_path) as bench:
        await confirmed(bench)
        bench.publish(interval=SHORT, **{LIMIT: 70.0})
        await asyncio.sleep(1)
        await write(bench, 60)
        assert alarms(bench) == []


@virtual
async def test_what_was_never_confirmed_or_measured_before_cannot_drift(tmp_path):
    async with bench_at(tmp_path, verify_within=0) as bench:
        await written(bench)
        bench.publish(interval=600, **{LIMIT: 100.0})
        assert alarms(bench) == []
        await asyncio.sleep(1)
        bench.publish(interval=600, **{LIMIT: 50.0})
        await asyncio.sleep(1)
        bench.publish(age=30, interval=SHORT, **{LIMIT: 80.0})
        assert alarms(bench) == []
        bench.publish(interval=SHORT, **{LIMIT: 80.0})
        assert len(alarms(bench)) == 1


@virtual
async def test_drift_is_noticed_after_a_restart_too(tmp_path):
    control, clock = ControlSettings(**EVERYTHING.model_dump()), FakeClock()
    async with Bench(tmp_path, control, clock) as bench:
        await confirmed(bench)
    async with Bench(tmp_path, control, clock) as bench:
        bench.announce()
        bench.dispatcher.drift.restored()
        await asyncio.sleep(1)
        bench.publish(interval=SHORT, **{LIMIT: 70.0})
        assert bench.dispatcher.drift.count == 1
        assert alarms(bench) == ["active_power_limit was set to 50 % and reads 70 % now"]


@virtual
async def test_written_again_it_counts_as_verified_only_while_it_reads_so(tmp_path):
    async with bench_at(tmp_path) as bench, collected(bench.router) as (events, _):
        await confirmed(bench)
        again = await write(bench, 50)
        assert (last(events, again).state, last(events, again).verified) == (CommandState.SUCCEEDED, True)
        assert len(bench.controller.sent) == 1
