"""The registers that can be written, and what values they take."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.core.points import WORK_MODES

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
    1: None,  # automatic: as the work mode says
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
EMS_SHOWN: Final[Mapping[str, int]] = {"idle": 8, "charge": 11, "discharge": 12}
"""What the mode reads as when somebody else has commanded the battery."""
AUTOMATIC: Final = 1
ECO: Final = WORK_MODES.index("eco")

UNSET_SCHEDULE: Final = (0x3000, 0x3000, 0x0000, 0x0064, 0x0064, 0x0000)
"""From 48:00 to 48:00, off: what an empty group of a real inverter says."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A register that can be written."""

    address: int
    name: str
    text: str
    takes: Callable[[int], bool]
    """Whether it takes this number. The device's and the user's limits are checked elsewhere."""
    setpoint: str = ""
    """What it is for. Empty: it is only kept, for others to use."""
    exponent: int = 0
    unit: str = ""


def _upto(high: int) -> Callable[[int], bool]:
    return lambda word: word <= high


def _schedule(group: int) -> list[Setting]:
    names = ("start", "end", "days", "power", "soc", "months")
    return [
        Setting(
            address=SCHEDULE + SCHEDULE_WORDS * (group - 1) + n,
            name=f"schedule{group}_{name}",
            text=f"Eco schedule {group}: {name}",
            takes=_upto(0xFFFF),
        )
        for n, name in enumerate(names)
    ]


_ANY_NUMBER: Final = _upto(0xFFFE)
_SETTINGS: Final = (
    Setting(address=COLD_START, name="cold_start", text="Cold start; kept, without effect", takes=_ANY_NUMBER),
    Setting(address=BACKUP_SUPPLY, name="backup_supply", text="Backup supply; kept, without effect", takes=_ANY_NUMBER),
    Setting(
        address=ACTIVE_POWER,
        name="active_power_limit",
        text="Limit of active power, of rated power",
        takes=_ANY_NUMBER,
        setpoint="active_power_limit",
        exponent=-1,
        unit="%",
    ),
    Setting(
        address=WORK_MODE,
        name="work_mode",
        text="Work mode: " + ", ".join(f"{n} {word}" for n, word in enumerate(WORK_MODES)),
        takes=_upto(len(WORK_MODES) - 1),
        setpoint="work_mode",
    ),
    Setting(
        address=SHUTDOWN,
        name="shutdown",
        text="Remote shutdown: 1 stands still, 0 runs",
        takes=_upto(1),
        setpoint="running",
    ),
    Setting(
        address=EXPORT_SWITCH,
        name="export_switch",
        text="Export limit: 1 on, 0 off",
        takes=_upto(1),
        setpoint="export_limit",
    ),
    Setting(
        address=EXPORT_LIMIT,
        name="export_limit",
        text="Limit of the power fed into the grid; acts while the switch is on",
        takes=_ANY_NUMBER,
        setpoint="export_limit",
        unit="W",
    ),
    Setting(
        address=EMS_MODE,
        name="ems_mode",
        text="Energy management: " + ", ".join(f"{mode} {order or 'no order'}" for mode, order in EMS_ORDERS.items()),
        takes=EMS_ORDERS.__contains__,
        setpoint="battery_mode",
    ),
    Setting(
        address=EMS_POWER,
        name="ems_power",
        text="Power to charge or discharge with; acts while the mode is such",
        takes=_ANY_NUMBER,
        setpoint="battery_power_target",
        unit="W",
    ),
    Setting(
        address=CLEAR_SCHEDULES,
        name="clear_schedules",
        text="1 empties the schedules",
        takes=lambda word: word == 1,
    ),
    *(setting for group in range(1, SCHEDULES + 1) for setting in _schedule(group)),
)
SETTINGS: Final[Mapping[int, Setting]] = {setting.address: setting for setting in _SETTINGS}
"""Address → register, in the order of the table."""
DEFAULTS: Final[Mapping[int, int]] = {
    COLD_START: 0,
    BACKUP_SUPPLY: 0,
    EMS_MODE: AUTOMATIC,
    CLEAR_SCHEDULES: 0,
    **{
        SCHEDULE + SCHEDULE_WORDS * group + n: word
        for group in range(SCHEDULES)
        for n, word in enumerate(UNSET_SCHEDULE)
    },
}
"""What reads where nobody has written, and the cloud says nothing. The other settings are then "not there"."""
