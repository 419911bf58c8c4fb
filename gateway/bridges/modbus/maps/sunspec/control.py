"""What a control is: registers that belong to one setpoint, and what they ask for."""

from collections.abc import Callable, Collection, Mapping

import msgspec

from gateway.bridges.modbus.codes import ExceptionCode
from gateway.bridges.modbus.maps.sunspec.expressions import number
from gateway.bridges.modbus.maps.sunspec.facts import Facts
from gateway.bridges.modbus.settling import SetpointRequest, WriteRefusedError
from gateway.core.model import Value

Registers = Mapping[str, Value]
"""Field → value, in SunSpec's unit."""


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """The registers by which one thing is controlled."""

    needs: tuple[str, ...]
    """Setpoints. Offered where the device takes all of them."""
    inputs: tuple[str, ...]
    """Registers that say what is wanted. Writing one applies it, while the control is enabled."""
    ask: Callable[[Registers, Facts], list[SetpointRequest]]
    """What the registers of an enabled control ask for. May raise WriteRefusedError."""
    show: Callable[[Registers, Facts], Registers]
    """The device's setpoints in force → inputs and `enable`, where nothing is latched."""
    enable: str = ""
    """0: what is in the inputs waits. Empty: a write applies at once."""
    neutral: tuple[SetpointRequest, ...] = ()
    """What writing 0 to `enable` asks for."""
    settings: Registers = {}
    """Registers that are kept for when something is applied, and what they read before they are written."""
    parts: Callable[[Registers], Collection[str]] | None = None
    """The inputs that say what is wanted, as the registers are. None: any of them does."""
    at_rest: Registers = {}
    """Inputs that force something, and what they say when they don't: they do not outlive the order that they are for,
    so that no mode that is written alone begins it again."""

    @property
    def model(self) -> str:
        """The model that it is in."""
        return self.inputs[0].split(".")[1]

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

    def acts(self, registers: Registers) -> frozenset[str]:
        """Return the registers of which the order is made, as they are."""
        if self.parts is None:
            return self.registers
        return self.registers - self.at_rest.keys() | (set(self.parts(registers)) if self.enabled(registers) else set())

    def whole(self, registers: Registers, written: Collection[str]) -> bool:
        """Return whether all is written that belongs together, so that no further write is to be waited for.

        Clients write an enable, a mode and their values one after another, in whatever order.
        """
        if not self.enable:
            return True
        if not self.enabled(registers):
            return self.enable in written
        if self.parts is not None:
            return all(name in written for name in self.parts(registers))
        return any(name in written for name in self.inputs)

    def wanted(self, registers: Registers, facts: Facts) -> list[SetpointRequest]:
        """Return what the registers ask for, enabled or not. Raises WriteRefusedError."""
        return self.ask(registers, facts) if self.enabled(registers) else list(self.neutral)

    def of_plant(self) -> "Control":
        """Return it as a plant has it: nothing of it is there where the inverters are not at one, or it is not known.

        An enable of 0 beside a value that is not there would set the neutral one, if it were written back.
        """

        def show(setpoints: Registers, facts: Facts) -> Registers:
            shown = self.show(setpoints, facts)
            acts = self.parts(shown) if self.parts is not None else ()
            # The first is the mode. Of how much it is, only what acts counts: a battery at rest has any power.
            if setpoints.get(self.needs[0]) is None or any(shown.get(name) is None for name in acts):
                return dict.fromkeys(self.registers)
            return shown

        def ask(registers: Registers, facts: Facts) -> list[SetpointRequest]:
            settings = {name: rest for name, rest in self.settings.items() if registers.get(name) is None}
            return self.ask({**registers, **settings}, facts)

        return msgspec.structs.replace(self, show=show, ask=ask)


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
