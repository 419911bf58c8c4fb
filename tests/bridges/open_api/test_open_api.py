"""The Open API bridge against the simulated cloud, over real HTTP."""

from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest
from pydantic import SecretStr, ValidationError

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.bridges.open_api.polling import CADENCE_MOST, _Cadence
from gateway.core.model import CommandState, DeviceKind, Quality
from gateway.core.points import SETPOINTS
from gateway.core.policy import ControlSettings, Rule
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.faults import FaultOrder
from tests.kit.bench import Bench, collected, until
from tests.kit.clock import NOON

HOUSE = "9010KETU218W0001"
ROOF = "9020KDTU219W0001"
CONTROL = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=list(SETPOINTS))])


@asynccontextmanager
async def cloud(**settings):
    simulator = Simulator(SimulatorSettings(port=0, start=NOON, calls_per_hour=0, device_delay=0, **settings))
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


def settings(simulator, **changes):
    fields = {
        "account": "demo",
        "password": SecretStr("demo"),
        "url": simulator.url,
        "poll_interval": 0.1,
        "calls_per_hour": 10_000_000,
    }
    return OpenApiSettings(**(fields | changes))


@asynccontextmanager
async def connected(tmp_path, simulator, **changes):
    async with Bench(tmp_path, CONTROL) as bench:
        runner = bench.run(OpenApiBridge, settings(simulator, **changes), "sems")
        bench.dispatcher.use({"sems": runner.bridge})
        await until(lambda: status(bench) and status(bench).up)
        yield bench


def status(bench):
    return next((s for s in bench.router.bridges() if s.name == "sems"), None)


