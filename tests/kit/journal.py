"""Journals for tests: events, rows, a disk without room."""

import asyncio
import sqlite3

from gateway.core.model import CommandEvent, CommandState
from gateway.journal.audit import COLUMNS, AuditAction, AuditRow, Note
from gateway.journal.file import JournalError
from tests.kit.clock import NOON


def event(command, state=CommandState.ACCEPTED, detail="", time=NOON, reason=None):
    return CommandEvent(command=command, state=state, time=time, detail=detail, reason=reason)


def note(**fields):
    return Note(**{"action": AuditAction.HALTED, "time": NOON, "origin": "cli:ops", "detail": "storm", **fields})


def rows(path):
    """Return all rows of a journal's audit."""
    db = sqlite3.connect(path)
    found = [AuditRow(*row) for row in db.execute(f"SELECT {COLUMNS} FROM audit ORDER BY seq")]
    db.close()
    return found


async def rows_of(journal):
    """Return all rows of an open journal's audit."""
    return await journal._read(
        lambda db: [AuditRow(*row) for row in db.execute(f"SELECT {COLUMNS} FROM audit ORDER BY seq")]
    )


class DiskFull:
    """A disk on which nothing more fits, until it is over."""

    def __init__(self, store):
        self.tries = 0
        self._store = store
        self._commit = store.commit
        store.commit = self._refuse

    def _refuse(self, *args):
        self.tries += 1
        raise JournalError("the disk is full; make room on it")

    def over(self):
        self._store.commit = self._commit


def before_writing(journal, look):
    """Have `look(*events)` awaited before a journal gets on with steps; what that raises, writing them raises."""
    post = journal.post

    async def later(events, more):
        await look(*events)
        await post(*events, **more)

    journal.post = lambda *events, **more: asyncio.ensure_future(later(events, more))


def without_disk(why):
    """What stands in for `Journal.post` where nothing can be written."""

    def post(*_, **__):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(JournalError(why))
        return future

    return post
