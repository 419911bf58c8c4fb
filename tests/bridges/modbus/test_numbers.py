"""What numbers mean: sign, unit, scale and range, as clients that we did not write read them.

Expected values are written from the specifications, each with its place. "SunSpec JSON" is the text of the model
definitions (github.com/sunspec/models, as pysunspec2 brings them).
"""

import asyncio
from contextlib import asynccontextmanager

import goodwe
import pytest
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import Device, DeviceKind, Quality, Range
from tests.bridges.modbus.client import read
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import until

LIMITED = {"running": Range(), "active_power_limit": Range(0, 100), "reactive_power": Range(-60, 60),
           "power_factor": Range(-1, 1)}  # fmt: skip
ORDERED = {**LIMITED, "battery_mode": Range(), "battery_power_target": Range(0, None)}


def inverter(rated, kind=DeviceKind.INVERTER, **changes):
    fields = {
        "serial": f"{kind}-{rated or 0:.0f}",
        "kind": kind,
        "model": "GW-DT",
        "rated_power": rated,
        "plant": f"plant-{rated or 0:.0f}",
        "setpoints": ORDERED if kind is DeviceKind.STORAGE else LIMITED,
    }
    return Device(**(fields | changes))


RATINGS = (3_000.0, 25_000.0, 50_000.0, 110_000.0)
INVERTERS = [inverter(rated) for rated in RATINGS]
HYBRIDS = [inverter(rated, DeviceKind.STORAGE) for rated in RATINGS]
UNKNOWN_PLANT = Device(serial="plant-unknown", kind=DeviceKind.PLANT)
LARGE_PLANT = Device(serial="8d9c1f0e-54aa-4c1e-9f7e-0123456789ab", kind=DeviceKind.PLANT)
"""5 MW, by what it says of its capacity; with the serial that SEMS has for plants."""
LARGE_METER = Device(serial="meter-large", kind=DeviceKind.METER, plant=LARGE_PLANT.serial)
FACTORY = [inverter(110_000.0, serial=f"factory-{n}", plant="factory") for n in range(2)]
FACTORY_METER = Device(serial="meter-factory", kind=DeviceKind.METER, plant="factory")
LOGGER = Device(serial="sec1000", kind=DeviceKind.DATA_LOGGER, plant="factory", setpoints=LIMITED)
AMERICAN = inverter(9_600.0, serial="us", model="GW9600-ES-US20", kind=DeviceKind.STORAGE)
DELTA = Device(serial="meter-delta", kind=DeviceKind.METER, rated_power=400_000.0)
DEVICES = (
    *INVERTERS, *HYBRIDS, UNKNOWN_PLANT, LARGE_PLANT, LARGE_METER, *FACTORY, FACTORY_METER, LOGGER, AMERICAN, DELTA,
)  # fmt: skip
ALLOW = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=list(ORDERED))], max_per_minute=100_000)


class Seen:
    """A device as pysunspec2 reads it."""

    def __init__(self, models):
        self._models = models

    def __getitem__(self, name):
        """Return the value of `103.W` or of a module, `160.3.DCW`."""
        id_, *path = name.split(".")
        (model,) = self._models[int(id_)]
        if len(path) == 2:
            return model.groups["module"][int(path[0]) - 1].points[path[1]].cvalue
        return model.points[path[0]].cvalue

    def __contains__(self, id_):
        return id_ in self._models

    @property
    def ids(self):
        return [id_ for id_ in self._models if isinstance(id_, int)]


class Plant:
    def __init__(self, served):
        self.served = served

    def unit(self, device):
        return self.served.bridge.units[device.serial]

    async def scanned(self, device):
        place = {"slave_id": self.unit(device), "ipaddr": "127.0.0.1", "ipport": self.served.port, "timeout": 120}
        client = SunSpecModbusClientDeviceTCP(**place)
        try:
            await asyncio.to_thread(client.scan)
        finally:
            await asyncio.to_thread(client.close)
        return client

    async def seen(self, device, **values):
        """Publish, and return what the client reads."""
        await self.served.publish(device.serial, **values)
        return Seen((await self.scanned(device)).models)


