"""Says each kind of trouble once when it begins and once when it is over; and counts every one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.model import iso
from gateway.sems.errors import CallError, NotUnderstoodError

FORGET: Final = 2 * 3600.0
"""Seconds after which a trouble that was not met again is over, though what had it was not asked again."""
MAX_SUBJECTS: Final = 10_000

Subject = tuple[object, ...]
"""Whom a call was about."""


class _Trouble(msgspec.Struct):
    words: str
    since: datetime
    last: float = 0.0
    times: int = 0
    subjects: set[Subject] = msgspec.field(default_factory=set)
    """Who has it still: one device's recovery must not end, and its next failure not begin, what others have."""


class ErrorTracker:
    """The troubles of one session, by kind and interface."""

    def __init__(self, log: structlog.stdlib.BoundLogger, clock: Clock) -> None:
        self.counts: Counter[str] = Counter()
        """Kind → how often it was met."""
        self._log = log
        self._clock = clock
        self._open: dict[tuple[str, str], _Trouble] = {}

    @contextmanager
    def watch(self, interface: str, subject: Subject = ()) -> Iterator[None]:
        """Note how what is done inside ends."""
        try:
            yield
        except CallError as error:
            self.met(error, interface, subject)
            raise
        else:
            self.well(interface, subject)

    def met(self, error: CallError, interface: str, subject: Subject = ()) -> None:
        """Note a trouble, unless it was noted nearer to where it arose."""
        if error.noted:
            return
        error.noted = True
        self.counts[error.kind] += 1
        trouble = self._open.get((error.kind, interface))
        if trouble is None:
            trouble = self._open[error.kind, interface] = _Trouble(error.words, self._clock.now())
            self._log.warning(
                error.words, error=error.kind, interface=interface, detail=str(error), advice=error.advice
            )
            if isinstance(error, NotUnderstoodError):
                self._log.debug("traceback", exc_info=error)
        trouble.times += 1
        trouble.last = self._clock.monotonic()
        if len(trouble.subjects) < MAX_SUBJECTS:
            trouble.subjects.add(subject)

    def well(self, interface: str, subject: Subject = ()) -> None:
        """Note that a call worked."""
        if not self._open:
            return
        now = self._clock.monotonic()
        for (kind, where), trouble in list(self._open.items()):
            if where == interface:
                trouble.subjects.discard(subject)
            if not trouble.subjects or now - trouble.last > FORGET:
                del self._open[kind, where]
                self._log.info(
                    f"over: {trouble.words}", error=kind, interface=where, times=trouble.times, since=iso(trouble.since)
                )
