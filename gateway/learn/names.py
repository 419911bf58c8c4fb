"""What a field's name says: its words as concepts, so that `pac`, `P_ac` and `OutputPower` are one and the same.

The words are those of SEMS's portals and of the trade (SEMS.md). A word that nobody knows keeps a name apart: `bus
voltage` is no battery's, `max power today` is no power.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

from gateway.core.points import POINTS, Kind

Concepts = frozenset[str]

_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
MAX_NAME: Final = 100

_WORDS: Final[Mapping[str, str]] = {
    "power": "power", "watt": "power", "watts": "power", "p": "power",
    "q": "reactive", "reactive": "reactive", "s": "apparent", "apparent": "apparent",
    "voltage": "voltage", "volt": "voltage", "volts": "voltage", "v": "voltage", "u": "voltage",
    "current": "current", "amps": "current", "i": "current",
    "frequency": "frequency", "freq": "frequency", "f": "frequency", "hz": "frequency",
    "temperature": "temperature", "temp": "temperature", "tempperature": "temperature", "t": "temperature",
    "energy": "energy", "generation": "energy", "yield": "energy", "generated": "energy", "production": "energy",
    "electricity": "energy", "e": "energy", "kwh": "energy",
    "hours": "hours", "hour": "hours", "h": "hours",
    "factor": "factor", "pf": "factor",
    "soc": "soc", "level": "soc", "soh": "soh", "health": "soh",
    "irradiance": "irradiance", "radiation": "irradiance", "irradiation": "irradiance",
    "humidity": "humidity", "rh": "humidity", "wind": "wind", "speed": "speed", "velocity": "speed",
    "direction": "direction", "dir": "direction",
    "capacity": "capacity", "income": "income", "profit": "income", "revenue": "income", "earnings": "income",
    "status": "status", "state": "status",
    "fault": "fault", "error": "fault", "err": "fault", "code": "code",
    "message": "text", "text": "text", "msg": "text",
    "firmware": "firmware", "software": "firmware",
    "rssi": "signal", "signal": "signal",
    "serial": "serial", "sn": "serial", "id": "id", "name": "name", "model": "model",
    "zone": "zone", "timezone": "zone", "span": "span", "time": "time", "timestamp": "time", "duration": "time",
    "ac": "ac", "phase": "ac", "l": "ac", "output": "ac", "active": "ac", "inverter": "ac",
    "pv": "pv", "solar": "pv", "dc": "pv", "mppt": "pv", "string": "pv", "panel": "module", "module": "module",
    "battery": "battery", "bat": "battery", "batt": "battery", "storage": "battery", "bms": "battery",
    "grid": "grid", "meter": "grid",
    "load": "load", "consumption": "load", "house": "load", "home": "load",
    "backup": "backup", "eps": "backup",
    "ev": "ev", "charger": "ev", "vehicle": "ev", "veh": "ev", "plug": "ev", "car": "ev",
    "import": "import", "buy": "import", "bought": "import", "purchase": "import", "purchased": "import",
    "export": "export", "sell": "export", "sold": "export", "feed": "export", "feedin": "export",
    "charge": "charge", "charged": "charge", "charging": "charge",
    "discharge": "discharge", "discharged": "discharge",
    "session": "session",
    "today": "today", "day": "today", "daily": "today", "month": "month", "monthly": "month",
    "year": "year", "yearly": "year", "annual": "year",
    "total": "total", "all": "total", "lifetime": "total", "cumulative": "total", "accumulated": "total",
    "ambient": "ambient", "air": "ambient", "env": "ambient", "environment": "ambient", "outdoor": "ambient",
    "plant": "plant", "station": "plant", "powerstation": "plant", "pw": "plant",
    "rated": "rated", "nominal": "rated",
}  # fmt: skip
"""Word → what it is about. Of two words for one thing, one concept."""
_SHORT: Final = frozenset("pqsvuifte")
"""Letters that stand before a noun: `pac`, `vbat`, `etotal`."""
_NOUNS: Final = frozenset({
    "ac", "dc", "pv", "bat", "batt", "battery", "meter", "grid", "load", "backup", "eps", "day", "today", "month",
    "year", "total", "buy", "sell", "import", "export", "charge", "discharge", "ev",
})  # fmt: skip
_IGNORED: Final = frozenset({
    "the", "of", "now", "refresh", "update", "data", "real", "device", "in", "value", "number", "no", "alias",
    "product",
})  # fmt: skip
_FRESH: Final = frozenset({"refresh", "update", "updated", "time"})
"""Beside these, `last` says that it is now: `last_refresh_time`. Elsewhere it is what was before."""
_TURNS: Final = frozenset({
    "last", "previous", "prev", "prior", "yesterday", "former", "old", "history", "historical", "tomorrow",
    "max", "maximum", "min", "minimum", "avg", "average", "mean", "peak", "highest", "lowest", "best",
    "rated", "nominal", "design", "designed", "target", "goal", "set", "setting", "settings", "setpoint", "limit",
    "limits", "threshold", "forecast", "predicted", "prediction", "estimated", "estimate", "expected", "planned",
    "theoretical", "reference", "default", "initial", "remaining", "week", "month", "monthly", "year", "yearly",
    "annual", "rate", "ratio", "diff", "compare", "saved", "lost", "loss",
})  # fmt: skip
"""Words that make another thing of what they stand beside or above: the year's before, the most, what is hoped for."""
_PHRASES: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("current", "charge"), "session"),
    (("cos", "phi"), "pf"),
    (("w", "s"), "ws"),
)
_WHOLE: Final[Mapping[str, str]] = {
    "ws": "wind speed", "wd": "wind direction", "cosphi": "pf", "sno": "sn", "pid": "plant id", "uid": "uid",
}  # fmt: skip
_EXTRA: Final = frozenset({
    "work", "run", "operating", "running", "connect", "strength", "wifi", "version", "input", "inner", "internal",
    "relative",
})  # fmt: skip
"""Words that add nothing where what they stand beside is clear."""