@asynccontextmanager
async def plants(tmp_path, maps=("native", "sunspec"), **settings):
    async with serving(tmp_path, devices=DEVICES, maps=maps, control=ALLOW, **settings) as served:
        yield Plant(served)


@pytest.fixture
async def plant(tmp_path):
    async with plants(tmp_path) as plant:
        yield plant


# N1: signs in four quadrants

QUADRANTS = [
    # W, var: > 0 is fed in, is given | 701.PF | EEI (103.PF)
    (0.6, 0.3, +1, -1),
    (-0.6, 0.3, -1, +1),
    (-0.6, -0.3, -1, -1),
    (0.6, -0.3, +1, +1),
]
"""701: "The sign of power factor should be the sign of active power" (SunSpec JSON, model 701, PF). Models 120 and 121:
"EEI sign convention" (PFRtgQ1 …): an inverter that feeds in over-excited (quadrant 1) is < 0, under-excited (4) > 0, as
inverters show their ratings (Fronius: PFRtgQ1 -0.85, PFRtgQ4 0.85)."""


@pytest.mark.parametrize("iec", [False, True])
async def test_power_factor_in_four_quadrants_at_every_rating(tmp_path, iec):
    choice = [{"map": "sunspec", "power_factor": "iec"}] if iec else ["sunspec"]
    async with plants(tmp_path, maps=choice) as plant:
        for rated, device in zip(RATINGS, INVERTERS, strict=True):
            for active, reactive, sign, eei in QUADRANTS[: 2 if rated < 100_000 else 4]:
                flows = {"ac_power": active * rated, "ac_reactive_power": reactive * rated}
                factor, apparent = 0.894427, 0.67082 * rated
                seen = await plant.seen(device, **flows)
                near = pytest.approx(apparent, abs=5.1)
                assert (seen["103.VA"], seen["701.VA"]) == (near, near)
                assert seen["103.W"] == seen["701.W"] == pytest.approx(active * rated, abs=5)
                # "Total reactive energy injected (Quadrants 1 & 2)" (SunSpec JSON, 701, TotVarhInj): > 0 is given.
                assert seen["103.VAr"] == seen["701.Var"] == pytest.approx(reactive * rated, abs=5)
                assert seen["701.PF"] == pytest.approx(sign * factor, abs=0.001)
                assert seen["103.PF"] == pytest.approx(100 * factor * (sign if iec else eei), abs=0.02)


async def test_a_meter_counts_what_comes_from_the_grid(plant):
    """203: quadrants 1 and 2 are "Total Imported Reactive Energy" (SunSpec JSON, TotVArhImpQ1, Q2)."""
    for power, given, eei in ((1000, -500, -1), (1000, 500, 1), (-1000, 500, -1), (-1000, -500, 1)):
        seen = await plant.seen(UNKNOWN_PLANT, grid_power=power, ac_reactive_power=given)
        assert (seen["203.W"], seen["203.VAR"]) == (power, -given)
        assert seen["203.PF"] == pytest.approx(eei * 89.44, abs=0.01)
        assert seen["203.VA"] == pytest.approx(1118, abs=1)


