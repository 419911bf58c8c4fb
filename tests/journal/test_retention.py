"""The audit is cut at its old end, never through a command that has not ended, and proves itself afterwards."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from pydantic import ValidationError

from gateway.core.model import CommandState
from gateway.journal import retention
from gateway.journal.chain import AuditReader
from gateway.journal.journal import Journal
from gateway.journal.retention import AuditSettings, Keep
from tests.kit.bench import Bench
from tests.kit.clock import NOON, FakeClock, virtual
from tests.kit.journal import event, note, rows, rows_of


def day(n):
    return NOON + timedelta(days=n)


@pytest.fixture
def make(tmp_path):
    return Bench(tmp_path).command


@pytest.fixture
async def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.open()
    yield journal
    await journal.close()


def cut(journal, since, rows=1_000_000):
    return journal._store.commit([], [], Keep(since, rows, day(99)))


def proved(journal):
    with AuditReader(journal.path) as reader:
        list(reader.walk())
    return reader


async def lived(journal, command, *days):
    """Record a whole life of a command, a step a day."""
    states = (CommandState.ACCEPTED, CommandState.SENT, CommandState.SUCCEEDED)
    for state, n in zip(states, days, strict=False):
        await journal.record(event(command, state, time=day(n)))


async def test_what_is_old_goes_and_the_rest_is_whole(journal, make):
    old, young = make(), make()
    await lived(journal, old, 0, 1, 2)
    await lived(journal, young, 3, 4, 5)
    head = proved(journal).head
    assert cut(journal, day(3)) == 3
    reader = proved(journal)
    assert reader.breaks == []
    assert (reader.cut.seq, reader.rows) == (3, 4)
    [told] = [row for row in rows(journal.path) if row.state == "cut"]
    assert (told.value, told.id) == ("3", reader.cut.hash.hex())
    assert await journal.history(old.id) == []
    assert len(await journal.history(young.id)) == 3
    with AuditReader(journal.path) as again:
        list(again.walk(str(head)))
    assert again.breaks == [], "a head noted before the cut is there still"


async def test_a_second_cut_takes_the_place_of_the_first(journal, make):
    for n in range(6):
        await journal.note(note(time=day(n)))
    assert [cut(journal, day(2)), cut(journal, day(4))] == [2, 2]
    assert proved(journal).breaks == []
    assert cut(journal, day(4)) == 0


async def test_a_command_that_has_not_ended_is_not_cut(journal, make):
    ended, unfinished, later = make(), make(), make()
    await lived(journal, ended, 0, 0, 0)
    await lived(journal, unfinished, 0, 0)
    await lived(journal, later, 0, 0, 0)
    assert cut(journal, day(50)) == 3
    assert [o.command for o in await journal.open_commands()] == [unfinished]
    assert len(await journal.history(unfinished.id)) == 2
    assert cut(journal, day(50)) == 0
    await journal.record(event(unfinished, CommandState.SUCCEEDED, time=day(0)))
    assert cut(journal, day(50)) == 5, "up to the row of the last cut"
    assert (await journal.open_commands(), proved(journal).breaks) == ([], [])


async def test_a_command_is_known_as_long_as_one_of_its_steps(journal, make):
    command = make()
    await lived(journal, command, 0, 9, 9)
    assert cut(journal, day(5)) == 1
    assert [e.state for e in await journal.history(command.id)] == [CommandState.SENT, CommandState.SUCCEEDED]


async def test_too_many_rows_go_whatever_their_age(journal):
    for _ in range(20):
        await journal.note(note(time=day(9)))
    assert cut(journal, day(0), rows=5) == 15
    assert proved(journal).breaks == []


async def test_a_step_cuts_no_more_than_a_step(journal, monkeypatch):
    monkeypatch.setattr(retention, "STEP", 4)
    for _ in range(10):
        await journal.note(note())
    assert [cut(journal, day(5)) for _ in range(4)] == [4, 4, 2, 0]


async def test_all_of_it_may_be_cut(journal):
    await journal.note(note())
    assert cut(journal, day(5)) == 1
    await journal.note(note())
    assert [row.seq for row in await rows_of(journal)] == [2, 3]
    assert proved(journal).breaks == []


@virtual
async def test_the_journal_cuts_by_itself_with_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "STEP", 4)
    clock = FakeClock()
    journal = Journal(tmp_path / "j.sqlite", AuditSettings(keep_days=1), clock)
    await journal.open()
    for _ in range(6):
        await journal.note(note(time=clock.now()))
    await asyncio.sleep(2 * 86_400)
    await journal.note(note(time=clock.now()))
    assert [row.seq for row in await rows_of(journal)] == [5, 6, 7, 8], "a step, and its row"
    await journal.note(note(time=clock.now()))
    assert len(await rows_of(journal)) == 5, "the next step not at once"
    await asyncio.sleep(retention.NEXT)
    await journal.note(note(time=clock.now()))
    assert [row.seq for row in await rows_of(journal)] == [7, 8, 9, 10, 11]
    await journal.close()


def test_settings_say_how_long():
    assert Keep.of(AuditSettings(), day(400)) == Keep(NOON, 5_000_000, day(400))
    with pytest.raises(ValidationError):
        AuditSettings(keep_days=0)


async def test_what_was_cut_is_given_back_to_the_disk_in_slices(journal, make, monkeypatch):
    monkeypatch.setattr(retention, "FREE_PAGES", 5)
    monkeypatch.setattr(retention, "GIVEN_BACK", 10)
    for _ in range(20):
        await journal.record(*(event(make(), CommandState.ACCEPTED, "x" * 500, time=day(0)) for _ in range(50)))
    for step in range(6):
        await journal.note(note(time=day(step)))
    with closing(sqlite3.connect(journal.path)) as database:
        database.execute("UPDATE command SET state = 'expired'")
        database.commit()
    before = pages(journal.path)
    while cut(journal, day(90)):
        pass
    while (at := pages(journal.path))[1] > 5:
        cut(journal, day(0))
        assert at[0] - pages(journal.path)[0] <= 10
    assert pages(journal.path)[0] < before[0] / 2
    assert proved(journal).breaks == []


def pages(path):
    """Return how many pages there are, and how many of them are free."""
    with closing(sqlite3.connect(path)) as database:
        return tuple(database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count"))
