"""The registers as tables, a row each.

A row names a point of the point table where the register shows it as it is and says "not there" in the usual
way (all bits set, which is what the real inverter does too). Everything else is a field of this map,
`goodwe.…`: values.py makes the measured ones, panel.py the settings.
"""

from collections.abc import Iterator
from typing import Final

from gateway.bridges.modbus.codec import Encoding
from gateway.bridges.modbus.maps.goodwe.registers import OWN, SETTINGS
from gateway.bridges.modbus.maps.row import Block, RegisterMap, Row
from gateway.core.model import Value

UINT16, INT16, UINT32, INT32 = Encoding.UINT16, Encoding.INT16, Encoding.UINT32, Encoding.INT32
FLOAT32, STRING = Encoding.FLOAT32, Encoding.STRING
PROTOCOL: Final = 2
"""As a GW10K-ET says. The library reads it and draws no conclusion."""
NO_TEMPERATURE: Final = 3276.7
"""0x7FFF, which the library takes as no temperature."""
NO_COUNTRY: Final = 0xFFFE
"""No country's number. All bits set, and 0 too, would read as Italy."""

BLOCKS: Final = (
    Block(start=35000, count=50, title="Device information"),
    Block(start=35100, count=125, title="Running data", gated=True),
    Block(start=35301, count=65, title="Running data of MPP trackers", gated=True),
    Block(start=36000, count=125, title="Meter", gated=True),
    Block(start=37000, count=78, title="Battery", gated=True),
    Block(start=45200, count=3, title="Clock"),
    Block(start=45248, count=1, title="Cold start"),
    Block(start=45252, count=1, title="Backup supply"),
    Block(start=45484, count=1, title="Limit of active power"),
    Block(start=47000, count=1, title="Work mode"),
    Block(start=47010, count=1, title="Remote shutdown"),
    Block(start=47509, count=4, title="Export limit, energy management"),
    Block(start=47533, count=1, title="Empties the schedules"),
    Block(start=47547, count=24, title="Schedules"),
    Block(start=47900, count=11, title="Battery management system", gated=True),
    Block(start=47918, count=11, title="Battery management system of a second battery", gated=True),
)
"""What the library reads, in the chunks it reads.

Not here are settings of which nothing is known, and which would say something false if they read as 0 ("the state of
charge ends at 0 %", "protection is off"). Exception 02 tells the library that this inverter has none.
"""


def _point(address: int, encoding: Encoding, point: str, exponent: int = 0) -> Row:
    return Row(address, encoding, point, exponent=exponent)


def _own(
    at: int,
    encoding: Encoding,
    name: str,
    text: str,
    exponent: int = 0,
    unit: str = "",
    length: int = 0,
    constant: Value = None,
) -> Row:
    return Row(at, encoding, OWN + name, text, exponent, unit, length, constant=constant)


def _cold(address: int, text: str) -> Row:
    return _own(address, INT16, "no_temperature", text, -1, "°C", constant=NO_TEMPERATURE)


def _clock(address: int) -> list[Row]:
    return [
        _own(address, UINT16, "clock_month", "Clock, UTC: year - 2000 in the high byte, month in the low"),
        _own(address + 1, UINT16, "clock_hour", "Clock: day, hour"),
        _own(address + 2, UINT16, "clock_second", "Clock: minute, second"),
    ]


INFORMATION: Final = (
    _own(35000, UINT16, "protocol", "Version of the protocol", constant=PROTOCOL),
    _own(35001, UINT16, "rated_power", "Rated power; 0 where it is not known", unit="W"),
    _own(35002, UINT16, "output_type", "AC output: 0 single phase, 1 three phases"),
    _own(35003, STRING, "serial", "Serial number", length=8),
    _own(35011, STRING, "model", "Model", length=5),
    _own(35021, STRING, "firmware", "Firmware version", length=6),
    _own(35027, STRING, "arm_firmware", "Firmware version of the ARM; blank", length=6),
)


def _strings() -> Iterator[Row]:
    for n in range(1, 5):
        at = 35099 + 4 * n
        yield _point(at, UINT16, f"pv{n}_voltage", -1)
        yield _point(at + 1, UINT16, f"pv{n}_current", -1)
        yield _own(at + 2, UINT32, f"pv{n}_power", f"Power of PV string {n}", unit="W")


def _phases() -> Iterator[Row]:
    for n in range(1, 4):
        at = 35116 + 5 * n
        yield _point(at, UINT16, f"l{n}_voltage", -1)
        yield _own(at + 1, UINT16, f"l{n}_current", f"AC current of phase L{n}, without a sign", -1, "A")
        yield _own(at + 2, INT16, f"l{n}_frequency", f"AC frequency of phase L{n}", -2, "Hz")
        yield _own(at + 3, INT32, f"l{n}_power", f"Power of phase L{n}; known of single-phase devices only", unit="W")