async def test_what_is_set_and_what_is_measured_name_one_quadrant(plant):
    """123.OutPFSet has the EEI's sign as 120 and 121 do; 704 says it in a word: 1 is UNDER_EXCITED (SunSpec JSON)."""
    seen = await plant.seen(INVERTERS[1], ac_power=20_000.0, ac_reactive_power=-9_686.0, power_factor=-0.9)
    assert (seen["103.PF"], seen["123.OutPFSet"]) == (pytest.approx(90, abs=0.1), 0.9)
    client = await plant.scanned(INVERTERS[1])
    group = client.models[704][0].groups["PFWInj"]
    assert (group.points["PF"].cvalue, group.points["Ext"].cvalue) == (0.9, 1)
    assert (seen["120.PFRtgQ1"], seen["120.PFRtgQ4"]) == (-0.8, 0.8)
    controls = client.models[123][0]
    controls.points["OutPFSet"].cvalue = -0.95
    controls.points["OutPFSet_Ena"].cvalue = 1
    await asyncio.to_thread(controls.write)
    sent = await until(lambda: plant.served.bench.asked)
    assert {(command.setpoint, command.value) for command in sent} == {("power_factor", 0.95)}, "over-excited"


# N2, N4: scales


async def test_a_house_is_shown_to_the_watt_and_a_plant_of_5_mw_whole(plant):
    seen = await plant.seen(UNKNOWN_PLANT, grid_power=34.0)
    assert (seen["203.W"], seen["203.W_SF"]) == (34, 0)
    for device in (LARGE_PLANT, LARGE_METER):
        await plant.served.publish(LARGE_PLANT.serial, capacity=5_000.0, grid_power=1.0)
        seen = await plant.seen(device, grid_power=-4_987_654.0)
        assert seen["203.W"] == pytest.approx(-4_987_654, abs=500)
    seen = await plant.seen(FACTORY_METER, grid_power=400_000.0)
    assert seen["203.W"] == pytest.approx(400_000, abs=50), "of a plant of 220 kW, which its inverters say"
    seen = await plant.seen(DELTA, grid_power=-400_000.0)
    assert seen["203.W"] == pytest.approx(-400_000, abs=50)


async def test_dc_has_a_scale_of_its_own(plant):
    for rated, device in zip(RATINGS, HYBRIDS, strict=True):
        seen = await plant.seen(device, pv_power=1.46 * rated, ac_power=rated, battery_power=-0.46 * rated)
        assert seen["103.DCW"] == pytest.approx(1.46 * rated, abs=5)
        assert seen["802.W"] == pytest.approx(-0.46 * rated, abs=5)
        assert seen["120.WRtg"] == seen["121.WMax"] == seen["702.WMax"] == rated


@pytest.mark.parametrize("as_float", [False, True])
async def test_the_models_are_those_of_the_wiring(tmp_path, as_float):
    """102 and 202 are split phase, 203 wye, 204 delta; 112 and 211 to 214 have floats (SunSpec JSON, labels)."""
    choice = {"map": "sunspec", "as_float": as_float, "wiring": {DELTA.serial: "delta", FACTORY_METER.serial: "split"}}
    async with plants(tmp_path, maps=[choice]) as plant:
        found = []
        for device in (AMERICAN, FACTORY_METER, LARGE_METER, DELTA):
            seen = await plant.seen(device, ac_power=1234.5, grid_power=-1234.5, l1_voltage=120.0, l1_frequency=60.0)
            found.append(seen.ids[1])
            power = 1234.5 if device is AMERICAN else -1234.5
            assert seen[f"{found[-1]}.W"] == pytest.approx(power, abs=0.1 if as_float else 55)
        assert found == ([112, 212, 213, 214] if as_float else [102, 202, 203, 204])
        seen = await plant.seen(AMERICAN, l1_voltage=121.0, l1_frequency=60.0)
        assert (seen["701.ACType"], seen["702.VNom"], seen["121.VRef"], seen["121.ECPNomHz"]) == (1, 240, 120, 60)


# the battery


