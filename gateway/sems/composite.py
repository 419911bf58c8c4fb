"""One device's state from the answers of several interfaces, which come at different times."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Final

import msgspec

from gateway.core.model import Snapshot, Value

INTERVALS: Final = 3
"""What is older than this many of its own intervals is not shown beside what is newer."""


class _Part(msgspec.Struct, frozen=True):
    time: datetime
    interval: float
    values: Mapping[str, Value]

    def fresh(self, now: datetime) -> bool:
        return now - self.time <= timedelta(seconds=INTERVALS * self.interval)


class Composite:
    """What one source knows of one device."""

    def __init__(self, serial: str, source: str) -> None:
        self._serial = serial
        self._source = source
        self._parts: dict[str, _Part] = {}

    def put(self, interface: str, values: Mapping[str, Value], time: datetime, interval: float) -> bool:
        """Take in what an interface said: measured at `time`, due again in `interval` seconds.

        Returns False for what is older than what that interface said before; then nothing has changed.
        """
        known = self._parts.get(interface)
        if known is not None and time < known.time:
            return False
        self._parts[interface] = _Part(time, interval, values)
        return True

    def forget(self, points: AbstractSet[str]) -> None:
        """Forget what was said of these points, for something may have changed them since."""
        for interface, part in self._parts.items():
            kept = {point: value for point, value in part.values.items() if point not in points}
            self._parts[interface] = _Part(part.time, part.interval, kept)

    def snapshot(self, now: datetime) -> Snapshot | None:
        """Return all that holds now; None where nothing was ever said. Of two answers the newer one counts."""
        if not self._parts:
            return None
        parts = sorted(self._parts.values(), key=lambda part: part.time)
        shown = [part for part in parts if part.fresh(now)] or parts[-1:]
        values = shown[0].values
        for part in shown[1:]:
            # Where one answer has nothing, another may.
            values = {
                **values,
                **{point: v for point, v in part.values.items() if v is not None or point not in values},
            }
        return Snapshot(
            serial=self._serial,
            time=shown[-1].time,
            source=self._source,
            interval=min(part.interval for part in shown),
            values=values,
        )
