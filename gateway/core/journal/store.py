"""The journal's side that blocks: one connection that writes, one that reads, each for a thread of its own."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.core.journal import audit
from gateway.core.journal.audit import AuditRow, Head
from gateway.core.journal.convert import convert
from gateway.core.journal.file import VERSION, JournalError, beside, connect, in_words, is_damage, read_only
from gateway.core.journal.head import HeadFile, missing
from gateway.core.journal.rescue import astray, doubt, finish, rescue, unsound
from gateway.core.journal.retention import Keep, cut

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], object]

log = structlog.get_logger("journal")


class Store:
    """The file, open. Only `read` may run beside the rest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._head = Head(0, audit.GENESIS)
        """As of the transaction that runs."""
        self._noted = HeadFile(path)
        self._file = 0
        """The inode."""

    def open(self, now: datetime) -> Head:
        """Open or create the file; where it is damaged, go on with what can be read of it. Raises JournalError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            finish(self.path)
            rescued = self._check(now)
            self._writer = connect(self.path)
            convert(self._writer, self.path, now)
            if not rescued:
                self._look_for_loss(now)
            self._reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._reader.execute("PRAGMA query_only = ON")
            self._file = self.path.stat().st_ino
            self._head = audit.head(self._reader)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise in_words(self.path, "used", error) from error
        except BaseException:
            self.close()
            raise
        self._noted.write(self._head)
        return self._head

    def close(self) -> None:
        """Close the file."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None
        self._noted.close()

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
        return removed

    def append(self, database: sqlite3.Connection, row: AuditRow) -> None:
        """Write a row of the audit, in the transaction that runs."""
        self._head = audit.append(database, self._head, row)

    def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `read` finds. Raises JournalError."""
        try:
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
        log_file = beside(self.path, "-wal")
        unclean = log_file.exists() and log_file.stat().st_size > 0
        try:
            with closing(read_only(self.path)) as db:
                damage = _damage(db, thorough=unclean)
        except UnicodeDecodeError:  # even the text of SQLite's own error quotes what is no text
            damage = "names of tables are not text"
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            damage = str(error)
        if damage:
            aside = rescue(self.path, now)
            log.error(
                "the command journal was damaged; going on with what could be read of it, open commands end as unknown",
                damage=damage,
                kept_as=str(aside),
            )
        return bool(damage)

    def _look_for_loss(self, now: datetime) -> None:
        """Carry nothing out that may have been: what was noted after the last commit must be there."""
        database = self._opened(self._writer)
        lost = missing(database, self._noted.read())
        if not lost:
            return
        database.execute("BEGIN IMMEDIATE")
        count = doubt(database, now, f"of the journal {lost}")
        database.execute("COMMIT")
        log.error("the command journal lost something; its open commands end as unknown", lost=lost, commands=count)

    def _is_in_place(self) -> bool:
        try:
            return os.stat(self.path).st_ino == self._file  # noqa: PTH116 - half the time of Path.stat, at each commit
        except FileNotFoundError:
            return False

    @staticmethod
    def _opened(connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise JournalError("the command journal is not open")
        return connection


def _damage(db: sqlite3.Connection, *, thorough: bool) -> str:
    """Return what is wrong with a file, "" for nothing. Raises sqlite3.DatabaseError."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if thorough:
        # Not quick_check: it does not compare indexes with their tables, and one of them says what is open.
        found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if found != "ok":
            return found
    if version != VERSION:
        return ""
    if bad := unsound(db):
        return f"open commands are not what was accepted: {', '.join(bad)}"
    if thorough and (bad := astray(db)):
        return f"commands do not stand where the audit says: {', '.join(bad)}"
    return ""
