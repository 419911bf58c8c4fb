"""What clients have written to one device's controls, and when it no longer holds.

SunSpec clients write a value, its time-out, its mode and its enable in requests of their own, in whatever order, and
read them back at once. So what was written is kept and shown at once, and is a command once the client has paused:
then nothing leaves on half a sequence. It stays until it is in force no more: its command failed, a time-out took it
back, or somebody else has set something.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from gateway.bridges.modbus.maps.newest import Newest
from gateway.bridges.modbus.maps.sunspec.control import Control, Registers, refused
from gateway.bridges.modbus.maps.sunspec.controls import check
from gateway.bridges.modbus.maps.sunspec.facts import Facts
from gateway.bridges.modbus.settling import Due, SetpointRequest, Staged, WriteRefusedError, Written
from gateway.core.model import Command, CommandEvent, Value

_CLOSE: Final = 1e-6

NOTHING: Final = "\0"
"""No register says that."""


class _Leaving(NamedTuple):
    """What has settled."""

    controls: list[Control]
    before: dict[str, Value]
    """What was written there before, if it is refused."""


class Latches:
    """The controls of one device. See `Settling`."""

    def __init__(self) -> None:
        self._controls: Sequence[Control] = ()
        self._facts: Facts
        self._setpoints: Registers = {}
        """In force, as far as known."""
        self._written: dict[str, Value] = {}
        self._fresh: set[str] = set()
        """What was written since its control was last applied."""
        self._before: dict[str, Value] = {}
        """What was written there before; NOTHING: nothing was."""
        self._pending: list[Control] = []
        """Controls that a write has set going, and that have not settled."""
        self._leaving: dict[str, list[_Leaving]] = {}
        """Model → what has settled, and is neither accepted nor refused yet, the oldest first."""
        self._applied: list[Control] = []
        """Controls of which what is written is, or is about to be, in force."""
        self._newest = Newest()

    def describe(self, controls: Sequence[Control], facts: Facts) -> None:
        """Take in what the device is like."""
        self._controls, self._facts = controls, facts

    def shown(self) -> dict[str, Value]:
        """See `Settling.shown`."""
        shown: dict[str, Value] = {}
        for control in self._controls:
            shown |= {**control.settings, **control.show(self._setpoints, self._facts)}
        return shown | self._written

    def learn(self, setpoints: Registers) -> None:
        """Take in what is in force. What is not, though nothing is under way, is let go."""
        self._setpoints = setpoints
        registers = self.shown()
        leaving = [control for parts in self._leaving.values() for part in parts for control in part.controls]
        for control in list(self._applied):
            if control in self._pending or control in leaving or self._newest.is_under_way(control.needs):
                continue
            if self._in_force(control, registers):
                continue
            self._applied.remove(control)
            for name in control.target - self._fresh:
                self._written.pop(name, None)

    def stage(self, written: Written) -> Staged:
        """See `Settling.stage`."""
        check(written)
        controls, registers = self._controls, self.shown() | dict(written)
        fresh = self._fresh | written.keys()
        pending = [c for c in controls if c in self._pending or _applies(c, registers, written)]
        requests: list[SetpointRequest] = []
        all_whole = True
        waits = any(c.enable and not c.registers.isdisjoint(written) for c in controls if c not in pending)
        for control in pending:
            whole = control.whole(registers, fresh)
            all_whole = all_whole and whole
            try:
                requests += control.wanted(registers, self._facts)
            except WriteRefusedError:
                if whole:
                    raise
        models = frozenset(c.model for c in controls if not c.registers.isdisjoint(written))
        return Staged(requests, all_whole, bool(pending), models, is_open=waits or not all_whole)

    def latch(self, written: Written) -> None:
        """See `Settling.latch`."""
        registers = self.shown() | dict(written)
        for control in self._controls:
            if control not in self._pending and _applies(control, registers, written):
                self._pending.append(control)
        for name, value in written.items():
            self._keep(name, value)
            self._fresh.add(name)
        for control in self._pending:
            if control.enable in written and not control.enabled(registers):
                self._rest(control, control.at_rest.keys() - written.keys())

    def _keep(self, name: str, value: Value) -> None:
        self._before.setdefault(name, self._written.get(name, NOTHING))
        self._written[name] = value

    def _rest(self, control: Control, names: Collection[str]) -> None:
        """Have these force nothing any more, whoever writes the next mode."""
        for name in names:
            self._keep(name, control.at_rest[name])
            self._fresh.discard(name)

    def _rest_beside(self, control: Control) -> None:
        """Have what is not written beside an order that is under way force nothing, whatever comes in force."""
        if control in self._applied:
            self._rest(control, control.at_rest.keys() - self._written.keys())
            self._take(control.at_rest.keys() - self._fresh)

    def abandon(self, touched: Collection[str]) -> None:
        """See `Settling.abandon`.

        What was written before it, and was to act with it, was meant no more than it. An enable of 0 stays: it was
        accepted, is whole by itself, and hands back.
        """
        registers = self.shown()
        for control in self._controls:
            if control.registers.isdisjoint(touched):
                continue
            if control in self._pending and not control.enabled(registers):
                self._put_back(self._take(control.registers - {control.enable} - control.at_rest.keys()))
                self._rest(control, control.at_rest.keys())
            else:
                self._pending = [other for other in self._pending if other is not control]
                self._put_back(self._take(control.registers))
                self._rest_beside(control)

    def hand_over(self) -> None:
        """See `Settling.hand_over`: what would force something once another one writes a mode is forgotten."""
        for control in self._controls:
            if control not in self._pending:
                self._put_back(self._take(control.at_rest.keys()))
                self._rest_beside(control)

    def due(self, *, whole: bool = False) -> tuple[list[Due], list[str]]:
        """See `Settling.due`."""
        registers = self.shown()
        found: dict[str, tuple[list[Control], list[SetpointRequest]]] = {}
        dropped: list[str] = []
        for control in list(self._pending):
            try:
                wanted = control.wanted(registers, self._facts)
                if whole and not control.whole(registers, self._fresh):
                    raise refused(f"{control.inputs[0]} and what belongs to it is not written to the end")
            except WriteRefusedError as error:
                self._pending.remove(control)
                self._put_back(self._take(control.registers))
                self._rest_beside(control)
                dropped.append(str(error))
                continue
            its, requests = found.setdefault(control.model, ([], []))
            its.append(control)
            requests += wanted
        due = []
        for model, (its, requests) in found.items():
            before: dict[str, Value] = {}
            for control in its:
                before |= self._apply(control, registers)
            self._leaving.setdefault(model, []).append(_Leaving(its, before))
            due.append(Due(model, requests))
        return due, dropped

    def _apply(self, control: Control, registers: Registers) -> dict[str, Value]:
        """End what a control waits for. Returns what was written there before.

        What forces something and does not act now waits on if it is new, and else no longer.
        """
        self._pending.remove(control)
        acts = control.acts(registers)
        if control.parts is not None and control.enabled(registers):
            # The order is made of what is read now, and shows while it is under way, whatever comes in force meanwhile.
            # Elsewhere registers say the same in several ways, and those that were not written follow.
            for name in (acts & control.target) - self._written.keys():
                self._keep(name, registers.get(name))
        idle = {name for name in control.at_rest.keys() - acts if self._written.get(name) != control.at_rest[name]}
        waits = idle & self._fresh
        self._rest(control, idle - waits)
        return self._take(control.registers - waits)

    def leaves(self, ids: Mapping[str, str]) -> None:
        """See `Settling.leaves`."""
        self._newest.leaves(ids)

    def taken(self, model: str) -> None:
        """See `Settling.taken`."""
        leaving = self._next(model)
        self._applied += [control for control in leaving.controls if control not in self._applied]

    def dropped(self, model: str, ids: Mapping[str, str]) -> None:
        """See `Settling.dropped`."""
        self._newest.refused(ids)
        leaving = self._next(model)
        for control in leaving.controls:
            if control not in self._pending:
                self._put_back(self._take(control.registers))
        # What was written since then is newer, and stays.
        self._put_back({name: value for name, value in leaving.before.items() if name not in self._before})

    def _next(self, model: str) -> _Leaving:
        parts = self._leaving[model]
        part = parts.pop(0)
        if not parts:
            del self._leaving[model]
        return part

    def _take(self, names: Collection[str]) -> dict[str, Value]:
        """Have these wait no more. Returns what was written there before."""
        self._fresh.difference_update(names)
        return {name: self._before.pop(name) for name in self._before.keys() & names}

    def _put_back(self, before: Mapping[str, Value]) -> None:
        for name, value in before.items():
            if value is NOTHING:
                self._written.pop(name, None)
            else:
                self._written[name] = value

    def note(self, event: CommandEvent) -> None:
        """Follow the newest command of each setpoint, whoever gave it."""
        self._newest.note(event)

    def done(self, command: Command) -> None:
        """See `Settling.done`."""
        self._newest.ends(command)

    def _in_force(self, control: Control, registers: Registers) -> bool:
        try:
            wanted = control.wanted(registers, self._facts)
        except WriteRefusedError:  # what came in between makes no sense with what was written
            return False
        return all(_same(self._setpoints.get(request.setpoint), request.value) for request in wanted)


def _applies(control: Control, registers: Registers, written: Written) -> bool:
    """Return whether a write sets something in force, or ends it."""
    if control.enable in written:
        return True
    return control.enabled(registers) and not written.keys().isdisjoint(control.inputs)


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, abs_tol=_CLOSE)
    return one == other
