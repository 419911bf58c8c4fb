"""`sems-gateway learn` as it is typed, against a simulated cloud that speaks a dialect."""

import subprocess
import sys

import pytest
import yaml

from gateway.sems.recording import read
from tests.kit.ports import free_port
from tests.kit.process import finished, sems_gateway

DIALECT = 3


@pytest.fixture(scope="module")
def sems():
    """A cloud's address."""
    port = free_port()
    with sems_gateway("simulate", "--port", port, "--dialect", DIALECT, "--speed", 60) as program:
        program.line("ready")
        yield f"http://127.0.0.1:{port}"


def configured(directory, sems, password="demo", more=""):
    config = directory / "config.yaml"
    config.write_text(
        f"gateway: {{data_dir: data}}\nbridges:\n  sems:\n    type: open_api\n    url: {sems}\n    account: demo\n"
        f"    password: {password}\n    poll_interval: 3\n{more}"
    )
    return config


@pytest.mark.system
def test_what_it_writes_mends_the_configuration(tmp_path, sems):
    config = configured(tmp_path, sems)
    recording = tmp_path / "recording.jsonl"
    with sems_gateway("run", config) as gateway:  # both may go on at once: token and calls are shared
        gateway.line("starting")
        learned = finished("learn", config, "--wait", 2, "--into", tmp_path, "--record", recording, timeout=120)
    assert learned.returncode == 0, learned.stderr
    assert "SetInverterSwitch" in learned.stdout
    overrides = yaml.safe_load((tmp_path / "learned-sems.yaml").read_text())
    assert len(overrides["interfaces"]) > 5
    assert "| GetUserPlantList |" in (tmp_path / "learned-sems.md").read_text()

    configured(tmp_path, sems, more="    overrides: learned-sems.yaml\n")
    assert finished("check", config).returncode == 0
    known = finished("devices", config, timeout=90)
    assert "9010KETU218W0001" in known.stdout

    answers = read(recording).answers
    assert len(answers) > 50
    assert "9010KETU218W0001" not in recording.read_text()
    again = finished("learn", "--replay", recording, "--into", tmp_path)
    assert again.returncode == 0, again.stderr
    assert "values with the overrides" in again.stdout
    replayed = yaml.safe_load((tmp_path / "learned-recording.yaml").read_text())
    assert replayed == overrides, "a recording without serials says the same"


@pytest.mark.system
def test_a_refused_login_ends_it_at_once(tmp_path, sems):
    config = configured(tmp_path, sems, password="wrong")
    learned = finished("learn", config, "--wait", 0, "--into", tmp_path)
    assert learned.returncode == 1
    assert "do not open this account" in learned.stderr
    assert not list(tmp_path.glob("learned-*"))


def test_it_says_what_to_do_instead(tmp_path):
    assert finished("learn").returncode == 2
    nothing = finished("learn", "--replay", tmp_path / "no")
    assert nothing.returncode == 1
    assert "learn CONFIG --record" in nothing.stderr
    config = tmp_path / "config.yaml"
    config.write_text("bridges:\n  web: {type: web, port: 0}\n")
    assert "no bridge of type open_api" in finished("learn", config).stderr


@pytest.mark.parametrize("place", ["into", "record"])
def test_what_cannot_be_written_is_told_before_any_call(tmp_path, place):
    """Nobody listens at the address: with a call made, it would say that SEMS can't be reached."""
    config = configured(tmp_path, f"http://127.0.0.1:{free_port()}")
    (tmp_path / "learned-sems.md").mkdir() if place == "into" else None
    record = tmp_path / "recording.jsonl" if place == "into" else tmp_path / "no" / "recording.jsonl"
    learned = finished("learn", config, "--wait", 0, "--into", tmp_path, "--record", record)
    assert learned.returncode == 1
    assert "can't be written" in learned.stderr
    assert "Nothing was asked" in " ".join(learned.stderr.split())
    assert not record.exists()
    assert not (tmp_path / "learned-sems.yaml").exists()
    assert not (tmp_path / "data").exists()


INTERRUPTED = """
import sys
class Finder:
    def find_spec(self, name, *_):
        if name == "gateway.cli.check":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["check", "config.yaml"]
from gateway.__main__ import main
main()
"""


def test_who_stops_it_while_it_loads_sees_no_traceback():
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
