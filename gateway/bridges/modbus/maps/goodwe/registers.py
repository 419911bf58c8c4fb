"""The registers that can be written, and what values they take."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from gateway.core.points import WORK_MODES

OWN: Final = "goodwe."
"""What the name of a field of this map begins with."""
COLD_START, BACKUP_SUPPLY = 45248, 45252
ACTIVE_POWER: Final = 45484
WORK_MODE, SHUTDOWN = 47000, 47010
EXPORT_SWITCH, EXPORT_LIMIT = 47509, 47510
EMS_MODE, EMS_POWER = 47511, 47512
CLEAR_SCHEDULES: Final = 47533
SCHEDULE: Final = 47547
"""The first of four groups, one after another."""
SCHEDULE_WORDS, SCHEDULES = 6, 4

EMS_ORDERS: Final[Mapping[int, str | None]] = {
    1: None,  # automatic: as the work mode says; the battery is handed back
    2: "charge",  # from PV, and with so much from the grid
    3: "discharge",
    7: None,  # off grid: goes with the work mode of this name
    8: "idle",
    11: "charge",
    12: "discharge",
}
"""Mode of energy management → what the battery is to do; None: no order.

The modes that are not here (4, 5, 6, 9, 10) set a power at the grid, which the gateway has no word for.
"""
EMS_SHOWN: Final[Mapping[str, int]] = {"auto": 1, "idle": 8, "charge": 11, "discharge": 12}
"""What the mode reads as when somebody else has commanded the battery."""
AUTOMATIC: Final = 1
ECO: Final = WORK_MODES.index("eco")

UNSET_SCHEDULE: Final = (0x3000, 0x3000, 0x0000, 0x0064, 0x0064, 0x0000)
"""From 48:00 to 48:00, off: what an empty group of a real inverter says."""


class Setting(msgspec.Struct, frozen=True):
    """A register that can be written."""

    address: int
    name: str
    text: str
    takes: Callable[[int], bool]
    """Whether it takes this number. The device's and the user's limits are checked elsewhere."""
    setpoint: str = ""
    """What it is for. Empty: it is only kept, for others to use."""
    unit: str = ""
    exponent: int = 0


def _upto(high: int) -> Callable[[int], bool]:
    return lambda word: word <= high


def _schedules() -> Iterator[Setting]:
    for group in range(SCHEDULES):
        for n, name in enumerate(("start", "end", "days", "power", "soc", "months")):
            address, text = SCHEDULE + SCHEDULE_WORDS * group + n, f"Eco schedule {group + 1}: {name}"
            yield Setting(address, f"schedule{group + 1}_{name}", text, _upto(0xFFFF))


_ANY_NUMBER: Final = _upto(0xFFFE)
_SWITCH: Final = _upto(1)
_POWER: Final = _upto(0x7FFF)
"""W. A larger one is no power of an inverter that has this map, but a number below 0 to who takes it for signed."""
_MODES: Final = ", ".join(f"{n} {word}" for n, word in enumerate(WORK_MODES))
_ORDERS: Final = ", ".join(f"{mode} {order or 'no order'}" for mode, order in EMS_ORDERS.items())
_LIMIT_OF_EXPORT: Final = "Limit of the power fed into the grid; acts while the switch is on"
_POWER_OF_EMS: Final = "Power to charge or discharge with; acts while the mode is such"
_SETTINGS: Final = (
    Setting(COLD_START, "cold_start", "Cold start; kept, without effect", _ANY_NUMBER),
    Setting(BACKUP_SUPPLY, "backup_supply", "Backup supply; kept, without effect", _ANY_NUMBER),
    Setting(
        ACTIVE_POWER, "active_power_limit", "Limit of active power, of rated power", _ANY_NUMBER,
        "active_power_limit", "%", -1,
    ),
    Setting(WORK_MODE, "work_mode", f"Work mode: {_MODES}", _upto(len(WORK_MODES) - 1), "work_mode"),
    Setting(SHUTDOWN, "shutdown", "Remote shutdown: 1 stands still, 0 runs", _SWITCH, "running"),
    Setting(EXPORT_SWITCH, "export_switch", "Export limit: 1 on, 0 off", _SWITCH, "export_limit"),
    Setting(EXPORT_LIMIT, "export_limit", _LIMIT_OF_EXPORT, _POWER, "export_limit", "W"),
    Setting(EMS_MODE, "ems_mode", f"Energy management: {_ORDERS}", EMS_ORDERS.__contains__, "battery_mode"),
    Setting(EMS_POWER, "ems_power", _POWER_OF_EMS, _POWER, "battery_power_target", "W"),
    Setting(CLEAR_SCHEDULES, "clear_schedules", "1 empties the schedules", lambda word: word == 1),
    *_schedules(),
)  # fmt: skip
SETTINGS: Final[Mapping[int, Setting]] = {setting.address: setting for setting in _SETTINGS}
"""Address → register, in the order of the table."""
DEFAULTS: Final[Mapping[int, int]] = {
    COLD_START: 0,
    BACKUP_SUPPLY: 0,
    EMS_MODE: AUTOMATIC,
    EMS_POWER: 0,
    CLEAR_SCHEDULES: 0,
    **{
        SCHEDULE + SCHEDULE_WORDS * group + n: word
        for group in range(SCHEDULES)
        for n, word in enumerate(UNSET_SCHEDULE)
    },
}
"""What reads before anything is written, and the cloud says nothing. The other settings are then "not there"."""
