"""The journal: what was promised, written to disk before it is done.

One SQLite file in `data_dir`, WAL, synchronous=FULL. SQLite blocks while it waits for the disk, so it
lives on one thread of its own; writes that arrive while a commit runs share the next one.
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

from gateway.core.model import Command, CommandEvent, CommandState, Reason, Value

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], object]

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE command (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, state TEXT NOT NULL,
    controller TEXT, receipt TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX command_open ON command (id) WHERE state IN ('accepted', 'sent');
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, command TEXT NOT NULL, state TEXT NOT NULL,
    time REAL NOT NULL, reason TEXT, detail TEXT NOT NULL
);
CREATE INDEX event_command ON event (command);
CREATE TABLE revert (
    serial TEXT NOT NULL, setpoint TEXT NOT NULL, value BLOB NOT NULL, due REAL NOT NULL,
    PRIMARY KEY (serial, setpoint)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class JournalError(Exception):
    """The journal can't be read or written."""


class OpenCommand(msgspec.Struct):
    """A command that has not ended, as the journal knows it."""

    command: Command
    state: CommandState
    controller: str | None = None
    """The bridge it was handed to; None while it certainly was not."""
    receipt: str = ""


class Revert(msgspec.Struct, frozen=True):
    """A dead-man's timer that runs."""

    serial: str
    setpoint: str
    value: Value
    due: datetime


class Journal:
    """Durable memory of commands and dead-man's timers. A write has happened once it is awaited."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._database: sqlite3.Connection | None = None
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open or create the file. Raises JournalError saying what to do."""
        await self._on_thread(self._open)

    async def close(self) -> None:
        """Finish what waits and close the file."""
        if self._committer is not None:
            await self._committer
        if self._database is not None:
            await self._on_thread(self._database.close)
            self._database = None
        self._thread.shutdown()

    async def record(self, *events: CommandEvent) -> None:
        """Write steps of commands. The first step of a command brings the command itself along."""

        def write(db: sqlite3.Connection) -> None:
            for event in events:
                body = msgspec.json.encode(event.command)
                db.execute(
                    "INSERT INTO command (id, body, state) VALUES (?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                    (event.command.id, body, event.state),
                )
                db.execute(
                    "INSERT INTO event (command, state, time, reason, detail) VALUES (?, ?, ?, ?, ?)",
                    (event.command.id, event.state, event.time.timestamp(), event.reason, event.detail),
                )

        await self._write(write)

    async def handing_to(self, command: Command, controller: str | None) -> None:
        """Note, before it happens, which bridge a command is handed to; None takes the note back."""
        await self._write(
            lambda db: db.execute("UPDATE command SET controller = ? WHERE id = ?", (controller, command.id))
        )

    async def keep_receipt(self, command: Command, receipt: str) -> None:
        """Keep by what the result can be asked for."""
        await self._write(lambda db: db.execute("UPDATE command SET receipt = ? WHERE id = ?", (receipt, command.id)))

    async def arm(self, revert: Revert) -> None:
        """Start, or start anew, the dead-man's timer of a setpoint."""
        row = (revert.serial, revert.setpoint, msgspec.json.encode(revert.value), revert.due.timestamp())
        await self._write(lambda db: db.execute("INSERT OR REPLACE INTO revert VALUES (?, ?, ?, ?)", row))

    async def disarm(self, serial: str, setpoint: str) -> None:
        """Stop a dead-man's timer."""
        await self._write(
            lambda db: db.execute("DELETE FROM revert WHERE serial = ? AND setpoint = ?", (serial, setpoint))
        )

    async def open_commands(self) -> list[OpenCommand]:
        """Return the commands that have not ended, in the order of their ids."""

        def read(db: sqlite3.Connection) -> list[OpenCommand]:
            rows = db.execute(
                "SELECT body, state, controller, receipt FROM command "
                "WHERE state IN ('accepted', 'sent') "
                "ORDER BY (SELECT min(seq) FROM event WHERE event.command = command.id)"
            )
            return [OpenCommand(_command(row[0]), CommandState(row[1]), row[2], row[3]) for row in rows]

        return await self._read(read)

    async def reverts(self) -> list[Revert]:
        """Return the dead-man's timers that run."""

        def read(db: sqlite3.Connection) -> list[Revert]:
            return [
                Revert(serial, setpoint, msgspec.json.decode(value), datetime.fromtimestamp(due, UTC))
                for serial, setpoint, value, due in db.execute("SELECT * FROM revert ORDER BY due")
            ]

        return await self._read(read)

    async def last_event(self, command_id: str) -> CommandEvent | None:
        """Return the newest step of a command, or None where the id is not known."""
        steps = await self.history(command_id)
        return steps[-1] if steps else None

    async def history(self, command_id: str) -> list[CommandEvent]:
        """Return all steps of a command, oldest first."""

        def read(db: sqlite3.Connection) -> list[CommandEvent]:
            rows = db.execute(
                "SELECT body, event.state, time, reason, detail FROM event "
                "JOIN command ON command.id = event.command WHERE event.command = ? ORDER BY seq",
                (command_id,),
            )
            return [
                CommandEvent(
                    command=_command(body),
                    state=CommandState(state),
                    time=datetime.fromtimestamp(time, UTC),
                    reason=Reason(reason) if reason else None,
                    detail=detail,
                )
                for body, state, time, reason, detail in rows
            ]

        return await self._read(read)

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._database.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"the command journal {self.path} can't be used ({error}); check that the directory is writable "
                "and has space, or move the file away to begin with an empty journal"
            ) from error
        if version > VERSION:
            raise JournalError(
                f"the command journal {self.path} was written by a newer gateway (format {version}, this one "
                f"knows {VERSION}); run that version, or move the file away to begin with an empty journal"
            )

    async def _write(self, write: Write) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_waiting(), name="journal commit")
        await done

    async def _commit_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._on_thread(partial(self._commit, [write for write, _ in batch]))
            except JournalError as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)

    def _commit(self, writes: list[Write]) -> None:
        database = self._opened()
        try:
            database.execute("BEGIN IMMEDIATE")
            for write in writes:
                write(database)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise JournalError(f"the command journal {self.path} can't be written: {error}") from error

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._on_thread(lambda: read(self._opened()))
        except sqlite3.Error as error:
            raise JournalError(f"the command journal {self.path} can't be read: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise JournalError("the command journal is not open")
        return self._database

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _command(body: bytes) -> Command:
    return msgspec.json.decode(body, type=Command)
