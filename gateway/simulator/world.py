"""All plants and their common time, and what the cloud can see of them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from gateway.core.clock import Clock
from gateway.core.model import Value
from gateway.simulator.flows import Setpoints
from gateway.simulator.plant import Plant
from gateway.simulator.report import OFFLINE, Values, device_values, plant_values
from gateway.simulator.specs import DeviceSpec, PlantSpec


class PhysicsClock:
    """The time by which the sun moves: `speed` times as fast as the wall clock, from `start` on.

    It follows the wall clock through a laptop's sleep, but never backwards.
    """

    def __init__(self, clock: Clock, start: datetime | None = None, speed: float = 1.0) -> None:
        self.speed = speed
        self._clock = clock
        self._start = start
        self._anchor: tuple[datetime, float] | None = None
        self._last = (0.0, 0.0)
        """Physics and monotonic time of the last look."""

    def now(self) -> float:
        """Return the physics time, POSIX seconds. It begins to run at the first look."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        if self._anchor is None:
            self._anchor = (wall, (self._start or wall).timestamp())
            self._last = (self._anchor[1], monotonic)
        since, physics = self._anchor
        now = physics + (wall - since).total_seconds() * self.speed
        last, seen = self._last
        if now < last:  # The wall clock was set back.
            now = last + (monotonic - seen) * self.speed
            self._anchor = (wall, now)
        self._last = (now, monotonic)
        return now


class Report(NamedTuple):
    """What the cloud knows of a plant or a device."""

    time: datetime
    """By the wall clock, UTC; that of the last word for one that is offline."""
    values: Values


class World:
    """Plants come to life when they are first asked for."""

    def __init__(
        self,
        fleet: Sequence[PlantSpec],
        clock: Clock,
        *,
        seed: int = 1,
        start: datetime | None = None,
        speed: float = 1.0,
    ) -> None:
        self.fleet: Mapping[str, PlantSpec] = {spec.id: spec for spec in fleet}
        self.physics = PhysicsClock(clock, start, speed)
        self._clock = clock
        self._seed = seed
        self._begun: float | None = None
        self._plants: dict[str, Plant] = {}
        self._homes = {device.serial: spec for spec in fleet for device in spec.devices}
        self._silent: dict[str, Report] = {}
        """Serial number or plant id of what is offline → its last word."""
        self._tripped: set[str] = set()

    def start(self) -> None:
        """Let time begin; it does so by itself at the first question."""
        if self._begun is None:
            self._begun = self.physics.now()

    @property
    def now(self) -> datetime:
        """The physics time."""
        return datetime.fromtimestamp(self.physics.now(), UTC)

    def home(self, serial: str) -> PlantSpec | None:
        """Return the plant that a device belongs to."""
        return self._homes.get(serial)

    def device(self, serial: str) -> DeviceSpec | None:
        """Return a device's specification."""
        home = self._homes.get(serial)
        return home.devices[home.by_serial[serial]] if home else None

    def setpoints(self, serial: str) -> Setpoints:
        """Return what is in force at a device. Raises KeyError for an unknown one."""
        return self._plant(self._homes[serial]).setpoints(serial)

    def offline(self, serial: str) -> bool:
        """Return whether the cloud does not hear a device."""
        return serial in self._silent

    def tripped(self, serial: str) -> bool:
        """Return whether a device stands still with a fault."""
        return serial in self._tripped

    @property
    def ailing(self) -> list[str]:
        """Serial numbers of the devices that are offline or tripped."""
        return sorted(self._tripped | (self._silent.keys() & self._homes.keys()))

    def plant_report(self, plant_id: str) -> Report:
        """Return what the cloud knows of a plant. Raises KeyError for an unknown one."""
        return self._silent.get(plant_id) or self.true_reports(plant_id)[0]

    def device_report(self, serial: str) -> Report:
        """Return what the cloud knows of a device. Raises KeyError for an unknown one."""
        silent = self._silent.get(serial)
        if silent:
            return silent
        spec = self._homes[serial]
        reading = self._plant(spec).at(self.physics.now())
        return Report(self._clock.now(), device_values(spec, spec.by_serial[serial], reading, self._seed))

    def true_reports(self, plant_id: str) -> tuple[Report, dict[str, Report]]:
        """Return how a plant and its devices really are, heard or not. Raises KeyError for an unknown one."""
        spec, wall = self.fleet[plant_id], self._clock.now()
        reading = self._plant(spec).at(self.physics.now())
        devices = {
            serial: Report(wall, device_values(spec, position, reading, self._seed))
            for serial, position in spec.by_serial.items()
        }
        return Report(wall, plant_values(spec, reading)), devices

    def command(self, serial: str, setpoints: Mapping[str, Value], time: float) -> None:
        """Have a device obey from the physics time `time` on."""
        self._plant(self._homes[serial]).command(serial, dict(setpoints), time)

    def trip(self, serial: str, *, tripped: bool) -> None:
        """Break a device, or repair it. Raises KeyError for an unknown one."""
        self._plant(self._homes[serial]).trip(serial, self.physics.now(), tripped=tripped)
        (self._tripped.add if tripped else self._tripped.discard)(serial)

    def silence(self, serial: str, *, offline: bool) -> None:
        """Cut a device off from the cloud, or let it back. Its plant goes silent with its last device.

        Raises KeyError for an unknown one.
        """
        spec = self._homes[serial]
        if offline and serial not in self._silent:
            plant, devices = self.true_reports(spec.id)
            self._silent[serial] = _last_word(devices[serial])
            if all(other in self._silent for other in devices):
                self._silent[spec.id] = _last_word(plant)
        elif not offline:
            self._silent.pop(serial, None)
            self._silent.pop(spec.id, None)

    def __iter__(self) -> Iterator[PlantSpec]:
        return iter(self.fleet.values())

    def _plant(self, spec: PlantSpec) -> Plant:
        plant = self._plants.get(spec.id)
        if plant is None:
            self.start()
            plant = self._plants[spec.id] = Plant(spec, self._seed, self._begun or 0.0)
        return plant


def _last_word(report: Report) -> Report:
    return Report(report.time, {**report.values, "status": OFFLINE})
