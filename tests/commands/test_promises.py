"""What is promised of the order of things: what is on the disk before what is told or done, and what waits for what."""

import asyncio
import shutil
import sqlite3
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import pytest

from gateway.commands.executor import RESULT_TIMEOUT
from gateway.core.controller import Outcome, ResultEffect
from gateway.core.errors import NotSentError
from gateway.core.model import CommandState, Reason
from gateway.journal.file import beside
from gateway.journal.journal import JournalError
from tests.commands.test_commands import ACCEPTED, EXPIRED, FAILED, SENT, SUCCEEDED, UNKNOWN, quiet, steps
from tests.kit.bench import Bench, ScriptedController, collected
from tests.kit.clock import FakeClock, virtual
from tests.kit.journal import before_writing, rows_of

DONE = Outcome(SUCCEEDED, "the device obeyed")
NOT_DONE = Outcome(FAILED, "the device did not obey")


def values(bench):
    return [command.value for command in bench.controller.sent]


class Disk:
    """A disk that does not get on with steps to `state` before it is let."""

    def __init__(self, journal, state):
        self.free = asyncio.Event()
        self.reached = asyncio.Event()
        self._state = state
        before_writing(journal, self._look)

    async def _look(self, *events):
        if any(event.state is self._state for event in events):
            self.reached.set()
            await self.free.wait()


@asynccontextmanager
async def under_way(tmp_path):
    """A gateway whose command was handed over, and of which no result has come."""
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.controller.gate.clear()
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        yield bench, command


@asynccontextmanager
async def crashed(bench, to):
    """Another gateway on what a crash of this one would leave now; not started yet."""
    to.mkdir()
    # With its log of changes, as a crash leaves it: without, its end would be missing.
    for suffix in ("", "-wal"):
        shutil.copyfile(beside(bench.journal.path, suffix), beside(to / "journal.sqlite", suffix))
    reborn = Bench(to, clock=bench.clock)
    await reborn.journal.open()
    try:
        yield reborn
    finally:
        await reborn.dispatcher.stop()
        await reborn.journal.close()
        shutil.rmtree(to)


# dead-man's timers


@virtual
async def test_an_unknown_end_does_not_postpone_a_timer_that_fires_earlier(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=300.0))
        await quiet()
        due = (await bench.journal.reverts())[0].due
        bench.controller.outcomes = [Outcome(UNKNOWN, "nobody knows")]
        await bench.dispatcher.submit(bench.command(value=40, revert_after=900.0))
        await quiet()
        assert [revert.due for revert in await bench.journal.reverts()] == [due]
        await asyncio.sleep(298)
        assert values(bench) == [30.0, 40.0]
        await asyncio.sleep(4)
        assert values(bench) == [30.0, 40.0, 100.0]


@virtual
async def test_an_unknown_end_brings_the_timer_forward_where_its_own_is_earlier(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=900.0))
        await quiet()
        bench.controller.outcomes = [Outcome(UNKNOWN, "nobody knows")]
        await bench.dispatcher.submit(bench.command(value=40, revert_after=300.0))
        await asyncio.sleep(298)
        assert values(bench) == [30.0, 40.0]
        await asyncio.sleep(4)
        assert values(bench) == [30.0, 40.0, 100.0]


@virtual
async def test_a_success_starts_the_timer_anew_also_later_than_the_one_that_ran(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=300.0))
        await asyncio.sleep(200)
        await bench.dispatcher.submit(bench.command(value=40, revert_after=300.0))
        await asyncio.sleep(298)
        assert values(bench) == [30.0, 40.0]
        await asyncio.sleep(4)
        assert values(bench) == [30.0, 40.0, 100.0]


