"""What becomes of the promises in a journal that was restored from a backup: none is kept by itself any more.

Since it was copied the gateway it comes from went on. Its commands were carried out, its timers have fired or were
replaced, and devices may have been set otherwise meanwhile.
"""

from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec

from gateway.journal import audit
from gateway.journal.file import beside, connect, expect_format
from gateway.journal.head import HeadFile
from gateway.journal.rescue import mark_unknown


class Closed(msgspec.Struct, frozen=True):
    """What there was."""

    timers: list[str]
    """`<serial>/<setpoint> to <value>`, of each dead-man's timer."""
    commands: int
    """Open commands, which end as unknown at the next start."""


def close_promises(path: Path, now: datetime, why: str) -> Closed:
    """Take every timer, and what setpoints were set to, out of a journal, and have its open commands end as unknown.

    Where there is no journal, one is begun. Raises sqlite3.Error, OSError or JournalError.
    """
    with closing(connect(path)) as database:
        expect_format(database, path)
        database.execute("BEGIN IMMEDIATE")
        timers = [_said(*row) for row in database.execute("SELECT serial, setpoint, value FROM revert")]
        database.execute("DELETE FROM revert")
        database.execute("DELETE FROM setting")
        told = f"; dead-man's timers that ran: {', '.join(timers)}" if timers else ""
        commands = mark_unknown(database, now, f"{why}{told}")
        database.execute("COMMIT")
        head = audit.head(database)
    beside(path, ".head").unlink(missing_ok=True)
    noted = HeadFile(path)
    noted.write(head)
    noted.close()
    return Closed(timers, commands)


def _said(serial: str, setpoint: str, value: bytes | str) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return f"{serial}/{setpoint} to {text}"