# A power is 32 bits with a sign; the library and others read the low register of it, so that all end at ±32767.
POWERS: Final = (
    _own(35119, UINT16, "pv_modes_43", "PV strings 4 and 3, a byte each: 0 none, 1 no power, 2 producing"),
    _own(35120, UINT16, "pv_modes_21", "PV strings 2 and 1"),
    _own(35136, UINT16, "grid_mode", "Grid: 0 not connected, 1 connected, 2 fault"),
    _own(35137, INT32, "ac_power", "Active power of the inverter; > 0 feeds in", unit="W"),
    _own(35139, INT32, "export_power_short", "Power at the grid connection; > 0 exports; ends at ±32767", unit="W"),
    _own(35141, INT32, "ac_reactive_power", "Reactive power; > 0 is given", unit="var"),
    _own(35143, INT32, "ac_apparent_power", "Apparent power", unit="VA"),
    _own(35169, INT32, "backup_power", "Power on the backup output", unit="W"),
    _own(35171, INT32, "load_power", "Consumption but for the backup output", unit="W"),
    _own(35174, INT16, "temperature", "Temperature inside the inverter", -1, "°C"),
    _cold(35175, "Temperature of the module; not known"),
    _cold(35176, "Temperature of the heat sink; not known"),
    _point(35180, UINT16, "battery_voltage", -1),
    _own(35181, INT16, "battery_current", "Battery current; > 0 discharges", -1, "A"),
    _own(35182, INT32, "battery_power", "Battery power; > 0 discharges", unit="W"),
    _own(35184, UINT16, "battery_state", "Battery: 0 none, 1 standby, 2 discharges, 3 charges"),
    _own(35186, UINT16, "no_country", "Safety country; not known", constant=NO_COUNTRY),
    _own(35187, UINT16, "state", "State: 0 waiting, 1 normal, 3 fault"),
    _own(35189, UINT32, "faults", "Fault bits"),
)

ENERGY: Final = (
    _point(35191, UINT32, "energy_total", -1),
    _point(35193, UINT32, "energy_today", -1),
    _point(35195, UINT32, "grid_export_total", -1),
    _point(35197, UINT32, "operating_hours"),
    _point(35199, UINT16, "grid_export_today", -1),
    _point(35200, UINT32, "grid_import_total", -1),
    _point(35202, UINT16, "grid_import_today", -1),
    _point(35203, UINT32, "load_energy_total", -1),
    _point(35205, UINT16, "load_energy_today", -1),
    _point(35206, UINT32, "battery_charge_total", -1),
    _point(35208, UINT16, "battery_charge_today", -1),
    _point(35209, UINT32, "battery_discharge_total", -1),
    _point(35211, UINT16, "battery_discharge_today", -1),
)

TRACKERS: Final = (
    _point(35301, UINT32, "pv_power"),
    *(_own(35304 + n, UINT16, "nothing", "PV strings 5 to 16: voltage, current; not known") for n in range(24)),
    *(_own(35336 + n, UINT16, f"pv{n}_power", f"Power of PV string {n}", unit="W") for n in range(1, 5)),
    *(_own(35336 + n, UINT16, "nothing", "Power of MPP tracker; not known", unit="W") for n in range(5, 9)),
    *(_point(35344 + n, UINT16, f"pv{n}_current", -1) for n in range(1, 5)),
    *(_own(35344 + n, UINT16, "nothing", "Current of MPP tracker; not known", -1, "A") for n in range(5, 9)),
)

METER: Final = (
    _own(36004, UINT16, "meter_status", "Meter: 1 answers, 0 does not"),
    _own(36008, INT16, "export_power_short", "Power at the grid connection; > 0 exports; ends at ±32767", unit="W"),
    _own(36014, INT16, "l1_frequency", "Grid frequency", -2, "Hz"),
    _own(36015, FLOAT32, "meter_export", "Energy sold", -3, "kWh"),
    _own(36017, FLOAT32, "meter_import", "Energy bought", -3, "kWh"),
    _own(36025, INT32, "export_power", "Power at the grid connection; > 0 exports", unit="W"),
    *(_point(36051 + n, UINT16, f"l{n}_voltage", -1) for n in range(1, 4)),
    *(_own(36054 + n, UINT16, "nothing", f"Current of phase L{n} at the meter; not known", -1, "A") for n in (1, 2, 3)),
    _point(36104, Encoding.UINT64, "grid_export_total", -2),
    _point(36120, Encoding.UINT64, "grid_import_total", -2),
)

BATTERY: Final = (
    _own(37002, UINT16, "battery_present", "Battery: 1 there, 0 not known"),
    _own(37003, INT16, "battery_temperature", "Battery temperature", -1, "°C"),
    _own(37004, UINT16, "nothing", "Limit of the charging current; not known", unit="A"),
    _own(37005, UINT16, "nothing", "Limit of the discharging current; not known", unit="A"),
    _point(37007, UINT16, "battery_soc"),
    _point(37008, UINT16, "battery_soh"),
    _own(37009, UINT16, "nothing", "Battery modules; not known"),
    _cold(37020, "Highest temperature of a cell; not known"),
    _cold(37021, "Lowest temperature of a cell; not known"),
    _own(37022, UINT16, "nothing", "Highest voltage of a cell; not known", unit="mV"),
    _own(37023, UINT16, "nothing", "Lowest voltage of a cell; not known", unit="mV"),
    *(_own(47900 + n, UINT16, "nothing", "Limits of the battery; not known") for n in range(6)),
    _point(47906, UINT16, "battery_voltage", -1),
    _own(47907, UINT16, "nothing", "Battery current; not known with which sign", -1, "A"),
    _point(47908, UINT16, "battery_soc"),
    _point(47909, UINT16, "battery_soh"),
    _own(47910, INT16, "battery_temperature", "Battery temperature", -1, "°C"),
    *(_own(47918 + n, UINT16, "nothing", "Second battery; not known") for n in range(10)),
    _cold(47928, "Temperature of the second battery; not known"),
)


def _settings() -> Iterator[Row]:
    for address, it in SETTINGS.items():
        every = it.takes(0xFFFF)
        yield Row(address, UINT16, OWN + it.name, it.text, it.exponent, it.unit, writable=True, any_number=every)


_ROWS: Final = (
    *INFORMATION,
    *_clock(35100),
    *_strings(),
    *_phases(),
    *POWERS,
    *ENERGY,
    *TRACKERS,
    *METER,
    *BATTERY,
    *_clock(45200),
    *_settings(),
)
GOODWE: Final = RegisterMap("goodwe", BLOCKS, tuple(sorted(_ROWS, key=lambda row: row.address)))
