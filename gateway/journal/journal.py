"""The journal: what was promised, written to disk before it is done.

One SQLite file in `data_dir`, WAL, synchronous=FULL. SQLite blocks while it waits for the disk, so what writes lives
on one thread of its own and what reads on another; writes that arrive while a commit runs share the next one.
"""

import asyncio
import json
import math
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from gateway.core.bad_json import BAD_JSON
from gateway.core.clock import Clock, SystemClock
from gateway.core.controller import Outcome
from gateway.core.model import (
    Command,
    CommandEvent,
    CommandState,
    Written,
    decode_command,
    encode_command,
)
from gateway.core.timer import Timer
from gateway.journal import audit, retention, writes
from gateway.journal.audit import COLUMNS, AuditRow, Head, Note
from gateway.journal.file import OF_STEPS, DiskError, JournalError, is_unreadable
from gateway.journal.refusals import Refusals
from gateway.journal.retention import AuditSettings, Keep
from gateway.journal.store import Store
from gateway.journal.unpublished import unpublished
from gateway.journal.writes import Revert, StoredSetting, Write

__all__ = ["Journal", "JournalError", "OpenCommand", "Revert", "StoredSetting"]

T = TypeVar("T")

OWING: Final = 2.0
"""Seconds that what is owing waits for the disk."""
CHECK_AFTER: Final = 5.0
"""Seconds from the start until a check begins that takes long: the doors open first."""
TOLD_EVERY: Final = 10.0
"""Seconds between two words of how far it has come."""
REOPEN: Final = 15.0
"""Seconds between tries to open a journal that could not be written at the start."""
RETRY: Final = 5.0
"""Seconds until what nobody waits for is tried again."""
MAX_UNWRITTEN_ROWS: Final = 5_000
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
    boot_id: str = ""
    """The start of the machine in which it was accepted; "" where that is not known."""
    boot: float = 0.0
    """When it expires, on the boot clock of that start."""


