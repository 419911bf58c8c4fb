"""What an answer does not say, over HTTP from the simulated cloud to what sinks show."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.modbus.units import LAST_UNIT
from gateway.bridges.open_api import OpenApiBridge
from gateway.core.errors import GatewayError
from gateway.core.model import Quality
from tests.bridges.modbus.client import ModbusError, RawClient
from tests.bridges.open_api.kit import CLASSIC, DEVELOPER, HOUSE, cloud, connected, order, settings, status
from tests.kit.bench import Bench, collected, until

BOTH = pytest.mark.parametrize("login", [CLASSIC, DEVELOPER], ids=["classic", "developer"])
LIVE = ["GetInverterBySN", "GetInverterDetail", "DeviceTelemetry"]
PV_POWER = 1028


def spoil(simulator, answer, *interfaces):
    simulator.cloud.spoil(order({"answers": [{"answer": answer, "interfaces": interfaces}]}))


def findings(bench, code):
    return {finding.subject: finding for finding in status(bench).findings if finding.code == code}


def at_once(discovery):
    """Let it look again without waiting for its part of the hour's calls."""
    discovery.allowance.wait = lambda: 0.0
    return discovery


@asynccontextmanager
async def registers(bench, name="scada"):
    """The device's registers, as a client reads them."""
    runner = bench.run(ModbusBridge, ModbusSettings(port=0), name)
    await until(lambda: runner.bridge.port)
    client = await RawClient.connect(runner.bridge.port)
    try:
        yield runner.bridge, client
    finally:
        await client.close()


@BOTH
async def test_s1_success_without_a_value_is_stale_and_no_measurement(tmp_path, login):
    async with (
        cloud() as simulator,
        connected(tmp_path, simulator, login) as bench,
        registers(bench) as (modbus, client),
        collected(bench.router) as (_, states),
    ):
        await until(lambda: HOUSE in modbus.units)
        unit = modbus.units[HOUSE]
        assert await client.words(PV_POWER, 2, unit=unit)
        spoil(simulator, "empty_data", *LIVE)
        await until(lambda: HOUSE in findings(bench, "no_data"))
        last = bench.router.state(HOUSE)
        assert last.values["pv_power"] > 0

        def aged():
            bench.router.age()
            return bench.router.state(HOUSE).quality is Quality.STALE

        await until(aged)
        assert bench.router.state(HOUSE).time == last.time
        await until(lambda: states[HOUSE].quality is Quality.STALE)
        await asyncio.sleep(0)
        with pytest.raises(ModbusError) as error:
            await until_refused(client, unit)
        assert error.value.code == 0x0B
        simulator.cloud.spoil(order({"clear": True}))
        await until(lambda: bench.router.state(HOUSE).quality is Quality.GOOD)
        await until(lambda: not findings(bench, "no_data"))


async def until_refused(client, unit):
    async with asyncio.timeout(120):
        while True:
            await client.words(PV_POWER, 2, unit=unit)


@BOTH
@pytest.mark.parametrize("answer", ["empty_lists", "empty_data", "null_data", "refused"])
async def test_s2_an_empty_list_of_plants_takes_nothing_away(tmp_path, login, answer):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        known = {state.device.serial for state in bench.router.states()}
        assert len(known) > 15
        mailbox = bench.router.attach("sink")
        spoil(simulator, answer, "GetUserPlantList", "StationList")
        discovery = at_once(bench.runners[0].bridge._discovery)
        for _ in range(4):
            try:
                await discovery.round()
            except GatewayError:
                assert answer != "empty_lists"
            else:
                assert answer == "empty_lists"
                finding = findings(bench, "list_doubted")[""]
                assert "0 of 3" in finding.text
        assert {state.device.serial for state in bench.router.states()} >= known
        assert not (await mailbox.take()).removed
        simulator.cloud.spoil(order({"clear": True}))
        await discovery.round()
        assert not findings(bench, "list_doubted")


