"""Other names for what SEMS measures, in its own style: what a dialect chooses from. [assumed], all of them.

A name is words with spaces; a dialect writes them in its case style. `{n}` is the number of a phase or a string.
"""

import re
from collections.abc import Mapping
from typing import Final

_TOTALS: Final = {
    "energy": ("generation", "energy"),
    "grid_import": ("import", "buy", "purchase"),
    "grid_export": ("export", "sell", "feed in"),
    "load_energy": ("load", "consumption"),
    "battery_charge": ("charge", "battery charge"),
    "battery_discharge": ("discharge", "battery discharge"),
}
"""First words of a total's id → what SEMS may count it as."""
_SPANS: Final = {
    "today": ("daily {}", "today {}", "{} today", "day {}"),
    "month": ("monthly {}", "month {}", "{} month"),
    "year": ("yearly {}", "year {}", "{} year"),
    "total": ("total {}", "{} total", "all {}"),
}


def _totals() -> dict[str, tuple[str, ...]]:
    return {
        f"{what}_{span}": tuple(form.format(word) for word in words for form in forms)
        for what, words in _TOTALS.items()
        for span, forms in _SPANS.items()
    }


POINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ac_power": ("pac", "output power", "active power", "ac power", "p ac", "inverter power"),
    "ac_reactive_power": ("qac", "ac reactive power", "q ac", "output reactive power"),
    "ac_apparent_power": ("sac", "apparent power", "ac apparent power", "s ac"),
    "ac_power_factor": ("pf", "power factor", "cos phi", "ac power factor"),
    "pv_power": ("ppv", "pv power", "p pv", "solar power", "pv input power"),
    "load_power": ("pload", "load power", "p load", "consumption power", "house load power"),
    "grid_power": ("pmeter", "meter power", "grid power", "p grid", "p meter"),
    "backup_power": ("pbackup", "backup power", "p backup", "eps power"),
    "battery_power": ("pbattery", "battery power", "pbat", "bat power", "p battery"),
    "ev_power": ("charge power", "ev charger power", "charger power", "ev power"),
    "l_voltage": ("vac{n}", "ac voltage{n}", "uac{n}", "l{n} voltage", "phase{n} voltage", "grid voltage{n}"),
    "l_current": ("iac{n}", "ac current{n}", "l{n} current", "phase{n} current", "grid current{n}"),
    "l_frequency": ("fac{n}", "ac frequency{n}", "l{n} frequency", "phase{n} frequency", "grid frequency{n}"),
    "pv_voltage": ("vpv{n}", "dc voltage{n}", "pv{n} voltage", "upv{n}", "mppt{n} voltage"),
    "pv_current": ("ipv{n}", "dc current{n}", "pv{n} current", "mppt{n} current"),
    **_totals(),
    "operating_hours": ("hour total", "total hours", "work hours", "operating hours", "h total"),
    "battery_soc": ("soc", "battery soc", "bat soc", "battery level"),
    "battery_soh": ("soh", "battery soh", "bat soh", "battery health"),
    "battery_voltage": ("vbattery", "battery voltage", "vbat", "bat voltage"),
    "battery_current": ("ibattery", "battery current", "ibat", "bat current"),
    "battery_temperature": ("tbattery", "battery temperature", "tbat", "bat temperature"),
    "temperature": ("tempperature", "inner temperature", "inverter temperature", "internal temp"),
    "ev_status": ("veh connect status", "vehicle status", "plug status"),
    "ev_session_energy": ("current charge e", "session energy", "current charge energy"),
    "ev_session_time": ("current charge time", "session time", "charge duration"),
    "ev_energy_total": ("ev charger charge", "total charged energy", "charger total energy"),
    "irradiance": ("irradiance", "radiation", "solar irradiance"),
    "ambient_temperature": ("ambient temperature", "air temperature", "env temperature", "outdoor temp"),
    "module_temperature": ("module temperature", "panel temperature", "pv module temp"),
    "wind_speed": ("wind speed", "ws", "wind velocity"),
    "wind_direction": ("wind direction", "wind dir", "wd"),
    "humidity": ("humidity", "relative humidity", "rh"),
    "capacity": ("capacity", "pv capacity", "installed capacity", "station capacity"),
    "battery_capacity": ("battery capacity", "bat capacity", "storage capacity"),
    "income_today": ("day income", "today income", "daily income", "income today"),
    "income_total": ("total income", "income total", "all income"),
    "status": ("status", "work status", "run status", "device status", "state"),
    "fault_code": ("fault code", "error code", "err code"),
    "fault_text": ("fault message", "error message", "fault text"),
    "firmware": ("firmware version", "firmware", "software version"),
    "signal_strength": ("rssi", "signal strength", "wifi rssi"),
}
"""Point, without the number of a phase or string → its names."""

ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "serial": ("sn", "device sn", "serial number", "serial no"),
    "name": ("name", "device name", "alias name"),
    "model": ("model type", "model", "device model", "product model"),
    "rated_power": ("rated power", "nominal power", "capacity"),
    "time": ("last refresh time", "refresh time", "update time", "last update time", "data time"),
    "time_zone": ("time zone", "timezone", "plant time zone"),
}
"""Attribute of a device → its names."""
PLANT_ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    **ATTRIBUTES,
    "serial": ("plant id", "station id", "power station id", "pw id"),
    "name": ("plant name", "station name", "power station name"),
    "plant": ("plant id", "station id", "power station id"),
}
"""The same of a plant's."""

