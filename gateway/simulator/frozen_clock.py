"""A clock that stands still while one answer is put together."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from gateway.core.clock import Clock


class FrozenClock(Clock):
    """Another clock, which can be held: all that is said in one answer is then of the same instant.

    So a plant that a hundred devices of one answer belong to is worked out once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: tuple[datetime, float] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stand still. Nothing may be awaited meanwhile."""
        self._held = (self._clock.now(), self._clock.monotonic())
        try:
            yield
        finally:
            self._held = None

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return self._held[0] if self._held else self._clock.now()

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return self._held[1] if self._held else self._clock.monotonic()
