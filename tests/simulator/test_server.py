import asyncio
import os
import signal
import socket
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from gateway.cli import app
from gateway.cli.output import EXIT_CONFIG
from gateway.core.clock import SystemClock
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator import plant as plant_module
from gateway.simulator.flows import solve
from tests.kit.bench import until
from tests.kit.ports import free_port
from tests.kit.process import sems_gateway
from tests.simulator.kit import HOUSE_SERIAL, SimulatedCloud

PLANTS = int(os.environ.get("SEMS_GATEWAY_SOAK_PLANTS", "75"))
"""Of four devices each, or nearly; `make soak` has 503: two thousand devices."""


def settings(**changes):
    return SimulatorSettings(**({"port": 0} | changes))


async def test_nothing_listens_before_the_start_nor_after_the_stop():
    simulator = Simulator(settings(port=free_port()))
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(simulator.url)
        await simulator.start()
        assert (await http.get(f"{simulator.url}/sim/calls")).status_code == 200
    await simulator.stop()
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(simulator.url)


async def test_a_kernel_port_is_told_and_kept_over_a_restart(clock):
    async with SimulatedCloud(clock, device_delay=0) as cloud:
        simulator, url = cloud.simulator, cloud.simulator.url
        assert not url.endswith(":0")
        await cloud.log_in()
        await cloud.control("SetActivePowerLimit", active_power_limit=20.0)
        await simulator.stop()
        clock.advance(600)
        await simulator.start()
        assert simulator.url == url
        assert (await cloud.inverter())["active_power_limit"] == 20
        assert simulator.cloud.controls[0].serial == HOUSE_SERIAL


async def test_starting_and_stopping_twice_is_as_good_as_once():
    simulator = Simulator(settings())
    await simulator.stop()
    await simulator.start()
    await simulator.start()
    await simulator.stop()
    await simulator.stop()


async def test_a_taken_port_is_an_error_that_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        simulator = Simulator(settings(port=port))
        with pytest.raises(OSError, match=f"can't listen on port {port} of 127.0.0.1 "):
            await simulator.start()
    await simulator.start()
    await simulator.stop()


async def test_it_leaves_signals_alone_and_prints_nothing(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    simulator = Simulator(settings())
    await simulator.start()
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.get(f"{simulator.url}/nothing")
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    await simulator.stop()
    assert capfd.readouterr() == ("", "")


async def test_a_stop_does_not_wait_for_delayed_answers(clock):
    async with SimulatedCloud(clock) as cloud:
        await cloud.log_in()
        await cloud.break_(answer_delay=600)
        waiting = asyncio.create_task(cloud.inverter())
        async with asyncio.timeout(120):
            await until(lambda: cloud.evidence.calls[-1].interface == "GetInverterBySN")
            await cloud.simulator.stop()
            assert (await waiting)["status"] == 1


async def test_it_runs_on_ipv6():
    simulator = Simulator(settings(host="::1"))
    try:
        await simulator.start()
    except OSError:
        pytest.skip("no IPv6 here")
    assert simulator.url.startswith("http://[::1]:")
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{simulator.url}/sim/calls")).status_code == 200
    await simulator.stop()


async def test_a_fleet_is_polled_without_computing_its_past_again(clock, monkeypatch):
    async with SimulatedCloud(clock, plants=PLANTS, calls_per_hour=0) as cloud:
        await cloud.log_in()
        world = cloud.simulator.world
        for plant in world:
            world.report(plant.id)
        clock.advance(60)
        solved = []
        monkeypatch.setattr(plant_module, "solve", lambda *args: solved.append(args) or solve(*args))
        for plant in world:
            world.true_reports(plant.id)
        assert len(world.fleet) <= len(solved) <= 10 * len(world.fleet)


async def test_the_machines_clock_will_do():
    simulator = Simulator(settings(), SystemClock())
    await simulator.start()
    assert abs((simulator.world.now - datetime.now(UTC)).total_seconds()) < 5
    await simulator.stop()


def test_a_start_without_a_zone_is_utc():
    start = SimulatorSettings(start="2026-06-21T10:00:00").start
    assert start == datetime(2026, 6, 21, 10, tzinfo=UTC)
    assert SimulatorSettings().start is None


@pytest.mark.parametrize(
    "wrong", [{"speed": 0}, {"speed": float("inf")}, {"plants": 0}, {"port": -1}, {"device_delay": -1}, {"colour": 1}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        SimulatorSettings(**wrong)


def test_the_password_is_not_shown():
    assert "hunter2" not in repr(SimulatorSettings(password="hunter2", client_secret="hunter2"))


def test_the_command_says_where_both_apis_are_and_who_may_enter():
    options = ("--port", 0, "--plants", 5, "--devices-per-plant", 2)
    with sems_gateway("simulate", *options) as process:
        url = process.line(r"^ready sems=(http://127\.0\.0\.1:\d+) account=demo password=demo$")[1]
        assert process.lines[:2] == [
            f"SEMS Open API, classic: {url}/api/OpenApi/ account=demo password=demo",
            f"GoodWe developer platform: {url}/goodwe/integration/api/v1/ client_id=demo client_secret=demo",
        ]
        plants = httpx.get(f"{url}/sim/state", timeout=120, trust_env=False).json()["plants"]
        assert [len(plant["devices"]) for plant in plants] == [1, 2, 5, 2, 2]


def test_the_command_takes_faults_and_uploads_for_a_fleet():
    faults = '{"shares": {"offline": 0.5}, "device_delay": {"median": 4, "p95": 15}}'
    options = ("--port", 0, "--plants", 15, "--devices-per-plant", 1, "--upload-interval", 60, "--faults", faults)
    with sems_gateway("simulate", *options) as process:
        url = process.line(r"^ready sems=(http://127\.0\.0\.1:\d+) ")[1]
        shown = httpx.get(f"{url}/sim/fleet", timeout=120, trust_env=False).json()
    assert (shown["devices"], len(shown["faults"]["offline"]), shown["upload_interval"]) == (20, 10, 60)
    assert shown["device_delay"] == {"median": 4, "p95": 15, "most": 3600}


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("--faults", '{"shares": {"offline": 2}}', "--faults: "),
        ("--faults", "{", "--faults: "),
        ("--batch-from", "kafka", "--batch-from takes a Kafka cluster, HOST:PORT"),
    ],
)
def test_options_that_make_no_sense_are_refused(option, value, error):
    done = CliRunner().invoke(app, ["simulate", option, value])
    assert done.exit_code == EXIT_CONFIG
    assert error in done.stderr
