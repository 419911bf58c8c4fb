"""The life of the bridge against the simulated cloud, over real HTTP, on both platforms."""

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY, generate_latest

from gateway.api.bridge import HistoryProvider, Sink
from gateway.bridges.open_api import OpenApiBridge
from gateway.core.controller import Controller
from gateway.core.model import CommandState, DeviceKind, Quality, Resolution
from gateway.sems.catalogue import Use, load
from tests.bridges.open_api.kit import (
    CHARGER,
    CLASSIC,
    CONTROL,
    DEVELOPER,
    HOUSE,
    LOGGER,
    ROOF,
    STATION,
    called,
    cloud,
    connected,
    ended,
    order,
    settings,
    status,
)
from tests.kit.bench import Bench, until
from tests.kit.clock import NOON

BOTH = pytest.mark.parametrize("login", [CLASSIC, DEVELOPER], ids=["classic", "developer"])


@BOTH
async def test_plants_and_devices_are_found_with_what_they_take(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        devices = {state.device.serial: state.device for state in bench.router.states()}
        kinds = [device.kind for device in devices.values()]
        for kind in (DeviceKind.PLANT, DeviceKind.STORAGE, DeviceKind.INVERTER, DeviceKind.BATTERY, DeviceKind.METER,
                     DeviceKind.EV_CHARGER, DeviceKind.DATA_LOGGER, DeviceKind.WEATHER_STATION):  # fmt: skip
            assert kind in kinds
        house = devices[HOUSE]
        assert (house.model, house.rated_power) == ("GW10K-ET", 10_000.0)
        assert devices[house.plant].name == "House"
        assert house.time_zone == devices[house.plant].time_zone == "Europe/Berlin"
        assert house.setpoints["battery_power_target"].high <= 10_000
        assert "battery_mode" not in devices[ROOF].setpoints
        assert "active_power_limit" in devices[LOGGER].setpoints


@BOTH
async def test_every_device_has_good_values(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login, poll_interval=5) as bench:
        states = {state.device.serial: state for state in bench.router.states()}
        assert {state.quality for state in states.values()} == {Quality.GOOD}
        assert states[HOUSE].values["pv_power"] > 0
        assert states[STATION].values["irradiance"] > 0
        assert states[CHARGER].values["ev_status"] in {"unplugged", "plugged", "charging"}
        plant = states[states[HOUSE].device.plant].values
        assert plant["pv_power"] + plant["battery_power"] + plant["grid_power"] == pytest.approx(
            plant["load_power"], abs=20
        )


async def test_no_device_is_lost_to_an_expired_token(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        simulator.cloud.spoil(order({"revoke_tokens": True}))
        calls = len(simulator.cloud.calls)
        await until(lambda: len(simulator.cloud.calls) > calls + 40)
        assert status(bench).up
        assert called(simulator).count("GetToken") == 2


@BOTH
async def test_away_and_back(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        await simulator.stop()
        await until(lambda: not status(bench).up)
        assert "can't be reached" in status(bench).detail
        await simulator.start()
        await until(lambda: status(bench).up)


async def test_away_from_the_start(tmp_path):
    async with cloud() as simulator, Bench(tmp_path) as bench:
        await simulator.stop()
        bench.run(OpenApiBridge, settings(simulator), "sems")
        await until(lambda: status(bench) and "trying again" in status(bench).detail)
        await simulator.start()
        await until(lambda: status(bench).up)


async def test_one_device_that_cannot_be_read_does_not_spoil_the_others(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        simulator.cloud.spoil(
            order({"answers": [{"answer": "null_data", "interfaces": ["GetInverterBySN"], "times": 1}]})
        )
        calls = len(simulator.cloud.calls)
        await until(lambda: len(simulator.cloud.calls) > calls + 40)
        assert status(bench).up


async def test_when_nothing_can_be_read_the_bridge_is_down_and_says_why(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        simulator.cloud.spoil(order({"answers": [{"answer": "html", "times": None}]}))
        await until(lambda: not status(bench).up)
        assert "a web page" in status(bench).detail
        simulator.cloud.spoil(order({"clear": True}))
        await until(lambda: status(bench).up)


@BOTH
async def test_a_fault_brings_the_devices_alarms_soon_and_its_end_clears_them(tmp_path, login):
    async with cloud() as simulator, connected(tmp_path, simulator, login) as bench:
        book = bench.router.alarm_book
        own = "GetInverterAlarms" if login is CLASSIC else "DeviceAlarms"
        simulator.cloud.spoil(order({"devices": {ROOF: {"tripped": True}}}))
        await until(lambda: any(alarm.cleared is None for alarm in book.of(ROOF)))
        await until(lambda: own in called(simulator))
        simulator.cloud.spoil(order({"devices": {ROOF: {"tripped": False}}}))
        await until(lambda: not book.of(ROOF))


async def test_metrics_show_the_plan_while_the_bridge_runs(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        text = generate_latest(REGISTRY).decode()
        assert 'sems_gateway_open_api_devices_in_trouble{bridge="sems"} 0.0' in text
        assert 'sems_gateway_open_api_poll_interval_seconds{bridge="sems"} 0.1' in text
        assert 'sems_gateway_open_api_planned_calls_per_hour{bridge="sems",interface="GetSEC1000"}' in text
        await bench.runners[0].stop()
        assert b"open_api" not in generate_latest(REGISTRY)


# every interface of both catalogues


async def whole_life(bench, serials=(HOUSE, CHARGER)):
    """Have the bridge do all it is there for: read, obey, read back, tell of alarms and of the past."""
    simulator, bridge = bench.simulator, bench.runners[0].bridge
    wishes = {
        "running": True, "active_power_limit": 60.0, "reactive_power": 10.0, "power_factor": 0.95,
        "export_limit": 1000.0, "work_mode": "eco", "battery_mode": "charge", "battery_reserve_soc": 20.0,
        "charging": True,
    }  # fmt: skip
    for setpoint, value in wishes.items():
        for serial in serials:
            if bridge.takes(serial, setpoint):
                (event,) = await ended(bench, bench.command(setpoint, value, serial=serial))
                assert event.state is CommandState.SUCCEEDED, (setpoint, event)
    outcome = await bridge.result(bench.command("active_power_limit", 60.0, serial=HOUSE), "")
    assert outcome.state is CommandState.SUCCEEDED
    simulator.cloud.spoil(order({"devices": {ROOF: {"tripped": True}}}))
    await until(lambda: bench.router.alarm_book.of(ROOF))


@BOTH
async def test_every_interface_is_called(tmp_path, login):
    """But for the series, which are the history's and in its tests."""
    catalogue = load("open_api" if login is CLASSIC else "developer")
    extra = {} if login is CLASSIC else {"take_dispatch": True}
    async with cloud() as simulator, connected(tmp_path, simulator, login, **extra) as bench:
        bench.simulator = simulator
        await whole_life(bench)
        wanted = {i.name for i in catalogue.interfaces if i.use is not Use.SERIES}
        await until(lambda: wanted <= set(called(simulator)))
        refused = {(c.interface, c.code) for c in simulator.cloud.calls if c.code not in catalogue.success}
        assert not refused


def test_the_bridge_is_what_it_says():
    assert issubclass(OpenApiBridge, Controller)
    assert issubclass(OpenApiBridge, HistoryProvider)
    assert not issubclass(OpenApiBridge, Sink)


async def test_the_past_is_told(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        bridge = bench.runners[0].bridge
        assert bridge.keeps(HOUSE)
        assert not bridge.keeps("nobody")
        span = (NOON - timedelta(days=2), NOON - timedelta(days=1))
        assert bridge.history_plan(HOUSE, *span, Resolution.MINUTES).pages >= 1
        pages = [page async for page in bridge.history(HOUSE, *span, Resolution.MINUTES)]
        assert any(page.samples for page in pages)


# two accounts


async def test_a_device_known_to_both_platforms_is_one_device_and_gets_one_command(tmp_path):
    async with cloud() as simulator, Bench(tmp_path, CONTROL) as bench:
        runners = {
            name: bench.run(OpenApiBridge, settings(simulator, login), name)
            for name, login in (("classic", CLASSIC), ("newer", DEVELOPER))
        }
        bench.dispatcher.use({name: runners[name].bridge for name in ("newer", "classic")})
        await until(lambda: all((s := status(bench, name)) and s.up for name in runners))
        assert len([s for s in bench.router.states() if s.device.serial == HOUSE]) == 1
        await until(lambda: bench.router.state(HOUSE).values.get("energy_month") is not None)
        values = bench.router.state(HOUSE).values
        assert values["battery_soh"] is not None, "what either knows"
        assert values["pv_power"] > 0
        (event,) = await ended(bench, bench.command("active_power_limit", 55.0, serial=HOUSE))
        assert event.state is CommandState.SUCCEEDED
        sent = [i for i in called(simulator) if i in {"SetActivePowerLimit", "ControlTask.ActivePowerLimit"}]
        assert sent == ["ControlTask.ActivePowerLimit"]
        assert len(simulator.cloud.controls) == 1
        await runners["newer"].stop()
        bench.dispatcher.use({"classic": runners["classic"].bridge})
        (event,) = await ended(bench, bench.command("active_power_limit", 44.0, serial=HOUSE))
        assert event.state is CommandState.SUCCEEDED
        assert called(simulator).count("SetActivePowerLimit") == 1
