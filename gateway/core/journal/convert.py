"""Brings a journal that an older gateway wrote up to date."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from gateway.core.journal import audit
from gateway.core.journal.audit import AuditRow, Deed, Note
from gateway.core.journal.file import VERSION, JournalError, create
from gateway.core.model import Command

_FROM_1: Final = f"""
ALTER TABLE command ADD COLUMN serial TEXT NOT NULL DEFAULT '';
ALTER TABLE command ADD COLUMN outcome BLOB;
CREATE INDEX command_receipt ON command (receipt, serial) WHERE receipt != '';
{audit.SCHEMA}
"""


def convert(database: sqlite3.Connection, path: Path, now: datetime) -> None:
    """Bring a file to the newest format, all of it or nothing. Raises JournalError for one of a newer gateway."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise JournalError(
            f"the command journal {path} was written by a newer gateway (format {version}, this one "
            f"knows {VERSION}); run that version, or move the file away to begin with an empty journal"
        )
    if version == 0:
        create(database)
    elif version == 1:
        _from_1(database, now)


def _from_1(db: sqlite3.Connection, now: datetime) -> None:
    """Format 1 had steps without hashes, in a table `event`, and no refusals."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(_FROM_1):
            db.execute(statement)
        serials = [(_command(body).serial, id_) for id_, body in db.execute("SELECT id, body FROM command")]
        db.executemany("UPDATE command SET serial = ? WHERE id = ?", serials)
        last = audit.head(db)
        steps = db.execute(
            "SELECT body, event.state, time, reason, detail FROM event "
            "JOIN command ON command.id = event.command ORDER BY seq"
        )
        for step in steps:
            last = audit.append(db, last, _row(*step))
        note = Note(
            deed=Deed.CONVERTED,
            time=now,
            origin="gateway",
            detail="from format 1; the rows before this one had no hashes until now",
        )
        audit.append(db, last, audit.of_note(note))
        db.execute("DROP TABLE event")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _row(body: bytes, state: str, time: float, reason: str | None, detail: str) -> AuditRow:
    command = _command(body)
    return AuditRow(
        0,
        audit.stamp(datetime.fromtimestamp(time, UTC)),
        state,
        command.serial,
        command.setpoint,
        msgspec.json.encode(command.value).decode(),
        reason or "",
        command.origin,
        detail,
        command.id,
        0,
        0,
    )


def _command(body: bytes) -> Command:
    return msgspec.json.decode(body, type=Command)


def _statements(script: str) -> list[str]:
    """Split a script: `executescript` would commit what is under way."""
    found, begun = [], ""
    for line in script.splitlines():
        begun += line + "\n"
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    return found
