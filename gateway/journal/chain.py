"""Reads the audit back and proves it, beside a running gateway or without one."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from gateway.journal import audit
from gateway.journal.audit import COLUMNS, AuditAction, AuditRow, Head
from gateway.journal.file import VERSION, JournalError, beside, in_words, of_another_format
from gateway.journal.head import HeadFile

CHUNK: Final = 2_000
"""Rows read at a time: the gateway's log of changes can't be folded in while somebody reads."""
_TYPES: Final = (int, str, str, str, str, str, str, str, str, str, int, int, bytes)


class Break(msgspec.Struct, frozen=True):
    """A place where the chain does not hold."""

    seq: int
    """The row at which it shows; 0 where it is no row's."""
    what: str
    """What does not fit, for a person."""

    def __str__(self) -> str:
        return f"row {self.seq}: {self.what}" if self.seq else self.what


class AuditReader:
    """Walks the rows, oldest first, checks each as it goes, and keeps what did not fit.

    Use it as a context manager. Raises JournalError where the file can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.breaks: list[Break] = []
        self.rows = 0
        self.head = Head(0, audit.GENESIS)
        """After the walk: number and hash of the newest row."""
        self.cut = Head(0, audit.GENESIS)
        """After the walk: the last row that retention has cut."""
        self.start = 0
        """Number of the row before the first that was looked at; 0 where all were."""
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        if not self.path.exists():
            raise JournalError(f"there is no command journal {self.path} yet; it is made when the gateway first runs")
        try:
            self._database = self._connect()
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            self._close()
            raise in_words(self.path, "read", error) from error
        if version != VERSION:
            self._close()
            raise of_another_format(self.path, version)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def walk(self, noted: str = "", since: datetime | None = None) -> Iterator[AuditRow]:
        """Return all rows that can be read; what does not fit is in `breaks` afterwards.

        `noted` is a head that was printed earlier, `number:hash` or the hash alone: it must be in the chain. With
        `since` it begins at the first row of that time, without reading what is before, and proves no more.
        """
        # Before the rows: a gateway that runs may be ahead of it by the time they are read, never behind.
        last_noted = HeadFile(self.path).read()
        awaited = {last_noted.seq: last_noted.hash} if last_noted is not None and last_noted.seq else {}
        number, _, digest = noted.rpartition(":")
        wanted = digest.strip().lower()
        found = not wanted
        cut_told: Head | None = None
        began = False
        try:
            if since is not None:
                self.head, began = self._before(audit.stamp(since)), True
            while chunk := self._chunk():
                cut, rows = chunk
                if not began or cut.seq > self.head.seq:  # what was to come next was cut while this was read
                    self.head, began = cut, True
                    found = found or _is(cut, number, wanted)
                self.cut = cut
                for raw in rows:
                    row = self._checked(raw)
                    if row is None:
                        continue
                    yield row
                    if row.state == AuditAction.CUT:
                        cut_told = _told(row)
                    found = found or _is(self.head, number, wanted)
                    if awaited.pop(row.seq, self.head.hash) != self.head.hash:
                        self._broken(row.seq, "it is not the row that was written last here before")
                if not rows:
                    break
        except sqlite3.Error as error:
            self._broken(self.head.seq + 1, f"it can't be read ({error})")
        self._ends_well(cut_told, awaited, found=found, noted=noted)

    def _ends_well(self, cut_told: Head | None, awaited: dict[int, bytes], *, found: bool, noted: str) -> None:
        if self.cut.seq and cut_told != self.cut and not self.start:
            self._broken(0, f"rows up to {self.cut.seq} are gone, and no row of the audit says that they were cut")
        for seq in awaited:
            if seq > self.head.seq:
                self._broken(
                    0, f"the end is missing: it was written up to row {seq}, and ends with row {self.head.seq}"
                )
        if not found:
            self._broken(0, f"the hash that was noted, {noted}, is in none of its rows")

    def _before(self, since: str) -> Head:
        """Return the row before the first of a time or later. Rows are in order of time, but for clocks set back."""
        database = self._opened()
        cut = Head(*database.execute("SELECT seq, hash FROM audit_cut").fetchone())
        low, high = cut.seq, audit.head(database).seq + 1
        while low < high:
            middle = (low + high) // 2
            row = database.execute("SELECT time FROM audit WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)).fetchone()
            if row is None or str(row[0]) >= since:
                high = middle
            else:
                low = middle + 1
        before = database.execute(
            "SELECT seq, hash FROM audit WHERE seq < ? ORDER BY seq DESC LIMIT 1", (low,)
        ).fetchone()
        self.start = before[0] if before else 0
        return Head(*before) if before else cut

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise JournalError("the command journal is not open")
        return self._database

    def _checked(self, raw: tuple[Any, ...]) -> AuditRow | None:
        """Return a row that follows on from the head, and make it the head."""
        before = self.head
        *fields, digest = raw
        seq = fields[0] if isinstance(fields[0], int) else before.seq + 1
        if tuple(map(type, raw)) != _TYPES:
            self._broken(seq, "a field is not of the type that it has in every row")
            self.head = Head(seq, digest if isinstance(digest, bytes) else audit.GENESIS)
            return None
        row = AuditRow(*fields)
        if seq != before.seq + 1:
            missing = f"row {before.seq + 1} is" if seq == before.seq + 2 else f"rows {before.seq + 1} to {seq - 1} are"
            self._broken(seq, f"{missing} missing before it")
        elif not _fits(before.hash, row, digest):
            self._broken(seq, "its hash does not fit its content and the row before it: it is not what was written")
        self.head = Head(seq, digest)
        self.rows += 1
        return row

    def _chunk(self) -> tuple[Head, list[tuple[Any, ...]]]:
        """Read what was cut and the next rows, of one moment."""
        database = self._opened()
        database.execute("BEGIN")
        try:
            cut = Head(*database.execute("SELECT seq, hash FROM audit_cut").fetchone())
            after = max(self.head.seq, cut.seq)
            rows = database.execute(
                f"SELECT {COLUMNS}, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT {CHUNK}",  # noqa: S608 - constants
                (after,),
            ).fetchall()
        finally:
            database.execute("ROLLBACK")
        return cut, rows

    def _broken(self, seq: int, what: str) -> None:
        self.breaks.append(Break(seq, what))

    def _open(self, uri: str) -> sqlite3.Connection:
        database = sqlite3.connect(uri, uri=True, isolation_level=None)
        # What is no UTF-8 must not look like the same as what is.
        database.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        return database

    def _connect(self) -> sqlite3.Connection:
        """Open it for reading alone; without a log of changes also where nothing may be written beside it."""
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        try:
            database = self._open(uri)
            database.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            if beside(self.path, "-wal").exists():
                raise
            return self._open(uri + "&immutable=1")
        return database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _fits(before: bytes, row: AuditRow, digest: bytes) -> bool:
    try:
        return audit.chained(before, row) == digest
    except UnicodeEncodeError:
        return False


def _is(head: Head, number: str, wanted: str) -> bool:
    return head.hash.hex() == wanted and (not number or number.strip() == str(head.seq))


def _told(row: AuditRow) -> Head | None:
    """Return what a row about a cut says was cut."""
    try:
        return Head(int(row.value), bytes.fromhex(row.id))
    except ValueError:
        return None
