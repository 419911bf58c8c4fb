"""`data_dir` alone is enough for what talks to a running gateway, and nobody else can read what is in it."""

import getpass
import json
import os
import socket
import stat
from contextlib import suppress

import pytest

from gateway.core import files
from gateway.run import data_dir
from gateway.run.data_dir import HeldError
from gateway.run.settings import ConfigError
from tests.kit.process import eventually, finished, sems_gateway

CONFIG = """\
gateway: {data_dir: state}
bridges:
  web: {type: web, port: 0}
  sems: {type: open_api, account: demo, password: {env: SEMS_TEST_PASSWORD}, url: "http://127.0.0.1:9"}
control:
  enabled: true
  allow: [{devices: ["*"], setpoints: [active_power_limit]}]
"""
BROKEN = {
    "a variable that is not set in this shell": CONFIG,
    "a file that is not there": CONFIG.replace("{env: SEMS_TEST_PASSWORD}", "{file: nowhere}"),
    "an unknown key": CONFIG + "contrl: {}\n",
    "an unknown key beside it": CONFIG.replace("data_dir: state", "data_dir: state, data-dir: other"),
    "a typo in an unrelated section": CONFIG.replace("setpoints:", "setpoint:"),
    "a wrong type": CONFIG.replace("enabled: true", "enabled: [perhaps]"),
    "a section that is none": CONFIG.replace("control:\n", "log: 5\ncontrol:\n"),
    "an unknown kind of bridge": CONFIG.replace("type: web", "type: wbe"),
    "bridges that are none": "gateway: {data_dir: state}\nbridges: 7\n",
    "a key that stands twice": CONFIG + "bridges: {}\n",
    "a tag that nobody knows": CONFIG + "log: !secret {level: info}\n",
}
ENDED_WITHIN = 120


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def gateway(file):
    """One that runs, started with the password in its environment."""
    with sems_gateway("run", file, env=os.environ | {"SEMS_TEST_PASSWORD": "demo"}) as process:
        eventually((file.parent / "state" / "control.sock").exists)
        yield process


def call(*words, **options):
    return finished(*words, timeout=ENDED_WITHIN, **options)


def halted(directory):
    return (directory / "halt.json").exists()


@pytest.mark.parametrize("what", BROKEN)
def test_where_it_is_is_found_whatever_else_is_wrong(file, what):
    file.write_text(BROKEN[what])
    assert data_dir.find(file) == file.parent / "state"


@pytest.mark.parametrize(
    "text",
    ["a: [", "gateway: 5\n", "gateway: {data_dir: [x]}\n", "- a\n", "gateway: {data_dir: !secret x}\n", "a: \x00\n"],
)
def test_what_cannot_be_read_names_the_option_that_needs_no_configuration(file, text):
    file.write_text(text)
    with pytest.raises(ConfigError, match="--data-dir"):
        data_dir.find(file)


def test_it_may_come_from_the_environment_and_is_relative_to_the_file(file, monkeypatch):
    monkeypatch.setenv("SEMS_GATEWAY_GATEWAY__DATA_DIR", "elsewhere")
    monkeypatch.setenv("SEMS_GATEWAY_BRIDGES", "{no JSON")
    assert data_dir.find(file) == file.parent / "elsewhere"
    monkeypatch.setenv("SEMS_GATEWAY_GATEWAY", "{no JSON")
    with pytest.raises(ConfigError, match="--data-dir"):
        data_dir.find(file)


def test_without_a_word_about_it_it_is_the_default(file):
    for text in ("", "gateway:\nbridges: {}\n", "gateway: {id: x}\n"):
        file.write_text(text)
        assert data_dir.find(file) == file.parent / "data"


def test_a_running_gateway_is_halted_and_asked_though_the_configuration_is_wrong(file, gateway):
    state = file.parent / "state"
    for number, text in enumerate(BROKEN.values()):
        file.write_text(text)
        word = ("halt", "resume")[number % 2]
        done = call(word, file)
        assert (done.returncode, halted(state)) == (0, word == "halt"), done.stderr
        assert "no gateway runs" not in done.stdout
        if word == "halt":
            assert f"control is halted by cli:{getpass.getuser()}" in done.stdout
    assert call("resume", file).returncode == 0
    for words in (
        ["explain", file, "SN1", "active_power_limit", "50"],
        ["send", file, "SN1", "active_power_limit", "50"],
        ["devices", file],
    ):
        done = call(*words)
        # Nobody knows that device, and there is none at all: the gateway says so, not the configuration.
        assert done.returncode == 1, done.stderr
        assert "SEMS_TEST_PASSWORD" not in done.stdout + done.stderr
        assert "known" in done.stdout + done.stderr or "down" in done.stderr
    assert call("audit", file, "--verify").returncode == 0
    assert gateway.code is None


