"""The life of a command: every state, what can happen in it, and what comes of that. All in `LIFE`.

Pure: no clock, no disk, no network. Times come in as arguments, on all clocks: a deadline is over as soon as one of
them says so.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from gateway.core.clock import Moment
from gateway.core.controller import Outcome, ResultEffect
from gateway.core.model import Command, CommandState


class Trigger(StrEnum):
    """What can happen to a command."""

    PERMITTED = "permitted"
    """Policy lets it in, and the journal has it."""
    REFUSED = "refused"
    """By policy, by its own value, or because the journal can't be written."""
    OVERTAKEN = "overtaken"
    """A newer one for the same setpoint came while it waited."""
    OVERDUE = "overdue"
    """Its time was over while it waited."""
    CANCELLED = "cancelled"
    """Somebody called it off while it waited."""
    FORBIDDEN = "forbidden"
    """What was permitted when it came is not any more, and it still waits."""
    LEFT = "left"
    """It was handed over, so it may be in force."""
    DONE = "done"
    """The far side says the device did it, and nobody can read that back."""
    CONFIRMED = "confirmed"
    """The far side says the device did it, and it was read back."""
    FOUND_DONE = "found done"
    """It asks for what is in force already."""
    DENIED = "denied"
    """The far side says the device did not."""
    MISMATCHED = "mismatched"
    """The far side says the device did it, and another value was read back."""
    UNHEARD = "unheard"
    """Nobody can say."""


LIFE: Final[Mapping[tuple[CommandState | None, Trigger], CommandState]] = {
    (None, Trigger.PERMITTED): CommandState.ACCEPTED,
    (None, Trigger.REFUSED): CommandState.REJECTED,
    (CommandState.ACCEPTED, Trigger.OVERTAKEN): CommandState.SUPERSEDED,
    (CommandState.ACCEPTED, Trigger.OVERDUE): CommandState.EXPIRED,
    (CommandState.ACCEPTED, Trigger.CANCELLED): CommandState.EXPIRED,
    (CommandState.ACCEPTED, Trigger.FORBIDDEN): CommandState.EXPIRED,
    (CommandState.ACCEPTED, Trigger.LEFT): CommandState.SENT,
    (CommandState.SENT, Trigger.DONE): CommandState.SUCCEEDED,
    (CommandState.SENT, Trigger.CONFIRMED): CommandState.SUCCEEDED,
    (CommandState.SENT, Trigger.FOUND_DONE): CommandState.SUCCEEDED,
    (CommandState.SENT, Trigger.DENIED): CommandState.FAILED,
    (CommandState.SENT, Trigger.MISMATCHED): CommandState.FAILED,
    (CommandState.SENT, Trigger.UNHEARD): CommandState.UNKNOWN,
}
"""In this state, when this happens: the next state. What is not here never happens."""

RESULTS: Final[Mapping[tuple[CommandState, bool], Trigger]] = {
    (CommandState.SUCCEEDED, False): Trigger.DONE,
    (CommandState.SUCCEEDED, True): Trigger.CONFIRMED,
    (CommandState.FAILED, False): Trigger.DENIED,
    (CommandState.FAILED, True): Trigger.DENIED,
    (CommandState.UNKNOWN, False): Trigger.UNHEARD,
    (CommandState.UNKNOWN, True): Trigger.UNHEARD,
}
"""What a far side says of a command, and whether it has read it back: what happened."""


class IllegalStepError(Exception):
    """A step that the table does not have: a mistake in this program."""


def next_state(state: CommandState | None, happening: Trigger) -> CommandState:
    """Return what comes of it. Raises IllegalStepError."""
    try:
        return LIFE[state, happening]
    except KeyError:
        raise IllegalStepError(f"a command that is {state or 'new'} can't be {happening}") from None


def judge_result(standing: CommandState, told: CommandState) -> ResultEffect:
    """Return what a result changes that a far side told by itself of a command that stands like this."""
    if not standing.final:
        return ResultEffect.TAKEN
    if told in (standing, CommandState.UNKNOWN):
        return ResultEffect.REPEATED
    return ResultEffect.CORRECTED if standing is CommandState.UNKNOWN else ResultEffect.CONTRADICTED


class Life:
    """One command from its acceptance on, and all that decides what may happen to it next."""

    def __init__(self, command: Command, deadline: Moment, state: CommandState | None = None) -> None:
        self.command = command
        self.deadline = deadline
        self.state = state
        self.accepted = 0.0
        """When it was accepted, on the boot clock; from then on."""
        self.controller: str | None = None
        """Name of the bridge it was handed to, from just before it may have left until it certainly has not."""
        self.bound: str | None = None
        """Name of the only bridge that may send it: it was handed to that one before a restart, and perhaps left."""
        self.receipt = ""
        self.is_noted = False
        """The journal has that it was handed to that one."""
        self.handed: Moment | None = None
        """When it was handed over last."""
        self.left_at: Moment | None = None
        """When its call left: when it was looked at last whether it may. None where that is not known."""
        self.old = False
        """It was accepted before a start of the machine, so that only the wall clock tells how old it is."""
        self.outcome: Outcome | None = None
        """What is known of it, before its end is written down."""

    def step(self, happening: Trigger) -> None:
        """Take a step. Raises IllegalStepError."""
        self.state = next_state(self.state, happening)

    def remaining(self, now: Moment) -> float:
        """Return for how many seconds it may still be handed over."""
        return self.deadline.left(now)

    @property
    def waits(self) -> bool:
        """Whether it certainly has not left, and may yet."""
        return self.state is CommandState.ACCEPTED and self.controller is None and self.bound is None

    def may_leave(self, now: Moment, controller: str) -> bool:
        """Return whether it may be handed to that controller now."""
        return (
            self.state in (CommandState.ACCEPTED, CommandState.SENT)
            and self.outcome is None
            and self.remaining(now) > 0
            and self.bound in (None, controller)
        )

    def handed_over(self, controller: str, now: Moment) -> None:
        """Note that it is about to leave."""
        self.controller, self.handed = controller, now

    def taken_back(self) -> None:
        """Note that it certainly has not left this time."""
        self.controller, self.left_at, self.receipt, self.is_noted = None, None, "", False
