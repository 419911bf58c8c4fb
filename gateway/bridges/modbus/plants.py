"""A plant's unit takes what its inverters take: the same for each or, of a power, its share; and reads back as one."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final

import msgspec

from gateway.bridges.modbus.codes import ExceptionCode
from gateway.bridges.modbus.settling import SetpointRequest, WriteRefusedError
from gateway.core.model import Device, DeviceKind, DeviceState, Quality, Range, Value
from gateway.core.points import SETPOINTS, STATUS_OPTIONS

INVERTERS: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE)
SHARED: Final = frozenset(point.id for point in SETPOINTS.values() if point.unit == "W")
"""Setpoints of which each inverter gets its share, in whole watts. Of all others each gets the same."""
_ORDERED: Final = frozenset(point.id for point in SETPOINTS.values() if point.group) - {"battery_mode"}
"""What belongs to a battery's mode."""
MIN_SHARE_WATTS: Final = 1.0
"""W: what a share is at least, if it is any."""
ADDED: Final = ("ac_power", "ac_reactive_power", "pv_power", "energy_total")
"""What all inverters have together is the sum of."""
ADDED_OF_BATTERIES: Final = ("battery_power", "battery_capacity")
"""The same of those that have a battery."""
_BUSY_FIRST: Final = ("fault", "normal", "waiting", "offline")
"""What several do together: what the first of these does that one of them does."""
if set(_BUSY_FIRST) != set(STATUS_OPTIONS):
    raise AssertionError("a status has no place among those of several inverters")


class Plant(Device, frozen=True, kw_only=True, gc=False):
    """A plant as its unit has it: it takes what its inverters take."""

    inverters: tuple[Device, ...]
    """All of them, by serial number; also those that take nothing."""


class PlantState(DeviceState, frozen=True, kw_only=True, gc=False):
    """How it stands: setpoints are what is in force for all."""

    added: Mapping[str, Value]
    """What its inverters measure, as if they were one. Not there where one is offline, or has none."""


class _Members:
    """The inverters of one plant."""

    def __init__(self) -> None:
        self.states: dict[str, DeviceState] = {}
        """By serial number."""
        self.plant: Plant | None = None
        """As it was described last."""
        self.takers: Mapping[str, Sequence[str]] = {}
        """Setpoint → who takes it. Only what the plant does not take by itself."""
        self.described = False
        """Whether no inverter has come, gone or changed since; for hundreds that come together it is done once."""


class Plants:
    """Which inverters make up a plant, and how they stand."""

    def __init__(self) -> None:
        self._members: dict[str, _Members] = {}
        """By the plant's serial number."""
        self._home: dict[str, str] = {}
        """Serial of an inverter → its plant's."""
        self._plants: dict[str, Device] = {}
        """Plants as they are announced."""

    def note(self, state: DeviceState) -> list[str]:
        """Take in how a device stands. Returns the serials of plants that may now show something else."""
        device = state.device
        if device.kind is DeviceKind.PLANT:
            known = self._plants.get(device.serial)
            self._plants[device.serial] = device
            if known != device and device.serial in self._members:
                self._members[device.serial].described = False
            return []
        plant = device.plant if device.kind in INVERTERS else ""
        changed = [] if self._home.get(device.serial, plant) == plant else self.forget(device.serial)
        if not plant:
            return changed
        its = self._members.setdefault(plant, _Members())
        before = its.states.get(device.serial)
        its.states[device.serial] = state
        self._home[device.serial] = plant
        if before is None or before.device != device:
            its.described = False
        return [*changed, plant]

    def forget(self, serial: str) -> list[str]:
        """Take in that a device is gone. Returns the serials of plants that may now show something else."""
        self._plants.pop(serial, None)
        plant = self._home.pop(serial, "")
        if not plant:
            return []
        del self._members[plant].states[serial]
        self._members[plant].described = False
        return [plant]

    def of(self, serial: str) -> str:
        """Return the serial of an inverter's plant; "" for what is none."""
        return self._home.get(serial, "")

    def inverters(self, plant: str) -> Collection[str]:
        """Return the serials of a plant's inverters."""
        its = self._members.get(plant)
        return its.states if its is not None else ()

    def view(self, state: DeviceState) -> DeviceState:
        """Return a plant with what its inverters take, and what is set of it; any other device as it is."""
        its = self._described(state.device.serial) if state.device.kind is DeviceKind.PLANT else None
        if its is None or its.plant is None:
            return state
        values = dict(state.values)
        for setpoint, takers in its.takers.items():
            values[setpoint] = _as_one(setpoint, [its.states[taker] for taker in takers])
        if values.get("battery_mode") is None and "battery_mode" in its.takers:
            # How much is nothing without what: alone, it would be sent to those that do something else.
            values |= dict.fromkeys(_ORDERED & its.takers.keys())
        return PlantState(
            device=its.plant,
            quality=state.quality,
            time=state.time,
            source=state.source,
            values=values,
            added=_added(list(its.states.values())),
        )

    def share(
        self, serial: str, request: SetpointRequest, along: Collection[str] = ()
    ) -> list[tuple[str, SetpointRequest]]:
        """Return who is to do what, where a device is asked for something: itself, or a plant's inverters.

        `along`: the setpoints that the request asks for. Where some of them are one order, it is for those that take
        all of it. Raises WriteRefusedError where a power can't be shared out.
        """
        its = self._described(serial)
        takers = its.takers.get(request.setpoint, ()) if its is not None else ()
        if its is None or not takers:
            return [(serial, request)]
        order = [
            one for one in along if SETPOINTS[one].group and SETPOINTS[one].group == SETPOINTS[request.setpoint].group
        ]
        devices = [its.states[taker].device for taker in takers]
        devices = [device for device in devices if all(one in device.setpoints for one in order)] or devices
        parts = _parts(request.setpoint, request.value, devices)
        backs = _parts(request.setpoint, request.revert_value, devices)
        return [
            (device.serial, request._replace(value=value, revert_value=back))
            for device, value, back in zip(devices, parts, backs, strict=True)
        ]

    def _described(self, serial: str) -> _Members | None:
        """Return a plant's inverters, and what they make of it; made anew where one has come, gone or changed."""
        its = self._members.get(serial)
        if its is not None and not its.described:
            its.described = True
            self._describe(its, self._plants.get(serial))
        return its

    @staticmethod
    def _describe(its: _Members, own: Device | None) -> None:
        inverters = tuple(its.states[one].device for one in sorted(its.states))
        taken = {setpoint: [d for d in inverters if setpoint in d.setpoints] for setpoint in SETPOINTS}
        by_itself = own.setpoints if own is not None else {}
        taken = {setpoint: takers for setpoint, takers in taken.items() if takers and setpoint not in by_itself}
        its.takers = {setpoint: [device.serial for device in takers] for setpoint, takers in taken.items()}
        its.plant = None
        if own is not None and taken:
            ranges = {setpoint: _range(setpoint, takers) for setpoint, takers in taken.items()}
            fields = msgspec.structs.asdict(own) | {"setpoints": {**own.setpoints, **ranges}}
            its.plant = Plant(**fields, inverters=inverters)


