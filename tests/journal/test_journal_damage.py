"""A journal that is damaged or lost its end: nothing that could have been executed is, and what can be read goes on."""

import asyncio
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.core.controller import Outcome
from gateway.core.model import CommandState, encode_command
from gateway.journal import rescue as journal_rescue
from gateway.journal import store as journal_store
from gateway.journal import writes
from gateway.journal.chain import AuditReader
from gateway.journal.journal import Journal, JournalError, Revert
from gateway.journal.rescue import WHY
from tests.kit.bench import Bench, until
from tests.kit.clock import NOON, FakeClock, virtual
from tests.kit.journal import event, note, rows, rows_of

DOUBT = Outcome(CommandState.UNKNOWN, WHY)
REVERT = Revert("sn", "running", True, NOON)


@pytest.fixture
def make(tmp_path):
    return Bench(tmp_path).command


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


async def written(path, make, many=0):
    """Write a journal: one command accepted, one sent, one ended, a timer, and `many` others that ended; return all."""
    journal = Journal(path)
    await journal.open()
    accepted, sent, ended, *others = [make() for _ in range(3 + many)]
    for command in (accepted, sent, ended):
        await journal.record(event(command))
    await journal.record(event(sent, CommandState.SENT), event(ended, CommandState.EXPIRED))
    await journal.record(*(event(command) for command in others))
    await journal.record(*(event(command, CommandState.EXPIRED, "x" * 200) for command in others))
    await journal.write(writes.arm(REVERT))
    return journal, accepted, sent, ended


async def killed(path, journal, to):
    """Leave the files as a kill does: the log of changes is not folded in."""
    to.mkdir(exist_ok=True)
    for suffix in ("", "-wal", ".head"):
        shutil.copy(f"{path}{suffix}", to / (path.name + suffix))
    await journal.close()
    return to / path.name


def whole(path):
    with AuditReader(path) as reader:
        list(reader.walk())
    return reader.breaks == []


async def opened(path):
    """Open a journal and return what it says goes on."""
    journal = Journal(path)
    await journal.open()
    kept = {o.command.id: o.outcome for o in await journal.open_commands()}
    timers = await journal.reverts()
    steps = [row.state for row in await rows_of(journal)]
    await journal.close()
    return kept, timers, steps


async def test_after_a_kill_everything_goes_on(path, make, tmp_path):
    journal, accepted, sent, _ = await written(path, make)
    kept, timers, _ = await opened(await killed(path, journal, tmp_path / "killed"))
    assert kept == {accepted.id: None, sent.id: None}
    assert timers == [REVERT]


async def test_a_journal_whose_end_is_gone_carries_nothing_out(path, make, tmp_path):
    journal, accepted, sent, _ = await written(path, make)
    late = make()
    await journal.record(event(late))
    copy = await killed(path, journal, tmp_path / "killed")
    log = copy.with_name(copy.name + "-wal")
    os.truncate(log, log.stat().st_size - 3000)
    kept, timers, steps = await opened(copy)
    assert kept == {accepted.id: DOUBT, sent.id: DOUBT}
    assert timers == [REVERT]
    assert steps[-1] == "recovered"
    assert whole(copy)
    assert await opened(copy) == (kept, timers, steps), "said once"


async def test_an_older_copy_put_back_carries_nothing_out(path, make, tmp_path):
    journal, accepted, sent, _ = await written(path, make)
    await journal.close()
    backup = shutil.copy(path, tmp_path / "backup")
    journal = Journal(path)
    await journal.open()
    await journal.record(event(accepted, CommandState.SENT))
    await journal.close()
    shutil.copy(backup, path)
    kept, _, _ = await opened(path)
    assert kept == {accepted.id: DOUBT, sent.id: DOUBT}


async def test_another_journal_put_in_its_place_carries_nothing_out(path, make, tmp_path):
    journal, *_ = await written(path, make)
    await journal.close()
    other = tmp_path / "other.sqlite"
    journal, accepted, sent, _ = await written(other, make)
    await journal.close()
    shutil.copy(other, path)
    kept, _, _ = await opened(path)
    assert kept == {accepted.id: DOUBT, sent.id: DOUBT}


async def test_a_file_moved_away_begins_an_empty_journal(path, make):
    journal, *_ = await written(path, make)
    await journal.close()
    path.unlink()
    assert await opened(path) == ({}, [], ["recovered"])
    assert await opened(path) == ({}, [], ["recovered"])
    assert "another one was here before, written up to row 5" in rows(path)[0].detail


