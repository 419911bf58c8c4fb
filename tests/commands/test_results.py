"""What far sides tell by themselves: in time, late, twice, contradictory, of commands nobody knows; and cancelling."""

import asyncio

import pytest

from gateway.commands.executor import RESULT_TIMEOUT
from gateway.commands.state_machine import LIFE, IllegalStepError, Trigger, judge_result, next_state
from gateway.core.controller import Outcome, ResultEffect
from gateway.core.errors import NotSentError, UnsureError
from gateway.core.model import CommandState, Reason
from tests.commands.test_commands import (
    ACCEPTED,
    EXPIRED,
    FAILED,
    SENT,
    SUCCEEDED,
    SUPERSEDED,
    UNKNOWN,
    last,
    quiet,
    steps,
)
from tests.kit.bench import INVERTER, Bench, ScriptedController, collected
from tests.kit.clock import FakeClock, virtual

DONE = Outcome(SUCCEEDED, "the device obeyed")
NOT_DONE = Outcome(FAILED, "the device did not")


async def under_way(bench, **changes):
    """A command that was sent and whose result only comes by being told."""
    bench.announce()
    bench.controller.gate.clear()
    command = bench.command(**changes)
    await bench.dispatcher.submit(command)
    await quiet()
    return command


async def unknown(bench, **changes):
    command = await under_way(bench, **changes)
    await asyncio.sleep(RESULT_TIMEOUT + 1)
    return command


class Pushing(ScriptedController):
    pushed_within = 30.0

    def __init__(self):
        super().__init__()
        self.asked = []

    async def result(self, command, receipt):
        self.asked.append(command)
        return await super().result(command, receipt)


