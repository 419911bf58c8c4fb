"""What another gateway says of devices, held against the point table: it is untrusted input like any other."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from gateway.core.model import Alarm, Device, Range, Value
from gateway.core.points import POINTS, SETPOINTS, BadValueError, OutOfRangeError, Point

MAX_RATED_WATTS: Final = 1e10
"""W. No plant has more."""


def values(said: Mapping[str, Value]) -> tuple[dict[str, Value], list[str]]:
    """Return the values that their points can have, and the points, known or not, whose values are none."""
    good: dict[str, Value] = {}
    odd: list[str] = []
    for name, raw in said.items():
        point = POINTS.get(name)
        if raw is None and point is not None:
            good[name] = None
            continue
        try:
            if point is None:
                raise BadValueError(name)
            good[name] = _value(point, raw)
        except BadValueError:
            odd.append(name)
    return good, odd


def device(said: Device) -> Device:
    """Return a device without a rating or a setpoint that can't be."""
    rated = said.rated_power
    return msgspec.structs.replace(
        said,
        rated_power=rated if rated is not None and 0 < rated <= MAX_RATED_WATTS else None,
        setpoints={name: range_ for name, range_ in said.setpoints.items() if name in SETPOINTS and _is_sound(range_)},
    )


def times(alarms: Sequence[Alarm]) -> list[datetime]:
    """Return all times that alarms have."""
    return [moment for alarm in alarms for moment in (alarm.raised, alarm.cleared) if moment is not None]


def _value(point: Point, raw: Value) -> Value:
    try:
        return point.parse(raw)
    except OutOfRangeError:
        # A power factor that a device should not be set to, it can have all the same.
        number = float(raw)  # type: ignore[arg-type]  # it was one
        if point.least and (point.low is None or point.low <= number) and (point.high is None or number <= point.high):
            return number
        raise


def _is_sound(range_: Range) -> bool:
    bounds = [-math.inf if range_.low is None else range_.low, math.inf if range_.high is None else range_.high]
    return bounds == sorted(bounds) and (range_.step is None or range_.step > 0)
