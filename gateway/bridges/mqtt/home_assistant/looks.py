"""How a point looks in Home Assistant: derived from the point table, and a row for what can't be derived.

Device classes and the units that each takes: https://developers.home-assistant.io/docs/core/entity/sensor. Nothing here
is newer than the oldest version that docs/home-assistant.md names; a test holds it against that one and the newest.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final

import msgspec

from gateway.core.points import Kind, Point, Type

DIAGNOSTIC: Final = "diagnostic"
MEASUREMENT: Final = "measurement"
RISING: Final = "total_increasing"


class Look(msgspec.Struct, frozen=True):
    """What a sensor says of itself besides its name."""

    device_class: str | None = None
    state_class: str | None = None
    unit: str | None = None
    precision: int | None = None
    """Digits after the point, as shown."""
    icon: str | None = None
    category: str | None = None


class _Unit(msgspec.Struct, frozen=True):
    """What a unit alone tells."""

    device_class: str | None
    precision: int | None


_UNITS: Final[Mapping[str, _Unit]] = {
    "W": _Unit("power", 0),
    "kW": _Unit("power", 2),
    "var": _Unit("reactive_power", 0),
    "VA": _Unit("apparent_power", 0),
    "V": _Unit("voltage", 1),
    "A": _Unit("current", 2),
    "Hz": _Unit("frequency", 2),
    "°C": _Unit("temperature", 1),
    "kWh": _Unit("energy", 2),
    "h": _Unit("duration", 1),
    "W/m²": _Unit("irradiance", 0),
    "m/s": _Unit("wind_speed", 1),
    "%": _Unit(None, 1),
    "s": _Unit("duration", 0),
}

# What differs from the derived look. A new point needs a row only where its unit says too little.
_SPECIAL: Final[Mapping[str, Mapping[str, str | int | None]]] = {
    "ac_power_factor": {"device_class": "power_factor", "precision": 2},
    "battery_soc": {"device_class": "battery", "precision": 0},
    "battery_soh": {"icon": "mdi:battery-heart-variant", "category": DIAGNOSTIC},
    "humidity": {"device_class": "humidity", "precision": 0},
    # Its own device class is newer than the oldest version; and a mean of angles is none.
    "wind_direction": {"state_class": None, "precision": 0, "icon": "mdi:compass-outline"},
    "signal_strength": {
        "device_class": "signal_strength", "state_class": MEASUREMENT, "unit": "dBm", "category": DIAGNOSTIC,
    },
    "firmware": {"icon": "mdi:chip", "category": DIAGNOSTIC},
    "fault_code": {"icon": "mdi:alert-octagon-outline", "category": DIAGNOSTIC},
    "fault_text": {"icon": "mdi:alert-octagon-outline", "category": DIAGNOSTIC},
    "operating_hours": {"category": DIAGNOSTIC},
    # These say what is installed, so there are no statistics of them.
    "capacity": {"state_class": None, "category": DIAGNOSTIC},
    "battery_capacity": {"device_class": "energy_storage", "state_class": None, "category": DIAGNOSTIC},
    # Of device class `monetary` would have to say the currency, which SEMS does not tell.
    "income_today": {"icon": "mdi:cash", "precision": 2},
    "income_total": {"icon": "mdi:cash-multiple", "precision": 2},
    "power_factor": {"device_class": "power_factor", "precision": 2},
    "ev_status": {"icon": "mdi:ev-plug-type2"},
    "work_mode": {"icon": "mdi:cog-play"},
    "battery_mode": {"icon": "mdi:battery-sync"},
    "battery_target_soc": {"icon": "mdi:battery-lock"},
    "battery_reserve_soc": {"icon": "mdi:battery-lock-open"},
    "active_power_limit": {"icon": "mdi:transmission-tower-off"},
    "reactive_power": {"icon": "mdi:sine-wave"},
    "running": {"icon": "mdi:power"},
    "charging": {"icon": "mdi:ev-station"},
    "power_target": {"icon": "mdi:target"},
    "limit_state": {"icon": "mdi:transmission-tower-export"},
    "import_limit_state": {"icon": "mdi:transmission-tower-import"},
    "fleet_state": {"icon": "mdi:set-all"},
    "members": {"icon": "mdi:counter", "category": DIAGNOSTIC},
    "members_out": {"icon": "mdi:lan-disconnect", "category": DIAGNOSTIC},
    "data_age_p50": {"category": DIAGNOSTIC},
    "data_age_p95": {"category": DIAGNOSTIC},
    "writes_today": {"icon": "mdi:counter", "category": DIAGNOSTIC},
}  # fmt: skip

_STATE_CLASSES: Final[Mapping[Kind, str]] = {
    Kind.MEASUREMENT: MEASUREMENT,
    Kind.SETPOINT: MEASUREMENT,
    Kind.TOTAL: RISING,
}
"""Of numbers. A number that is a state, e.g. a fault code, has none: its mean would mean nothing."""

_ACRONYMS: Final = {"ac": "AC", "pv": "PV", "ev": "EV", "soc": "SoC", "soh": "SoH"}


@cache
def look(point: Point) -> Look:
    """Return how a point is shown."""
    if point.type is Type.ENUM:
        derived = Look(device_class="enum")
    elif point.type in {Type.FLOAT, Type.INTEGER}:
        unit = _UNITS.get(point.unit, _Unit(None, None))
        derived = Look(unit.device_class, _STATE_CLASSES.get(point.kind), point.unit or None, unit.precision)
    else:
        derived = Look()
    return msgspec.structs.replace(derived, **_SPECIAL.get(point.id, {}))


@cache
def name(point: str) -> str:
    """Return a point's id as people read it: `ac_power` is `AC power`, `pv1_voltage` is `PV1 voltage`."""
    words = [_word(word) for word in point.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def _word(word: str) -> str:
    letters = word.rstrip("0123456789")
    digits = word[len(letters) :]
    if letters == "l" and digits:
        return word.upper()
    return _ACRONYMS.get(letters, letters) + digits
