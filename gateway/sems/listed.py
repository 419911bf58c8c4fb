"""What the lists of an account named last, kept over restarts: a list that loses much is doubted after one, too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core.kept_file import KeptFile

FORMAT: Final = 1


class _File(msgspec.Struct):
    version: int
    serials: list[str]


class Listed:
    """Serial numbers of devices and ids of plants."""

    def __init__(self, path: Path, log: structlog.stdlib.BoundLogger) -> None:
        self._file = KeptFile(
            path,
            _File,
            log,
            version=FORMAT,
            unreadable="what was listed before can't be read",
            unwritable="what is listed can't be kept",
        )
        self._stored: list[str] = []

    def restore(self) -> list[str]:
        """Return what was kept; nothing where there is none. A file that can't be read is logged."""
        found = self._file.read()
        self._stored = found.serials if found is not None else []
        return list(self._stored)

    async def keep(self, serials: Sequence[str]) -> None:
        """Write what is listed now, where that has changed. A disk that does not take it is logged."""
        listed = sorted(serials)
        if listed != self._stored:
            await self._file.write(msgspec.json.encode(_File(FORMAT, listed)))
            self._stored = listed
