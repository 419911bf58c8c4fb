"""One plant through time.

Energy is integrated on a fixed grid of `STEP` seconds, with the power at the beginning of each step. So what
a plant says depends on the seed, the time and the commands it got, and not on how often it was asked; and
between two grid points counters grow along a straight line, so none can fall.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from math import ceil, floor
from typing import Final, TypeVar

import msgspec

from gateway.core.model import Value
from gateway.simulator.charger import ChargerState, Garage
from gateway.simulator.flows import STEP, Demand, DeviceFlow, DeviceState, PlantFlow, solve, solve_alone
from gateway.simulator.initial_state import Change, InitialState, first_dawn, midnight, sketch
from gateway.simulator.meters import GridMeters, Turn
from gateway.simulator.setpoints import Setpoints
from gateway.simulator.sky import Climate, Sky, Weather
from gateway.simulator.specs import PlantSpec
from gateway.simulator.trace import Mark, Trace

State = TypeVar("State", DeviceState, ChargerState)

LOGGER: Final = "sec1000"
"""The type of data logger that leads a plant's inverters."""
DAYS_REMEMBERED: Final = 8
DAYS_CLOSED: Final = 62
"""Days whose energies are remembered."""
MAX_STEPS: Final = 720
"""Steps of one catch-up; a longer gap is crossed in longer steps."""
MAX_STEP: Final = 900.0
"""Seconds of the longest step; what is older than 720 of them is left out (about a week)."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A plant at one time."""

    time: float
    """POSIX seconds of the physics clock."""
    sky: Sky
    flow: PlantFlow
    devices: tuple[DeviceState, ...]
    grid: GridMeters
    weather: Weather
    household: float
    """W that the site consumes, without EV chargers and inverters' losses."""
    chargers: tuple[ChargerState, ...] = ()
    orders: Setpoints = Setpoints()
    """Setpoints of the plant's data logger."""


class _Begun(msgspec.Struct, frozen=True, gc=False):
    """A step that is under way."""

    time: float
    state: InitialState
    flow: PlantFlow


