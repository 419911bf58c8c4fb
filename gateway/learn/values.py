"""What stands in a field: numbers with their units, times, and what means "not there"."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from gateway.sems.catalogue import Json

SENTINELS: Final = (6553.5, 65535.0, 655.35, 3276.7, 32767.0, -3276.8, -32768.0, 4294967295.0, 429496729.5, 4294967.295)
NOTHING: Final = frozenset({"", "-", "--", "---", "null", "none", "n/a", "nan"})
MAX_NUMBER: Final = 40
"""Characters of a text that may be a number."""

_NUMBER: Final = re.compile(
    r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?:\(([^()\d]{1,8})\)|([^\d\s()]{1,8}))?", re.ASCII
)
_UNITS: Final[Mapping[str, tuple[str, float]]] = {
    "w": ("W", 1), "kw": ("W", 1e3), "mw": ("W", 1e6),
    "wh": ("kWh", 1e-3), "kwh": ("kWh", 1), "mwh": ("kWh", 1e3),
    "var": ("var", 1), "kvar": ("var", 1e3), "va": ("VA", 1), "kva": ("VA", 1e3),
    "v": ("V", 1), "a": ("A", 1), "hz": ("Hz", 1), "%": ("%", 1), "℃": ("°C", 1), "°c": ("°C", 1), "c": ("°C", 1),
    "h": ("h", 1), "min": ("h", 1 / 60), "s": ("h", 1 / 3600), "w/m²": ("W/m²", 1), "w/m2": ("W/m²", 1),
    "m/s": ("m/s", 1), "°": ("°", 1), "dbm": ("", 1),
}  # fmt: skip
"""Unit as it is written → a unit of the point table, and how many of those it is."""
_BASE: Final[Mapping[str, tuple[str, float]]] = {"kW": ("W", 1e3)}
"""Units of the point table that are others of it."""


def number(raw: Json) -> tuple[float, str] | None:
    """Return a number and the unit behind it, "" for none; None for what is no number, or means "not there"."""
    if isinstance(raw, bool):
        return None
    if isinstance(raw, (int, float)):
        found, unit = float(raw), ""
    elif isinstance(raw, str):
        match = _NUMBER.fullmatch(raw.strip()) if len(raw) <= MAX_NUMBER else None
        if match is None:
            return None
        found, unit = float(match[1]), match[2] or match[3] or ""
    else:
        return None
    if any(abs(found - sentinel) <= abs(sentinel) * 1e-6 for sentinel in SENTINELS):
        return None
    return (found, unit) if abs(found) < 1e15 else None


def factor(unit: str, into: str) -> float | None:
    """Return by what a number of a written unit is multiplied to be of one of the point table; None where none fits."""
    known = _UNITS.get(unit.strip().lower())
    base, size = _BASE.get(into, (into, 1.0))
    if known is None or known[0] != base:
        return None
    return float(f"{known[1] / size:.9g}")


def is_nothing(raw: Json) -> bool:
    """Return whether a field says that it has nothing."""
    if raw is None or raw in ([], {}):
        return True
    if isinstance(raw, str):
        return raw.strip().lower() in NOTHING
    return isinstance(raw, (int, float)) and not isinstance(raw, bool) and number(raw) is None


def unix_type(raw: Json, now: datetime, within: float = 400 * 86400.0) -> str | None:
    """Return which type of unix time a number is that lies within so many seconds of now; None for none."""
    found = number(raw)
    if found is None or found[1]:
        return None
    for name, per_second in (("unix_seconds", 1), ("unix_milliseconds", 1000)):
        if abs(found[0] / per_second - now.timestamp()) <= within:
            return name
    return None
