"""The journal: what is awaited is on the disk."""

import asyncio
import sqlite3
from datetime import timedelta

import pytest

from gateway.core.journal import Journal, JournalError, Revert
from gateway.core.model import CommandEvent, CommandState
from tests.kit.bench import Bench
from tests.kit.clock import NOON


def event(command, state=CommandState.ACCEPTED, detail=""):
    return CommandEvent(command=command, state=state, time=NOON, detail=detail)


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
    await journal.handing_to(first, "sems")
    await journal.keep_receipt(first, "task-1")
    await journal.handing_to(second, "sems")
    await journal.handing_to(second, None)
    await journal.close()
    again = Journal(tmp_path / "j.sqlite")
    await again.open()
    kept = [(o.command.id, o.controller, o.receipt) for o in await again.open_commands()]
    await again.close()
    assert kept == [("z", "sems", "task-1"), ("a", None, "")]


async def test_timers_are_kept_replaced_and_ended(journal):
    late, soon = (Revert("sn", "running", True, NOON + timedelta(seconds=s)) for s in (9, 5))
    await journal.arm(late)
    await journal.arm(soon)
    assert await journal.reverts() == [soon]
    await journal.disarm("sn", "running")
    assert await journal.reverts() == []


async def test_many_writers_share_commits(journal, make):
    commits = 0
    commit = journal._commit

    def counting(writes):
        nonlocal commits
        commits += 1
        commit(writes)

    journal._commit = counting
    commands = [make() for _ in range(500)]
    await asyncio.gather(*(journal.record(event(command)) for command in commands))
    assert commits < 50
    assert len(await journal.open_commands()) == 500


async def test_a_write_that_fails_fails_all_of_its_commit_and_the_next_one_works(journal, make):
    command = make()
    good = journal.record(event(command))
    bad = journal._write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))
    results = await asyncio.gather(good, bad, return_exceptions=True)
    assert all(isinstance(result, JournalError) for result in results)
    assert await journal.history(command.id) == []
    await journal.record(event(command))
    assert len(await journal.history(command.id)) == 1


async def test_a_file_that_is_no_journal_says_what_to_do(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(JournalError, match="move the file away"):
        await Journal(path).open()
    assert path.read_bytes().startswith(b"not a database")


async def test_a_directory_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="writable"):
        await Journal(tmp_path / "file" / "journal.sqlite").open()


async def test_a_journal_of_a_newer_gateway_is_left_alone(tmp_path):
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="newer gateway"):
        await Journal(path).open()


async def test_not_open_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="not open"):
        await Journal(tmp_path / "j.sqlite").reverts()


async def test_it_waits_for_the_disk(journal):
    durability = await journal._read(
        lambda db: (db.execute("PRAGMA journal_mode").fetchone()[0], db.execute("PRAGMA synchronous").fetchone()[0])
    )
    assert durability == ("wal", 2)
