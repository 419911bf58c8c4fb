"""After a crash: the steps that were journaled, and that nobody may have been told of.

A step is journaled first and published then, so what a crash cuts off is the publishing. Which of the last steps the
sinks had passed on is written nowhere; so those of the last seconds are published again: each step at least once.
"""

import sqlite3
from datetime import UTC, timedelta
from typing import Final

from gateway.core.bad_json import BAD_JSON
from gateway.core.model import CommandEvent, CommandState, decode_command
from gateway.journal import audit
from gateway.journal.audit import COLUMNS, AuditAction, AuditRow

LAG: Final = timedelta(seconds=5)
"""What the sinks are given to pass a step on, or what was published again after the crash before."""
MAX_EVENTS: Final = 1_000
"""Steps that are published again."""
_STEPS: Final = frozenset(state.value for state in CommandState if state is not CommandState.REJECTED)


def unpublished(db: sqlite3.Connection) -> list[CommandEvent]:
    """Return them, oldest first; none after a stop in good order. To be asked before the new start is noted."""
    found: list[CommandEvent] = []
    end = None
    rows = db.execute(
        f"SELECT {', '.join(f'audit.{name}' for name in COLUMNS.split(', '))}, body "  # noqa: S608 - constants
        "FROM audit LEFT JOIN command ON command.id = audit.id AND audit.id != '' ORDER BY seq DESC"
    )
    for *fields, body in rows:
        row = AuditRow(*fields)
        if end is None and row.state == AuditAction.STOPPED:
            break
        try:
            moment = row.moment.astimezone(UTC)
            event = audit.to_event(row, decode_command(body)) if row.state in _STEPS and body is not None else None
        except (*BAD_JSON, ValueError, TypeError, OverflowError):
            continue  # damaged: the audit says where
        if end is None:
            end = moment
        # One that is `sent` was written when the answer came, which may be long after its time.
        lasted = row.state != CommandState.SENT and end - moment > LAG
        if lasted or len(found) >= MAX_EVENTS:
            break
        if row.state == AuditAction.STARTED:
            end = None  # That life was too short to tell what the one before it had left.
        elif event is not None:
            found.append(event)
    return found[::-1]
