"""Where the chain stood after the last commit, in a small file beside the journal.

A hash chain shows every change but one: that its end is gone. So number and hash of the newest row are written here
after each commit. No fsync: it survives a kill of the process, and after a power cut it may be older than the
journal, never newer — unless the journal lost what the disk had confirmed, or an older copy of it was put back.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final

from gateway.core import files
from gateway.journal import audit
from gateway.journal.audit import Head
from gateway.journal.file import beside

_WIDTH: Final = 19 + 1 + 64
"""Digits of the largest number, a colon, the hash in hexadecimal."""


class HeadFile:
    """Writes and reads the file. It is told of, not relied on: none of its own errors matter."""

    def __init__(self, journal: Path) -> None:
        self.path = beside(journal, ".head")
        self._descriptor: int | None = None

    def write(self, head: Head) -> None:
        """Note where the chain stands. A file that can't be written notes nothing."""
        try:
            if self._descriptor is None:
                self._descriptor = files.open_own(self.path, os.O_WRONLY)
            os.pwrite(self._descriptor, f"{head.seq:019}:{head.hash.hex()}\n".encode(), 0)
        except OSError:
            self.close()

    def read(self) -> Head | None:
        """Return what was noted last; None where that can't be read."""
        try:
            seq, _, digest = self.path.read_text("ascii")[:_WIDTH].partition(":")
            return Head(int(seq), bytes.fromhex(digest)) if len(digest) == 64 else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def missing(db: sqlite3.Connection, noted: Head | None) -> str:
    """Return what a journal lacks of what was noted, in words; "" for nothing."""
    if noted is None:
        return ""
    newest = audit.head(db)
    if newest.seq == 0 and noted.seq:
        return f"all is missing: another one was here before, written up to row {noted.seq}"
    if newest.seq < noted.seq:
        return f"its end is missing: it was written up to row {noted.seq}, and ends with row {newest.seq}"
    found = db.execute(
        "SELECT hash FROM audit WHERE seq = ? UNION ALL SELECT hash FROM audit_cut WHERE seq = ?",
        (noted.seq, noted.seq),
    ).fetchone()
    if found is not None and found[0] != noted.hash:
        return f"row {noted.seq} is not the one that was written"
    return ""
