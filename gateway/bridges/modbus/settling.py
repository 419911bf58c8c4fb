"""Registers that mean something together, and are written one after another: what a map says of them, and what of it.

A write is staged, latched, and due when no further one has come for a while. Only then is it a command.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from gateway.bridges.modbus.codes import ExceptionCode, ExceptionResponseError
from gateway.core.model import Command, CommandEvent, Value


class WriteRefusedError(ExceptionResponseError):
    """A write that is answered with an exception. Its text says why, in the log."""

    def __init__(self, code: ExceptionCode, text: str, *, accepted: bool = False) -> None:
        super().__init__(code, text)
        self.accepted = accepted
        """It was accepted all the same, and its command has ended otherwise than well, or not yet."""


class SetpointRequest(NamedTuple):
    """One setpoint, as a request wants it."""

    setpoint: str
    value: Value
    revert_after: float | None = None
    """Dead-man's timer, seconds."""
    revert_value: Value = None


class Staged(NamedTuple):
    """What a write comes to, with those before it that have not settled."""

    requests: list[SetpointRequest]
    whole: bool
    """No register is missing that belongs to it. What is not whole may be half of a sequence."""
    pending: bool
    """Something is to settle. Else what was written only waits."""
    models: frozenset[str]
    """What this write belongs to: SunSpec's model, or the map."""
    is_open: bool
    """More may be to come that belongs to it: what is not whole, or waits for something to act by."""


class Due(NamedTuple):
    """What has settled, of one model."""

    model: str
    requests: list[SetpointRequest]


Written = Mapping[str, Value]
"""Field → value, as a write has it."""


class Settling(Protocol):
    """The registers of one device in one map that can be written."""

    def shown(self) -> Mapping[str, Value]:
        """Return what they read now: field → value."""
        ...

    def stage(self, written: Written) -> Staged:
        """Return what a write and those before it that have not settled ask for. Changes nothing.

        Raises WriteRefusedError where that can't be, and no further write of such a sequence could change it.
        """
        ...

    def latch(self, written: Written) -> None:
        """Keep what was staged, and show it."""
        ...

    def abandon(self, touched: Collection[str]) -> None:
        """Take in that a write to these fields was refused: what waits of its sequence is forgotten.

        So no later write acts by what was refused, nor by what was written before it. What hands back stays.
        """
        ...

    def hand_over(self) -> None:
        """Take in that another client writes from now on: an order is not to be made of what two have written."""
        ...

    def due(self, *, whole: bool = False) -> tuple[list[Due], list[str]]:
        """Return what has settled, a model at a time, and why some of it was dropped: it asks for nothing there is.

        `whole`: drop what is not whole. `leaves`, and then `taken` or `dropped`, is called for each that was returned.
        """
        ...

    def leaves(self, ids: Mapping[str, str]) -> None:
        """Take in that what was due is about to be submitted; `ids`: setpoint → its command."""
        ...

    def taken(self, model: str) -> None:
        """Take in that what was due was accepted. Its commands' steps may have been noted."""
        ...

    def dropped(self, model: str, ids: Mapping[str, str]) -> None:
        """Take in that what was due was refused: the registers show again what they did."""
        ...

    def note(self, event: CommandEvent) -> None:
        """Take in a step of any command to the device, before its registers are shown anew."""
        ...

    def done(self, command: Command) -> None:
        """Take in that the far side says a command is done: its value shows, though its end is yet to come."""
        ...
