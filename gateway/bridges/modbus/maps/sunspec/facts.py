"""What is known of a device before it has measured anything: its phases, ratings and what it can be told."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.bridges.modbus.maps.sunspec.points import own
from gateway.core.model import Device, DeviceKind, Value

SINGLE_PHASE_FAMILIES: Final = frozenset(
    {"XS", "NS", "DNS", "MS", "MSU", "ES", "EM", "EH", "EHB", "ESA", "BH", "BP", "SBP", "SS"}
)
"""Part of a model's name, e.g. GW5000-EH. What is not listed is taken as three-phase: that shows all there is."""
SINGLE_PHASE_METERS: Final = ("GM1000", "GMK110", "HOMEKIT-1000")

PV, PV_STORAGE = 4, 82
"""Model 120, DERTyp."""
SINGLE, THREE = 0, 2
"""Model 701, ACType."""
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


def is_single_phase(device: Device) -> bool:
    """Return whether the model is known to have one phase."""
    model = device.model.upper()
    return model.startswith(SINGLE_PHASE_METERS) or not SINGLE_PHASE_FAMILIES.isdisjoint(re.split(r"[-_\s]", model))


def facts(device: Device) -> Facts:
    """Return a device's ratings."""
    target = device.setpoints.get("battery_power_target")
    reactive = device.setpoints.get("reactive_power")
    most = target.high if target is not None and target.high is not None else None
    return Facts(
        rated=device.rated_power,
        battery_most=most or (device.rated_power if device.kind in STORING else None),
        var_most=(reactive.high or 100.0) if reactive is not None else None,
    )


STORING: Final = (DeviceKind.STORAGE, DeviceKind.BATTERY)


def fixed_fields(device: Device, known: Facts) -> dict[str, Value]:
    """Return what registers show of a device itself: field → value, in SunSpec's units."""
    var_most = known.rated * known.var_most / 100 if known.rated and known.var_most else None
    modes = sum(1 << bit for setpoint, bit in CONTROL_MODES.items() if setpoint in device.setpoints)
    return {
        own("model"): device.model or device.name,
        own("kind"): device.kind.value,
        own("der_type"): PV_STORAGE if device.kind in STORING else PV,
        own("ac_type"): SINGLE if is_single_phase(device) else THREE,
        own("battery_most"): known.battery_most,
        own("var_most"): var_most,
        own("var_least"): None if var_most is None else -var_most,
        own("var_most_absorbed"): var_most,
        own("control_modes"): modes,
    }
