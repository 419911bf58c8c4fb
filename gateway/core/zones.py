"""Time zones by their names: IANA's, Windows', and offsets like `UTC+10:00`, which SEMS writes too (SEMS.md, seen)."""

import re
from contextlib import suppress
from datetime import UTC, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

WESTERNMOST: Final = timedelta(hours=-12)
EASTERNMOST: Final = timedelta(hours=14)
MAX_NAME: Final = 64

_OFFSET: Final = re.compile(
    r"""\s* (?P<open>\()? \s* (?:UTC|GMT)? \s* (?P<sign>[+-]) \s* (?P<hours>\d\d?) (?: :? (?P<minutes>\d\d) )? \s*
        (?(open)\).*) \s*""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
"""`UTC+10:00`, `GMT-3`, `+05:45`, `+0545`; also `(UTC+01:00) Amsterdam, Berlin`."""

_MINUS: Final = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{FULLWIDTH HYPHEN-MINUS}": "-"})
_HOURS: Final = re.compile(
    r"""\s* (?P<sign>[+-]?) \s* (?P<hours>\d\d?) (?: :(?P<minutes>[0-5]\d) | [.,](?P<part>\d{1,4}) )? \s*
        (?:h|hrs?|hours?)? \s*""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
"""`8`, `-5:30`, `-10.0 h`."""


@lru_cache(maxsize=1024)
def zone_named(name: str) -> tzinfo | None:
    """Return the zone of that name; None where there is none such."""
    name = name.strip()
    if not name or len(name) > MAX_NAME:
        return None
    if match := _OFFSET.fullmatch(name.translate(_MINUS)):
        size = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"] or 0))
        return None if int(match["minutes"] or 0) > 59 else fixed(-size if match["sign"] == "-" else size)
    for known in ("UTC" if name in ("Z", "z") else name, _windows().get(name.casefold())):
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo(known) if known else None
    return None


def hours_in(text: str) -> float | None:
    """Return how many hours a text says, with its sign; None where it says no number of hours, or not clearly."""
    match = _HOURS.fullmatch(text[:MAX_NAME].translate(_MINUS))
    if match is None:
        return 0.0 if text.strip() in ("Z", "z") else None
    hours = int(match["hours"]) + int(match["minutes"] or 0) / 60 + float(f"0.{match['part'] or 0}")
    return -hours if match["sign"] == "-" else hours


@cache
def _windows() -> dict[str, str]:
    """Return the names that Windows has for zones, in small letters → IANA's."""
    lines = (files(__package__) / "windows_zones.csv").read_text("utf-8").splitlines()
    named = (line.split(",") for line in lines if not line.startswith("#"))
    return {windows.casefold(): iana for windows, iana in named}


def fixed(offset: timedelta) -> tzinfo | None:
    """Return the zone that is always so far ahead of UTC; None where there is no such place on earth."""
    if not WESTERNMOST <= offset <= EASTERNMOST:
        return None
    return timezone(offset, offset_name(offset))


def offset_name(offset: timedelta) -> str:
    """Return an offset as zones are named here, e.g. `UTC+10:00`."""
    minutes = round(offset / timedelta(minutes=1))
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def zone_name(zone: tzinfo) -> str:
    """Return the name by which `zone_named` finds a zone again."""
    return zone.key if isinstance(zone, ZoneInfo) else "UTC" if zone is UTC else str(zone)
