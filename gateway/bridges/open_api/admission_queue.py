"""Who may go when many want to: commands wait here unsent, within the call budget, and reverts overtake them."""

import asyncio
import math
from collections import deque
from typing import Final

import msgspec

from gateway.core.timer import Timer
from gateway.sems.budget import Budget, Priority

UNDER_WAY: Final = 32
"""Calls with commands whose results are not known yet, at a time."""
CALLS_EACH: Final = 2
"""Calls that one with commands costs, usually: its own, and a question for the result."""
KEPT_EACH: Final = 6
"""Calls that there have to be for each that is let go: a device may be slow, and is asked about again."""
SOON: Final = 0.05
"""Seconds after which calls that come free are looked for, lest clocks that differ a little have it look for ever."""
SMALL: Final = 1e-9
"""What sums of parts of calls may be off by."""


class _Turn(msgspec.Struct, eq=False):
    weight: float
    """What part of a call the command is."""
    granted: asyncio.Future[None]
    counts: bool = False
    """Whether it is a part of the load: it was granted, whatever has become of the future since."""


class AdmissionQueue:
    """Lets so many commands go that their calls and results fit into the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._turns: dict[str, _Turn] = {}
        """By the id of the command."""
        self._waiting: deque[_Turn] = deque()
        """Those not granted yet, in their order; and some of whom nobody waits any more."""
        self._load = 0.0
        """Calls' worth of commands that were let go, and have not ended."""
        self._timer = Timer(self._grant)

    def ask(self, id_: str, batch: int) -> asyncio.Future[None]:
        """Return what is done once the command may go. Asked again, it is the same."""
        turn = self._turns.get(id_)
        if turn is None or (turn.granted.cancelled() and not turn.counts):
            turn = self._turns[id_] = _Turn(1 / batch, asyncio.get_running_loop().create_future())
            self._waiting.append(turn)
            if not self._timer.is_set:
                self._grant()
        return turn.granted

    def leave(self, id_: str) -> None:
        """Wait no more, or make room for others."""
        turn = self._turns.pop(id_, None)
        if turn is None:
            return
        if turn.counts:
            self._carry(max(0.0, self._load - turn.weight))
            self._timer.within(0)
        else:
            turn.granted.cancel()

    def _grant(self) -> None:
        room = self._budget.room(Priority.CONTROL)
        while self._waiting:
            turn = self._waiting[0]
            if turn.granted.done():
                self._waiting.popleft()
                continue
            load = self._load + turn.weight
            if load > UNDER_WAY + SMALL:
                break
            needed = min(KEPT_EACH * math.ceil(load - SMALL), self._budget.most(Priority.CONTROL))
            if room < needed:
                self._timer.within(self._budget.until(needed, Priority.CONTROL) + SOON)
                break
            self._waiting.popleft()
            self._carry(load)
            turn.counts = True
            turn.granted.set_result(None)

    def _carry(self, load: float) -> None:
        """Have the budget keep what those that were let go need yet."""
        before = math.ceil(self._load - SMALL)
        self._load = load
        self._budget.wanted += KEPT_EACH * (math.ceil(load - SMALL) - before)
