"""Counters of energy."""

from typing import NamedTuple

import msgspec


class Meter(msgspec.Struct, frozen=True, gc=False):
    """A counter of energy, kWh; or of hours."""

    today: float
    month: float
    year: float
    total: float

    def plus(self, amount: float) -> "Meter":
        """Return the meter after `amount` more."""
        return Meter(self.today + amount, self.month + amount, self.year + amount, self.total + amount)

    def next_day(self, turn: "Turn") -> "Meter":
        """Return the meter at local midnight."""
        return Meter(0.0, 0.0 if turn.month else self.month, 0.0 if turn.year else self.year, self.total)


class Turn(NamedTuple):
    """What begins at a midnight, besides a day."""

    month: bool
    year: bool


class GridMeters(msgspec.Struct, frozen=True, gc=False):
    """The counters of the plant's grid connection."""

    bought: Meter
    sold: Meter
    consumed: Meter

    def next_day(self, turn: "Turn") -> "GridMeters":
        """Return the counters at local midnight."""
        return GridMeters(self.bought.next_day(turn), self.sold.next_day(turn), self.consumed.next_day(turn))

    def after(self, grid: float, load: float, seconds: float) -> "GridMeters":
        """Return the counters after that power, W, has flowed for that long. Grid > 0 imports."""
        kilo_hours = seconds / 3_600_000
        return GridMeters(
            self.bought.plus(max(grid, 0.0) * kilo_hours),
            self.sold.plus(max(-grid, 0.0) * kilo_hours),
            self.consumed.plus(load * kilo_hours),
        )
