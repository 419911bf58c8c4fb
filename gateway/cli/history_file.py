"""The file that a history goes into, page by page: what is whole stays, whatever ends the command.

Beside FILE, until it is finished, lie FILE.part with what has come, and FILE.progress with how much of it is whole.
"""

import csv
import fcntl
import io
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

import msgspec

from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.model import Page, Sample, Value, iso

TIME: Final = "time"


class Format(StrEnum):
    """What the file is."""

    CSV = "csv"
    JSONL = "jsonl"

    @classmethod
    def of(cls, path: Path) -> "Format":
        """Return the one that a file's name tells of."""
        return cls.JSONL if path.suffix.lower() in {".jsonl", ".ndjson"} else cls.CSV


class FileInTheWayError(Exception):
    """The file can't be written. The message says what to do."""


class Progress(msgspec.Struct):
    """How far it has come."""

    request: Mapping[str, str]
    """What was asked for: only the same request goes on."""
    points: tuple[str, ...] = ()
    size: int = 0
    """Bytes of FILE.part that are whole."""
    until: datetime | None = None
    """The end of the last whole page; None before the first."""
    pages: int = 0
    samples: int = 0
    empty: list[tuple[datetime, datetime]] = []
    """From when to before when SEMS has nothing, oldest first."""


class HistoryFile:
    """One history on its way into a file. `open`, `begin`, any number of `write`, `finish`; `close` in any case."""

    def __init__(self, path: Path, format_: Format, request: Mapping[str, str]) -> None:
        self.path: Final = path
        self.part: Final = path.with_name(path.name + ".part")
        self._store: Final = path.with_name(path.name + ".progress")
        self._format = format_
        self._file: IO[bytes] | None = None
        self.progress = Progress({**request, "format": format_})

    def open(self, *, force: bool = False) -> None:
        """Take up what is whole of an earlier try. Raises FileInTheWayError."""
        if trouble := files.in_the_way(self.path):
            raise FileInTheWayError(trouble)
        if self.path.exists() and not force:
            raise FileInTheWayError(f"{self.path} is there already; name another file, or overwrite it with --force")
        try:
            with ExitStack() as stack:
                file = stack.enter_context(self.part.open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if force:
                    self._store.unlink(missing_ok=True)
                elif self.part.stat().st_size:
                    self._take_up()
                file.truncate(self.progress.size)  # a torn page goes
                stack.pop_all()
        except BlockingIOError:
            raise FileInTheWayError(f"another `sems-gateway history` is writing {self.part}; wait for it") from None
        except OSError as error:
            raise self._unwritable(error) from None
        self._file = file

    def begin(self, points: tuple[str, ...]) -> None:
        """Write the header, or check that it is the one there. Raises FileInTheWayError."""
        if self.progress.until is not None:
            if self.progress.points != points:
                raise FileInTheWayError(
                    f"{self.part} has other columns than the history has now; begin anew with --force"
                )
            return
        self.progress.points = points
        header = _csv_line([TIME, *points]) if self._format is Format.CSV else b""
        self._append(header)

    def write(self, page: Page) -> None:
        """Add a page; on return it outlives a crash. Raises FileInTheWayError."""
        encode = self._csv_row if self._format is Format.CSV else _json_line
        self._append(b"".join(encode(sample) for sample in page.samples))
        self.progress.until = page.end
        self.progress.pages += 1
        self.progress.samples += len(page.samples)
        if not page.samples:
            self._note_empty(page)
        try:
            files.replace(self._store, msgspec.json.encode(self.progress))
        except OSError as error:
            raise self._unwritable(error) from None

    def finish(self) -> None:
        """Give it its name. Raises FileInTheWayError."""
        try:
            self.part.replace(self.path)
            self._store.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Let go of it. What is not finished stays, to be gone on with; a part without a whole page goes."""
        if self._file is None:
            return
        if self.progress.until is None:
            with suppress(OSError):
                self.part.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    def _note_empty(self, page: Page) -> None:
        empty = self.progress.empty
        if empty and empty[-1][1] == page.start:
            empty[-1] = empty[-1][0], page.end
        else:
            empty.append((page.start, page.end))

    def _take_up(self) -> None:
        try:
            found = msgspec.json.decode(self._store.read_bytes(), type=Progress)
        except FileNotFoundError:
            return
        except BAD_JSON:
            raise FileInTheWayError(f"{self._store} can't be read; begin anew with --force") from None
        if found.request != self.progress.request:
            words = " ".join(str(value) for value in found.request.values())
            raise FileInTheWayError(
                f"{self.part} belongs to another request ({words}); go on with that one, or begin anew with --force"
            )
        if found.size > self.part.stat().st_size:
            raise FileInTheWayError(f"{self.part} is shorter than it was; begin anew with --force")
        self.progress = found

    def _append(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101 - a caller's mistake, not a user's
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None
        self.progress.size += len(data)

    def _unwritable(self, error: OSError) -> FileInTheWayError:
        return FileInTheWayError(f"{self.part} can't be written ({error.strerror})")

    def _csv_row(self, sample: Sample) -> bytes:
        return _csv_line([iso(sample.time), *(_cell(sample.values.get(point)) for point in self.progress.points)])


def _csv_line(cells: list[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def _json_line(sample: Sample) -> bytes:
    return msgspec.json.encode({TIME: iso(sample.time), **sample.values}) + b"\n"


def _cell(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.15g}"
        case _:
            return str(value)
