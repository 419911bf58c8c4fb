"""All plants and their common time, and what the cloud can see of them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gateway.core.clock import Clock
from gateway.core.model import Alarm, DeviceKind, Sample, Severity, Value
from gateway.simulator.accessories import values_of
from gateway.simulator.alarms import REMEMBERED, AlarmBook, recent, troubles
from gateway.simulator.plant import Plant, Reading
from gateway.simulator.report import FAULT_CODE, FAULT_TEXT, OFFLINE, Values
from gateway.simulator.series import Past, Step
from gateway.simulator.setpoints import Setpoints
from gateway.simulator.specs import AccessorySpec, DeviceSpec, PlantSpec


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

    def wall(self, physics: float) -> datetime:
        """Return when, by the wall clock, it is or was that physics time."""
        self.now()
        since, then = self._anchor or (self._clock.now(), physics)
        return since + timedelta(seconds=(physics - then) / self.speed)

    def at(self, wall: datetime) -> datetime:
        """Return the physics time, UTC, at a time of the wall clock."""
        self.now()
        since, then = self._anchor or (wall, wall.timestamp())
        return datetime.fromtimestamp(then + (wall - since).total_seconds() * self.speed, UTC)


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
        self._homes = {device.serial: spec for spec in fleet for device in spec.everything}
        self.serials = tuple(self._homes)
        """Serial numbers of all devices, plant by plant."""
        self._alarms = AlarmBook()
        self._past = Past(seed)
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
        """Return an inverter's specification."""
        home = self._homes.get(serial)
        position = home.by_serial.get(serial) if home else None
        return home.devices[position] if home and position is not None else None

    def accessory(self, serial: str) -> AccessorySpec | None:
        """Return the specification of a device that is no inverter."""
        home = self._homes.get(serial)
        return home.extras.get(serial) if home else None

    def type_of(self, serial: str) -> str | None:
        """Return the type of a device as the catalogues have it, `plant` for a plant's id; None for an unknown one."""
        if serial in self.fleet:
            return DeviceKind.PLANT
        device, accessory = self.device(serial), self.accessory(serial)
        return device.model.kind if device else accessory.type if accessory else None

    def setpoints(self, serial: str) -> Setpoints:
        """Return the setpoints of a device. Raises KeyError for an unknown one."""
        return self._plant(self._homes[serial]).setpoints(serial)

    def offline(self, serial: str) -> bool:
        """Return whether a device is offline."""
        return serial in self._silent

    def tripped(self, serial: str) -> bool:
        """Return whether a device stands still with a fault."""
        return serial in self._tripped

    @property
    def ailing(self) -> list[str]:
        """Serial numbers of the devices that are offline or tripped."""
        return sorted(self._tripped | (self._silent.keys() & self._homes.keys()))

    def report(self, serial: str) -> Report:
        """Return what the cloud knows of a device, or of a plant by its id. Raises KeyError for an unknown one."""
        if silent := self._silent.get(serial):
            return silent
        spec = self.fleet.get(serial) or self._homes[serial]
        return Report(self._clock.now(), self._values(spec, serial, self._plant(spec).at(self.physics.now())))

    def true_reports(self, plant_id: str) -> tuple[Report, dict[str, Report]]:
        """Return how a plant and its devices really are, also offline. Raises KeyError for an unknown one."""
        spec, wall = self.fleet[plant_id], self._clock.now()
        reading = self._plant(spec).at(self.physics.now())
        devices = {d.serial: Report(wall, self._values(spec, d.serial, reading)) for d in spec.everything}
        return Report(wall, self._values(spec, plant_id, reading)), devices

    def _values(self, spec: PlantSpec, serial: str, reading: Reading) -> Values:
        values = values_of(spec, serial, reading, self._seed)
        if serial in self._tripped and serial not in spec.by_serial:
            return {**values, "status": "fault", "fault_code": FAULT_CODE, "fault_text": FAULT_TEXT}
        return values

    def command(self, serial: str, setpoints: Mapping[str, Value], time: float) -> None:
        """Have a device obey from the physics time `time` on.

        An order for a `sec1000` holds for all inverters of its plant. Raises KeyError for an unknown device, and
        ValueError for one that takes no commands.
        """
        self._plant(self._homes[serial]).command(serial, dict(setpoints), time)

    def trip(self, serial: str, *, tripped: bool) -> None:
        """Break a device, or repair it. Raises KeyError for an unknown one."""
        self._plant(self._homes[serial]).trip(serial, self.physics.now(), tripped=tripped)
        self._alarms.trip(serial, self._clock.now(), tripped=tripped)
        (self._tripped.add if tripped else self._tripped.discard)(serial)

    def silence(self, serial: str, *, offline: bool) -> None:
        """Cut a device off from the cloud, or let it back. Its plant goes silent with its last inverter.

        Raises KeyError for an unknown one.
        """
        spec = self._homes[serial]
        if offline and serial not in self._silent:
            plant, devices = self.true_reports(spec.id)
            self._silent[serial] = _last_word(devices[serial])
            if all(other in self._silent for other in spec.by_serial):
                self._silent[spec.id] = _last_word(plant)
        elif not offline:
            self._silent.pop(serial, None)
            self._silent.pop(spec.id, None)

    def alarms(self, serial: str) -> list[Alarm]:
        """Return a device's alarms, or those of all devices of a plant, oldest first.

        The active ones, and those cleared within a day. Times are the wall clock's.
        Raises KeyError for an unknown device.
        """
        spec = self.fleet.get(serial) or self._homes[serial]
        devices = {device.serial for device in spec.everything}
        wanted = devices if serial in self.fleet else {serial}
        now, time, climate = self._clock.now(), self.physics.now(), self._plant(spec).climate
        alarms = [alarm for one in wanted for alarm in self._alarms.of(one, now)]
        start = recent(self._begun or time, time, self.physics.speed)
        for trouble in troubles(spec, climate, self._seed, start, time):
            ended = self.physics.wall(trouble.ends) if trouble.ends <= time else None
            if trouble.serial in wanted and (ended is None or now - ended < REMEMBERED):
                alarms.append(trouble.alarm(self.physics.wall(trouble.begins), ended))
        return sorted(alarms, key=lambda alarm: (alarm.raised, alarm.serial, alarm.id))

    def raise_alarm(self, serial: str, code: str, text: str, severity: Severity = Severity.FAULT) -> Alarm:
        """Raise an alarm by hand. Raises KeyError for an unknown device."""
        if serial not in self._homes:
            raise KeyError(serial)
        return self._alarms.raise_(serial, code, text, severity, self._clock.now())

    def clear_alarm(self, serial: str, alarm_id: str) -> None:
        """Clear an alarm that was raised by hand or by a trip. Raises KeyError for one that is not active."""
        self._alarms.clear(serial, alarm_id, self._clock.now())

    def series(self, serial: str, start: datetime, end: datetime, step: Step) -> list[Sample]:
        """Return what a device or a plant measured from `start` to before `end`; nothing after now.

        `minutes`: every five; `day`, `month`: the energy of each, at its beginning. Times are the physics clock's,
        which is the wall clock unless `speed` or `start` say otherwise. Raises KeyError for an unknown one.
        """
        spec = self.fleet.get(serial) or self._homes[serial]
        return self._past.samples(self._plant(spec), serial, start, end, step, self.physics.now())

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
