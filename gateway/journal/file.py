"""The journal's file: its tables, how it is opened, and what its errors mean."""

import errno
import sqlite3
from pathlib import Path
from typing import Final

from gateway.core import files
from gateway.journal import audit

VERSION: Final = 3
JOURNAL: Final = "journal.sqlite"
"""Its name in `data_dir`."""
BUSY: Final = 1.0
"""Seconds that SQLite waits where another process holds the file: less than a stop of the gateway may take."""
SCHEMA: Final = f"""
CREATE TABLE command (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, state TEXT NOT NULL,
    controller TEXT, receipt TEXT NOT NULL DEFAULT '', serial TEXT NOT NULL DEFAULT '', outcome BLOB,
    boot_id TEXT NOT NULL DEFAULT '', boot REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX command_open ON command (id) WHERE state IN ('accepted', 'sent');
CREATE INDEX command_receipt ON command (receipt, serial) WHERE receipt != '';
CREATE TABLE revert (
    serial TEXT NOT NULL, setpoint TEXT NOT NULL, value BLOB NOT NULL, due REAL NOT NULL,
    boot_id TEXT NOT NULL DEFAULT '', boot REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (serial, setpoint)
) WITHOUT ROWID;
CREATE TABLE setting (
    serial TEXT NOT NULL, setpoint TEXT NOT NULL, wish BLOB NOT NULL, value BLOB NOT NULL, time REAL NOT NULL,
    boot_id TEXT NOT NULL, boot REAL NOT NULL, succeeded INTEGER NOT NULL, certain INTEGER NOT NULL,
    confirmed INTEGER NOT NULL, command TEXT NOT NULL, ends REAL, PRIMARY KEY (serial, setpoint)
) WITHOUT ROWID;
CREATE TABLE writes (
    serial TEXT NOT NULL, setpoint TEXT NOT NULL, life INTEGER NOT NULL, day INTEGER NOT NULL, today INTEGER NOT NULL,
    PRIMARY KEY (serial, setpoint)
) WITHOUT ROWID;
{audit.SCHEMA}
{audit.HALTS_INDEX}
PRAGMA user_version = {VERSION};
"""
"""A column keeps its name, `wish` too, while the format is VERSION: journals that are there have it.

`boot_id` and `boot` say on the boot clock what `time` or `due` say on the wall clock. `writes` counts what wears
out: the memory of a device."""
OF_STEPS: Final = "id != '' AND state != 'rejected'"
"""Rows of `audit` that the index by command covers. A refusal is none of them: its id may be another's."""
_BUSY_WORDS: Final = (
    "another program has locked it (`fuser` says which); close that one, and a gateway that runs goes on by itself"
)
_WHAT_TO_DO: Final = {
    "SQLITE_FULL": "the disk is full; make room on it, and it goes on by itself",
    "SQLITE_READONLY": "it may not be written; make the file and its directory writable",
    "SQLITE_BUSY": _BUSY_WORDS,
    "SQLITE_LOCKED": _BUSY_WORDS,
    "SQLITE_IOERR": "the disk reports an error; look at the kernel's log and at the health of the disk",
    "SQLITE_CORRUPT": "it is damaged; restart the gateway, which puts it aside and goes on with what can be read of it",
    "SQLITE_NOTADB": "it is no journal; move the file away to begin with an empty one",
    "SQLITE_CANTOPEN": "check that its directory is there and may be written",
}
"""Primary result code → what is wrong and what to do (https://sqlite.org/rescode.html)."""
_UNKNOWN: Final = (
    "check that its directory is writable and has space, or move the file away to begin with an empty journal"
)


class JournalError(Exception):
    """The journal can't be read or written. The message says what to do."""


class DiskError(JournalError):
    """What holds the file is in the way, not the file itself."""


def in_words(path: Path, cannot: str, error: Exception) -> JournalError:
    """Return what went wrong with a journal, what that means and what to do. `cannot`: "used", "read", "written"."""
    advice = next((text for code, text in _WHAT_TO_DO.items() if code_of(error).startswith(code)), _UNKNOWN)
    damaged = code_of(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    return (JournalError if damaged else DiskError)(f"the command journal {path} can't be {cannot} ({error}): {advice}")


def code_of(error: Exception) -> str:
    """Return the name of SQLite's result code, or "" where there is none."""
    return getattr(error, "sqlite_errorname", None) or ""


def is_damage(error: Exception) -> bool:
    """Return whether an error says that the file's content is not what was written."""
    return code_of(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def is_unreadable(error: BaseException | None) -> bool:
    """Return whether an error says that the disk does not give what stands on it, or may do so later."""
    return isinstance(error, OSError | sqlite3.Error) and (
        code_of(error).startswith("SQLITE_IOERR") or getattr(error, "errno", None) == errno.EIO
    )


def connect(path: Path) -> sqlite3.Connection:
    """Open or create a file as every journal is: a commit returns once it is on the disk."""
    files.create(path)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY)
    try:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a file that is new
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 10000000")
    except BaseException:
        database.close()
        raise
    return database


def read_only(path: Path) -> sqlite3.Connection:
    """Open a file that may be damaged, and change nothing of it. What is no text comes back as what can be shown."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY)
    database.text_factory = lambda text: text.decode("utf-8", "replace")
    return database


def expect_format(database: sqlite3.Connection, path: Path) -> bool:
    """Make the tables of a file that is new; return whether it is. Raises JournalError for one of another format."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        create(database)
        return True
    if version != VERSION:
        raise of_another_format(path, version)
    return False


def of_another_format(path: Path, version: int) -> JournalError:
    """Return what a person is told of a journal that another version of the gateway wrote."""
    than = "an older" if version < VERSION else "a newer"
    return JournalError(
        f"the command journal {path} was written by {than} gateway (format {version}, this one knows {VERSION}); "
        "run that version, or move the file away to begin with an empty journal"
    )


def create(database: sqlite3.Connection) -> None:
    """Make the tables of a new journal."""
    database.executescript(f"BEGIN;{SCHEMA}COMMIT;")


def beside(path: Path, suffix: str) -> Path:
    """Return the file that belongs to a journal: `-wal`, `-shm`, `.head`."""
    return path.with_name(path.name + suffix)
