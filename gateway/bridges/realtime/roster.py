"""The numbers of the whitelist, and what is known of each: by which data type it is read, or that it is refused.

What the cloud has said is kept in `data_dir`: a restart asks no refused number before its day is over, and looks for no
type that was found.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.bridges.realtime.apart import Apart
from gateway.core.clock import Clock
from gateway.core.kept_file import KeptFile
from gateway.core.metrics import Metrics, gauge

RETRY: Final = timedelta(days=1)
"""After which a refused number is asked about again."""
NAMED: Final = 5
"""Numbers that a sentence about several names."""


class State(StrEnum):
    """Where a number stands."""

    READ = "read"
    SOUGHT = "sought"
    """Its type is being found out."""
    UNAUTHORISED = "unauthorised"
    UNKNOWN = "unknown"
    """SEMS has no data of it, of whatever type."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a number is not read."""

    state: State
    text: str
    """What SEMS said."""
    retry: datetime


class _Kept(msgspec.Struct):
    """What outlives a restart."""

    types: dict[str, str] = {}
    refused: dict[str, Refusal] = {}
    apart: Apart = msgspec.field(default_factory=Apart)


class Roster:
    """The numbers."""

    def __init__(self, store: Path, given: Mapping[str, str], clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self._file = KeptFile(
            store,
            _Kept,
            log,
            unreadable="what was known of numbers can't be read",
            unwritable="what is known of numbers can't be kept",
        )
        self._given = given
        """Types as the configuration has them."""
        self._clock = clock
        self._log = log
        self._numbers: dict[str, None] = {}
        self._types: dict[str, str] = {}
        self._refused: dict[str, Refusal] = {}
        self.apart = Apart()
        """Whoever changes it lets `revision` grow."""
        self._ruled_out: dict[str, set[str]] = {}
        """Serial → data types that were asked for it in vain."""
        self.revision = 0
        """Grows whenever numbers, types or refusals change."""
        self._sought: list[str] = []
        self._sought_revision = -1
        self._written = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, serial: object) -> bool:
        return serial in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    # what is known

    def type_of(self, serial: str) -> str:
        """Return the type of a number; empty where it is not known."""
        return self._given.get(serial) or self._types.get(serial, "")

    def state(self, serial: str) -> State:
        """Return where a number stands."""
        refusal = self._refused.get(serial)
        if refusal is not None:
            return refusal.state
        return State.READ if self.type_of(serial) else State.SOUGHT

    def read(self) -> dict[str, list[str]]:
        """Return the numbers that are read, by type."""
        found: dict[str, list[str]] = {}
        for serial in self._numbers:
            if serial not in self._refused and (type_ := self.type_of(serial)):
                found.setdefault(type_, []).append(serial)
        return found

    def counts(self) -> Counter[State]:
        """Return how many numbers stand where."""
        return Counter(self.state(serial) for serial in self._numbers)

    def due(self) -> list[str]:
        """Return the numbers that are to be asked about out of turn: types not known, refusals a day old."""
        if self._sought_revision != self.revision:
            self._sought_revision = self.revision
            self._sought = [s for s in self._numbers if s not in self._refused and not self.type_of(s)]
        now = self._clock.now()
        # One further away than a day: the wall clock was set back.
        over = [s for s, refusal in self._refused.items() if not now < refusal.retry <= now + RETRY]
        return [*self._sought, *(serial for serial in over if serial in self._numbers)]

    def vain(self, serial: str) -> set[str]:
        """Return the data types that were asked for a number in vain."""
        return self._ruled_out.get(serial, set())

    def words(self) -> str:
        """Return in words which numbers are refused; empty where none is."""
        parts = []
        for state, what in ((State.UNAUTHORISED, "unauthorised"), (State.UNKNOWN, "unknown to SEMS")):
            some = [s for s, refusal in self._refused.items() if refusal.state is state and s in self._numbers]
            if some:
                more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
                parts.append(f"{len(some)} of {len(self)} numbers {what}: {', '.join(some[:NAMED])}{more}")
        return "; ".join(parts)

    # what happens

    def set(self, numbers: Iterable[str]) -> list[str]:
        """Have these numbers and no others. Returns those that are gone."""
        wanted = dict.fromkeys(numbers)
        gone = [serial for serial in self._numbers if serial not in wanted]
        if list(wanted) != list(self._numbers):
            self._numbers = wanted
            self.revision += 1
        return gone

    def found(self, serial: str, type_: str) -> None:
        """Take note of a type that the cloud has said, by a list or by data."""
        if serial not in self._given and self._types.get(serial) != type_:
            self._types[serial] = type_
            self.revision += 1

    def answered(self, serial: str, type_: str) -> None:
        """Take note that a number has brought data."""
        self._ruled_out.pop(serial, None)
        if self._refused.pop(serial, None) is not None:
            self.revision += 1
            self._log.info("SEMS answers for a number again", serial=serial)
        if not self.type_of(serial):
            self.found(serial, type_)

    def refuse(self, serial: str, state: State, text: str) -> None:
        """Take note that a number is refused, and say so when it was not before."""
        before = self._refused.get(serial)
        self._refused[serial] = Refusal(state, text, self._clock.now() + RETRY)
        self._ruled_out.pop(serial, None)
        self.revision += 1
        if before is not None and before.state is state:
            return
        advice = ADVICE[state]
        self._log.warning(f"SEMS has no data for a number ({state})", serial=serial, detail=text, advice=advice)

    def rule_out(self, serial: str, interface: str, of: Collection[str]) -> None:
        """Take note that a number is of no type that a data type reads."""
        self._ruled_out.setdefault(serial, set()).add(interface)
        if self._types.get(serial, "") in of:
            del self._types[serial]
            self.revision += 1

    # over restarts

    def restore(self) -> None:
        """Read what was kept. A file that can't be read is logged; then all is found out anew."""
        kept = self._file.read()
        if kept is not None:
            self._types, self._refused, self.apart = kept.types, kept.refused, kept.apart

    async def save(self) -> None:
        """Write what has changed, in a thread. A disk that does not take it is logged."""
        if self._written == self.revision:
            return
        revision = self.revision
        self.apart.keep(self._numbers)
        kept = _Kept(
            {serial: type_ for serial, type_ in self._types.items() if serial in self._numbers},
            {serial: refusal for serial, refusal in self._refused.items() if serial in self._numbers},
            self.apart,
        )
        await self._file.write(msgspec.json.encode(kept))
        self._written = revision


ADVICE: Final = {
    State.UNAUTHORISED: "have GoodWe put it on your whitelist, and the owner agree; or take it out. Next try in a day",
    State.UNKNOWN: "check the number; or take it out. Next try in a day",
}


METRICS: Final = Metrics[Roster](
    gauge(
        "sems_gateway_realtime_numbers",
        "whitelisted serial numbers, by what is known of them",
        lambda roster: {**dict.fromkeys(State, 0), **roster.counts()},
        "state",
    )
)
