"""The gateway's own map: the same addresses for every device, whatever it is.

An address is written in a row, or follows from an index that is; a new point takes an index that was
free, so nothing ever shifts. Addresses are 0-based. FC3 and FC4 read the same.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.bridges.modbus.codec import Encoding
from gateway.bridges.modbus.codes import (
    KINDS,
    QUALITIES,
    REASONS,
    SETPOINT_INDEX,
    SEVERITIES,
    STATES,
    STATUSES,
    legend,
)
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.core.points import POINTS

VERSION: Final = 1
"""Counts up when the meaning of an address changes, not when one is added."""

UINT16, UINT32, INT32 = Encoding.UINT16, Encoding.UINT32, Encoding.INT32
FLOAT32, STRING = Encoding.FLOAT32, Encoding.STRING

SCALED, FLOATS = 1000, 3000
POINT_SLOTS: Final = 125
SET_SCALED, SET_FLOATS, SET_SINGLE = 5000, 5500, 5800
SETPOINT_SLOTS: Final = 25
COMMAND, COMMAND_BY_SETPOINT = 6000, 6100
ALARMS = 6200
OVERVIEW, TOTALS, FLEET = 6300, 6400, 6500

BLOCKS: Final = (
    Block(start=0, count=150, title="Identity and state", live=True),
    Block(start=SCALED, count=2 * POINT_SLOTS, title="Measurements, scaled integers", gated=True),
    Block(start=FLOATS, count=2 * POINT_SLOTS, title="Measurements, float32", gated=True),
    Block(start=SET_SCALED, count=2 * SETPOINT_SLOTS, title="Setpoints, scaled integers"),
    Block(start=SET_FLOATS, count=2 * SETPOINT_SLOTS, title="Setpoints, float32"),
    Block(start=SET_SINGLE, count=SETPOINT_SLOTS, title="Setpoints, one register each"),
    Block(start=COMMAND, count=64, title="Last command"),
    Block(start=COMMAND_BY_SETPOINT, count=4 * SETPOINT_SLOTS, title="Last command, by setpoint"),
    Block(start=ALARMS, count=64, title="Active alarms"),
    Block(start=OVERVIEW, count=60, title="Overview: what most clients want, in one read", live=True),
    Block(start=TOTALS, count=60, title="Energy totals, also while measurements are not good", live=True),
    Block(start=FLEET, count=60, title="Fleet: what it does, and what it could; limit: where it stands", live=True),
)


IDENTITY: Final = (
    Row(0, UINT16, "data.map_version", "Version of this map"),
    Row(1, UINT16, "device.kind", f"Kind of device: {legend(KINDS)}"),
    Row(2, INT32, "device.rated_power", "Rated power", unit="W"),
    Row(4, STRING, "device.serial", "Serial number", length=16),
    Row(20, STRING, "device.name", "Name", length=16),
    Row(36, STRING, "device.model", "Model", length=16),
    Row(52, STRING, "device.plant", "Serial of the plant it belongs to", length=16),
    Row(68, STRING, "device.firmware", "Firmware version", length=16),
    Row(100, UINT16, "data.quality", f"Quality of the data: {legend(QUALITIES)}"),
    Row(101, UINT16, "data.status", f"What the device is doing: {legend(STATUSES)}"),
    Row(102, UINT32, "data.age", "Age of the data at the moment of this read", unit="s"),
    Row(104, UINT32, "data.time", "Time of measurement, Unix time (UTC)", unit="s"),
    Row(106, UINT32, "data.updates", "Counts up with every update of this device"),
    Row(108, UINT32, "gateway.uptime", "Seconds since this server started; a heartbeat", unit="s"),
    Row(110, STRING, "data.fault_text", "The fault in words", length=32),
)

POINT_INDEX: Final[tuple[tuple[int, str, int], ...]] = (
    # index, point, exponent of the scaled integer
    (0, "status", 0),
    (1, "fault_code", 0),
    (2, "ev_status", 0),
    (3, "signal_strength", 0),
    (4, "alarms_active", 0),
    (5, "alarm_severity", 0),
    # power
    (10, "ac_power", 0),
    (11, "ac_reactive_power", 0),
    (12, "ac_apparent_power", 0),
    (13, "ac_power_factor", -3),
    (14, "pv_power", 0),
    (15, "load_power", 0),
    (16, "grid_power", 0),
    (17, "backup_power", 0),
    (18, "battery_power", 0),
    # AC
    (25, "l1_voltage", -1),
    (26, "l1_current", -2),
    (27, "l1_frequency", -2),
    (28, "l2_voltage", -1),
    (29, "l2_current", -2),
    (30, "l2_frequency", -2),
    (31, "l3_voltage", -1),
    (32, "l3_current", -2),
    (33, "l3_frequency", -2),
    # DC; room for ten strings
    (40, "pv1_voltage", -1),
    (41, "pv1_current", -2),
    (42, "pv2_voltage", -1),
    (43, "pv2_current", -2),
    (44, "pv3_voltage", -1),
    (45, "pv3_current", -2),
    (46, "pv4_voltage", -1),
    (47, "pv4_current", -2),
    # energy: lifetime totals in 0.1 kWh, so that 214 GWh fit
    (60, "energy_today", -2),
    (61, "energy_month", -1),
    (62, "energy_year", -1),
    (63, "energy_total", -1),
    (64, "grid_import_today", -2),
    (65, "grid_import_total", -1),
    (66, "grid_export_today", -2),
    (67, "grid_export_total", -1),
    (68, "load_energy_today", -2),
    (69, "load_energy_total", -1),
    (70, "battery_charge_today", -2),
    (71, "battery_charge_total", -1),
    (72, "battery_discharge_today", -2),
    (73, "battery_discharge_total", -1),
    (74, "operating_hours", -1),
    # battery
    (80, "battery_soc", -1),
    (81, "battery_soh", -1),
    (82, "battery_voltage", -1),
    (83, "battery_current", -2),
    (84, "battery_temperature", -1),
    # device
    (90, "temperature", -1),
    # EV charger
    (94, "ev_power", 0),
    (95, "ev_session_energy", -2),
    (96, "ev_session_time", -2),
    (97, "ev_energy_total", -1),
    # weather
    (100, "irradiance", -1),
    (101, "ambient_temperature", -1),
    (102, "module_temperature", -1),
    (103, "wind_speed", -1),
    (104, "wind_direction", -1),
    (105, "humidity", -1),
    # plant
    (110, "capacity", -2),
    (111, "battery_capacity", -2),
    (112, "income_today", -2),
    (113, "income_total", -2),
)
OWN: Final = "native."
"""What the name of a field begins with that shows a point by itself when that is known now, and else is "not there"."""

INT16: Final = Encoding.INT16
OVERVIEW_POINTS: Final[tuple[tuple[int, str, Encoding, int], ...]] = (
    # address, point, encoding, exponent
    (6308, "ac_power", INT32, 0),
    (6310, "ac_reactive_power", INT32, 0),
    (6312, "grid_power", INT32, 0),
    (6314, "load_power", INT32, 0),
    (6316, "pv_power", INT32, 0),
    (6318, "battery_power", INT32, 0),
    (6320, "battery_soc", INT16, -1),
    (6321, "ac_power_factor", INT16, -3),
    (6322, "energy_today", INT32, -2),
    (6324, "energy_total", INT32, -1),
    (6326, "grid_import_total", INT32, -1),
    (6328, "grid_export_total", INT32, -1),
    (6330, "l1_voltage", UINT16, -1),
    (6331, "l2_voltage", UINT16, -1),
    (6332, "l3_voltage", UINT16, -1),
    (6333, "l1_frequency", UINT16, -2),
    (6334, "l1_current", INT32, -2),
    (6336, "l2_current", INT32, -2),
    (6338, "l3_current", INT32, -2),
    (6340, "temperature", INT16, -1),
    (6342, "fault_code", UINT32, 0),
)
"""With quality, status, age and time before them, and rated power behind: 48 registers."""
FLEET_POINTS: Final[tuple[tuple[int, str, Encoding, int], ...]] = (
    # address, point, encoding, exponent
    (6506, "fleet_state", UINT16, 0),
    (6508, "ac_power", INT32, 0),
    (6510, "available_up", INT32, 0),
    (6512, "available_down", INT32, 0),
    (6514, "tracking_error", INT32, 0),
    (6516, "unplaced_power", INT32, 0),
    (6518, "pv_power", INT32, 0),
    (6520, "battery_power", INT32, 0),
    (6522, "battery_soc", INT16, -1),
    (6524, "battery_capacity", UINT32, -1),
    (6526, "members", UINT32, 0),
    (6528, "members_out", UINT32, 0),
    (6530, "data_age_p50", UINT32, 0),
    (6532, "data_age_p95", UINT32, 0),
    (6534, "writes_today", UINT32, 0),
    (6536, "limit_state", UINT16, 0),
    (6537, "import_limit_state", UINT16, 0),
    (6538, "import_excess", UINT32, 0),
)
"""Behind quality, status, age and time, as in the overview."""
FIRST_TOTAL: Final = 60
TOTAL_SLOTS: Final = 20
"""The indices of POINT_INDEX from 60 to 79 are what only counts up; these keep their last value."""
UNSIGNED: Final = frozenset({"fault_code"})
"""Bit fields: 32 bits without a sign, and no float row, since a float keeps 24."""

SETPOINT_SCALES: Final[Mapping[str, tuple[int, Encoding, int]]] = {
    # exponent of the 32-bit integer; encoding and exponent of the single register
    "running": (0, UINT16, 0),
    "active_power_limit": (-1, Encoding.INT16, -1),
    "reactive_power": (-1, Encoding.INT16, -1),
    "power_factor": (-3, Encoding.INT16, -3),
    "export_limit": (0, UINT16, 1),
    "work_mode": (0, UINT16, 0),
    "battery_mode": (0, UINT16, 0),
    "battery_power_target": (0, UINT16, 1),
    "battery_target_soc": (-1, Encoding.INT16, -1),
    "charging": (0, UINT16, 0),
    "battery_reserve_soc": (-1, Encoding.INT16, -1),
    "power_target": (0, Encoding.INT16, 3),
    "import_limit": (0, UINT16, 1),
}

LAST_COMMAND: Final = (
    Row(6000, UINT32, "command.count", "Counts the commands for this device, whoever gave them"),
    Row(6002, UINT16, "command.setpoint", f"Setpoint of the last one: {legend(SETPOINT_INDEX)}"),
    Row(6003, UINT16, "command.state", f"Where it stands: 0 none yet, {legend(STATES)}"),
    Row(6004, UINT16, "command.reason", f"Why it was rejected: 0 it was not, {legend(REASONS)}"),
    Row(6006, UINT32, "command.time", "Time of its last step, Unix time (UTC)", unit="s"),
    Row(6008, STRING, "command.id", "Its id", length=18),
    Row(6026, STRING, "command.detail", "What happened, in words", length=32),
)

ACTIVE_ALARMS: Final = (
    Row(6200, UINT16, "data.alarms_active", "How many alarms are active; shown also while measurements are not"),
    Row(6201, UINT16, "data.alarm_severity", f"Severity of the worst of them: {legend(SEVERITIES)}"),
    Row(6202, UINT32, "data.alarm_time", "When the last of them was raised, Unix time (UTC)", unit="s"),
    Row(6204, STRING, "data.alarm_code", "Its code", length=16),
    Row(6220, STRING, "data.alarm_text", "It in words", length=32),
)


def _measurements() -> list[Row]:
    scaled = [
        Row(SCALED + 2 * index, UINT32 if point in UNSIGNED else INT32, point, exponent=exponent)
        for index, point, exponent in POINT_INDEX
    ]
    floats = [Row(FLOATS + 2 * index, FLOAT32, point) for index, point, _ in POINT_INDEX if point not in UNSIGNED]
    return scaled + floats


def _state(start: int) -> list[Row]:
    """Return what stands before values, so that one read says how good and how old they are."""
    return [
        Row(start, UINT16, "data.quality", f"Quality of the data: {legend(QUALITIES)}"),
        Row(start + 1, UINT16, "data.status", f"What the device is doing: {legend(STATUSES)}"),
        Row(start + 2, UINT32, "data.age", "Age of the data at the moment of this read", unit="s"),
        Row(start + 4, UINT32, "data.time", "Time of measurement, Unix time (UTC)", unit="s"),
    ]


def _by_itself(address: int, point: str, encoding: Encoding, exponent: int) -> Row:
    known = POINTS[point]
    words = f": {legend({option: n for n, option in enumerate(known.options)})}" if known.options else ""
    return Row(address, encoding, OWN + point, known.description + words, exponent, known.unit)


def _overview() -> list[Row]:
    return [
        *_state(OVERVIEW),
        Row(6306, UINT16, "data.alarms_active", "How many alarms are active"),
        Row(6307, UINT16, "data.alarm_severity", f"Severity of the worst of them: {legend(SEVERITIES)}"),
        *(_by_itself(*place) for place in OVERVIEW_POINTS),
        Row(6341, UINT16, "device.kind", f"Kind of device: {legend(KINDS)}"),
        Row(6344, INT32, "device.rated_power", "Rated power", unit="W"),
        Row(6346, UINT32, "data.updates", "Counts up with every update of this device"),
    ]


def _totals() -> list[Row]:
    """Return the totals in the order of their indices: index 60 of the measurements is at 6410."""
    return [
        *_state(TOTALS),
        *(
            _by_itself(TOTALS + 10 + 2 * (index - FIRST_TOTAL), point, INT32, exponent)
            for index, point, exponent in POINT_INDEX
            if FIRST_TOTAL <= index < FIRST_TOTAL + TOTAL_SLOTS
        ),
    ]


def _fleet() -> list[Row]:
    return [*_state(FLEET), *(_by_itself(*place) for place in FLEET_POINTS)]


def _setpoints() -> Iterator[Row]:
    for point, (exponent, encoding, single_exponent) in SETPOINT_SCALES.items():
        place = SETPOINT_INDEX[point]
        yield Row(SET_SCALED + 2 * place, INT32, point, exponent=exponent, writable=True)
        yield Row(SET_FLOATS + 2 * place, FLOAT32, point, writable=True)
        yield Row(SET_SINGLE + place, encoding, point, exponent=single_exponent, writable=True)


def _commands_by_setpoint() -> Iterator[Row]:
    for point, place in SETPOINT_INDEX.items():
        at, field = COMMAND_BY_SETPOINT + 4 * place, f"command.{point}"
        yield Row(at, UINT16, f"{field}.state", f"Last command for {point}: state, as at {COMMAND + 3}")
        yield Row(at + 1, UINT16, f"{field}.reason", f"Reason, as at {COMMAND + 4}")
        yield Row(at + 2, UINT32, f"{field}.time", "Time of its last step, Unix time (UTC)", unit="s")


_ROWS: Final = (
    *IDENTITY,
    *_overview(),
    *_totals(),
    *_fleet(),
    *_measurements(),
    *_setpoints(),
    *LAST_COMMAND,
    *_commands_by_setpoint(),
    *ACTIVE_ALARMS,
)
NATIVE: Final = RegisterMap("native", BLOCKS, tuple(sorted(_ROWS, key=lambda row: row.address)))

KEPT: Final[Mapping[str, str]] = {
    OWN + point: point for index, point, _ in POINT_INDEX if FIRST_TOTAL <= index < FIRST_TOTAL + TOTAL_SLOTS
}
"""Field → the point it shows: its last value, also while data are not good."""
NOW: Final[Mapping[str, str]] = {
    OWN + point: point for _, point, _, _ in (*OVERVIEW_POINTS, *FLEET_POINTS) if OWN + point not in KEPT
}
"""Field → the point it shows while data are good."""
