"""What comes back: late, twice, in parts, against what was said before, and things that are no results at all."""

import asyncio
import json
from contextlib import suppress

import pytest

from gateway.bridges.batch import results as results_module
from gateway.core.model import CommandState
from gateway.journal.journal import JournalError
from gateway.simulator.results import Mishap
from tests.bridges.batch.kit import HOUSE, ROOF, Plant, plant, result
from tests.kit.bench import until

DONE, REFUSED = "00000", "R0305"


async def test_a_late_result_corrects_an_unknown_end(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        it.join(result_within=0.2)
        await it.up()
        command = it.command(serial=HOUSE, value=33)
        end = await it.done(command)
        assert end.state is CommandState.UNKNOWN
        [sent] = await it.commands(1)
        await it.answer(result(sent["requestId"], (HOUSE, DONE)))
        late = await until(lambda: next((e for e in it.steps(command) if e.correction), None))
        assert (late.state, late.detail) == (CommandState.SUCCEEDED, "said")
        await it.answer(result(sent["requestId"], (HOUSE, DONE)))
        await it.counted({"late": 1, "double": 1})
        assert [e.state for e in it.steps(command)].count(CommandState.SUCCEEDED) == 1


async def test_results_come_twice_in_parts_against_each_other_and_of_nobody(cluster, tmp_path):
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        it.announce(it.router.state(HOUSE).device, serial="A")
        it.join(whitelist=["A", HOUSE, ROOF], linger_ms=200)
        await it.up()
        first, second = await it.send(it.command(serial="A"), it.command(serial=HOUSE))
        sent = await it.commands(1)
        while len({item["sn"] for body in sent for item in body["items"]}) < 2:
            sent = await it.commands(len(sent) + 1)
        request = {item["sn"]: body["requestId"] for body in sent for item in body["items"]}
        await it.answer(
            result(request["A"], ("A", DONE)),
            result(request["A"], ("A", REFUSED)),
            result(request[HOUSE], (HOUSE, REFUSED), (HOUSE, REFUSED)),
            result("nobody asked", ("A", DONE)),
            result(request["A"], (ROOF, DONE)),
        )
        ends = await it.ended(first, second)
        assert [e.state for e in ends] == [CommandState.SUCCEEDED, CommandState.FAILED]
        wanted = {"taken": 2, "contradictory": 1, "double": 1, "unmatched": 2}
        split = {"split": 1} if request["A"] == request[HOUSE] else {}
        await it.counted(wanted | split)
        assert sum(e.state.final for e in it.events) == 2


@pytest.mark.parametrize("mishap", [mishap for mishap in Mishap if mishap is not Mishap.LARGE])
async def test_whatever_goes_wrong_on_the_way_back_each_command_ends_once(cluster, tmp_path, mishap):
    async with plant(tmp_path / "data", cluster) as it:
        unheard = mishap in (Mishap.LATE, Mishap.MISSING)
        it.join(result_within=0.4 if unheard else 20, linger_ms=100)
        await it.up()
        it.spoil(mishap, delay=0.9 if mishap is Mishap.LATE else 0, times=2)
        commands = [it.command(serial=HOUSE, value=1), it.command(serial=ROOF, value=2)]
        ends = await it.done(*commands)
        ended = CommandState.UNKNOWN if unheard else CommandState.SUCCEEDED
        assert [e.state for e in ends] == [ended] * 2
        it.goodwe.batch.faults.listed = ()
        end = await it.done(it.command(serial=HOUSE, value=3))
        assert unheard or end.state is CommandState.SUCCEEDED
        figures = it.figures()
        expected = {
            Mishap.LATE: lambda: figures.results["late"] >= 2,
            Mishap.MISSING: lambda: figures.results["taken"] <= 1,
            Mishap.DOUBLE: lambda: figures.results["double"] == 2,
            Mishap.SPLIT: lambda: figures.results["taken"] == 3,
            Mishap.CONTRADICTORY: lambda: figures.results["contradictory"] == 2,
            Mishap.NOT_JSON: lambda: (
                figures.bad["not_json"] == figures.bad["no_results"] / 2 == len(it.goodwe.batch.messages) - 1
            ),
            Mishap.STRANGE: lambda: figures.bad.keys() == {"no_device"} and figures.results["unmatched"],
        }
        with suppress(TimeoutError):
            await until(expected[mishap])
        assert expected[mishap](), (figures.results, figures.bad)


async def test_a_result_is_understood_however_it_is_written(cluster, tmp_path):
    forms = [
        lambda request, sn: {"requestId": request, "timestamp": 0, "sn": sn, "code": "00000"},
        lambda request, sn: {"requestId": request, "sn": sn, "code": 0, "msg": None},
        lambda request, sn: [{"requestId": request, "sn": sn, "code": "0"}],
        lambda request, sn: {"requestId": request, "code": 0, "results": [{"sn": sn}]},
        lambda request, sn: {"data": {"requestId": request, "results": [{"sn": sn, "code": "00000"}]}},
        lambda request, sn: result(request.upper(), (f" {sn.lower()} ", "00000")),
        lambda request, sn: b"\xef\xbb\xbf" + json.dumps(result(request, (sn, 0))).encode(),
    ]
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        it.join()
        await it.up()
        for number, form in enumerate(forms):
            [command] = await it.send(it.command(value=number, serial=HOUSE))
            sent = (await it.commands(number + 1))[-1]
            assert len({number, *(body["items"][0]["data"]["ActivePowerLimit"] for body in [sent])}) == 1
            await it.answer(form(sent["requestId"], HOUSE))
            end = (await it.ended(command))[0]
            assert end.state is CommandState.SUCCEEDED, (number, end.detail)
        assert not it.figures().bad
        await it.counted({"taken": len(forms)})


async def test_what_is_no_result_is_counted_logged_once_and_skipped(cluster, tmp_path, capsys):
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        large = b'{"requestId": "' + b"x" * (2 * 1024 * 1024) + b'"}'
        it.join()
        await it.up()
        [command] = await it.send(it.command(serial=HOUSE))
        [sent] = await it.commands(1)
        rubbish = [b"\xff", b"{", b"[" * 100_000, b"[]", b"12", b'{"results": 5}', b'{"results": [1, {}, null]}']
        await it.answer(*rubbish, *rubbish)
        if cluster.takes_large:
            await it.answer(large)
            await until(lambda: it.figures().bad["oversize"] == 1)
        await it.answer(result(sent["requestId"], (HOUSE, DONE), mood="fine"))
        assert (await it.ended(command))[0].state is CommandState.SUCCEEDED
        bad = dict(it.figures().bad)
        bad.pop("oversize", None)
        assert bad == {"not_json": 6, "no_results": 6, "no_device": 2}
        text = capsys.readouterr().out
        assert [text.count(f"kind={kind}") for kind in bad] == [1, 1, 1]


async def test_a_restart_loses_no_result_and_ends_no_command_twice(cluster, tmp_path):
    """Told and journaled, but not committed; and told while nobody listened."""
    data = tmp_path / "data"
    async with plant(data, cluster, simulated=False) as it:
        runner = it.join(linger_ms=50)
        await it.up()
        runner.bridge._consumer.commit = lambda messages: None
        first, second = await it.send(it.command(serial=HOUSE), it.command(serial=ROOF))
        sent = await it.commands(1)
        while len({item["sn"] for body in sent for item in body["items"]}) < 2:
            sent = await it.commands(len(sent) + 1)
        request = {item["sn"]: body["requestId"] for body in sent for item in body["items"]}
        await it.answer(result(request[HOUSE], (HOUSE, DONE)))
        await it.ended(first)
        prefix = it.prefix
    async with plant(data, cluster, simulated=False, prefix=prefix, before=Plant.prepare) as it:
        await it.answer(result(request[ROOF], (ROOF, REFUSED)))
        it.runners[0].start()
        [end] = await it.ended(second)
        assert (end.state, end.detail) == (CommandState.FAILED, "the device did not obey (R0305: said)")
        await it.counted({"double": 1, "taken": 1})
        assert not it.steps(first)
        history = await it.journal.history(first.id)
        assert [e.state for e in history].count(CommandState.SUCCEEDED) == 1
    partitions = range(2)
    offsets = [cluster.committed(f"gateway.{prefix}", it.topic(kind="result"), p) for p in partitions]
    assert sum(offset or 0 for offset in offsets) == 2


async def test_a_result_waits_for_the_journal_and_is_not_committed_before(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(results_module, "RETRY", 0.05)
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        runner = it.join()
        await it.up()
        [command] = await it.send(it.command(serial=HOUSE))
        [sent] = await it.commands(1)
        whole, tries = runner.result_came, []

        async def told(command_id, outcome):
            tries.append(command_id)
            if len(tries) < 3:
                raise JournalError("the disk is full")
            return await whole(command_id, outcome)

        monkeypatch.setattr(runner, "result_came", told)
        committed = []
        commit = runner.bridge._consumer.commit
        monkeypatch.setattr(
            runner.bridge._consumer, "commit", lambda messages: (committed.append(len(tries)), commit(messages))
        )
        await it.answer(result(sent["requestId"], (HOUSE, DONE)))
        assert (await it.ended(command))[0].state is CommandState.SUCCEEDED
        await until(lambda: committed, "it is committed")
        assert (tries, committed) == ([command.id] * 3, [3])


async def test_sent_has_the_time_at_which_the_message_was_given_away_not_when_it_was_confirmed(
    cluster, tmp_path, monkeypatch
):
    async with plant(tmp_path / "data", cluster, simulated=False) as it:
        runner = it.join(result_within=0.2)
        await it.up()
        producer, still_wanted = runner.bridge._producer, it.dispatcher.still_wanted
        post, gate, connected, given, asked = producer.post, asyncio.Event(), [], [], []

        async def ready(_):
            await asyncio.sleep(0.01)
            connected.append(it.clock.now())

        def posted(*args, **fields):
            given.append(it.clock.now())

            async def slow(delivery):
                await gate.wait()
                return await delivery

            return asyncio.ensure_future(slow(post(*args, **fields)))

        def wanted(*ids):
            asked.extend(ids if given else ())
            return still_wanted(*ids)

        monkeypatch.setattr(producer, "ready", ready)
        monkeypatch.setattr(producer, "post", posted)
        monkeypatch.setattr(it.dispatcher, "still_wanted", wanted)
        (command,) = await it.send(it.command(serial=HOUSE))
        await until(lambda: len(asked) >= 2, "it is asked for while it waits")
        gate.set()
        await it.ended(command)
        accepted, sent, end = it.steps(command)
        assert accepted.time <= connected[0] <= sent.time <= given[0] < end.time


async def test_the_far_side_may_answer_before_the_cluster_confirms(cluster, tmp_path, monkeypatch):
    async with plant(tmp_path / "data", cluster) as it:
        runner = it.join()
        await it.up()
        send, gate = runner.bridge._producer.send, asyncio.Event()

        async def slow(*args, **fields):
            delivered = await send(*args, **fields)
            await gate.wait()
            return delivered

        monkeypatch.setattr(runner.bridge._producer, "send", slow)
        command = it.command(serial=HOUSE)
        end = await it.done(command)
        assert end.state is CommandState.SUCCEEDED
        gate.set()
        assert [e.state for e in it.steps(command)] == ["accepted", "sent", "succeeded"]
