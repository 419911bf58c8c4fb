"""The journal's side that blocks: one connection that writes, one that reads, each for a thread of its own."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

import structlog

from gateway.core import files
from gateway.journal import audit
from gateway.journal.audit import AuditRow, Head
from gateway.journal.file import (
    BUSY,
    VERSION,
    JournalError,
    beside,
    connect,
    expect_format,
    in_words,
    is_damage,
    of_another_format,
    read_only,
)
from gateway.journal.head import HeadFile, missing
from gateway.journal.rescue import finish, mark_unknown, orphaned, rescue, unsound
from gateway.journal.retention import Keep, cut, give_back
from gateway.journal.sound import unreadable
from gateway.journal.writes import Write

T = TypeVar("T")

LARGE: Final = 16 * 2**20
"""Bytes from which on a file is checked while the gateway runs already, not before."""
LOOK_AFTER: Final = 100_000
"""Steps of SQLite's between two looks whether a check is to end: some milliseconds."""
MEBIBYTE: Final = 2**20

log = structlog.get_logger("journal")


class Store:
    """The file, open. Only `read` may run beside the rest."""

    def __init__(self, path: Path, others: Sequence[str] = ()) -> None:
        self.path = path
        self._others = others
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._reads = threading.Lock()
        """Held while `_reader` is in use, which is on another thread: to close it then would end the process."""
        self._head = Head(0, audit.GENESIS)
        """As of the transaction that runs."""
        self._noted = HeadFile(path)
        self._copy: TemporaryDirectory[str] | None = None
        """Where it is read from while the file can't be opened."""
        self._why: JournalError | None = None
        """Why it can't."""
        self._file = 0
        """The inode."""
        self.lost = ""
        """What `open` found to be missing or damaged, in words; "" where all is as it was written."""
        self.progress = ""
        """How far a check has come."""
        self._interrupted = False

    def needs_long_look(self) -> bool:
        """Return whether it is large and was not closed in good order, or is damaged: to open it takes long then."""
        try:
            large = self.path.stat().st_size >= LARGE
            return large and (self._is_unclean() or bool(self._damage(thorough=False)))
        except (OSError, sqlite3.Error):  # `open` finds it too, and says so
            return False

    def open_unchecked(self) -> None:
        """Read it as it stands, as far as that goes, and take no write. Raises JournalError for another format."""
        self._why = JournalError(f"the command journal {self.path} is being checked")
        database = None
        try:
            # Never to be written: the last one that may be folds the log in, and the file would look as in good order.
            database = read_only(self.path)
            version = database.execute("PRAGMA user_version").fetchone()[0]
        except (sqlite3.Error, UnicodeDecodeError):
            if database is not None:
                database.close()
            return
        if version != VERSION:
            database.close()
            raise of_another_format(self.path, version)
        self._reader = database

    @property
    def can_be_read(self) -> bool:
        """Whether `read` has something to read."""
        return self._reader is not None

    def interrupt(self) -> None:
        """Have a check that runs end soon, with an error. May be called beside it."""
        self._interrupted = True

    def open(self, now: datetime) -> Head:
        """Open or create the file; where it is damaged, go on with what can be read of it. Raises JournalError."""
        writer = reader = None
        try:
            files.make_directory(self.path.parent)
            finish(self.path)
            trace, log_is_there = self._trace(), self._is_unclean()
            rescued = self._check(now)
            writer = connect(self.path)
            is_new = expect_format(writer, self.path)
            writer.execute(audit.HALTS_INDEX)
            if not rescued:
                self._look_for_loss(writer, now, trace if is_new else "", log_is_there=log_is_there)
            if not self.lost and audit.is_recovered(writer):
                self.lost = "something was lost before, and control was not closed then"
            # What can't be written is found out now, not with the first command.
            writer.execute("BEGIN IMMEDIATE")
            writer.execute(f"PRAGMA user_version = {VERSION}")
            writer.execute("COMMIT")
            reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY)
            reader.execute("PRAGMA query_only = ON")
            file, head = self.path.stat().st_ino, audit.head(reader)
        except BaseException as error:
            for connection in (reader, writer):
                if connection is not None:
                    connection.close()
            if isinstance(error, (OSError, sqlite3.Error)):
                self._why = in_words(self.path, "used", error)
                raise self._why from error
            raise
        with self._reads:
            self._close()
            self._writer, self._reader, self._file, self._head = writer, reader, file, head
        self._noted.write(self._head)
        return self._head

    def open_copy(self) -> bool:
        """Read what there is from a copy elsewhere, where the file itself can't be opened; False where there is none.

        Of a read-only disk SQLite can't read the newest commits in place: they stand in the log beside the file.
        """
        if not self.path.exists():
            return False
        directory = self._copy = TemporaryDirectory(prefix="sems-journal-")
        copy = Path(directory.name) / self.path.name
        try:
            for suffix in ("", "-wal"):
                if beside(self.path, suffix).exists():
                    shutil.copyfile(beside(self.path, suffix), beside(copy, suffix))
            database = connect(copy)
            expect_format(database, copy)
        except (OSError, sqlite3.Error, JournalError) as error:
            log.error("what the command journal has can't be read either", error=str(error))
            directory.cleanup()
            return False
        self._reader = database
        database.execute("PRAGMA query_only = ON")
        return True

    def close(self) -> None:
        """Close the file, once a read that is under way has ended."""
        with self._reads:
            self._close()

    def _close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None
        self._noted.close()
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def commit(self, rows: Sequence[AuditRow], writes: Sequence[Write], keep: Keep | None = None) -> int:
        """Write all of it, or nothing, and wait for the disk; with `keep`, cut what is too old as well.

        Returns how many rows that cut. Raises JournalError.
        """
        database = self._opened(self._writer)
        try:
            if not self._is_in_place():
                raise JournalError(
                    f"the command journal {self.path} was moved or deleted while the gateway runs; put it back, or "
                    "restart the gateway to begin with an empty one"
                )
            database.execute("BEGIN IMMEDIATE")
            self._head = audit.head(database)
            for row in rows:
                self.append(database, row)
            for write in writes:
                write(database)
            self._head, removed = cut(database, keep, self._head) if keep else (self._head, 0)
            database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise in_words(self.path, "written", error) from error
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        self._noted.write(self._head)
        if keep is not None:
            self._give_back(database)
        return removed

    def _give_back(self, database: sqlite3.Connection) -> None:
        try:
            give_back(database)
        except sqlite3.Error as error:  # what was to be written is; the next one tries again
            log.debug("free pages can't be given back", error=str(error))

    def append(self, database: sqlite3.Connection, row: AuditRow) -> None:
        """Write a row of the audit, in the transaction that runs."""
        self._head = audit.append(database, self._head, row)

    def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` finds. Raises JournalError."""
        try:
            with self._reads:
                return read(self._opened(self._reader))
        except sqlite3.Error as error:
            raise in_words(self.path, "read", error) from error

    def _check(self, now: datetime) -> bool:
        """Put a damaged file aside; return whether it was.

        All pages are looked at after a crash alone, for that takes four seconds a gigabyte, and longer where the disk
        is slower.
        """
        if not self.path.exists() or not self.path.stat().st_size:
            return False
        unclean = self._is_unclean()
        if unclean and self.path.stat().st_size >= LARGE:
            self._read_through()
        damage = self._damage(thorough=unclean)
        if damage:
            self.progress = "it is damaged; what can be read is copied"
            aside = rescue(self.path, now)
            self.lost = f"it was damaged ({damage}) and is kept as {aside}"
            log.error(
                "the command journal was damaged; going on with what could be read of it, open commands end as unknown",
                damage=damage,
                kept_as=str(aside),
            )
        return bool(damage)

    def _is_unclean(self) -> bool:
        log_file = beside(self.path, "-wal")
        return log_file.exists() and log_file.stat().st_size > 0

    def _damage(self, *, thorough: bool) -> str:
        """Return what is wrong with the file, "" for nothing. Raises sqlite3.Error where it can't be opened."""
        try:
            with closing(read_only(self.path)) as db:
                db.set_progress_handler(lambda: self._interrupted, LOOK_AFTER)
                return _damage(db, thorough=thorough)
        except UnicodeDecodeError:  # even the text of SQLite's own error quotes what is no text
            return "names of tables are not text"
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return str(error)

    def _read_through(self) -> None:
        """Read the file from its beginning to its end: a card gives that fast, and what a check wants next slowly."""
        size, done = self.path.stat().st_size, 0
        with self.path.open("rb", buffering=0) as file:
            while not self._interrupted and (part := len(file.read(MEBIBYTE))):
                done += part
                self.progress = f"{100 * done // size} % of {size // MEBIBYTE} MiB read"
        self.progress = f"{size // MEBIBYTE} MiB are read; tables and indexes are compared"

    def _trace(self) -> str:
        """Return the name of a file that shows that a journal was here, "" for none. Before it is opened."""
        log_file = beside(self.path, "-wal")
        if self._is_unclean() and not (self.path.exists() and self.path.stat().st_size):
            return log_file.name
        if self._noted.path.exists() and self._noted.read() is None:
            return self._noted.path.name
        found = (path.name for pattern in self._others for path in self.path.parent.glob(pattern))
        return next(found, "")

    def _look_for_loss(self, database: sqlite3.Connection, now: datetime, trace: str, *, log_is_there: bool) -> None:
        """Carry nothing out that may have been: what was noted after the last commit must be there.

        `trace` is a file that only a gateway with a journal leaves, where this journal is a new one.
        """
        noted = self._noted.read()
        lost = missing(database, noted)
        if not lost and trace:
            lost = f"all is missing: another one was here before, for {trace} is there"
        elif noted is None and not log_is_there and audit.ends_open(database):
            lost = "its end may be missing: the gateway did not stop in good order, and the log of changes is gone"
        if not lost:
            return
        database.execute("BEGIN IMMEDIATE")
        count = mark_unknown(database, now, f"of the journal {lost}")
        database.execute("COMMIT")
        self.lost = f"of it {lost}"
        log.error("the command journal lost something; its open commands end as unknown", lost=lost, commands=count)

    def _is_in_place(self) -> bool:
        try:
            return os.stat(self.path).st_ino == self._file  # noqa: PTH116 - half the time of Path.stat, at each commit
        except FileNotFoundError:
            return False

    def _opened(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise self._why or JournalError("the command journal is not open")
        return connection


def _damage(db: sqlite3.Connection, *, thorough: bool) -> str:
    """Return what is wrong with a file, "" for nothing. Raises sqlite3.DatabaseError."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if thorough:
        # Not quick_check: it does not compare indexes with their tables, and one of them says what is open.
        found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if found != "ok":
            return found
    if version == 0 and db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        return "it says of no format, and has tables"
    if version != VERSION:
        return ""
    if not audit.ends_whole(db):
        return "its newest row is not what was written"
    if bad := unsound(db):
        return f"open commands are not what was accepted: {', '.join(bad)}"
    if bad := unreadable(db):
        return f"rows have what no gateway writes there: {', '.join(bad)}"
    if thorough and (bad := orphaned(db)):
        return f"commands do not stand where the audit says: {', '.join(bad)}"
    return ""