_QUANTITIES: Final = frozenset({
    "power", "reactive", "apparent", "voltage", "current", "frequency", "temperature", "energy", "hours", "factor",
    "soc", "soh", "irradiance", "humidity", "speed", "direction", "capacity", "income", "status", "text", "code",
    "firmware", "signal", "serial", "id", "name", "model", "zone", "time",
})  # fmt: skip
_COUNTED: Final = frozenset({"import", "export", "load", "charge", "discharge", "pv", "grid", "battery"})
_SPANS: Final = frozenset({"today", "month", "year", "total"})
_SUPERFLUOUS: Final[tuple[tuple[Concepts, ...], ...]] = tuple(
    tuple(frozenset(concepts.split()) for concepts in row)
    for row in (
        ("reactive apparent factor", "power", ""),
        ("factor", "ac", ""),
        ("soc soh charge discharge", "battery", ""),
        ("voltage current frequency", "grid", "ac"),
        ("temperature", "ac", ""),
        ("module irradiance", "pv", ""),
        ("hours", "total", ""),
        ("import export", "grid", ""),
        ("capacity", "plant pv installed", ""),
        ("session", "charge", ""),
    )
)
"""Beside one of these concepts, what adds nothing, and what stands instead."""

_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "ac_power": ("ac power",),
    "ac_reactive_power": ("ac reactive",),
    "ac_apparent_power": ("ac apparent",),
    "ac_power_factor": ("factor",),
    "battery_charge_today": ("charge energy today",),
    "battery_charge_total": ("charge energy total",),
    "battery_discharge_today": ("discharge energy today",),
    "battery_discharge_total": ("discharge energy total",),
    "grid_import_today": ("import energy today",),
    "grid_import_total": ("import energy total",),
    "grid_export_today": ("export energy today",),
    "grid_export_total": ("export energy total",),
    "operating_hours": ("hours", "hours total"),
    "ev_power": ("ev power", "charge power"),
    "ev_session_time": ("session time", "charge time"),
    "ev_session_energy": ("session energy",),
    "ev_energy_total": ("ev energy total", "charge energy total", "ev charge"),
    "ev_status": ("ev status",),
    "signal_strength": ("signal",),
    "fault_text": ("fault text",),
    "serial": ("serial", "plant id"),
    "plant": ("plant id",),
    "name": ("name", "plant name"),
    "model": ("model", "model type"),
    "rated_power": ("rated power", "capacity", "rated capacity"),
    "time": ("time",),
    "time_zone": ("time zone", "zone"),
    "time_span": ("time span", "zone"),
}
"""Point or attribute → other ways to say it, besides its id and the catalogue's own name."""


