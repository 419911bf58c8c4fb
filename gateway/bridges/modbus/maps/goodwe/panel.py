"""The settings of one unit: what was written, over what is known to be in force."""

import math
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from gateway.bridges.modbus.maps.goodwe.meaning import MOVING, Words, limits, meaning, moves, scheduled, words_of
from gateway.bridges.modbus.maps.goodwe.registers import (
    CLEAR_SCHEDULES,
    DEFAULTS,
    EMS_MODE,
    EMS_ORDERS,
    EMS_POWER,
    EXPORT_LIMIT,
    EXPORT_SWITCH,
    SCHEDULE,
    SETTINGS,
)
from gateway.bridges.modbus.maps.newest import Newest
from gateway.core.model import Command, CommandEvent, CommandState, Device, DeviceState, Value
from gateway.core.points import BATTERY, SETPOINTS

LOST: Final = (CommandState.FAILED, CommandState.EXPIRED, CommandState.UNKNOWN)
"""Ends of a command after which its setpoint is not what was written. A superseded one has a newer one after it."""
CLOSE: Final = 0.05
"""Half the finest step of a register."""
TARGET_SOC: Final = "battery_target_soc"
BATTERY_SETPOINTS: Final = tuple(point.id for point in SETPOINTS.values() if point.group == BATTERY)
"""One order, by one call."""
SCHEDULES: Final = frozenset(register for register in SETTINGS if register >= SCHEDULE)
ORDERED: Final = SCHEDULES | {register for register, s in SETTINGS.items() if s.setpoint in BATTERY_SETPOINTS}
"""Registers that say what the battery is to do."""


class Panel:
    """A written register reads back at once, and stays until its command has failed or another value is in force."""

    def __init__(self) -> None:
        self.device: Device | None = None
        self.target_soc: Value = None
        """What was last requested here, or is known to be in force. No register shows it."""
        self._values: dict[str, Value] = {}
        """In force when that was looked at last: not while a command for it is under way."""
        self._behind: set[str] = set()
        """Setpoints of which a command was under way meanwhile."""
        self._known: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._order: str | None = None
        """The order that 47512, as it was written, is the power of; None: of any, it was written by itself."""
        self.pending = Sequence()
        """What was written and has not settled."""
        self._leaving: list[Sequence] = []
        """What has settled, and is neither accepted nor refused yet."""
        self._newest = Newest()

    @property
    def words(self) -> dict[int, int]:
        """Register → number, but for what has not settled."""
        return self._settled.words

    @property
    def reads(self) -> dict[int, int]:
        """Register → number, as they read now."""
        return self.after(self.pending)

    def takes(self, setpoint: str) -> bool:
        """Return whether the device takes this setpoint."""
        return self.device is not None and setpoint in self.device.setpoints

    def after(self, written: "Sequence") -> dict[int, int]:
        """Return how the registers read once this is written."""
        return self._settled.after(written).words

    @property
    def _base(self) -> "_Reading":
        words = {**DEFAULTS, **self._known, **self._written}
        if EXPORT_SWITCH not in self._written and self._known.get(EXPORT_SWITCH):
            words[EXPORT_LIMIT] = self._known[EXPORT_LIMIT]  # what was written waits for another switch
        known = EMS_ORDERS[self._known[EMS_MODE]] if EMS_POWER in self._known else None
        if EMS_POWER in self._written:
            if known is None or EMS_MODE in self._written:
                return _Reading(words, self._order)
            words[EMS_POWER] = self._known[EMS_POWER]  # what was written by itself waits for another order
        if known != EMS_ORDERS[words[EMS_MODE]]:
            words[EMS_POWER], known = 0, None  # the power in force is that of another order
        return _Reading(words, known)

    @property
    def _settled(self) -> "_Reading":
        reading = self._base
        for written in self._leaving:
            reading = reading.after(written)
        return reading

    def leave(self) -> None:
        """Take what was written as settled. `taken` or `dropped` follows, the oldest first."""
        self._leaving.append(self.pending)
        self.pending = Sequence()

    def leaves(self, ids: Mapping[str, str]) -> None:
        """See `Settling.leaves`."""
        self._newest.leaves(ids)

    def dropped(self, model: str, ids: Mapping[str, str]) -> None:  # noqa: ARG002 - there is one
        """See `Settling.dropped`."""
        self._newest.refused(ids)
        self.refuse(self._leaving.pop(0).words)

    def taken(self, model: str = "") -> None:  # noqa: ARG002
        """See `Settling.taken`."""
        self.keep(self._leaving.pop(0))

    def refuse(self, registers: Collection[int]) -> None:
        """Forget what these registers were to say before they were refused, as far as it only waits.

        Else a mode or a switch that is written later would act by what was there before.
        """
        words = self.words
        waits = {EMS_POWER: not moves(words), EXPORT_LIMIT: not limits(words)}
        waiting = {register for register, its in waits.items() if its and register in registers}
        if not scheduled(words) and not SCHEDULES.isdisjoint(registers):
            waiting |= SCHEDULES
        self._forget(waiting)

    def keep(self, sequence: "Sequence") -> None:
        """Take in what was written."""
        reading, written = self._base, sequence.words
        after = reading.after(sequence)
        before, words, self._order = reading.words, after.words, after.order
        changed = {register for register, word in words.items() if before.get(register) != word}
        if EXPORT_SWITCH in written and EXPORT_LIMIT in words:
            # The switch leaves the limit as it stands, to be switched on again.
            changed.add(EXPORT_LIMIT)
        if EXPORT_LIMIT in written and words.get(EXPORT_SWITCH):
            changed.add(EXPORT_SWITCH)
        if EMS_MODE in written:
            # Its power is what it reads now, whatever comes in force meanwhile.
            changed.add(EMS_POWER)
        elif EMS_POWER in written and moves(words):
            changed.add(EMS_MODE)
        if scheduled(words):
            # Else the schedule's own order, once in force, would look like one of energy management.
            changed.add(EMS_MODE)
        for register in changed | written.keys():
            self._written[register] = words[register]
        self.target_soc = meaning(words, self.device).get(TARGET_SOC, self.target_soc)

    def learn(self, state: DeviceState) -> None:
        """Take in what is in force. A value that somebody else has set ends what was written.

        While a command is under way its setpoint may show what an older one has done: that is looked at after its end.
        """
        means = meaning(self.words, state.device)
        for setpoint in SETPOINTS:
            value = state.values.get(setpoint)
            if self._newest.is_under_way(_group(setpoint)):
                continue
            # An order and its end may both have passed, and left what there was before them.
            passed = setpoint in self._behind and setpoint in means
            self._behind.discard(setpoint)
            if passed or value != self._values.get(setpoint):
                if not same(means.get(setpoint), value):
                    self._forget(self._of(setpoint))
                    if setpoint == "battery_mode" and value in MOVING:
                        self._forget({EMS_POWER})  # that of any is not that of somebody else's order
                if setpoint == TARGET_SOC:
                    self.target_soc = value
            self._values[setpoint] = value
        self.device = state.device
        self._known = words_of({setpoint: state.values.get(setpoint) for setpoint in SETPOINTS})

    def note(self, event: CommandEvent) -> None:
        """Take in a step of a command. Where the newest one is lost, what is in force shows."""
        group = _group(event.command.setpoint)
        self._behind.update(group)
        # One that hands back has no power, so the newest power may be that of an older order.
        if self._newest.note(event) and event.state in LOST and not self._newest.is_under_way(group):
            self._forget(ORDERED if group == BATTERY_SETPOINTS else self._of(event.command.setpoint))

    def done(self, command: Command) -> None:
        """See `Settling.done`: from now on what is in force shows."""
        self._newest.ends(command)

    def _of(self, setpoint: str) -> Collection[int]:
        """Return the registers that say no more what they did, once this has another value."""
        its = {register for register, setting in SETTINGS.items() if setting.setpoint == setpoint}
        if setpoint == "battery_mode":
            # A schedule is an order for the battery, and ends with it; and so does the power of an order.
            return its | SCHEDULES | ({EMS_POWER} if self._order else set())
        return its

    def _forget(self, registers: Collection[int]) -> None:
        self._written = {register: word for register, word in self._written.items() if register not in registers}