@pytest.mark.parametrize("outcome", [NOT_DONE, Outcome(UNKNOWN, "nobody knows")])
@virtual
async def test_a_revert_that_did_not_succeed_is_tried_again_after_a_pause_and_not_much_later(tmp_path, outcome):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        times, send = [], bench.controller.send

        async def timed(command, *more):
            times.append(bench.clock.monotonic())
            return await send(command, *more)

        bench.controller.send = timed
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0))
        await asyncio.sleep(50)
        bench.controller.outcomes = [outcome] * 3
        await asyncio.sleep(1000)
        assert values(bench) == [30.0, *[100.0] * 4]
        first, *pauses = [after - before for before, after in pairwise(times)]
        assert first == pytest.approx(100, abs=1)
        assert all(30 <= pause <= 120 for pause in pauses), pauses


# what is told is on the disk before anybody hears that it was taken


@virtual
async def test_a_result_told_of_an_open_command_is_on_the_disk_before_it_counts_as_taken(tmp_path):
    async with Bench(tmp_path / "alive", clock=FakeClock()) as bench:
        bench.announce()
        bench.controller.gate.clear()
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert await bench.dispatcher.result_came(command.id, NOT_DONE) is ResultEffect.TAKEN
        async with crashed(bench, tmp_path / "dead") as reborn:
            reborn.controller.gate.clear()
            await reborn.dispatcher.start()
            await quiet()
            assert (await reborn.journal.last_event(command.id)).state is FAILED
            assert reborn.controller.sent == []


@virtual
async def test_a_result_does_not_count_as_taken_while_its_end_waits_for_the_disk(tmp_path):
    async with under_way(tmp_path) as (bench, command):
        disk = Disk(bench.journal, FAILED)
        telling = asyncio.create_task(bench.dispatcher.result_came(command.id, NOT_DONE))
        await disk.reached.wait()
        await asyncio.sleep(1)
        assert not telling.done()
        disk.free.set()
        assert await telling is ResultEffect.TAKEN
        assert (await bench.journal.last_event(command.id)).state is FAILED


@virtual
async def test_a_result_whose_end_can_not_be_written_is_refused_and_taken_once_it_can(tmp_path):
    async with under_way(tmp_path) as (bench, command):
        full = True

        async def look(*_):
            if full:
                raise JournalError("disk full")

        before_writing(bench.journal, look)
        with pytest.raises(JournalError):
            await bench.dispatcher.result_came(command.id, NOT_DONE)
        with pytest.raises(JournalError):
            await bench.dispatcher.result_came(command.id, NOT_DONE)
        full = False
        assert await bench.dispatcher.result_came(command.id, NOT_DONE) is ResultEffect.REPEATED
        async with crashed(bench, tmp_path / "dead") as reborn:
            await reborn.dispatcher.start()
            await quiet()
            assert (await reborn.journal.last_event(command.id)).state is FAILED


@pytest.mark.parametrize("cancelled", [False, True])
@virtual
async def test_a_result_told_while_the_gateway_stops_is_kept_for_the_next_start(tmp_path, cancelled):
    async with under_way(tmp_path) as (bench, command):
        telling = asyncio.create_task(bench.dispatcher.result_came(command.id, NOT_DONE))
        await asyncio.sleep(0)
        if cancelled:  # its bridge stops first
            telling.cancel()
        await bench.dispatcher.stop()
        assert cancelled or await telling is ResultEffect.TAKEN
        async with crashed(bench, tmp_path / "dead") as reborn:
            await reborn.dispatcher.start()
            await quiet()
            assert (await reborn.journal.last_event(command.id)).state is FAILED


@virtual
async def test_a_result_told_before_the_command_is_taken_up_is_kept_for_its_end(tmp_path):
    """Bridges hear results from their first moment on, which may be before the dispatcher has looked at the journal."""
    async with Bench(tmp_path / "alive", clock=FakeClock()) as bench:
        bench.announce()
        bench.controller.gate.clear()
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        async with crashed(bench, tmp_path / "dead") as reborn:
            reborn.controller.gate.clear()
            assert await reborn.dispatcher.result_came(command.id, NOT_DONE) is ResultEffect.TAKEN
            await reborn.dispatcher.start()
            await quiet()
            assert (await reborn.journal.last_event(command.id)).state is FAILED


