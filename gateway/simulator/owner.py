"""Owners who change things in the app, now and then, whatever their aggregator has ordered."""

from collections.abc import Iterator, Mapping
from math import log
from typing import Final, NamedTuple

from gateway.core.model import Value
from gateway.simulator.noise import derive, unit
from gateway.simulator.world import World

API: Final = "owner"
"""What stands for an API where it is shown what devices were told."""
_MODES: Final = ("general", "self_use", "backup", "eco")


class OwnersChange(NamedTuple):
    """What an owner did."""

    time: float
    """POSIX seconds of the physics clock."""
    serial: str
    setpoints: Mapping[str, Value]


class Owners:
    """All owners of a world. When they do what is drawn from its seed: as if by dice, so and so often an hour."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = derive(world.seed, "owners")
        self._number = 0
        self._per_hour = 0.0
        self._next = 0.0

    @property
    def per_hour(self) -> float:
        """Changes in an hour of the physics clock, of all owners together."""
        return self._per_hour

    @per_hour.setter
    def per_hour(self, rate: float) -> None:
        if rate != self._per_hour:
            self._per_hour = rate
            self._next = self._world.physics.now() + self._gap() if rate else 0.0

    def until(self, time: float) -> Iterator[OwnersChange]:
        """Yield what was done up to a time and not yielded before."""
        while self._per_hour and self._next <= time:
            yield self._change(self._next)
            self._number += 1
            self._next += self._gap()

    def _gap(self) -> float:
        return -3600 / self._per_hour * log(1 - unit(self._dice, 3 * self._number))

    def _change(self, time: float) -> OwnersChange:
        serials = self._world.inverters
        serial = serials[int(unit(self._dice, 3 * self._number + 1) * len(serials))]
        part = unit(self._dice, 3 * self._number + 2)
        device = self._world.device(serial)
        if device is not None and device.model.battery and part < 0.5:
            return OwnersChange(time, serial, {"work_mode": _MODES[int(2 * part * len(_MODES))]})
        return OwnersChange(time, serial, {"active_power_limit": 10.0 + 10 * int(part * 10)})