def test_a_running_gateway_is_reached_by_its_directory_alone(file, gateway):
    state = file.parent / "state"
    file.unlink()
    assert call("halt", "--data-dir", state, "--reason", "fire").returncode == 0
    assert halted(state)
    explained = call("explain", "--data-dir", state, "SN1", "active_power_limit", "50", "--format", "json")
    assert (explained.returncode, json.loads(explained.stdout)["reason"]) == (1, "halted"), explained.stderr
    sent = call("send", "--data-dir", state, "SN1", "active_power_limit", "50")
    assert (sent.returncode, "halted" in sent.stdout) == (1, True), sent.stderr
    fleet = call("send", "--data-dir", state, "--fleet", "active_power_limit", "50", "--yes")
    assert (fleet.returncode, "no device matches" in fleet.stderr) == (2, True)
    assert "sems is down" in call("devices", "--data-dir", state).stderr
    assert call("resume", "--data-dir", state).returncode == 0
    audit = call("audit", "--data-dir", state, "--format", "json")
    assert (audit.stdout.count('"halted"'), audit.stdout.count('"resumed"')) == (2, 1), audit.stdout
    assert gateway.code is None


def test_without_a_gateway_the_halt_is_on_the_disk_and_the_next_start_obeys(file, tmp_path):
    state = tmp_path / "state"
    done = call("halt", file, "--reason", "fire")
    assert (done.returncode, halted(state)) == (0, True), done.stderr
    assert str(state) in done.stdout
    with sems_gateway("run", file, env=os.environ | {"SEMS_TEST_PASSWORD": "demo"}) as gateway:
        gateway.line("control is halted, as the disk has it")
        eventually((state / "control.sock").exists)
        assert json.loads(call("explain", file, "SN1", "running", "true", "-f", "json").stdout)["reason"] == "halted"
    assert call("resume", "--data-dir", state).returncode == 0
    assert not halted(state)


def test_without_a_gateway_only_those_may_resume_whom_the_configuration_names(file, tmp_path):
    file.write_text(CONFIG.replace("enabled: true", "enabled: nonsense\n  resume: [web]"))
    assert call("halt", file).returncode == 0
    done = call("resume", file)
    assert (done.returncode, halted(tmp_path / "state")) == (1, True)
    assert "control.resume" in done.stderr


def test_what_needs_a_running_gateway_says_so(file, tmp_path):
    (tmp_path / "state").mkdir()
    for words in (
        ["send", "SN1", "running", "true"],
        ["devices"],
        ["explain", "SN1", "running", "true"],
        ["history", "SN1", "--from", "2026-01-01", "--to", "2026-01-02", "-o", tmp_path / "out.csv"],
    ):
        done = call(*words, "--data-dir", tmp_path / "state")
        assert done.returncode == 1
        assert "no gateway runs with data_dir" in done.stderr
    done = call("devices", file)
    assert done.returncode == 2
    assert "no gateway runs" in done.stderr
    assert "SEMS_TEST_PASSWORD" in done.stderr


def test_a_directory_that_is_not_there_is_not_halted_instead_of_the_one_that_was_meant(tmp_path):
    done = call("halt", "--data-dir", tmp_path / "typo")
    assert (done.returncode, (tmp_path / "typo").exists()) == (2, False)
    assert "--data-dir" in call("halt").stderr


def test_a_gateway_that_does_not_answer_is_halted_on_the_disk_and_that_is_no_success(file, gateway):
    gateway.send_signal(19)  # SIGSTOP
    try:
        # In a process that loads itself: beside a stopped sibling one that is forked did not end, once in a while.
        done = call("halt", file, "--reason", "fire", env=os.environ | {"COLUMNS": "80"})
        assert (done.returncode, halted(file.parent / "state")) == (1, True)
        assert "does not answer" in done.stderr
        assert call("resume", file).returncode == 1
        assert halted(file.parent / "state")
    finally:
        gateway.send_signal(18)


# who may read it


def modes(directory):
    found = {}
    for path in (directory, *directory.rglob("*")):
        with suppress(FileNotFoundError):  # SQLite's own come and go
            found[str(path.relative_to(directory.parent))] = stat.S_IMODE(path.lstat().st_mode)
    return found


