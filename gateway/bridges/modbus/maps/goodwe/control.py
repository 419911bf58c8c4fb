"""The settings of one unit as writes come to them: what they ask for, and when."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from gateway.bridges.modbus.codes import ExceptionCode
from gateway.bridges.modbus.maps.goodwe.meaning import (
    Words,
    impossible,
    limits,
    lowest_or_full,
    meaning,
    moves,
    orders,
    powered,
    scheduled,
)
from gateway.bridges.modbus.maps.goodwe.panel import BATTERY_SETPOINTS, TARGET_SOC, Panel, Sequence, same
from gateway.bridges.modbus.maps.goodwe.registers import (
    EMS_MODE,
    EMS_POWER,
    EXPORT_LIMIT,
    EXPORT_SWITCH,
    OWN,
    SETTINGS,
)
from gateway.bridges.modbus.settling import Due, SetpointRequest, Staged, WriteRefusedError, Written
from gateway.commands.policy.policy import parse_within
from gateway.core.model import Value
from gateway.core.points import NONE, SETPOINTS, BadValueError

NAME: Final = "goodwe"
FIELDS: Final[Mapping[str, int]] = {OWN + setting.name: register for register, setting in SETTINGS.items()}
"""Field → register."""
ACTS: Final[Mapping[int, Callable[[Words], bool]]] = {EXPORT_LIMIT: limits, EMS_POWER: powered, EMS_MODE: orders}
"""When a write of the register asks for its setpoint anew, changed or not. Those that aren't here always do."""
ALONG: Final[Mapping[int, tuple[str, ...]]] = {
    EMS_MODE: ("battery_power_target", TARGET_SOC),
    EMS_POWER: ("battery_mode", TARGET_SOC),
}
"""What a register asks for beside its own setpoint, where that is known: a power alone would be that of whatever order
somebody else has under way."""

CLAMPED: Final = (EMS_POWER, EXPORT_LIMIT)
"""What takes more than the device has, and means all of it, as in the real inverter."""
PAIRS: Final[Mapping[int, int]] = {EMS_MODE: EMS_POWER, EXPORT_SWITCH: EXPORT_LIMIT}
"""Registers that clients write one after the other: the first acts by what the second says."""


