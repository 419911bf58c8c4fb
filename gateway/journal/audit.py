"""The audit: who asked for what and what became of it, each row chained to the one before by a hash.

A row's hash is SHA-256 over the 32 bytes of the hash before it and the row's canonical bytes: a JSON array of its
fields in the order of `AuditRow`, without blanks, UTF-8, and escaped only what JSON must escape. All of them are
strings and integers, so any language writes the same bytes. The first hash of all is `GENESIS`.
"""

import hashlib
import sqlite3
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from gateway.core.model import Command, CommandEvent, CommandState, Origin, Reason, Value, parent_of

AFTER_RECOVERED: Final = 10
"""Rows that can be written between a recovery and the halt that comes of it, with many to spare."""
GENESIS: Final = bytes(32)
"""What stands for the hash before the first row."""
COLUMNS: Final = "seq, time, state, serial, setpoint, value, reason, origin, detail, id, verified, correction"
SCHEMA: Final = """
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, time TEXT NOT NULL, state TEXT NOT NULL, serial TEXT NOT NULL, setpoint TEXT NOT NULL,
    value TEXT NOT NULL, reason TEXT NOT NULL, origin TEXT NOT NULL, detail TEXT NOT NULL, id TEXT NOT NULL,
    verified INTEGER NOT NULL, correction INTEGER NOT NULL, hash BLOB NOT NULL
);
CREATE INDEX audit_id ON audit (id) WHERE id != '' AND state != 'rejected';
CREATE TABLE audit_cut (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL);
INSERT INTO audit_cut VALUES (1, 0, zeroblob(32));
CREATE TRIGGER audit_stands BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit WHEN OLD.seq > (SELECT seq FROM audit_cut) BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
"""
"""`audit_cut` holds the number and the hash of the last row that retention has cut; 0 before it cut any."""
_INSERT: Final = f"INSERT INTO audit ({COLUMNS}, hash) VALUES (?{', ?' * 12})"  # noqa: S608 - constants


HALTS: Final = "state IN ('halted', 'resumed')"
"""Rows that say whether control is halted; there is an index of them."""
HALTS_INDEX: Final = f"CREATE INDEX IF NOT EXISTS audit_halts ON audit (seq) WHERE {HALTS};"
"""Made last, so that all else stands on the pages where it stood in journals that were made without it."""


class AuditAction(StrEnum):
    """What stands in the audit beside the steps of commands."""

    STARTED = "started"
    STOPPED = "stopped"
    HALTED = "halted"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    DRIFTED = "drifted"
    """A value in force was changed by somebody else."""
    CONTRADICTED = "contradicted"
    """A result came that says otherwise than the command's end, and changed nothing."""
    CUT = "cut"
    """Retention deleted the oldest rows. `value` is the number of the last one, `id` its hash."""
    RECOVERED = "recovered"
    """The file was damaged. What is before this row is what could be read of it."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something to keep in the audit that is no step of a command."""

    action: AuditAction
    time: datetime
    origin: Origin
    detail: str = ""
    serial: str = ""
    setpoint: str = ""
    value: Value = None
    id: str = ""
    """The command it is about, if any."""


class AuditRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row. The order of the fields is that of the canonical bytes."""

    seq: int
    """1, 2, 3 … without a gap."""
    time: str
    """RFC 3339, UTC, microseconds."""
    state: str
    """A CommandState or a Deed."""
    serial: str
    setpoint: str
    value: str
    """As JSON."""
    reason: str
    """Why it was rejected, else ""."""
    origin: str
    detail: str
    id: str
    verified: int
    """1 where a read-back showed the value in force, else 0."""
    correction: int
    """1 where it is no step, but what became known after the end of a command; else 0."""

    @property
    def moment(self) -> datetime:
        """The time as one. Raises ValueError where it is none."""
        return datetime.fromisoformat(self.time)

    @property
    def parent(self) -> str:
        """Id of the command of a fleet of which this one carries out a part; "" for none."""
        return parent_of(Origin(self.origin))

    @property
    def plain_value(self) -> Value:
        """The value as it was. Raises msgspec.DecodeError."""
        value: Value = msgspec.json.decode(self.value, type=Value)
        return value


class Head(msgspec.Struct, frozen=True):
    """Where the chain stands: number and hash of its newest row."""

    seq: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"


def of_event(event: CommandEvent) -> AuditRow:
    """Return a step of a command as a row without its number."""
    command = event.command
    return AuditRow(
        0,
        stamp(event.time),
        event.state.value,
        command.serial,
        command.setpoint,
        _json(command.value),
        event.reason.value if event.reason else "",
        str(command.origin),
        event.detail,
        command.id,
        int(event.verified),
        int(event.correction),
    )


def of_note(note: Note) -> AuditRow:
    """Return a note as a row without its number."""
    return AuditRow(
        0,
        stamp(note.time),
        note.action.value,
        note.serial,
        note.setpoint,
        _json(note.value),
        "",
        str(note.origin),
        note.detail,
        note.id,
        0,
        0,
    )


def to_event(row: AuditRow, command: Command) -> CommandEvent:
    """Return a row as the step of a command that it is."""
    return CommandEvent(
        command=command,
        state=CommandState(row.state),
        time=row.moment,
        reason=Reason(row.reason) if row.reason else None,
        detail=row.detail,
        verified=bool(row.verified),
        correction=bool(row.correction),
    )


def stamp(moment: datetime) -> str:
    """Return a time as rows hold it: as text these sort by time."""
    moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='microseconds')[:-6]}Z"


def canonical(row: AuditRow) -> bytes:
    """Return the bytes of a row that are hashed. Raises UnicodeEncodeError."""
    return msgspec.json.encode(row)


def chained(before: bytes, row: AuditRow) -> bytes:
    """Return the hash of a row that follows the one with the hash `before`."""
    return hashlib.sha256(before + canonical(row)).digest()


def head(db: sqlite3.Connection) -> Head:
    """Return the newest row's number and hash, or those of the last row cut where all are."""
    newest = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(*(newest or db.execute("SELECT seq, hash FROM audit_cut").fetchone()))


def ends_whole(db: sqlite3.Connection) -> bool:
    """Return whether the newest row follows on from the one before it, or from what was cut."""
    cut = db.execute("SELECT seq, hash FROM audit_cut").fetchone()
    rows = db.execute(f"SELECT {COLUMNS}, hash FROM audit ORDER BY seq DESC LIMIT 2").fetchall()  # noqa: S608 - constants
    heads = [*((fields[0], digest) for *fields, digest in rows), *([cut] if cut else [])][:2]
    if not cut or not all(type(seq) is int and type(digest) is bytes for seq, digest in heads):
        return False
    if not rows:
        return True
    *fields, digest = rows[0]
    try:
        return bool(fields[0] == heads[1][0] + 1 and chained(heads[1][1], AuditRow(*fields)) == digest)
    except UnicodeEncodeError:
        return False


def is_recovered(db: sqlite3.Connection) -> bool:
    """Return whether of the newest rows one says that something was lost, and none after it of a halt."""
    for (state,) in db.execute("SELECT state FROM audit ORDER BY seq DESC LIMIT ?", (AFTER_RECOVERED,)):
        if state in (AuditAction.RECOVERED, AuditAction.HALTED, AuditAction.RESUMED):
            return bool(state == AuditAction.RECOVERED)
    return False


def halt_in_force(db: sqlite3.Connection) -> AuditRow | None:
    """Return the row of the halt after which nobody has resumed; None where there is none."""
    found = db.execute(f"SELECT {COLUMNS} FROM audit WHERE {HALTS} ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608 - constants
    row = AuditRow(*found) if found else None
    return row if row and row.state == AuditAction.HALTED else None


def ends_open(db: sqlite3.Connection) -> bool:
    """Return whether there are rows, and the newest one does not say that the gateway stopped."""
    newest = db.execute("SELECT state FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return newest is not None and newest[0] != AuditAction.STOPPED


def append(db: sqlite3.Connection, last: Head, row: AuditRow) -> Head:
    """Write a row after `last`, in the caller's transaction; return it as the new head."""
    fields = (last.seq + 1, *msgspec.structs.astuple(row)[1:])
    digest = hashlib.sha256(last.hash + msgspec.json.encode(fields)).digest()  # as `chained`, in half the time
    db.execute(_INSERT, (*fields, digest))
    return Head(last.seq + 1, digest)


def _json(value: Value) -> str:
    if isinstance(value, float) and value - value != 0:
        return f'"{value}"'  # JSON has no NaN and no infinity, and what was refused is to be seen
    return msgspec.json.encode(value).decode()
