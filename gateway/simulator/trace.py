"""What a plant carried, step by step, so that its power at any time since can be worked out again, exactly."""

from array import array
from bisect import bisect_right
from math import inf
from typing import Final, NamedTuple

from gateway.simulator.charger import ChargerState
from gateway.simulator.flows import DeviceState
from gateway.simulator.initial_state import InitialState
from gateway.simulator.meters import GridMeters, Meter
from gateway.simulator.setpoints import Setpoints

KEPT: Final = 2048
"""Steps of a plant with batteries: over a day of minutes."""
_NOTHING: Final = Meter(0.0, 0.0, 0.0, 0.0)
_GRID: Final = GridMeters(_NOTHING, _NOTHING, _NOTHING)


class Mark(NamedTuple):
    """The beginning of a step."""

    time: float
    until: float
    """When the next one begins."""
    carried: InitialState
    """Without counters."""


class _Controls(NamedTuple):
    """What was commanded, or broken; it stays until something else is."""

    time: float
    devices: tuple[tuple[Setpoints, bool], ...]
    orders: Setpoints


class Trace:
    """The steps of one plant. Numbers alone are kept, for there are thousands of plants: 8 bytes a battery and step."""

    def __init__(self) -> None:
        self._times = array("d")
        self._stored = array("d")
        self._chargers: list[tuple[ChargerState, ...]] = []
        self._controls: list[_Controls] = []

    def note(self, time: float, state: InitialState, batteries: tuple[int, ...]) -> None:
        """Note what is carried from a time on; `batteries` are the positions of the devices that have one."""
        last = self._controls[-1] if self._controls else None
        devices = tuple((device.setpoints, device.tripped) for device in state.devices)
        if last is None or last.devices != devices or last.orders != state.orders:
            self._controls.append(_Controls(time, devices, state.orders))
        if batteries or state.chargers or not self._times:
            self._times.append(time)
            self._stored.extend(state.devices[n].stored for n in batteries)
            self._chargers.append(state.chargers)
            if len(self._times) > KEPT:
                self._forget(KEPT // 2, len(batteries))

    def _forget(self, steps: int, batteries: int) -> None:
        del self._times[:steps], self._stored[: steps * batteries], self._chargers[:steps]
        first = bisect_right(self._controls, self._times[0], key=lambda controls: controls.time)
        del self._controls[: max(first - 1, 0)]

    def before(self, time: float, batteries: tuple[int, ...]) -> Mark:
        """Return the last step at a time or before.

        Raises LookupError for a time of which nothing is known any more.
        """
        step = bisect_right(self._times, time) - 1
        if step < 0:
            raise LookupError("that is too long ago, or before the beginning")
        following = bisect_right(self._controls, time, key=lambda controls: controls.time)
        told = self._controls[following - 1]
        until = self._times[step + 1] if step + 1 < len(self._times) else inf
        if following < len(self._controls):
            until = min(until, self._controls[following].time)
        first = step * len(batteries)
        stored = dict(zip(batteries, self._stored[first : first + len(batteries)], strict=True))
        devices = tuple(
            DeviceState(
                setpoints=setpoints,
                tripped=tripped,
                stored=stored.get(n, 0.0),
                generated=_NOTHING,
                charged=_NOTHING,
                discharged=_NOTHING,
                hours=_NOTHING,
            )
            for n, (setpoints, tripped) in enumerate(told.devices)
        )
        return Mark(self._times[step], until, InitialState(devices, self._chargers[step], _GRID, told.orders))
