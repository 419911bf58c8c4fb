"""Snapshots on disk, in the order in which they came, within limits of size and age.

One SQLite file, WAL, synchronous=FULL, on a thread of its own, as the journal of commands. A write has happened once
it is awaited; what is dropped for a limit is counted.

How old a snapshot is says the machine's boot clock, from the newest one on that an earlier run has stored. So no jump
of the wall clock makes any of them old, and time in which no gateway ran is not counted.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from gateway.core import files

T = TypeVar("T")

ROW_OVERHEAD: Final = 40
"""Bytes that SQLite needs for a row besides its serial number and body; estimated, and rather too many."""
TRIM_TO: Final = 0.98
"""Of the limit: then not every snapshot that comes has to drop one."""
BUSY: Final = 1.0
"""Seconds that SQLite waits where another process holds the file."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS snapshot (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, serial TEXT NOT NULL, stored REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS snapshot_stored ON snapshot (stored);
CREATE TABLE IF NOT EXISTS total (
    one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL, bytes INTEGER NOT NULL
);
"""
"""`total` says what there is, so that a start need not count it."""
_SIZE: Final = f"length(body) + length(serial) + {ROW_OVERHEAD}"


class StoreError(OSError):
    """The file can't be opened, read or written. The text says what to do."""


class _DamageError(sqlite3.DatabaseError):
    """SQLite takes a file for whole that is not."""


class Row(msgspec.Struct, frozen=True):
    """A snapshot that waits."""

    seq: int
    serial: str
    body: bytes