LISTS: Final = ("list", "records", "rows", "items", "data list", "result list")
"""What a list may be called."""
PAGES: Final = ("page", "result", "body")
"""What may stand around it."""
OBJECTS: Final = ("info", "detail", "result")
"""What may stand around the one object of an answer."""
GROUPS: Final = ("realtime", "running data", "measure data", "parameters")
"""What may stand around the values of a device."""

NOISE: Final[Mapping[str, tuple[object, ...]]] = {
    "thd": (2.1,), "reserved 7": (0, None), "org code": ("", "O-1031"), "max power today": (7_312,),
    "grid voltage max": (253.0,), "update flag": (True,), "co2 saved": (123.4,), "coal saved": (49.1,),
    "data type": (3,), "power limit w": (99_999,), "battery count": (1,), "warning bits": (0,),
    "last soc": (55, 44), "eday last": (18.2,), "previous day generation": (17.31,), "last total energy": (9_912.5,),
    "pv power forecast": (3.13,), "temperature max": (61.2,), "rated voltage": (400,),
    "bus voltage": (612.5,), "local ip": ("10.0.0.7",), "is demo": (False,),
}  # fmt: skip
"""Fields that mean nothing to the gateway → values they may have."""

_NUMBERED: Final = re.compile(r"(l|pv)([1-4])_(voltage|current|frequency)")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")


def point_names(point: str) -> tuple[str, ...]:
    """Return the names of a point; none for one that is always called the same."""
    numbered = _NUMBERED.fullmatch(point)
    if numbered is None:
        return POINTS.get(point, ())
    prefix, number, what = numbered.groups()
    return tuple(name.format(n=number) for name in POINTS[f"{prefix}_{what}"])


def words(field: str) -> str:
    """Return the words of a field's name: `last_refresh_time`, `LastRefreshTime` → `last refresh time`."""
    return " ".join(part.lower() for part in _HUMP.split(field) if part)


def camel(name: str) -> str:
    """Return `lastRefreshTime`."""
    first, *others = name.split()
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def snake(name: str) -> str:
    """Return `last_refresh_time`."""
    return "_".join(name.split())


def pascal(name: str) -> str:
    """Return `LastRefreshTime`."""
    return "".join(word[:1].upper() + word[1:] for word in name.split())


def squeezed(name: str) -> str:
    """Return a name without case and separators: two that are alike in this are one to a reader."""
    return name.replace("_", "").replace(" ", "").lower()
