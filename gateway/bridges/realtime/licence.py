"""Whether SEMS says that there is no licence; then nothing is asked for a while, over restarts too."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import structlog

from gateway.core.clock import Clock, boot_id
from gateway.core.kept_file import KeptFile
from gateway.sems.ahead import Ahead

PAUSE_FIRST: Final = 600.0
MAX_PAUSE_SECONDS: Final = 6 * 3600.0
"""Seconds. Only GoodWe can change it, and asking does not help."""


class _Kept(msgspec.Struct, frozen=True):
    """What outlives a restart."""

    refusals: Annotated[int, msgspec.Meta(ge=1)]
    next: Ahead


class Licence:
    """What SEMS says of it. All that is asked of the account asks here first."""

    def __init__(self, store: Path, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._file = KeptFile(
            store,
            _Kept,
            log,
            unreadable="what SEMS said of the licence can't be read",
            unwritable="what SEMS says of the licence can't be kept",
        )
        self._clock = clock
        self._log = log
        self._boot = ""
        """Of this start of the machine, from `restore` on."""
        self._refusals = 0
        """In a row; what was asked for before the last answer came is one with it."""
        self._next = 0.0
        """Monotonic seconds before which nothing is asked."""

    @property
    def wait(self) -> float:
        """Seconds for which nothing is to be asked."""
        return max(0.0, self._next - self._clock.monotonic()) if self._refusals else 0.0

    def restore(self) -> None:
        """Read what was kept."""
        self._boot = boot_id()
        kept = self._file.read()
        if kept is None:
            return
        now = self._clock.monotonic()
        left = min(kept.next.remaining(self._boot, now, self._clock.now()), _pause(kept.refusals))
        self._refusals, self._next = kept.refusals, now + left

    def refused(self) -> None:
        """Take note that SEMS says there is none."""
        if self.wait > 0:
            return
        self._refusals += 1
        left = _pause(self._refusals)
        now = self._clock.monotonic()
        self._next = now + left
        kept = _Kept(self._refusals, Ahead(self._boot, now, self._clock.now(), left))
        self._file.write_now(msgspec.json.encode(kept))

    def granted(self) -> None:
        """Take note that SEMS answers."""
        if not self._refusals:
            return
        self._refusals = 0
        try:
            self._file.path.unlink(missing_ok=True)
        except OSError as error:
            self._log.warning(
                "what SEMS says of the licence can't be kept", file=str(self._file.path), error=str(error)
            )


def _pause(refusals: int) -> float:
    return min(PAUSE_FIRST * 2.0 ** min(refusals - 1, 30), MAX_PAUSE_SECONDS)