@virtual
async def test_whose_results_come_by_themselves_is_asked_only_after_long_silence(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        controller = Pushing()
        bench.dispatcher.use({"scripted": controller})
        told = await under_way(bench)
        assert await bench.dispatcher.result_came(told.id, DONE) is ResultEffect.TAKEN
        await quiet()
        assert steps(events, told) == [ACCEPTED, SENT, SUCCEEDED]
        silent = await under_way(bench, value=51)
        await asyncio.sleep(Pushing.pushed_within - 1)
        assert controller.asked == []
        await asyncio.sleep(2)
        assert controller.asked == [silent]
        controller.gate.set()
        await quiet()
        assert last(events, silent).detail == "confirmed"


@virtual
async def test_a_dead_mans_timer_waits_for_no_result_that_is_to_come_by_itself(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        controller = Pushing()
        bench.dispatcher.use({"scripted": controller})
        command = await under_way(bench, revert_after=10.0, revert_value=100)
        await asyncio.sleep(11)
        assert steps(events, command) == [ACCEPTED, SENT, UNKNOWN]
        assert controller.asked == []
        assert controller.sent[-1].is_revert


@virtual
async def test_a_result_told_ends_the_waiting_at_once_and_is_journaled(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        command = await under_way(bench)
        assert await bench.dispatcher.result_came(command.id, DONE) is ResultEffect.TAKEN
        await quiet()
        assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]
        assert last(events, command).detail == "the device obeyed"
        written = await bench.journal.history(command.id)
        assert [(event.state, event.detail) for event in written][-1] == (SUCCEEDED, "the device obeyed")
        assert await bench.journal.open_commands() == []


@virtual
async def test_a_result_told_before_the_call_has_returned_counts(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()

        async def hang(*_):
            await asyncio.Event().wait()

        bench.controller.send = hang
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert await bench.dispatcher.result_came(command.id, NOT_DONE) is ResultEffect.TAKEN
        await quiet()
        assert steps(events, command) == [ACCEPTED, SENT, FAILED]


@virtual
async def test_a_result_told_of_one_that_still_waits_keeps_it_from_being_sent(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [NotSentError("away", 50)]
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert await bench.dispatcher.result_came(command.id, DONE) is ResultEffect.TAKEN
        await asyncio.sleep(100)
        assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]
        assert bench.controller.sent == []


@pytest.mark.parametrize("outcome", [DONE, NOT_DONE])
@virtual
async def test_a_late_result_is_published_once_beside_the_unknown_end(tmp_path, outcome):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        command = await unknown(bench)
        verdicts = await asyncio.gather(*(bench.dispatcher.result_came(command.id, outcome) for _ in range(3)))
        await quiet()
        assert sorted(verdicts) == [ResultEffect.CORRECTED, ResultEffect.REPEATED, ResultEffect.REPEATED]
        assert steps(events, command) == [ACCEPTED, SENT, UNKNOWN, outcome.state]
        assert last(events, command).correction
        assert [e.correction for e in await bench.journal.history(command.id)] == [False, False, False, True]
        other = NOT_DONE if outcome is DONE else DONE
        assert await bench.dispatcher.result_came(command.id, other) is ResultEffect.CONTRADICTED


@virtual
async def test_a_late_success_is_in_force_and_takes_the_older_timer_away(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=1000.0))
        await quiet()
        command = await unknown(bench, value=40)
        assert len(await bench.journal.reverts()) == 1
        await bench.dispatcher.result_came(command.id, DONE)
        assert bench.router.state(INVERTER.serial).values["active_power_limit"] == 40.0
        assert await bench.journal.reverts() == []


@virtual
async def test_an_unknown_keeps_its_timer_armed_whatever_is_told_later(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        command = await unknown(bench, value=40, revert_after=300.0)
        assert await bench.dispatcher.result_came(command.id, DONE) is ResultEffect.CORRECTED
        bench.controller.gate.set()
        await asyncio.sleep(200)
        assert [c.value for c in bench.controller.sent] == [40.0, 100.0]


@virtual
async def test_a_late_success_of_an_older_command_changes_nothing_of_a_newer_one(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        old = await unknown(bench, value=40)
        bench.controller.gate.set()
        await bench.dispatcher.submit(bench.command(value=60, revert_after=1000.0))
        await quiet()
        assert await bench.dispatcher.result_came(old.id, DONE) is ResultEffect.CORRECTED
        assert bench.router.state(INVERTER.serial).values["active_power_limit"] == 60.0
        assert len(await bench.journal.reverts()) == 1


@virtual
async def test_repeated_contradicting_and_unmatched_results_change_nothing(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert await bench.dispatcher.result_came(command.id, DONE) is ResultEffect.REPEATED
        assert await bench.dispatcher.result_came(command.id, NOT_DONE) is ResultEffect.CONTRADICTED
        assert await bench.dispatcher.result_came("nobody's", DONE) is ResultEffect.UNMATCHED
        await quiet()
        assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]
        assert (await bench.journal.last_event(command.id)).state is SUCCEEDED


@virtual
async def test_results_while_a_read_back_is_waited_for(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.publish(interval=600, active_power_limit=100.0)
        await asyncio.sleep(1)
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert await bench.dispatcher.result_came(command.id, NOT_DONE) is ResultEffect.CONTRADICTED
        assert await bench.dispatcher.result_came(command.id, DONE) is ResultEffect.REPEATED
        assert steps(events, command)[-1] is SENT
        await bench.dispatcher.result_came(command.id, Outcome(SUCCEEDED, "read back there", verified=True))
        await quiet()
        assert last(events, command).verified


@virtual
async def test_a_receipt_finds_its_command_also_after_its_end(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        command = await under_way(bench)
        await bench.dispatcher.keep_receipt("request-1", command.id)
        await bench.dispatcher.result_came(command.id, DONE)
        await quiet()
        found = await bench.dispatcher.commands_by_receipt(["request-1", "another"])
        assert found == {"request-1": [(command.id, INVERTER.serial)]}


# cancelling


@virtual
async def test_what_has_not_left_is_cancelled_and_nothing_else(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        away = await under_way(bench, value=10)
        waiting = [bench.command(value=20), bench.command("running", value=False)]
        bench.controller.answers = [NotSentError("away", 50)]
        for command in waiting:
            await bench.dispatcher.submit(command)
        await quiet()
        ids = [away.id, *(command.id for command in waiting), waiting[0].id, "nobody's"]
        assert await bench.dispatcher.cancel(ids, by="cli:me") == 2
        bench.controller.gate.set()
        await asyncio.sleep(100)
        assert [steps(events, c)[-1] for c in (away, *waiting)] == [SUCCEEDED, EXPIRED, EXPIRED]
        assert last(events, waiting[0]).detail == "cancelled by cli:me"
        assert [c.value for c in bench.controller.sent] == [10.0]


@virtual
async def test_one_cancelled_supersedes_nothing(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        await under_way(bench, value=10)
        second, third = bench.command(value=20), bench.command(value=30)
        await bench.dispatcher.submit(second)
        await bench.dispatcher.submit(third)
        await bench.dispatcher.cancel([third.id], by="me")
        bench.controller.gate.set()
        await quiet()
        assert SUPERSEDED not in steps(events, second)
        assert [c.value for c in bench.controller.sent] == [10.0, 20.0]


# never both controllers


@virtual
async def test_what_may_have_left_before_a_restart_is_sent_by_no_other_bridge(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()

        async def never(*_):
            await asyncio.Event().wait()

        bench.controller.send = never
        command = bench.command(ttl=60)
        await bench.dispatcher.submit(command)
        await quiet()
    reborn, second = Bench(tmp_path, clock=clock), ScriptedController()
    reborn.controller.outcomes = [Outcome(UNKNOWN, "never heard of it")]
    reborn.controller.answers = [NotSentError("away")] * 100
    reborn.dispatcher.use({"scripted": reborn.controller, "second": second})
    async with reborn, collected(reborn.router) as (events, _):
        await asyncio.sleep(100)
        assert second.sent == []
        assert steps(events, command) == [SENT, UNKNOWN]


@virtual
async def test_what_certainly_never_left_may_be_sent_by_another(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()

        async def never(*_):
            await asyncio.Event().wait()

        bench.controller.send = never
        command = bench.command(ttl=60)
        await bench.dispatcher.submit(command)
        await quiet()
    reborn, second = Bench(tmp_path, clock=clock), ScriptedController()
    reborn.controller.outcomes = [Outcome(ACCEPTED, "it never left")]
    reborn.controller.answers = [NotSentError("away")] * 100
    reborn.dispatcher.use({"scripted": reborn.controller, "second": second})
    async with reborn, collected(reborn.router) as (events, _):
        await quiet()
        assert [c.id for c in second.sent] == [command.id]
        assert steps(events, command) == [SENT, SUCCEEDED]


@virtual
async def test_without_a_certain_answer_no_other_bridge_sends_it(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        second = ScriptedController()
        bench.dispatcher.use({"scripted": bench.controller, "second": second})
        bench.controller.answers = [UnsureError("no answer")]
        bench.controller.outcomes = [Outcome(UNKNOWN, "nobody knows")]
        await bench.dispatcher.submit(bench.command())
        await asyncio.sleep(200)
        assert second.sent == []


# policy, once more before it leaves


@virtual
async def test_what_waits_when_control_is_halted_is_not_sent_and_reverts_are(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=50.0))
        await quiet()
        bench.controller.answers = [NotSentError("away", 5)]
        waiting = bench.command("running", value=False)
        await bench.dispatcher.submit(waiting)
        await quiet()
        await bench.policy.halting.halt("test", "smoke")
        await asyncio.sleep(60)
        assert steps(events, waiting) == [ACCEPTED, EXPIRED]
        assert "halted by test" in last(events, waiting).detail
        assert [c.value for c in bench.controller.sent] == [30.0, 100.0]


# whoever is cancelled


@virtual
async def test_a_command_is_not_forgotten_when_its_bridge_is_stopped_while_it_is_accepted(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        command = bench.command()
        submitting = asyncio.create_task(bench.dispatcher.submit(command))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)
        await asyncio.sleep(1)
        assert steps(events, command) in ([], [ACCEPTED, SENT, SUCCEEDED])
        (answer,) = await bench.dispatcher.submit(command)
        assert answer.state in (ACCEPTED, SUCCEEDED)


@virtual
async def test_one_id_twice_in_a_request_is_refused(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        command = bench.command()
        answers = await bench.dispatcher.submit(command, command)
        assert [a.reason for a in answers] == [Reason.DUPLICATE, Reason.DUPLICATE]


@virtual
async def test_what_is_accepted_after_the_dispatcher_has_stopped_goes_on_at_the_next_start(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        await bench.dispatcher.stop()
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert bench.controller.sent == []
    async with Bench(tmp_path, clock=clock) as bench:
        await quiet()
        assert [c.id for c in bench.controller.sent] == [command.id]


# the table


def test_no_state_can_be_left_once_it_is_final_and_every_other_can():
    for state in CommandState:
        assert any(before is state for before, _ in LIFE) == (not state.final)


def test_every_state_can_be_reached():
    assert set(LIFE.values()) == set(CommandState)


def test_what_the_table_does_not_have_never_happens():
    with pytest.raises(IllegalStepError, match="succeeded can't be left"):
        next_state(SUCCEEDED, Trigger.LEFT)


@pytest.mark.parametrize(
    ("standing", "told", "verdict"),
    [
        (SENT, SUCCEEDED, ResultEffect.TAKEN),
        (UNKNOWN, FAILED, ResultEffect.CORRECTED),
        (UNKNOWN, UNKNOWN, ResultEffect.REPEATED),
        (FAILED, UNKNOWN, ResultEffect.REPEATED),
        (EXPIRED, SUCCEEDED, ResultEffect.CONTRADICTED),
    ],
)
def test_what_a_result_changes(standing, told, verdict):
    assert judge_result(standing, told) is verdict
