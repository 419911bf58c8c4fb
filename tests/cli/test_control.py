"""`sems-gateway halt`, `resume` and `explain`, by a running gateway and without one."""

import asyncio
import getpass
import json
import os
import select
import socket
import threading

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.api.registry import installed
from gateway.bridges.local.bridge import MAX_CONNECTIONS
from gateway.bridges.local.protocol import SOCKET_NAME, StopControl, socket_path
from gateway.cli import app, main
from gateway.cli.control import _halted_on_disk
from gateway.cli.target import Target
from gateway.core.model import Device, DeviceKind, Range
from gateway.run.app import Gateway
from gateway.run.data_dir import hold
from gateway.run.settings import Config
from gateway.simulator import Simulator, SimulatorSettings
from tests.kit.bench import until
from tests.kit.process import PATIENCE

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


def running(file, *calls, prepare=None):
    """Call the command line while a gateway runs, after `prepare(gateway)`."""

    async def run():
        gateway = Gateway(Config.load(file, installed()))
        await gateway.start()
        try:
            gateway.router.announce("scripted", DEVICE)
            gateway._dispatcher.use({"scripted": Scripted()})
            await until(lambda: any(status.name == "cli" and status.up for status in gateway.router.bridges()))
            if prepare is not None:
                await prepare(gateway)
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
    assert resumed.output.startswith(f"control goes on: it was halted by cli:{getpass.getuser()} at ")
    assert "fire drill" in resumed.output
    assert again.exit_code == 0, again.output
    audit = call("audit", file, "--format", "json").stdout
    assert audit.count('"halted"') == 1
    assert audit.count('"resumed"') == 1


def test_without_a_gateway_the_next_start_finds_it_so(file):
    assert "the next start finds it so" in call("halt", file).output
    assert "halted by cli:" in call("halt", file, "--reason", "again").output
    (asked,) = running(file, ["explain", file, "SN1", "active_power_limit", "50", "--format", "json"])
    assert json.loads(asked.stdout)["reason"] == "halted"
    resumed, again = call("resume", file), call("resume", file)
    assert (resumed.exit_code, again.exit_code) == (0, 0)
    assert "control goes on" in resumed.output
    assert again.output.startswith("control was not halted; no gateway runs")
    assert not (file.parent / "data" / "halt.json").exists()


def test_a_halt_gets_in_where_every_seat_is_taken(file):
    async def fill(gateway):
        path = str(file.parent / "data" / SOCKET_NAME)
        bridge = gateway.runners["cli"].bridge
        for one in held:
            one.connect(path)
        await until(lambda: len(bridge._acceptor.seats) == MAX_CONNECTIONS)

    held = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CONNECTIONS)]
    halted, resumed = running(file, ["halt", file], ["resume", file], prepare=fill)
    for one in held:
        one.close()
    assert (halted.exit_code, resumed.exit_code) == (0, 0), halted.output
    assert "control goes on" in resumed.output


@pytest.fixture
def hangs_up(file):
    """Something that holds data_dir, and closes every connection once it has been said something."""

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            # What is unread makes a reset of it.
            select.select([connection], [], [], PATIENCE)
            connection.close()

    directory = file.parent / "data"
    directory.mkdir()
    lock = hold(directory)
    with socket_path(directory) as path, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield file
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
    os.close(lock)


@pytest.mark.parametrize(
    "words",
    [
        ["devices"],
        ["units"],
        ["doctor"],
        ["resume"],
        ["send", ..., "SN1", "running", "true"],
        ["send", ..., "--fleet", "running", "true"],
        ["explain", ..., "SN1", "running", "true"],
        ["history", ..., "SN1", "--from", "2026-06-01", "--to", "2026-06-02"],
    ],
    ids=lambda words: f"{words[0]}{'-fleet' if '--fleet' in words else ''}",
)
def test_a_connection_that_is_reset_is_told_in_words(hangs_up, words, tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.cli.control.ANSWER_WITHIN", 0.5)
    words = [hangs_up if word is ... else word for word in (words if ... in words else [*words, ...])]
    if words[0] == "history":
        words += ["--out", tmp_path / "out.csv"]
    done = call(*words)
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, "gateway" in done.output or "process" in done.output) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        ["devices", ...],
        ["units", ...],
        ["send", ..., "SN1", "running", "true"],
        ["send", ..., "--fleet", "running", "true"],
        ["explain", ..., "SN1", "running", "true"],
    ],
    ids=lambda words: f"{words[0]}{'-fleet' if '--fleet' in words else ''}",
)
def test_a_gateway_that_says_nothing_is_not_waited_for(file, words, monkeypatch):
    """It hangs, or somebody has stopped it: the kernel accepts for it."""
    for module in ("gateway.bridges.local.client", "gateway.cli.fleet"):
        monkeypatch.setattr(f"{module}.FIRST_REPLY_WITHIN", 0.2)
    directory = file.parent / "data"
    directory.mkdir()
    with socket_path(directory) as path, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        done = call(*(file if word is ... else word for word in words))
    assert (done.exit_code, "said nothing for 0.2 s" in " ".join(done.output.split())) == (1, True)


def test_a_halt_that_is_hung_up_on_is_left_on_the_disk(hangs_up, monkeypatch):
    monkeypatch.setattr("gateway.cli.control.ANSWER_WITHIN", 0.5)
    done = call("halt", hangs_up, "--reason", "fire")
    assert (done.exit_code, "the halt is on the disk" in done.output) == (1, True)
    assert json.loads((hangs_up.parent / "data" / "halt.json").read_text())["reason"] == "fire"


def test_a_gateway_takes_up_a_halt_that_was_left_on_the_disk(file):
    async def leave(gateway):
        await _halted_on_disk(Target.of(file, None), StopControl("somebody", "fire"))
        await until(lambda: gateway._halting.current is not None)

    asked, resumed = running(
        file, ["explain", file, "SN1", "active_power_limit", "50"], ["resume", file], prepare=leave
    )
    assert (asked.exit_code, "cli:somebody" in asked.output) == (1, True)
    assert resumed.exit_code == 0
    assert not (file.parent / "data" / "halt.json").exists()
    audit = call("audit", file, "--format", "json").stdout
    assert (audit.count('"halted"'), audit.count('"resumed"')) == (1, 1)


@pytest.mark.parametrize("joined", [False, True])
def test_a_halt_does_not_fail_by_its_wording(file, monkeypatch, joined):
    reason = "gas\x1b[2J\nleak \udcff" + "x" * 10_000
    words = [f"--reason={reason}"] if joined else ["--reason", reason]
    monkeypatch.setattr("sys.argv", ["sems-gateway", "halt", str(file), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    kept = json.loads((file.parent / "data" / "halt.json").read_text())["reason"]
    assert kept.startswith("gas [2J leak xxx")


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
    monkeypatch.setattr("gateway.run.app.AGEING", 0.01)
    simulator = Simulator(SimulatorSettings(port=0))
    file = tmp_path / "config.yaml"

    async def run():
        await simulator.start()
        sems = f"  sems: {{type: open_api, account: demo, password: demo, url: '{simulator.url}'}}\n"
        file.write_text(CONFIG.replace("bridges:\n", f"bridges:\n{sems}").replace("[gone]", "[9010KETU218W000l]"))
        gateway = Gateway(Config.load(file, installed()))
        await gateway.start()
        try:
            await until(lambda: gateway._summed_up)
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
