"""A JSON file of ours that can be lost: what it kept begins anew then, and trouble with it is logged, not raised."""

import asyncio
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from gateway.core import files
from gateway.core.bad_json import BAD_JSON

T = TypeVar("T")


def restored(path: Path, type_: type[T], log: structlog.stdlib.BoundLogger, version: int | None = None) -> T:
    """Return what a file that is ours to write holds; see `files.read`, which says what it raises too.

    A damaged one is put aside; where what it held before serves, that is logged. Blocks.
    """
    try:
        found = files.whole(path, lambda data: files.decoded(data, type_, version))
    except (OSError, *BAD_JSON) as error:
        if not isinstance(error, OSError) or files.is_damage(error):
            files.put_aside(path)
        raise
    if found.trouble:
        log.warning("a file was damaged; what it held before serves", file=str(path), error=found.trouble)
        files.mend(path)
    return found.value


class KeptFile(Generic[T]):
    """Read at the start, and replaced whole whenever what it keeps has changed; what it was stays beside it."""

    def __init__(
        self,
        path: Path,
        type_: type[T],
        log: structlog.stdlib.BoundLogger,
        *,
        version: int | None = None,
        unreadable: str,
        unwritable: str,
    ) -> None:
        """`unreadable` and `unwritable` are the log lines of either trouble; `version` is as for `files.read`."""
        self.path = path
        self.damaged = False
        """Whether there was a file that could not be read."""
        self.works = True
        """Whether the disk took it the last time."""
        self._type = type_
        self._log = log
        self._version = version
        self._unreadable = unreadable
        self._unwritable = unwritable

    def read(self) -> T | None:
        """Return what it holds; None where there is none, or a damaged one, which is logged. Blocks."""
        try:
            return restored(self.path, self._type, self._log, self._version)
        except FileNotFoundError:
            return None
        except (OSError, *BAD_JSON) as error:
            self.damaged = True
            self._log.warning(self._unreadable, file=str(self.path), error=str(error))
            return None

    async def write(self, data: bytes) -> bool:
        """Replace the file and wait for the disk; return whether it took it. Of failures in a row one is logged."""
        return await asyncio.to_thread(self.write_now, data)

    def write_now(self, data: bytes) -> bool:
        """Do the same; blocks."""
        before, self.works = self.works, True
        try:
            files.keep(self.path, data)
        except OSError as error:
            self.works = False
            if before:
                self._log.warning(self._unwritable, file=str(self.path), error=str(error))
        return self.works