@pytest.mark.parametrize("power", [1_500.0, -1_500.0, 0.0])
async def test_the_battery_where_clients_of_hybrids_look_for_it(plant, power):
    """evcc's fronius-gen24: 160, module 3 charges, 4 discharges, both > 0 (SunSpec JSON: uint16)."""
    battery = {"battery_power": power, "battery_current": power / 400, "battery_voltage": 400.0,
               "battery_charge_total": 1234.5, "battery_discharge_total": 1111.0}  # fmt: skip
    seen = await plant.seen(HYBRIDS[0], status="normal", **battery, battery_soc=50.0, battery_soh=98.0)
    assert (seen["160.3.IDStr"], seen["160.4.IDStr"]) == ("StCha 3", "StDisCha 4")
    assert (seen["160.3.DCW"], seen["160.4.DCW"]) == (max(-power, 0), max(power, 0))
    assert (seen["160.3.DCA"], seen["160.4.DCA"]) == (max(-power, 0) / 400, max(power, 0) / 400)
    assert seen["160.3.DCV"] == seen["160.4.DCV"] == 400
    assert (seen["160.3.DCWH"], seen["160.4.DCWH"]) == (1_234_500, 1_111_000)
    mppt, standby = 4, 8
    assert (seen["160.3.DCSt"], seen["160.4.DCSt"]) == tuple(mppt if on else standby for on in (power < 0, power > 0))
    assert seen["802.W"] == power
    # 124 and 802, ChaSt: DISCHARGING 3, CHARGING 4, HOLDING 6
    assert seen["124.ChaSt"] == seen["802.ChaSt"] == {1500: 3, -1500: 4, 0: 6}[power]


async def test_what_is_known_of_a_battery_is_filled_in(plant):
    known = {"battery_capacity": 10.0, "battery_voltage": 400.0, "battery_soc": 60.0, "battery_soh": 90.0}
    seen = await plant.seen(HYBRIDS[1], **known, battery_reserve_soc=20.0, battery_power=1.0)
    assert (seen["120.WHRtg"], seen["120.AhrRtg"], seen["802.AHRtg"]) == (10_000, 25, 25)
    assert seen["802.Typ"] == 4, "LITHIUM_ION: only these have a management that says a state of health"
    assert seen["124.StorAval"] == 10, "(ChaState - MinRsvPct) * AhrRtg (SunSpec JSON, 124)"
    assert seen["713.WHAvail"] == 5_400, "WHRtg * SoC * SoH (SunSpec JSON, 713)"


# N6: states


async def test_a_limit_a_stop_and_a_fault_are_states_of_their_own(plant):
    device, rated = INVERTERS[2], RATINGS[2]
    off, mppt, throttled, fault, standby = 1, 4, 5, 7, 8
    cases = [
        # values | 103.St | 701.InvSt | ThrotPct | ThrotSrc
        ({"status": "normal", "ac_power": 0.099 * rated, "active_power_limit": 10.0}, throttled, 4, 90, 1),
        ({"status": "normal", "ac_power": 0.05 * rated, "active_power_limit": 10.0}, mppt, 3, 0, 0),
        ({"status": "normal", "ac_power": 0.5 * rated, "active_power_limit": 100.0}, mppt, 3, 0, 0),
        ({"status": "waiting", "ac_power": 0.0, "running": False}, off, 0, 0, 0),
        ({"status": "waiting", "ac_power": 0.0, "running": True}, standby, 7, 0, 0),
        ({"status": "fault", "ac_power": 0.0, "active_power_limit": 10.0}, fault, 6, 0, 0),
    ]
    for values, state, der, percent, source in cases:
        seen = await plant.seen(device, **({"running": True, "active_power_limit": 100.0} | values))
        assert (seen["103.St"], seen["701.InvSt"]) == (state, der), values
        assert (seen["701.ThrotPct"], seen["701.ThrotSrc"], seen["122.StSetLimMsk"]) == (percent, source, source)
        assert seen["122.WAval"] == (values["ac_power"] if state in {mppt, standby} else None)