class Journal:
    """Durable memory of commands, settings and dead-man's timers. A write has happened once it is awaited.

    What is `owing` is written as soon as it can be, and waits for that only shortly: no book-keeping bars a revert.
    """

    def __init__(
        self,
        path: Path,
        settings: AuditSettings | None = None,
        clock: Clock | None = None,
        others: Sequence[str] = (),
    ) -> None:
        """`others` are patterns of files beside it that a gateway with a journal leaves: so one was here before."""
        self.path = path
        self._settings = settings or AuditSettings()
        self._clock = clock or SystemClock()
        self._store = Store(path, others)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="journal reader")
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._unwritten: list[AuditRow] = []
        """Rows that nobody waits for. They go with the next commit that succeeds."""
        self._owed: list[Write] = []
        """Writes that failed, and whose doing did not wait for them. They go first with the next commit."""
        self._trouble = ""
        self._reopening: asyncio.Task[None] | None = None
        self.reopened: Callable[[], Awaitable[None]] | None = None
        """Called once a journal that could not be written at the start can be."""
        self._refusals = Refusals()
        self._failing = False
        self._resting = False
        """Whether rows that nobody waits for wait for the alarm, or for somebody's write, after one failed."""
        self._next_cut = math.inf  # until it is open
        self._committer: asyncio.Task[None] | None = None
        self._timer = Timer(self._awake)
        self._asked: list[tuple[str, asyncio.Future[CommandEvent | None]]] = []
        """Ids whose newest steps somebody waits for."""
        self._looking_up: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open or create the file. Raises JournalError saying what to do.

        One that is there and can't be written, e.g. because its card has died, is read as far as that goes: what was
        promised is known then, nothing new is taken, and it is tried again until it can be written. Of one that the
        disk can't read, nothing is known until then. So it is with one
        that is large and was not closed in good order: it is checked while the gateway runs.
        """
        if await self._on(self._writing, self._store.needs_long_look):
            await self._on(self._writing, self._store.open_unchecked)
            self._trouble = "the command journal is being checked, for it was not closed in good order"
            log.warning("control is closed while the command journal is checked: it was not closed in good order")
            self._reopening = asyncio.create_task(self._open_again(CHECK_AFTER), name="journal check")
            return
        try:
            await self._open()
        except DiskError as error:
            if not await self._on(self._writing, self._store.open_copy) and not is_unreadable(error.__cause__):
                raise
            self._trouble = str(error)
            log.error("control is closed: the command journal can't be written", error=self._trouble)
            self._reopening = asyncio.create_task(self._open_again(REOPEN), name="journal reopening")

    async def _open_again(self, after: float) -> None:
        while self._trouble:
            await asyncio.sleep(after)
            after = REOPEN
            opening = asyncio.create_task(self._open(), name="journal open")
            while not (await asyncio.wait({opening}, timeout=TOLD_EVERY))[0]:
                log.info("the command journal is being checked; control stays closed", progress=self._store.progress)
            try:
                await opening
            except JournalError as error:
                if self._trouble != str(error):
                    log.error("the command journal can't be written; control stays closed", error=str(error))
                self._trouble = str(error)
                continue
            self._trouble = ""
            log.info("the command journal can be written again; control is open")
            self._resting = False
            self._begin()
            if self.reopened is not None:
                await self.reopened()

    @property
    def trouble(self) -> str:
        """Why nothing can be written, in words; "" where all is well."""
        progress = self._store.progress
        return f"{self._trouble}: {progress}" if self._trouble and self.is_copy and progress else self._trouble

    @property
    def lost(self) -> str:
        """What is missing of what was written, or was damaged, as far as it was found; "" where nothing was."""
        return f"of the command journal, {self._store.lost}" if self._store.lost else ""

    @property
    def can_be_read(self) -> bool:
        """Whether what was written can be read. Where it can't, `reopened` is called once it can."""
        return self._store.can_be_read

    @property
    def is_copy(self) -> bool:
        """Whether it is only read, for the file could not be opened to be written at the start, and still can't be."""
        return self._reopening is not None and not self._reopening.done()

    @property
    def owed(self) -> int:
        """How many writes are still to come."""
        return len(self._owed) + len(self._unwritten)

    async def _open(self) -> None:
        head = await self._on(self._writing, partial(self._store.open, self._clock.now()))
        self._next_cut = self._clock.monotonic() + retention.FIRST
        # Where logs are kept elsewhere, this is what nobody who can write the file can change.
        log.debug("journal open", head=str(head))

    async def close(self) -> None:
        """Finish what waits and close the file."""
        self._store.interrupt()
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        self._unwritten += self._refusals.counted()
        self._resting = False
        self._begin()
        if self._committer is not None:
            await self._committer
        self._timer.cancel()
        if self._unwritten or self._owed:
            log.error("refusals and notes are lost, the journal can't be written", rows=self.owed)
        await self._on(self._writing, self._store.close)
        self._writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)

    # what is written

    async def record(self, *events: CommandEvent, along: Iterable[Write] = (), owing: bool = False) -> None:
        """Write steps of commands, refusals and corrections, in this order; see `post`. Raises JournalError."""
        await self.post(*events, along=along, owing=owing)

    def post(self, *events: CommandEvent, along: Iterable[Write] = (), owing: bool = False) -> "asyncio.Future[None]":
        """Have steps of commands written, in this order, and what is to be `along` in the same commit.

        They are whether or not somebody waits for the future; it fails with a JournalError where nothing was written.
        The first step of a command brings the command itself along. A refusal makes no command known: its id is free,
        and is written as `refused` does. Raises JournalError for a text that is no Unicode.
        """
        self.refused(*(event for event in events if event.state is CommandState.REJECTED))
        steps = (event for event in events if event.state is not CommandState.REJECTED)
        rows = [(event, _row(audit.of_event, event)) for event in steps]
        more = list(along)

        def write(db: sqlite3.Connection) -> None:
            for event, row in rows:
                self._store.append(db, row)
                if not event.correction:
                    _keep(db, event)
            for each in more:
                each(db)

        if rows or more:
            return self._post(write, owing=owing)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def write(self, *writes: Write, owing: bool = False) -> None:
        """Write what is no step (see `writes`), all in one commit. Raises JournalError."""
        await self.post(along=writes, owing=owing)

    def refused(self, *events: CommandEvent) -> None:
        """Have refusals written soon, and of a flood of them how many they were. Waits for nothing, fails never."""
        now = self._clock.monotonic()
        for event in events:
            row = self._refusals.take(event, now, room=len(self._unwritten) < MAX_UNWRITTEN_ROWS)
            if row is not None:
                self._unwritten.append(row)
                self._begin()
            elif not self._timer.is_set:
                self._wake_up()

    async def note(self, note: Note) -> None:
        """Write into the audit what is no step of a command: a halt, a drift. Raises JournalError."""
        row = _row(audit.of_note, note)
        await self.write(lambda db: self._store.append(db, row))

    def note_soon(self, note: Note) -> None:
        """Have it written as soon as the disk lets it. Waits for nothing; raises JournalError for no Unicode alone."""
        row = _row(audit.of_note, note)
        if len(self._unwritten) < 2 * MAX_UNWRITTEN_ROWS:
            self._unwritten.append(row)
        else:
            log.error("the audit lacks a note, the journal can't be written", note=note)
        self._begin()

    def keep_setting_soon(self, setting: StoredSetting) -> None:
        """Have it kept with the next commit that succeeds."""
        if len(self._owed) < MAX_UNWRITTEN_ROWS:
            self._owed.append(writes.setting(setting))
            self._begin()

    # what is read

    async def open_commands(self) -> list[OpenCommand]:
        """Return the commands that have not ended, in the order in which they came."""

        def read(db: sqlite3.Connection) -> list[OpenCommand]:
            rows = db.execute(
                "SELECT body, state, controller, receipt, outcome, boot_id, boot FROM command "
                "WHERE state IN ('accepted', 'sent') "
                "ORDER BY (SELECT min(seq) FROM audit WHERE audit.id = command.id AND audit.id != '' "
                "AND audit.state != 'rejected')"
            )
            return [
                OpenCommand(
                    decode_command(body),
                    CommandState(state),
                    controller,
                    receipt,
                    msgspec.json.decode(outcome, type=Outcome) if outcome else None,
                    boot_id,
                    boot,
                )
                for body, state, controller, receipt, outcome, boot_id, boot in rows
            ]

        return await self._read(read)

    async def reverts(self) -> list[Revert]:
        """Return the dead-man's timers that run."""

        def read(db: sqlite3.Connection) -> list[Revert]:
            return [
                Revert(serial, setpoint, msgspec.json.decode(value), datetime.fromtimestamp(due, UTC), boot_id, boot)
                for serial, setpoint, value, due, boot_id, boot in db.execute(
                    "SELECT serial, setpoint, value, due, boot_id, boot FROM revert ORDER BY due"
                )
            ]

        return await self._read(read)

    async def settings(self) -> list[StoredSetting]:
        """Return what setpoints were set to."""
        return await self._read(lambda db: [writes.stored(row) for row in db.execute("SELECT * FROM setting")])

    async def written(self) -> list[Written]:
        """Return how often each setpoint of each device was written."""
        return await self._read(
            lambda db: [
                Written(*row) for row in db.execute("SELECT serial, setpoint, life, day, today FROM writes").fetchall()
            ]
        )

    async def halt_in_force(self) -> AuditRow | None:
        """Return the row of the audit of the halt after which nobody has resumed; None where there is none."""
        return await self._read(audit.halt_in_force)

    async def last_word(self) -> datetime | None:
        """Return the time of the newest row of the audit; None where there is none, or what stands there is none."""

        def read(db: sqlite3.Connection) -> datetime | None:
            found = db.execute("SELECT time FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
            try:
                moment = datetime.fromisoformat(found[0]) if found else None
            except (ValueError, TypeError):
                return None
            return moment if moment is not None and moment.tzinfo else None

        return await self._read(read)

    async def commands_by_receipt(self, receipts: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
        """Return receipt → id and device of the commands that have it, of those of these receipts that any has."""

        def read(db: sqlite3.Connection) -> dict[str, list[tuple[str, str]]]:
            found: dict[str, list[tuple[str, str]]] = {}
            rows = db.execute(
                "SELECT receipt, id, serial FROM command "
                "WHERE receipt IN (SELECT value FROM json_each(?)) AND receipt != ''",
                (json.dumps(list(receipts)),),
            )
            for receipt, id_, serial in rows:
                found.setdefault(str(receipt), []).append((str(id_), str(serial)))
            return found

        return await self._read(read)

    async def last_event(self, command_id: str) -> CommandEvent | None:
        """Return the newest step of a command, or None where the id is not known. Refusals make none known.

        Who asks while another question is being answered is answered together with all who do.
        """
        answer: asyncio.Future[CommandEvent | None] = asyncio.get_running_loop().create_future()
        self._asked.append((command_id, answer))
        if self._looking_up is None or self._looking_up.done():
            self._looking_up = asyncio.create_task(self._look_up(), name="journal look-up")
        return await answer

    async def last_events(self, ids: Sequence[str]) -> Sequence[CommandEvent | Exception | None]:
        """Return `last_event` of each of these, in their order, or why it can't be read."""
        try:
            return await self._read(partial(_newest, ids=ids))
        except Exception as error:  # noqa: BLE001 - whoever asks is told, whatever it is
            return [error] * len(ids)

    async def _look_up(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            found = await self.last_events([id_ for id_, _ in asked])
            for (_, answer), event in zip(asked, found, strict=True):
                if answer.done():
                    continue
                if isinstance(event, Exception):
                    answer.set_exception(event)
                else:
                    answer.set_result(event)

    async def history(self, command_id: str) -> list[CommandEvent]:
        """Return all steps of a command, oldest first, with what corrected its end."""
        return (await self._read(partial(_history, command_id=command_id)))[::-1]

    async def unpublished(self) -> list[CommandEvent]:
        """Return the last steps before a crash, which may not have been published."""
        return await self._read(unpublished)

    async def head(self) -> Head:
        """Return number and hash of the audit's newest row."""
        return await self._read(audit.head)

    # the loop's side of the threads

    def _post(self, write: Write, *, owing: bool) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((write, done))
        self._begin()
        if not owing:
            return done
        done.add_done_callback(partial(self._owe, write))
        waited: asyncio.Future[None] = loop.create_future()
        alarm = Timer(partial(_settle, waited))
        alarm.set(OWING)
        done.add_done_callback(partial(_settle, waited))
        waited.add_done_callback(lambda _: alarm.cancel())
        return waited

    def _owe(self, write: Write, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            self._owed.append(write)
            self._wake_up()

    def _begin(self) -> None:
        """Have what waits written, unless that is under way or has to wait."""
        ready = self._waiting or ((self._unwritten or self._owed) and not self._resting)
        if ready and (self._committer is None or self._committer.done()):
            self._committer = asyncio.create_task(self._commit_waiting(), name="journal commit")
        self._wake_up()

    async def _commit_waiting(self) -> None:
        while self._waiting or ((self._unwritten or self._owed) and not self._resting):
            batch, self._waiting = self._waiting, []
            rows, self._unwritten = self._unwritten, []
            owed, self._owed = self._owed, []
            keep = Keep.of(self._settings, self._clock.now()) if self._clock.monotonic() >= self._next_cut else None
            waiting = [*owed, *(write for write, _ in batch)]
            try:
                cut = await self._on(self._writing, partial(self._store.commit, rows, waiting, keep))
            except Exception as error:  # noqa: BLE001 - whoever waits for the write is told, whatever it is
                self._unwritten = rows + self._unwritten
                self._owed = owed + self._owed
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
        if self.is_copy:
            self._resting = error is not None
            return
        if error is not None and not self._failing:
            log.error("the command journal can't be written; nothing new is accepted until it can", error=str(error))
        elif error is None and self._failing:
            log.info("the command journal can be written again")
        self._failing = self._resting = error is not None
        self._trouble = str(error) if error is not None else ""

    def _wake_up(self) -> None:
        """Set the alarm for what has to be written later without anybody waiting for it."""
        now = self._clock.monotonic()
        due = self._refusals.due
        if (self._unwritten or self._owed) and self._resting:
            due = now + RETRY
        if due is not None:
            self._timer.within(due - now)

    def _awake(self) -> None:
        self._resting = False
        self._unwritten += self._refusals.counted(self._clock.monotonic())
        self._begin()

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._reading, partial(self._store.read, read))

    @staticmethod
    async def _on(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def _settle(future: "asyncio.Future[None]", _: object = None) -> None:
    if not future.done():
        future.set_result(None)


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
        (command.id, encode_command(command), event.state, command.serial),
    )


def _history(db: sqlite3.Connection, command_id: str, newest: int = -1) -> list[CommandEvent]:
    """Return the newest steps of a command, newest first; -1 for all. Raises JournalError where they can't be read."""
    known = db.execute("SELECT body FROM command WHERE id = ?", (command_id,)).fetchone()
    if known is None:
        return []
    rows = db.execute(
        f"SELECT {COLUMNS} FROM audit WHERE id = ? AND {OF_STEPS} "  # noqa: S608 - constants
        f"AND state IN ({', '.join(f'{state.value!r}' for state in CommandState)}) ORDER BY seq DESC LIMIT ?",
        (command_id, newest),
    )
    try:
        command = decode_command(known[0])
        return [audit.to_event(AuditRow(*row), command) for row in rows]
    except (*BAD_JSON, ValueError, TypeError) as error:
        raise JournalError(f"what the journal has of command {command_id} can't be read ({error})") from error


def _newest(db: sqlite3.Connection, ids: Sequence[str]) -> list[CommandEvent | Exception | None]:
    """Return the newest step of each of these commands, in their order; the error where it can't be read."""
    query = "SELECT id FROM command WHERE id IN (SELECT value FROM json_each(?))"
    known = {row[0] for row in db.execute(query, (msgspec.json.encode(ids).decode(),))}
    found: list[CommandEvent | Exception | None] = []
    for id_ in ids:
        try:
            found.append(next(iter(_history(db, id_, 1)), None) if id_ in known else None)
        except JournalError as error:
            found.append(error)
    return found


def _row(make: Callable[[T], AuditRow], what: T) -> AuditRow:
    """Return the row of a step or a note. Raises JournalError for one that all in its commit would fail with."""
    try:
        row = make(what)
        f"{row.serial}{row.setpoint}{row.origin}{row.detail}{row.id}".encode()
    except UnicodeEncodeError as error:
        raise JournalError(f"a text is no Unicode, so it can't be journaled ({error.reason})") from None
    return row
