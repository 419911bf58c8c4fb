# ruff: noqa: S608 - statements are put together from constants alone
"""Whether rows beside the audit can be what a gateway wrote: each value of its type, and readable.

SQLite keeps what it is given, of any type, and a page whose bytes went wrong within a value is in order to it.
"""

import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.core.model import Value
from gateway.core.points import SETPOINTS

LAST: Final = 253_402_300_799
"""1970 to the end of the year 9999 in seconds: what a time may be."""


def _text(raw: Any) -> bool:
    return isinstance(raw, str)


def _text_or_none(raw: Any) -> bool:
    return raw is None or isinstance(raw, str)


def _setpoint(raw: Any) -> bool:
    return isinstance(raw, str) and raw in SETPOINTS


def _json(raw: Any) -> bool:
    try:
        msgspec.json.decode(raw, type=Value)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return False
    return True


def _number(raw: Any) -> bool:
    return isinstance(raw, (int, float)) and math.isfinite(raw)


def _count(raw: Any) -> bool:
    return isinstance(raw, int)


def _time(raw: Any) -> bool:
    return _number(raw) and 0 <= raw < LAST


def _time_or_none(raw: Any) -> bool:
    return raw is None or _time(raw)


_COLUMNS: Final[Mapping[str, Mapping[str, Callable[[Any], bool]]]] = {
    "command": {"controller": _text_or_none, "receipt": _text, "serial": _text, "boot_id": _text, "boot": _number},
    "revert": {
        "serial": _text, "setpoint": _setpoint, "value": _json, "due": _time, "boot_id": _text, "boot": _number,
    },
    "setting": {
        "serial": _text, "setpoint": _text, "wish": _json, "value": _json, "time": _time, "boot_id": _text,
        "boot": _number, "succeeded": _count, "certain": _count, "confirmed": _count, "command": _text,
        "ends": _time_or_none,
    },
    "writes": {"serial": _text, "setpoint": _text, "life": _count, "day": _count, "today": _count},
}  # fmt: skip
_WHERE: Final = {"command": "WHERE state IN ('accepted', 'sent')"}
"""Rows that a start looks at, where these are not all."""


def fits(table: str, columns: Iterable[str], row: Iterable[Any]) -> bool:
    """Return whether each value of a row can be one of its column."""
    checks = _COLUMNS[table]
    return all(checks[column](value) for column, value in zip(columns, row, strict=True))


def unreadable(db: sqlite3.Connection) -> list[str]:
    """Return the tables that have rows a start can't make sense of. Raises sqlite3.Error."""
    return [
        table
        for table, checks in _COLUMNS.items()
        if not all(
            fits(table, checks, row)
            for row in db.execute(f"SELECT {', '.join(checks)} FROM {table} {_WHERE.get(table, '')}")
        )
    ]
