"""The settings of one unit: what was written, over what is known to be in force."""

import math
from collections.abc import Mapping
from typing import Final

from gateway.bridges.modbus.maps.goodwe.meaning import Words, meaning, scheduled, words_of
from gateway.bridges.modbus.maps.goodwe.registers import (
    CLEAR_SCHEDULES,
    DEFAULTS,
    EMS_MODE,
    EXPORT_LIMIT,
    EXPORT_SWITCH,
    SCHEDULE,
    SETTINGS,
)
from gateway.core.model import CommandEvent, CommandState, Device, DeviceState, Value
from gateway.core.points import SETPOINTS

LOST: Final = (CommandState.FAILED, CommandState.EXPIRED, CommandState.UNKNOWN)
"""Ends of a command after which its setpoint is not what was written. A superseded one has a newer one after it."""
CLOSE: Final = 0.05
"""Half the finest step of a register."""
TARGET_SOC: Final = "battery_target_soc"
NOWHERE: Final = 0x10000
"""Beyond all registers."""


class Panel:
    """A written register reads back at once, and stays until its command has failed or another value is in force."""

    def __init__(self) -> None:
        self.device: Device | None = None
        self.target_soc: Value = None
        """What was last asked for here, or is known to be in force. No register shows it."""
        self._values: Mapping[str, Value] = {}
        self._known: dict[int, int] = {}
        self._written: dict[int, int] = {}

    @property
    def words(self) -> dict[int, int]:
        """Register → number, as they read now."""
        return {**DEFAULTS, **self._known, **self._written}

    def takes(self, setpoint: str) -> bool:
        """Return whether the device takes this setpoint."""
        return self.device is not None and setpoint in self.device.setpoints

    def after(self, written: Words) -> dict[int, int]:
        """Return how the registers read once this is written."""
        before = self.words
        words = {**before, **written}
        if CLEAR_SCHEDULES in written:
            words.update((register, word) for register, word in DEFAULTS.items() if register >= SCHEDULE)
            words[CLEAR_SCHEDULES] = 0
        return words

    def keep(self, written: Words) -> None:
        """Take in what was written."""
        before, words = self.words, self.after(written)
        changed = {register for register, word in words.items() if before.get(register) != word}
        if EXPORT_SWITCH in written and EXPORT_LIMIT in words:
            # The switch leaves the limit as it stands, to be switched on again.
            changed.add(EXPORT_LIMIT)
        if scheduled(words):
            # Else the schedule's own order, once in force, would look like one of energy management.
            changed.add(EMS_MODE)
        for register in changed | written.keys():
            self._written[register] = words[register]
        self.target_soc = meaning(words, self.device).get(TARGET_SOC, self.target_soc)

    def learn(self, state: DeviceState) -> None:
        """Take in what is in force. A value that somebody else has set ends what was written."""
        means = meaning(self.words, state.device)
        values = {setpoint: state.values.get(setpoint) for setpoint in SETPOINTS}
        for setpoint, value in values.items():
            if value != self._values.get(setpoint) and not same(means.get(setpoint), value):
                self._forget(setpoint)
        if values[TARGET_SOC] != self._values.get(TARGET_SOC):
            self.target_soc = values[TARGET_SOC]
        self.device, self._values = state.device, values
        self._known = words_of(values, state.device)

    def note(self, event: CommandEvent) -> None:
        """Take in a step of a command."""
        command = event.command
        if event.state in LOST and same(meaning(self.words, self.device).get(command.setpoint), command.value):
            self._forget(command.setpoint)

    def _forget(self, setpoint: str) -> None:
        # A schedule is an order for the battery, and ends with it.
        also = SCHEDULE if setpoint == "battery_mode" else NOWHERE
        self._written = {
            register: word
            for register, word in self._written.items()
            if SETTINGS[register].setpoint != setpoint and register < also
        }


def same(one: Value, other: Value) -> bool:
    """Return whether two values are one, as far as registers can tell."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, abs_tol=CLOSE)
    return one == other
