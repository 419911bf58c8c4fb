"""What was measured before.

A day that a plant lived through in the simulation is lived again from its midnight, with all that was done to it.
One before that is made up from the seed: the same sun, clouds and habits, and a battery that was as it may have been.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Final, Literal, NamedTuple

import msgspec

from gateway.core.model import Sample, Value
from gateway.core.points import POINTS, Kind
from gateway.simulator.accessories import values_of
from gateway.simulator.initial_state import InitialState, midnight, yields
from gateway.simulator.meters import GridMeters, Meter
from gateway.simulator.noise import derive, unit
from gateway.simulator.plant import DAYS_CLOSED, Plant, Reading

Step = Literal["minutes", "day", "month"]

INTERVAL: Final = 300.0
"""Seconds between samples of a day's curve."""
_COARSE: Final = 900.0
"""Seconds of a step where only the day's end is wanted."""
_REMEMBERED: Final = 24
"""Days whose curve is kept, of all plants."""
_TODAY: Final = "_today"
_SESSION: Final = "ev_session"
_NOTHING: Final = Meter(0.0, 0.0, 0.0, 0.0)


class _Day(NamedTuple):
    """A plant's day, as far as it has come."""

    readings: list[Reading]
    known: frozenset[str]
    """Counters that are known besides those of the day itself."""