async def test_a_file_cut_off_is_put_aside_and_what_it_holds_goes_on(path, make):
    journal, accepted, sent, _ = await written(path, make, many=200)
    await journal.close()
    size = path.stat().st_size
    os.truncate(path, size - 40_000)
    before = path.read_bytes()
    kept, _, steps = await opened(path)
    aside = [file for file in path.parent.iterdir() if ".damaged-" in file.name]
    assert [file.read_bytes() for file in aside] == [before]
    assert set(kept) <= {accepted.id, sent.id}
    assert set(kept.values()) <= {DOUBT}
    assert steps[-1] == "recovered"
    assert whole(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(log=st.booleans(), where=st.floats(0, 1), pattern=st.none() | st.binary(min_size=1, max_size=64))
@example(log=False, where=0.4, pattern=None)  # rows whose key is null
@example(log=False, where=3953 / 45056, pattern=b"\x80")  # a schema that is no text
def test_damage_anywhere_carries_nothing_out_that_is_in_doubt(killed_journal, tmp_path_factory, log, where, pattern):
    """Whatever is lost: all is as it was, or no open command is left to be executed, or the gateway does not start.

    `pattern` overwrites 64 times its length from there on; None cuts the file off.
    """
    source, open_ids = killed_journal
    copy = tmp_path_factory.mktemp("copy") / source.name
    for suffix in ("", "-wal", ".head"):
        shutil.copy(f"{source}{suffix}", f"{copy}{suffix}")
    target = copy.with_name(copy.name + "-wal") if log else copy
    content = bytearray(target.read_bytes())
    at = int(where * (len(content) - 1))
    content[at:] = b"" if pattern is None else (pattern * 64 + content[at + 64 * len(pattern) :])[: len(content) - at]
    target.write_bytes(content)
    try:
        kept, _, steps = asyncio.run(opened(copy))
    except JournalError:
        assert log or copy.read_bytes() == content, "it is there still, to be moved away"
        return
    if None in kept.values():
        assert kept == dict.fromkeys(open_ids), "nothing is missing"
    found = rows(copy)
    assert "recovered" not in steps or whole(copy)
    ended = {row.id for row in found if row.state == "unknown"}
    assert (open_ids & {row.id for row in found}) <= ended | set(kept)


@pytest.mark.parametrize("name", [b"aud\xfft", b"\xff\xff\xff\xff\xff"])
async def test_a_table_whose_name_is_no_text_any_more_is_damage_and_what_can_be_read_goes_on(path, make, name):
    journal, accepted, sent, _ = await written(path, make)
    await journal.close()
    content = path.read_bytes()
    assert content.count(b"tableauditaudit") == 1
    path.write_bytes(content.replace(b"tableauditaudit", b"table" + name + b"audit"))
    kept, timers, steps = await opened(path)
    assert any(".damaged-" in file.name for file in path.parent.iterdir())
    assert set(kept.values()) <= {DOUBT}
    assert set(kept) == {accepted.id, sent.id}
    assert timers == [REVERT]
    assert steps[-1] == "recovered"


@pytest.fixture
async def killed_journal(path, make, tmp_path):
    journal, accepted, sent, _ = await written(path, make, many=40)
    await journal.close()
    journal = Journal(path)
    await journal.open()
    await journal.note(note())
    await journal.record(event(make(id="late")))
    return await killed(path, journal, tmp_path / "killed"), {accepted.id, sent.id, "late"}


async def test_an_open_command_that_is_not_what_was_accepted_is_not_carried_out(path, make):
    journal, accepted, sent, _ = await written(path, make)
    await journal.close()
    db = sqlite3.connect(path)
    other = encode_command(msgspec.structs.replace(accepted, value=99.0))
    db.execute("UPDATE command SET body = ? WHERE id = ?", (other, accepted.id))
    assert db.total_changes == 1
    db.commit()
    db.close()
    kept, timers, steps = await opened(path)
    assert kept == {sent.id: DOUBT}
    assert timers == [REVERT]
    assert steps[-2:] == ["unknown", "recovered"]
    assert [row.id for row in rows(path) if row.state == "unknown"] == [accepted.id]


@pytest.mark.parametrize("body", [b"\xff{", b"7", b'{"id":"\x80"}'])
async def test_an_open_command_that_cannot_be_read_ends_as_unknown(path, make, body):
    journal, accepted, sent, _ = await written(path, make)
    await journal.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE command SET body = ? WHERE id = ?", (body, accepted.id))
    db.commit()
    db.close()
    kept, _, _ = await opened(path)
    assert kept == {sent.id: DOUBT}


@pytest.mark.parametrize("state", ["sen\0", "expired"])
async def test_a_command_that_left_the_open_ones_without_its_end_being_told_is_missed(path, make, tmp_path, state):
    journal, accepted, sent, _ = await written(path, make)
    copy = await killed(path, journal, tmp_path / "killed")
    db = sqlite3.connect(copy)
    db.execute("UPDATE command SET state = ? WHERE id = ?", (state, sent.id))
    db.commit()
    log = shutil.copy(f"{copy}-wal", tmp_path / "log")
    db.close()
    shutil.copy(log, f"{copy}-wal")
    kept, _, steps = await opened(copy)
    assert kept == {accepted.id: DOUBT}
    assert steps[-2:] == ["unknown", "recovered"]
    again = Journal(copy)
    await again.open()
    assert (await again.last_event(sent.id)).detail == WHY, "its id stays taken"
    await again.close()


async def test_a_crash_between_old_and_new_begins_with_the_new_one(path, make, monkeypatch):
    journal, *_ = await written(path, make)
    await journal.close()
    os.truncate(path, path.stat().st_size - 4096)
    with monkeypatch.context() as patch:
        patch.setattr(journal_rescue, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            journal_rescue.rescue(path, NOON)
    assert not path.exists()
    path.with_name(path.name + "-wal").write_bytes(b"of the old one")
    _, _, steps = await opened(path)
    assert steps[-1] == "recovered"


async def test_without_room_for_a_new_one_the_old_one_stays(path, make, monkeypatch):
    journal, *_ = await written(path, make)
    await journal.close()
    os.truncate(path, path.stat().st_size - 4096)
    before = path.read_bytes()

    def full(*_):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    monkeypatch.setattr(journal_rescue, "_copy", full)
    with pytest.raises(JournalError, match="make room"):
        await Journal(path).open()
    assert path.read_bytes() == before


async def test_what_is_damaged_while_it_runs_says_to_restart(path, make):
    journal, *_ = await written(path, make, many=50)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    journal._store._writer.execute("PRAGMA cache_size = 0")
    journal._store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    journal._store._writer.execute("PRAGMA shrink_memory")
    with pytest.raises(JournalError, match="restart the gateway"):
        await journal.record(event(make()), event(make(), time=NOON + timedelta(1)))
    await journal.close()


@virtual
async def test_commands_in_doubt_end_as_unknown_are_told_and_are_not_sent(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        bench.controller.gate.clear()
        waiting, under_way = bench.command("running", True, ttl=3600), bench.command(ttl=3600)
        await bench.journal.record(event(waiting))
        await bench.dispatcher.submit(under_way)
        await until(lambda: bench.controller.sent, "it is under way")
        head = (await bench.journal.head()).seq
    (tmp_path / "journal.sqlite.head").write_text(f"{head + 1:019}:{'ab' * 32}\n")
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        mailbox = bench.router.attach("test")
        await asyncio.sleep(600)
        assert bench.controller.sent == []
        assert await bench.journal.open_commands() == []
        told = {e.command.id: (e.state, e.detail) for e in (await mailbox.take()).events}
        for command in (waiting, under_way):
            assert (await bench.journal.last_event(command.id)).state is CommandState.UNKNOWN
            assert told[command.id] == (CommandState.UNKNOWN, WHY)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("pattern", [b"\0", b"x"])
async def test_of_a_journal_without_its_first_page_all_other_pages_go_on(path, make, tmp_path, pattern, log):
    journal, accepted, sent, _ = await written(path, make, many=200)
    if log:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint")
        await journal.record(event(make()))
        copy = await killed(path, journal, tmp_path / "killed")
    else:
        await journal.close()
        copy = path
    steps_before = len(rows(path))
    with copy.open("r+b") as file:
        file.write(pattern * 4096)
    journal = Journal(copy)
    await journal.open()
    # Where the log of changes has that page too, nothing is lost.
    assert "is kept as" in journal.lost or log
    outcome = DOUBT if journal.lost else None
    await journal.close()
    kept, timers, steps = await opened(copy)
    assert kept.items() >= {accepted.id: outcome, sent.id: outcome}.items()
    assert timers == [REVERT]
    assert len(steps) >= steps_before
    assert whole(copy)
    assert not list(copy.parent.glob("*.repaired*"))


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(journal_store, "LARGE", 1)


async def check_behind(journal):
    """Wait until a check that runs behind is over."""
    await until(lambda: not journal.is_copy)


@virtual
async def test_a_large_journal_that_was_not_closed_is_read_at_once_and_written_once_it_was_checked(
    path, make, tmp_path, large
):
    journal, accepted, sent, _ = await written(path, make)
    copy = await killed(path, journal, tmp_path / "killed")
    journal = Journal(copy)
    await journal.open()
    assert "being checked" in journal.trouble
    assert journal.can_be_read
    assert await journal.reverts() == [REVERT]
    assert {one.command.id for one in await journal.open_commands()} == {accepted.id, sent.id}
    with pytest.raises(JournalError, match="being checked"):
        await journal.record(event(make()))
    taken_up = []

    async def reopened():
        taken_up.append(journal.trouble)

    journal.reopened = reopened
    await check_behind(journal)
    assert taken_up == [""]
    assert journal.lost == ""
    await journal.record(event(make()))
    await journal.close()


@virtual
async def test_a_large_journal_that_turns_out_to_be_damaged_is_rescued_behind_and_control_stays_closed(tmp_path, large):
    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        bench.controller.gate.clear()
        waiting = bench.command("running", True, ttl=3600)
        await bench.dispatcher.submit(waiting)
        await until(lambda: bench.controller.sent, "it is under way")
        for _ in range(200):
            await bench.journal.record(event(bench.command()))
    path = tmp_path / "journal.sqlite"
    content = bytearray(path.read_bytes())
    content[20_000:40_000] = bytes(20_000)
    path.write_bytes(content)
    path.with_name("journal.sqlite-wal").write_bytes(b"torn")
    async with Bench(tmp_path, clock=clock) as bench:
        bench.announce()
        assert bench.router.states
        (refused,) = await bench.dispatcher.submit(bench.command(ttl=3600))
        assert refused.state is CommandState.REJECTED
        await check_behind(bench.journal)
        await until(lambda: bench.halting.current is not None, "control is halted")
        assert "is kept as" in bench.halting.current.reason
        assert bench.controller.sent == []
    async with Bench(tmp_path, clock=clock) as bench:
        assert bench.halting.current is not None, "until a person resumes"


async def test_a_crash_between_a_rescue_and_its_halt_halts_at_the_next_start(path, make):
    journal, *_ = await written(path, make)
    await journal.close()
    path.write_bytes(path.read_bytes()[:-9000])
    for _ in range(2):
        journal = Journal(path)
        await journal.open()
        assert journal.lost
        await journal.close()
    journal = Journal(path)
    await journal.open()
    await journal.note(note())
    await journal.close()
    journal = Journal(path)
    await journal.open()
    assert journal.lost == ""
    await journal.close()


async def test_a_check_that_runs_holds_no_stop_up(path, make, tmp_path, large, monkeypatch):
    journal, *_ = await written(path, make, many=400)
    copy = await killed(path, journal, tmp_path / "killed")
    monkeypatch.setattr("gateway.journal.journal.CHECK_AFTER", 0.0)
    monkeypatch.setattr(journal_store, "LOOK_AFTER", 1)
    began, gate = threading.Event(), threading.Event()
    read_through = journal_store.Store._read_through

    def slow(store):
        began.set()
        gate.wait()
        read_through(store)

    monkeypatch.setattr(journal_store.Store, "_read_through", slow)
    journal = Journal(copy)
    await journal.open()
    await asyncio.to_thread(began.wait)
    closing_ = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    gate.set()
    await closing_
    assert Journal(copy)._store.needs_long_look(), "it was interrupted"


@pytest.mark.parametrize("where", [0.2, 0.4, 0.6, 0.8, 0.95])
async def test_zeros_to_the_end_of_a_journal_that_was_closed_are_damage(path, make, where):
    journal, *_ = await written(path, make, many=50)
    await journal.close()
    size = path.stat().st_size
    content = path.read_bytes()[: int(size * where)]
    path.write_bytes(content + bytes(size - len(content)))
    journal = Journal(path)
    await journal.open()
    assert journal.lost
    await journal.record(event(make()))
    await journal.close()
    assert whole(path)


async def test_a_newest_row_that_is_not_what_was_written_is_damage(path, make):
    journal, *_ = await written(path, make)
    await journal.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TRIGGER audit_stands")
        database.execute("UPDATE audit SET hash = zeroblob(32) WHERE seq = (SELECT max(seq) FROM audit)")
        database.commit()
    journal = Journal(path)
    await journal.open()
    assert "newest row" in journal.lost
    await journal.close()
