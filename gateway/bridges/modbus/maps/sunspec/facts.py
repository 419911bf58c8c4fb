"""What is known of a device before it has measured anything: its phases, ratings and setpoints."""

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.bridges.modbus.plants import MIN_SHARE_WATTS, Plant, total, weight
from gateway.core.model import Device, DeviceKind, Value
from gateway.core.points import MIN_POWER_FACTOR

SINGLE_PHASE_FAMILIES: Final = frozenset(
    {"XS", "NS", "DNS", "MS", "MSU", "ES", "EM", "EH", "EHB", "ESA", "BH", "BP", "SBP", "SS"}
)
"""Part of a model's name, e.g. GW5000-EH. What is not listed is taken as three-phase: that shows all there is."""
SINGLE_PHASE_METERS: Final = ("GM1000", "GMK110", "HOMEKIT-1000")
SPLIT_PHASE: Final = re.compile(r"-US\d*(-|$)|[- ]?\dA-(ES|MS)\b")
"""What marks a model made for 120/240 V, e.g. GW7600A-ES, GW9600-ES-US20, GW7600-MS-US30."""

PV, PV_STORAGE = 4, 82
"""Model 120, DERTyp."""


class Wiring(StrEnum):
    """How a device is connected."""

    SINGLE = "single"
    SPLIT = "split"
    WYE = "wye"
    DELTA = "delta"


AC_TYPES: Final[Mapping[Wiring, int]] = {Wiring.SINGLE: 0, Wiring.SPLIT: 1, Wiring.WYE: 2, Wiring.DELTA: 2}
"""Model 701, ACType."""
LINES: Final[Mapping[Wiring, float]] = {Wiring.SINGLE: 1.0, Wiring.SPLIT: 2.0, Wiring.WYE: 3**0.5, Wiring.DELTA: 3**0.5}
"""Voltage between lines, of that between a line and neutral. Model 702 has the first, but for one phase."""
CONTROL_MODES: Final[Mapping[str, int]] = {"active_power_limit": 0, "reactive_power": 2, "power_factor": 3}
"""Setpoint → bit of model 702, CtrlModes."""


class Facts(msgspec.Struct, frozen=True):
    """Ratings that percentages refer to. None where they are not known."""

    rated: float | None
    """W."""
    battery_most: float | None
    """W, charging and discharging."""
    var_most: float | None
    """% of rated power."""
    var_rated: float | None
    """W, of those that take reactive power: all of a plant's inverters need not."""
    wiring: Wiring = Wiring.WYE
    battery_step: float = 1.0
    """W. Of less there is no order."""
    eei: bool = True
    """Power factors of models 101 to 123 and 201 to 214 have the EEI's sign: < 0 over-excited while feeding in."""

    @property
    def most(self) -> float | None:
        """What it may give or take, as far as known; W."""
        return max(self.rated or 0.0, self.battery_most or 0.0) or None

    def excited(self, factor: float) -> float:
        """Return a power factor as OutPFSet has it, from one that is > 0 over-excited; or back."""
        return -factor if self.eei and abs(factor) != 1 else factor


def is_single_phase(device: Device) -> bool:
    """Return whether the model is known to have one phase."""
    model = device.model.upper()
    return model.startswith(SINGLE_PHASE_METERS) or not SINGLE_PHASE_FAMILIES.isdisjoint(re.split(r"[-_\s]", model))


def wiring(device: Device) -> Wiring:
    """Return how a device is connected, by its model."""
    if SPLIT_PHASE.search(device.model.upper()):
        return Wiring.SPLIT
    return Wiring.SINGLE if is_single_phase(device) else Wiring.WYE


def facts(device: Device, rated: float | None = None, *, wired: Wiring | None = None, eei: bool = True) -> Facts:
    """Return a device's ratings. `rated` is what others say of its power, in W."""
    known = total_rating(device) if isinstance(device, Plant) else device.rated_power or rated
    target = device.setpoints.get("battery_power_target")
    reactive = device.setpoints.get("reactive_power")
    most = target.high if target is not None and target.high is not None else None
    return Facts(
        rated=known,
        battery_most=most or (known if device.kind in STORING else None),
        battery_step=_step(device),
        var_most=(reactive.high or 100.0) if reactive is not None else None,
        var_rated=total_rating(device, "reactive_power") if isinstance(device, Plant) else known,
        wiring=wired or wiring(device),
        eei=eei,
    )


def _step(device: Device) -> float:
    """Return the least power of an order, W; of a plant, that of which none has a share that is less than its own."""
    target = device.setpoints.get("battery_power_target")
    if target is None:
        return MIN_SHARE_WATTS
    if not isinstance(device, Plant):
        return target.step or MIN_SHARE_WATTS
    shared = [one for one in device.inverters if {"battery_mode", "battery_power_target"} <= one.setpoints.keys()]
    known = {one.serial: weight("battery_power_target", one) for one in shared}
    whole = total(known.values()) or 0.0
    return max(
        [MIN_SHARE_WATTS, *(math.ceil(_step(one) * whole / share) for one in shared if (share := known[one.serial]))]
    )


STORING: Final = (DeviceKind.STORAGE, DeviceKind.BATTERY)


def total_rating(plant: Plant, setpoint: str = "") -> float | None:
    """Return the rating of a plant's inverters, or of those that take a setpoint; W. None where one is not known."""
    return total(one.rated_power for one in plant.inverters if not setpoint or setpoint in one.setpoints)


def stores(device: Device) -> bool:
    """Return whether it has batteries, or is a plant whose inverters have."""
    inverters = device.inverters if isinstance(device, Plant) else ()
    ordered = device.kind in (DeviceKind.PLANT, DeviceKind.FLEET) and "battery_mode" in device.setpoints
    return ordered or any(one.kind in STORING for one in (device, *inverters))


def fixed_fields(device: Device, known: Facts) -> dict[str, Value]:
    """Return what registers show of a device itself: field → value, in SunSpec's units."""
    var_most = known.var_rated * known.var_most / 100 if known.var_rated and known.var_most else None
    modes = sum(1 << bit for setpoint, bit in CONTROL_MODES.items() if setpoint in device.setpoints)
    return {
        own("model"): device.model or device.name,
        own("kind"): device.kind.value,
        own("der_type"): PV_STORAGE if stores(device) else PV,
        own("ac_type"): AC_TYPES[known.wiring],
        own("rated"): known.rated,
        own("battery_most"): known.battery_most,
        own("var_most"): var_most,
        own("var_least"): None if var_most is None else -var_most,
        own("var_most_absorbed"): var_most,
        own("control_modes"): modes,
        **_factors(device, known),
    }


def _factors(device: Device, known: Facts) -> dict[str, Value]:
    """Return the least power factors, where the device takes one: over-excited in quadrant 1, under-excited in 4."""
    if "power_factor" not in device.setpoints:
        return {}
    return {
        own("factor_q1"): known.excited(MIN_POWER_FACTOR),
        own("factor_q4"): known.excited(-MIN_POWER_FACTOR),
    }
