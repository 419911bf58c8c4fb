"""Which devices have ever given a value: only those get topics, registers and names where others see them.

A device that a list names and that never says anything is a ghost, of one bad answer perhaps; it can be commanded by
its serial number, and is shown nowhere until it has given a value. What was good in an earlier run is shown at once,
and so is what the configuration names, for a person knows that it is there: `Router.announce`.
"""

import asyncio
from collections.abc import KeysView
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core import files
from gateway.core.kept_file import KeptFile

FILE: Final = "devices.json"
FORMAT: Final = 1
LOOK: Final = 2.0
"""Seconds between looks whether there is something to store."""

log = structlog.get_logger("devices")


class _File(msgspec.Struct):
    version: int
    devices: dict[str, datetime]
    """Serial → when it gave its first value."""


class GoodOnce:
    """Those devices, kept in a file."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}
        self._file: KeptFile[_File] | None = None
        self._stored = 0

    def __contains__(self, serial: object) -> bool:
        return serial in self._since

    @property
    def serials(self) -> KeysView[str]:
        """Their serials: to look up many."""
        return self._since.keys()

    def add(self, serial: str, now: datetime) -> None:
        """Note that a device has given a value."""
        self._since.setdefault(serial, now)

    def restore(self, directory: Path) -> None:
        """Read what was noted in earlier runs, and keep the file from now on. One that can't be read is logged."""
        self._file = KeptFile(
            directory / FILE,
            _File,
            log,
            version=FORMAT,
            unreadable="what devices there were can't be read; each is shown again once it has given a value",
            unwritable="what devices there are can't be stored",
        )
        if (found := self._file.read()) is not None:
            self._stored = len(found.devices)
            self._since = found.devices | self._since

    async def keep(self) -> None:
        """Write the file when something was added, for ever. To be run as a task after `restore`."""
        while True:
            await asyncio.sleep(LOOK)
            await self.save()

    async def save(self) -> None:
        """Write the file if something was added since. A disk that does not take it is logged once."""
        count = len(self._since)
        if self._file is not None and self._stored != count and await self._file.write(_encoded(self._since)):
            self._stored = count


def read(directory: Path) -> dict[str, datetime]:
    """Return which devices have ever given a value, and since when. Raises OSError or MsgspecError."""
    try:
        return files.read(directory / FILE, _File, FORMAT).devices
    except FileNotFoundError:
        return {}


def write(directory: Path, since: dict[str, datetime]) -> None:
    """Replace the file. Raises OSError."""
    files.keep(directory / FILE, _encoded(since))


def _encoded(since: dict[str, datetime]) -> bytes:
    return msgspec.json.encode(_File(FORMAT, since))