@virtual
async def test_every_step_is_on_the_disk_before_it_is_told(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        for number, state in enumerate((ACCEPTED, SENT, SUCCEEDED)):
            disk = Disk(bench.journal, state)
            command = bench.command(value=10 + number)
            submitting = asyncio.create_task(bench.dispatcher.submit(command))
            await disk.reached.wait()
            await asyncio.sleep(1)
            assert state not in steps(events, command)
            assert bool(bench.controller.sent) == (state is not ACCEPTED)
            disk.free.set()
            await submitting
            await quiet()
            assert steps(events, command) == [ACCEPTED, SENT, SUCCEEDED]


@virtual
async def test_that_it_is_handed_over_is_on_the_disk_before_it_leaves(tmp_path):
    async with Bench(tmp_path / "alive", clock=FakeClock()) as bench:
        bench.announce()
        left = []

        async def look(command, *_):
            async with crashed(bench, tmp_path / "dead") as reborn:
                left.extend((o.command.id, o.controller) for o in await reborn.journal.open_commands())
            return ""

        bench.controller.send = look
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert left == [(command.id, "scripted")]


class ReceiptsFirst(ScriptedController):
    """Keeps its receipts before anything leaves, as the batch bridge does."""

    receipts_first = True

    def __init__(self, bench, look):
        super().__init__()
        self.bench, self.look = bench, look

    async def send(self, command, in_force, timeout):
        await self.bench.dispatcher.keep_receipt("request-1", command.id)
        await self.look(command)
        return await super().send(command, in_force, timeout) and "request-1"


@virtual
async def test_a_command_with_receipts_first_is_noted_with_its_receipt_before_it_leaves(tmp_path):
    async with Bench(tmp_path / "alive", clock=FakeClock()) as bench:
        bench.announce()
        left, commits = [], []

        async def look(command):
            async with crashed(bench, tmp_path / "dead") as reborn:
                left.extend((o.command.id, o.controller, o.receipt) for o in await reborn.journal.open_commands())

        bench.dispatcher.use({"scripted": ReceiptsFirst(bench, look)})
        commit = bench.journal._store.commit
        bench.journal._store.commit = lambda *args: (commits.append(args), commit(*args))[1]
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        assert left == [(command.id, "scripted", "request-1")]
        assert [e.state for e in await bench.journal.history(command.id)] == [ACCEPTED, SENT, SUCCEEDED]
        assert [written.life for written in await bench.journal.written()] == [1]
        assert len(commits) == 4, "accepted; handed over, with its receipt; sent; its end"


@virtual
async def test_what_waits_for_its_receipt_past_its_expiry_has_not_left_and_expires(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()

        async def for_ever(*_):
            await asyncio.Event().wait()

        controller = ReceiptsFirst(bench, for_ever)
        bench.dispatcher.keep_receipt = for_ever
        bench.dispatcher.use({"scripted": controller})
        command = bench.command(ttl=5.0)
        await bench.dispatcher.submit(command)
        await asyncio.sleep(10)
        assert steps(events, command) == [ACCEPTED, EXPIRED]
        assert await bench.journal.written() == []


# what the journal can't say


@virtual
async def test_a_known_id_does_not_count_as_new_while_the_journal_cannot_be_read(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        command = bench.command(value=30)
        await bench.dispatcher.submit(command)
        await quiet()
        reader, bench.journal._store._reader = bench.journal._store._reader, closed_connection(tmp_path)
        (answer,) = await bench.dispatcher.submit(command)
        await quiet()
        assert answer.reason is Reason.NOT_STORED
        assert values(bench) == [30.0]
        with pytest.raises(JournalError):
            await bench.dispatcher.result_came(command.id, DONE)
        bench.journal._store._reader = reader
        (answer,) = await bench.dispatcher.submit(command)
        assert answer.state is SUCCEEDED


def closed_connection(tmp_path):
    connection = sqlite3.connect(tmp_path / "other.sqlite", check_same_thread=False)
    connection.close()
    return connection


# after a restart, and late


@virtual
async def test_after_a_restart_what_the_far_side_gave_a_receipt_for_is_not_sent_again(tmp_path):
    async with Bench(tmp_path / "alive", clock=FakeClock()) as bench:
        bench.announce()
        bench.controller.gate.clear()
        command = bench.command(ttl=3600)
        await bench.dispatcher.submit(command)
        await quiet()
        async with crashed(bench, tmp_path / "dead") as reborn:
            reborn.controller.outcomes = [Outcome(UNKNOWN, "never heard of it")]
            await reborn.dispatcher.start()
            await quiet()
            assert reborn.controller.sent == []
            assert (await reborn.journal.last_event(command.id)).state is UNKNOWN


@virtual
async def test_a_command_does_not_leave_once_the_machine_slept_past_its_expiry(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.answers = [NotSentError("away")] * 2
        command = bench.command(ttl=60)
        await bench.dispatcher.submit(command)
        await quiet()
        bench.clock.sleep(7200)
        bench.clock.jump(-7200)  # only the boot clock says so
        await asyncio.sleep(10)
        assert steps(events, command) == [ACCEPTED, EXPIRED]
        assert bench.controller.sent == []


@virtual
async def test_what_was_measured_before_a_command_left_does_not_verify_it(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.publish(interval=600, active_power_limit=100.0)
        await asyncio.sleep(10)
        command = bench.command(value=30)
        await bench.dispatcher.submit(command)
        await asyncio.sleep(1)
        bench.publish(age=5, interval=600, active_power_limit=30.0)
        await asyncio.sleep(1)
        assert steps(events, command) == [ACCEPTED, SENT]
        bench.publish(interval=600, active_power_limit=30.0)
        await quiet()
        assert events[-1].state is SUCCEEDED
        assert events[-1].verified


@virtual
async def test_a_result_that_contradicts_the_end_stands_in_the_audit(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        command = bench.command(value=30)
        await bench.dispatcher.submit(command)
        await quiet()
        assert await bench.dispatcher.result_came(command.id, NOT_DONE) is ResultEffect.CONTRADICTED
        noted = [row for row in await rows_of(bench.journal) if row.state == "contradicted"]
        assert [(row.id, row.serial, row.plain_value) for row in noted] == [(command.id, command.serial, 30.0)]
        assert "did not obey" in noted[0].detail


# what waits for what


@virtual
async def test_a_stop_waits_for_the_steps_that_are_on_their_way_to_the_disk(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        disk = Disk(bench.journal, ACCEPTED)
        command = bench.command()
        submitting = asyncio.create_task(bench.dispatcher.submit(command))
        await disk.reached.wait()
        stopping = asyncio.create_task(bench.dispatcher.stop())
        await asyncio.sleep(2)
        assert not stopping.done()
        disk.free.set()
        await stopping
        assert [event.state for event in await bench.journal.history(command.id)] == [ACCEPTED]
        await submitting


@virtual
async def test_the_next_command_leaves_only_once_the_end_of_the_one_before_is_on_the_disk(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.publish(interval=600, active_power_limit=100.0)
        await asyncio.sleep(1)
        first, second = bench.command(value=30), bench.command(value=40)
        await bench.dispatcher.submit(first)
        await asyncio.sleep(1)
        assert steps(events, first) == [ACCEPTED, SENT], "its read-back is waited for"
        disk = Disk(bench.journal, SUCCEEDED)
        await bench.dispatcher.submit(second)
        await disk.reached.wait()
        await asyncio.sleep(5)
        assert values(bench) == [30.0]
        disk.free.set()
        await asyncio.sleep(1)
        assert values(bench) == [30.0, 40.0]
        assert steps(events, first) == [ACCEPTED, SENT, SUCCEEDED]


@virtual
async def test_of_a_command_without_an_answer_the_end_comes_after_the_time_for_results_and_not_before(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.gate.clear()
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(RESULT_TIMEOUT - 1)
        assert steps(events, command) == [ACCEPTED, SENT]
        await asyncio.sleep(2)
        assert steps(events, command) == [ACCEPTED, SENT, UNKNOWN]


class Stumbling(ScriptedController):
    """Has commands take turns, and fails when the first of them has ended."""

    def __init__(self):
        super().__init__()
        self.failures = 1

    def turn(self, command):
        turn = asyncio.get_running_loop().create_future()
        turn.set_result(None)
        return turn

    def leave(self, command):
        if self.failures:
            self.failures -= 1
            raise AttributeError("'Handle' object has no attribute 'when'")


@virtual
async def test_a_worker_that_fails_keeps_nobody_waiting_behind_a_command_that_has_ended(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        controller = Stumbling()
        bench.dispatcher.use({"stumbling": controller})
        bench.announce()
        first, second = bench.command(value=30), bench.command(value=40, ttl=8.0)
        await bench.dispatcher.submit(first)
        await bench.dispatcher.submit(second)
        await asyncio.sleep(5)
        assert {e.command.id: e.state for e in events}[second.id] is CommandState.SUCCEEDED
        assert [c.value for c in controller.sent][-1] == 40.0


@virtual
@pytest.mark.parametrize("together", [False, True])
async def test_a_call_that_hangs_does_not_hold_a_dead_mans_timer_up(tmp_path, together):
    class Hanging(ScriptedController):
        async def send(self, command, in_force, timeout):
            receipt = await super().send(command, in_force, timeout)
            if not command.is_revert:
                await asyncio.sleep(timeout)
            return receipt

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.controller = Hanging()
        bench.controller.gate.clear()
        bench.dispatcher.use({"scripted": bench.controller})
        commands = [bench.command(value=11.0, revert_after=5.0, revert_value=92.0)]
        if together:
            mode = bench.command(setpoint="battery_mode", value="charge")
            commands = [mode, bench.command(setpoint="battery_power_target", value=900.0, revert_after=5.0)]
        begun = bench.clock.now()
        await bench.dispatcher.submit(*commands)
        await asyncio.sleep(4.9)
        assert [command.id for command in bench.controller.sent] == [commands[0].id]
        assert bench.dispatcher.may_leave(commands[0].id)
        await asyncio.sleep(0.2)
        assert not bench.dispatcher.may_leave(commands[0].id), "e.g. with others that wait for a call"
        assert bench.controller.sent[-1].is_revert
        assert (bench.controller.sent[-1].created - begun).total_seconds() == pytest.approx(5.0, abs=0.05)
        await quiet()
        for command in commands:
            assert (await bench.journal.last_event(command.id)).state is UNKNOWN


# when it left


class Slow(ScriptedController):
    """Waits for its turn, is asked whether it may leave, and takes long over the call."""

    def __init__(self, bench, turn=0.0, call=20.0, asks=True):
        super().__init__()
        self.bench, self.turn, self.call, self.asks = bench, turn, call, asks
        self.left = {}
        """Value → when the call left."""

    async def send(self, command, in_force, timeout):
        await asyncio.sleep(self.turn)
        if self.asks:
            assert self.bench.dispatcher.may_leave(command.id)
        self.left[command.value] = self.bench.clock.now()
        await asyncio.sleep(self.call)
        return await super().send(command, in_force, timeout)


async def times(bench, command):
    """State → the time of that step, in the journal."""
    return {event.state: event.time for event in await bench.journal.history(command.id)}


@virtual
@pytest.mark.parametrize(("turn", "asks"), [(0.0, True), (7.0, True), (0.0, False)])
async def test_sent_has_the_time_at_which_the_call_left_not_that_of_its_answer(tmp_path, turn, asks):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        controller = Slow(bench, turn, asks=asks)
        bench.dispatcher.use({"scripted": controller})
        mode, power = bench.command("battery_mode", "charge"), bench.command("battery_power_target", 900.0)
        limit = bench.command()
        await bench.dispatcher.submit(mode, power)
        await bench.dispatcher.submit(limit)
        await asyncio.sleep(50)
        for command, value in ((mode, "charge"), (power, "charge"), (limit, 50)):
            found = await times(bench, command)
            assert found[SENT] == controller.left[value]
            assert found[ACCEPTED] <= found[SENT] <= found[SUCCEEDED] - timedelta(seconds=20)
            assert found == {event.state: event.time for event in events if event.command.id == command.id}


@virtual
async def test_of_a_command_that_is_sent_by_another_bridge_sent_has_the_time_of_that_one(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()

        class Away(Slow):
            async def send(self, command, in_force, timeout):
                await super().send(command, in_force, timeout)
                raise NotSentError("it never left")

        other = Slow(bench, asks=False)
        bench.dispatcher.use({"away": Away(bench), "other": other})
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(50)
        assert (await times(bench, command))[SENT] == other.left[50]


@virtual
async def test_asking_whether_what_waits_is_still_wanted_is_no_leaving(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()

        class Queued(Slow):
            async def send(self, command, in_force, timeout):
                sending = asyncio.create_task(super().send(command, in_force, timeout))
                while not sending.done():
                    await asyncio.wait([sending], timeout=1.0)
                    assert self.bench.dispatcher.still_wanted(command.id)
                return await sending

        controller = Queued(bench, turn=3.0)
        bench.dispatcher.use({"scripted": controller})
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(50)
        assert (await times(bench, command))[SENT] == controller.left[50]
        assert not bench.dispatcher.still_wanted(command.id)
        assert not bench.dispatcher.still_wanted("nobody's")


@virtual
@pytest.mark.parametrize("ttl", [2.0, 5.0])
async def test_where_one_of_several_may_not_leave_none_has_left_then(tmp_path, ttl):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()

        class Gathered(Slow):
            async def send(self, command, in_force, timeout):
                await asyncio.sleep(5.5)  # the other one's time is over: it has ended, or is about to
                assert not bench.dispatcher.may_leave(command.id, other.id)
                return await super().send(command, in_force, timeout)

        bench.dispatcher.use({"scripted": Gathered(bench, asks=False)})
        command, other = bench.command(), bench.command("running", value=True, ttl=ttl)
        handed = bench.clock.now()
        await bench.dispatcher.submit(command)
        await bench.dispatcher.submit(other)
        await asyncio.sleep(50)
        assert (await times(bench, command))[SENT] - handed < timedelta(seconds=1)


@virtual
async def test_a_result_that_comes_before_the_answer_does_not_change_when_it_left(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        controller = Slow(bench, turn=2.0)
        bench.dispatcher.use({"scripted": controller})
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(10)
        assert await bench.dispatcher.result_came(command.id, DONE) is ResultEffect.TAKEN
        await asyncio.sleep(50)
        assert [e.state for e in await bench.journal.history(command.id)] == [ACCEPTED, SENT, SUCCEEDED]
        assert (await times(bench, command))[SENT] == controller.left[50]


@virtual
async def test_what_was_measured_while_a_command_waited_for_its_call_does_not_verify_it(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.publish(interval=600, active_power_limit=100.0)
        bench.dispatcher.use({"scripted": Slow(bench, turn=10.0, call=1.0)})
        command = bench.command(value=30)
        await bench.dispatcher.submit(command)
        await asyncio.sleep(5)
        bench.publish(interval=600, active_power_limit=30.0)
        await asyncio.sleep(10)
        assert steps(events, command) == [ACCEPTED, SENT]
        bench.publish(interval=600, active_power_limit=30.0)
        await quiet()
        assert events[-1].verified


@virtual
@pytest.mark.parametrize(("jump", "apart"), [(-3600, 20), (3600, 3620)])
async def test_a_clock_that_is_set_during_a_call_puts_no_step_before_the_one_it_follows(tmp_path, jump, apart):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        bench.dispatcher.use({"scripted": Slow(bench)})
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(5)
        bench.clock.jump(jump)
        await asyncio.sleep(50)
        found = await times(bench, command)
        assert (found[SUCCEEDED] - found[SENT]).total_seconds() == pytest.approx(apart, abs=0.5)
        if jump > 0:
            assert found[ACCEPTED] <= found[SENT]
