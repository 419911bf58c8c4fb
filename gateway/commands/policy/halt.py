"""The global stop: while it is set, no new command is taken; reverts go on. It outlives restarts.

It is a file in `data_dir` that is there while control is halted. To halt always takes effect, at once and in memory,
whatever the disk says; to resume takes effect only once the disk has it, so what a crash leaves behind is a halt.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.clock import Clock
from gateway.core.errors import GatewayError
from gateway.core.model import GATEWAY, Halt, Origin, Reason, iso
from gateway.core.text import MAX_HALT_REASON, MAX_ORIGIN, escaped, plain
from gateway.journal.audit import AuditAction, AuditRow, Note
from gateway.journal.file import JournalError

FILE_NAME: Final = "halt.json"
FORMAT: Final = 1
STORE_EVERY: Final = 10.0
"""Seconds between attempts to store a halt that the disk did not take."""
LOOK_EVERY: Final = 1.0
"""Seconds between looks for a halt that another process has left on the disk."""

log = structlog.get_logger("control")


class HaltError(GatewayError):
    """It was not done, or not wholly. The message says what holds now and what to do."""

    def __init__(self, text: str, reason: Reason) -> None:
        super().__init__(text)
        self.reason = reason
        """`not_permitted` or `not_stored`."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    by: str
    reason: str
    since: datetime


