"""The global stop: nothing new leaves, reverts do; it outlives restarts; what can't be stored errs on the safe side."""

import asyncio
import json

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.commands.policy.halt import HaltError
from gateway.core import files
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError
from gateway.core.model import CommandState, Origin, Reason
from gateway.journal.chain import AuditReader
from gateway.journal.journal import JournalError
from tests.kit.bench import EVERYTHING, Bench, collected
from tests.kit.clock import NOON, FakeClock, virtual

ACCEPTED, SENT, EXPIRED, SUCCEEDED = (CommandState(s) for s in ("accepted", "sent", "expired", "succeeded"))


def steps(events, command):
    return [event.state for event in events if event.command.id == command.id]


async def quiet():
    await asyncio.sleep(1)


def audited(directory):
    with AuditReader(directory / "journal.sqlite") as reader:
        return [(row.state, row.origin, row.detail) for row in reader.walk("") if row.state in ("halted", "resumed")]


@virtual
async def test_new_commands_are_refused_until_it_is_resumed(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.halting.halt("modbus:10.0.0.7:4", "grid operator called")
        (event,) = await bench.dispatcher.submit(bench.command())
        assert (event.state, event.reason) == (CommandState.REJECTED, Reason.HALTED)
        assert event.detail == (
            "halted by modbus:10.0.0.7:4 at 2026-06-21T12:00:00.000Z: grid operator called; "
            "`sems-gateway resume` lets commands in again"
        )
        await quiet()
        assert bench.controller.sent == []
        await bench.policy.resume(Origin("cli:me"))
        await bench.dispatcher.submit(bench.command())
        await quiet()
        assert len(bench.controller.sent) == 1
    assert audited(tmp_path) == [
        ("halted", "modbus:10.0.0.7:4", "grid operator called"),
        ("resumed", "cli:me", "halted by modbus:10.0.0.7:4 at 2026-06-21T12:00:00.000Z"),
    ]


@virtual
async def test_what_waits_ends_at_once_and_what_was_sent_is_followed_to_its_end(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.gate.clear()
        away = bench.command(value=50)
        await bench.dispatcher.submit(away)
        await quiet()
        queued = bench.command(value=40)
        bench.controller.answers = [NotSentError("no connection", 30)]
        waiting = bench.command("battery_mode", "idle")
        await bench.dispatcher.submit(waiting)
        await bench.dispatcher.submit(queued)
        await quiet()
        before = bench.clock.monotonic()
        await bench.halting.halt("cli:me")
        await quiet()
        assert bench.clock.monotonic() - before < 5, "nobody waited for the retry"
        assert steps(events, waiting) == [ACCEPTED, EXPIRED]
        end = next(e for e in events if e.command.id == waiting.id and e.state.final)
        assert end.detail.startswith("halted by cli:me at ")
        bench.controller.gate.set()
        await asyncio.sleep(600)
        assert steps(events, away) == [ACCEPTED, SENT, SUCCEEDED]
        assert steps(events, queued) == [ACCEPTED, EXPIRED]
        assert [command.id for command in bench.controller.sent] == [away.id]


@virtual
async def test_a_halt_while_the_journal_writes_the_handing_over_holds_it_back(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        write = bench.journal.write

        async def halted_meanwhile(*writes, **more):
            bench.journal.write = write
            await write(*writes, **more)
            await bench.halting.halt("cli:me")

        bench.journal.write = halted_meanwhile
        command = bench.command()
        await bench.dispatcher.submit(command)
        await asyncio.sleep(100)
        assert bench.controller.sent == []
        assert steps(events, command) == [ACCEPTED, EXPIRED]


@pytest.mark.parametrize("restarted", [False, True])
@virtual
async def test_a_dead_mans_revert_is_let_through_also_after_a_restart(tmp_path, restarted):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(value=30, revert_after=100.0))
        await quiet()
        await bench.halting.halt("cli:me", "fire drill")
        if not restarted:
            await asyncio.sleep(200)
            assert [c.value for c in bench.controller.sent] == [30.0, 100.0]
            return
    async with Bench(tmp_path, clock=clock) as reborn, collected(reborn.router) as (events, _):
        reborn.announce()
        assert reborn.halting.current.reason == "fire drill"
        (refused,) = await reborn.dispatcher.submit(reborn.command())
        assert refused.reason is Reason.HALTED
        await asyncio.sleep(200)
        assert [(c.value, c.origin) for c in reborn.controller.sent] == [(100.0, "revert")]
        assert events[-1].state is SUCCEEDED


@virtual
async def test_a_name_evades_no_halt(tmp_path):
    async with Bench(tmp_path) as bench:
        bench.announce()
        await bench.halting.halt("cli:me")
        for name in ("revert", "gateway", "cli"):
            (event,) = await bench.dispatcher.submit(bench.command(origin=name))
            assert event.reason is Reason.HALTED


@virtual
async def test_what_was_accepted_before_a_restart_does_not_leave_after_it(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        bench.controller.answers = [NotSentError("away", 30)]
        command = bench.command(ttl=600)
        await bench.dispatcher.submit(command)
        await quiet()
    (tmp_path / "halt.json").write_text('{"version": 1, "by": "cli:me", "reason": "", "since": "2026-06-21T12:00:00Z"}')
    async with Bench(tmp_path, clock=clock) as reborn, collected(reborn.router) as (events, _):
        reborn.announce()
        await asyncio.sleep(100)
        assert steps(events, command) == [EXPIRED]
        assert reborn.controller.sent == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"version": 2, "by": "x", "reason": "", "since": "2026-06-21T12:00:00Z"}', None],
)
@virtual
async def test_a_damaged_file_means_halted(tmp_path, content):
    file = tmp_path / "halt.json"
    file.mkdir() if content is None else file.write_bytes(content)
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        assert bench.halting.current.by == "gateway"
        assert b'"by":"gateway"' in msgspec.json.encode(bench.halting.current), "MQTT and HTTP encode it as it is"
        assert "can't be read" in bench.halting.current.reason
        (event,) = await bench.dispatcher.submit(bench.command())
        assert event.reason is Reason.HALTED
        if content is not None:
            await bench.policy.resume(Origin("cli:me"))
            assert not file.exists()


@pytest.mark.parametrize("resumed", [True, False])
async def test_where_its_file_is_gone_the_audit_decides(tmp_path, resumed):
    async with Bench(tmp_path) as bench:
        await bench.halting.halt(Origin("cli:me"), "storm")
        await bench.policy.resume(Origin("cli:me"))
        await bench.halting.halt(Origin("cli:me"), "fire")
        if resumed:
            await bench.policy.resume(Origin("cli:me"))
    (tmp_path / "halt.json").unlink(missing_ok=resumed)
    for _ in range(2):
        async with Bench(tmp_path) as bench:
            found = bench.halting.current
            assert (found is None) is resumed
            if found:
                assert "cli:me halted control" in found.reason
                assert "fire" in found.reason
    async with Bench(tmp_path) as bench:
        await bench.policy.resume(Origin("cli:me"))
    async with Bench(tmp_path) as bench:
        assert bench.halting.current is None


@virtual
async def test_a_halt_that_cannot_be_stored_holds_all_the_same(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        with monkeypatch.context() as patch:
            patch.setattr(files, "replace", full)
            with pytest.raises(HaltError, match=r"control is halted, but .*No space left.*a restart would resume it"):
                await bench.halting.halt("cli:me")
        assert bench.halting.current.by == "cli:me"
        (event,) = await bench.dispatcher.submit(bench.command())
        assert event.reason is Reason.HALTED
        await bench.halting.halt("cli:you", "again, now that there is space")
        assert json.loads((tmp_path / "halt.json").read_bytes())["by"] == "cli:me"


@virtual
async def test_a_halt_that_could_not_be_stored_is_once_there_is_space(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        following = asyncio.create_task(bench.halting.follow())
        with monkeypatch.context() as patch:
            patch.setattr(files, "replace", full)
            with pytest.raises(HaltError, match="it is tried again"):
                await bench.halting.halt("cli:me")
            await asyncio.sleep(60)
            assert not (tmp_path / "halt.json").exists()
        await asyncio.sleep(15)
        following.cancel()
        assert json.loads((tmp_path / "halt.json").read_bytes())["by"] == "cli:me"
        assert [row[0] for row in audited(tmp_path)] == ["halted"]


@virtual
async def test_a_halt_that_the_audit_cannot_take_holds_and_a_resume_does_not(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        note = bench.journal.note

        async def broken(_):
            raise JournalError("disk full")

        bench.halting._note = broken
        with pytest.raises(HaltError, match="the audit does not have it: disk full"):
            await bench.halting.halt("cli:me")
        assert (tmp_path / "halt.json").exists()
        with pytest.raises(HaltError, match=r"control stays halted: .*disk full") as caught:
            await bench.policy.resume(Origin("cli:me"))
        assert caught.value.reason is Reason.NOT_STORED
        assert bench.halting.current is not None
        bench.halting._note = note
        await bench.policy.resume(Origin("cli:me"))
        assert bench.halting.current is None
        assert not (tmp_path / "halt.json").exists()


@virtual
async def test_only_those_may_resume_whom_the_configuration_names(tmp_path):
    control = EVERYTHING.model_copy(update={"resume": ["cli", "modbus/operator"]})
    async with Bench(tmp_path, control, FakeClock()) as bench:
        await bench.policy.resume(Origin("mqtt"))  # nothing is halted, so nothing is asked
        await bench.halting.halt("mqtt")
        for stranger in ("mqtt", "modbus:1", "modbus/guest:operator"):
            with pytest.raises(HaltError, match="may not resume control; add it to") as caught:
                await bench.policy.resume(Origin(stranger))
            assert caught.value.reason is Reason.NOT_PERMITTED
        assert bench.halting.current
        await bench.policy.resume(Origin("modbus/operator:10.0.0.1:7"))
        assert not bench.halting.current


@virtual
async def test_a_second_halt_changes_nothing_and_is_not_logged_again(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        with capture_logs() as logs:
            first = await bench.halting.halt("cli:me", "x" * 1000)
            await asyncio.sleep(5)
            assert await bench.halting.halt("mqtt", "me too") is first
            await bench.policy.resume(Origin("cli:me"))
            await bench.policy.resume(Origin("cli:me"))
        assert len(first.reason) == 500
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
            "control is halted", "control is resumed",
        ]  # fmt: skip
    assert [row[0] for row in audited(tmp_path)] == ["halted", "resumed"]


@virtual
async def test_a_halt_that_comes_while_it_is_resumed_wins(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await bench.halting.halt("cli:me")
        resuming = asyncio.create_task(bench.policy.resume(Origin("cli:me")))
        halting = asyncio.create_task(bench.halting.halt("mqtt", "stop"))
        await asyncio.gather(resuming, halting)
        assert bench.halting.current.by == "mqtt"
        assert json.loads((tmp_path / "halt.json").read_bytes())["by"] == "mqtt"
    assert [row[:2] for row in audited(tmp_path)] == [("halted", "cli:me"), ("resumed", "cli:me"), ("halted", "mqtt")]


@virtual
async def test_sinks_are_told(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        mailbox = bench.router.attach("sink")
        await mailbox.take() if mailbox._mail.is_set() else None
        await bench.halting.halt("cli:me")
        assert (await mailbox.take()).halt
        await bench.policy.resume(Origin("cli:me"))
        assert (await mailbox.take()).halt


@virtual
async def test_the_file_is_written_whole_and_for_its_owner_alone(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await bench.halting.halt("cli:me", "why")
    file = tmp_path / "halt.json"
    assert json.loads(file.read_bytes()) == {
        "version": 1, "by": "cli:me", "reason": "why", "since": NOON.isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    assert file.stat().st_mode & 0o077 == 0


@virtual
async def test_a_result_that_comes_after_the_halt_is_taken(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.announce()
        bench.controller.gate.clear()
        bench.controller.outcomes = [Outcome(CommandState.FAILED, "did not obey")]
        command = bench.command()
        await bench.dispatcher.submit(command)
        await quiet()
        await bench.halting.halt("cli:me")
        bench.controller.gate.set()
        await quiet()
        assert steps(events, command) == [ACCEPTED, SENT, CommandState.FAILED]