class Sequence(NamedTuple):
    """What is written one after another, as far as nothing later has ended it."""

    words: Words = {}  # noqa: RUF012 - it is never changed
    """Register → number."""
    named: frozenset[str | None] = frozenset()
    """The orders of all modes that were written; None: to hand back."""
    ends: bool = False
    """A power was written with one mode, and another one after it."""

    def then(self, written: Words) -> "Sequence":
        """Return it with one more write."""
        words, named, ends = dict(self.words), self.named, self.ends
        if EMS_POWER in written:
            ends = False
        elif EMS_MODE in written and words.keys() >= {EMS_MODE, EMS_POWER}:
            before = EMS_ORDERS[words[EMS_MODE]]
            if before in MOVING and before != EMS_ORDERS[written[EMS_MODE]]:
                ends = True
                del words[EMS_POWER]
        if EMS_MODE in written:
            named |= {EMS_ORDERS[written[EMS_MODE]]}
        if CLEAR_SCHEDULES in written:
            words = {register: word for register, word in words.items() if register not in SCHEDULES}
        return Sequence({**words, **written}, named, ends)

    def without(self, registers: Collection[int]) -> "Sequence":
        """Return it as if these had not been written."""
        words = {register: word for register, word in self.words.items() if register not in registers}
        return Sequence(words, self.named if EMS_MODE in words else frozenset(), self.ends and EMS_MODE in words)


class _Reading(NamedTuple):
    """What registers read."""

    words: dict[int, int]
    order: str | None
    """The one that 47512 is the power of; None: of any."""

    def after(self, sequence: Sequence) -> "_Reading":
        """Return what they read once this is written."""
        written, words, order = sequence.words, dict(self.words), self.order
        if CLEAR_SCHEDULES in written:
            words.update((register, word) for register, word in DEFAULTS.items() if register in SCHEDULES)
        words.update(written)
        words[CLEAR_SCHEDULES] = 0
        if EMS_POWER in written:
            named = EMS_ORDERS[words[EMS_MODE]] if EMS_MODE in written else None
            order = named if named in MOVING else None
        elif sequence.ends or (order is not None and sequence.named - {order}):
            # An order's power ends with it. That of the next one may be still to come.
            words[EMS_POWER], order = 0, None
        return _Reading(words, order)


def _group(setpoint: str) -> tuple[str, ...]:
    """Return the setpoints that are set together with this one."""
    return BATTERY_SETPOINTS if setpoint in BATTERY_SETPOINTS else (setpoint,)


def same(one: Value, other: Value) -> bool:
    """Return whether two values are one, as far as registers can tell."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, abs_tol=CLOSE)
    return one == other
