"""A fleet is one device for whoever speaks Modbus: SunSpec's own client and the library `goodwe` read and steer it."""

import asyncio
from contextlib import asynccontextmanager

import goodwe
import pytest
from goodwe import EMSMode
from pymodbus.client import AsyncModbusTcpClient

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.codes import SETPOINT_INDEX
from gateway.bridges.modbus.maps.native import SET_FLOATS
from gateway.core.points import POINTS
from gateway.steering.fleet import mate
from tests.bridges.modbus.test_sunspec_client import Scanned
from tests.kit.bench import until
from tests.steering.fleet.test_fleet import ALL, batteries, inverters
from tests.steering.fleet.world import World

UNIT = 77


@pytest.fixture
def settles_at_once(monkeypatch):
    """What these machines do can be seen at once."""
    monkeypatch.setattr(mate, "SETTLES_WITHIN", 0.2)


@asynccontextmanager
async def served(tmp_path, machines, **settings):
    """A fleet over machines, behind a Modbus server; they are read several times a second."""
    async with World(tmp_path, None, machines, ALL, interval=0.3) as world:
        given = {"port": 0, "maps": ["native", "sunspec"], "units": {"fleet:north": UNIT}} | settings
        runner = world.bench.run(ModbusBridge, ModbusSettings(**given), "modbus")
        await until(lambda: runner.bridge.port and "fleet:north" in runner.bridge.units)
        unit = runner.bridge._devices["fleet:north"]
        seen = unit.updates
        await until(lambda: unit.updates > seen + 1)
        yield world, runner.bridge.port


@pytest.mark.usefixtures("settles_at_once")
async def test_sunspecs_client_finds_one_inverter_with_storage(tmp_path):
    machines = inverters(4, sun=9_000.0) + batteries(2)
    async with served(tmp_path, machines) as (_, port):
        client = await Scanned(port, UNIT).scan()
        assert client.ids == [1, 103, 120, 121, 122, 123, 701, 702, 703, 704, 124, 713, 802]
        assert not any(model.error_info for model in client.device.model_list)
        assert (client.model(1).SN.cvalue, client.model(1).Opt.cvalue) == ("fleet:north", "fleet")
        assert client.model(103).W.cvalue == client.model(701).W.cvalue == 36_000
        assert client.model(120).WRtg.cvalue == client.model(121).WMax.cvalue == client.model(702).WMax.cvalue == 60_000
        assert client.model(124).WChaMax.cvalue == 20_000
        assert client.model(124).ChaState.cvalue == client.model(713).SoC.cvalue == client.model(802).SoC.cvalue == 50


@pytest.mark.usefixtures("settles_at_once")
async def test_power_follows_wmaxlimpct_and_comes_back_after_its_reversion_time(tmp_path):
    machines = inverters(4, sun=9_000.0)
    async with served(tmp_path, machines) as (world, port):
        client = await Scanned(port, UNIT).scan()
        assert client.ids == [1, 103, 120, 121, 122, 123, 701, 702, 703, 704]
        await client.set(123, WMaxLimPct=50, WMaxLimPct_RvrtTms=8, WMaxLim_Ena=1)
        await until(lambda: world.power == pytest.approx(20_000, rel=0.02))
        await until(lambda: world.state().values["ac_power"] == pytest.approx(20_000, rel=0.02))
        assert (await client.read(103)).W.cvalue == pytest.approx(20_000, rel=0.02)
        assert (await client.read(123)).WMaxLimPct.cvalue == 50
        await until(lambda: world.power == 36_000)
        assert all(machine.set["active_power_limit"] == 100 for machine in machines)


@pytest.mark.usefixtures("settles_at_once")
async def test_power_follows_model_704(tmp_path):
    async with served(tmp_path, inverters(4, sun=9_000.0)) as (world, port):
        client = await Scanned(port, UNIT).scan()
        await client.set(704, WMaxLimPct=25, WMaxLimPctRvrtTms=0, WMaxLimPctEna=1)
        await until(lambda: world.power == pytest.approx(10_000, rel=0.02))
        await client.set(704, WMaxLimPctEna=0)
        await until(lambda: world.power == 36_000)


async def reads(client):
    """What models 103 and 701 say of a fleet: state, state, connection, and how much of it a limit takes."""
    state, der = (await client.read(103)).St.cvalue, await client.read(701)
    return state, der.InvSt.cvalue, der.ConnSt.cvalue, der.ThrotPct.cvalue