def test_all_that_the_gateway_makes_is_for_nobody_else(file, gateway):
    state = file.parent / "state"
    assert call("halt", file).returncode == 0
    eventually(lambda: any("session" in name or "budget" in name for name in modes(state)))
    assert {"state/lock", "state/journal.sqlite", "state/journal.sqlite-wal", "state/halt.json"} <= modes(state).keys()
    wrong = {name: oct(mode) for name, mode in modes(state).items() if mode != (0o700 if name == "state" else 0o600)}
    assert wrong == {}
    assert gateway.code is None


def test_what_an_older_gateway_left_open_is_closed_to_others_and_that_is_said_once(file, tmp_path):
    state = tmp_path / "state"
    (state / "deep").mkdir(parents=True)
    state.chmod(0o755)
    for name in ("journal.sqlite", "modbus-units.json", "deep/kept.json"):
        (state / name).touch()
        (state / name).chmod(0o644)
    outside = tmp_path / "outside"
    outside.touch(0o644)
    outside.chmod(0o644)
    (state / "link").symlink_to(outside)
    env = os.environ | {"SEMS_TEST_PASSWORD": "demo"}
    with sems_gateway("run", file, env=env) as gateway:
        told = gateway.line("could be read by others").string
        assert '"level": "info"' in told
        assert all(name in told for name in ("journal.sqlite", "modbus-units.json", "deep/kept.json"))
        assert modes(state)["state/deep/kept.json"] == 0o600
        assert modes(state)["state"] == 0o700
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644
    with sems_gateway("run", file, env=env) as gateway:
        gateway.line('"starting"')
        eventually((state / "control.sock").exists)
        assert "could be read by others" not in gateway.text


def test_a_directory_with_the_configuration_in_it_is_left_alone(file, tmp_path):
    file.write_text(CONFIG.replace("data_dir: state", "data_dir: ."))
    file.chmod(0o644)
    with sems_gateway("run", file, env=os.environ | {"SEMS_TEST_PASSWORD": "demo"}) as gateway:
        gateway.line("a directory of its own")
        assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_link_in_the_way_of_a_new_file_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    target.chmod(0o644)
    (tmp_path / "kept.json.new").symlink_to(target)
    files.replace(tmp_path / "kept.json", b"{}")
    assert target.read_text() == "mine"
    assert (tmp_path / "kept.json").read_bytes() == b"{}"
    assert not (tmp_path / "kept.json").is_symlink()
    assert stat.S_IMODE((tmp_path / "kept.json").stat().st_mode) == 0o600
    assert not (tmp_path / "kept.json.new").is_symlink()


def test_no_command_writes_through_a_link_that_somebody_planted(file, tmp_path):
    state, target = tmp_path / "state", tmp_path / "target"
    state.mkdir()
    target.write_text("mine")
    target.chmod(0o644)
    (state / "halt.json.new").symlink_to(target)
    assert call("halt", file).returncode == 0
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("mine", 0o644)
    assert modes(state)["state/halt.json"] == 0o600
    assert not (state / "halt.json").is_symlink()


def test_the_mode_of_a_file_in_the_way_is_not_kept(tmp_path):
    (tmp_path / "kept.json.new").touch()
    (tmp_path / "kept.json.new").chmod(0o666)
    files.replace(tmp_path / "kept.json", b"{}")
    assert stat.S_IMODE((tmp_path / "kept.json").stat().st_mode) == 0o600


def test_the_lock_is_no_link(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(data_dir.DataDirError):
        data_dir.hold(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_is_not_waited_for_without_a_limit_and_its_file_is_named(tmp_path):
    path = tmp_path / "calls.lock"
    with files.locked(path), pytest.raises(files.LockedError, match=str(path)), files.locked(path, within=0.05):
        pytest.fail("held by two")
    with files.locked(path, within=0):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_that_somebody_holds_is_not_shared(tmp_path):
    lock = data_dir.hold(tmp_path / "state")
    with pytest.raises(HeldError, match="lock"):
        data_dir.hold(tmp_path / "state")
    os.close(lock)
    os.close(data_dir.hold(tmp_path / "state"))


def test_a_socket_in_the_directory_is_no_obstacle(tmp_path):
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "s"))
        tmp_path.chmod(0o755)
        assert files.tighten(tmp_path) == [tmp_path]
