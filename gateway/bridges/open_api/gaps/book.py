"""The file in which it stands what was read, and what is missing: a line for each change, and now and then anew.

A line is in the file a moment after it was added, so a crash of the gateway loses next to nothing; `written` waits for
the disk. Lines of readings alone do not: after a power cut some may be gone, and then a gap begins too early.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.bridges.open_api.gaps.coverage import Row
from gateway.core import files
from gateway.core.bad_json import BAD_JSON

ANEW_FROM: Final = 1_000_000
"""Bytes of lines from which on the file is written anew, if it has become four times as long as it was."""
GROWN: Final = 4
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Row)


class Book:
    """One file. `open`, any number of `add` and `written`, `run` in a task of its own, `close`."""

    def __init__(self, path: Path, everything: Callable[[], Iterable[Row]], log: structlog.stdlib.BoundLogger) -> None:
        self._path = path
        self._everything = everything
        """Returns what a new file has to hold."""
        self._log = log
        self._pending: list[Row] = []
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._file: int | None = None
        self._size = 0
        self._size_anew = 0
        """Bytes when it was last written anew."""
        self._failing = False

    async def open(self) -> list[Row]:
        """Return the lines there are; what can't be read is left out."""
        try:
            return await asyncio.to_thread(self._read)
        except OSError as error:
            self._fail(error)
            return []

    def add(self, row: Row) -> None:
        """Add a line, soon."""
        self._pending.append(row)
        self._news.set()

    async def written(self, *, synced: bool = True) -> None:
        """Wait until all lines so far are in the file; or, where that can't be written, go on without."""
        await asyncio.shield(asyncio.create_task(self._write(synced=synced), name="gaps"))

    async def run(self) -> None:
        """Write lines as they come, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.written(synced=False)

    async def close(self) -> None:
        """Write what is left, and close the file."""
        await self.written()
        file, self._file = self._file, None
        if file is not None:
            await asyncio.to_thread(os.close, file)

    async def _write(self, *, synced: bool) -> None:
        async with self._writing:
            rows, self._pending = self._pending, []
            anew = self._file is None or self._size > max(ANEW_FROM, GROWN * self._size_anew)
            everything = list(self._everything()) if anew else []
            try:
                if anew:
                    await asyncio.to_thread(self._begin, everything)
                elif rows:
                    await asyncio.to_thread(self._append, rows, synced)
            except OSError as error:
                self._fail(error)
            else:
                self._failing = False

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._log.warning(
                "what was read can't be noted, so after a restart some gaps are not seen, or filled again",
                file=str(self._path),
                error=str(error),
            )

    # in a thread

    def _read(self) -> list[Row]:
        rows, torn = _rows(self._path)
        if torn:
            # What was known before is told first, and what can be read of the newer lines goes on from there.
            before, _ = _rows(files.old(self._path))
            rows = before + rows
        return rows

    def _begin(self, rows: Iterable[Row]) -> None:
        data = _ENCODER.encode_lines(rows)
        files.keep(self._path, data)
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._file = files.open_own(self._path, os.O_WRONLY | os.O_APPEND)
        self._size = self._size_anew = len(data)

    def _append(self, rows: Iterable[Row], synced: bool) -> None:
        if self._file is None:
            return
        self._size += os.write(self._file, _ENCODER.encode_lines(rows))
        if synced:
            os.fdatasync(self._file)


def _rows(path: Path) -> tuple[list[Row], bool]:
    """Return the lines that can be read, and whether some can't, or there is no file. Raises OSError."""
    rows: list[Row] = []
    torn = False
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return rows, True
    for line in lines:
        try:
            rows.append(_DECODER.decode(line))
        except BAD_JSON:
            torn = True
    return rows, torn or not rows
