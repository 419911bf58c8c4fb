"""The PyPI library `goodwe`, which knows nothing of this project, talks to a device that is only in the cloud."""

import asyncio
import logging
from contextlib import asynccontextmanager

import goodwe
import msgspec
import pytest
from goodwe import EMSMode, OperationMode
from goodwe.exceptions import RequestRejectedException

from gateway.core.model import Range
from gateway.core.points import POINTS, Kind
from tests.bridges.modbus.conftest import serving
from tests.bridges.modbus.test_goodwe_writes import ABLE, BATTERY_ONLY
from tests.bridges.modbus.test_writes import ALLOW_ALL, sent
from tests.kit.bench import INVERTER, until

MEASURED = {
    "status": "normal",
    "fault_code": 1 << 13 | 1 << 17,
    "firmware": "04029-10-S11",
    "ac_power": 3900,
    "ac_reactive_power": -120,
    "ac_apparent_power": 3920,
    "pv_power": 5001,
    "load_power": 2600,
    "grid_power": -1300,
    "backup_power": 350,
    "battery_power": -1101,
    "l1_voltage": 230.4,
    "l1_current": -5.7,
    "l1_frequency": 50.02,
    "l2_voltage": 231.5,
    "l2_current": 5.6,
    "l2_frequency": 50.01,
    "l3_voltage": 229.9,
    "l3_current": 5.5,
    "l3_frequency": 49.99,
    "pv1_voltage": 402.3,
    "pv1_current": 8.1,
    "pv2_voltage": 380.1,
    "pv2_current": 4.6,
    "energy_today": 12.3,
    "energy_total": 12_345.6,
    "grid_import_today": 1.2,
    "grid_import_total": 2_345.67,
    "grid_export_today": 5.4,
    "grid_export_total": 6_789.01,
    "load_energy_today": 8.7,
    "load_energy_total": 7_654.3,
    "battery_charge_today": 3.2,
    "battery_charge_total": 1_234.5,
    "battery_discharge_today": 2.1,
    "battery_discharge_total": 1_111.1,
    "operating_hours": 9_876,
    "battery_soc": 67,
    "battery_soh": 98,
    "battery_voltage": 215.7,
    "battery_current": -5.1,
    "battery_temperature": 24.5,
    "temperature": -3.5,
}
"""Every point that an inverter of this family shows, each with a value of its own."""

AS_THEY_ARE = {
    "vpv1": "pv1_voltage", "ipv1": "pv1_current", "vpv2": "pv2_voltage", "ipv2": "pv2_current",
    "ppv": "pv_power",
    "vgrid": "l1_voltage", "fgrid": "l1_frequency",
    "vgrid2": "l2_voltage", "igrid2": "l2_current", "fgrid2": "l2_frequency",
    "vgrid3": "l3_voltage", "igrid3": "l3_current", "fgrid3": "l3_frequency",
    "total_inverter_power": "ac_power", "reactive_power": "ac_reactive_power", "apparent_power": "ac_apparent_power",
    "backup_ptotal": "backup_power", "temperature_air": "temperature",
    "vbattery1": "battery_voltage", "ibattery1": "battery_current", "pbattery1": "battery_power",
    "error_codes": "fault_code",
    "e_total": "energy_total", "e_day": "energy_today", "h_total": "operating_hours",
    "e_day_exp": "grid_export_today", "e_day_imp": "grid_import_today",
    "e_load_total": "load_energy_total", "e_load_day": "load_energy_today",
    "e_bat_charge_total": "battery_charge_total", "e_bat_charge_day": "battery_charge_today",
    "e_bat_discharge_total": "battery_discharge_total", "e_bat_discharge_day": "battery_discharge_today",
    "battery_soc": "battery_soc", "battery_soh": "battery_soh", "battery_temperature": "battery_temperature",
    "meter_freq": "l1_frequency",
}  # fmt: skip
"""The library's sensor → the point it shows. What is turned or derived stands in TURNED."""

