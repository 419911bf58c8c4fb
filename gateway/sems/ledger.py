"""The file in which an account's calls are counted, so that a restart, a crash or a second process can't overrun.

No call is written down by itself. A process leases a few calls, for a few minutes, and writes the whole lease to the
disk before the first of them is made; after a crash the whole lease counts as spent at its end. So the file never
tells less than the truth.

Times are those of the machine's monotonic clock, which all processes of one boot share, so no jump of the wall clock
matters. Across a reboot nobody can say for sure how much time went by (a box without a clock of its own wakes with any
time, and is set forward later), so none is counted: the account's last hour goes on where it ended. Without a boot id
(not Linux) every restart counts as a reboot. A file that is lost or can't be read counts as nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core import files
from gateway.core.bad_json import BAD_JSON
from gateway.core.clock import boot_id
from gateway.core.kept_file import restored
from gateway.sems.ahead import Ahead

_log = structlog.get_logger("sems")

LEASE_SECONDS: Final = 300.0
MAX_HELD_SECONDS: Final = 24 * 3600.0
"""Seconds: more is never asked of us, so a file that says more is damaged."""

Spent = tuple[float, int]
"""Monotonic seconds, and how many calls until then that are not in an earlier one."""


class _Book(msgspec.Struct):
    """What is in the file."""

    boot: str
    at: float
    """Monotonic seconds of when it was written."""
    users: dict[str, list[Spent]]
    """Process → what it has spent or leased."""
    held: Ahead | None = None
    """Until when SEMS lets nobody call."""


class Leased(msgspec.Struct, frozen=True):
    """What a process gets to know of the account."""

    calls: int
    """How many it may make until the lease ends."""
    others: Sequence[Spent]
    """What everybody else has spent or leased, earlier runs among them, in order of time."""
    held: float
    """Seconds for which SEMS lets nobody call."""


class Ledger:
    """One account's file, as one user of it sees it. Its calls block on the disk: they belong into a thread."""

    def __init__(self, path: Path, boot: str | None = None) -> None:
        self.path = path
        self._boot = boot_id() if boot is None else boot

    def lease(
        self,
        user: str,
        own: Sequence[Spent],
        *,
        most: int,
        per_hour: int,
        now: float,
        wall: datetime,
        window: float,
        held: float = 0.0,
    ) -> Leased:
        """Write down what a user has spent, and lease up to `most` calls more, as many as are left.

        A lease may be used until `now` + LEASE_SECONDS. Any lease the user had before is given back. `held` is for how
        many seconds SEMS lets nobody call, as far as the user knows. Raises OSError.
        """
        with self._locked():
            book = self._read(now)
            users = self._users(book, now)
            if book.held is not None:
                held = max(held, min(book.held.remaining(self._boot, now, wall), MAX_HELD_SECONDS))
            users.pop(user, None)
            fresh = {name: kept for name, spent in users.items() if (kept := [s for s in spent if s[0] > now - window])}
            others = sorted(entry for spent in fresh.values() for entry in spent)
            left = per_hour - sum(count for _, count in own) - sum(count for _, count in others)
            calls = max(0, min(most, left))
            fresh[user] = [*own, (now + LEASE_SECONDS, calls)] if calls else list(own)
            ahead = Ahead(self._boot, now, wall, held) if held > 0 else None
            files.keep(self.path, msgspec.json.encode(_Book(self._boot, now, fresh, ahead)))
        return Leased(calls, others, held)

    def _read(self, now: float) -> _Book:
        nothing = _Book(self._boot, now, {})
        try:
            return restored(self.path, _Book, _log)
        except FileNotFoundError:
            return nothing
        except BAD_JSON as error:
            _log.warning(
                "what was counted of SEMS calls can't be read, so it is 0", file=str(self.path), error=str(error)
            )
            return nothing

    def _users(self, book: _Book, now: float) -> dict[str, list[Spent]]:
        latest = now + LEASE_SECONDS
        same_boot = bool(self._boot) and book.boot == self._boot and book.at <= latest
        shift = 0.0 if same_boot else now - book.at
        return {
            user: [(min(time + shift, latest), count) for time, count in spent] for user, spent in book.users.items()
        }

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out. The file itself is replaced, so the lock is one beside it."""
        files.make_directory(self.path.parent)
        with files.locked(self.path.with_name(self.path.name + ".lock")):
            yield