async def test_s2_an_empty_list_after_a_restart_is_doubted_too(tmp_path):
    """What Home Assistant and the broker keep of a device is taken back only while every bridge is up."""
    async with cloud() as simulator:
        async with connected(tmp_path, simulator, CLASSIC) as bench:
            kept = tmp_path / "sems-listed.json"
            await until(kept.exists)
        spoil(simulator, "empty_lists", "GetUserPlantList")
        async with Bench(tmp_path) as bench:
            runner = bench.run(OpenApiBridge, settings(simulator, CLASSIC), "sems")
            await until(lambda: status(bench) and findings(bench, "list_doubted"))
            await until(lambda: "less than before the restart" in status(bench).detail)
            assert not status(bench).up
            assert not runner.bridge._plants.looked_for or runner.bridge._discovery.unsure
            assert len(msgspec.json.decode(kept.read_bytes())["serials"]) > 15, "kept as it was"
            simulator.cloud.spoil(order({"clear": True}))
            await at_once(runner.bridge._discovery).round()
            await until(lambda: status(bench).up)
            assert not findings(bench, "list_doubted")


async def test_s8_a_refusal_costs_one_interface(tmp_path):
    async with cloud() as simulator:
        spoil(simulator, "refused", "GetPlantDetail", "GetDataLoggerList", "GetPlantWeather")
        async with connected(tmp_path, simulator) as bench:
            await until(lambda: bench.router.state(HOUSE) and bench.router.state(HOUSE).quality is Quality.GOOD)
            refused = findings(bench, "interface_refused")
            assert {"GetPlantDetail", "GetDataLoggerList"} <= refused.keys()
            assert "GetPlantDetail: {request: {plant_id: {field: powerStationId}}}" in refused["GetPlantDetail"].remedy
            assert "devices: [" in refused["GetDataLoggerList"].remedy


async def test_s8_the_configuration_stands_in_for_lists(tmp_path):
    async with cloud() as simulator:
        house = simulator.world.home(HOUSE).id
        spoil(simulator, "refused", "GetUserPlantList", "GetInverterList", "GetDataLoggerList")
        async with Bench(tmp_path) as bench:
            bench.run(OpenApiBridge, settings(simulator), "sems")
            await until(lambda: status(bench) and "GetUserPlantList" in findings(bench, "interface_refused"))
            assert "plants: [" in findings(bench, "interface_refused")["GetUserPlantList"].remedy
            assert not status(bench).up
            await bench.runners.pop().stop()
            given = {"plants": [house], "devices": [{"sn": HOUSE, "type": "storage", "plant": house}]}
            bench.run(OpenApiBridge, settings(simulator, **given), "sems")
            await until(lambda: status(bench).up)
            await until(lambda: bench.router.state(HOUSE) and bench.router.state(HOUSE).quality is Quality.GOOD)
            assert {state.device.serial for state in bench.router.states()} == {HOUSE, house}


async def test_s19_ghosts_of_a_list_get_nothing(tmp_path):
    async with cloud() as simulator:
        spoil(simulator, "ghosts", "GetDataLoggerList")
        async with (
            connected(tmp_path, simulator) as bench,
            registers(bench) as (modbus, _),
            collected(bench.router) as (_, states),
        ):
            await until(lambda: HOUSE in modbus.units and HOUSE in states)
            await until(lambda: any(call.interface == "GetPlantPowerFlow" for call in simulator.cloud.calls))
            announced = {state.device.serial for state in bench.router.announced()}
            assert sum(serial.startswith("GHOST") for serial in announced) == 300
            for shown in (modbus.units, states, {s.device.serial for s in bench.router.states()}):
                assert HOUSE in shown
                assert not [serial for serial in shown if serial.startswith("GHOST")], bench.router.state("GHOST0000")
            assert len(modbus.units) < LAST_UNIT
            assert not modbus.left_out
            assert "GHOST" not in (tmp_path / "scada-units.json").read_text()


async def test_fields_that_the_catalogue_does_not_know_are_named(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        await until(lambda: findings(bench, "fields_unknown"))
        finding = next(iter(findings(bench, "fields_unknown").values()))
        assert "reserved" in finding.text
        assert "overrides: {interfaces: {" in finding.remedy
