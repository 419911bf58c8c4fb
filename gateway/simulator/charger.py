"""An EV charger and the car that comes to it."""

from datetime import datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.simulator.noise import derive, unit
from gateway.simulator.setpoints import Setpoints
from gateway.simulator.specs import ChargerSpec


class CarDay(NamedTuple):
    """A weekday of the car, by the local clock."""

    leaves: float | None
    comes: float | None
    """Hours; None where it does not."""
    uses: float = 0.0
    """kWh it comes home without."""


WEEK: Final = (
    *(CarDay(7.5, 17.75, 13.0),) * 5,
    # Away over Saturday night.
    CarDay(8.5, None),
    CarDay(None, 9.25, 46.0),
)
"""From Monday on. A day on which it leaves follows one on which it came."""
_LATENESS: Final = 0.6
"""Hours by which it is early or late at most."""


class Stay(NamedTuple):
    """Whether the car is there."""

    plugged: bool
    arrival: int
    """Number of the day on which it last came home."""
    uses: float
    """kWh it came home without."""


class ChargerState(msgspec.Struct, frozen=True, kw_only=True):
    """What a charger carries from one step to the next."""

    setpoints: Setpoints = Setpoints()
    tripped: bool = False
    plugged: bool = False
    arrival: int = 0
    """Number of the day on which this session began."""
    lacks: float = 0.0
    """kWh until the car is full."""
    session: float = 0.0
    """kWh of this session."""
    hours: float = 0.0
    """Hours of charging in this session."""
    total: float = 0.0
    """kWh of its lifetime."""

    def after(self, power: float, seconds: float) -> "ChargerState":
        """Return the state after that power has flowed for that long."""
        if not power:
            return self
        hours = seconds / 3600
        energy = power / 1000 * hours
        return msgspec.structs.replace(
            self,
            lacks=max(self.lacks - energy, 0.0),
            session=self.session + energy,
            hours=self.hours + hours,
            total=self.total + energy,
        )


class Garage:
    """A charger, and when the car comes and goes."""

    def __init__(self, serial: str, spec: ChargerSpec, zone: ZoneInfo, seed: int) -> None:
        self.spec = spec
        self._zone = zone
        self._dice = derive(seed, serial, "car")

    def parked(self, time: float) -> ChargerState:
        """Return a charger with years behind it and nothing to do: a car that is there is full."""
        stay = self.stay(time)
        return ChargerState(
            plugged=stay.plugged,
            arrival=stay.arrival,
            session=stay.uses,
            hours=1000 * stay.uses / self.spec.power,
            total=stay.uses + 1000 + 9000 * unit(self._dice, 0),
        )

    def seen(self, state: ChargerState, time: float) -> ChargerState:
        """Return the charger once it has seen whether the car is there. One that came back begins a session."""
        stay = self.stay(time)
        if stay.plugged and stay.arrival != state.arrival:
            lacks = min(state.lacks + stay.uses, self.spec.car)
            return msgspec.structs.replace(
                state, plugged=True, arrival=stay.arrival, lacks=lacks, session=0.0, hours=0.0
            )
        return state if stay.plugged is state.plugged else msgspec.structs.replace(state, plugged=stay.plugged)

    def power(self, state: ChargerState, horizon: float) -> float:
        """Return the W it charges with, so that it can go on like this for `horizon` seconds."""
        if not state.plugged or state.tripped or state.setpoints.charging is False:
            return 0.0
        return min(self.spec.power, state.lacks * 3_600_000 / horizon)

    def stay(self, time: float) -> Stay:
        """Return whether the car is there at a time, POSIX seconds."""
        local = datetime.fromtimestamp(time, self._zone)
        day, number = WEEK[local.weekday()], local.toordinal()
        hour = local.hour + local.minute / 60 + local.second / 3600
        late = _LATENESS * (2 * unit(self._dice, number) - 1)
        if day.comes is not None and hour >= day.comes + late / 2:
            return self._came(number, plugged=True)
        return self._came(number - 1, plugged=day.leaves is not None and hour < day.leaves + late)

    def _came(self, number: int, *, plugged: bool) -> Stay:
        day = WEEK[(number - 1) % len(WEEK)]  # Day 1 was a Monday.
        return Stay(plugged, number, day.uses * (0.7 + 0.6 * unit(self._dice, -number)))
