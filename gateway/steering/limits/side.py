"""One direction of a limit: what is asked of it, where its states stand, and whoever waits for it to be in force."""

import asyncio
from typing import Final

from gateway.core.clock import Clock
from gateway.core.controller import Outcome
from gateway.core.errors import NotSentError
from gateway.core.model import Command, CommandState, Value
from gateway.steering.limits.machine import Machine, Rules

OVERTAKEN: Final = Outcome(CommandState.FAILED, "not reached: a newer one came first")


class Side:
    """What is fed in, or what is drawn."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self.machine = Machine(rules, clock.boot())
        self.was_set = False
        """Somebody has ever set it: else there is nothing to lift."""
        self.asked: float | None = None
        """W, as it was set last."""
        self._newest = ""
        """Id of the command by which it was."""
        self._accepted: Command | None = None
        """The newest that was accepted."""
        self._waiting: list[asyncio.Future[Outcome]] = []

    def begin(self, known: Value, silent: float) -> None:
        """Take up what was in force before a restart, W, `silent` seconds after the last word."""
        self.machine = Machine(self._rules, self._clock.boot())
        if isinstance(known, (int, float)):
            self.machine.restore(float(known), self._clock.boot(), silent)
            self.asked, self.was_set = float(known), True
        if self._newest:  # a command that had left before a restart was asked about before this began
            self.machine.set(self.asked, self._clock.boot())

    def end(self) -> None:
        """Leave those that wait without an answer: it begins anew."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._newest, self._accepted = "", None

    def set(self, command: Command) -> None:
        """Have a value hold from now on."""
        self._newest, self.was_set = command.id, True
        self.asked = _watts(command.value)
        self.machine.set(self.asked, self._clock.boot())

    def newer(self, command: Command) -> None:
        """Take in that a command waits for its turn: who waits for another value ends."""
        self._accepted = command
        if _watts(command.value) != self.asked:
            self.answer(OVERTAKEN)

    def is_overtaken(self, command: Command) -> bool:
        """Return whether another value was asked for after this command."""
        newest = self._accepted
        return newest is not None and newest.id != command.id and newest.value != command.value

    def is_of(self, command: Command) -> bool:
        """Return whether it is this command that was taken in last."""
        return command.id == self._newest

    def answer(self, outcome: Outcome) -> None:
        """Tell all that wait."""
        for future in self._waiting:
            if not future.done():
                future.set_result(outcome)
        self._waiting.clear()

    async def outcome(self) -> Outcome:
        """Wait for the next answer. Raises NotSentError where it begins anew before that."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                raise NotSentError("the limit begins anew") from None
            raise


def _watts(value: Value) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
