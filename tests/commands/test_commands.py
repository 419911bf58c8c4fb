"""The life of a command, with a scripted controller and free time."""

import asyncio

import msgspec
import pytest
from prometheus_client import REGISTRY

from gateway.commands.executor import RESULT_TIMEOUT
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError, RefusedError, UnsureError
from gateway.core.model import CommandState, Reason
from gateway.journal.journal import JournalError
from tests.kit.bench import EVERYTHING, INVERTER, Bench, ScriptedController, collected
from tests.kit.clock import FakeClock, virtual
from tests.kit.journal import before_writing

ACCEPTED, SENT, SUCCEEDED, FAILED, UNKNOWN, REJECTED, EXPIRED, SUPERSEDED = CommandState


def steps(events, command):
    return [event.state for event in events if event.command.id == command.id]


def last(events, command):
    return [event for event in events if event.command.id == command.id][-1]


async def quiet():
    """Let everything happen that happens at once."""
    await asyncio.sleep(0.001)


@virtual
async def test_a_command_is_accepted_sent_and_succeeds_each_step_told_once(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        command = bench.command(value="50")
        (answer,) = await bench.dispatcher.submit(command)
        await quiet()
        assert answer.state is ACCEPTED
        assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]
        assert [c.value for c in bench.controller.sent] == [50.0]
        assert [e.state for e in await bench.journal.history(command.id)] == [ACCEPTED, SENT, SUCCEEDED]


