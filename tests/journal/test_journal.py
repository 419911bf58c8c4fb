"""The journal: what is awaited is on the disk."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta

import msgspec
import pytest

from gateway.core.controller import Outcome
from gateway.core.model import CommandState
from gateway.journal import store as journal_store
from gateway.journal import writes
from gateway.journal.file import VERSION
from gateway.journal.journal import Journal, JournalError, Revert
from tests.kit.bench import Bench
from tests.kit.clock import NOON, FakeClock, virtual
from tests.kit.journal import DiskFull, event, note, rows, rows_of


@pytest.fixture
async def journal(tmp_path):
    journal = Journal(tmp_path / "deep" / "journal.sqlite")
    await journal.open()
    yield journal
    await journal.close()


@pytest.fixture
def make(tmp_path):
    return Bench(tmp_path).command


async def test_steps_come_back_in_order(journal, make):
    command = make(value="50", revert_after=5.0, revert_value=100.0)
    await journal.record(event(command))
    await journal.record(event(command, CommandState.SENT, "by sems"))
    assert [(e.state, e.detail) for e in await journal.history(command.id)] == [
        (CommandState.ACCEPTED, ""),
        (CommandState.SENT, "by sems"),
    ]
    assert (await journal.last_event(command.id)).command == command
    assert await journal.last_event("nobody") is None


async def test_open_commands_survive_with_controller_and_receipt_in_the_order_they_came(tmp_path, make):
    first, second, ended = make(id="z"), make(id="a"), make(id="m")
    journal = Journal(tmp_path / "j.sqlite")
    await journal.open()
    for command in (first, second, ended):
        await journal.record(event(command))
    await journal.record(event(ended, CommandState.EXPIRED))
    await journal.write(writes.handing_to("sems", [first], NOON))
    await journal.write(writes.receipt("task-1", [first.id]))
    await journal.write(writes.handing_to("sems", [second], NOON))
    await journal.write(writes.taking_back(second))
    await journal.close()
    again = Journal(tmp_path / "j.sqlite")
    await again.open()
    kept = [(o.command.id, o.controller, o.receipt) for o in await again.open_commands()]
    await again.close()
    assert kept == [("z", "sems", "task-1"), ("a", None, "")]


async def test_timers_are_kept_replaced_and_ended(journal):
    late, soon = (Revert("sn", "running", True, NOON + timedelta(seconds=s)) for s in (9, 5))
    await journal.write(writes.arm(late))
    await journal.write(writes.arm(soon))
    assert await journal.reverts() == [soon]
    await journal.write(writes.disarm("sn", "running"))
    assert await journal.reverts() == []


async def test_many_writers_share_commits(journal, make):
    commits = 0
    commit = journal._store.commit

    def counting(*args):
        nonlocal commits
        commits += 1
        return commit(*args)

    journal._store.commit = counting
    commands = [make() for _ in range(500)]
    await asyncio.gather(*(journal.record(event(command)) for command in commands))
    assert commits < 50
    assert len(await journal.open_commands()) == 500


async def test_a_write_that_fails_fails_all_of_its_commit_and_the_next_one_works(journal, make):
    command = make()
    good = journal.record(event(command))
    bad = journal.write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))
    results = await asyncio.gather(good, bad, return_exceptions=True)
    assert all(isinstance(result, JournalError) for result in results)
    assert await journal.history(command.id) == []
    await journal.record(event(command))
    assert len(await journal.history(command.id)) == 1


async def test_a_file_that_is_no_journal_is_put_aside_and_that_is_a_loss(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    journal = Journal(path)
    await journal.open()
    assert "it was damaged" in journal.lost
    await journal.close()
    (aside,) = tmp_path.glob("journal.sqlite.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")


async def test_a_directory_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="writable"):
        await Journal(tmp_path / "file" / "journal.sqlite").open()


@pytest.mark.parametrize(("version", "than"), [(99, "newer"), (2, "older")])
async def test_a_journal_of_another_format_is_left_alone(tmp_path, version, than):
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(JournalError, match=f"{than} gateway .* run that version, or move the file away"):
        await Journal(path).open()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
        assert not db.execute("SELECT name FROM sqlite_master").fetchall()
    db.close()


async def test_not_open_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="not open"):
        await Journal(tmp_path / "j.sqlite").reverts()


async def test_it_waits_for_the_disk(journal):
    found = []
    for pragma in ("journal_mode", "synchronous"):
        await journal.write(lambda db, pragma=pragma: found.extend(db.execute(f"PRAGMA {pragma}").fetchone()))
    assert found == ["wal", 2]


async def test_an_outcome_told_of_an_open_command_is_kept(journal, make):
    command = make()
    await journal.record(event(command))
    await journal.write(writes.outcome(command.id, Outcome(CommandState.FAILED, "the inverter said no", verified=True)))
    [kept] = await journal.open_commands()
    assert kept.outcome == Outcome(CommandState.FAILED, "the inverter said no", verified=True)


async def test_a_receipt_names_its_commands_also_after_their_end(journal, make):
    first, second = make(serial="A"), make(serial="B")
    await journal.record(event(first), event(second))
    await journal.write(writes.receipt("batch-7", [first.id, second.id]))
    await journal.record(event(first, CommandState.EXPIRED))
    found = await journal.commands_by_receipt(["", "batch-8", "batch-7", "'"])
    assert {receipt: sorted(rows) for receipt, rows in found.items()} == {
        "batch-7": sorted([(first.id, "A"), (second.id, "B")])
    }
    await journal.write(writes.handing_to("sems", [second], NOON))
    await journal.write(writes.taking_back(second))
    found = await journal.commands_by_receipt(["batch-7"])
    assert found == {"batch-7": [(first.id, "A")]}, "the second did not leave, so nobody will tell of it"


async def test_a_correction_stands_beside_the_end(journal, make):
    command = make()
    await journal.record(event(command), event(command, CommandState.SENT), event(command, CommandState.UNKNOWN))
    late = msgspec.structs.replace(event(command, CommandState.SUCCEEDED), correction=True, verified=True)
    await journal.record(late)
    assert await journal.last_event(command.id) == late
    assert [e.state for e in await journal.history(command.id)][-2:] == [CommandState.UNKNOWN, CommandState.SUCCEEDED]
    assert await journal.open_commands() == []


async def test_a_refusal_makes_no_id_known(journal, make):
    command = make()
    await journal.record(event(command, CommandState.REJECTED))
    await journal.note(note(id=command.id))
    assert await journal.last_event(command.id) is None
    assert await journal.history(command.id) == []


async def test_the_refusal_of_a_taken_id_is_no_step_of_its_command(journal, make):
    command = make()
    await journal.record(event(command), event(command, CommandState.REJECTED, "belongs to another"))
    await journal.note(note(id=command.id))
    assert [e.state for e in await journal.history(command.id)] == [CommandState.ACCEPTED]
    assert [o.command for o in await journal.open_commands()] == [command]


async def test_text_that_is_no_unicode_fails_for_its_writer_alone(journal, make):
    good, bad = make(), make(id="\ud800")
    results = await asyncio.gather(journal.record(event(good)), journal.record(event(bad)), return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], JournalError)
    with pytest.raises(JournalError, match="no Unicode"):
        await journal.record(event(make(value="\ud800")))
    journal.refused(event(bad, CommandState.REJECTED))
    await journal.note(note())
    assert [row.id for row in await rows_of(journal)] == [good.id, "?", ""]


# the disk


@virtual
async def test_what_nobody_waits_for_is_written_once_the_disk_is_back(tmp_path, capsys):
    journal = Journal(tmp_path / "j.sqlite", clock=FakeClock())
    await journal.open()
    full = DiskFull(journal._store)
    command = Bench(tmp_path).command()
    journal.refused(event(command, CommandState.REJECTED))
    journal.note_soon(note())
    with pytest.raises(JournalError, match="the disk is full; make room"):
        await journal.record(event(command))
    await asyncio.sleep(20)
    assert full.tries > 3
    full.over()
    await asyncio.sleep(20)
    assert [row.state for row in await rows_of(journal)] == ["rejected", "halted"]
    await journal.record(event(command))
    await journal.close()
    said = capsys.readouterr().out
    assert said.count("can't be written") == 1
    assert said.count("can be written again") == 1


@virtual
async def test_notes_wait_for_a_full_disk_in_bounds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gateway.journal.journal.MAX_UNWRITTEN_ROWS", 2)
    journal = Journal(tmp_path / "j.sqlite", clock=FakeClock())
    await journal.open()
    full = DiskFull(journal._store)
    journal.note_soon(note(detail="storm 0"))
    await asyncio.sleep(1)
    for n in range(1, 5):
        journal.note_soon(note(detail=f"storm {n}"))
    assert "storm 4" in capsys.readouterr().out
    full.over()
    await journal.close()
    assert [row.detail for row in rows(journal.path)] == [f"storm {n}" for n in range(4)]


@virtual
async def test_closing_while_the_disk_is_full_ends_and_says_what_is_lost(tmp_path, capsys):
    journal = Journal(tmp_path / "j.sqlite", clock=FakeClock())
    await journal.open()
    DiskFull(journal._store)
    journal.note_soon(note())
    await journal.close()
    assert "are lost" in capsys.readouterr().out


async def test_a_full_file_refuses_and_goes_on_when_there_is_room(journal, make):
    pages = []
    await journal.write(lambda db: pages.extend(db.execute("PRAGMA page_count").fetchone()))
    await journal.write(lambda db: db.execute(f"PRAGMA max_page_count = {pages[0]}"))
    kept, error = [], None
    while error is None:
        command = make()
        try:
            await journal.record(event(command))
            kept.append(command)
        except JournalError as raised:
            error = raised
    assert "the disk is full; make room" in str(error)
    journal._store._writer.execute("PRAGMA max_page_count = 1000000")
    kept.append(command)
    await journal.record(event(command))
    assert [o.command for o in await journal.open_commands()] == kept


async def test_a_file_that_another_program_holds_says_so(journal, make):
    journal._store._writer.execute("PRAGMA busy_timeout = 1")
    with sqlite3.connect(journal.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another program has locked it"):
            await journal.record(event(make()))
        other.execute("ROLLBACK")
    other.close()
    await journal.record(event(make()))
    assert len(await journal.open_commands()) == 1


async def test_a_file_that_is_taken_away_is_noticed_at_the_next_write(journal, make):
    journal.path.rename(journal.path.with_name("elsewhere"))
    with pytest.raises(JournalError, match="moved or deleted while the gateway runs"):
        await journal.record(event(make()))
    journal.path.with_name("elsewhere").rename(journal.path)
    await journal.record(event(make()))


async def test_a_file_that_may_only_be_read_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "j.sqlite"
    journal = Journal(path)
    await journal.open()
    await journal.close()
    connect = journal_store.connect

    def read_only(path):
        # What root may write, a file mode does not keep from it.
        database = connect(path)
        database.execute("PRAGMA query_only = ON")
        return database

    monkeypatch.setattr(journal_store, "connect", read_only)
    journal = Journal(path)
    await journal.open()
    with pytest.raises(JournalError, match="make the file and its directory writable"):
        await journal.note(note())
    await journal.close()


OF_FORMAT_3 = {
    "command": "id body state controller receipt serial outcome boot_id boot",
    "revert": "serial setpoint value due boot_id boot",
    "setting": "serial setpoint wish value time boot_id boot succeeded certain confirmed command ends",
    "writes": "serial setpoint life day today",
}


async def test_a_format_keeps_its_columns_for_journals_that_are_there_have_them(journal):
    assert VERSION == 3
    with closing(sqlite3.connect(journal.path)) as db:
        found = {table: " ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})")) for table in OF_FORMAT_3}
    assert found == OF_FORMAT_3
