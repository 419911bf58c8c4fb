"""The main power of each device over the last hours, for the page's small curves. In memory alone, and bounded.

Every `step` the newest value is noted of each device whose data are good; of any other a gap is. A device costs 484
bytes of notes and some 200 for what holds them: 7 MB for 10,000 devices, and no more than that, for no further devices
are noted.
"""

import asyncio
import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.api.contexts import StatesContext
from gateway.core.model import DeviceKind, DeviceState, Quality, iso

STEPS: Final = 120
"""Notes of a device."""
MAX_DEVICES: Final = 10_000
DEVICES_PER_TURN: Final = 200
"""Noted in one turn of the loop: some tenth of a millisecond."""
MAIN: Final[Mapping[DeviceKind, Sequence[str]]] = {
    DeviceKind.PLANT: ("pv_power", "ac_power", "grid_power"),
    DeviceKind.BATTERY: ("battery_power",),
    DeviceKind.METER: ("grid_power", "load_power"),
    DeviceKind.EV_CHARGER: ("ev_power",),
}
"""Kind → its main power: the first of these that a device has."""
OTHERWISE: Final = ("ac_power", "pv_power", "battery_power", "grid_power")
_GAP: Final = math.nan
_SLOTS: Final = STEPS + 1
"""One is written while the others are shown."""
_NOTHING: Final = array("f", [_GAP] * _SLOTS)


class _Curve(msgspec.Struct, gc=False):
    """The notes of one device; all devices write at the same place."""

    point: str
    notes: "array[float]"


class Recent:
    """What was noted."""

    def __init__(self, context: StatesContext, reach: float) -> None:
        """`reach`: seconds that the notes go back."""
        self._context = context
        self.step: Final = reach / STEPS
        self._curves: dict[str, _Curve] = {}
        self._nth = 0
        """Of the newest step, counted from 1970 on; 0: nothing is noted yet."""

    async def run(self) -> None:
        """Note until cancelled, at each full step of the clock."""
        while True:
            now = self._context.clock.now().timestamp()
            await asyncio.sleep(self.step - now % self.step)
            await self.note()

    async def note(self) -> None:
        """Note the newest value of each device."""
        nth = round(self._context.clock.now().timestamp() / self.step)
        if nth == self._nth:
            return
        if nth < self._nth:
            self._curves.clear()  # the clock was set back: nobody knows what lies where
        missed = range(max(self._nth, nth - STEPS) + 1, nth)
        states = self._context.states()
        serials = {state.device.serial for state in states}
        for serial in self._curves.keys() - serials:
            del self._curves[serial]
        for n, state in enumerate(states, 1):
            self._take(state, nth, missed)
            if n % DEVICES_PER_TURN == 0:
                await asyncio.sleep(0)
        self._nth = nth

    def _take(self, state: DeviceState, nth: int, missed: range) -> None:
        curve = self._curves.get(state.device.serial)
        if curve is None:
            point = main_power(state)
            if point is None or len(self._curves) >= MAX_DEVICES:
                return
            curve = self._curves[state.device.serial] = _Curve(point, _NOTHING[:])
        else:
            for each in missed:
                curve.notes[each % _SLOTS] = _GAP
        value = state.values.get(curve.point) if state.quality is Quality.GOOD else None
        curve.notes[nth % _SLOTS] = value if isinstance(value, (int, float)) else _GAP

    def shape(self, serials: Sequence[str]) -> dict[str, Any]:
        """Return the curves of these devices, oldest note first, null where there is a gap."""
        at = (self._nth + 1) % _SLOTS  # the one that is written next
        curves: dict[str, Any] = {}
        for serial in serials:
            curve = self._curves.get(serial)
            if curve is not None:
                notes = curve.notes[at + 1 :] + curve.notes[:at]
                curves[serial] = {
                    "point": curve.point,
                    "values": [None if note != note else round(note, 1) for note in notes],  # noqa: PLR0124 - NaN
                }
        return {"step": self.step, "end": self._end(), "curves": curves}

    def _end(self) -> str | None:
        if not self._nth:
            return None
        now = self._context.clock.now()
        return iso(type(now).fromtimestamp(self._nth * self.step, now.tzinfo))


def main_power(state: DeviceState) -> str | None:
    """Return the point that stands for what a device does; None where it has none of them."""
    return next((p for p in MAIN.get(state.device.kind, OTHERWISE) if state.values.get(p) is not None), None)
