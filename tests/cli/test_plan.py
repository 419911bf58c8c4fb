"""`sems-gateway plan`: what it prints, for made-up fleets and for a gateway's own devices."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from typer.testing import CliRunner

from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.cli import app
from gateway.cli import plan as show_plan
from gateway.core.model import CommandState, Device, DeviceKind, DeviceState, Quality, Range
from gateway.simulator import Simulator, SimulatorSettings
from tests.kit.bench import Bench, until
from tests.kit.journal import event

CONFIG = """
gateway: {{data_dir: {data}}}
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: "{url}", calls_per_hour: 3600}}
"""


@pytest.fixture
def config(tmp_path):
    def write(url="http://127.0.0.1:9"):
        file = tmp_path / "config.yaml"
        file.write_text(CONFIG.format(data=tmp_path / "data", url=url))
        return str(file)

    return write


def test_what_if(config):
    done = CliRunner().invoke(app, ["plan", config(), "--devices", "2000", "--plants", "100"])
    assert done.exit_code == 0, done.output
    assert "sems: 2000 devices in 100 plants, 3600 calls an hour" in done.output
    assert "GetInverterList" in done.output
    assert "of 3060 that may be planned" in done.output
    assert "at most 8 min 13 s old" in done.output
    assert "at most 3 h 36 min old" in done.output


def test_five_devices_are_read_each_minute(config):
    done = CliRunner().invoke(app, ["plan", config(), "--devices", "5"])
    assert "5 devices in 1 plant," in done.output
    assert "at most 60 s old" in done.output
    assert "lists" not in done.output


def test_of_the_real_devices(config):
    simulator = Simulator(SimulatorSettings(port=0))

    async def run():
        await simulator.start()
        try:
            return await asyncio.to_thread(CliRunner().invoke, app, ["plan", config(simulator.url)])
        finally:
            await simulator.stop()

    done = asyncio.run(run())
    assert done.exit_code == 0, done.output
    assert "in 3 plants" in done.output
    assert "GetSEC1000" in done.output


def test_without_such_a_bridge_there_is_nothing_to_plan(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("bridges: {web: {type: web}}")
    done = CliRunner().invoke(app, ["plan", str(file)])
    assert done.exit_code == 2
    assert "no bridge of type open_api" in done.output


def test_each_bridge_plans_for_what_it_reads():
    def state(serial, source, kind=DeviceKind.METER, **fields):
        device = Device(serial=serial, kind=kind, **fields)
        return DeviceState(device=device, quality=Quality.GOOD, time=None, source=source, values={})

    states = [state("a", "one"), state("b", "two"), state("c", "push"), state("f", "one", DeviceKind.FLEET),
              state("d", "one", DeviceKind.DATA_LOGGER, setpoints={"export_limit": Range()}),
              state("e", "one", DeviceKind.DATA_LOGGER)]  # fmt: skip
    found = show_plan.targets_of(states, "one", ["one", "two"])
    assert {t.serial: t.type for t in found} == {"a": "meter", "c": "meter", "d": "sec1000", "e": "homekit"}


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (60, "60 s"),
        (119.5, "120 s"),
        (492.3, "8 min 13 s"),
        (600, "10 min"),
        (12_968, "3 h 36 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_read_well(seconds, says):
    assert show_plan.duration(seconds) == says


def test_what_an_outage_leaves_out_for_good(config, tmp_path):
    def plan(**more):
        file = tmp_path / "other.yaml"
        lines = "".join(f"    {key}: {value}\n" for key, value in more.items())
        file.write_text(f"gateway: {{data_dir: {tmp_path}}}\nbridges:\n  sems:\n    type: open_api\n{lines}")
        return CliRunner().invoke(app, ["plan", str(file), "--devices", "10000", "--plants", "500"]).output

    classic = {"account": "demo", "password": "demo"}
    assert "what is older than 4 d by then is given up" in plan(**classic, fill_gaps_within=4 * 86_400)
    assert "fill_gaps_within is 0" in plan(**classic, fill_gaps_within=0)
    assert "SEMS keeps no minutes" in plan(platform="developer", client_id="demo", client_secret="demo")


@pytest.mark.parametrize("option", ["--devices", "--plants"])
def test_what_no_account_has_is_refused_in_words_and_the_most_is_planned(config, option):
    for count in (0, -1, 100_001, 10**30):
        refused = CliRunner().invoke(app, ["plan", config(), option, str(count)])
        assert refused.exit_code == 2
        assert option in refused.output
    most = CliRunner().invoke(app, ["plan", config(), option, "100000"])
    assert most.exit_code == 0, most.output
    assert "calls an hour" in most.output


async def test_which_services_a_fleet_can_serve(tmp_path, config):
    file = config()
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text() + "fleets: {north: {members: {kinds: [inverter]}}}\n")
    (tmp_path / "data").mkdir()
    async with Bench(tmp_path / "data") as bench:
        bench.announce(Device(serial="fleet:north", kind=DeviceKind.FLEET))
        bench.publish("fleet:north", data_age_p95=70.0, members=50)
        bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: any(s.up for s in bench.router.bridges()))
        for n in range(6):
            command = bench.command("power_target", 1_000.0, serial="fleet:north", id=f"{n}", origin="mqtt")
            begun = bench.clock.now() - timedelta(hours=6 - n)
            await bench.journal.record(event(command, time=begun))
            end = event(command, CommandState.SUCCEEDED, time=begun + timedelta(seconds=200))
            await bench.journal.record(msgspec.structs.replace(end, verified=True))
        done = await asyncio.to_thread(CliRunner().invoke, app, ["plan", file, "--fleet", "fleet:north"])
        other = await asyncio.to_thread(CliRunner().invoke, app, ["plan", file, "--fleet", "fleet:south"])
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "fleet:north: 50 members; in 7 days 6 targets, 6 of them held"
    assert "to hold: 200 s, for 95 %" in lines
    assert "age of the data: 70 s, for 95 %" in lines
    assert "commands to members by a target: 0, for 95 %; for control there are 360 calls an hour" in lines
    assert "dispatch each 15 minutes yes" in lines
    assert "dispatch each 5 minutes no a target takes 200 s to hold, and has 150 s" in lines
    assert any(line.startswith("export limit that holds in 5 s (G100) no") for line in lines)
    assert other.exit_code == 2
    assert "there is no fleet:south under fleets:" in other.output