OFF, RUNNING, HALF = (1, 0, 0, 0), (4, 3, 1, 0), (5, 4, 1, 50)


async def are(client, wanted):
    async with asyncio.timeout(60):
        while await reads(client) != wanted:
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("settles_at_once")
async def test_a_fleet_reads_off_while_all_are_stopped_by_it_or_by_somebody_else(tmp_path):
    machines = inverters(2, sun=9_000.0) + batteries(1)
    async with served(tmp_path, machines) as (world, port):
        client = await Scanned(port, UNIT).scan()
        await client.set(703, ES=0)
        await are(client, OFF)
        machines[0].set["running"] = True
        await are(client, RUNNING)
        await client.set(703, ES=1)
        await until(lambda: all(machine.set["running"] for machine in machines) and not world.fleet.crew.waiting)
        await are(client, RUNNING)
        for machine in machines:
            machine.set["running"] = False
        await are(client, OFF)


@pytest.mark.usefixtures("settles_at_once")
async def test_a_fleet_is_not_throttled_any_more_once_its_limit_is_let_go(tmp_path):
    machines = inverters(2, sun=9_000.0)
    async with served(tmp_path, machines) as (_, port):
        client = await Scanned(port, UNIT).scan()
        await client.set(123, WMaxLimPct=50, WMaxLim_Ena=1)
        await are(client, HALF)
        await client.set(123, WMaxLim_Ena=0)
        await are(client, RUNNING)


@pytest.mark.usefixtures("settles_at_once")
async def test_model_124_orders_all_batteries(tmp_path):
    machines = batteries(4)
    async with served(tmp_path, machines) as (world, port):
        client = await Scanned(port, UNIT).scan()
        await client.set(124, OutWRte=-50, StorCtl_Mod=2)  # it is given to charge at half of its rate
        await until(lambda: [machine.power for machine in machines] == [-5_000] * 4)
        await until(lambda: world.state().values["battery_power"] == -20_000)
        assert (await client.read(802)).W.cvalue == -20_000
        await client.set(124, StorCtl_Mod=0)
        await until(lambda: {machine.set["battery_mode"] for machine in machines} == {"auto"})


@pytest.mark.usefixtures("settles_at_once")
async def test_goodwes_library_sees_one_battery_and_orders_it(tmp_path):
    machines = batteries(3)
    async with served(tmp_path, machines, maps=["native", "goodwe"]) as (_, port):
        inverter = await goodwe.connect("127.0.0.1", port, family="ET", comm_addr=UNIT, timeout=120, retries=0)
        try:
            assert inverter.rated_power == 30_000
            found = await inverter.read_runtime_data()
            assert (found["battery_soc"], found["pbattery1"]) == (50, 0)
            await inverter.set_ems_mode(EMSMode.CHARGE_BATTERY, 6_000)
            await until(lambda: [machine.power for machine in machines] == [-2_000] * 3)
        finally:
            await inverter._protocol.close()


@pytest.mark.usefixtures("settles_at_once")
async def test_a_plain_modbus_client_reads_the_block_of_fleets_and_sets_the_target(tmp_path):
    async with served(tmp_path, inverters(4)) as (world, port):
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        try:
            registers = (await client.read_holding_registers(6500, count=60, device_id=UNIT)).registers
            whole = client.convert_from_registers(registers[8:16], client.DATATYPE.INT32)
            assert whole[:3] == [32_000, 0, 32_000]
            members = client.convert_from_registers(registers[26:30], client.DATATYPE.UINT32)
            assert members == [4, 0]
            target = client.convert_to_registers(16_000.0, client.DATATYPE.FLOAT32)
            await client.write_registers(SET_FLOATS + 2 * SETPOINT_INDEX["power_target"], target, device_id=UNIT)
            await until(lambda: world.state().values["fleet_state"] == "holding")
            registers = (await client.read_holding_registers(6506, count=10, device_id=UNIT)).registers
            assert registers[0] == POINTS["fleet_state"].options.index("holding")
            power, *_, error = client.convert_from_registers(registers[2:10], client.DATATYPE.INT32)
            assert (power, error) == (16_000, 0)
        finally:
            client.close()
