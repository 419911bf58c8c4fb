"""Snapshots on disk, in the order in which they came, within limits of size and age.

One SQLite file, WAL, synchronous=FULL, on a thread of its own, as the journal of commands. A write has happened once
it is awaited; what is dropped for a limit is counted.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Sequence
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
"""
_SIZE: Final = f"length(body) + length(serial) + {ROW_OVERHEAD}"


class StoreError(OSError):
    """The file can't be opened, read or written. The text says what to do."""


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
        self._database: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")

    async def open(self) -> bool:
        """Open or create the file; False where it was broken, and another was begun. Raises StoreError."""
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

        `now` is in seconds since 1970.
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
            return [Row(*row) for row in rows]

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
        except sqlite3.DatabaseError:
            # A power cut on a bad disk. Live data matter more than what can't be read any more.
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            self.path.replace(f"{self.path}.broken")
            self._begin()
            return False
        return True

    def _begin(self) -> None:
        files.create(self.path)
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY)
        try:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA journal_size_limit = 1000000")
            database.executescript(_SCHEMA)
            counts = database.execute(f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM snapshot").fetchone()  # noqa: S608
            self.waiting, self._bytes = counts
        except BaseException:
            database.close()
            raise
        self._database = database

    def _add(self, db: sqlite3.Connection, snapshots: Sequence[tuple[str, bytes]], now: float) -> range:
        rows = [(serial, now, body) for serial, body in snapshots]
        db.executemany("INSERT INTO snapshot (serial, stored, body) VALUES (?, ?, ?)", rows)
        (last,) = db.execute("SELECT max(seq) FROM snapshot").fetchone()
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
        self.dropped += self._delete(db, "stored < ?", (now - self._max_age,))

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
                db.execute("COMMIT")
            except BaseException:
                self.waiting, self._bytes, self.dropped = before
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
            return result

        try:
            return await self._on_thread(in_one_go)
        except sqlite3.Error as error:
            raise StoreError(f"the history {self.path} can't be written: {error}") from error

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
