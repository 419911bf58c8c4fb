"""Numbers that SEMS writes as text, with a unit at times: `1234W`, `30.3kWh`, `45%`, `1.23(kW)` (SEMS.md, seen).

A unit that is said counts, whatever scale the catalogue has for a number without one. A text that may mean two numbers
means none: `1,234` may be 1234 or 1.234. What has only one reading is read: `1,5`, `0,234`, `1,234.5`, `1.234,5`,
`1 234.5`, `1,234,567`.
"""

import re
import unicodedata
from typing import Final, NamedTuple

MAX_NUMBER: Final = 64
"""Characters; a longer text is no number."""


class Quantity(NamedTuple):
    """A number as it is written."""

    number: float
    unit: str
    """One of `UNITS`; "" where none is said."""


_SI: Final = {"k": 1e3, "M": 1e6, "G": 1e9}
_MILLI: Final = {"m": 1e-3}


def _unit(base: str, factor: float, *names: str, prefixes: dict[str, float] | None = None) -> dict[str, "_Unit"]:
    made = {name: _Unit(base, factor) for name in names}
    for prefix, times in (prefixes or {}).items():
        made |= {prefix + name: _Unit(base, factor * times) for name in names}
    return made


class _Unit(NamedTuple):
    """What of a base unit one is: its number times factor, plus offset."""

    base: str
    factor: float
    offset: float = 0.0


UNITS: Final[dict[str, _Unit]] = {
    **_unit("W", 1, "W", "Wp", "Watt", prefixes=_SI | _MILLI),
    **_unit("VA", 1, "VA", prefixes=_SI),
    **_unit("var", 1, "var", "Var", "VAr", "VAR", prefixes=_SI),
    **_unit("Wh", 1, "Wh", prefixes=_SI),
    **_unit("Wh", 1e3, "度"),
    **_unit("V", 1, "V", "Volt", prefixes={"k": 1e3} | _MILLI),
    **_unit("A", 1, "A", "Amp", prefixes={"k": 1e3} | _MILLI),
    **_unit("Hz", 1, "Hz", prefixes={"k": 1e3} | _MILLI),
    **_unit("°C", 1, "°C", "C", "degC", "°"),
    "°F": _Unit("°C", 5 / 9, -160 / 9),
    "F": _Unit("°C", 5 / 9, -160 / 9),
    "degF": _Unit("°C", 5 / 9, -160 / 9),
    "K": _Unit("°C", 1, -273.15),
    **_unit("%", 1, "%", "percent", "%RH"),
    **_unit("s", 1, "s", "sec", "secs", "second", "seconds"),
    **_unit("s", 60, "min", "mins", "minute", "minutes"),
    **_unit("s", 3600, "h", "hr", "hrs", "hour", "hours"),
    **_unit("s", 86400, "d", "day", "days"),
    **_unit("s", 1e-3, "ms"),
    **_unit("W/m2", 1, "W/m2", "Wm-2"),
    **_unit("W/m2", 1e3, "kW/m2"),
    **_unit("m/s", 1, "m/s"),
    **_unit("m/s", 1 / 3.6, "km/h"),
    **_unit("m/s", 0.44704, "mph"),
    **_unit("dBm", 1, "dBm"),
    **_unit("money", 1, "€", "$", "£", "¥", "元", "A$", "R$", "zł", "EUR", "USD", "GBP", "CNY", "RMB", "JPY", "AUD",
            "BRL", "PLN", "CHF", "SEK", "NOK", "DKK", "CZK", "HUF", "INR", "ZAR", "MXN", "KRW", "TRY"),
}  # fmt: skip
"""As it is written → what it is. Milli and mega differ by the case alone, so case counts there."""
_ANGLE: Final = _Unit("angle", 1)
_POINT_UNITS: Final = {"°": _ANGLE, "W/m²": UNITS["W/m2"], "": _Unit("", 1), "money": UNITS["€"]}
"""Units of the point table that mean something else there, or are written otherwise."""
_ANY_CASE: Final = {
    name.casefold(): name for name in UNITS if not (name[0] in "mM" and name[1:] in UNITS) and name not in ("C", "F")
}
_SAME: Final = str.maketrans({
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\uff0d": "-", "\uff0b": "+", "\uff0e": ".", "\uff0c": ",",
    "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u3000": " ", "\u2019": "'", "\u00ba": "°", "\u02da": "°",
})  # fmt: skip
_SAID: Final = re.compile(
    r"(?P<before>[^\d\s+\-.,'()\[\]]{0,3})\s*(?P<sign>[+-]?)\s*(?P<number>\d[\d.,' ]*\d|[.,]\d+|\d)"
    r"(?P<exponent>[eE][+-]?\d{1,3})?\s*(?P<unit>[^\d\s].*)?",
    re.ASCII,
)
_NOTHING: Final = frozenset({"", "-", "/", "null", "none", "nan", "n/a", "na", "nil", "undefined", "unknown"})
_DASHES: Final = re.compile(r"-{1,4}\s*(?P<unit>.*)")
_GROUPED: Final = re.compile(r"\d{1,3}(?:(?P<mark>[.,' ])\d{3})(?:(?P=mark)\d{3})*", re.ASCII)


