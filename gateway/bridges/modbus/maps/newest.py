"""The newest command of each setpoint: while it is under way registers show what it asks for, and its end decides."""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.core.model import Command, CommandEvent, CommandState

_ENDS: Final = frozenset(state for state in CommandState if state.final)


class Newest:
    """Follows the commands of one device, whoever gave them.

    Steps are reported in the order in which commands were accepted. What is on its way to be accepted is newer than all
    that was reported: so the end of an older command, which may come while a newer one waits, decides nothing.
    """

    def __init__(self) -> None:
        self._leaving: dict[str, list[str]] = {}
        """Setpoint → ids of our own that were not reported yet, in their order."""
        self._accepted: dict[str, str] = {}
        """Setpoint → id of the one that was accepted last, while that has not ended."""

    def leaves(self, ids: Mapping[str, str]) -> None:
        """Take in that commands are about to be submitted; `ids`: setpoint → id."""
        for setpoint, id_ in ids.items():
            self._leaving.setdefault(setpoint, []).append(id_)

    def refused(self, ids: Mapping[str, str]) -> None:
        """Take in that they were not accepted."""
        for setpoint, id_ in ids.items():
            self._left(setpoint, id_)

    def is_under_way(self, setpoints: Iterable[str]) -> bool:
        """Return whether the newest command of one of these has not ended."""
        return any(setpoint in self._leaving or setpoint in self._accepted for setpoint in setpoints)

    def note(self, event: CommandEvent) -> bool:
        """Take in a step of any command. Returns whether the newest one of its setpoint has ended by it."""
        if event.state is CommandState.ACCEPTED:
            self._left(event.command.setpoint, event.command.id)
            self._accepted[event.command.setpoint] = event.command.id
        return event.state in _ENDS and self.ends(event.command)

    def ends(self, command: Command) -> bool:
        """Wait for this command no more. Returns whether it was the newest one of its setpoint."""
        setpoint = command.setpoint
        known = self._left(setpoint, command.id)
        if self._accepted.get(setpoint) == command.id:
            del self._accepted[setpoint]
            known = True
        return known and not self.is_under_way((setpoint,))

    def _left(self, setpoint: str, id_: str) -> bool:
        """Return whether it was about to be submitted, and is no longer."""
        ids = self._leaving.get(setpoint, [])
        if id_ not in ids:
            return False
        ids.remove(id_)
        if not ids:
            del self._leaving[setpoint]
        return True