async def test_703_stops_and_starts_as_123_does(plant):
    device = INVERTERS[0]
    await plant.served.publish(device.serial, running=True, ac_power=1.0, status="normal")
    service = (await plant.scanned(device)).models[703][0]
    assert service.points["ES"].cvalue == 1
    service.points["ES"].cvalue = 0
    await asyncio.to_thread(service.write)
    sent = await until(lambda: plant.served.bench.asked)
    assert [(command.setpoint, command.value) for command in sent] == [("running", False)]


async def test_704_counts_down_what_is_left_of_a_time_out(plant):
    # No limit is read back: it would contradict the commands, which would wait two minutes for one that does not.
    device, values = INVERTERS[1], {"ac_power": 1.0}
    seen = await plant.seen(device, **values)
    assert seen["704.WMaxLimPctRvrtRem"] is None
    controls = (await plant.scanned(device)).models[123][0]
    for name, value in (("WMaxLimPct_RvrtTms", 600), ("WMaxLimPct", 50), ("WMaxLim_Ena", 1)):
        controls.points[name].cvalue = value
        await asyncio.to_thread(controls.write)
    read = plant.served.bridge._devices[device.serial].commands
    await until(lambda: read.reverting(plant.served.bench.clock.now()))
    left = (await plant.seen(device, **values))["704.WMaxLimPctRvrtRem"]
    assert 0 < left <= 600
    with_device = plant.served.bench
    await with_device.dispatcher.submit(with_device.command(serial=device.serial, value=80))
    await until(lambda: not read.reverting(plant.served.bench.clock.now()))
    assert (await plant.seen(device, **values))["704.WMaxLimPctRvrtRem"] is None


# N7, N10


async def test_a_plants_serial_is_the_same_at_every_door(plant):
    await plant.served.publish(LARGE_PLANT.serial, grid_power=1.0)
    seen = Seen((await plant.scanned(LARGE_PLANT)).models)
    short = "8d9c1f0e54aa4c1e9f7e0123456789ab"
    async with plant.served.client() as client:
        assert await client.text(4, 16, unit=plant.unit(LARGE_PLANT)) == short
        assert await client.text(52, 16, unit=plant.unit(LARGE_METER)) == short
    assert seen["1.SN"] == short


async def test_a_logger_that_takes_setpoints_shows_them_and_the_grid_and_no_second_inverter(plant):
    seen = await plant.seen(LOGGER, ac_power=150_000.0, grid_power=-90_000.0, active_power_limit=70.0)
    assert seen.ids == [1, 203, 120, 121, 122, 123, 701, 702, 703, 704]
    assert (seen["203.W"], seen["701.W"]) == (-90_000, 150_000)
    assert (seen["121.WMax"], seen["123.WMaxLimPct"]) == (220_000, 70), "its inverters' ratings"


async def test_ratings_are_filled_in_from_what_is_known(plant):
    seen = await plant.seen(INVERTERS[1], ac_power=1.0, l1_voltage=236.0, l1_frequency=49.98)
    assert seen["120.VARtg"] == seen["121.VAMax"] == seen["702.VAMax"] == 25_000
    assert (seen["120.VArRtgQ1"], seen["120.VArRtgQ4"]) == (15_000, -15_000), "60 %, > 0 injected"
    assert (seen["121.VRef"], seen["121.ECPNomHz"], seen["702.VNom"]) == (230, 50, pytest.approx(398.4, abs=0.1))


# B4: by night


