"""`sems-gateway halt`, `resume` and `explain`, by a running gateway and without one."""

import asyncio
import getpass
import json

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.app import Gateway
from gateway.cli import app
from gateway.core.model import Device, DeviceKind, Range
from gateway.core.registry import installed
from gateway.settings import Config
from gateway.simulator import Simulator, SimulatorSettings
from tests.kit.bench import until

CONFIG = """\
bridges:
  web: {type: web, port: 0}
control:
  enabled: true
  allow:
    - devices: [SN*]
      setpoints: [active_power_limit]
      origins: [cli, web]
      min: 20
    - devices: [gone]
      setpoints: [running]
"""
DEVICE = Device(serial="SN1", kind=DeviceKind.INVERTER, setpoints={"active_power_limit": Range(0, 100)})


class Scripted:
    def takes(self, *_):
        return True


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def running(file, *calls):
    """Call the command line while a gateway runs."""

    async def run():
        gateway = Gateway(Config.load(file, installed()))
        await gateway.start()
        try:
            gateway.router.announce("scripted", DEVICE)
            gateway._dispatcher.use({"scripted": Scripted()})
            await until(lambda: any(status.name == "cli" and status.up for status in gateway.router.bridges()))
            return [await asyncio.to_thread(call, *words) for words in calls]
        finally:
            await gateway.stop()

    return asyncio.run(run())


def test_a_running_gateway_is_halted_and_stays_so_until_it_is_resumed(file):
    halted, asked = running(
        file,
        ["halt", file, "--reason", "fire drill"],
        ["explain", file, "SN1", "active_power_limit", "50"],
    )
    assert halted.exit_code == 0
    assert halted.output.startswith(f"control is halted by cli:{getpass.getuser()} at ")
    assert "fire drill" in halted.output
    assert (asked.exit_code, "halted" in asked.output) == (1, True)
    asked, resumed, again = running(
        file,
        ["explain", file, "SN1", "active_power_limit", "50", "--format", "json"],
        ["resume", file],
        ["explain", file, "SN1", "active_power_limit", "50"],
    )
    assert json.loads(asked.stdout)["reason"] == "halted"
    assert resumed.output == "control is not halted\n"
    assert again.exit_code == 0, again.output
    audit = call("audit", file, "--format", "json").stdout
    assert audit.count('"halted"') == 1
    assert audit.count('"resumed"') == 1


def test_without_a_gateway_the_next_start_finds_it_so(file):
    assert "no gateway runs, the next start finds it so" in call("halt", file).output
    assert "halted by cli:" in call("halt", file, "--reason", "again").output
    (asked,) = running(file, ["explain", file, "SN1", "active_power_limit", "50", "--format", "json"])
    assert json.loads(asked.stdout)["reason"] == "halted"
    assert call("resume", file).exit_code == 0
    assert not (file.parent / "data" / "halt.json").exists()


def test_a_disk_that_is_full_is_told(file, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.core.files.replace", full)
    done = call("halt", file)
    assert done.exit_code == 1
    assert "control is halted, but" in done.output
    (done,) = running(file, ["halt", file])
    assert done.exit_code == 1
    assert "a restart would resume it" in done.output


def test_it_is_explained_for_people(file):
    permitted, refused = running(
        file,
        ["explain", file, "SN1", "active_power_limit", "50", "--as", "web"],
        ["explain", file, "SN1", "active_power_limit", "10"],
    )
    assert permitted.exit_code == 0, permitted.output
    lines = [" ".join(line.split()) for line in permitted.output.splitlines()]
    assert "rule ok rule 1 of control.allow lets web set it" in lines
    assert "controller ok scripted would carry it out" in lines
    assert any(line.startswith(f"rule 1, control.allow[0] at {file}:6: {{") for line in lines)
    assert "rule 2 names 'gone' among its devices, which is not known" in lines
    assert lines[-1] == "permitted, and sent as 50.0"
    assert refused.exit_code == 1
    assert refused.output.rstrip().endswith("refused: out_of_range")


def test_it_is_explained_for_programs(file):
    (asked,) = running(file, ["explain", file, "SN1", "active_power_limit", "5", "-f", "json"])
    found = json.loads(asked.stdout)
    assert (asked.exit_code, found["permitted"], found["reason"], found["value"]) == (1, False, "out_of_range", 5.0)
    assert found["rule"]["line"] == 6
    assert found["rule"]["rule"]["min"] == 20
    assert found["rule"]["current"]
    assert found["running"]
    assert [check["check"] for check in found["checks"] if not check["ok"]] == ["range"]
    assert found["unmet"] == [{"rule": 2, "key": "devices", "name": "gone"}]


def test_a_file_that_was_changed_since_is_noticed(file):
    async def run():
        gateway = Gateway(Config.load(file, installed()))
        await gateway.start()
        try:
            gateway.router.announce("scripted", DEVICE)
            await until(lambda: any(status.name == "cli" and status.up for status in gateway.router.bridges()))
            file.write_text(CONFIG.replace("min: 20", "min: 0"))
            return await asyncio.to_thread(call, "explain", file, "SN1", "active_power_limit", "5")
        finally:
            await gateway.stop()

    said = asyncio.run(run()).output
    assert "the file was changed since the gateway was started" in said


def test_without_a_gateway_it_is_explained_from_the_configuration(file):
    done = call("explain", file, "SN1", "active_power_limit", "50")
    assert done.exit_code == 1
    assert "No gateway runs" in done.output
    assert "no device 'SN1' is known" in done.output


@pytest.mark.parametrize(
    ("who", "says"), [("wbe", "there is no bridge 'wbe'; did you mean 'web'?"), ("web/x", "nobody has a role at")]
)
def test_a_stranger_is_no_origin(file, who, says):
    done = call("explain", file, "SN1", "active_power_limit", "50", "--as", who)
    assert done.exit_code == 2
    assert says in done.output


def test_what_rules_name_and_nobody_has_is_logged_once_all_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.app.AGEING", 0.01)
    simulator = Simulator(SimulatorSettings(port=0))
    file = tmp_path / "config.yaml"

    async def run():
        await simulator.start()
        sems = f"  sems: {{type: open_api, account: demo, password: demo, url: '{simulator.url}'}}\n"
        file.write_text(CONFIG.replace("bridges:\n", f"bridges:\n{sems}").replace("[gone]", "[9010KETU218W000l]"))
        gateway = Gateway(Config.load(file, installed()))
        await gateway.start()
        try:
            await until(lambda: gateway._unmet_told, timeout=20)
            await asyncio.sleep(0)
        finally:
            await gateway.stop()
            await simulator.stop()

    with capture_logs() as logs:
        asyncio.run(run())
    told = [line for line in logs if line["event"] == "a rule of control.allow names what is not known"]
    assert [(line["rule"], line["line"], line["key"], line["name"]) for line in told] == [
        (1, 7, "devices", "SN*"),
        (2, 11, "devices", "9010KETU218W000l"),
    ]
    assert told[1]["hint"] == "did you mean '9010KETU218W0001'?"