class Halting:
    """Knows whether control is halted, and keeps it so. Without a path, only as long as the process lives."""

    def __init__(
        self, clock: Clock, path: Path | None = None, note: Callable[[Note], Awaitable[None]] | None = None
    ) -> None:
        self._clock = clock
        self._path = path
        self._note = note
        """Writes into the audit; may raise JournalError."""
        self._current: Halt | None = None
        self._stored: Halt | None = None
        """What the file and the audit have."""
        self._audited: Halt | None = None
        self._again = 0.0
        """When it is tried again to store it, on the monotonic clock."""
        self._lock = asyncio.Lock()
        self._resuming = False
        """A resume waits for the disk. A halt that comes meanwhile is a new one, and outlives it."""
        self._watchers: list[Callable[[], None]] = []

    @property
    def current(self) -> Halt | None:
        """Since when, by whom and why control is halted; None while it is not."""
        return self._current

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have somebody told, synchronously, whenever control was halted or resumed."""
        self._watchers.append(watcher)

    def load(self) -> None:
        """Read the file. One that can't be read means halted: nobody knows why it is there."""
        if self._path is None:
            return
        try:
            found = files.read(self._path, _File, FORMAT)
        except FileNotFoundError:
            return
        except (OSError, *BAD_JSON, ValueError) as error:
            why = f"{self._path} is there and can't be read ({error}), so nobody knows why; resume when it is safe"
            self._current = self._stored = Halt(by=str(GATEWAY), reason=why, since=self._clock.now())
        else:
            self._current = self._stored = Halt(
                by=plain(found.by, MAX_ORIGIN), reason=plain(found.reason, MAX_HALT_REASON), since=found.since
            )
        log.warning("control is halted, as the disk has it", **told(self._current))
        self._tell()

    async def halt_as_audited(self, found: AuditRow | None) -> None:
        """Halt where the audit has a halt that nobody has ended, and the file is gone."""
        if self._current is None and found is not None:
            why = f": {found.detail}" if found.detail else ""
            with suppress(HaltError):  # told in the log, and halted it is
                await self.halt(
                    GATEWAY,
                    f"the audit says that {found.origin} halted control at {found.time}, and not that anybody has "
                    f"resumed it, but {FILE_NAME} is gone; resume when it is safe{why}",
                )

    async def follow(self) -> None:
        """Take up what `sems-gateway halt` leaves on the disk where it could not reach the gateway, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._store_late()
            if self._current is None and await asyncio.to_thread(self._is_there) and self._current is None:
                self.load()
                if (found := self.current) is not None:
                    with suppress(JournalError):  # told by the journal itself, and halted it is
                        await self._audit(_halted(found))

    async def _store_late(self) -> None:
        """Store a halt that could not be, now that the disk may have space again."""
        halted = self._current
        if halted is None or self._stored is halted or self._clock.monotonic() < self._again:
            return
        async with self._lock:
            if self._stored is halted or self._current is not halted:
                return
            self._again = self._clock.monotonic() + STORE_EVERY
            if not await self._troubles(halted):
                self._stored = halted
                log.info("the halt is stored now")

    def _is_there(self) -> bool:
        try:
            return self._path is not None and self._path.exists()
        except OSError:  # a dead disk, of which others tell
            return False

    async def halt(self, by: Origin, reason: str = "") -> Halt:
        """Stop control, at once. Where it is stopped already, that one stays.

        Raises HaltError where it can't be stored; then it holds until the process ends.
        """
        if self._current is None or self._resuming:
            self._current = Halt(
                by=escaped(str(by), MAX_ORIGIN), reason=plain(reason, MAX_HALT_REASON), since=self._clock.now()
            )
            log.warning("control is halted", **told(self._current))
            self._tell()
        halted = self._current
        async with self._lock:
            if self._stored is not halted and self._current is halted:
                await self._store(halted)
                self._stored = halted
        return halted

    async def resume(self, by: Origin) -> None:
        """Let commands in again. Does nothing where control is not halted.

        Raises HaltError where that can't be stored; then control stays halted.
        """
        halted = self._current
        if halted is None:
            return
        async with self._lock:
            if self._current is not halted:
                return
            self._resuming = True
            after = f"halted by {halted.by} at {iso(halted.since)}"
            try:
                await self._audit(Note(action=AuditAction.RESUMED, time=self._clock.now(), origin=by, detail=after))
                if self._path is not None:
                    await asyncio.to_thread(_remove, self._path)
            except (OSError, JournalError) as error:
                raise HaltError(
                    f"control stays halted: that it is resumed can't be stored ({error}); see to the disk that "
                    "data_dir is on, and resume again",
                    Reason.NOT_STORED,
                ) from error
            finally:
                self._resuming = False
            self._stored = None
            if self._current is not halted:
                return
            self._current = None
        log.warning("control is resumed", by=by, **{f"halted_{key}": text for key, text in told(halted).items()})
        self._tell()

    async def _store(self, halted: Halt) -> None:
        self._again = self._clock.monotonic() + STORE_EVERY
        if troubles := await self._troubles(halted):
            text = f"control is halted, but {'; and '.join(troubles)}; see to the disk: it is tried again"
            log.error("a halt could not be stored", why=text)
            raise HaltError(text, Reason.NOT_STORED)

    async def _troubles(self, halted: Halt) -> list[str]:
        """Store a halt; return what could not be, in words."""
        troubles = []
        try:
            if self._path is not None:
                await asyncio.to_thread(write, self._path, halted)
        except OSError as error:
            troubles.append(f"{self._path} can't be written ({error.strerror or error}), so a restart would resume it")
        try:
            if self._audited is not halted:
                await self._audit(_halted(halted))
                self._audited = halted
        except JournalError as error:
            troubles.append(f"the audit does not have it: {error}")
        return troubles

    async def _audit(self, note: Note) -> None:
        if self._note is not None:
            await self._note(note)

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher()


def write(path: Path, halted: Halt) -> None:
    """Write down that control is halted, for the gateway that runs with this file, now or next. Raises OSError."""
    files.replace(path, msgspec.json.encode(_File(FORMAT, str(halted.by), halted.reason, halted.since)))


def told(halted: Halt) -> dict[str, str]:
    """Return a halt as texts for the log and for JSON."""
    return {"by": halted.by, "reason": halted.reason, "since": iso(halted.since)}


def in_words(halted: Halt) -> str:
    """Return a halt as people read it."""
    why = f": {halted.reason}" if halted.reason else ""
    return f"halted by {halted.by} at {iso(halted.since)}{why}"


def _halted(halted: Halt) -> Note:
    return Note(action=AuditAction.HALTED, time=halted.since, origin=Origin(halted.by), detail=halted.reason)


def _remove(path: Path) -> None:
    """Delete the file and wait for the disk. Raises OSError."""
    path.unlink(missing_ok=True)
    files.sync_directory(path.parent)
