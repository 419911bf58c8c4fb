"""Journals for tests: events, rows, a disk without room, and a file as the first format had it."""

import sqlite3

import msgspec

from gateway.core.journal.audit import COLUMNS, AuditRow, Deed, Note
from gateway.core.journal.file import JournalError
from gateway.core.model import CommandEvent, CommandState
from tests.kit.clock import NOON

FORMAT_1 = """
CREATE TABLE command (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, state TEXT NOT NULL,
    controller TEXT, receipt TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX command_open ON command (id) WHERE state IN ('accepted', 'sent');
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, command TEXT NOT NULL, state TEXT NOT NULL,
    time REAL NOT NULL, reason TEXT, detail TEXT NOT NULL
);
CREATE INDEX event_command ON event (command);
CREATE TABLE revert (
    serial TEXT NOT NULL, setpoint TEXT NOT NULL, value BLOB NOT NULL, due REAL NOT NULL,
    PRIMARY KEY (serial, setpoint)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def event(command, state=CommandState.ACCEPTED, detail="", time=NOON, reason=None):
    return CommandEvent(command=command, state=state, time=time, detail=detail, reason=reason)


def note(**fields):
    return Note(**{"deed": Deed.HALTED, "time": NOON, "origin": "cli:ops", "detail": "storm", **fields})


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


def write_format_1(path, commands):
    """Write a journal as the first format had it: one command sent, one accepted, one ended, and a timer."""
    sent, accepted, ended = commands
    db = sqlite3.connect(path)
    db.executescript(FORMAT_1)
    for command, state, controller, receipt in (
        (sent, "sent", "sems", "task-1"),
        (accepted, "accepted", None, ""),
        (ended, "expired", None, ""),
    ):
        row = (command.id, msgspec.json.encode(command), state, controller, receipt)
        db.execute("INSERT INTO command VALUES (?, ?, ?, ?, ?)", row)
    for command, state, detail in (
        (sent, "accepted", ""),
        (sent, "sent", "by sems"),
        (accepted, "accepted", ""),
        (ended, "accepted", ""),
        (ended, "expired", "too late"),
    ):
        row = (command.id, state, NOON.timestamp(), None, detail)
        db.execute("INSERT INTO event (command, state, time, reason, detail) VALUES (?, ?, ?, ?, ?)", row)
    db.execute("INSERT INTO revert VALUES ('sn', 'running', ?, ?)", (b"true", NOON.timestamp()))
    db.commit()
    db.close()