async def test_plants_and_devices_are_found_with_what_they_take(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        devices = {state.device.serial: state.device for state in bench.router.states()}
        kinds = [device.kind for device in devices.values()]
        assert kinds.count(DeviceKind.PLANT) == 3
        assert kinds.count(DeviceKind.STORAGE) == 2
        assert kinds.count(DeviceKind.INVERTER) == 6
        house = devices[HOUSE]
        assert (house.model, house.rated_power) == ("GW10K-ET", 10_000.0)
        assert devices[house.plant].name == "House"
        assert set(house.setpoints) >= {"running", "active_power_limit", "battery_mode"}
        assert house.setpoints["battery_power_target"].high <= 10_000
        assert "battery_mode" not in devices[ROOF].setpoints


async def test_values_are_what_the_cloud_knows(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        state = bench.router.state(HOUSE)
        assert state.quality is Quality.GOOD
        assert state.values["pv_power"] > 0
        assert state.values["active_power_limit"] == 100.0
        plant = bench.router.state(state.device.plant).values
        assert plant["pv_power"] + plant["battery_power"] + plant["grid_power"] == pytest.approx(
            plant["load_power"], abs=5
        )


async def ended(bench, *commands):
    async with collected(bench.router) as (events, _):
        answers = await bench.dispatcher.submit(*commands)
        assert all(a.state is CommandState.ACCEPTED for a in answers), answers
        await until(lambda: sum(e.state.final for e in events) == len(commands), timeout=40)
        return [next(e for e in events if e.state.final and e.command.id == c.id) for c in commands]


@pytest.mark.parametrize(
    ("setpoint", "value", "before"),
    [("active_power_limit", 33.0, 100.0), ("running", False, True)],
)
async def test_a_command_changes_the_inverter_and_is_read_back(tmp_path, setpoint, value, before):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        assert bench.router.state(HOUSE).values[setpoint] == before
        (event,) = await ended(bench, bench.command(setpoint, value, serial=HOUSE))
        assert event.state is CommandState.SUCCEEDED
        assert getattr(simulator.world.setpoints(HOUSE), setpoint) == value
        await until(lambda: bench.router.state(HOUSE).values[setpoint] == value)


async def test_the_battery_obeys_mode_power_and_target_together(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        commands = [
            bench.command("battery_power_target", 2_000, serial=HOUSE),
            bench.command("battery_mode", "discharge", serial=HOUSE),
        ]
        assert [e.state for e in await ended(bench, *commands)] == [CommandState.SUCCEEDED] * 2
        in_force = simulator.world.setpoints(HOUSE)
        assert in_force.battery_mode == "discharge"
        assert in_force.battery_power_target == 2_000


async def test_a_device_that_does_not_obey_is_failed_with_what_sems_says(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        simulator.cloud.spoil(order({"devices": {HOUSE: {"obedience": "refuses"}}}))
        (event,) = await ended(bench, bench.command(value=50, serial=HOUSE))
        assert event.state is CommandState.FAILED
        assert event.detail


def order(fields):
    return msgspec.convert(fields, FaultOrder)


async def test_an_answer_that_is_lost_is_found_out_by_reading_back_and_nothing_is_sent_twice(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        lost = {"answer": "http_500", "interfaces": ["SetActivePowerLimit"], "times": 1, "executed": True}
        simulator.cloud.spoil(order({"answers": [lost]}))
        (event,) = await ended(bench, bench.command(value=44, serial=HOUSE))
        assert (event.state, event.detail) == (CommandState.SUCCEEDED, "read back")
        assert [c.interface for c in simulator.cloud.calls].count("SetActivePowerLimit") == 1


async def test_an_answer_that_is_lost_with_the_command_ends_as_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.bridges.open_api.control.READ_BACK_PAUSE", 0.01)
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        lost = {"answer": "truncated", "interfaces": ["SetActivePowerLimit"], "times": 1, "executed": False}
        simulator.cloud.spoil(order({"answers": [lost]}))
        (event,) = await ended(bench, bench.command(value=44, serial=HOUSE))
        assert event.state is CommandState.UNKNOWN
        assert "100.0 is read back" in event.detail


async def test_no_device_is_lost_to_an_expired_token(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        simulator.cloud.spoil(order({"revoke_tokens": True}))
        calls = len(simulator.cloud.calls)
        await until(lambda: len(simulator.cloud.calls) > calls + 40)
        assert status(bench).up
        assert [c.interface for c in simulator.cloud.calls].count("GetToken") == 2


async def test_away_and_back(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        await simulator.stop()
        await until(lambda: not status(bench).up)
        assert "can't be reached" in status(bench).detail
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


async def test_what_is_gone_from_the_account_is_withdrawn_and_a_plant_that_fails_is_not(tmp_path, monkeypatch):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        bridge = bench.runners[0].bridge
        plants = bridge._plants
        simulator.cloud.spoil(order({"answers": [{"answer": "html", "interfaces": ["GetPlantDetail"], "times": None}]}))
        await plants.discover()
        assert len(bench.router.states()) == 11
        simulator.cloud.spoil(order({"clear": True}))
        list_plants = plants._list_plants

        async def fewer():
            return (await list_plants())[:1]

        monkeypatch.setattr(plants, "_list_plants", fewer)
        await plants.discover()
        assert len(bench.router.states()) < 11


async def test_all_pages_of_the_plant_list_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.bridges.open_api.plants.PAGE_SIZE", 2)
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        assert sum(s.device.kind is DeviceKind.PLANT for s in bench.router.states()) == 3


async def test_polling_stretches_to_the_budget(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator, calls_per_hour=360) as bench:
        poller = bench.runners[0].bridge._poller
        assert poller.interval == pytest.approx(11 * 3600 / 324)


async def test_an_odd_time_zone_falls_back_and_says_so(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator, time_zone="Europe/Berlin") as bench:
        plants = bench.runners[0].bridge._plants
        assert plants._zone("Mars/Base").key == "Europe/Berlin"
        assert plants._zone(None).key == "Europe/Berlin"
        assert plants._zone("Europe/Madrid").key == "Europe/Madrid"


async def test_result_without_receipt_of_a_device_gone_is_unknown(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        outcome = await bench.runners[0].bridge.result(bench.command(serial="gone"), "")
        assert outcome.state is CommandState.UNKNOWN


@pytest.mark.parametrize(
    "changes", [{"time_zone": "Nowhere"}, {"url": "no url"}, {"poll_interval": 0}, {"account": ""}]
)
def test_settings_are_checked(changes):
    with pytest.raises(ValidationError):
        OpenApiSettings(**({"account": "a", "password": "b"} | changes))


def test_a_device_is_stale_after_three_of_its_own_intervals():
    cadence = _Cadence()
    assert cadence.interval(60) == 60
    for minutes in (0, 5, 5, 10, 15):
        cadence.heard(NOON + timedelta(minutes=minutes))
    assert cadence.interval(60) == 300
    cadence.heard(NOON + timedelta(hours=5))
    assert cadence.interval(60) == 300, "one outage does not make a device seldom"
    for hours in (6, 7, 8):
        cadence.heard(NOON + timedelta(hours=hours))
    assert cadence.interval(60) == CADENCE_MOST
