"""What can be written beside the steps of commands, as functions of the database: the journal commits them together."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from gateway.core.controller import Outcome
from gateway.core.model import Command, Value, day_of

Write = Callable[[sqlite3.Connection], object]

_ONE_MORE: Final = (
    "INSERT INTO writes VALUES (?, ?, 1, ?, 1) ON CONFLICT (serial, setpoint) DO UPDATE SET life = life + 1, "
    "today = CASE day WHEN excluded.day THEN today + 1 ELSE 1 END, day = excluded.day"
)
_ONE_LESS: Final = (
    "UPDATE writes SET life = max(0, life - 1), today = max(0, today - 1) WHERE serial = ? AND setpoint = ?"
)


class Revert(msgspec.Struct, frozen=True):
    """A dead-man's timer that runs."""

    serial: str
    setpoint: str
    value: Value
    due: datetime
    boot_id: str = ""
    """The start of the machine in which it was armed."""
    boot_due: float = 0.0
    """When it is due on the boot clock of that start."""


class StoredSetting(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a setpoint of a device. See `commands.memory.Setting`."""

    serial: str
    setpoint: str
    requested: Value
    value: Value
    time: datetime
    """When it succeeded last."""
    boot_id: str
    boot: float
    """The same on the boot clock of that start of the machine."""
    succeeded: bool
    certain: bool
    confirmed: bool
    command: str
    ends: datetime | None
    """When the order that it started ends by itself."""


def deadlines(boot_id: str, expiries: Iterable[tuple[str, float]]) -> Write:
    """Keep when commands expire on the boot clock: pairs of id and seconds."""
    rows = [(boot_id, boot, id_) for id_, boot in expiries]
    return lambda db: db.executemany("UPDATE command SET boot_id = ?, boot = ? WHERE id = ?", rows)


def handing_to(controller: str, commands: Sequence[Command], now: datetime, receipt: str = "") -> Write:
    """Note, before it happens, which bridge commands are handed to, and by what their results will be told.

    From then on nothing is certain of their setpoints, and each counts as one more write.
    """
    keys = [(command.serial, command.setpoint) for command in commands]
    day = day_of(now)

    def write(db: sqlite3.Connection) -> None:
        db.executemany(
            "UPDATE command SET controller = ?, receipt = CASE ? WHEN '' THEN receipt ELSE ? END WHERE id = ?",
            [(controller, receipt, receipt, command.id) for command in commands],
        )
        db.executemany("UPDATE setting SET certain = 0, confirmed = 0 WHERE serial = ? AND setpoint = ?", keys)
        db.executemany(_ONE_MORE, [(*key, day) for key in keys])

    return write


def taking_back(command: Command) -> Write:
    """Take back that a command was handed over, its receipt and its count."""

    def write(db: sqlite3.Connection) -> None:
        db.execute("UPDATE command SET controller = NULL, receipt = '' WHERE id = ?", (command.id,))
        db.execute(_ONE_LESS, (command.serial, command.setpoint))

    return write


def receipt(known_by: str, ids: Iterable[str]) -> Write:
    """Keep by what the results of these commands can be asked for, or will be told."""
    rows = [(known_by, id_) for id_ in ids]
    return lambda db: db.executemany("UPDATE command SET receipt = ? WHERE id = ?", rows)


def outcome(id_: str, found: Outcome) -> Write:
    """Keep what was told of a command that is still open, until its end is written."""
    row = (msgspec.json.encode(found), id_)
    return lambda db: db.execute("UPDATE command SET outcome = ? WHERE id = ?", row)


def arm(revert: Revert) -> Write:
    """Start, or start anew, the dead-man's timer of a setpoint."""
    value, due = msgspec.json.encode(revert.value), revert.due.timestamp()
    row = (revert.serial, revert.setpoint, value, due, revert.boot_id, revert.boot_due)
    return lambda db: db.execute("INSERT OR REPLACE INTO revert VALUES (?, ?, ?, ?, ?, ?)", row)


def disarm(serial: str, setpoint: str) -> Write:
    """Stop a dead-man's timer."""
    return lambda db: db.execute("DELETE FROM revert WHERE serial = ? AND setpoint = ?", (serial, setpoint))


def setting(stored: StoredSetting) -> Write:
    """Keep what a setpoint was set to."""
    row = (
        stored.serial, stored.setpoint, msgspec.json.encode(stored.requested), msgspec.json.encode(stored.value),
        stored.time.timestamp(), stored.boot_id, stored.boot, int(stored.succeeded), int(stored.certain),
        int(stored.confirmed), stored.command, None if stored.ends is None else stored.ends.timestamp(),
    )  # fmt: skip
    return lambda db: db.execute(f"INSERT OR REPLACE INTO setting VALUES (?{', ?' * 11})", row)  # noqa: S608


def stored(row: Sequence[Any]) -> StoredSetting:
    """Return a row that `setting` wrote as what it says."""
    serial, setpoint, requested, value, time, boot_id, boot, succeeded, certain, confirmed, command, ends = row
    return StoredSetting(
        serial=serial,
        setpoint=setpoint,
        requested=msgspec.json.decode(requested),
        value=msgspec.json.decode(value),
        time=datetime.fromtimestamp(time, UTC),
        boot_id=boot_id,
        boot=boot,
        succeeded=bool(succeeded),
        certain=bool(certain),
        confirmed=bool(confirmed),
        command=command,
        ends=None if ends is None else datetime.fromtimestamp(ends, UTC),
    )
