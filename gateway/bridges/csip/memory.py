"""What outlives a restart: events go on, what was superseded stays so, and no response is lost or told twice."""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.api.contexts import BaseContext
from gateway.bridges.csip.events import Record, Reply, Stage
from gateway.bridges.csip.resources import Program
from gateway.core.kept_file import KeptFile

KEPT_AFTER: Final = 86_400.0
"""Seconds after its end for which an event is remembered that the server lists no more."""
MAX_REPLIES: Final = 1_000
"""That wait for a server that is away. Past that the oldest is dropped."""


class Memory(msgspec.Struct):
    """Of one bridge."""

    programs: tuple[Program, ...] | None = None
    """As the server had them last; None before it was ever heard."""
    offset: float = 0.0
    records: Mapping[str, Record] = {}
    replies: list[Reply] = []
    """That are to be posted, oldest first."""
    held: frozenset[str] = frozenset()
    """Setpoints that were set, and not let go of."""

    def take(self, records: Mapping[str, Record], replies: list[Reply], now: float) -> int:
        """Take in what has become of the events; return how many replies were dropped."""
        listed = {control.mrid for program in self.programs or () for control in program.controls}
        self.records = {
            mrid: record
            for mrid, record in records.items()
            if mrid in listed or record.stage is not Stage.ENDED or now < record.ends + KEPT_AFTER
        }
        self.replies += replies
        dropped = max(0, len(self.replies) - MAX_REPLIES)
        del self.replies[:dropped]
        return dropped

    def note(self, mrid: str, *, is_good: bool) -> None:
        """Note that something of an event was carried out, or was not."""
        record = self.records.get(mrid)
        if record is not None:
            changed = msgspec.structs.replace(record, done=record.done or is_good, missed=record.missed or not is_good)
            self.records = {**self.records, mrid: changed}


class MemoryFile:
    """Where it is kept."""

    def __init__(self, context: BaseContext) -> None:
        self._file = KeptFile(
            context.data_dir / f"{context.name}-csip.json",
            Memory,
            context.log,
            unreadable="which 2030.5 events were known can't be read; those that the server lists are new again",
            unwritable="which 2030.5 events are known can't be kept",
        )
        self._written = b""
        self._lock = asyncio.Lock()

    def read(self) -> Memory:
        """Return what was kept. Blocks."""
        return self._file.read() or Memory()

    async def save(self, memory: Memory) -> None:
        """Write what has changed, and wait for the disk."""
        async with self._lock:  # or an older one could be written last
            data = msgspec.json.encode(memory)
            if data != self._written and await self._file.write(data):
                self._written = data
