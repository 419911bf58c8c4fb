"""The journal: what was promised, written to disk before it is done.

One SQLite file in `data_dir`, WAL, synchronous=FULL. SQLite blocks while it waits for the disk, so what writes lives
on one thread of its own and what reads on another; writes that arrive while a commit runs share the next one.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from gateway.core.bridge import Outcome
from gateway.core.clock import Clock, SystemClock
from gateway.core.control.untold import untold
from gateway.core.journal import audit, retention
from gateway.core.journal.audit import COLUMNS, AuditRow, Head, Note
from gateway.core.journal.file import OF_STEPS, JournalError
from gateway.core.journal.refusals import Refusals
from gateway.core.journal.retention import AuditSettings, Keep
from gateway.core.journal.store import Store, Write
from gateway.core.model import Command, CommandEvent, CommandState, Value

__all__ = ["Journal", "JournalError", "OpenCommand", "Revert"]

T = TypeVar("T")

RETRY: Final = 5.0
"""Seconds until what nobody waits for is tried again."""
UNWRITTEN_MOST: Final = 5_000
"""Rows that nobody waits for, kept while the disk is full. Refusals past that are only counted."""

log = structlog.get_logger("journal")


class OpenCommand(msgspec.Struct):
    """A command that has not ended, as the journal knows it."""

    command: Command
    state: CommandState
    controller: str | None = None
    """The bridge it was handed to; None while it certainly was not."""
    receipt: str = ""
    outcome: Outcome | None = None
    """What became of it, where that was told before its end was written. It is to end so, and is not sent."""


class Revert(msgspec.Struct, frozen=True):
    """A dead-man's timer that runs."""

    serial: str
    setpoint: str
    value: Value
    due: datetime


