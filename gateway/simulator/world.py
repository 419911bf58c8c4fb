"""All plants and their common time, and what the cloud can see of them."""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from gateway.core.clock import Clock
from gateway.core.model import Alarm, DeviceKind, Sample, Severity, Value
from gateway.simulator.accessories import values_of
from gateway.simulator.alarms import REMEMBERED, AlarmBook, recent, troubles
from gateway.simulator.flows import INVERTER_EFFICIENCY, STEP
from gateway.simulator.initial_state import Change
from gateway.simulator.noise import derive, unit
from gateway.simulator.plant import LOGGER, Plant, Reading
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


class _Upload(msgspec.Struct, frozen=True, gc=False):
    time: float
    """By the physics clock."""
    reading: Reading


class Power(NamedTuple):
    """Power at one time."""

    given: float
    """W at the AC terminals, > 0 feeds in."""
    available: float
    """W that the modules could give at the AC terminals, were nothing limited."""


class World:
    """Plants come to life when they are first asked for, and do what they were told when they are next looked at."""

    def __init__(
        self,
        fleet: Sequence[PlantSpec],
        clock: Clock,
        *,
        seed: int = 1,
        start: datetime | None = None,
        speed: float = 1.0,
        upload_interval: float = 0.0,
        step: float = STEP,
    ) -> None:
        """`upload_interval`: seconds of the wall clock between what the cloud hears of a plant; 0: it hears all.

        `step`: seconds of the physics grid.
        """
        self.fleet: Mapping[str, PlantSpec] = {spec.id: spec for spec in fleet}
        self.physics = PhysicsClock(clock, start, speed)
        self.seed = seed
        self.upload_interval = upload_interval
        self._clock = clock
        self._step = step
        self._begun: float | None = None
        self._plants: dict[str, Plant] = {}
        self._homes = {device.serial: spec for spec in fleet for device in spec.everything}
        self.serials = tuple(self._homes)
        """Serial numbers of all devices, plant by plant."""
        self.inverters = tuple(device.serial for spec in fleet for device in spec.devices)
        """Those of the inverters alone."""
        self._alarms = AlarmBook()
        self._past = Past(seed)
        self._changes: dict[str, list[Change]] = {}
        """Plant id → what is to be done there yet, in the order of time."""
        self._uploads: dict[str, _Upload] = {}
        """Plant id → what the cloud heard of it last."""
        self._silent: dict[str, Report | None] = {}
        """Serial number or plant id of what is offline → its last word; None: not looked at yet."""
        self._unheard: dict[str, list[tuple[str, float, datetime]]] = {}
        """Plant id → who has a last word that was not looked at, and since when, by both clocks."""
        self._tripped: set[str] = set()

    def start(self) -> None:
        """Let time begin; it does so by itself at the first question."""
        if self._begun is None:
            self._begun = self.physics.now()

    @property
    def begun(self) -> float:
        """When time began, POSIX seconds of the physics clock."""
        self.start()
        return self._begun or 0.0

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
        return self._live(self._homes[serial]).setpoints(serial)

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
        spec = self.fleet.get(serial) or self._homes[serial]
        plant = self._live(spec)
        if silent := self._silent.get(serial):
            return silent
        return self._heard(spec, serial, plant, self.physics.now(), self._clock.now())

    def uploaded(self, spec: PlantSpec, time: float) -> float:
        """Return when, by the physics clock, a plant last told the cloud how it is: at a time, or before."""
        if not self.upload_interval:
            return time
        # The first word is what it is like when it is put up.
        return max(self._upload(spec, time, 0), self.begun)

    def upload_after(self, spec: PlantSpec, time: float) -> float:
        """Return when, by the physics clock, a plant next tells the cloud how it is. There is an upload interval."""
        return self._upload(spec, time, 1)

    def _upload(self, spec: PlantSpec, time: float, later: int) -> float:
        interval = self.upload_interval * self.physics.speed
        phase = self.begun + interval * unit(derive(self.seed, spec.id, "upload"), 0)
        return phase + ((time - phase) // interval + later) * interval

    def power(self, plant_id: str, serials: Iterable[str], times: Sequence[float]) -> list[Power]:
        """Return what these inverters of a plant gave together, and could have given, at each of these times.

        Times are POSIX seconds of the physics clock, ascending, from the beginning up to now. Raises KeyError for what
        is none of its inverters, and LookupError for times of which nothing is known.
        """
        spec = self.fleet[plant_id]
        plant, positions = self._live(spec), [spec.by_serial[serial] for serial in serials]
        if times and times[-1] > self.physics.now():
            raise LookupError("that is still to come")
        plant.at(self.physics.now())
        limits = [spec.devices[n].model.rated_power for n in positions]
        series = []
        for flows in plant.flows(times):
            given = sum(flows[n].ac for n in positions)
            could = (
                min(flows[n].available * INVERTER_EFFICIENCY, most) for n, most in zip(positions, limits, strict=True)
            )
            series.append(Power(given, sum(could)))
        return series

    def true_reports(self, plant_id: str) -> tuple[Report, dict[str, Report]]:
        """Return how a plant and its devices really are, also offline. Raises KeyError for an unknown one."""
        spec, wall = self.fleet[plant_id], self._clock.now()
        reading = self._live(spec).at(self.physics.now())
        devices = {d.serial: Report(wall, self._values(spec, d.serial, reading)) for d in spec.everything}
        return Report(wall, self._values(spec, plant_id, reading)), devices

    def _heard(self, spec: PlantSpec, serial: str, plant: Plant, time: float, wall: datetime) -> Report:
        """Return what the cloud knew at a time that a plant has just been brought to."""
        if not self.upload_interval:
            return Report(wall, self._values(spec, serial, plant.at(time)))
        upload = self._uploads[spec.id]
        return Report(self.physics.wall(upload.time), self._values(spec, serial, upload.reading))

    def _values(self, spec: PlantSpec, serial: str, reading: Reading) -> Values:
        values = values_of(spec, serial, reading, self.seed)
        if serial in self._tripped and serial not in spec.by_serial:
            return {**values, "status": "fault", "fault_code": FAULT_CODE, "fault_text": FAULT_TEXT}
        return values

    def command(self, serial: str, setpoints: Mapping[str, Value], time: float) -> None:
        """Have a device obey from the physics time `time` on.

        An order for a `sec1000` holds for all inverters of its plant. Raises KeyError for an unknown device, and
        ValueError for one that takes no commands.
        """
        accessory = self.accessory(serial)
        if setpoints and accessory is not None and not accessory.charger and accessory.type != LOGGER:
            raise ValueError(f"a {accessory.type} takes no commands")
        self._change(Change(time, serial, dict(setpoints), None))

    def trip(self, serial: str, *, tripped: bool) -> None:
        """Break a device, or repair it. Raises KeyError for an unknown one."""
        self._change(Change(self.physics.now(), serial, {}, tripped))
        self._alarms.trip(serial, self._clock.now(), tripped=tripped)
        (self._tripped.add if tripped else self._tripped.discard)(serial)

    def _change(self, change: Change) -> None:
        """Have something done when the plant is next looked at, as of its time: a command costs no look."""
        insort(self._changes.setdefault(self._homes[change.serial].id, []), change, key=lambda change: change.time)

    def silence(self, serial: str, *, offline: bool) -> None:
        """Cut a device off from the cloud, or let it back. Its plant goes silent with its last inverter.

        Raises KeyError for an unknown one.
        """
        spec = self._homes[serial]
        if offline and serial not in self._silent:
            gone = [serial]
            self._silent[serial] = None
            if spec.id not in self._silent and all(other in self._silent for other in spec.by_serial):
                gone.append(spec.id)
                self._silent[spec.id] = None
            since, wall = self.physics.now(), self._clock.now()
            self._unheard.setdefault(spec.id, []).extend((name, since, wall) for name in gone)
        elif not offline:
            back = {serial, spec.id}
            for name in back:
                self._silent.pop(name, None)
            if spec.id in self._unheard:
                self._unheard[spec.id] = [last for last in self._unheard[spec.id] if last[0] not in back]

    def alarms(self, serial: str) -> list[Alarm]:
        """Return a device's alarms, or those of all devices of a plant, oldest first.

        The active ones, and those cleared within a day. Times are the wall clock's.
        Raises KeyError for an unknown device.
        """
        spec = self.fleet.get(serial) or self._homes[serial]
        devices = {device.serial for device in spec.everything}
        wanted = devices if serial in self.fleet else {serial}
        now, time, climate = self._clock.now(), self.physics.now(), self._live(spec).climate
        alarms = [alarm for one in wanted for alarm in self._alarms.of(one, now)]
        start = recent(self._begun or time, time, self.physics.speed)
        for trouble in troubles(spec, climate, self.seed, start, time):
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
        return self._past.samples(self._live(spec), serial, start, end, step, self.physics.now())

    def __iter__(self) -> Iterator[PlantSpec]:
        return iter(self.fleet.values())

    def _live(self, spec: PlantSpec) -> Plant:
        """Return a plant brought to now, with all that was done there until now."""
        plant = self._plants.get(spec.id)
        if plant is None:
            self.start()
            plant = self._plants[spec.id] = Plant(spec, self.seed, self._begun or 0.0, step=self._step)
        for name, since, wall in self._unheard.pop(spec.id, ()):
            self._advance(spec, plant, since)
            self._silent[name] = _last_word(self._heard(spec, name, plant, since, wall))
        self._advance(spec, plant, self.physics.now())
        return plant

    def _advance(self, spec: PlantSpec, plant: Plant, time: float) -> None:
        if self.upload_interval:
            uploaded = self.uploaded(spec, time)
            if spec.id not in self._uploads or self._uploads[spec.id].time < uploaded:
                self._obey(plant, uploaded)
                # What the cloud hears must be looked at before the plant goes on: its time only moves forward.
                self._uploads[spec.id] = _Upload(uploaded, plant.at(uploaded))
        self._obey(plant, time)

    def _obey(self, plant: Plant, time: float) -> None:
        """Have a plant do what it was told to do until a time."""
        changes = self._changes.get(plant.spec.id)
        while changes and changes[0].time <= time:
            plant.change(changes.pop(0))


def _last_word(report: Report) -> Report:
    return Report(report.time, {**report.values, "status": OFFLINE})
