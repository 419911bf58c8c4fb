"""Totals as a statistic wants them: they rise, and fall only where a new day, month or session begins.

Home Assistant takes a total that falls by a tenth or more for one that began anew, and adds the whole of it once
more (https://developers.home-assistant.io/docs/core/entity/sensor, `total_increasing`). So a cloud that rounds
anew, answers late or says 0 for a moment would put energy into the statistics that never flowed. The states at
`<base>/<device>` stay as measured, for others want to know just that: this guard serves Home Assistant alone.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.core.model import DeviceState
from gateway.core.points import POINTS, Kind

DIP: Final = 0.9
"""A fall to this part of the value or above is a rounding, never a reset; the same limit as Home Assistant's."""


class _Period(msgspec.Struct, frozen=True):
    """When a total may begin anew."""

    key: Callable[[date], object] | None
    """Names the period that a day lies in; None where it does not depend on the day."""
    patience: timedelta
    """A fall for which no period ends has to last so long before it is believed."""


_QUARTER: Final = timedelta(minutes=15)
_SESSION: Final = _Period(None, timedelta(0))
_LIFETIME: Final = _Period(None, timedelta(days=1))
_PERIODS: Final[Mapping[str, _Period]] = {
    "today": _Period(lambda day: day, _QUARTER),
    "month": _Period(lambda day: (day.year, day.month), _QUARTER),
    "year": _Period(lambda day: day.year, _QUARTER),
}
"""By the last word of the point's id."""

GUARDED: Final[Mapping[str, _Period]] = {
    point.id: _SESSION if "session" in point.id else _PERIODS.get(point.id.rpartition("_")[2], _LIFETIME)
    for point in POINTS.values()
    if point.kind is Kind.TOTAL
}


class _Counter(msgspec.Struct):
    """What was passed on of one total."""

    value: float
    period: object
    owed: bool = False
    """A period has ended, and the fall that comes with it has not been seen yet."""
    low_since: datetime | None = None
    """Since when what was measured lies so low that it might be a reset."""


class Totals:
    """The totals of one device."""

    def __init__(self) -> None:
        self._counters: dict[str, _Counter] = {}
        self._zone: tuple[str, tzinfo] | None = None

    def update(self, state: DeviceState) -> dict[str, float | None]:
        """Return the totals to show for a state; those that it does not have are absent."""
        measured = {point: value for point, value in state.values.items() if point in GUARDED}
        if not measured or state.time is None:
            return {}
        day = state.time.astimezone(self._zone_of(state.device.time_zone)).date()
        return {
            point: self._pass(point, float(value), state.time, day) if isinstance(value, (int, float)) else None
            for point, value in measured.items()
        }

    def _pass(self, point: str, value: float, time: datetime, day: date) -> float:
        rule = GUARDED[point]
        period = rule.key(day) if rule.key else None
        counter = self._counters.setdefault(point, _Counter(value, period))
        if period != counter.period:
            counter.period, counter.owed = period, True
        if value >= counter.value:
            # What rises has either fallen before, or takes its time; then patience will tell.
            counter.owed = counter.owed and value == counter.value
            counter.value, counter.low_since = value, None
        elif value < DIP * counter.value and self._is_reset(counter, rule, time):
            counter.value, counter.owed, counter.low_since = value, False, None
        elif value >= DIP * counter.value:
            counter.low_since = None
        return counter.value

    @staticmethod
    def _is_reset(counter: _Counter, rule: _Period, time: datetime) -> bool:
        """Return whether a deep fall is to be believed.

        One fall a period is: when it comes depends on when the cloud notices, e.g. in the morning where the inverter
        slept, or at another midnight than ours where the zone is wrong.
        """
        if counter.owed:
            return True
        counter.low_since = counter.low_since or time
        return time - counter.low_since >= rule.patience

    def _zone_of(self, name: str) -> tzinfo:
        if self._zone is None or self._zone[0] != name:
            try:
                zone = ZoneInfo(name or "UTC")
            except (ZoneInfoNotFoundError, ValueError, OSError):
                zone = ZoneInfo("UTC")
            self._zone = name, zone
        return self._zone[1]
