"""What is found out of a device while it is measured, and stays: its grid, its battery, and how large its plant is."""

from typing import Final

from gateway.bridges.modbus.maps.sunspec.ac import Values, number
from gateway.bridges.modbus.maps.sunspec.expressions import CHARGE_CAPACITY
from gateway.bridges.modbus.maps.sunspec.facts import LINES, Facts, Wiring
from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.bridges.modbus.maps.sunspec.scales import AT_THE_GRID
from gateway.core.model import Device, DeviceKind, DeviceState, Value

_HERTZ: Final = (50, 60)
_VOLTS: Final = (120.0, 127.0, 230.0, 240.0, 277.0, 346.0, 462.0)
"""Nominal voltages between a line and neutral: 346 and 462 are those of 600 and 800 V between lines."""
_OFF: Final = 0.12
"""Part of a nominal voltage by which the measured one may be off."""
_INVERTERS: Final = (DeviceKind.INVERTER, DeviceKind.STORAGE)


class Nominal:
    """Of one device. What was found out once stays: a nominal value does not follow the measured one."""

    def __init__(self) -> None:
        self.charge_capacity: float | None = None
        """Ah, at the battery's voltage when it was first seen with its capacity."""
        self._capacity: float | None = None
        self._hertz: float | None = None
        self._volts: float | None = None

    def learn(self, values: Values) -> None:
        """Take in what is measured now."""
        if self._hertz is None:
            self._hertz = _nearest(_HERTZ, number(values, "l1_frequency"), 0.06)
        if self._volts is None and self._hertz is not None:
            # 220, 230 and 240 V lie too near each other to be told apart; at 50 Hz 230 is the norm.
            volts = _nearest(_VOLTS, number(values, "l1_voltage"), _OFF)
            self._volts = 230.0 if self._hertz == _HERTZ[0] and volts == 240.0 else volts
        capacity, battery = number(values, "battery_capacity"), number(values, "battery_voltage")
        if capacity is not None and capacity != self._capacity:
            self._capacity = capacity
            self.charge_capacity = None
        if self.charge_capacity is None and capacity is not None and battery:
            self.charge_capacity = capacity * 1000 / battery

    def fields(self, facts: Facts) -> dict[str, Value]:
        """Return what registers show of it, in SunSpec's units."""
        wired = facts.wiring
        volts = self._volts
        if volts is not None and wired is Wiring.SPLIT and volts > 200:
            volts /= 2  # 240 V are there between the lines
        return {
            own("nominal_hertz"): self._hertz,
            own("nominal_volts"): volts,
            own("nominal_line_volts"): None if volts is None else volts * LINES[wired],
            own("capacity"): None if self._capacity is None else self._capacity * 1000,
            CHARGE_CAPACITY: self.charge_capacity,
        }


class Fleet:
    """Who belongs to which plant, and how large that is: of a meter nothing else says what may flow through it."""

    def __init__(self) -> None:
        self._plants: dict[str, float] = {}
        """Serial of a plant → its rating as it says itself, W."""
        self._members: dict[str, dict[str, float]] = {}
        """Serial of a plant → serial of an inverter → its rating, W."""

    def learn(self, state: DeviceState) -> None:
        """Take in what a plant says of its size."""
        capacity = number(state.values, "capacity")
        if state.device.kind is DeviceKind.PLANT and capacity:
            self._plants.setdefault(state.device.serial, capacity * 1000)

    def rated(self, device: Device) -> float | None:
        """Return a device's rating, or at a grid point that of its plant; W. Remembers an inverter's."""
        if device.rated_power:
            if device.kind in _INVERTERS and device.plant:
                self._members.setdefault(device.plant, {})[device.serial] = device.rated_power
            elif device.kind is DeviceKind.PLANT:
                self._plants[device.serial] = device.rated_power
            return device.rated_power
        if device.kind not in AT_THE_GRID:
            return None
        plant = device.serial if device.kind is DeviceKind.PLANT else device.plant
        return self._plants.get(plant) or sum(self._members.get(plant, {}).values()) or None


def _nearest(nominal: tuple[float, ...], value: float | None, off: float) -> float | None:
    """Return the nominal value that a measured one is nearest to, if it is near enough."""
    if value is None:
        return None
    found = min(nominal, key=lambda one: abs(one - value))
    return found if abs(found - value) <= off * found else None