class Store:
    """A queue on disk."""

    def __init__(self, path: Path, max_bytes: int, max_age: float) -> None:
        self.path = path
        self.waiting = 0
        """How many there are."""
        self.dropped = 0
        """How many were dropped since this began."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._bytes = 0
        self._ahead: float | None = None
        """By how much the time of what is stored is ahead of the boot clock."""
        self._last = 0
        """The highest number that was given."""
        self.begun_anew = ""
        """Why another file was begun since this was last emptied: the old one was damaged."""
        self._database: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")

    async def open(self) -> bool:
        """Open or create the file; False where it was damaged, and another was begun. Raises StoreError."""
        try:
            return await self._on_thread(self._open)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the history {self.path} can't be used ({error}); check that the directory is writable and has "
                "space, or turn store off"
            ) from error

    async def close(self) -> None:
        """Close the file; what waits stays in it."""
        if self._database is not None:
            await self._on_thread(self._database.close)
            self._database = None
        self._thread.shutdown(wait=False)

    async def add(self, snapshots: Sequence[tuple[str, bytes]], now: float) -> range:
        """Keep (serial, body) pairs, and drop the oldest past the limits; returns their numbers. Raises StoreError.

        `now` is in seconds of the machine's boot clock.
        """
        return await self._write(lambda db: self._add(db, snapshots, now))

    async def oldest(self, most: int, after: int, now: float, without: Collection[str] = ()) -> list[Row]:
        """Return up to `most` that come after number `after`, oldest first; drop what is too old. Raises StoreError.

        `without`: serials of devices to leave out.
        """
        left_out = msgspec.json.encode(list(without)).decode()

        def read(db: sqlite3.Connection) -> list[Row]:
            self._drop_old(db, now)
            rows = db.execute(
                "SELECT seq, serial, body FROM snapshot WHERE seq > ? "
                "AND serial NOT IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?",
                (after, left_out, most),
            )
            found = [Row(*row) for row in rows]
            if not all(map(_is_whole, found)):
                raise _DamageError("a row has what nobody wrote")
            return found

        return await self._write(read)

    async def remove(self, seqs: Sequence[int]) -> None:
        """Forget these; unknown ones do no harm. Raises StoreError."""

        def write(db: sqlite3.Connection) -> None:
            for start in range(0, len(seqs), 500):
                part = seqs[start : start + 500]
                self._delete(db, f"seq IN ({','.join('?' * len(part))})", part)

        await self._write(write)

    # on the thread

    def _open(self) -> bool:
        files.make_directory(self.path.parent)
        try:
            self._begin()
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, TypeError, UnicodeDecodeError):
            self._begin_anew()
            return False
        return True

    def _begin(self) -> None:
        database = _connected(self.path)
        try:
            known = database.execute("SELECT count, bytes FROM total").fetchone()
            if known is None:
                known = database.execute(f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM snapshot").fetchone()  # noqa: S608
                database.execute("INSERT INTO total VALUES (1, ?, ?)", known)
            self.waiting, self._bytes = map(int, known)
            given = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'snapshot'").fetchone()
            self._last = max(self._last, int(given[0]) if given else 0)
        except BaseException:
            database.close()
            raise
        self._database = database

    def _begin_anew(self) -> None:
        """Put a file aside that a power cut damaged, and one with what can be read of it in its place."""
        if self._database is not None:
            self._database.close()
            self._database = None
        new = self.path.with_name(f"{self.path.name}.salvaged")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{new}{suffix}").unlink(missing_ok=True)
        database = _connected(new)
        try:
            database.execute("BEGIN")
            database.executemany("INSERT OR IGNORE INTO snapshot VALUES (?, ?, ?, ?)", _readable(self.path))
            database.execute("DELETE FROM sqlite_sequence WHERE name = 'snapshot'")
            given = database.execute("SELECT coalesce(max(seq), 0) FROM snapshot").fetchone()[0]
            # No number twice: what was sent before is known by it.
            database.execute("INSERT INTO sqlite_sequence VALUES ('snapshot', ?)", (max(given, self._last),))
            database.execute("COMMIT")
        finally:
            database.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self.path.replace(f"{self.path}.broken")
        new.replace(self.path)
        self._begin()

    def _add(self, db: sqlite3.Connection, snapshots: Sequence[tuple[str, bytes]], now: float) -> range:
        stored = self._time(db, now)
        rows = [(serial, stored, body) for serial, body in snapshots]
        db.executemany("INSERT INTO snapshot (serial, stored, body) VALUES (?, ?, ?)", rows)
        (last,) = db.execute("SELECT max(seq) FROM snapshot").fetchone()
        self._last = last
        self.waiting += len(rows)
        self._bytes += sum(len(body) + len(serial) + ROW_OVERHEAD for serial, body in snapshots)
        self._drop_old(db, now)
        if self._bytes > self._max_bytes:
            surplus = self._bytes - int(self._max_bytes * TRIM_TO)
            up_to, size = 0, 0
            for up_to, one in db.execute(f"SELECT seq, {_SIZE} FROM snapshot ORDER BY seq"):  # noqa: B007, S608
                size += one
                if size >= surplus:
                    break
            self.dropped += self._delete(db, "seq <= ?", (up_to,))
        return range(last - len(rows) + 1, last + 1)

    def _drop_old(self, db: sqlite3.Connection, now: float) -> None:
        self.dropped += self._delete(db, "stored < ?", (self._time(db, now) - self._max_age,))

    def _time(self, db: sqlite3.Connection, now: float) -> float:
        """Return what is written as the time of what is stored now."""
        if self._ahead is None:
            self._ahead = db.execute("SELECT coalesce(max(stored), 0) FROM snapshot").fetchone()[0] - now
        return now + self._ahead

    def _delete(self, db: sqlite3.Connection, which: str, values: Sequence[float]) -> int:
        sums = f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM snapshot WHERE {which}"  # noqa: S608
        count, size = db.execute(sums, values).fetchone()
        if count:
            db.execute(f"DELETE FROM snapshot WHERE {which}", values)  # noqa: S608
            self.waiting -= count
            self._bytes -= size
            if not self.waiting:
                db.execute("PRAGMA incremental_vacuum")
        return int(count)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def in_one_go() -> T:
            db = self._database
            if db is None:
                raise StoreError(f"the history {self.path} is not open")
            before = self.waiting, self._bytes, self.dropped
            try:
                db.execute("BEGIN IMMEDIATE")
                result = work(db)
                if before[:2] != (self.waiting, self._bytes):
                    db.execute("UPDATE total SET count = ?, bytes = ?", (self.waiting, self._bytes))
                db.execute("COMMIT")
            except BaseException as error:
                self.waiting, self._bytes, self.dropped = before
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                if _is_damage(error):
                    self._begin_anew()
                    self.begun_anew = str(error)
                raise
            return result

        try:
            return await self._on_thread(in_one_go)
        except sqlite3.Error as error:
            raise StoreError(f"the history {self.path} can't be written: {error}") from error

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _connected(path: Path) -> sqlite3.Connection:
    files.create(path)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY)
    try:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA journal_size_limit = 1000000")
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def _is_damage(error: BaseException) -> bool:
    name = getattr(error, "sqlite_errorname", None) or ""
    return isinstance(error, _DamageError) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _is_whole(row: Row) -> bool:
    """Return whether a row has what can have been written: JSON has no zeros."""
    types = (type(row.seq), type(row.serial), type(row.body))
    return types == (int, str, bytes) and b"\0" not in row.body


def _readable(path: Path) -> Iterator[tuple[int, str, float, bytes]]:
    """Yield the rows of a damaged file: from its beginning and, past what is damaged, what its end still gives."""
    select = "SELECT seq, serial, stored, body FROM snapshot NOT INDEXED ORDER BY seq"
    for order in ("", "DESC"):
        with (
            contextlib.suppress(sqlite3.Error, UnicodeDecodeError),
            contextlib.closing(sqlite3.connect(path)) as source,
        ):
            for seq, serial, stored, body in source.execute(f"{select} {order}"):
                if _is_whole(Row(seq, serial, body)) and isinstance(stored, float):
                    yield seq, serial, stored, body