class Controls(Panel):
    """See `Settling`."""

    def shown(self) -> dict[str, Value]:
        """Return field → number in its unit; None for the settings that say nothing."""
        reads = self.reads
        return {
            field: reads[register] * 10 ** SETTINGS[register].exponent if register in reads else None
            for field, register in FIELDS.items()
        }

    def stage(self, written: Written) -> Staged:
        """See `Settling.stage`."""
        sequence = self.pending.then(self._words(written))
        whole = not self._halves(sequence)
        try:
            asked = self._asks(sequence)
        except WriteRefusedError as error:
            if whole or error.code is not ExceptionCode.ILLEGAL_DATA_VALUE:
                raise
            asked = []
        is_open = not whole or self._waits(sequence)
        return Staged(asked, whole, bool(sequence.words), frozenset({NAME}), is_open)

    def latch(self, written: Written) -> None:
        """See `Settling.latch`."""
        self.pending = self.pending.then(self._words(written))

    def abandon(self, touched: Collection[str]) -> None:
        """See `Settling.abandon`."""
        registers = {FIELDS[field] for field in touched}
        acts = self._acting(self.pending)
        its = set(registers)
        for first, second in PAIRS.items():
            if not registers.isdisjoint((first, second)):
                # What switches off is whole by itself, and was accepted: it stays.
                its = its | {first, second} if acts[first] else (its | {second}) - {first}
        gone = its & self.pending.words.keys()
        self.pending = self.pending.without(gone)
        self.refuse(registers | gone)

    def hand_over(self) -> None:
        """See `Settling.hand_over`: what waits reads back, and is the inverter's, whoever wrote it."""

    def due(self, *, whole: bool = False) -> tuple[list[Due], list[str]]:
        """See `Settling.due`."""
        dropped = []
        if whole:
            for first in self._halves(self.pending):
                self.pending = self.pending.without({first})
                dropped.append(f"{first} without {PAIRS[first]}")
        try:
            asked = self._asks(self.pending)
        except WriteRefusedError as error:
            self.pending = Sequence()
            asked = []
            dropped.append(str(error))
        self.leave()
        if not asked:
            self.taken()
        return [Due(NAME, asked)] if asked else [], dropped

    def _words(self, written: Written) -> dict[int, int]:
        """Return register → number of a write. Raises WriteRefusedError (03) for one that a register does not take."""
        reads = self.reads
        words = {}
        for field, value in written.items():
            register = FIELDS[field]
            word = round(float(value or 0) / 10 ** SETTINGS[register].exponent)
            # Who writes a block back may not know that what stands there is more than can be written.
            if not SETTINGS[register].takes(word) and (len(written) == 1 or reads.get(register) != word):
                raise _refused(f"register {register} does not take {word}")
            words[register] = word
        return words

    def _acting(self, sequence: Sequence) -> dict[int, bool]:
        """Return the first register of each pair → whether it acts by the second, once this is written."""
        after = self.after(sequence)
        return {EMS_MODE: moves(after), EXPORT_SWITCH: bool(after.get(EXPORT_SWITCH))}

    def _halves(self, sequence: Sequence) -> list[int]:
        """Return the registers that are written and act by another one, which is not."""
        acts, words = self._acting(sequence), sequence.words
        return [first for first, second in PAIRS.items() if first in words and second not in words and acts[first]]

    def _waits(self, sequence: Sequence) -> bool:
        """Return whether something is written that only waits for another register, which may follow."""
        acts, words = self._acting(sequence), sequence.words
        return any(second in words and first not in words and not acts[first] for first, second in PAIRS.items())

    def _asks(self, sequence: Sequence) -> list[SetpointRequest]:
        """Return what it means for the device when these registers are written. Changes nothing.

        Raises WriteRefusedError: 02 for a setpoint that the device does not take, 03 for what can't be together.
        """
        after = self.after(sequence)
        if why := impossible(after):
            raise _refused(why)
        before = self.words
        was, means = meaning(before, self.device), meaning(after, self.device)
        wanted: dict[str, Value] = {}
        for register, word in sequence.words.items():
            setpoint = SETTINGS[register].setpoint
            if not setpoint:
                continue
            if register in ACTS and not ACTS[register](after):
                self._check_kept(register, setpoint, word)
            elif setpoint not in means:
                raise _refused(f"register {register}: there is no value yet to switch on, or none that means off")
            else:
                wanted[setpoint] = means[setpoint]
                wanted |= {other: means[other] for other in ALONG.get(register, ()) if other in means}
        battery = {setpoint: means[setpoint] for setpoint in BATTERY_SETPOINTS if setpoint in means}
        if "work_mode" in wanted and not self.takes("work_mode") and (scheduled(before) or scheduled(after)):
            # Here the work mode only switches the schedule, which is an order for the battery, and that can be given.
            del wanted["work_mode"]
            wanted |= battery
        wanted |= {setpoint: value for setpoint, value in battery.items() if not same(was.get(setpoint), value)}
        if TARGET_SOC in wanted:
            # Somebody may have set another one before, at which this one would end at once.
            own = lowest_or_full(self.device, str(means["battery_mode"]))
            stands, asked = (own if soc in (None, NONE) else soc for soc in (self.target_soc, wanted[TARGET_SOC]))
            if same(stands, asked):
                del wanted[TARGET_SOC]
        # The battery's mode before its power, in whatever order they were written: it is what starts the order.
        return [SetpointRequest(setpoint, wanted[setpoint]) for setpoint in SETPOINTS if setpoint in wanted]

    def _check_kept(self, register: int, setpoint: str, word: int) -> None:
        """Refuse now what would be refused when it comes to act. 0 stands for "nothing" and passes."""
        if setpoint == SETTINGS[EMS_MODE].setpoint or not word or self.device is None:
            return
        if not self.takes(setpoint):
            raise WriteRefusedError(
                ExceptionCode.ILLEGAL_DATA_ADDRESS, f"{self.device.serial} does not take {setpoint}"
            )
        if register in CLAMPED:
            return
        try:
            parse_within(SETPOINTS[setpoint], word, self.device.setpoints[setpoint])
        except BadValueError as error:
            raise _refused(str(error)) from error


def _refused(why: str) -> WriteRefusedError:
    return WriteRefusedError(ExceptionCode.ILLEGAL_DATA_VALUE, why)
