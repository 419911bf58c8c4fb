"""After a crash: the steps that were journaled, and that nobody may have been told of.

A step is journaled first and published then, so what a crash cuts off is the publishing. Which of the last steps the
sinks had passed on is written nowhere; so those of the last seconds are published again: each step at least once.
"""

import sqlite3
from datetime import timedelta
from typing import Final

import msgspec

from gateway.core.journal import audit
from gateway.core.journal.audit import COLUMNS, AuditRow, Deed
from gateway.core.model import Command, CommandEvent, CommandState

LAG: Final = timedelta(seconds=5)
"""What the sinks are given to pass a step on, or what was published again after the crash before."""
MOST: Final = 1_000
"""Steps that are published again."""
_STEPS: Final = frozenset(state.value for state in CommandState if state is not CommandState.REJECTED)


def untold(db: sqlite3.Connection) -> list[CommandEvent]:
    """Return them, oldest first; none after a stop in good order. To be asked before the new start is noted."""
    found: list[CommandEvent] = []
    end = None
    rows = db.execute(
        f"SELECT {', '.join(f'audit.{name}' for name in COLUMNS.split(', '))}, body "  # noqa: S608 - constants
        "FROM audit LEFT JOIN command ON command.id = audit.id AND audit.id != '' ORDER BY seq DESC"
    )
    for *fields, body in rows:
        row = AuditRow(*fields)
        if end is None:
            if row.state == Deed.STOPPED:
                break
            end = row.moment
        lasted = end - row.moment > LAG
        if lasted or len(found) >= MOST:
            break
        if row.state == Deed.STARTED:
            end = None  # That life was too short to tell what the one before it had left.
        elif row.state in _STEPS and body is not None:
            found.append(audit.to_event(row, msgspec.json.decode(body, type=Command)))
    return found[::-1]
