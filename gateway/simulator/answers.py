"""Points into SEMS's fields: the response rows of the catalogue, read backwards, with the cloud's oddities."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from gateway.core.model import Value
from gateway.core.points import POINTS, Kind
from gateway.sems.catalogue import Interface, Json, ResponseField
from gateway.simulator.noise import derive

LOCAL_TIME: Final = "%Y-%m-%d %H:%M:%S"
_DECIMALS: Final = {"W": 0, "var": 0, "%": 0, "V": 1, "A": 1, "°C": 1, "h": 1, "Hz": 2, "kWh": 2, "kW": 2}
"""Unit → decimals that SEMS gives; what has no row here is given as it is."""


class Quirks(NamedTuple):
    """How this device's data logger and the cloud behind it write things."""

    sentinels: bool
    """What is not there is a number such as 6553.5, where the catalogue knows one; else null."""
    texts: bool
    """Totals are text."""

    @classmethod
    def of(cls, serial: str) -> "Quirks":
        """Return a device's own; always the same."""
        dice = derive(0, "quirks", serial)
        return cls(bool(dice & 1), bool(dice & 2))


class Record(NamedTuple):
    """What an answer says of one thing."""

    serial: str
    zone: ZoneInfo
    attributes: Mapping[str, Value | datetime]
    values: Mapping[str, Value] = {}


def encode(interface: Interface, record: Record) -> dict[str, Json]:
    """Return a record as an object of the interface's answer."""
    quirks = Quirks.of(record.serial)
    return {row.field: _field(row, record, quirks) for row in interface.response}


def _field(row: ResponseField, record: Record, quirks: Quirks) -> Json:
    value = record.values.get(row.point) if row.point else record.attributes.get(row.attribute)
    if value is None:
        return row.absent[0] if row.absent and quirks.sentinels else None
    if isinstance(value, datetime):
        return value.astimezone(record.zone).strftime(LOCAL_TIME)
    if row.options:
        return _option(row, value)
    if isinstance(value, str):
        return value
    number = _number(row, float(value))
    is_total = bool(row.point) and POINTS[row.point].kind is Kind.TOTAL
    return str(number) if row.type == "text" or (is_total and quirks.texts) else number


def _option(row: ResponseField, value: Value) -> Json:
    key = next((key for key, meaning in row.options.items() if meaning == value), None)
    return int(key) if key is not None and key.removeprefix("-").isdigit() else key


def _number(row: ResponseField, value: float) -> float | int:
    point = POINTS.get(row.point)
    if point is not None and point.kind is not Kind.SETPOINT:
        value = round(value, _DECIMALS.get(point.unit, 6))
    # The scale must not bring digits of its own.
    number = round(value / row.scale, 6)
    return int(number) if number.is_integer() else number
