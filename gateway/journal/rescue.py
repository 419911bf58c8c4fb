# ruff: noqa: S608 - statements are put together from constants alone
"""What becomes of a damaged journal: what can be read of it goes on in a new file, and the damaged one is kept.

Nobody can say which of its last writes are missing. So no command that is open in it is carried out: each ends as
unknown. Dead-man's timers go on: a revert too many does less harm than one that never comes.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from gateway.core.controller import Outcome
from gateway.core.model import GATEWAY, Command, CommandState, Origin, Value, custom, decode_command, encode_command
from gateway.journal import audit
from gateway.journal.audit import COLUMNS, AuditAction, AuditRow, Note
from gateway.journal.file import OF_STEPS, beside, code_of, connect, create, read_only
from gateway.journal.sound import fits

WHY: Final = "the journal was damaged, so nobody can say whether this was carried out"
LATEST: Final = 100_000
"""Rows of the audit that are compared with the commands after a crash. What is open came within them."""
_RESCUED: Final = ".rescued"
_REPAIRED: Final = ".repaired"
PAGE: Final = 4096
"""Bytes of a page of SQLite's: https://sqlite.org/fileformat.html"""
_COMMAND: Final = "id, body, state, controller, receipt, serial, outcome"
_REVERT: Final = "serial, setpoint, value, due"
_MORE: Final = {"writes": "serial, setpoint, life, day, today"}
"""Tables that are copied as far as they can be read. What was set is not among them: nobody knows how old it is."""
_FIELDS: Final = (int, str, str, str, str, str, str, str, str, str, int, int)
"""Types of a row of the audit."""
_GOING_ON: Final = ("accepted", "sent")
_ENDED: Final = ("succeeded", "failed", "unknown", "expired", "superseded")
_OPEN: Final = ", ".join(map(repr, _GOING_ON))
_ENDS: Final = ", ".join(map(repr, _ENDED))


def rescue(path: Path, now: datetime) -> Path:
    """Put a damaged journal aside, and a new one with what can be read in its place; return where the old one is.

    Raises OSError or sqlite3.Error where that can't be done, e.g. for want of room; the old one is in its place then.
    """
    aside, new = beside(path, f".damaged-{now:%Y%m%dT%H%M%SZ}"), beside(path, _RESCUED)
    _remove(new)
    source = _source(path)
    try:
        # Reads a file also where it is shorter than its first page says (https://sqlite.org/recovery.html).
        source.execute("PRAGMA writable_schema = ON")
        target = connect(new)
        try:
            create(target)
            target.execute("BEGIN")
            _copy(source, target, now, aside.name)
            target.execute("COMMIT")
        finally:
            target.close()
    finally:
        source.close()
        _remove(beside(path, _REPAIRED))
    path.rename(aside)
    finish(path, aside)
    return aside


