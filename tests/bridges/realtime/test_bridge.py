"""The life of the bridge against the simulated cloud, over real HTTP."""

import pytest
from prometheus_client import REGISTRY, generate_latest
from structlog.testing import capture_logs

from gateway.api.bridge import HistoryProvider, Sink
from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.bridges.realtime import RealtimeBridge, RealtimeSettings
from gateway.core.controller import Controller
from gateway.core.model import DeviceKind, Quality
from gateway.sems.catalogue import Use, load
from tests.bridges.open_api.kit import DEVELOPER, status
from tests.bridges.realtime.kit import (
    BATTERY,
    CHARGER,
    HOUSE,
    LOGGER,
    NUMBERS,
    ROOF,
    STATION,
    calls,
    cloud,
    connected,
    settings,
    spoil,
)
from tests.kit.bench import Bench, until


def states(bench):
    return {state.device.serial: state for state in bench.router.states()}


async def test_whitelisted_devices_are_read_and_no_others(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        found = states(bench)
        assert found.keys() == set(NUMBERS)
        assert {state.quality for state in found.values()} == {Quality.GOOD}
        kinds = {serial: found[serial].device.kind for serial in NUMBERS}
        assert kinds == {
            HOUSE: DeviceKind.STORAGE, ROOF: DeviceKind.INVERTER, CHARGER: DeviceKind.EV_CHARGER,
            LOGGER: DeviceKind.DATA_LOGGER, STATION: DeviceKind.WEATHER_STATION, BATTERY: DeviceKind.BATTERY,
        }  # fmt: skip
        house = found[HOUSE]
        assert (house.device.model, house.device.rated_power) == ("GW10K-ET", 10_000.0)
        assert house.device.time_zone == "Europe/Berlin"
        assert not house.device.setpoints
        assert house.values["pv_power"] > 0
        assert found[STATION].values["irradiance"] > 0
        assert found[CHARGER].values["ev_status"] in {"unplugged", "plugged", "charging"}
        truth = simulator.world.report(BATTERY).values
        assert found[BATTERY].values["battery_soc"] == pytest.approx(truth["battery_soc"], abs=1)


async def test_everything_the_cloud_lists(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator, "*") as bench:
        assert states(bench).keys() == set(simulator.world.serials)
        wanted = {i.name for i in load("realtime").interfaces if i.use is not Use.LOGIN}
        await until(lambda: {call.interface for call in calls(simulator)} == wanted)
        assert {call.code for call in calls(simulator)} == {"00000"}
        spoil(simulator, unauthorised=[ROOF])
        await until(lambda: "unauthorised" in status(bench, "supply").detail)
        assert status(bench, "supply").up


async def test_a_number_outside_the_whitelist_is_said_once_and_spoils_nothing(tmp_path):
    with capture_logs() as log:
        async with cloud(whitelist=(HOUSE, ROOF)) as simulator, connected(tmp_path, simulator) as bench:
            assert states(bench).keys() == {HOUSE, ROOF}
            assert "4 of 6 numbers unauthorised" in status(bench, "supply").detail
            text = generate_latest(REGISTRY).decode()
            assert 'sems_gateway_realtime_numbers{bridge="supply",state="unauthorised"} 4.0' in text
            assert 'sems_gateway_realtime_numbers{bridge="supply",state="read"} 2.0' in text
            count = len(calls(simulator, "storage"))
            await until(lambda: len(calls(simulator, "storage")) > count + 1)
            asked = [serial for call in calls(simulator) for serial in call.params.get("sns", [])]
            assert asked.count(CHARGER) == 1
        assert b"sems_gateway_realtime" not in generate_latest(REGISTRY)
    lines = [entry for entry in log if entry["event"] == "SEMS has no data for a number (unauthorised)"]
    assert sorted(entry["serial"] for entry in lines) == sorted(set(NUMBERS) - {HOUSE, ROOF})
    assert all("whitelist" in entry["advice"] and "W0403" in entry["detail"] for entry in lines)


async def test_a_licence_that_ends_is_said_in_words_and_not_asked_about_again_soon(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        spoil(simulator, licence=False)
        await until(lambda: not status(bench, "supply").up)
        said = status(bench, "supply").detail
        assert "no licence" in said
        assert "ask GoodWe whether the licence agreement" in said
        assert "Next try in 10 min" in said
        assert sum(call.code == "GY0403" for call in calls(simulator)) <= 4, "one a worker at most"


@pytest.mark.parametrize("whitelist", [[HOUSE], "*"])
async def test_an_account_of_another_kind_has_no_licence(tmp_path, whitelist):
    async with cloud() as simulator, Bench(tmp_path) as bench:
        login = {"client_id": "demo", "client_secret": DEVELOPER["client_secret"]}
        bench.run(RealtimeBridge, settings(simulator, whitelist, **login), "supply")
        await until(lambda: "licence" in (((s := status(bench, "supply")) and s.detail) or ""))
        assert not status(bench, "supply").up


async def test_alarms_are_told(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        spoil(simulator, alarms=[{"serial": ROOF, "code": "77", "text": "Fan slow"}], unauthorised=[HOUSE])
        (alarm,) = await until(lambda: bench.router.alarm_book.of(ROOF))
        assert (alarm.code, alarm.text) == ("77", "Fan slow")
        spoil(simulator, alarms=[{"serial": ROOF, "code": "77", "cleared": True}])
        await until(lambda: not bench.router.alarm_book.of(ROOF))


async def test_faults_of_the_cloud_and_back(tmp_path):
    async with cloud() as simulator, connected(tmp_path, simulator) as bench:
        spoil(simulator, answers=[{"answer": "html"}])
        await until(lambda: not status(bench, "supply").up)
        assert "no device can be read" in status(bench, "supply").detail
        spoil(simulator, clear=True, revoke_tokens=True)
        await until(lambda: status(bench, "supply").up)
        await simulator.stop()
        await until(lambda: not status(bench, "supply").up)
        assert "can't be reached" in status(bench, "supply").detail
        await simulator.start()
        await until(lambda: status(bench, "supply").up)


async def test_one_account_has_one_token_and_one_budget_whatever_bridges_use_it(tmp_path):
    async with cloud(supplier_id="demo", supplier_secret="demo") as simulator, Bench(tmp_path) as bench:
        fields = {"url": simulator.url, "poll_interval": 1, "calls_per_hour": 100_000}
        login = {"client_id": "demo", "client_secret": DEVELOPER["client_secret"]}
        bench.run(OpenApiBridge, OpenApiSettings(**(DEVELOPER | fields)), "sems")
        bench.run(RealtimeBridge, RealtimeSettings(**(login | fields | {"whitelist": NUMBERS})), "supply")
        await until(lambda: all((s := status(bench, name)) and s.up for name in ("sems", "supply")))
        assert sum(call.interface == "Token" for call in simulator.cloud.calls) == 1
        one, other = (runner.bridge._session.budget for runner in bench.runners)
        assert one is other
        assert len(one._plans) == 2
        assert one.used == len(simulator.cloud.calls) or one.used >= len(simulator.cloud.calls) - 4


def test_it_is_a_source_and_nothing_else():
    assert not issubclass(RealtimeBridge, Controller)
    assert not issubclass(RealtimeBridge, HistoryProvider)
    assert not issubclass(RealtimeBridge, Sink)
    assert not any(hasattr(RealtimeBridge, name) for name in ("takes", "send", "result"))


def test_nothing_of_it_speaks_of_control():
    catalogue = load("realtime")
    control = {Use.CONTROL, Use.RESULT, Use.PARAMETERS, Use.PARAMETERS_TASK, Use.DISPATCH}
    assert not [i.name for i in catalogue.interfaces if i.use in control or i.setpoints]
    words = ("control", "setpoint", "dispatch", "command", "write")
    for name, field in RealtimeSettings.model_fields.items():
        if name != "overrides":
            assert not any(word in f"{name} {field.description}".lower() for word in words), name