@virtual
async def test_success_shows_at_once_until_a_source_reads_it_back(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.publish(active_power_limit=100.0)
        await asyncio.sleep(5)
        await bench.dispatcher.submit(bench.command(value=50))
        await quiet()
        bench.publish(age=3, active_power_limit=100.0)
        assert bench.router.state(INVERTER.serial).values["active_power_limit"] == 50.0
        await asyncio.sleep(10)
        bench.publish(active_power_limit=49.0)
        assert bench.router.state(INVERTER.serial).values["active_power_limit"] == 49.0


@virtual
async def test_refused_by_the_far_side_is_failed(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [RefusedError("not your device")]
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert steps(events, command) == [ACCEPTED, SENT, FAILED]
        assert last(events, command).detail == "not your device"


@virtual
async def test_what_did_not_leave_is_tried_again_and_told_as_sent_once(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [NotSentError("away"), NotSentError("busy", 5)]
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(20)
        assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]
        assert len(bench.controller.sent) == 1


@virtual
async def test_it_expires_with_the_reason_that_stood_in_the_way_and_is_not_sent_later(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [NotSentError("SEMS is away")] * 100
        command = bench.command(ttl=10)
        await bench.dispatcher.submit(command)
        await asyncio.sleep(11)
        bench.controller.answers = []
        await asyncio.sleep(100)
        assert steps(events, command) == [ACCEPTED, EXPIRED]
        assert last(events, command).detail == "SEMS is away"
        assert bench.controller.sent == []


@virtual
async def test_a_jump_of_the_wall_clock_may_end_a_command_and_revives_none(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [NotSentError("away")] * 3 + [None]
        early = bench.command(ttl=60)
        await bench.dispatcher.submit(early)
        clock.jump(3600)
        bench.dispatcher.look_at_clock()
        await asyncio.sleep(1)
        assert steps(events, early) == [ACCEPTED, EXPIRED], "nothing is sent that some clock says is late"
        assert bench.controller.sent == []
        bench.controller.answers = [NotSentError("away")] * 100
        late = bench.command("running", value=False, ttl=5)
        await bench.dispatcher.submit(late)
        clock.jump(-3600)
        await asyncio.sleep(6)
        assert steps(events, late) == [ACCEPTED, EXPIRED]


@virtual
async def test_a_newer_one_supersedes_what_waits_and_the_last_is_in_force(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.gate.clear()
        commands = [bench.command(value=value) for value in (10, 20, 30)]
        for command in commands:
            await bench.dispatcher.submit(command)
        await quiet()
        assert [c.value for c in bench.controller.sent] == [10.0]
        bench.controller.gate.set()
        await quiet()
        assert [steps(events, c)[-1] for c in commands] == [SUCCEEDED, SUPERSEDED, SUCCEEDED]
        assert [c.value for c in bench.controller.sent] == [10.0, 30.0]
        assert bench.router.state(INVERTER.serial).values["active_power_limit"] == 30.0


@virtual
async def test_a_newer_one_supersedes_one_that_is_being_retried_without_waiting_for_the_next_try(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [NotSentError("busy", 50)]
        old, new = bench.command(value=10), bench.command(value=20)
        await bench.dispatcher.submit(old)
        await quiet()
        await bench.dispatcher.submit(new)
        await quiet()
        assert steps(events, old) == [ACCEPTED, SUPERSEDED]
        assert steps(events, new) == [ACCEPTED, SENT, SUCCEEDED]


@virtual
async def test_setpoints_of_one_order_leave_together_or_take_turns_and_see_each_other(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.publish(battery_mode="idle", battery_power_target=0.0)
        await asyncio.sleep(1)
        await bench.dispatcher.submit(
            bench.command("battery_power_target", 3000), bench.command("battery_mode", "charge")
        )
        await quiet()
        assert [(c.setpoint, c.value) for c in bench.controller.sent] == [("battery_power_target", 3000.0)], "one call"
        assert bench.controller.in_force == [{"battery_mode": "charge"}]
        await bench.dispatcher.submit(bench.command("battery_target_soc", 80))
        await quiet()
        assert bench.controller.in_force[1] == {"battery_mode": "charge", "battery_power_target": 3000.0}


@virtual
async def test_other_setpoints_of_the_device_do_not_wait(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.controller.gate.clear()
        await bench.dispatcher.submit(bench.command(), bench.command("running", value=False))
        await quiet()
        assert {c.setpoint for c in bench.controller.sent} == {"active_power_limit", "running"}


@virtual
async def test_the_second_controller_is_tried_when_the_first_cannot_and_never_both(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        second = ScriptedController()
        bench.dispatcher.use({"first": bench.controller, "second": second})
        bench.controller.answers = [NotSentError("out of budget")]
        await bench.dispatcher.submit(bench.command(value=1))
        await quiet()
        await bench.dispatcher.submit(bench.command(value=2))
        await quiet()
        assert [c.value for c in second.sent] == [1.0]
        assert [c.value for c in bench.controller.sent] == [2.0]


@pytest.mark.parametrize("trouble", [UnsureError("no answer"), ValueError("a bug")])
@virtual
async def test_without_a_certain_answer_it_is_asked_for_and_never_sent_twice(tmp_path, trouble):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [trouble]
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]
        assert bench.controller.sent == []


@virtual
async def test_a_controller_that_hangs_is_cut_off_at_the_expiry(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()

        async def hang(*_):
            await asyncio.sleep(1e6)

        bench.controller.send = hang
        bench.controller.outcomes = [Outcome(UNKNOWN, "nothing is known")]
        command = bench.command(ttl=5)
        await bench.dispatcher.submit(command)
        await asyncio.sleep(7)
        assert steps(events, command) == [ACCEPTED, SENT, UNKNOWN]


@pytest.mark.parametrize(
    ("troubles", "end"),
    [
        ([NotSentError("away", 5), UnsureError("cut off")], SUCCEEDED),
        ([UnsureError("cut off")] * 1000, UNKNOWN),
        ([RefusedError("no such task")], UNKNOWN),
        ([ValueError("a bug")], UNKNOWN),
    ],
)
@virtual
async def test_the_result_is_asked_for_until_somebody_knows_or_the_time_is_over(tmp_path, troubles, end):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.outcomes = list(troubles)
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(RESULT_TIMEOUT + 10)
        assert steps(events, command) == [ACCEPTED, SENT, end]


@virtual
async def test_a_result_that_never_comes_ends_as_unknown(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.gate.clear()
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(RESULT_TIMEOUT + 1)
        assert steps(events, command) == [ACCEPTED, SENT, UNKNOWN]


# refusals


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"serial": "nobody"}, Reason.UNKNOWN_DEVICE),
        ({"setpoint": "warp_factor"}, Reason.UNKNOWN_SETPOINT),
        ({"setpoint": "charging", "value": True}, Reason.UNKNOWN_SETPOINT),
        ({"value": 101}, Reason.OUT_OF_RANGE),
        ({"value": "much"}, Reason.BAD_VALUE),
        ({"revert_after": 10.0, "revert_value": 200}, Reason.OUT_OF_RANGE),
        ({"ttl": -1.0}, Reason.EXPIRED),
        ({"setpoint": "export_limit", "value": 5}, Reason.UNKNOWN_SETPOINT),
    ],
)
@virtual
async def test_a_refused_command_is_told_why_and_never_leaves(tmp_path, changes, reason):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        command = bench.command(**changes)
        (answer,) = await bench.dispatcher.submit(command)
        await asyncio.sleep(100)
        assert (answer.state, answer.reason) == (REJECTED, reason)
        assert answer.detail
        assert steps(events, command) == [REJECTED]
        assert bench.controller.sent == []


@virtual
async def test_one_bad_setpoint_of_a_request_refuses_all_of_it(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        answers = await bench.dispatcher.submit(bench.command(value=50), bench.command("battery_mode", "explode"))
        await quiet()
        assert [a.reason for a in answers] == [Reason.BAD_REQUEST, Reason.BAD_VALUE]
        assert bench.controller.sent == []


@virtual
async def test_nobody_to_carry_it_out(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.dispatcher.use({})
        (answer,) = await bench.dispatcher.submit(bench.command())
        assert answer.reason is Reason.NO_CONTROLLER


@virtual
async def test_the_same_command_delivered_twice_is_executed_once(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        command = bench.command(value="50")
        await bench.dispatcher.submit(command)
        await quiet()
        (again,) = await bench.dispatcher.submit(command)
        assert again.state is SUCCEEDED
        assert len(bench.controller.sent) == 1


@virtual
async def test_two_deliveries_at_once_are_executed_once(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        command = bench.command()
        answers = await asyncio.gather(*(bench.dispatcher.submit(command) for _ in range(5)))
        await quiet()
        assert len(bench.controller.sent) == 1
        assert {a.state for (a,) in answers} <= {ACCEPTED, SENT, SUCCEEDED, REJECTED}


@pytest.mark.parametrize("changes", [{"value": 60}, {"setpoint": "running"}, {"value": "?"}])
@virtual
async def test_an_id_that_belongs_to_another_command_is_refused(tmp_path, changes):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        command = bench.command(value=50)
        await bench.dispatcher.submit(command)
        await quiet()
        (answer,) = await bench.dispatcher.submit(msgspec.structs.replace(command, **changes))
        assert answer.reason is Reason.DUPLICATE


@virtual
async def test_the_rate_per_device_holds(tmp_path):
    control = EVERYTHING.model_copy(update={"max_per_minute": 3})
    async with Bench(tmp_path, control, FakeClock()) as bench:
        bench.announce()
        answers = [await bench.dispatcher.submit(bench.command(value=value)) for value in range(4)]
        assert [a.state for (a,) in answers] == [ACCEPTED, ACCEPTED, ACCEPTED, REJECTED]
        await asyncio.sleep(61)
        (later,) = await bench.dispatcher.submit(bench.command())
        assert later.state is ACCEPTED


# the journal


@virtual
async def test_what_cannot_be_journaled_is_refused_and_not_sent(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()

        async def broken(*steps_):
            if steps_:
                raise JournalError("disk full")

        before_writing(bench.journal, broken)
        (answer,) = await bench.dispatcher.submit(bench.command())
        await quiet()
        assert answer.reason is Reason.NOT_STORED
        assert bench.controller.sent == []


@virtual
async def test_a_journal_that_cannot_be_read_refuses_too(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.journal.write(lambda db: db.execute("DROP TABLE audit"))
        (answer,) = await bench.dispatcher.submit(bench.command())
        assert answer.reason is Reason.NOT_STORED
        assert bench.controller.sent == []


@virtual
async def test_a_disk_that_comes_back_loses_no_step(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        failures = 5

        async def flaky(*steps_):
            nonlocal failures
            if steps_ and steps_[0].state is not ACCEPTED and failures:
                failures -= 1
                raise JournalError("disk full")

        before_writing(bench.journal, flaky)
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(30)
        assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]
        assert len(bench.controller.sent) == 1


async def after_restart(tmp_path, clock, prepare, *, away):
    """Run `prepare`, stop the gateway as it stands, start another on the same journal after `away` seconds."""
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        command = await prepare(bench)
        await quiet()
    await asyncio.sleep(away)
    return command, Bench(tmp_path, clock=clock)


@virtual
async def test_accepted_before_a_restart_is_sent_after_it(tmp_path):
    async def prepare(bench):
        bench.controller.answers = [NotSentError("away", 30)]
        command = bench.command(ttl=60)
        await bench.dispatcher.submit(command)
        return command

    command, reborn = await after_restart(tmp_path, FakeClock(), prepare, away=10)
    async with reborn, collected(reborn.router) as (events, _):
        reborn.announce()
        await quiet()
        assert steps(events, command) == [SENT, SUCCEEDED]
        assert [c.id for c in reborn.controller.sent] == [command.id]


@virtual
async def test_expired_during_a_restart_is_not_sent(tmp_path):
    async def prepare(bench):
        bench.controller.answers = [NotSentError("away", 30)]
        command = bench.command(ttl=60)
        await bench.dispatcher.submit(command)
        return command

    command, reborn = await after_restart(tmp_path, FakeClock(), prepare, away=61)
    async with reborn, collected(reborn.router) as (events, _):
        reborn.announce()
        await quiet()
        assert steps(events, command) == [EXPIRED]
        assert reborn.controller.sent == []


async def sent_without_result(bench):
    bench.controller.gate.clear()
    command = bench.command(ttl=60)
    await bench.dispatcher.submit(command)
    return command


@virtual
async def test_sent_before_a_restart_is_asked_about_and_not_sent_again(tmp_path):
    command, reborn = await after_restart(tmp_path, FakeClock(), sent_without_result, away=10)
    async with reborn, collected(reborn.router) as (events, _):
        await quiet()
        assert steps(events, command) == [SUCCEEDED]
        assert reborn.controller.sent == []


async def handed_over_without_answer(bench):
    async def never(*_):
        await asyncio.Event().wait()

    bench.controller.send = never
    command = bench.command(ttl=60)
    await bench.dispatcher.submit(command)
    return command


@virtual
async def test_of_which_nothing_is_known_after_a_restart_is_sent_again_once(tmp_path):
    command, reborn = await after_restart(tmp_path, FakeClock(), handed_over_without_answer, away=10)
    reborn.controller.outcomes = [Outcome(UNKNOWN, "never heard of it")]
    async with reborn, collected(reborn.router) as (events, _):
        await quiet()
        assert steps(events, command) == [SENT, SUCCEEDED]
        assert [c.id for c in reborn.controller.sent] == [command.id]


@virtual
async def test_of_which_nothing_is_known_after_its_expiry_is_unknown(tmp_path):
    command, reborn = await after_restart(tmp_path, FakeClock(), handed_over_without_answer, away=100)
    reborn.controller.outcomes = [Outcome(UNKNOWN, "never heard of it")]
    async with reborn, collected(reborn.router) as (events, _):
        await quiet()
        assert steps(events, command) == [SENT, UNKNOWN]
        assert reborn.controller.sent == []


@virtual
async def test_its_bridge_is_configured_no_more(tmp_path):
    command, reborn = await after_restart(tmp_path, FakeClock(), sent_without_result, away=1)
    reborn.dispatcher.use({})
    async with reborn, collected(reborn.router) as (events, _):
        await quiet()
        assert steps(events, command) == [UNKNOWN]


# dead-man's timers


@virtual
async def test_not_refreshed_it_reverts_to_the_neutral_value(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0))
        await asyncio.sleep(99)
        assert [c.value for c in bench.controller.sent] == [30.0]
        await asyncio.sleep(2)
        assert [c.value for c in bench.controller.sent] == [30.0, 100.0]
        await asyncio.sleep(1000)
        assert len(bench.controller.sent) == 2


@virtual
async def test_refreshed_it_does_not_revert(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        for _ in range(5):
            await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0, revert_value=80))
            await asyncio.sleep(90)
        assert {c.value for c in bench.controller.sent} == {30.0}
        await asyncio.sleep(20)
        assert bench.controller.sent[-1].value == 80.0


@virtual
async def test_a_command_without_a_timer_ends_the_timer_only_when_it_succeeds(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0))
        await asyncio.sleep(10)
        bench.controller.outcomes = [Outcome(FAILED, "did not obey")]
        await bench.dispatcher.submit(bench.command(value=40))
        await asyncio.sleep(100)
        assert [c.value for c in bench.controller.sent] == [30.0, 40.0, 100.0]
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0))
        await asyncio.sleep(10)
        await bench.dispatcher.submit(bench.command(value=40))
        await asyncio.sleep(1000)
        assert bench.controller.sent[-1].value == 40.0


@virtual
async def test_a_revert_that_fails_is_tried_until_it_succeeds(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0))
        await asyncio.sleep(50)
        bench.controller.outcomes = [Outcome(FAILED, "did not obey")] * 3
        await asyncio.sleep(1000)
        assert [c.value for c in bench.controller.sent] == [30.0, 100.0, 100.0, 100.0, 100.0]


@pytest.mark.parametrize("away", [10, 1000])
@virtual
async def test_a_timer_fires_also_across_a_restart(tmp_path, away):
    async def prepare(bench):
        command = bench.command(value=30, revert_after=100.0)
        await bench.dispatcher.submit(command)
        return command

    _, reborn = await after_restart(tmp_path, FakeClock(), prepare, away=away)
    async with reborn:
        reborn.announce()
        await asyncio.sleep(max(0.0, 99 - away) + 5)
        assert [c.value for c in reborn.controller.sent] == [100.0]


@virtual
async def test_a_revert_that_was_sent_before_a_restart_is_not_sent_once_more(tmp_path):
    async def prepare(bench):
        await bench.dispatcher.submit(bench.command(value=30, revert_after=10.0))
        await quiet()
        bench.controller.gate.clear()
        await asyncio.sleep(20)
        assert [c.value for c in bench.controller.sent] == [30.0, 100.0]
        return bench.controller.sent[-1]

    command, reborn = await after_restart(tmp_path, FakeClock(), prepare, away=10)
    async with reborn, collected(reborn.router) as (events, _):
        reborn.announce()
        await asyncio.sleep(500)
        assert steps(events, command) == [SUCCEEDED]
        assert reborn.controller.sent == []
        assert not await reborn.journal.reverts()


@virtual
async def test_a_timer_fires_in_time_although_its_command_has_no_result_yet(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.gate.clear()
        command = bench.command(value=30, revert_after=10.0)
        await bench.dispatcher.submit(command)
        await asyncio.sleep(9)
        assert [c.value for c in bench.controller.sent] == [30.0]
        await asyncio.sleep(2)
        assert [c.value for c in bench.controller.sent] == [30.0, 100.0]
        assert last(events, command).state is UNKNOWN
        bench.controller.gate.set()
        await quiet()
        assert await bench.journal.reverts() == []


@virtual
async def test_a_command_that_is_refused_after_it_left_gives_the_timer_before_back(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.controller.outcomes = [
            Outcome(CommandState.SUCCEEDED),
            Outcome(CommandState.FAILED, "not obeyed"),
            Outcome(CommandState.FAILED, "not obeyed"),
        ]
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0, revert_value=90))
        await quiet()
        await bench.dispatcher.submit(bench.command(value=40, revert_after=10.0, revert_value=80))
        await bench.dispatcher.submit(bench.command("running", value=False, revert_after=10.0))
        await quiet()
        (kept,) = await bench.journal.reverts()
        assert kept.value == 90.0
        assert 99 < (kept.due - bench.clock.now()).total_seconds() < 100
        await asyncio.sleep(50)
        assert [c.value for c in bench.controller.sent] == [30.0, 40.0, False]
        await asyncio.sleep(60)
        assert bench.controller.sent[-1].value == 90.0


@virtual
async def test_a_timer_waits_for_a_command_under_way_that_may_refresh_it(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=10.0))
        await quiet()
        bench.controller.gate.clear()
        await bench.dispatcher.submit(bench.command(value=20, revert_after=500.0))
        await asyncio.sleep(50)
        assert bench.controller.sent[-1].value == 20.0, "a command under way may refresh the timer"
        bench.controller.gate.set()
        await asyncio.sleep(300)
        assert bench.controller.sent[-1].value == 20.0
        await asyncio.sleep(300)
        assert bench.controller.sent[-1].value == 100.0
        assert events[-1].command.origin == "revert"


def seconds_taken(bridge, state):
    """How many commands have ended so, and in how many seconds altogether."""
    name, labels = "sems_gateway_command_seconds", {"bridge": bridge, "state": state}
    return [REGISTRY.get_sample_value(f"{name}_{part}", labels) or 0.0 for part in ("count", "sum")]


@virtual
async def test_it_is_measured_how_long_commands_take_from_acceptance_to_their_end(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        counts, sums = zip(seconds_taken("scripted", SUCCEEDED), seconds_taken("scripted", REJECTED), strict=True)
        bench.controller.gate.clear()
        first = bench.command()
        await bench.dispatcher.submit(first)
        await bench.dispatcher.submit(bench.command(value=1_000))
        await asyncio.sleep(7)
        bench.controller.gate.set()
        await quiet()
        assert last(events, first).state is SUCCEEDED
        count, seconds = seconds_taken("scripted", SUCCEEDED)
        assert (count - counts[0], seconds - sums[0]) == (1, pytest.approx(7, abs=0.1))
        assert seconds_taken("", REJECTED) == seconds_taken("scripted", REJECTED) == [0, 0]


@virtual
async def test_a_command_of_before_a_restart_is_measured_from_its_acceptance(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        bench.controller.gate.clear()
        await bench.dispatcher.submit(bench.command(ttl=600))
        await quiet()
    await asyncio.sleep(30)
    count, seconds = seconds_taken("scripted", SUCCEEDED)
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        await quiet()
        after = seconds_taken("scripted", SUCCEEDED)
        assert after == [count + 1, pytest.approx(seconds + 30, abs=1)]
