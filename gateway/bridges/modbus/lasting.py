"""What registers show while a device's data are not good: what was set, what was counted, and that it is offline.

A counter that reads 0 by night is taken for a new one, and a status that says "normal" for a device that runs.
"""

from collections.abc import Mapping
from typing import Final

from gateway.core.model import DeviceState, Quality, Value
from gateway.core.points import POINTS, SETPOINTS, Kind

OFFLINE: Final = "offline"
_BEGIN_ANEW: Final = ("_today", "_month", "_year")
_LASTING: Final = frozenset(
    point.id
    for point in POINTS.values()
    if point.kind is Kind.TOTAL and not point.id.endswith(_BEGIN_ANEW) and "session" not in point.id
)


def is_lasting(field: str) -> bool:
    """Return whether it counts through the device's life. A total of today is false when today is over."""
    return field in _LASTING


def lasting(state: DeviceState) -> Mapping[str, Value]:
    """Return a device's values, as far as they are true: all of them while they are good."""
    if state.quality is Quality.GOOD:
        return state.values
    kept = {point: value for point, value in state.values.items() if point in SETPOINTS or point in _LASTING}
    return {**kept, "status": OFFLINE} if "status" in state.values else kept


def status(state: DeviceState) -> Value:
    """Return what the device is doing, as far as known."""
    return lasting(state).get("status")