TURNED = {
    "igrid": 5.7,
    "active_power": 1300,
    "grid_in_out_label": "Exporting",
    "active_power_total": 1300,
    "meter_active_power_total": 1300,
    "load_ptotal": 2250,
    "house_consumption": 5001 - 1101 - 1300,
    "e_total_exp": 6_789.0,
    "e_total_imp": 2_345.7,
    "pv1_mode_label": "PV panels connected, producing power",
    "pv2_mode_label": "PV panels connected, producing power",
    "grid_mode_label": "Connected to grid",
    "work_mode_label": "Normal (On-Grid)",
    "battery_mode_label": "Charge",
    "errors": "Over Temperature, Vac Failure",
    "battery_status": 1,
    "meter_comm_status": 1,
    "temperature": None,
    "temperature_module": None,
    "safety_country_label": None,
    "battery_max_cell_temp": None,
    "bus_voltage": 0,
    "battery_charge_limit": 0,
    "diagnose_result_label": "",
}


@asynccontextmanager
async def connected(tmp_path, device=ABLE, *, measured=MEASURED, **settings):
    """The library, connected to a device; and the gateway that serves it."""
    units = {device.serial: 247}
    given = {"control": ALLOW_ALL, "devices": (device,), "maps": ("native", "goodwe"), "units": units} | settings
    async with serving(tmp_path, **given) as served:
        if measured:
            await served.publish(**measured)
        inverter = await goodwe.connect("127.0.0.1", served.port, family="ET", timeout=120, retries=0)
        try:
            yield inverter, served
        finally:
            await inverter._protocol.close()


@pytest.fixture
async def inverter(tmp_path):
    async with connected(tmp_path) as (inverter, _):
        yield inverter


async def test_it_reads_what_the_device_is(inverter):
    assert inverter.serial_number == INVERTER.serial
    assert inverter.model_name == "GW10K-ET"
    assert inverter.rated_power == 10_000
    assert inverter.ac_output_type == 1
    assert inverter.firmware == "04029-10-S11"
    assert inverter.arm_firmware == ""


async def test_it_reads_every_value_as_published(inverter):
    found = await inverter.read_runtime_data()
    expected = {sensor: MEASURED[point] for sensor, point in AS_THEY_ARE.items()} | TURNED
    assert {sensor: found[sensor] for sensor in expected} == expected
    assert found["ppv1"] + found["ppv2"] == MEASURED["pv_power"]
    assert found["meter_e_total_exp"] == pytest.approx(6_789.01, abs=0.001)
    assert found["meter_e_total_imp"] == pytest.approx(2_345.67, abs=0.001)
    assert found["timestamp"] is not None


def test_every_point_that_is_measured_is_compared():
    elsewhere = {
        "grid_power",
        "load_power",
        "l1_current",
        "status",
        "firmware",
        "grid_export_total",
        "grid_import_total",
    }
    assert set(AS_THEY_ARE.values()) | elsewhere == MEASURED.keys()
    of_inverters = {point.id for point in POINTS.values() if point.kind is not Kind.SETPOINT}
    not_of_this_family = {
        id_
        for id_ in of_inverters
        if id_.startswith(("ev_", "income_", "wind_", "alarm", "pv3_", "pv4_", *OF_FLEETS))
        or id_
        in {
            "fault_text", "signal_strength", "ac_power_factor", "energy_month", "energy_year", "irradiance",
            "ambient_temperature", "module_temperature", "humidity", "capacity", "battery_capacity",
            "tracking_error", "unplaced_power", "writes_today",
        }
    }  # fmt: skip
    assert of_inverters - not_of_this_family == MEASURED.keys()


OF_FLEETS = ("limit_", "import_", "fleet_", "available_", "members", "data_age_")


async def test_the_timestamp_is_that_of_the_data_in_utc(tmp_path):
    async with connected(tmp_path) as (inverter, served):
        time = served.bench.router.state(INVERTER.serial).time.replace(microsecond=0, tzinfo=None)
        assert (await inverter.read_runtime_data())["timestamp"] == time
        assert await inverter.read_setting("time") == time


async def test_of_an_inverter_of_which_nothing_is_known_it_reads_nothing(tmp_path):
    async with connected(tmp_path, measured={"ac_power": 0}) as (inverter, _):
        found = await inverter.read_runtime_data()
        assert found.pop("timestamp") is not None
        assert found.pop("safety_country") == 0xFFFE
        assert found.pop("meter_e_total_exp") == 0
        assert all(value in {None, 0, "", "Idle", "Not connected to grid", "PV panels not connected", "No battery"}
                   or sensor == "work_mode_label" for sensor, value in found.items()), found  # fmt: skip
        assert "battery_soc" not in found, "there is no battery to be read"


