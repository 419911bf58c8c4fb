"""The rated power by which a limit in W becomes a part of what a device can give."""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from gateway.api.contexts import Context
from gateway.core.kept_file import KeptFile

STANDS: Final = 5.0
"""Seconds after which a rated power that has grown is taken for whole: a fleet finds its members one by one."""
SMALLER: Final = 3_600.0
"""Seconds after which one that has become smaller is believed.

After a restart a fleet knows few of its members at first. A part of so little would be a larger one: no limit at all.
"""


class Rating:
    """The rated power of one device, kept over restarts."""

    def __init__(self, context: Context, file: Path) -> None:
        self._context = context
        self._file = KeptFile(
            file, float, context.log,
            unreadable="the rated power of what is limited is not known; it is what is found first",
            unwritable="the rated power of what is limited can't be kept",
        )  # fmt: skip
        self.watts: float | None = None
        self._seen: float | None = None
        self._since = self._grown = 0.0

    async def start(self) -> None:
        """Take up what it was before a restart."""
        self.watts, self._seen = await asyncio.to_thread(self._file.read), None
        self._grown = self._context.clock.monotonic() - STANDS

    async def look(self, seen: float | None) -> None:
        """Take in what it is now, W."""
        now = self._context.clock.monotonic()
        if not seen:
            return
        if seen != self._seen:
            self._seen, self._since = seen, now
        if self.watts is None or seen > self.watts:
            self.watts, self._grown = seen, now
        elif seen == self.watts or now - self._since < SMALLER:
            return
        else:
            self.watts = seen
        await self._file.write(msgspec.json.encode(self.watts))

    @property
    def stands(self) -> bool:
        """Whether it has not grown a moment ago."""
        return self._context.clock.monotonic() - self._grown >= STANDS
