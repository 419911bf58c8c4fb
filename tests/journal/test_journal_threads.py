"""What is read on one thread while another closes or reopens the file: SQLite would end the process."""

import asyncio
import threading

import pytest

from gateway.journal import journal as journal_module
from gateway.journal import store as journal_store
from gateway.journal.journal import Journal
from tests.journal.test_journal_damage import killed, written
from tests.kit.bench import Bench, until


class Slow:
    """A read that takes as long as it is told to."""

    def __init__(self):
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, database):
        self.begun.set()
        assert self.may_end.wait(30)
        return database.execute("SELECT count(*) FROM audit").fetchone()[0]

    async def has_begun(self):
        await asyncio.to_thread(self.begun.wait, 30)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def make(tmp_path):
    return Bench(tmp_path).command


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(journal_store, "LARGE", 1)
    monkeypatch.setattr(journal_module, "CHECK_AFTER", 0.0)


async def test_a_read_that_is_under_way_when_a_checked_journal_is_opened_ends_well(path, make, tmp_path, large):
    journal, *_ = await written(path, make)
    journal = Journal(await killed(path, journal, tmp_path / "killed"))
    await journal.open()
    read = Slow()
    reading = asyncio.create_task(journal._read(read))
    await read.has_begun()
    await asyncio.sleep(0.5)  # it is checked, and would be opened now
    assert journal.is_copy
    read.may_end.set()
    assert await reading > 0
    await until(lambda: not journal.trouble)
    assert await journal.open_commands()
    await journal.close()


async def test_a_read_that_is_under_way_when_the_journal_is_closed_ends_well(path, make):
    journal, *_ = await written(path, make)
    read = Slow()
    reading = asyncio.create_task(journal._read(read))
    await read.has_begun()
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0.3)
    assert not closing.done()
    read.may_end.set()
    assert await reading > 0
    await closing
