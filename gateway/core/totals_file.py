"""What `Totals` has shown, kept over restarts: a total that fell to 0 must not be what it was before once more.

Written at the end, soon after a total fell, and else seldom: what has risen since is read again anyhow, and a card
wears out. Encoded in slices, so that 10,000 devices keep nobody waiting.
"""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core.kept_file import KeptFile
from gateway.core.totals import GUARDED, Known, Totals

FILE: Final = "totals.json"
FORMAT: Final = 1
SELDOM: Final = 900.0
"""Seconds between two times that it is written."""
SOON: Final = 10.0
"""The same after a total fell."""
SLICE: Final = 200
"""Devices that are encoded in one turn of the loop."""
FORGOTTEN_AFTER: Final = timedelta(days=400)
"""What nobody has read for so long is of a device that is no more."""

log = structlog.get_logger("totals")


class _File(msgspec.Struct):
    version: int
    devices: dict[str, Known]


class TotalsFile:
    """`totals.json` in `data_dir`."""

    def __init__(self, totals: Totals, directory: Path) -> None:
        self._totals = totals
        self._file = KeptFile(
            directory / FILE,
            _File,
            log,
            version=FORMAT,
            unreadable="what totals were shown can't be read; the first one of each is believed",
            unwritable="what totals are shown can't be stored",
        )

    def restore(self, now: datetime) -> None:
        """Read what was shown in the last run. A file that can't be read is logged, and counts as lost."""
        if (found := self._file.read()) is None:
            return
        oldest = (now - FORGOTTEN_AFTER).timestamp()
        fresh = {serial: known for serial, known in found.devices.items() if known.seen >= oldest}
        for known in fresh.values():
            known.counters = {point: counter for point, counter in known.counters.items() if point in GUARDED}
        self._totals.known = fresh | self._totals.known

    async def keep(self) -> None:
        """Write the file now and then, for ever. To be run as a task after `restore`."""
        waited = 0.0
        while True:
            await asyncio.sleep(SOON)
            waited += SOON
            if self._totals.urgent or waited >= SELDOM:
                waited = 0.0
                await self.save()

    async def save(self) -> None:
        """Write the file if something was read since. A disk that does not take it is logged once."""
        totals = self._totals
        if not totals.changed:
            return
        totals.changed = totals.urgent = False
        if not await self._file.write(await self._encoded()):
            totals.changed = True

    async def _encoded(self) -> bytes:
        devices = list(self._totals.known.items())
        parts = []
        for start in range(0, len(devices), SLICE):
            parts.append(msgspec.json.encode(dict(devices[start : start + SLICE]))[1:-1])
            await asyncio.sleep(0)
        return b'{"version":%d,"devices":{%b}}' % (FORMAT, b",".join(parts))
