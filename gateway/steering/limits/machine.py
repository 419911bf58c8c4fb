"""The states of a limit, and what moves it from one to another: one table.

States and rules are those of the EEBUS use cases "Limitation of Power Consumption" and "… Production" (LPC, LPP 1.0),
as their public test specification numbers them, e.g. 906, 916, 921. There a heartbeat comes apart from the limit; here
a limit that is written is one too, and so is the same limit written again.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec


class State(StrEnum):
    """Where a limit stands."""

    INIT = "init"
    """The gateway has just started, and nobody has said anything yet."""
    UNLIMITED_CONTROLLED = "unlimited_controlled"
    """Somebody is there, and asks for no limit."""
    LIMITED = "limited"
    FAILSAFE = "failsafe"
    """Whoever was there has fallen silent: the failsafe value holds."""
    UNLIMITED_AUTONOMOUS = "unlimited_autonomous"
    """Nobody is there, and nothing is limited."""


class Event(StrEnum):
    """What happens to it."""

    LIMIT = "a limit is set"
    LIFT = "it is said that there is no limit"
    SILENCE = "no heartbeat for as long as one may be missing"
    HEARTBEAT = "a heartbeat alone"
    OVER = "the limit's own duration is over"
    SAFE_LONG_ENOUGH = "the failsafe has held for its least duration"
    NO_WORD = "nothing was said within the time for a first, or a next, limit"


_S, _E = State, Event
TABLE: Final[Mapping[tuple[State, Event], State]] = {
    (_S.INIT, _E.LIMIT): _S.LIMITED,
    (_S.INIT, _E.LIFT): _S.UNLIMITED_CONTROLLED,
    (_S.INIT, _E.NO_WORD): _S.UNLIMITED_AUTONOMOUS,
    (_S.UNLIMITED_CONTROLLED, _E.LIMIT): _S.LIMITED,
    (_S.UNLIMITED_CONTROLLED, _E.SILENCE): _S.FAILSAFE,
    (_S.LIMITED, _E.LIFT): _S.UNLIMITED_CONTROLLED,
    (_S.LIMITED, _E.OVER): _S.UNLIMITED_CONTROLLED,
    (_S.LIMITED, _E.SILENCE): _S.FAILSAFE,
    (_S.FAILSAFE, _E.LIMIT): _S.LIMITED,
    (_S.FAILSAFE, _E.LIFT): _S.UNLIMITED_CONTROLLED,
    (_S.FAILSAFE, _E.NO_WORD): _S.UNLIMITED_AUTONOMOUS,
    (_S.FAILSAFE, _E.SAFE_LONG_ENOUGH): _S.UNLIMITED_AUTONOMOUS,
    (_S.UNLIMITED_AUTONOMOUS, _E.LIMIT): _S.LIMITED,
    (_S.UNLIMITED_AUTONOMOUS, _E.LIFT): _S.UNLIMITED_CONTROLLED,
}
"""What is not here changes nothing."""


class Rules(msgspec.Struct, frozen=True):
    """Times and values, as the configuration has them."""

    heartbeat: float = 120.0
    """Seconds for which a heartbeat may be missing; as many are given for a first limit, and after a silence."""
    failsafe: float = 0.0
    """W that hold in the failsafe."""
    failsafe_duration: float = 7_200.0
    """Seconds for which the failsafe holds at least, while nobody is heard."""


class Machine:
    """One limit. Times are seconds on any clock that only grows; powers are W."""

    def __init__(self, rules: Rules, now: float) -> None:
        self._rules = rules
        self.state = State.INIT
        self._limit: float | None = None
        self._until: float | None = None
        self._since = now
        """When this state began."""
        self._heard = now
        self._returned: float | None = None
        """When, in the failsafe, a heartbeat came again without a limit."""

    @property
    def limit(self) -> float | None:
        """W that hold now; None for no limit."""
        return {State.LIMITED: self._limit, State.FAILSAFE: self._rules.failsafe}.get(self.state)

    def set(self, limit: float | None, now: float, duration: float | None = None) -> None:
        """Take in a limit, which is a heartbeat too; None for none. Without a duration it holds until the next."""
        self.beat(now)
        self._limit, self._until = limit, None if limit is None or duration is None else now + duration
        self._happens(Event.LIFT if limit is None else Event.LIMIT, now)

    def beat(self, now: float) -> None:
        """Take in a heartbeat."""
        self.look(now)
        self._heard = now
        if self.state is State.FAILSAFE and self._returned is None:
            self._returned = now
        self._happens(Event.HEARTBEAT, now)

    def look(self, now: float) -> None:
        """Take in that time has passed: what was due meanwhile happens in its order, at its time."""
        while (due := min(self._due(), default=None)) is not None and due[0] <= now:
            at, _, event = due
            match event:
                case Event.OVER:
                    self._until = None
                case Event.SILENCE:
                    self._returned = None
            self._happens(event, at)

    def _due(self) -> Iterator[tuple[float, int, Event]]:
        """Yield what happens by itself, and when; of two at the same time the first here."""
        patience = self._rules.heartbeat
        if self._until is not None:
            yield self._until, 0, Event.OVER
        if self.state in (State.LIMITED, State.UNLIMITED_CONTROLLED) or self._returned is not None:
            yield self._heard + patience, 1, Event.SILENCE
        if self.state is State.INIT:
            yield self._heard + patience, 2, Event.NO_WORD
        if self.state is State.FAILSAFE:
            if self._returned is not None:
                yield self._returned + patience, 2, Event.NO_WORD
            else:
                yield self._since + self._rules.failsafe_duration, 2, Event.SAFE_LONG_ENOUGH

    def restore(self, limit: float | None, now: float, silent: float = 0.0) -> None:
        """Take up what was in force before a restart, `silent` seconds after the last heartbeat before it."""
        if limit is not None:
            self._limit, self.state, self._since, self._heard = limit, State.LIMITED, now, now - silent

    def _happens(self, event: Event, now: float) -> None:
        state = TABLE.get((self.state, event), self.state)
        if state is not self.state:
            self.state, self._since = state, now
            self._returned = None