class Journal:
    """Durable memory of commands and dead-man's timers. A write has happened once it is awaited."""

    def __init__(self, path: Path, settings: AuditSettings | None = None, clock: Clock | None = None) -> None:
        self.path = path
        self._settings = settings or AuditSettings()
        self._clock = clock or SystemClock()
        self._store = Store(path)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="journal reader")
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._unwritten: list[AuditRow] = []
        """Rows that nobody waits for. They go with the next commit that succeeds."""
        self._refusals = Refusals()
        self._failing = False
        self._resting = False
        """Whether rows that nobody waits for wait for the alarm, or for somebody's write, after one failed."""
        self._next_cut = 0.0
        self._committer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Open or create the file. Raises JournalError saying what to do."""
        head = await self._on(self._writing, partial(self._store.open, self._clock.now()))
        self._next_cut = self._clock.monotonic() + retention.FIRST
        # Where logs are kept elsewhere, this is what nobody who can write the file can change.
        log.info("journal open", head=str(head))

    async def close(self) -> None:
        """Finish what waits and close the file."""
        self._unwritten += self._refusals.counted()
        self._resting = False
        self._begin()
        if self._committer is not None:
            await self._committer
        if self._timer is not None:
            self._timer.cancel()
        if self._unwritten:
            log.error("refusals and notes are lost, the journal can't be written", rows=len(self._unwritten))
        await self._on(self._writing, self._store.close)
        self._writing.shutdown()
        self._reading.shutdown()

    # what is written

    async def record(self, *events: CommandEvent) -> None:
        """Write steps of commands, refusals and corrections, in this order.

        The first step of a command brings the command itself along. A refusal makes no command known: its id is free,
        and is written as `refused` does. Raises JournalError.
        """
        self.refused(*(event for event in events if event.state is CommandState.REJECTED))
        rows = [(event, _row(audit.of_event, event)) for event in events if _is_step(event)]
        if not rows:
            return

        def write(db: sqlite3.Connection) -> None:
            for event, row in rows:
                self._store.append(db, row)
                if not event.correction:
                    _keep(db, event)

        await self._write(write)

    def refused(self, *events: CommandEvent) -> None:
        """Have refusals written soon, and of a flood of them how many they were. Waits for nothing, fails never."""
        now = self._clock.monotonic()
        for event in events:
            row = self._refusals.take(event, now, room=len(self._unwritten) < UNWRITTEN_MOST)
            if row is not None:
                self._unwritten.append(row)
                self._begin()
            elif self._timer is None:
                self._wake_up()

    async def note(self, note: Note) -> None:
        """Write into the audit what is no step of a command: a halt, a drift. Raises JournalError."""
        row = _row(audit.of_note, note)
        await self._write(lambda db: self._store.append(db, row))

    def note_soon(self, note: Note) -> None:
        """Have it written as soon as the disk lets it. Waits for nothing; raises JournalError for no Unicode alone."""
        row = _row(audit.of_note, note)
        if len(self._unwritten) < 2 * UNWRITTEN_MOST:
            self._unwritten.append(row)
        else:
            log.error("the audit lacks a note, the journal can't be written", note=note)
        self._begin()

    async def handing_to(self, controller: str | None, *commands: Command) -> None:
        """Note, before it happens, which bridge commands are handed to; None takes the note, and a receipt, back."""

        def write(db: sqlite3.Connection) -> None:
            kept = "" if controller is not None else ", receipt = ''"
            db.executemany(
                f"UPDATE command SET controller = ?{kept} WHERE id = ?",  # noqa: S608 - one of two constants
                [(controller, command.id) for command in commands],
            )

        await self._write(write)

    async def keep_receipt(self, receipt: str, *ids: str) -> None:
        """Keep by what the results of these commands can be asked for, or will be told."""
        rows = [(receipt, id_) for id_ in ids]
        await self._write(lambda db: db.executemany("UPDATE command SET receipt = ? WHERE id = ?", rows))

    async def note_outcome(self, id_: str, outcome: Outcome) -> None:
        """Keep what was told of a command that is still open, until its end is written."""
        row = (msgspec.json.encode(outcome), id_)
        await self._write(lambda db: db.execute("UPDATE command SET outcome = ? WHERE id = ?", row))

    async def arm(self, revert: Revert) -> None:
        """Start, or start anew, the dead-man's timer of a setpoint."""
        row = (revert.serial, revert.setpoint, msgspec.json.encode(revert.value), revert.due.timestamp())
        await self._write(lambda db: db.execute("INSERT OR REPLACE INTO revert VALUES (?, ?, ?, ?)", row))

    async def disarm(self, serial: str, setpoint: str) -> None:
        """Stop a dead-man's timer."""
        await self._write(
            lambda db: db.execute("DELETE FROM revert WHERE serial = ? AND setpoint = ?", (serial, setpoint))
        )

    # what is read

    async def open_commands(self) -> list[OpenCommand]:
        """Return the commands that have not ended, in the order in which they came."""

        def read(db: sqlite3.Connection) -> list[OpenCommand]:
            rows = db.execute(
                "SELECT body, state, controller, receipt, outcome FROM command "
                "WHERE state IN ('accepted', 'sent') "
                "ORDER BY (SELECT min(seq) FROM audit WHERE audit.id = command.id AND audit.id != '' "
                "AND audit.state != 'rejected')"
            )
            return [
                OpenCommand(
                    _command(body),
                    CommandState(state),
                    controller,
                    receipt,
                    msgspec.json.decode(outcome, type=Outcome) if outcome else None,
                )
                for body, state, controller, receipt, outcome in rows
            ]

        return await self._read(read)

    async def reverts(self) -> list[Revert]:
        """Return the dead-man's timers that run."""

        def read(db: sqlite3.Connection) -> list[Revert]:
            return [
                Revert(serial, setpoint, msgspec.json.decode(value), datetime.fromtimestamp(due, UTC))
                for serial, setpoint, value, due in db.execute("SELECT * FROM revert ORDER BY due")
            ]

        return await self._read(read)

    async def command_of(self, receipt: str, serial: str) -> str | None:
        """Return the id of the command that has this receipt and device, also after its end; None for no such."""

        def read(db: sqlite3.Connection) -> str | None:
            found = db.execute(
                "SELECT id FROM command WHERE receipt = ? AND receipt != '' AND serial = ?", (receipt, serial)
            ).fetchone()
            return str(found[0]) if found else None

        return await self._read(read)

    async def last_event(self, command_id: str) -> CommandEvent | None:
        """Return the newest step of a command, or None where the id is not known. Refusals make none known."""
        steps = await self._read(partial(_history, command_id=command_id, newest=1))
        return steps[0] if steps else None

    async def history(self, command_id: str) -> list[CommandEvent]:
        """Return all steps of a command, oldest first, with what corrected its end."""
        return (await self._read(partial(_history, command_id=command_id)))[::-1]

    async def untold(self) -> list[CommandEvent]:
        """Return the last steps before a crash, which may not have been published."""
        return await self._read(untold)

    async def head(self) -> Head:
        """Return number and hash of the audit's newest row."""
        return await self._read(audit.head)

    # the loop's side of the threads

    async def _write(self, write: Write) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        self._begin()
        await done

    def _begin(self) -> None:
        """Have what waits written, unless that is under way or has to wait."""
        ready = self._waiting or (self._unwritten and not self._resting)
        if ready and (self._committer is None or self._committer.done()):
            self._committer = asyncio.create_task(self._commit_waiting(), name="journal commit")
        self._wake_up()

    async def _commit_waiting(self) -> None:
        while self._waiting or (self._unwritten and not self._resting):
            batch, self._waiting = self._waiting, []
            rows, self._unwritten = self._unwritten, []
            keep = Keep.of(self._settings, self._clock.now()) if self._clock.monotonic() >= self._next_cut else None
            writes = [write for write, _ in batch]
            try:
                cut = await self._on(self._writing, partial(self._store.commit, rows, writes, keep))
            except Exception as error:  # noqa: BLE001 - whoever waits for the write is told, whatever it is
                self._unwritten = rows + self._unwritten
                self._say(error)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                self._say(None)
                if keep is not None:
                    pause = retention.NEXT if cut >= retention.STEP else retention.EVERY
                    self._next_cut = self._clock.monotonic() + pause
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        self._wake_up()

    def _say(self, error: Exception | None) -> None:
        """Log when it begins to fail and when that is over."""
        if error is not None and not self._failing:
            log.error("the command journal can't be written; nothing new is accepted until it can", error=str(error))
        elif error is None and self._failing:
            log.info("the command journal can be written again")
        self._failing = self._resting = error is not None

    def _wake_up(self) -> None:
        """Set the alarm for what has to be written later without anybody waiting for it."""
        now = self._clock.monotonic()
        due = self._refusals.due
        if self._unwritten and self._resting:
            due = now + RETRY
        if due is None:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, due - now)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._awake)

    def _awake(self) -> None:
        self._timer = None
        self._resting = False
        self._unwritten += self._refusals.counted(self._clock.monotonic())
        self._begin()

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._reading, partial(self._store.read, read))

    @staticmethod
    async def _on(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def _keep(db: sqlite3.Connection, event: CommandEvent) -> None:
    """Write where a command stands; with its first step, the command too."""
    command = event.command
    if event.state is not CommandState.ACCEPTED:
        found = db.execute("UPDATE command SET state = ? WHERE id = ?", (event.state, command.id))
        if found.rowcount:
            return
    db.execute(
        "INSERT INTO command (id, body, state, serial) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state",
        (command.id, msgspec.json.encode(command), event.state, command.serial),
    )


def _history(db: sqlite3.Connection, command_id: str, newest: int = -1) -> list[CommandEvent]:
    """Return the newest steps of a command, newest first; -1 for all."""
    known = db.execute("SELECT body FROM command WHERE id = ?", (command_id,)).fetchone()
    if known is None:
        return []
    command = _command(known[0])
    rows = db.execute(
        f"SELECT {COLUMNS} FROM audit WHERE id = ? AND {OF_STEPS} "  # noqa: S608 - constants
        f"AND state IN ({', '.join(f'{state.value!r}' for state in CommandState)}) ORDER BY seq DESC LIMIT ?",
        (command_id, newest),
    )
    return [audit.to_event(AuditRow(*row), command) for row in rows]


def _is_step(event: CommandEvent) -> bool:
    return event.state is not CommandState.REJECTED


def _row(make: Callable[[T], AuditRow], what: T) -> AuditRow:
    """Return the row of a step or a note. Raises JournalError for one that all in its commit would fail with."""
    try:
        row = make(what)
        f"{row.serial}{row.setpoint}{row.origin}{row.detail}{row.id}".encode()
    except UnicodeEncodeError as error:
        raise JournalError(f"a text is no Unicode, so it can't be journaled ({error.reason})") from None
    return row


def _command(body: bytes) -> Command:
    return msgspec.json.decode(body, type=Command)
