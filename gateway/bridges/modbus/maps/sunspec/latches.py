"""What clients have written to one device's controls, and when it no longer holds.

SunSpec clients write a value, its time-out and its enable in requests of their own, and read them back at once. So
what was written is kept and shown, until it is in force no more: its command failed, a time-out took it back, or
somebody else has set something.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.bridges.modbus.maps.sunspec.control import Control, Registers
from gateway.bridges.modbus.maps.sunspec.controls import check
from gateway.bridges.modbus.maps.sunspec.facts import Facts
from gateway.bridges.modbus.writes import Wish, WriteRefusedError
from gateway.core.model import Command, CommandEvent, CommandState, Value

_CLOSE: Final = 1e-6
_ENDS: Final = frozenset(state for state in CommandState if state.final) - {CommandState.REJECTED}
"""What ends a command that was accepted."""


class Latches:
    """The controls of one device."""

    def __init__(self) -> None:
        self._written: dict[str, Value] = {}
        self._applied: list[Control] = []
        """Controls of which what is written is, or is about to be, in force."""
        self._under_way: dict[str, str] = {}
        """Setpoint → id of its newest command, while that has not ended."""
        self._ended: dict[str, str] = {}
        """Setpoint → id of the one that ended last."""

    def shown(self, controls: Sequence[Control], setpoints: Registers, facts: Facts) -> dict[str, Value]:
        """Return what the controls' registers read."""
        shown: dict[str, Value] = {}
        for control in controls:
            shown |= {**control.settings, **control.show(setpoints, facts)}
        return shown | self._written

    def settle(self, controls: Sequence[Control], setpoints: Registers, facts: Facts) -> None:
        """Let go of what is not in force though nothing is under way."""
        registers = self.shown(controls, setpoints, facts)
        for control in list(self._applied):
            if self._under_way.keys() & control.needs or _in_force(control, registers, setpoints, facts):
                continue
            self._applied.remove(control)
            for name in control.target:
                self._written.pop(name, None)

    def wishes(
        self, controls: Sequence[Control], setpoints: Registers, facts: Facts, written: Mapping[str, Value]
    ) -> list[Wish]:
        """Return what a write asks for. Changes nothing. Raises WriteRefusedError."""
        check(written)
        registers = self.shown(controls, setpoints, facts) | dict(written)
        return [
            wish
            for control in controls
            if _applies(control, registers, written)
            for wish in control.wanted(registers, facts)
        ]

    def keep(
        self,
        controls: Sequence[Control],
        setpoints: Registers,
        facts: Facts,
        written: Mapping[str, Value],
        ids: Mapping[str, str],
    ) -> None:
        """Keep what was written: what it asks for was accepted, as commands with these ids. One may have ended."""
        self._written |= written
        registers = self.shown(controls, setpoints, facts)
        for control in controls:
            if not _applies(control, registers, written):
                continue
            if control not in self._applied:
                self._applied.append(control)
        self._under_way |= {setpoint: id_ for setpoint, id_ in ids.items() if self._ended.get(setpoint) != id_}

    def note(self, event: CommandEvent) -> None:
        """Follow the newest command of each setpoint, whoever gave it."""
        command = event.command
        if event.state is CommandState.ACCEPTED:
            self._under_way[command.setpoint] = command.id
        elif event.state in _ENDS:
            self.release(command)

    def release(self, command: Command) -> None:
        """Wait for this command no more: from now on the device's own value shows."""
        self._ended[command.setpoint] = command.id
        if self._under_way.get(command.setpoint) == command.id:
            del self._under_way[command.setpoint]


def _applies(control: Control, registers: Registers, written: Mapping[str, Value]) -> bool:
    """Return whether a write sets something in force, or ends it."""
    if control.enable in written:
        return True
    return control.enabled(registers) and not written.keys().isdisjoint(control.inputs)


def _in_force(control: Control, registers: Registers, setpoints: Registers, facts: Facts) -> bool:
    wanted = _wanted(control, registers, facts)
    return wanted is not None and all(_same(setpoints.get(wish.setpoint), wish.value) for wish in wanted)


def _wanted(control: Control, registers: Registers, facts: Facts) -> list[Wish] | None:
    """Return what the registers ask for; None where they make no sense together, by what came in between."""
    try:
        return control.wanted(registers, facts)
    except WriteRefusedError:
        return None


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, abs_tol=_CLOSE)
    return one == other