class Plant:
    """A plant that remembers. Its time only moves forward."""

    def __init__(
        self, spec: PlantSpec, seed: int, start: float, *, dawn: InitialState | None = None, step: float = STEP
    ) -> None:
        """Begin at `start`, POSIX seconds. With a `dawn`, that is the midnight at which the plant was so."""
        self.spec = spec
        self.climate = Climate(spec, seed)
        self._garages = [Garage(a.serial, a.charger, spec.zone, seed) for a in spec.chargers if a.charger]
        self._step = step
        self._trace = Trace()
        self._batteries = tuple(n for n, device in enumerate(spec.devices) if device.model.battery)
        self._reading: Reading | None = None
        """The last one. Many devices of one plant are asked about at the same time."""
        self._begun: _Begun | None = None
        """When the step that is under way began, with what, and the power that flows until it ends."""
        self.born = datetime.fromtimestamp(start, spec.zone).date()
        """The local day on which its simulation began."""
        self.dawns: dict[date, InitialState] = {}
        """The newest days it lived through, today's last."""
        self.changes: dict[date, list[Change]] = {}
        """What was done on those days."""
        self.closed: dict[date, InitialState] = {}
        """Days that are over, as they ended."""
        if spec.region and dawn is None:
            self._state = sketch(spec, seed, start)
            """As it stands at `time`."""
            self.time = start
            """POSIX seconds up to which energy is settled."""
            self._begin_day(self.born)
            self._note()
            return
        self._state = dawn or first_dawn(spec, self.climate, self._garages, seed, self.born)
        self.time = midnight(spec, self.born)
        self._begin_day(self.born)
        self._note()
        # The day did not begin when the simulator did.
        self._cross(start, MAX_STEP)
        self._commit(start - self.time)

    def at(self, time: float) -> Reading:
        """Return the plant at a time not before the last one asked for."""
        if self._reading is not None and self._reading.time == time:
            return self._reading
        self._advance(time)
        time = max(time, self.time)
        partial = time - self.time
        self._reading = self.read(time, self._after(self._under_way(), partial) if partial > 0 else self._state)
        return self._reading

    def _under_way(self) -> PlantFlow:
        known = self._begun
        if known is None or known.time != self.time or known.state is not self._state:
            flow = self._solve(self.time, self._state, self._step)
            known = self._begun = _Begun(self.time, self._state, flow)
        return known.flow

    def read(self, time: float, carried: InitialState) -> Reading:
        """Return the plant at a time at which it carries that."""
        sky = self.climate.sky(time)
        return Reading(
            time,
            sky,
            self._solve(time, carried),
            carried.devices,
            carried.grid,
            self.climate.weather(time, sky),
            self.climate.load(time),
            carried.chargers,
            carried.orders,
        )

    def flows(self, times: Iterable[float]) -> Iterator[tuple[DeviceFlow, ...]]:
        """Yield the power of each inverter at times up to the last one asked for, exactly as `at` had it.

        Raises LookupError for a time of which nothing is known any more.
        """
        mark: Mark | None = None
        under_way: PlantFlow | None = None
        for time in times:
            if mark is None or not mark.time <= time < mark.until:
                mark, under_way = self._trace.before(time, self._batteries), None
            carried = mark.carried
            if not self._batteries and not self._garages:
                alone = solve_alone(self.spec, carried.devices, self.climate.sky(time), carried.orders)
                if alone is not None:
                    yield alone
                    continue
            elif time > mark.time:
                under_way = under_way or self._solve(mark.time, carried, self._step)
                carried = self._carried(carried, mark.time, under_way, time - mark.time)
            yield self._solve(time, carried).devices

    def parked(self, time: float) -> tuple[ChargerState, ...]:
        """Return its EV chargers with nothing left to do at a time."""
        return tuple(garage.parked(time) for garage in self._garages)

    def command(self, serial: str, setpoints: Mapping[str, Value], time: float) -> None:
        """Have a device obey from `time` on: an inverter, an EV charger, or the data logger for all inverters."""
        self.change(Change(time, serial, setpoints, None))

    def trip(self, serial: str, time: float, *, tripped: bool) -> None:
        """Break a device, or repair it. What has no power of its own to lose goes on."""
        self.change(Change(time, serial, {}, tripped))

    def setpoints(self, serial: str) -> Setpoints:
        """Return the setpoints of a device."""
        accessory = self.spec.extras.get(serial)
        if accessory is None:
            return self._state.devices[self.spec.by_serial[serial]].setpoints
        if accessory.charger:
            return self._state.chargers[self.spec.chargers.index(accessory)].setpoints
        return self._state.orders if accessory.type == LOGGER else Setpoints()

    def change(self, change: Change) -> None:
        """Do something to a device. Raises KeyError for an unknown one."""
        _, serial, setpoints, tripped = change
        accessory = self.spec.extras.get(serial)
        position = self.spec.by_serial[serial] if accessory is None else 0
        self._reading = None
        self._advance(change.time)
        self._commit(max(change.time - self.time, 0.0))
        state = self._state
        if accessory is None:
            self._state = msgspec.structs.replace(state, devices=_changed(state.devices, position, setpoints, tripped))
        elif accessory.charger:
            position = self.spec.chargers.index(accessory)
            self._state = msgspec.structs.replace(
                state, chargers=_changed(state.chargers, position, setpoints, tripped)
            )
        elif accessory.type == LOGGER:
            self._state = msgspec.structs.replace(state, orders=state.orders.after(setpoints))
        elif setpoints:
            raise ValueError(f"a {accessory.type} takes no commands")
        self.changes[self._today].append(change)
        self._note()

    def _advance(self, time: float) -> None:
        """Settle all whole steps up to `time`; where they are too many, longer ones up to shortly before."""
        if time - self.time > MAX_STEPS * self._step:
            # The step that was begun ends as it was already reported.
            self._cross((floor(self.time / self._step) + 1) * self._step, self._step)
            if time - self.time > MAX_STEPS * MAX_STEP:
                self._skip(floor((time - MAX_STEPS * MAX_STEP) / self._step) * self._step)
            self._cross(time, ceil((time - self.time) / MAX_STEPS / self._step) * self._step)
        self._cross(time, self._step)

    def _cross(self, time: float, step: float) -> None:
        """Settle steps on the grid of `step` seconds, as many as end by `time`; none goes past a midnight."""
        while (end := min((floor(self.time / step) + 1) * step, self._midnight)) <= time:
            self._commit(end - self.time)

    def _commit(self, seconds: float) -> None:
        if seconds > 0:
            flow = self._solve(self.time, self._state, max(seconds, self._step))
            self._state = self._after(flow, seconds)
            self.time += seconds
            self._note()
        if self.time >= self._midnight:
            self._turn_day()

    def _skip(self, time: float) -> None:
        """Leave time out: counters stand, days pass."""
        self.time = time
        self._state = msgspec.structs.replace(self._state, chargers=self._seen(self._state.chargers, time))
        self._note()
        if time >= self._midnight:
            self._turn_day()

    def _turn_day(self) -> None:
        today = datetime.fromtimestamp(self.time, self.spec.zone).date()
        self.closed[self._today] = self._state
        year = today.year != self._today.year
        turn = Turn(month=year or today.month != self._today.month, year=year)
        self._state = msgspec.structs.replace(
            self._state,
            devices=tuple(state.next_day(turn) for state in self._state.devices),
            grid=self._state.grid.next_day(turn),
        )
        self._begin_day(today)

    def _begin_day(self, today: date) -> None:
        self._today = today
        self._midnight = midnight(self.spec, today + timedelta(days=1))
        self.dawns[today] = self._state
        self.changes[today] = []
        for days, kept in ((self.dawns, DAYS_REMEMBERED), (self.changes, DAYS_REMEMBERED), (self.closed, DAYS_CLOSED)):
            while len(days) > kept:
                days.pop(next(iter(days)))

    def _seen(self, chargers: tuple[ChargerState, ...], time: float) -> tuple[ChargerState, ...]:
        return tuple(garage.seen(state, time) for garage, state in zip(self._garages, chargers, strict=True))

    def _after(self, flow: PlantFlow, seconds: float) -> InitialState:
        """Return its state after that power has flowed for that long."""
        return self._carried(self._state, self.time, flow, seconds)

    def _carried(self, state: InitialState, time: float, flow: PlantFlow, seconds: float) -> InitialState:
        """Return a state after that power has flowed for that long from a time on."""
        charged = tuple(s.after(p, seconds) for s, p in zip(state.chargers, flow.chargers, strict=True))
        return InitialState(
            tuple(s.after(f, seconds) for s, f in zip(state.devices, flow.devices, strict=True)),
            self._seen(charged, time + seconds),
            state.grid.after(flow.grid, flow.load, seconds),
            state.orders,
        )

    def _note(self) -> None:
        self._trace.note(self.time, self._state, self._batteries)

    def _solve(self, time: float, carried: InitialState, horizon: float = STEP) -> PlantFlow:
        climate, chargers = self.climate, carried.chargers
        powers = tuple(garage.power(state, horizon) for garage, state in zip(self._garages, chargers, strict=True))
        demand = Demand(climate.sky(time), climate.load(time), climate.hour(time), carried.orders, powers)
        return solve(self.spec, carried.devices, demand, horizon)


def _changed(
    states: tuple[State, ...], position: int, setpoints: Mapping[str, Value], tripped: bool | None
) -> tuple[State, ...]:
    changed = list(states)
    state = states[position]
    changed[position] = msgspec.structs.replace(
        state,
        setpoints=state.setpoints.after(setpoints),
        tripped=state.tripped if tripped is None else tripped,
    )
    return tuple(changed)
