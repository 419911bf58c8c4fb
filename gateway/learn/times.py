"""How times are written: which type they are, and in which order day and month stand."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.learn.columns import Column
from gateway.learn.report import Evidence, Kind
from gateway.learn.values import is_nothing, unix_type

AROUND: Final = timedelta(hours=62)
"""A time of measurement is no older than two days, and its zone is anywhere."""
_DATE: Final = re.compile(r"\s*(\d{4})[-/.](\d\d?)[-/.](\d\d?)(.*)", re.DOTALL)
_OTHER: Final = re.compile(r"\s*(\d\d?)[-/.](\d\d?)[-/.](\d{4})(.*)", re.DOTALL)
_CLOCK: Final = re.compile(r"[ T,]*(\d\d?):(\d\d)(?::(\d\d)(?:\.\d+)?)?\s*(?:[AaPp][Mm])?\s*(?:Z|[+-]\d\d:?\d\d)?\s*")
_HOURS: Final = re.compile(r"\s*\d\d?:\d\d(:\d\d)?\s*")


def time_type(column: Column) -> tuple[str | None, Evidence | None]:
    """Return the catalogue's type for what stands in a column, and what speaks for it."""
    said = [sample for sample in column.samples if not is_nothing(sample.raw)][:200]
    kinds = {unix_type(sample.raw, sample.time) for sample in said}
    if said and len(kinds) == 1 and (kind := kinds.pop()) is not None:
        return kind, Evidence(Kind.VALUES, "it is a unix time near that of the answer")
    if said and all(isinstance(sample.raw, str) and readable(sample.raw) for sample in said):
        near = (
            column.gives != "time"
            or column.interface.step
            or any(abs(meaning - sample.time) <= AROUND for sample in said for meaning in meanings(str(sample.raw)))
        )
        text = "it is a date and time" + (" near that of the answer" if column.gives == "time" else "")
        return "local_time", Evidence(Kind.VALUES, text) if near else None
    return None, None


def readable(text: str) -> bool:
    """Return whether a text is a time, or a time of day."""
    return bool(_HOURS.fullmatch(text)) or bool(meanings(text))


def meanings(text: str) -> list[datetime]:
    """Return what a text may mean as a date and time, as if it were UTC."""
    if match := _DATE.fullmatch(text):
        orders = [(match[1], match[2], match[3])]
    elif match := _OTHER.fullmatch(text):
        orders = [(match[3], match[1], match[2]), (match[3], match[2], match[1])]
    else:
        return []
    clock = _CLOCK.fullmatch(match[4]) if match[4].strip() else None
    if match[4].strip() and clock is None:
        return []
    hour, minute, second = (int(part or 0) for part in clock.groups()) if clock else (0, 0, 0)
    found = []
    for year, month, day in orders:
        try:
            moment = datetime(int(year), int(month), int(day), tzinfo=UTC)
            found.append(moment + timedelta(hours=hour, minutes=minute, seconds=second))
        except (ValueError, OverflowError):
            continue
    return found


def order_of_dates(columns: Sequence[Column], now: datetime | None) -> str:
    """Return the bridge's `date_format` by the times of measurement; empty where nothing shows it."""
    votes: dict[str, int] = {}
    for column in columns:
        if column.gives != "time":
            continue
        for sample in column.samples:
            match = _OTHER.fullmatch(sample.raw) if isinstance(sample.raw, str) else None
            if match is None or match[1] == match[2] or now is None:
                continue
            near = {}
            for name, (month, day) in {"dd/MM/yyyy": (match[2], match[1]), "MM/dd/yyyy": (match[1], match[2])}.items():
                try:
                    near[name] = datetime(int(match[3]), int(month), int(day), tzinfo=UTC)
                except ValueError:
                    continue
            fitting = [name for name, day in near.items() if abs(day - sample.time) <= AROUND]
            if len(fitting) == 1:
                votes[fitting[0]] = votes.get(fitting[0], 0) + 1
    return next(iter(votes)) if len(votes) == 1 else ""
