"""The gateway's own map: the same addresses for every device, whatever it is.

An address is written in a row, or follows from an index that is; a new point takes an index that was
free, so nothing ever shifts. Addresses are 0-based. FC3 and FC4 read the same.
"""

from collections.abc import Mapping
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
)


def _row(address: int, encoding: Encoding, field: str, text: str, length: int = 0, unit: str = "") -> Row:
    return Row(address=address, encoding=encoding, field=field, text=text, length=length, unit=unit)


IDENTITY: Final = (
    _row(0, UINT16, "data.map_version", "Version of this map"),
    _row(1, UINT16, "device.kind", f"Kind of device: {legend(KINDS)}"),
    _row(2, INT32, "device.rated_power", "Rated power", unit="W"),
    _row(4, STRING, "device.serial", "Serial number", 16),
    _row(20, STRING, "device.name", "Name", 16),
    _row(36, STRING, "device.model", "Model", 16),
    _row(52, STRING, "device.plant", "Serial of the plant it belongs to", 16),
    _row(68, STRING, "device.firmware", "Firmware version", 16),
    _row(100, UINT16, "data.quality", f"Quality of the data: {legend(QUALITIES)}"),
    _row(101, UINT16, "data.status", f"What the device is doing: {legend(STATUSES)}"),
    _row(102, UINT32, "data.age", "Age of the data at the moment of this read", unit="s"),
    _row(104, UINT32, "data.time", "Time of measurement, Unix time (UTC)", unit="s"),
    _row(106, UINT32, "data.updates", "Counts up with every update of this device"),
    _row(108, UINT32, "gateway.uptime", "Seconds since this server started; a heartbeat", unit="s"),
    _row(110, STRING, "data.fault_text", "The fault in words", 32),
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
}

LAST_COMMAND: Final = (
    _row(6000, UINT32, "command.count", "Counts the commands for this device, whoever asked"),
    _row(6002, UINT16, "command.setpoint", f"Setpoint of the last one: {legend(SETPOINT_INDEX)}"),
    _row(6003, UINT16, "command.state", f"Where it stands: 0 none yet, {legend(STATES)}"),
    _row(6004, UINT16, "command.reason", f"Why it was rejected: 0 it was not, {legend(REASONS)}"),
    _row(6006, UINT32, "command.time", "Time of its last step, Unix time (UTC)", unit="s"),
    _row(6008, STRING, "command.id", "Its id", 18),
    _row(6026, STRING, "command.detail", "What happened, in words", 32),
)

ACTIVE_ALARMS: Final = (
    _row(6200, UINT16, "data.alarms_active", "How many alarms are active; shown also while measurements are not"),
    _row(6201, UINT16, "data.alarm_severity", f"Severity of the worst of them: {legend(SEVERITIES)}"),
    _row(6202, UINT32, "data.alarm_time", "When the last of them was raised, Unix time (UTC)", unit="s"),
    _row(6204, STRING, "data.alarm_code", "Its code", 16),
    _row(6220, STRING, "data.alarm_text", "It in words", 32),
)


def _measurements() -> list[Row]:
    rows = [
        Row(
            address=SCALED + 2 * index,
            encoding=UINT32 if point in UNSIGNED else INT32,
            field=point,
            exponent=exponent,
        )
        for index, point, exponent in POINT_INDEX
    ]
    rows += [
        Row(address=FLOATS + 2 * index, encoding=FLOAT32, field=point)
        for index, point, _ in POINT_INDEX
        if point not in UNSIGNED
    ]
    return rows


def _setpoints() -> list[Row]:
    return [
        row
        for point, (exponent, encoding, single_exponent) in SETPOINT_SCALES.items()
        for place in (SETPOINT_INDEX[point],)
        for row in (
            Row(
                address=SET_SCALED + 2 * place,
                encoding=INT32,
                field=point,
                exponent=exponent,
                writable=True,
            ),
            Row(address=SET_FLOATS + 2 * place, encoding=FLOAT32, field=point, writable=True),
            Row(
                address=SET_SINGLE + place,
                encoding=encoding,
                field=point,
                exponent=single_exponent,
                writable=True,
            ),
        )
    ]


def _commands_by_setpoint() -> list[Row]:
    return [
        row
        for point, place in SETPOINT_INDEX.items()
        for address in (COMMAND_BY_SETPOINT + 4 * place,)
        for row in (
            _row(address, UINT16, f"command.{point}.state", f"Last command for {point}: state, as at {COMMAND + 3}"),
            _row(address + 1, UINT16, f"command.{point}.reason", f"Reason, as at {COMMAND + 4}"),
            _row(address + 2, UINT32, f"command.{point}.time", "Time of its last step, Unix time (UTC)", unit="s"),
        )
    ]


NATIVE: Final = RegisterMap(
    "native",
    BLOCKS,
    tuple(
        sorted(
            (*IDENTITY, *_measurements(), *_setpoints(), *LAST_COMMAND, *_commands_by_setpoint(), *ACTIVE_ALARMS),
            key=lambda row: row.address,
        )
    ),
)