def _source(path: Path) -> sqlite3.Connection:
    """Open a damaged file to be read; where its first page is no database's, a copy that has one.

    That page holds nothing but which tables there are and where each begins, which is the same in all journals.
    """
    source = read_only(path)
    try:
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        source.close()
        if not code_of(error).startswith("SQLITE_NOTADB"):
            return read_only(path)
    else:
        return source
    copy, size = beside(path, _REPAIRED), path.stat().st_size
    for suffix in ("", "-wal"):
        if beside(path, suffix).exists():
            shutil.copyfile(beside(path, suffix), beside(copy, suffix))
    for vacuums in (True, False):  # journals of earlier versions do not, and have their tables elsewhere
        page = _first_page(vacuums=vacuums)
        page[28:32] = (size // PAGE).to_bytes(4, "big")  # how many pages there are
        with copy.open("r+b") as file:
            file.write(page)
        source = read_only(copy)
        try:
            source.execute("SELECT seq, hash FROM audit_cut").fetchone()
            source.execute("SELECT * FROM audit ORDER BY seq LIMIT 1").fetchone()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            source.close()
        else:
            return source
    return read_only(copy)


def _first_page(*, vacuums: bool) -> bytearray:
    """Return the first page of an empty journal."""
    with TemporaryDirectory(prefix="sems-journal-") as directory:
        model = Path(directory) / "model"
        if not vacuums:
            database = sqlite3.connect(model)
            database.execute("PRAGMA auto_vacuum = NONE")
            database.execute("VACUUM")
            database.close()
        database = connect(model)
        create(database)
        database.close()
        return bytearray(model.read_bytes()[:PAGE])


def finish(path: Path, aside: Path | None = None) -> None:
    """Put the new file in the place of the old one, which is away; also where a crash came between the two."""
    new = beside(path, _RESCUED)
    if path.exists() or not new.exists():
        return
    log = beside(path, "-wal")
    if log.exists() and not log.stat().st_size:
        log.unlink()
    elif log.exists():  # the old file's: SQLite must not take it for the new one's
        log.rename(beside(aside or beside(path, ".damaged"), "-wal"))
    beside(path, "-shm").unlink(missing_ok=True)
    new.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark_unknown(db: sqlite3.Connection, now: datetime, why: str) -> int:
    """Have every open command end as unknown, in the caller's transaction; return how many that are."""
    outcome = msgspec.json.encode(Outcome(CommandState.UNKNOWN, WHY))
    found = db.execute(
        f"UPDATE command SET outcome = ? WHERE state IN ({_OPEN}) AND outcome IS NULL",
        (outcome,),
    ).rowcount
    note = Note(action=AuditAction.RECOVERED, time=now, origin=GATEWAY, detail=why)
    audit.append(db, audit.head(db), audit.of_note(note))
    return found


def unsound(db: sqlite3.Connection) -> list[str]:
    """Return the open commands that can't be read, or that are not what the audit says was accepted."""
    rows = db.execute(f"SELECT {_COMMAND} FROM command WHERE state IN ({_OPEN})").fetchall()
    return [str(row[0]) for row in rows if not _is_sound(db, row)]


def orphaned(db: sqlite3.Connection) -> list[str]:
    """Return the commands that do not stand where the audit's latest rows say they do, or are not there at all."""
    rows = db.execute(
        "SELECT audit.id FROM ("
        f"  SELECT id, state, max(seq) FROM audit WHERE seq > ? AND {OF_STEPS} AND correction = 0"
        f"  AND state IN ({_OPEN}, {_ENDS}) GROUP BY id"
        ") AS audit LEFT JOIN command ON command.id = audit.id WHERE command.state IS NOT audit.state",
        (audit.head(db).seq - LATEST,),
    )
    return [str(row[0]) for row in rows]


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, now: datetime, aside: str) -> None:
    last, fitting, others = _copy_audit(source, target)
    for row in _readable(source, "command", _COMMAND, "id"):
        if row[2] in _ENDED or (row[2] in _GOING_ON and _is_sound(target, row)):
            target.execute(f"INSERT OR IGNORE INTO command ({_COMMAND}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    for row in _readable(source, "revert", _REVERT, "serial, setpoint"):
        if fits("revert", _REVERT.split(", "), row):
            target.execute(f"INSERT OR IGNORE INTO revert ({_REVERT}) VALUES (?, ?, ?, ?)", row)
    for table, columns in _MORE.items():
        for row in _readable(source, table, columns, "serial, setpoint"):
            if fits(table, columns.split(", "), row):
                marks = ", ".join("?" * len(row))
                target.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", row)
    # The audit says that a command goes on, and the command says otherwise or can't be read: it ends here and now.
    lost = target.execute(
        f"SELECT {COLUMNS}, max(seq) FROM audit WHERE {OF_STEPS} AND correction = 0 AND state IN ({_OPEN}, {_ENDS}) "
        f"AND id NOT IN (SELECT id FROM command WHERE state IN ({_OPEN})) GROUP BY id HAVING state IN ({_OPEN})"
    ).fetchall()
    for *fields, _ in lost:
        told = AuditRow(*fields)
        last = audit.append(target, last, _ended(told, now))
        target.execute(
            f"INSERT INTO command ({_COMMAND}) VALUES (?, ?, 'unknown', NULL, '', ?, NULL) "
            "ON CONFLICT (id) DO UPDATE SET state = excluded.state",
            (told.id, encode_command(_as_told(told, now)), told.serial),
        )
    mark_unknown(
        target,
        now,
        f"the journal was damaged, and is kept as {aside}; {fitting} rows of it were in order, {others} more could "
        f"be read and are chained anew; {len(lost)} open commands could not be read",
    )


def _ended(row: AuditRow, now: datetime) -> AuditRow:
    end = {"time": audit.stamp(now), "state": CommandState.UNKNOWN.value, "verified": 0, "detail": WHY}
    return msgspec.structs.replace(row, **end)


def _as_told(row: AuditRow, now: datetime) -> Command:
    """Return a command as far as the audit knows it, so that its id stays taken."""
    return Command(
        id=row.id,
        serial=row.serial,
        setpoint=row.setpoint,
        value=row.plain_value,
        origin=Origin(row.origin),
        created=row.moment,
        expires=now,
    )


def _copy_audit(source: sqlite3.Connection, target: sqlite3.Connection) -> tuple[audit.Head, int, int]:
    """Copy rows: as they are while they fit the chain, and chained anew from the first that does not."""
    for seq, digest in _readable(source, "audit_cut", "seq, hash", "one"):
        if isinstance(seq, int) and isinstance(digest, bytes):
            target.execute("UPDATE audit_cut SET seq = ?, hash = ?", (seq, digest))
    last = audit.head(target)
    fitting = others = 0
    for *fields, digest in _readable(source, "audit", f"{COLUMNS}, hash", "seq"):
        if tuple(map(type, fields)) != _FIELDS:
            continue
        row = AuditRow(*fields)
        if not _decodes(row.value, Value) or not _is_time(row):
            continue
        fits = not others and row.seq == last.seq + 1 and audit.chained(last.hash, row) == digest
        fitting, others = fitting + fits, others + (not fits)
        last = audit.append(target, last, row)
    return last, fitting, others


def _readable(db: sqlite3.Connection, table: str, columns: str, key: str) -> Iterator[tuple[Any, ...]]:
    """Read a table in the order of its key: from its beginning and, past what is damaged, what its end still gives."""
    parts = key.split(", ")
    descending = ", ".join(f"{part} DESC" for part in parts)
    select = f"SELECT {key}, {columns} FROM {table} NOT INDEXED ORDER BY "
    reached: tuple[Any, ...] | None = None
    try:
        for row in db.execute(select + key):
            if None not in row[: len(parts)]:
                reached = row[: len(parts)]
                yield row[len(parts) :]
    except (sqlite3.Error, UnicodeDecodeError):
        pass
    else:
        return
    tail = []
    try:
        for row in db.execute(select + descending):
            at = row[: len(parts)]
            if reached is not None and None not in at and at <= reached:
                break
            if None not in at:
                tail.append(row[len(parts) :])
    except (sqlite3.Error, UnicodeDecodeError, TypeError):  # what is no key of this table can't be compared with one
        pass
    yield from reversed(tail)


def _is_sound(db: sqlite3.Connection, row: tuple[Any, ...]) -> bool:
    id_, body, _, _, _, _, outcome = row
    if not _decodes(body, Command) or (outcome is not None and not _decodes(outcome, Outcome)):
        return False
    command = decode_command(body)
    accepted = db.execute(
        "SELECT serial, setpoint, value, origin FROM audit "
        f"WHERE id = ? AND {OF_STEPS} AND state = 'accepted' ORDER BY seq LIMIT 1",
        (id_,),
    ).fetchone()
    said = (command.serial, command.setpoint, msgspec.json.encode(command.value).decode(), command.origin)
    return bool(command.id == id_ and accepted == said)


def _is_time(row: AuditRow) -> bool:
    try:
        return row.moment.tzinfo is not None
    except ValueError:
        return False


def _decodes(body: Any, type_: Any) -> bool:
    try:
        msgspec.json.decode(body, type=type_, dec_hook=custom)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return False
    return True


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        beside(path, suffix).unlink(missing_ok=True)
