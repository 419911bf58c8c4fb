"""One plant through time.

Energy is integrated on a fixed grid of `STEP` seconds, with the power at the beginning of each step. So what
a plant says depends on the seed, the time and the commands it got, and not on how often it was asked; and
between two grid points counters grow along a straight line, so none can fall.
"""

from datetime import datetime, timedelta
from math import ceil, floor
from typing import Final, NamedTuple

import msgspec

from gateway.core.model import Value
from gateway.simulator.flows import STEP, DeviceState, Meter, PlantFlow, Setpoints, solve
from gateway.simulator.noise import derive, unit
from gateway.simulator.sky import DAY, Climate, Sky, irradiance
from gateway.simulator.specs import DeviceSpec, PlantSpec

MAX_STEPS: Final = 720
"""Steps of one catch-up; a longer gap is crossed in longer steps."""
MAX_STEP: Final = 900.0
"""Seconds of the longest step; what is older than 720 of them is left out (about a week)."""


class GridMeters(NamedTuple):
    """The counters of the plant's grid connection."""

    bought: Meter
    sold: Meter
    consumed: Meter

    def after(self, flow: PlantFlow, seconds: float) -> "GridMeters":
        """Return the counters after that power has flowed for that long."""
        kilo_hours = seconds / 3_600_000
        return GridMeters(
            self.bought.plus(max(flow.grid, 0.0) * kilo_hours),
            self.sold.plus(max(-flow.grid, 0.0) * kilo_hours),
            self.consumed.plus(flow.load * kilo_hours),
        )


class Reading(NamedTuple):
    """A plant at one time."""

    time: float
    """POSIX seconds of the physics clock."""
    sky: Sky
    flow: PlantFlow
    devices: tuple[DeviceState, ...]
    grid: GridMeters


class Plant:
    """A plant that remembers. Its time only moves forward."""

    def __init__(self, spec: PlantSpec, seed: int, start: float) -> None:
        self.spec = spec
        self._climate = Climate(spec, seed)
        midnight = datetime.fromtimestamp(start, spec.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        self._begin_day(midnight)
        self._time = midnight.timestamp()
        day_yield = sum(irradiance(spec.site, self._time + hour * 3600, 0.6) for hour in range(24)) / 1000  # kWh/kWp
        days = midnight.day - 1
        self._devices = tuple(_history(device, seed, day_yield * days) for device in spec.devices)
        history = [device.generated for device in self._devices]
        month, total = sum(meter.month for meter in history), sum(meter.total for meter in history)
        self._grid = GridMeters(*(Meter(0.0, part * month, part * total) for part in (0.3, 0.55, 0.75)))
        # The day did not begin when the simulator did.
        self._cross(start, MAX_STEP)
        self._commit(start - self._time)

    @property
    def time(self) -> float:
        """POSIX seconds up to which energy is settled."""
        return self._time

    def at(self, time: float) -> Reading:
        """Return the plant at a time not before the last one asked for."""
        self._advance(time)
        time = max(time, self._time)
        begun = self._solve(self._time)
        partial = time - self._time
        devices = tuple(state.after(flow, partial) for state, flow in zip(self._devices, begun.devices, strict=True))
        sky = self._climate.sky(time)
        flow = solve(self.spec, devices, sky, self._climate.load(time)) if partial else begun
        return Reading(time, sky, flow, devices, self._grid.after(begun, partial))

    def command(self, serial: str, setpoints: dict[str, Value], time: float) -> None:
        """Have a device obey from `time` on."""
        self._change(serial, time, setpoints=setpoints)

    def trip(self, serial: str, time: float, *, tripped: bool) -> None:
        """Break a device, or repair it."""
        self._change(serial, time, tripped=tripped)

    def setpoints(self, serial: str) -> Setpoints:
        """Return what is in force at a device."""
        return self._devices[self.spec.by_serial[serial]].setpoints

    def _change(
        self, serial: str, time: float, *, setpoints: dict[str, Value] | None = None, tripped: bool | None = None
    ) -> None:
        self._advance(time)
        self._commit(max(time - self._time, 0.0))
        devices = list(self._devices)
        position = self.spec.by_serial[serial]
        state = devices[position]
        devices[position] = msgspec.structs.replace(
            state,
            setpoints=msgspec.structs.replace(state.setpoints, **(setpoints or {})),
            tripped=state.tripped if tripped is None else tripped,
        )
        self._devices = tuple(devices)

    def _advance(self, time: float) -> None:
        """Settle all whole steps up to `time`; where they are too many, longer ones up to shortly before."""
        if time - self._time > MAX_STEPS * STEP:
            # The step that was begun ends as it was already reported.
            self._cross((floor(self._time / STEP) + 1) * STEP, STEP)
            if time - self._time > MAX_STEPS * MAX_STEP:
                self._skip(floor((time - MAX_STEPS * MAX_STEP) / STEP) * STEP)
            self._cross(time, ceil((time - self._time) / MAX_STEPS / STEP) * STEP)
        self._cross(time, STEP)

    def _cross(self, time: float, step: float) -> None:
        """Settle steps on the grid of `step` seconds, as many as end by `time`; none goes past a midnight."""
        while (end := min((floor(self._time / step) + 1) * step, self._midnight)) <= time:
            self._commit(end - self._time)

    def _commit(self, seconds: float) -> None:
        if seconds > 0:
            flow = self._solve(self._time, max(seconds, STEP))
            self._devices = tuple(s.after(f, seconds) for s, f in zip(self._devices, flow.devices, strict=True))
            self._grid = self._grid.after(flow, seconds)
            self._time += seconds
        if self._time >= self._midnight:
            self._turn_day()

    def _skip(self, time: float) -> None:
        """Leave time out: counters stand, days pass."""
        self._time = time
        if time >= self._midnight:
            self._turn_day()

    def _turn_day(self) -> None:
        today = datetime.fromtimestamp(self._time, self.spec.zone)
        new_month = (today.year, today.month) != (self._today.year, self._today.month)
        self._devices = tuple(state.next_day(new_month=new_month) for state in self._devices)
        self._grid = GridMeters(*(meter.next_day(new_month=new_month) for meter in self._grid))
        self._begin_day(today)

    def _begin_day(self, today: datetime) -> None:
        self._today = today.date()
        tomorrow = datetime.combine(self._today + timedelta(days=1), datetime.min.time(), self.spec.zone)
        self._midnight = tomorrow.timestamp()

    def _solve(self, time: float, horizon: float = STEP) -> PlantFlow:
        return solve(self.spec, self._devices, self._climate.sky(time), self._climate.load(time), horizon)


def _history(device: DeviceSpec, seed: int, month_yield: float) -> DeviceState:
    """Return a device at the midnight before the simulation, as if it had worked all its years. Yield: kWh/kWp."""
    dice = derive(seed, device.serial, "history")
    kilowatts = device.peak_power / 1000
    month = kilowatts * month_yield
    total = month + kilowatts * device.age * (850 + 300 * unit(dice, 0))
    battery = device.model.battery
    cycles = battery.capacity * device.age * 220 if battery else 0.0
    return DeviceState(
        stored=battery.capacity * (0.3 + 0.4 * unit(dice, 1)) if battery else 0.0,
        generated=Meter(0.0, month, total),
        charged=Meter(0.0, 0.0, cycles),
        discharged=Meter(0.0, 0.0, 0.9 * cycles),
        hours=Meter(0.0, 0.0, device.age * DAY / 3600 * 365 * 0.48),
    )
