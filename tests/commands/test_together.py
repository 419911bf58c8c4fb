"""Requests that come in one turn of the loop are looked up and accepted together, and each by itself all the same."""

import asyncio

import msgspec

from gateway.core.model import CommandState, Reason
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual

ACCEPTED, REJECTED = CommandState.ACCEPTED, CommandState.REJECTED


def devices(bench, count):
    return [bench.announce(serial=f"9010KETU{number:04}").serial for number in range(count)]


async def submitted(bench, commands):
    answers = await asyncio.gather(*map(bench.dispatcher.submit, commands), return_exceptions=True)
    return [answer if isinstance(answer, Exception) else answer[0] for answer in answers]


@virtual
async def test_what_comes_together_is_looked_up_once_and_is_one_commit(tmp_path, monkeypatch):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.controller.gate.clear()
        posted, looked_up = [], []
        post, look_up = bench.journal.post, bench.journal.last_events
        monkeypatch.setattr(bench.journal, "post", lambda *e, **more: posted.append(len(e)) or post(*e, **more))
        monkeypatch.setattr(bench.journal, "last_events", lambda ids: looked_up.append(len(ids)) or look_up(ids))
        commands = [bench.command(serial=serial) for serial in devices(bench, 100)]
        assert {event.state for event in await submitted(bench, commands)} == {ACCEPTED}
        assert posted[0] == 100
        assert looked_up == [100]


@virtual
async def test_each_is_answered_for_itself_and_in_order(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        first, second = devices(bench, 2)
        good, bad, last = bench.command(serial=first), bench.command(serial="X"), bench.command(serial=second, value=30)
        answers = await submitted(bench, [good, bad, last])
        assert [(a.command.id, a.state, a.reason) for a in answers] == [
            (good.id, ACCEPTED, None),
            (bad.id, REJECTED, Reason.UNKNOWN_DEVICE),
            (last.id, ACCEPTED, None),
        ]


@virtual
async def test_an_id_that_comes_twice_at_once_is_accepted_once(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        first, second = devices(bench, 2)
        command = bench.command(serial=first)
        answers = await submitted(bench, [command, msgspec.structs.replace(command, serial=second)])
        assert [(a.state, a.reason) for a in answers] == [(ACCEPTED, None), (REJECTED, Reason.DUPLICATE)]
        await asyncio.sleep(0.001)
        assert [sent.serial for sent in bench.controller.sent] == [first]


@virtual
async def test_one_that_cannot_be_written_takes_no_other_along(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        first, second = devices(bench, 2)
        good, bad = bench.command(serial=first), bench.command(serial=second, origin="\ud800")
        answers = await submitted(bench, [good, bad])
        assert [(a.state, a.reason) for a in answers] == [(ACCEPTED, None), (REJECTED, Reason.NOT_STORED)]
        assert not bench.dispatcher.promised(second)


@virtual
async def test_a_mistake_in_judging_one_reaches_who_asked_for_it_alone(tmp_path, monkeypatch):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        first, second = devices(bench, 2)
        judge = bench.policy.judge

        def mistaken(command, *more):
            if command.serial == second:
                raise ZeroDivisionError
            return judge(command, *more)

        monkeypatch.setattr(bench.policy, "judge", mistaken)
        good, bad = await submitted(bench, [bench.command(serial=first), bench.command(serial=second)])
        assert good.state is ACCEPTED
        assert isinstance(bad, ZeroDivisionError)


@virtual
async def test_who_is_cancelled_takes_nothing_back(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.controller.gate.clear()
        commands = [bench.command(serial=serial) for serial in devices(bench, 3)]
        tasks = [asyncio.ensure_future(bench.dispatcher.submit(command)) for command in commands]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert [(await bench.journal.last_event(command.id)) is not None for command in commands] == [True] * 3
        assert tasks[2].result()[0].state is ACCEPTED
