"""Modbus clients we did not write, against the whole chain: simulated SEMS → gateway → registers.

The sun stands still, so that what the simulator says now is what a client must read, unit by unit.
"""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import goodwe
import pytest
import sunspec2.modbus.client as sunspec

from gateway.app import Gateway
from gateway.bridges.modbus import registers
from gateway.core.model import DeviceKind, Quality
from gateway.core.registry import installed
from gateway.settings import Config
from gateway.simulator import Simulator, SimulatorSettings
from tests.kit.bench import until
from tests.kit.mbpoll import mbpoll
from tests.kit.ports import free_port

pytestmark = pytest.mark.system
HOUSE = "9010KETU218W0001"
DEVICES = 3 + 8 + 10
"""Plants, inverters, and what else there is."""
CONFIG = """\
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: "{url}", poll_interval: 0.5, calls_per_hour: 1000000}}
  modbus:
    type: modbus
    port: {port}
    maps: [native, sunspec, goodwe]
    units: {{{house}: 247}}
  swapped: {{type: modbus, port: {swapped}, word_order: cdab}}
control:
  enabled: true
  max_per_minute: 1000
  allow: [{{devices: ["*"], setpoints: [active_power_limit, running, battery_mode, battery_power_target]}}]
"""


class Chain:
    def __init__(self, simulator, gateway, port, swapped):
        self.simulator, self.gateway, self.port, self.swapped = simulator, gateway, port, swapped

    @property
    def inverters(self):
        kinds = (DeviceKind.INVERTER, DeviceKind.STORAGE)
        return [s.device.serial for s in self.gateway.router.states() if s.device.kind in kinds]

    def unit(self, serial, bridge="modbus"):
        return self.gateway.runners[bridge].bridge.units[serial]

    def truth(self, serial):
        """What the simulator says, behind the cloud's back."""
        for plant in self.simulator.world:
            report, devices = self.simulator.world.true_reports(plant.id)
            if plant.id == serial:
                return report.values
            if serial in devices:
                return devices[serial].values
        raise KeyError(serial)

    def limit(self, serial):
        return self.simulator.world.setpoints(serial).active_power_limit


@pytest.fixture
async def chain(tmp_path):
    async with running(tmp_path) as it:
        yield it


@asynccontextmanager
async def running(tmp_path):
    start = datetime(2026, 6, 21, 10, 0, tzinfo=UTC)
    simulator = Simulator(SimulatorSettings(port=0, start=start, speed=1e-9, calls_per_hour=0, device_delay=0))
    await simulator.start()
    port, swapped = free_port(), free_port()
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(url=simulator.url, port=port, swapped=swapped, house=HOUSE))
    gateway = Gateway(Config.load(file, installed()))
    await gateway.start()
    try:
        await until(
            lambda: (
                len(gateway.runners["modbus"].bridge.units) == len(gateway.runners["swapped"].bridge.units) == DEVICES
                and all(state.quality is Quality.GOOD for state in gateway.router.states())
            ),
            timeout=30,
        )
        yield Chain(simulator, gateway, port, swapped)
    finally:
        await gateway.stop()
        await simulator.stop()


def address(point):
    return next(r.address for r in registers.registers() if r.point == point and r.type == "float32")


@pytest.mark.parametrize("swapped", [False, True])
async def test_mbpoll_reads_floats_in_both_word_orders_unit_by_unit(chain, swapped):
    bridge, port = ("swapped", chain.swapped) if swapped else ("modbus", chain.port)
    for serial in chain.inverters:
        truth = chain.truth(serial)
        for point in ("ac_power", "pv_power", "l1_voltage", "energy_today"):
            read = await mbpoll(port, address(point), unit=chain.unit(serial, bridge), table="4:float", swapped=swapped)
            assert read.values == [pytest.approx(truth[point], rel=0.01, abs=0.2)], (serial, point, read.error)


async def test_pysunspec2_scans_every_unit_and_reads_what_the_simulator_says(chain):
    def scan(unit):
        device = sunspec.SunSpecModbusClientDeviceTCP(slave_id=unit, ipaddr="127.0.0.1", ipport=chain.port, timeout=5)
        try:
            device.scan()
            models = {key: model[0] for key, model in device.models.items() if isinstance(key, int)}
            assert not any(model.error_info for model in models.values())
            return {key: {name: point.cvalue for name, point in model.points.items()} for key, model in models.items()}
        finally:
            device.close()

    for serial, unit in chain.gateway.runners["modbus"].bridge.units.items():
        models = await asyncio.to_thread(scan, unit)
        truth = chain.truth(serial)
        assert models[1]["SN"] == serial[:32]
        if serial not in chain.inverters:
            continue
        inverter = models.get(103) or models[101]
        assert inverter["W"] == pytest.approx(truth["ac_power"], rel=0.01, abs=10)
        assert inverter["PhVphA"] == pytest.approx(truth["l1_voltage"], abs=0.2)
        assert inverter["WH"] == pytest.approx(truth["energy_total"] * 1000, rel=0.001)
        assert models[701]["W"] == pytest.approx(truth["ac_power"], rel=0.01, abs=10)


@pytest.mark.parametrize("model", [123, 704])
async def test_pysunspec2_sets_a_limit_that_the_simulated_inverter_obeys(chain, model):
    serial = "9050KMTU220W0003"

    def limit():
        device = sunspec.SunSpecModbusClientDeviceTCP(
            slave_id=chain.unit(serial), ipaddr="127.0.0.1", ipport=chain.port, timeout=5
        )
        try:
            device.scan()
            controls = device.models[model][0]
            value, enable = ("WMaxLimPct", "WMaxLim_Ena") if model == 123 else ("WMaxLimPct", "WMaxLimPctEna")
            controls.points[value].cvalue = 42
            controls.points[value].write()
            controls.points[enable].value = 1
            controls.points[enable].write()
        finally:
            device.close()

    await asyncio.to_thread(limit)
    await until(lambda: chain.limit(serial) == 42)


async def test_the_goodwe_library_takes_the_cloud_for_the_inverter(chain):
    inverter = await goodwe.connect("127.0.0.1", chain.port, "ET", comm_addr=247, timeout=5, retries=1)
    assert inverter.serial_number == HOUSE
    data = await inverter.read_runtime_data()
    truth = chain.truth(HOUSE)
    assert data["ppv"] == pytest.approx(truth["pv_power"], rel=0.05, abs=20)
    assert data["vpv1"] == pytest.approx(truth["pv1_voltage"], abs=0.2)
    assert data["battery_soc"] == pytest.approx(truth["battery_soc"], abs=1)
    assert data["vgrid"] == pytest.approx(truth["l1_voltage"], abs=0.2)