@pytest.mark.parametrize("stale", ["exception", "sentinel"])
async def test_by_night_totals_and_states_stay(tmp_path, stale):
    async with plants(tmp_path, stale=stale) as plant, plant.served.client() as client:
        device = INVERTERS[3]
        shown = plant.served.bridge._devices[device.serial].updates
        values = {"status": "normal", "ac_power": 5.0, "energy_total": 98_765.4, "energy_today": 3.2}
        plant.served.bench.publish(device.serial, age=3600, **values)
        await until(lambda: plant.served.bridge._devices[device.serial].updates > shown)
        assert plant.served.bench.router.state(device.serial).quality is Quality.STALE
        unit = plant.unit(device)
        at = {row.field: row.address for row in _sunspec(plant, device) if row.text.startswith("model 103")}
        total = at["energy_total"]
        high, low = await client.words(total, 2, unit=unit)
        (factor,) = await client.words(total + 2, 1, unit=unit)
        assert (high << 16 | low) * 10**factor == 98_765_400
        off, offline = 1, 0
        assert await client.words(at["sunspec.inverter_state"], 2, unit=unit) == [off, offline]
        assert await client.words(101, unit=unit) == [offline]
        power = read(at["ac_power"], 1)
        if stale == "exception":
            assert await client.refused(power, unit=unit) == 0x0B
        else:
            assert await client.words(at["ac_power"], unit=unit) == [0x8000]
            assert await client.words(1000, 2, unit=unit) == [0, offline]
            assert await client.words(1126, 2, unit=unit) == [15, 987_654 - 15 * 65536], "energy_total, 0.1 kWh"
            assert await client.words(1120, 2, unit=unit) == [0x8000, 0], "of today: which day that was nobody asks"


def _sunspec(plant, device):
    family = next(family for family in plant.served.bridge._families if family.name == "sunspec")
    return family.layout(device).map.rows


# N3, N5: the goodwe map


@asynccontextmanager
async def library(tmp_path, device):
    async with plants(tmp_path, maps=("native", "goodwe"), units={device.serial: 247}) as plant:
        await plant.served.publish(device.serial, ac_power=1.0)
        yield plant, await goodwe.connect("127.0.0.1", plant.served.port, family="ET", timeout=120, retries=0)


@pytest.mark.parametrize("grid", [-47_000.0, 47_000.0, -12_000.0])
async def test_goodwes_library_reads_the_direction_of_large_powers(tmp_path, grid):
    """It reads the low register of 35139, 35171 and others alone, with a sign (goodwe/et.py, PowerS)."""
    async with library(tmp_path, HYBRIDS[1]) as (plant, inverter):
        flows = {"grid_power": grid, "load_power": 47_000.0, "ac_power": 25_000.0, "ac_reactive_power": -40_000.0}
        await plant.served.publish(HYBRIDS[1].serial, **flows)
        data = await inverter.read_runtime_data()
        await inverter._protocol.close()
    most = 32_767
    assert data["active_power"] == max(-most, min(most, -grid))
    assert data["grid_in_out_label"] == ("Exporting" if grid < 0 else "Importing")
    assert data["meter_active_power_total"] == -grid, "four bytes"
    assert (data["load_ptotal"], data["total_inverter_power"], data["reactive_power"]) == (most, 25_000, -most)


async def test_what_is_larger_than_the_library_can_read_has_no_goodwe_map(tmp_path):
    async with plants(tmp_path, maps=("native", "goodwe")) as plant, plant.served.client() as client:
        for device in (HYBRIDS[2], HYBRIDS[3]):
            assert await client.refused(read(35_000, 33), unit=plant.unit(device)) == 0x02
        assert await client.words(35_001, unit=plant.unit(HYBRIDS[1])) == [25_000]


async def test_settings_that_nothing_is_known_of_are_not_there(tmp_path):
    """It takes exception 02 for a setting that this inverter has not (goodwe/et.py, _read_sensor)."""
    async with library(tmp_path, HYBRIDS[1]) as (_, inverter):
        settings = await inverter.read_settings_data()
        await inverter._protocol.close()
    unknown = ("battery_soc_protection", "soc_upper_limit", "backup_supply_x", "shadow_scan", "comm_address",
               "peak_shaving_mode", "fast_charging", "dod_holding", "battery_protocol_code", "bms_status")  # fmt: skip
    assert {name: settings.get(name) for name in unknown} == dict.fromkeys(unknown)
    assert settings["ems_mode"] == 1
    assert settings["cold_start"] == 0