async def test_a_large_inverter_is_read_with_its_trackers_and_its_meter(tmp_path):
    large = msgspec.structs.replace(ABLE, rated_power=29_900.0)
    strings = {"pv3_voltage": 300, "pv3_current": 0, "pv4_voltage": 410.5, "pv4_current": 9.9}
    async with connected(tmp_path, large, measured=MEASURED | strings) as (inverter, _):
        found = await inverter.read_runtime_data()
        assert found["ppv"] == found["ppv_total"] == MEASURED["pv_power"]
        assert [found[f"pmppt{n}"] for n in range(1, 5)] == [found[f"ppv{n}"] for n in range(1, 5)]
        assert [found[f"imppt{n}"] for n in range(1, 5)] == [8.1, 4.6, 0, 9.9]
        assert (found["vpv4"], found["vpv5"], found["pmppt5"]) == (410.5, 0, None)
        assert (found["meter_e_total_exp"], found["meter_e_total_imp"]) == (6_789.01, 2_345.67)
        assert [found[f"meter_voltage{n}"] for n in (1, 2, 3)] == [230.4, 231.5, 229.9]
        assert not any(sensor.startswith("battery2") for sensor in found)


async def test_it_is_told_that_data_are_stale_and_still_reads_settings(tmp_path):
    async with connected(tmp_path, measured={}) as (inverter, served):
        assert inverter.serial_number == INVERTER.serial
        with pytest.raises(RequestRejectedException, match="GATEWAY TARGET DEVICE FAILED TO RESPOND"):
            await inverter.read_runtime_data()
        assert await inverter.get_ems_mode() is EMSMode.AUTO
        await served.publish(**MEASURED)
        assert (await inverter.read_runtime_data())["battery_soc"] == 67


async def test_it_reads_the_settings(tmp_path, caplog):
    in_force = {"work_mode": "backup", "export_limit": 4200, "running": False, "battery_mode": "charge"}
    async with connected(tmp_path, measured=MEASURED | in_force | {"battery_power_target": 1500}) as (inverter, _):
        with caplog.at_level(logging.CRITICAL, "goodwe"):
            found = await inverter.read_settings_data()
        expected = {
            "work_mode": 2,
            "grid_export": 1,
            "grid_export_limit": 4200,
            "dred": 1,
            "ems_mode": 11,
            "ems_power_limit": 1500,
            "bms_bat_soc": 67,
            "bms_bat_soh": 98,
            "bms_bat_voltage": 215.7,
            "bms_bat_temperature": 24.5,
            "bms2_bat_soc": 0,
        }
        assert {setting: found[setting] for setting in expected} == expected
        assert "Off" in str(found["eco_mode_1"])
        absent = {setting for setting, value in found.items() if value is None}
        known = {45_200, 45_248, 45_252, 47_000, 47_010, *range(47_509, 47_513), *range(47_547, 47_571)}
        known |= {*range(47_900, 47_911), *range(47_918, 47_929)}
        nothing = {setting.id_ for setting in inverter.settings() if setting.offset not in known}
        assert absent - {"bms2_bat_temperature"} >= nothing, "02, which the library takes as: this one has it not"
        assert {"battery_capacity", "power_factor", "soc_upper_limit", "battery_soc_protection"} <= absent
        assert not absent & expected.keys()
        assert await inverter.get_operation_mode() is OperationMode.BACKUP


async def comes_to(value, read, *arguments):
    """Wait until it is read: a register follows once its command is done, not when it was sent."""
    async with asyncio.timeout(120):
        while await read(*arguments) != value:
            await asyncio.sleep(0.01)


async def test_it_sets_an_export_limit_and_reads_it_back(tmp_path):
    async with connected(tmp_path) as (inverter, served):
        await inverter.set_grid_export_limit(5000)
        await comes_to(5000, inverter.get_grid_export_limit)
        assert await sent(served, 1) == [("export_limit", 5000)]
        await inverter.write_setting("grid_export", 0)
        assert await sent(served, 2) == [("export_limit", 5000), ("export_limit", "none")]
        await comes_to(0, inverter.read_setting, "grid_export")
        await inverter.write_setting("grid_export", 1)
        assert (await sent(served, 3))[2] == ("export_limit", 5000)
        await comes_to(5000, inverter.get_grid_export_limit)
        await inverter.set_grid_export_limit(20_000)
        assert (await sent(served, 4))[3] == ("export_limit", 10_000)


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        (OperationMode.GENERAL, "general"),
        (OperationMode.OFF_GRID, "off_grid"),
        (OperationMode.BACKUP, "backup"),
        (OperationMode.ECO, "eco"),
        (OperationMode.PEAK_SHAVING, "peak_shaving"),
        (OperationMode.SELF_USE, "self_use"),
    ],
)
async def test_it_sets_an_operation_mode(tmp_path, mode, word):
    async with connected(tmp_path) as (inverter, served):
        await inverter.set_operation_mode(mode)
        assert await inverter.get_operation_mode() is mode
        assert await sent(served, 1) == [("work_mode", word)]
        await until(lambda: served.bench.router.state(INVERTER.serial).values.get("work_mode") == word)
        assert await inverter.get_operation_mode() is mode
        assert len(served.bench.controller.sent) == 1


