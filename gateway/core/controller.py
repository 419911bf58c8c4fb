"""What the life of a command asks of a bridge that carries commands out, and what that answers."""

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from gateway.core.model import (
    Command,
    CommandState,
    Value,
)
from gateway.core.text import MAX_DETAIL, plain
from gateway.core.verdict import Foretold


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a command that was sent."""

    state: CommandState
    """`succeeded`, `failed`, or `unknown` when nobody can say.

    `accepted` where it certainly never left: of one handed over before a restart only that lets another bridge send it.
    """
    detail: str = ""
    verified: bool = False
    """Of a success: true where the value itself was read back."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "detail", plain(self.detail, MAX_DETAIL))


class ResultEffect(StrEnum):
    """What a result changed that a far side told by itself."""

    TAKEN = "taken"
    """The command was under way, and ends by it."""
    CORRECTED = "corrected"
    """The command had ended as unknown; what is known now stands beside that end."""
    REPEATED = "repeated"
    """It was known already."""
    CONTRADICTED = "contradicted"
    """The command has ended otherwise, and stays so; noted in the journal."""
    UNMATCHED = "unmatched"
    """There is no such command."""


@runtime_checkable
class Controller(Protocol):
    """A bridge that carries commands out."""

    def takes(self, serial: str, setpoint: str) -> bool:
        """Return whether this bridge can set that setpoint of that device."""
        ...

    async def send(self, command: Command, in_force: Mapping[str, Value], timeout: float) -> str:
        """Send a command; return a receipt by which its result can be asked for, or "".

        `in_force` holds the values of the other setpoints of the same group. Must end within `timeout`
        seconds. Raises NotSentError, RefusedError or UnsureError.
        """
        ...

    async def result(self, command: Command, receipt: str) -> Outcome:
        """Find out what became of a command, from its receipt or, without one, by reading back.

        May take as long as the far side needs. Raises NotSentError when the far side can't be asked now.
        """
        ...


@runtime_checkable
class Admitting(Protocol):
    """A controller that has commands wait for their turn while nothing of them has left.

    They can be cancelled and superseded until then. A revert does not ask.
    """

    def turn(self, command: Command) -> "asyncio.Future[None]":
        """Return what is done once there is room for the command; for the same command, the same."""
        ...

    def leave(self, command: Command) -> None:
        """Give a command's turn away, before it came or after its end. Also called for one that never asked."""
        ...


@runtime_checkable
class ReceiptsFirst(Protocol):
    """A controller that calls `ControllerContext.keep_receipt` before anything of a command leaves.

    What is handed over is journaled by that call, in one commit with the receipt. Before it nothing may leave.
    """

    receipts_first: bool


@runtime_checkable
class Foretelling(Protocol):
    """A controller that shares commands out, and can say beforehand what would come of one."""

    def foretell(self, command: Command) -> Foretold:
        """Return what it would come to now. Nothing is sent or counted."""
        ...


@runtime_checkable
class Pushing(Protocol):
    """A controller whose results come by themselves, by `ControllerContext.result_came`.

    Of a command with a receipt `result` is asked only once nothing has come for long.
    """

    pushed_within: float
    """Seconds."""


@runtime_checkable
class Slow(Protocol):
    """A controller that needs longer than others to know what became of a command."""

    result_within: float
    """Seconds that `result` may take."""


class CallEstimate(msgspec.Struct, frozen=True):
    """What it takes to set one setpoint of many devices."""

    devices: int
    """How many of them the controller can reach."""
    calls: int
    """To the far side, without questions for results."""
    seconds: float
    """Until there are calls for the last of them."""
    left: int
    """Calls that may be made now."""


@runtime_checkable
class Estimator(Protocol):
    """A controller whose calls are limited, and that can tell how far they reach."""

    def call_estimate(self, setpoint: str, serials: Sequence[str]) -> CallEstimate:
        """Return what it takes."""
        ...
