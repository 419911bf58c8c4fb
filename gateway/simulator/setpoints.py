"""The setpoints of devices, and which hold where two devices have different ones."""

from collections.abc import Mapping
from typing import Final, Self

import msgspec

from gateway.core.model import Value
from gateway.core.points import AUTO, NONE

_ENDS: Final[Mapping[str, Mapping[str, Value]]] = {
    "reactive_power": {"power_factor": 1.0},
    "power_factor": {"reactive_power": 0.0},
    "work_mode": {"battery_mode": AUTO, "battery_power_target": None, "battery_target_soc": None},
}
"""Setpoint → what an order for it puts an end to. An inverter keeps one rule for reactive power, and a battery that
is given a strategy is no longer dispatched."""


class Setpoints(msgspec.Struct, frozen=True, gc=False):
    """The setpoints that a device has, by the names of the point table."""

    running: bool = True
    active_power_limit: float = 100.0
    reactive_power: float = 0.0
    power_factor: float = 1.0
    export_limit: float | None = None
    """None: never set, so there is no limit."""
    work_mode: str = "general"
    battery_mode: str = AUTO
    """`auto`: no order, so the battery follows `work_mode`."""
    battery_power_target: float | None = None
    battery_target_soc: float | None = None
    battery_reserve_soc: float | None = None
    """The battery is not discharged below it, whoever says so; None: never set."""
    charging: bool | None = None
    """None: never set, so a car is charged when it is plugged in."""

    @property
    def most_exported(self) -> float | None:
        """W that the plant may feed in; None for as much as there is."""
        return 0.0 if self.work_mode == "off_grid" else self.export_limit

    def after(self, order: Mapping[str, Value]) -> Self:
        """Return the setpoints after an order."""
        ended = {name: value for setpoint in order for name, value in _ENDS.get(setpoint, {}).items()}
        given = {name: None if value == NONE else value for name, value in order.items()}
        return msgspec.structs.replace(self, **{**ended, **given})

    def said(self) -> dict[str, Value]:
        """Return them as they are asked for: no limit and no reserve are `none`."""
        limits = ("export_limit", "battery_reserve_soc")
        return msgspec.structs.asdict(self) | {name: NONE for name in limits if getattr(self, name) is None}

    def within(self, plant: "Setpoints") -> Self:
        """Return what holds for an inverter whose plant's data logger has setpoints too.

        The tighter of two limits; the logger's reactive power goes first where it has been set.
        """
        limit = min(self.active_power_limit, plant.active_power_limit)
        reactive = plant if plant.reactive_power or abs(plant.power_factor) != 1 else self
        if limit == self.active_power_limit and reactive is self:
            return self
        return msgspec.structs.replace(
            self,
            active_power_limit=limit,
            reactive_power=reactive.reactive_power,
            power_factor=reactive.power_factor,
        )
