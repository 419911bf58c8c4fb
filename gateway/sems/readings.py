"""What answers say of plants and devices, put together and published."""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from gateway.api.contexts import SourceContext
from gateway.core.findings import FindingCode
from gateway.core.model import Value
from gateway.sems import signs
from gateway.sems.account_times import AccountTimes
from gateway.sems.catalogue import Catalogue, Interface
from gateway.sems.composite import INTERVALS, Composite
from gateway.sems.normalise import Reading
from gateway.sems.plants import Target
from gateway.sems.unreadable import Unreadable

MAX_CADENCE_SECONDS: Final = 900.0
MAX_GAP_SECONDS: Final = 2 * MAX_CADENCE_SECONDS
"""Seconds; what is silent for longer is away, e.g. for the night."""
CALM: Final = 1.5
"""Calls that lie no further apart than so many intervals went on undisturbed."""
GAPS: Final = 8
"""How many gaps are remembered."""
AGREEING: Final = 3
"""How many of them must be alike, or nothing is learned from them."""
ALIKE: Final = 1.25
RESOLUTION: Final = 1.0
"""SEMS has times to the second, so data may look a second old when they are new."""


NO_FAULT: Final = "0"
"""The fault code that says that there is none; so does an empty one."""


class Cadence(msgspec.Struct):
    """How often the cloud has news of a device: loggers upload more seldom than one may ask.

    A gap between two measurements counts only where calls went on all the while: an outage, or a time in which another
    bridge's data made us ask seldom, shows nothing of the device. And it counts as more than what we ask at only where
    an answer in between had no news. Of gaps that several are alike of, the shortest is expected: the device can do it.
    """

    last: datetime | None = None
    """The newest time of measurement."""
    asked: float | None = None
    """When the last answer came, on the monotonic clock."""
    calm: bool = False
    """Whether calls went on undisturbed since `last` was first seen."""
    idle: bool = False
    """Whether an answer since then had no news."""
    gaps: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=GAPS))
    """Seconds; 0 where each call had news, so that it is the calls that are seldom."""

    def add(self, time: datetime, at: float, polling: float) -> None:
        """Take in when something was measured, as an answer at the monotonic time `at` says; we ask every `polling`."""
        self.calm = self.calm and self.asked is not None and at - self.asked <= CALM * polling + RESOLUTION
        self.asked = at
        if self.last is not None and time <= self.last:
            self.idle = True
            return
        if self.last is not None and self.calm:
            gap = (time - self.last).total_seconds() if self.idle else 0.0
            if gap <= MAX_GAP_SECONDS:
                self.gaps.append(min(gap, MAX_CADENCE_SECONDS))
        self.last, self.calm, self.idle = time, True, False

    def interval(self, polling: float) -> float:
        """Return after how many seconds news are due, when asked every `polling` seconds."""
        return max(polling, self._usual(), RESOLUTION)

    def _usual(self) -> float:
        for shortest in sorted(self.gaps):
            alike = [gap for gap in self.gaps if shortest <= gap <= ALIKE * shortest + RESOLUTION]
            if len(alike) >= AGREEING:
                return max(alike)
        return 0.0


class _Known(msgspec.Struct):
    """What is known of one device."""

    composite: Composite
    cadence: Cadence
    status: Value = None
    fault_code: Value = None


class Readings:
    """The newest of each device."""

    def __init__(self, context: SourceContext, catalogue: Catalogue, times: AccountTimes) -> None:
        self._context = context
        self._catalogue = catalogue
        self._times = times
        self._unreadable = Unreadable(context)
        self._known: dict[str, _Known] = {}
        self._blank: set[str] = set()
        """Serials of which the last answer had no value."""

    def take(
        self,
        target: Target,
        interface: Interface,
        reading: Reading,
        interval: float,
        *,
        live: bool,
        due: float | None = None,
    ) -> bool:
        """Publish what was read, due again in `interval` seconds; `live` when by what keeps the device fresh.

        `due` is after how many seconds there should be news of the device, where it is asked about more seldom only
        because another bridge brings them. Without a single value nothing was measured, and nothing changes; see
        `nothing`. Returns whether the device has come into a fault with it, or out of one, or into another.
        """
        self._unreadable.note(interface.name, target.serial, reading.unreadable)
        if reading.empty:
            return False
        if live and target.serial in self._blank:
            self._blank.discard(target.serial)
            self._context.settle(FindingCode.NO_DATA, target.serial)
        now = self._context.clock.now()
        known = self._known.get(target.serial)
        if known is None:
            known = _Known(Composite(target.serial, self._context.name), Cadence())
            self._known[target.serial] = known
        time = self._times.measured(target.device, interface.name, reading, known.cadence.interval(interval))
        if live:
            known.cadence.add(time, self._context.clock.monotonic(), interval)
        if not known.composite.put(interface.name, reading.values, time, known.cadence.interval(interval)):
            return False
        snapshot = known.composite.snapshot(now)
        if snapshot is not None and due is not None:
            shown = INTERVALS * snapshot.interval
            due = min(snapshot.interval, known.cadence.interval(due))
            snapshot = msgspec.structs.replace(snapshot, interval=due, shown=shown)
        if snapshot is not None:
            self._context.publish(snapshot)
        if signs.has_powers(interface):
            place = ("bridges", self._context.name)
            self._context.weigh(signs.flows(self._catalogue, interface, target.serial, time, reading, place))
        return _faulted(known, reading)

    def nothing(self, serial: str, interface: Interface) -> None:
        """Say that the answer which was to keep a device fresh has no value of it."""
        self._blank.add(serial)
        self._context.find(
            FindingCode.NO_DATA,
            serial,
            f"SEMS answers {interface.name} with success, but without a single value of {serial}",
            "see in the portal whether it has data; where it has, see overrides in docs/sems.md for the fields",
        )

    def invalidate(self, serial: str, setpoints: set[str]) -> None:
        """Forget what was read of setpoints, for a command may have changed them."""
        known = self._known.get(serial)
        if known is not None:
            known.composite.forget(setpoints)

    def keep(self, known: Callable[[str], object]) -> None:
        """Forget devices that are `known` no more."""
        for serial in [serial for serial in self._known if not known(serial)]:
            del self._known[serial]
            self._times.forget(serial)
            self._unreadable.forget(serial)
        for serial in [serial for serial in self._blank if not known(serial)]:
            self._blank.discard(serial)
            self._context.settle(FindingCode.NO_DATA, serial)


def _faulted(known: _Known, reading: Reading) -> bool:
    status, code = reading.values.get("status"), reading.values.get("fault_code")
    began = status == "fault" and known.status != "fault"
    changed = code is not None and (code or NO_FAULT) != (known.fault_code or NO_FAULT)
    known.status = status or known.status
    known.fault_code = known.fault_code if code is None else code
    return began or changed
