"""SEMS's answers into points and attributes, by the rows of the catalogue. Every answer is untrusted."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final

import msgspec

from gateway.core.model import Value
from gateway.core.points import POINTS, BadValueError, Type
from gateway.sems.catalogue import Interface, Json, ResponseField

MAX_TEXT: Final = 256
SENTINEL_TOLERANCE: Final = 1e-6
"""Relative difference within which a number is one of the row's sentinels."""
DIGITS: Final = 6
LOCAL_TIMES: Final = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S")


class Reading(msgspec.Struct, frozen=True):
    """One object of an answer."""

    values: Mapping[str, Value]
    """Point id → value; None where SEMS has the field but nothing in it."""
    attributes: Mapping[str, Value]
    time: datetime | None = None
    """UTC; None where SEMS does not say."""


def entries(interface: Interface, data: Json) -> list[dict[str, Json]]:
    """Return the objects an answer holds: those of its list, or the one it is."""
    if interface.list and isinstance(data, dict):
        data = data.get(interface.list)
    found = data if isinstance(data, list) else [data]
    return [entry for entry in found if isinstance(entry, dict)]


def read(interface: Interface, entry: Mapping[str, Json], zone: tzinfo, now: datetime) -> Reading:
    """Return what one object says; `zone` is the plant's, for times without one.

    Where two fields give the same point, the first with a value counts.
    """
    values: dict[str, Value] = {}
    attributes: dict[str, Value] = {}
    time: datetime | None = None
    for row in interface.response:
        if row.field not in entry:
            continue
        raw = entry[row.field]
        if row.type == "local_time":
            time = _utc(raw, zone, now) or time
        elif row.point:
            value = _point_value(row, raw)
            if values.get(row.point) is None:
                values[row.point] = value
        else:
            attributes[row.attribute] = _plain(row, raw)
    return Reading(values, attributes, time)


def _point_value(row: ResponseField, raw: Json) -> Value:
    plain = _plain(row, raw)
    if plain is None:
        return None
    point = POINTS[row.point]
    if point.type is Type.INTEGER and isinstance(plain, float):
        plain = round(plain)
    try:
        return point.parse(plain)
    except BadValueError:
        return None


def _plain(row: ResponseField, raw: Json) -> Value:
    """Return the field's value in the gateway's unit or words; None when it is not there or makes no sense."""
    if row.options:
        return row.options.get(_option_key(raw))
    if row.type == "text":
        return str(raw)[:MAX_TEXT] if isinstance(raw, (str, int, float)) else None
    number = _number(raw)
    if number is None or any(math.isclose(number, absent, rel_tol=SENTINEL_TOLERANCE) for absent in row.absent):
        return None
    # Scaling must not add digits: 8.101 kW are 8101 W, not 8101.000000000001.
    return number if row.scale == 1 else round(number * row.scale, DIGITS)


def _number(raw: Json) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return None
    try:
        number = float(raw)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _option_key(raw: Json) -> str:
    number = _number(raw)
    if number is not None and number.is_integer():
        return str(int(number))
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return str(raw)


def _utc(raw: Json, zone: tzinfo, now: datetime) -> datetime | None:
    """Read a plant-local time without a zone.

    The hour that a clock set back shows twice has two meanings; the one nearer to now is meant, for SEMS
    answers with the newest measurement it has.
    """
    if not isinstance(raw, str):
        return None
    for form in LOCAL_TIMES:
        try:
            local = datetime.strptime(raw.strip(), form).replace(tzinfo=zone)
        except ValueError:
            continue
        meanings = [local.replace(fold=fold).astimezone(UTC) for fold in (0, 1)]
        return min(meanings, key=lambda meaning: abs(now - meaning))
    return None
