"""What answers say of plants and devices, put together and published."""

from collections import deque
from datetime import datetime
from statistics import median_low
from typing import Final

import msgspec

from gateway.core.bridge import Context
from gateway.core.model import Value
from gateway.sems.catalogue import Interface
from gateway.sems.composite import Composite
from gateway.sems.normalise import Reading
from gateway.sems.plants import Plants, Target

CADENCE_MOST: Final = 900.0
RESOLUTION: Final = 1.0
"""SEMS tells times to the second, so data may look a second old when they are new."""


class Cadence(msgspec.Struct):
    """How often the cloud has news of a device: loggers upload more seldom than one may ask."""

    last: datetime | None = None
    gaps: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=3))

    def heard(self, time: datetime) -> None:
        """Take in when something was measured."""
        if self.last is not None and time > self.last:
            self.gaps.append((time - self.last).total_seconds())
        if self.last is None or time > self.last:
            self.last = time

    def interval(self, polling: float) -> float:
        """Return after how many seconds news are due, when asked every `polling` seconds."""
        usual = min(median_low(self.gaps), CADENCE_MOST) if self.gaps else 0.0
        return max(polling, usual, RESOLUTION)


class _Known(msgspec.Struct):
    """What is known of one device."""

    composite: Composite
    cadence: Cadence
    status: Value = None
    fault_code: Value = None


class Readings:
    """The newest of each device."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, _Known] = {}

    def take(self, target: Target, interface: Interface, reading: Reading, interval: float, *, live: bool) -> bool:
        """Publish what was read, due again in `interval` seconds; `live` when by what keeps the device fresh.

        Returns whether the device has come into a fault with it, or out of one, or into another.
        """
        now = self._context.clock.now()
        time = reading.time or now
        known = self._known.get(target.serial)
        if known is None:
            known = _Known(Composite(target.serial, self._context.name), Cadence())
            self._known[target.serial] = known
        if live:
            known.cadence.heard(time)
        if not known.composite.put(interface.name, reading.values, time, known.cadence.interval(interval)):
            return False
        snapshot = known.composite.snapshot(now)
        if snapshot is not None:
            self._context.publish(snapshot)
        return _faulted(known, reading)

    def unsettle(self, serial: str, setpoints: set[str]) -> None:
        """Forget what was read of setpoints, for a command may have changed them."""
        known = self._known.get(serial)
        if known is not None:
            known.composite.forget(setpoints)

    def keep(self, plants: Plants) -> None:
        """Forget devices that are known no more."""
        for serial in [serial for serial in self._known if plants.get(serial) is None]:
            del self._known[serial]


def _faulted(known: _Known, reading: Reading) -> bool:
    status, code = reading.values.get("status"), reading.values.get("fault_code")
    began = status == "fault" and known.status != "fault"
    changed = code is not None and code != (known.fault_code or 0)
    known.status = status or known.status
    known.fault_code = known.fault_code if code is None else code
    return began or changed
