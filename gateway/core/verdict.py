"""What judging a command comes to: check by check, each with its words. The first that fails decides."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.core.model import Command, Reason, Value


class Refusal(msgspec.Struct, frozen=True):
    """Why not."""

    reason: Reason
    detail: str


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    text: str
    """What was found, in words for a person."""
    reason: Reason | None = None
    """Why it is refused; None where all is well."""


class Unmet(msgspec.Struct, frozen=True):
    """A name in a rule that nobody has: the device may come yet, or it is misspelt."""

    rule: int
    """Of `control.allow`, counted from 0."""
    key: str
    """`devices` or `plants`."""
    name: str


class Foreseen(msgspec.Struct, frozen=True):
    """What one member of a fleet would be told."""

    serial: str
    power: float
    """W."""
    detail: str
    """By which setpoints, and what binds it."""


class Foretold(msgspec.Struct, frozen=True):
    """What a command that is shared out would come to."""

    members: tuple[Foreseen, ...]
    """The largest changes first; not more than can be read."""
    text: str
    """All together: who is told and who is not, what it costs in calls and writes, and what can't be placed."""


class Verdict(msgspec.Struct, frozen=True):
    """All that was looked at, in order."""

    checks: tuple[Check, ...]
    value: Value = None
    """As the setpoint takes it: a float, int, str or bool. None where that is not known."""
    rule: int | None = None
    """Which rule of `control.allow` decides, counted from 0; None where there is none, or none was looked for."""
    rule_text: str = ""
    """That rule as JSON, where every check was asked for."""
    unmet: tuple[Unmet, ...] = ()
    """What rules name and nobody has, where every check was asked for."""

    foretold: Foretold | None = None
    """What it would come to, where it is shared out, and every check was asked for."""

    @property
    def refusal(self) -> Refusal | None:
        """Why it is refused; None where it is permitted."""
        return next((Refusal(check.reason, check.text) for check in self.checks if check.reason is not None), None)


class Examiner(Protocol):
    """A check that the dispatcher adds to those of policy."""

    def __call__(self, command: Command) -> str | Refusal:
        """Return what was found, or why the command is refused."""
        ...


Examiners = Sequence[tuple[str, Examiner]]
"""Each with the name of its check."""