def squeezed(name: str) -> str:
    """Return a name without case and separators."""
    return re.sub(r"[\W_]+", "", name).lower()


@lru_cache(maxsize=8192)
def words(name: str) -> tuple[str, ...]:
    """Return the words of a name, numbers apart: `last_refresh_time`, `acVoltage1` → `ac`, `voltage`, `1`."""
    parts = [part.lower() for part in _PART.findall(name[:MAX_NAME])]
    found: list[str] = []
    for part in parts:
        found.extend(_WHOLE.get(part, part).split())
    return tuple(found)


@lru_cache(maxsize=8192)
def concepts(name: str) -> Concepts:
    """Return what a name is about; words that nobody knows are concepts of their own."""
    parts = list(words(name))
    for phrase, meaning in _PHRASES:
        for start in range(len(parts) - len(phrase) + 1):
            if tuple(parts[start : start + len(phrase)]) == phrase:
                parts[start : start + len(phrase)] = [meaning]
    found: set[str] = set()
    for part in parts:
        if part in _IGNORED or (part == "last" and _FRESH & set(parts)):
            continue
        if part in _WORDS:
            found.add(_WORDS[part])
        elif part[0] in _SHORT and part[1:] in _NOUNS:
            found |= {_WORDS[part[0]], _WORDS[part[1:]]}
        elif part in _EXTRA:
            found.add(f"~{part}")
        else:
            found.add(part)
    return _settled(found)


def _settled(found: set[str]) -> Concepts:
    """Leave out what is said twice, and say what goes without saying."""
    plain = {one for one in found if not one.startswith("~")}
    if plain & _QUANTITIES:
        found = plain
    for clear, superfluous, instead in _SUPERFLUOUS:
        if found & clear and found & superfluous:
            found = (found - superfluous) | instead
    if "plant" in found and found & {"id", "name"}:
        found -= {"power"}
    if "status" in found:
        found -= {"plant"}
    if found & _SPANS and found & _COUNTED and not found & _QUANTITIES:
        found.add("energy")
    if "zone" in found:
        found -= {"time", "plant"}
    return frozenset(found)


@lru_cache(maxsize=2048)
def meanings(gives: str, catalogue_name: str) -> frozenset[Concepts]:
    """Return what a field may be called that gives a point, or an attribute: its ways of saying it."""
    found = {concepts(catalogue_name.rpartition(".")[2])}
    point = POINTS.get(gives)
    if point is not None and point.kind is Kind.SETPOINT:
        return frozenset(found)
    found.add(concepts(gives))
    found |= {concepts(alias) for alias in _ALIASES.get(gives, ())}
    return frozenset(found)


def turns(name: str) -> Concepts:
    """Return the words of a name, or of a path, that make another thing of what is named."""
    parts = set(words(name))
    found = parts & _TURNS
    return frozenset(found - {"last"} if parts & _FRESH else found)


def likeness(name: str, others: Iterable[str]) -> float:
    """Return how like a name is to the most like of others, 0 to 1, whatever case and separators."""
    here = squeezed(name)
    return max((SequenceMatcher(None, here, squeezed(other)).ratio() for other in others), default=0.0)