def with_plants(devices: Iterable[Device]) -> dict[str, Device]:
    """Return devices by serial number, plants as their units have them."""
    plants = Plants()
    states = [
        DeviceState(device=device, quality=Quality.OFFLINE, time=None, source="", values={}) for device in devices
    ]
    for state in states:
        plants.note(state)
    return {state.device.serial: plants.view(state).device for state in states}


def total(numbers: Iterable[Value]) -> float | None:
    """Return the sum of what is known; None where one is not."""
    found = list(numbers)
    known = [number for number in found if isinstance(number, (int, float)) and not isinstance(number, bool)]
    return sum(known) if known and len(known) == len(found) else None


def weight(setpoint: str, device: Device) -> float | None:
    """Return what a device takes of a power at most, else its rated power; W."""
    return device.setpoints[setpoint].high or device.rated_power


def _range(setpoint: str, takers: Sequence[Device]) -> Range:
    """Return what all take together."""
    if setpoint in SHARED:
        return Range(0, total(weight(setpoint, device) for device in takers))
    ranges = [device.setpoints[setpoint] for device in takers]
    return Range(
        max((one.low for one in ranges if one.low is not None), default=None),
        min((one.high for one in ranges if one.high is not None), default=None),
    )


def _as_one(setpoint: str, states: Sequence[DeviceState]) -> Value:
    """Return what several have set: the same, or the sum of powers; None where there is no such thing.

    Powers have a sum where each is its share of it: so whoever writes it again changes nothing.
    """
    values = [state.values.get(setpoint) for state in states]
    if setpoint not in SHARED or (found := total(values)) is None:
        return values[0] if all(value == values[0] for value in values) else None
    try:
        shares = _parts(setpoint, found, [state.device for state in states])
    except WriteRefusedError:
        return None
    pairs = zip(values, shares, strict=True)
    return found if all(abs(float(one or 0) - float(other or 0)) < MIN_SHARE_WATTS for one, other in pairs) else None


def _parts(setpoint: str, value: Value, takers: Sequence[Device]) -> list[Value]:
    """Return each one's part, by what it takes at most, else by its rated power; in whole watts with the right sum.

    Raises WriteRefusedError where that is not known of one of several.
    """
    if setpoint not in SHARED or not isinstance(value, (int, float)):
        return [value] * len(takers)
    if len(takers) == 1:
        return [value]
    weights = [weight(setpoint, device) for device in takers]
    whole = total(weights)
    if not whole:
        unknown = ", ".join(device.serial for device, known in zip(takers, weights, strict=True) if not known)
        text = f"{setpoint} can't be shared out: the rated power of {unknown} is not known"
        raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_VALUE, text)
    # Half a watt goes up, always: then no share that is a watt becomes none. The sum is shared out again as it was.
    parts, rounded = accumulate((known or 0.0 for known in weights), initial=0.0), round(value)
    ends = [math.floor(rounded * part / whole + 0.5) for part in parts]
    return [float(after - before) for before, after in pairwise(ends)]


def _added(states: Sequence[DeviceState]) -> dict[str, Value]:
    """Return what inverters measure, as if they were one."""
    if any(state.quality is not Quality.GOOD for state in states):
        return {}
    storing = [state for state in states if state.device.kind is DeviceKind.STORAGE]
    found: dict[str, Value] = {point: total(state.values.get(point) for state in states) for point in ADDED}
    found |= {point: total(state.values.get(point) for state in storing) for point in ADDED_OF_BATTERIES}
    found["battery_soc"] = _charge(storing)
    doing = {state.values.get("status") for state in states}
    found["status"] = next((one for one in _BUSY_FIRST if one in doing), None) if None not in doing else None
    return {point: value for point, value in found.items() if value is not None}


def _charge(storing: Sequence[DeviceState]) -> Value:
    """Return the state of charge of several batteries: the mean, by their capacities; %."""
    if len(storing) == 1:
        return storing[0].values.get("battery_soc")
    capacity = total(state.values.get("battery_capacity") for state in storing)
    charged = total(
        _product(state.values.get("battery_soc"), state.values.get("battery_capacity")) for state in storing
    )
    return charged / capacity if capacity and charged is not None else None


def _product(one: Value, other: Value) -> float | None:
    return one * other if isinstance(one, (int, float)) and isinstance(other, (int, float)) else None