CHARGES = {"battery_mode": "charge", "battery_power_target": 3000, "battery_target_soc": 90}
DISCHARGES = {"battery_mode": "discharge", "battery_power_target": 4000}


def in_force(served, values):
    known = served.bench.router.state(INVERTER.serial).values
    return all(known.get(setpoint) == value for setpoint, value in values.items())


@pytest.mark.parametrize("device", [ABLE, BATTERY_ONLY])
async def test_eco_charge_and_discharge_are_orders_for_the_battery(tmp_path, device):
    async with connected(tmp_path, device) as (inverter, served):
        await inverter.set_operation_mode(OperationMode.ECO_CHARGE, 30, 90)
        assert await inverter.get_operation_mode() is OperationMode.ECO_CHARGE
        await until(lambda: in_force(served, CHARGES))
        await inverter.set_operation_mode(OperationMode.ECO_DISCHARGE, 40)
        await until(lambda: in_force(served, DISCHARGES | {"battery_target_soc": "none"}))
        assert await inverter.get_operation_mode() is OperationMode.ECO_DISCHARGE
        await inverter.set_operation_mode(OperationMode.GENERAL)
        await until(lambda: in_force(served, {"battery_mode": "auto"}))
        assert await inverter.get_operation_mode() is OperationMode.GENERAL


async def test_energy_management_charges_and_discharges(tmp_path):
    async with connected(tmp_path) as (inverter, served):
        await inverter.set_ems_mode(EMSMode.CHARGE_BATTERY, 3000)
        assert await inverter.get_ems_mode() is EMSMode.CHARGE_BATTERY
        await until(lambda: in_force(served, {"battery_mode": "charge", "battery_power_target": 3000}))
        await inverter.set_ems_mode(EMSMode.DISCHARGE_BATTERY, 4000)
        await until(lambda: in_force(served, DISCHARGES))
        assert await inverter.read_setting("ems_power_limit") == 4000
        await inverter.set_ems_mode(EMSMode.BATTERY_STANDBY)
        await until(lambda: in_force(served, {"battery_mode": "idle"}))
        assert await inverter.get_ems_mode() is EMSMode.BATTERY_STANDBY
        await inverter.set_ems_mode(EMSMode.AUTO)
        await until(lambda: in_force(served, {"battery_mode": "auto"}))
        assert await inverter.get_ems_mode() is EMSMode.AUTO
        with pytest.raises(RequestRejectedException, match="ILLEGAL DATA VALUE"):
            await inverter.set_ems_mode(EMSMode.BUY_POWER, 100)


async def test_it_shuts_down_and_starts(tmp_path):
    async with connected(tmp_path) as (inverter, served):
        await inverter.write_setting("dred", 1)
        assert await sent(served, 1) == [("running", False)]
        await inverter.write_setting("dred", 0)
        assert (await sent(served, 2))[1] == ("running", True)


async def test_it_is_refused_what_the_device_does_not_take(tmp_path):
    device = msgspec.structs.replace(ABLE, setpoints={"running": Range()})
    async with connected(tmp_path, device) as (inverter, served):
        for write in (inverter.set_grid_export_limit(1), inverter.set_operation_mode(OperationMode.BACKUP)):
            with pytest.raises(RequestRejectedException, match="ILLEGAL DATA ADDRESS"):
                await write
        assert not served.bench.controller.sent


async def test_another_unit_is_read_by_its_address(tmp_path):
    async with serving(tmp_path, maps=("goodwe",)) as served:
        await served.publish(**MEASURED)
        async with asyncio.timeout(120):
            inverter = await goodwe.connect("127.0.0.1", served.port, family="ET", comm_addr=1, timeout=120, retries=0)
            assert inverter.serial_number == INVERTER.serial
            await inverter._protocol.close()
