"""What becomes of a command to a plant. It is made of commands to inverters, and has the worst end of theirs."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from gateway.core.model import Command, CommandEvent, CommandState, Reason

WORST_FIRST: Final = (
    CommandState.REJECTED,
    CommandState.FAILED,
    CommandState.EXPIRED,
    CommandState.SUPERSEDED,
    CommandState.UNKNOWN,
    CommandState.SUCCEEDED,
)
"""Ends: what failed before what is unknown."""


def worst(ends: Iterable[CommandEvent]) -> CommandEvent:
    """Return the end that is reported for all."""
    # Beside the culprit, the others of a request are rejected as BAD_REQUEST.
    return min(ends, key=lambda event: (WORST_FIRST.index(event.state), event.reason is Reason.BAD_REQUEST))


class _Whole:
    """A command to a plant."""

    def __init__(self, command: Command, parts: Sequence[Command]) -> None:
        self.command = command
        self.steps: dict[str, CommandEvent | None] = {part.id: None for part in parts}
        """Id of a part → its newest step."""
        self.done: set[str] = set()
        """Parts that the far side says are done."""
        self.state: CommandState | None = None
        """As it was reported last."""

    def stands(self) -> CommandEvent | None:
        """Return the step that says where it stands; None where there is none yet."""
        known = [step for step in self.steps.values() if step is not None]
        ends = {id_: step for id_, step in self.steps.items() if step is not None and step.state.final}
        failed = any(end.state is not CommandState.SUCCEEDED for end in ends.values())
        # No read-back of what is done makes good what has failed.
        if self.steps.keys() <= (ends.keys() | self.done if failed else ends.keys()):
            return worst(ends.values())
        begun = [step for step in known if step.state is CommandState.SENT or step.state in WORST_FIRST[1:]]
        if begun:
            first = begun[0]
            return msgspec.structs.replace(first, state=CommandState.SENT, reason=None, detail="")
        return next((step for step in known if step.state is CommandState.ACCEPTED), None)


class Joint:
    """The commands to plants that were given here: the newest of each plant's setpoints, and those under way."""

    def __init__(self) -> None:
        self._of: dict[str, _Whole] = {}
        """Id of a part → what it is a part of."""

    def join(self, whole: Command, parts: Sequence[Command]) -> None:
        """Take in that these commands make up that one. They are about to be submitted."""
        self._of |= dict.fromkeys((part.id for part in parts), _Whole(whole, parts))

    def note(self, event: CommandEvent) -> list[CommandEvent]:
        """Take in a step of any command. Returns the steps of commands to plants that follow from it."""
        whole = self._of.get(event.command.id)
        if whole is None:
            return []
        whole.steps[event.command.id] = event
        return self._changed(whole)

    def done(self, command: Command) -> tuple[list[CommandEvent], list[Command]]:
        """Take in that the far side says a command is done.

        Returns the steps of commands to plants that follow from it, and those that are done as well.
        """
        whole = self._of.get(command.id)
        if whole is None:
            return [], []
        whole.done.add(command.id)
        ended = {id_ for id_, step in whole.steps.items() if step is not None and step.state.final}
        done = whole.steps.keys() <= whole.done | ended
        return self._changed(whole), [whole.command] if done else []

    def _changed(self, whole: _Whole) -> list[CommandEvent]:
        """Return where a command to a plant stands, where that is new."""
        stands = whole.stands()
        if stands is None or stands.state is whole.state:
            return []
        if stands.state is CommandState.ACCEPTED:
            self._drop_older(whole)
        elif stands.state is CommandState.REJECTED:
            self._drop(whole)
        whole.state = stands.state
        detail = f"{stands.command.serial}: {stands.detail}" if stands.detail else ""
        return [msgspec.structs.replace(stands, command=whole.command, detail=detail)]

    def _drop_older(self, whole: _Whole) -> None:
        """Forget commands that this one has displaced: their results are no longer wanted."""
        command = whole.command
        for other in list({id(one): one for one in self._of.values()}.values()):
            same = (other.command.serial, other.command.setpoint) == (command.serial, command.setpoint)
            if same and other is not whole:
                self._drop(other)

    def _drop(self, whole: _Whole) -> None:
        for id_ in whole.steps:
            self._of.pop(id_, None)