def parse(text: str) -> Quantity | None:
    """Return the number that a text says, and its unit; None where it says none, or may say several."""
    if len(text) > MAX_NUMBER:
        return None
    match = _SAID.fullmatch(text.translate(_SAME).strip())
    if match is None:
        return None
    unit = _named(match["unit"] or "")
    if match["before"]:
        before = _named(match["before"])
        if unit != "" or not before or UNITS[before].base != "money":
            return None
        unit = before
    digits = _digits(match["number"])
    if digits is None or unit is None:
        return None
    return Quantity(float(f"{match['sign']}{digits}{match['exponent'] or ''}"), unit)


def converted(quantity: Quantity, unit: str) -> float | None:
    """Return a number with a unit in the unit of a point; None where one is not the other.

    `unit` is one of the point table's, or "money".
    """
    said, wanted = UNITS.get(quantity.unit), _POINT_UNITS.get(unit) or UNITS.get(unit)
    if said is not None and wanted is _ANGLE and quantity.unit == "°":
        return quantity.number
    if said is None or wanted is None or said.base != wanted.base:
        return None
    return (quantity.number * said.factor + said.offset - wanted.offset) / wanted.factor


def is_nothing(text: str) -> bool:
    """Return whether a text says that there is no value: `--`, `N/A`, `-- kWh`."""
    text = text[:MAX_NUMBER].translate(_SAME).strip()
    if text.casefold() in _NOTHING:
        return True
    match = _DASHES.fullmatch(text)
    return match is not None and _named(match["unit"]) is not None


def _named(text: str) -> str | None:
    """Return the unit that a text names, as `UNITS` has it; "" for no text, None for no unit."""
    text = unicodedata.normalize("NFKC", text).strip()
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    text = re.sub(r"[\s.·⋅*^]", "", text)
    return text if not text or text in UNITS else _ANY_CASE.get(text.casefold())


def _digits(text: str) -> str | None:
    """Return a number's digits with a decimal point and nothing else; None where what separates them is not clear."""
    whole, mark, fraction = text, "", ""
    last = max(text.rfind("."), text.rfind(","))
    if last >= 0:
        whole, mark, fraction = text[:last], text[last], text[last + 1 :]
    others = set(whole) - set("0123456789")
    if not others:
        # One mark. Of a comma with three digits behind it nobody can say what it is.
        if mark == "," and len(fraction) == 3 and 1 <= len(whole) <= 3 and not whole.startswith("0"):
            return None
        return f"{whole}.{fraction}" if fraction.isdigit() or not mark else None
    if others == {mark}:  # 1,234,567
        return text.replace(mark, "") if _GROUPED.fullmatch(text) else None
    grouped = _GROUPED.fullmatch(whole)
    if grouped is None or (mark and not fraction.isdigit()):
        return None
    return f"{whole.replace(grouped['mark'], '')}.{fraction}"
