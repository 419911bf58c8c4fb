"""What a control is: registers that belong to one setpoint, and what they ask for."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.bridges.modbus.codes import ExceptionCode
from gateway.bridges.modbus.maps.sunspec.expressions import number
from gateway.bridges.modbus.maps.sunspec.facts import Facts
from gateway.bridges.modbus.writes import Wish, WriteRefusedError
from gateway.core.model import Value
from gateway.core.points import SETPOINTS

Registers = Mapping[str, Value]
"""Field → value, in SunSpec's unit."""
REVERSION: Final = "Rvrt"
"""Ends the names of model 704's values that are to be in force after a time-out."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """The registers by which one thing is controlled."""

    needs: tuple[str, ...]
    """Setpoints. Offered where the device takes all of them."""
    inputs: tuple[str, ...]
    """Registers that say what is wanted. Writing one applies it, while the control is enabled."""
    ask: Callable[[Registers, Facts], list[Wish]]
    """What the registers of an enabled control ask for. May raise WriteRefusedError."""
    show: Callable[[Registers, Facts], Registers]
    """The device's setpoints in force → inputs and `enable`, where nothing is latched."""
    enable: str = ""
    """0: what is in the inputs waits. Empty: a write applies at once."""
    neutral: tuple[Wish, ...] = ()
    """What writing 0 to `enable` asks for."""
    settings: Registers = {}
    """Registers that are kept for when something is applied, and what they read before they are written."""

    @property
    def target(self) -> frozenset[str]:
        """What says what is to be in force: inputs and `enable`."""
        return frozenset(self.inputs) | ({self.enable} if self.enable else set())

    @property
    def registers(self) -> frozenset[str]:
        """All of them."""
        return self.target | self.settings.keys()

    def enabled(self, registers: Registers) -> bool:
        """Return whether what is in the inputs is to be in force."""
        return not self.enable or bool(registers.get(self.enable))

    def wanted(self, registers: Registers, facts: Facts) -> list[Wish]:
        """Return what the registers ask for, enabled or not. Raises WriteRefusedError."""
        return self.ask(registers, facts) if self.enabled(registers) else list(self.neutral)


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """What is common to controls of one setpoint that have a value, an enable and a timer (models 123 and 704)."""

    setpoint: str
    enable: str
    timer: str
    value: Callable[[Registers, Facts, str], float]
    """The setpoint's value out of the inputs, whose names end in what is given: nothing, or REVERSION."""
    enable_back: str = ""
    """Model 704: 1 where the reversion value is to be in force after the time-out, and not the neutral one."""

    def ask(self, registers: Registers, facts: Facts) -> list[Wish]:
        """See Control.ask."""
        after = seconds(registers, self.timer)
        reverts = after is not None and bool(registers.get(self.enable_back))
        back = self.value(registers, facts, REVERSION) if reverts else None
        return [Wish(self.setpoint, self.value(registers, facts, ""), after, back)]

    def control(
        self, inputs: tuple[str, ...], show: Callable[[Registers, Facts], Registers], settings: Registers
    ) -> Control:
        """Return the whole control; `show` shows the inputs."""
        return Control(
            needs=(self.setpoint,),
            inputs=inputs,
            ask=self.ask,
            show=lambda setpoints, facts: {**show(setpoints, facts), self.enable: self._shows_enabled(setpoints)},
            enable=self.enable,
            neutral=(Wish(self.setpoint, SETPOINTS[self.setpoint].neutral),),
            settings={self.timer: 0, **({self.enable_back: 0} if self.enable_back else {}), **settings},
        )

    def _shows_enabled(self, setpoints: Registers) -> int:
        """Return whether something else than the neutral value is in force."""
        value = number(setpoints, self.setpoint)
        return int(value is not None and value != SETPOINTS[self.setpoint].neutral)


def refused(text: str) -> WriteRefusedError:
    """Return the refusal of a value."""
    return WriteRefusedError(ExceptionCode.ILLEGAL_DATA_VALUE, text)


def need(registers: Registers, name: str) -> float:
    """Return a register's number. Raises WriteRefusedError where it has none yet."""
    value = number(registers, name)
    if value is None:
        raise refused(f"{name} has no value yet; write it first")
    return value


def rating(value: float | None, what: str) -> float:
    """Return what a percentage refers to. Raises WriteRefusedError where it is not known."""
    if not value:
        raise refused(f"the device's {what} is not known, so a share of it means nothing")
    return value


def seconds(registers: Registers, timer: str) -> float | None:
    """Return a time-out. 0 is none."""
    return number(registers, timer) or None