class Past:
    """The past of all plants of one world."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._days: OrderedDict[tuple[str, date, int, int], _Day] = OrderedDict()
        self._yields: dict[tuple[str, date], tuple[float, ...]] = {}

    def samples(
        self, plant: Plant, serial: str, start: datetime, end: datetime, step: Step, now: float
    ) -> list[Sample]:
        """Return what a device of a plant, or the plant itself, measured from `start` to before `end`, not after `now`.

        `now`: POSIX seconds. There is nothing from before it was put up.
        """
        plant.at(now)  # so that it has lived through all that is over
        first = max(start, _put_up(plant, serial))
        last = min(end, datetime.fromtimestamp(now, UTC) + timedelta(microseconds=1))
        if first >= last:
            return []
        samples = {"minutes": self._minutes, "day": self._by_day, "month": self._by_month}[step]
        return [sample for sample in samples(plant, serial, first, last, now) if start <= sample.time < last]

    def _minutes(self, plant: Plant, serial: str, start: datetime, end: datetime, now: float) -> Iterator[Sample]:
        for day in _local_days(plant, start, end):
            readings, known = self._day(plant, day, now)
            for reading in readings:
                if start.timestamp() <= reading.time < end.timestamp():
                    values = values_of(plant.spec, serial, reading, self._seed)
                    yield Sample(_moment(reading.time), _remembered(values, known))

    def _by_day(self, plant: Plant, serial: str, start: datetime, end: datetime, now: float) -> Iterator[Sample]:
        for day in _local_days(plant, start, end):
            yield Sample(_moment(midnight(plant.spec, day)), self._energies(plant, serial, day, now))

    def _by_month(self, plant: Plant, serial: str, start: datetime, end: datetime, now: float) -> Iterator[Sample]:
        month = datetime.fromtimestamp(start.timestamp(), plant.spec.zone).date().replace(day=1)
        while midnight(plant.spec, month) < end.timestamp():
            following = (month + timedelta(days=31)).replace(day=1)
            stop = min(_moment(midnight(plant.spec, following)), end)
            days = _local_days(plant, max(_moment(midnight(plant.spec, month)), start), stop)
            energy = [self._energies(plant, serial, day, now).get("energy_today") for day in days]
            known = [value for value in energy if isinstance(value, float)]
            yield Sample(_moment(midnight(plant.spec, month)), {"energy_month": sum(known)} if known else {})
            month = following

    def _energies(self, plant: Plant, serial: str, day: date, now: float) -> dict[str, Value]:
        """Return the energies of a day, as they stood at its end or stand now."""
        spec = plant.spec
        if midnight(spec, day + timedelta(days=1)) > now:
            reading = plant.at(now)
        elif day in plant.closed:
            reading = plant.read(_end(plant, day), plant.closed[day])
        elif serial in spec.by_serial:
            return {"energy_today": self._yield(plant, day)[spec.by_serial[serial]]}
        else:
            reading = self._relive(plant, day, _COARSE).at(_end(plant, day))
            values = values_of(spec, serial, reading, self._seed)
            energies = {name: value for name, value in values.items() if name.endswith(_TODAY)}
            return {**energies, "energy_today": sum(self._yield(plant, day))} if serial == spec.id else energies
        values = values_of(spec, serial, reading, self._seed)
        return {name: value for name, value in values.items() if name.endswith(_TODAY)}

    def _yield(self, plant: Plant, day: date) -> tuple[float, ...]:
        """Return the kWh of each inverter on a day."""
        if day in plant.closed:
            return tuple(state.generated.today for state in plant.closed[day].devices)
        key = (plant.spec.id, day)
        if key not in self._yields:
            self._yields[key] = yields(plant.spec, plant.climate, day, INTERVAL)
        return self._yields[key]

    def _day(self, plant: Plant, day: date, now: float) -> _Day:
        begins, ends = midnight(plant.spec, day), midnight(plant.spec, day + timedelta(days=1))
        count = min(ceil((ends - begins) / INTERVAL), int((now - begins) / INTERVAL) + 1)
        key = (plant.spec.id, day, count, len(plant.changes.get(day, ())))
        found = self._days.get(key)
        if found is None:
            found = self._days[key] = self._live_through(plant, day, [begins + n * INTERVAL for n in range(count)])
            if len(self._days) > _REMEMBERED:
                self._days.popitem(last=False)
        self._days.move_to_end(key)
        return found

    def _live_through(self, plant: Plant, day: date, times: list[float]) -> _Day:
        relived = self._relive(plant, day, INTERVAL)
        changes = list(plant.changes.get(day, ()))
        readings = []
        for time in times:
            while changes and changes[0].time <= time:
                relived.change(changes.pop(0))
            readings.append(relived.at(time))
        return _Day(readings, self._known(plant, day))

    def _known(self, plant: Plant, day: date) -> frozenset[str]:
        if day in plant.dawns:
            return frozenset(POINTS)
        near = next(iter(plant.dawns)) - day <= timedelta(days=DAYS_CLOSED)
        return frozenset({"energy_total", "energy_month"}) if near else frozenset({"energy_month"})

    def _relive(self, plant: Plant, day: date, step: float) -> Plant:
        dawn = plant.dawns.get(day) or self._made_up(plant, day)
        return Plant(plant.spec, self._seed, midnight(plant.spec, day), dawn=dawn, step=step)

    def _made_up(self, plant: Plant, day: date) -> InitialState:
        """Return a dawn from before the plant's simulation, or forgotten since."""
        known, dawn = next(iter(plant.dawns.items()))
        days = (known - day).days
        since = [self._yield(plant, day + timedelta(days=n)) for n in range(days)] if days <= DAYS_CLOSED else []
        month = [self._yield(plant, day.replace(day=n)) for n in range(1, day.day)]
        devices = []
        for n, (spec, state) in enumerate(zip(plant.spec.devices, dawn.devices, strict=True)):
            battery = spec.model.battery
            dice = derive(self._seed, spec.serial, "dawn", day.isoformat())
            devices.append(
                msgspec.structs.replace(
                    state,
                    stored=battery.capacity * (0.15 + 0.4 * unit(dice, 0)) if battery else 0.0,
                    generated=Meter(
                        0.0, sum(past[n] for past in month), 0.0, state.generated.total - sum(past[n] for past in since)
                    ),
                    charged=_NOTHING,
                    discharged=_NOTHING,
                    hours=_NOTHING,
                )
            )
        chargers = plant.parked(midnight(plant.spec, day))
        return InitialState(tuple(devices), chargers, GridMeters(_NOTHING, _NOTHING, _NOTHING), dawn.orders)


def _put_up(plant: Plant, serial: str) -> datetime:
    """Return when a device was put up; a plant and what has no age of its own, when its first inverter was."""
    ages = [device.age for device in plant.spec.devices if device.serial == serial]
    age = ages[0] if ages else max(device.age for device in plant.spec.devices)
    return _moment(midnight(plant.spec, plant.born - timedelta(days=round(365.25 * age))))


def _remembered(values: Mapping[str, Value], known: frozenset[str]) -> dict[str, Value]:
    """Return the points without the counters that nobody remembers."""
    return {
        name: value
        for name, value in values.items()
        if name in known or name.endswith(_TODAY) or name.startswith(_SESSION) or POINTS[name].kind is not Kind.TOTAL
    }


def _local_days(plant: Plant, start: datetime, end: datetime) -> Iterator[date]:
    """Yield the local days of a span, the one that `start` lies in first."""
    day = datetime.fromtimestamp(start.timestamp(), plant.spec.zone).date()
    while midnight(plant.spec, day) < end.timestamp():
        yield day
        day += timedelta(days=1)


def _end(plant: Plant, day: date) -> float:
    """Return the last moment of a day."""
    return midnight(plant.spec, day + timedelta(days=1)) - 0.001


def _moment(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC)
