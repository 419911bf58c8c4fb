"""Which refusals get a row of their own in the audit, so that a flood of them can't fill the disk.

Refusals are alike when bridge, role and reason are: the address is not looked at, for who floods can vary it. Of each
kind, `BURST` are written in full, and after that one every `EVERY` seconds; the others are counted, and a row
every `EVERY` seconds says how many they were. So a kind takes `BURST` rows at once and 576 a day at most.
"""

import math
from datetime import datetime
from typing import Final

import msgspec

from gateway.core.model import CommandEvent, CommandState, Origin, Value
from gateway.journal import audit
from gateway.journal.audit import AuditRow

BURST: Final = 60
EVERY: Final = 300.0
KINDS: Final = 64
"""More kinds than this at a time are one: a stranger must not choose how much is remembered."""
OTHERS: Final = ("others", "")
MAX_NAME_CHARS: Final = 100
"""Characters kept of an id, a serial, a setpoint, an origin or a value that was refused."""
MAX_DETAIL_CHARS: Final = 500

Kind = tuple[str, str]
"""Bridge and role, and the reason."""


class _Tally(msgspec.Struct):
    """How it stands with one kind."""

    allowance: float
    """How many may be written in full now."""
    seen: float
    """When the allowance was last reckoned, monotonic seconds."""
    uncounted: int = 0
    """How many got no row."""
    due: float = 0.0
    """When a row is to say so, monotonic seconds."""
    first: datetime | None = None
    last: datetime | None = None


class Refusals:
    """Decides, refusal by refusal. Knows only what came of late."""

    def __init__(self) -> None:
        self._tallies: dict[Kind, _Tally] = {}

    def take(self, event: CommandEvent, now: float, *, room: bool = True) -> AuditRow | None:
        """Return the row to write; None where the refusal is only counted, as all are without `room`.

        `now` in monotonic seconds.
        """
        kind = self._kind(event, now)
        tally = self._tallies.setdefault(kind, _Tally(BURST, now))
        tally.allowance = min(BURST, tally.allowance + (now - tally.seen) / EVERY)
        tally.seen = now
        if room and tally.allowance >= 1:
            tally.allowance -= 1
            return _shortened(event)
        if not tally.uncounted:
            tally.due, tally.first = now + EVERY, event.time
        tally.uncounted += 1
        tally.last = event.time
        return None

    @property
    def due(self) -> float | None:
        """When `counted` next has something to say, monotonic seconds; None for never."""
        return min((tally.due for tally in self._tallies.values() if tally.uncounted), default=None)

    def counted(self, now: float = math.inf) -> list[AuditRow]:
        """Return the rows that say how many got none, of each kind whose time has come, and begin to count anew."""
        rows = []
        for (origin, reason), tally in self._tallies.items():
            if tally.uncounted and tally.due <= now and tally.first and tally.last:
                rows.append(_summary(origin, reason, tally.uncounted, tally.first, tally.last))
                tally.uncounted = 0
        return rows

    def _kind(self, event: CommandEvent, now: float) -> Kind:
        kind = event.command.origin.who[:MAX_NAME_CHARS], event.reason or ""
        if kind not in self._tallies and len(self._tallies) >= KINDS:
            quiet = [
                known
                for known, tally in self._tallies.items()
                if not tally.uncounted and tally.allowance + (now - tally.seen) / EVERY >= BURST
            ]
            for known in quiet:
                del self._tallies[known]
            if not quiet:
                return OTHERS
        return kind


def _shortened(event: CommandEvent) -> AuditRow:
    """Return the row of a refusal: what was refused may be of any length, its row is not."""
    command = event.command
    short = msgspec.structs.replace(
        command,
        id=_cut(command.id, MAX_NAME_CHARS),
        serial=_cut(command.serial, MAX_NAME_CHARS),
        setpoint=_cut(command.setpoint, MAX_NAME_CHARS),
        value=_short_value(command.value),
        origin=Origin(_cut(command.origin, MAX_NAME_CHARS)),
    )
    return audit.of_event(msgspec.structs.replace(event, command=short, detail=_cut(event.detail, MAX_DETAIL_CHARS)))


def _summary(origin: str, reason: str, count: int, first: datetime, last: datetime) -> AuditRow:
    detail = f"and {count:,} more, from {audit.stamp(first)} to {audit.stamp(last)}"
    name = _cut(origin, MAX_NAME_CHARS)
    return AuditRow(
        0, audit.stamp(last), CommandState.REJECTED.value, "", "", "null", str(reason), name, detail, "", 0, 0
    )


def _short_value(value: Value) -> Value:
    if isinstance(value, str):
        return _cut(value, MAX_NAME_CHARS)
    too_long = isinstance(value, int) and value.bit_length() > 4 * MAX_NAME_CHARS
    return f"a number of {value.bit_length()} bits" if too_long and isinstance(value, int) else value


def _cut(text: str, most: int) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"
