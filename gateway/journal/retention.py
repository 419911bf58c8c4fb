"""How long the audit is kept, and how it is cut so that what is left still proves itself."""

import sqlite3
from datetime import datetime, timedelta
from typing import Final

import msgspec
from pydantic import Field

from gateway.config.settings import Settings
from gateway.core.model import GATEWAY
from gateway.journal import audit
from gateway.journal.audit import AuditAction, Head, Note

STEP: Final = 300
"""Rows cut in one transaction: commands wait no longer than that takes, on a slow card too."""
FREE_PAGES: Final = 2_000
"""Pages that are left free, for what comes next."""
GIVEN_BACK: Final = 250
"""Pages that are given back at a time: a megabyte, which holds no command up."""
FIRST: Final = 600.0
"""Seconds from the start to the first look: by then a clock without a battery has been set."""
EVERY: Final = 3600.0
NEXT: Final = 5.0
"""Seconds to the next step where one was not enough. A clock that is wrong for a while costs that much, not all."""


class AuditSettings(Settings):
    """`audit:` of the configuration."""

    keep_days: float = Field(
        default=400, ge=1, le=36_500, description="days for which commands are kept in the journal"
    )
    keep_rows: int = Field(
        default=5_000_000, ge=1_000, description="steps of commands that are kept at most; about 0.5 kB each"
    )


class Keep(msgspec.Struct, frozen=True):
    """What is to stay."""

    since: datetime
    """What is older goes."""
    rows: int
    """So many of the newest stay at most."""
    now: datetime

    @classmethod
    def of(cls, settings: AuditSettings, now: datetime) -> "Keep":
        """Return what the settings say, as of now."""
        return cls(now - timedelta(days=settings.keep_days), settings.keep_rows, now)


def cut(db: sqlite3.Connection, keep: Keep, last: Head) -> tuple[Head, int]:
    """Cut the oldest rows, `STEP` at most, in the caller's transaction; return the new head and how many were cut.

    It ends at the first row that is young enough, or whose command has not ended. Number and hash of the last row cut
    are kept, in `audit_cut` and in a row of the audit itself, so that the chain begins there.
    """
    oldest = db.execute("SELECT seq, time, id, hash FROM audit ORDER BY seq LIMIT ?", (STEP,)).fetchall()
    stays = _first_of_open(db)
    since = audit.stamp(keep.since)
    going = []
    for row in oldest:
        seq, time = row[0], row[1]
        if (time >= since and seq > last.seq - keep.rows) or (stays is not None and seq >= stays):
            break
        going.append(row)
    if not going:
        return last, 0
    to, digest = going[-1][0], going[-1][3]
    db.execute("UPDATE audit_cut SET seq = ?, hash = ?", (to, digest))
    db.execute("DELETE FROM audit WHERE seq <= ?", (to,))
    db.executemany(
        "DELETE FROM command WHERE id = ? AND state NOT IN ('accepted', 'sent') AND NOT EXISTS "
        "(SELECT 1 FROM audit WHERE audit.id = command.id AND audit.id != '' AND audit.state != 'rejected')",
        {(row[2],) for row in going if row[2]},
    )
    note = Note(
        action=AuditAction.CUT,
        time=keep.now,
        origin=GATEWAY,
        value=to,
        id=digest.hex(),
        detail=f"{len(going)} rows up to {to}, the last one of {going[-1][1]}",
    )
    return audit.append(db, last, audit.of_note(note)), len(going)


def give_back(db: sqlite3.Connection) -> None:
    """Give some of the pages that are free back to the disk, where there are many. Not within a transaction."""
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    if free > FREE_PAGES:
        # Each row that it gives is a page.
        for _ in db.execute(f"PRAGMA incremental_vacuum({GIVEN_BACK})"):
            pass


def _first_of_open(db: sqlite3.Connection) -> int | None:
    """Return the number of the oldest row of a command that has not ended."""
    # Not by a join: for min(seq) SQLite would walk through all of the audit.
    found: int | None = db.execute(
        "SELECT min(first) FROM (SELECT (SELECT min(seq) FROM audit WHERE audit.id = command.id AND audit.id != '' "
        "AND audit.state != 'rejected') AS first FROM command WHERE state IN ('accepted', 'sent'))"
    ).fetchone()[0]
    return found
