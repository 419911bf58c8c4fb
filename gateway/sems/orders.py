"""What goes into a call that carries several setpoints: the one commanded, and the others as they stand."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from gateway.core.model import Command, Value
from gateway.core.points import SETPOINTS

WINDOW: Final = timedelta(days=365)
"""How long a battery command holds where SEMS wants an end. Ours: until the next one, which a year stands for."""
FULL: Final = 100.0


def together(command: Command, in_force: Mapping[str, Value], lowest_soc: float) -> dict[str, Value]:
    """Return the value of each setpoint of the command's group; of one that was never set, the neutral one.

    `lowest_soc` (%) is where a discharge stops whose target was never set.
    """
    filled: dict[str, Value] = {
        setpoint: SETPOINTS[setpoint].neutral if value is None else value for setpoint, value in in_force.items()
    }
    filled[command.setpoint] = command.value
    if "battery_target_soc" in filled and filled["battery_target_soc"] is None:
        filled["battery_target_soc"] = FULL if filled.get("battery_mode") == "charge" else lowest_soc
    return filled
