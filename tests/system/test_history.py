"""`sems-gateway history` as a person runs it: through the running gateway or without one, stopped and gone on with."""

import csv
import signal
from functools import partial

import msgspec
import pytest

from tests.kit.process import eventually, finished, sems_gateway
from tests.system.conftest import INVERTER

pytestmark = pytest.mark.system
CONFIG = """\
gateway: {{id: history-test}}
bridges:
  sems:
    type: open_api
    account: demo
    password: {password}
    url: http://127.0.0.1:{sems}
    calls_per_hour: 1000000
"""
OVERRIDES = {
    "nothing": "",
    "elsewhere": """\
    overrides: {{interfaces: {{GetInverterHistory: {{lists: [nowhere]}}, GetInverterPower: {{lists: [nowhere]}}}}}}
""",
    "times": """\
    overrides:
      interfaces:
        GetInverterHistory: {{fields: {{time: null, status: {{attribute: time, type: local_time}}}}}}
        GetInverterPower: null
""",
}
"""As if the series stood in another list, or an unreadable text were the time."""
PERIOD = ("--from", "2024-03-25", "--to", "2024-04-03")
DAYS = 10


@pytest.fixture
def quiet(plant):
    """A simulator and a configuration without brokers."""
    plant.configure(text=CONFIG)
    with plant.simulator() as simulator:
        simulator.line("ready")
        yield plant


def history(plant, file, *options, **more):
    return finished("history", plant.config, INVERTER, *PERIOD, "--out", file, *options, **more)


def asked(plant):
    return len(plant.ask_simulator("calls?interface=GetInverterHistory&limit=1000")["calls"])


def pages(file):
    progress = file.with_name(file.name + ".progress")
    return msgspec.json.decode(progress.read_bytes())["pages"] if progress.exists() else 0


def more_pages(file, least):
    return pages(file) >= least


def test_it_goes_on_where_it_was_stopped_and_killed(quiet):
    whole, stopped = quiet.directory / "whole.csv", quiet.directory / "stopped.csv"
    with sems_gateway("run", quiet.config) as gateway:
        gateway.line("bridge.*up|up.*bridge")
        eventually(lambda: finished("devices", quiet.config).returncode == 0)
        done = history(quiet, whole)
        assert done.returncode == 0, done.stderr
        kept = 0
        quiet.spoil(answer_delay=2)
        for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
            with sems_gateway("history", quiet.config, INVERTER, *PERIOD, "--out", stopped) as client:
                eventually(partial(more_pages, stopped, kept + 2))
                assert client.end(number) == code
            assert not stopped.exists()
            kept = pages(stopped)
            assert kept < DAYS
            if number == signal.SIGINT:
                said = f"stopped; {kept} pages are in {stopped}.part, and the same command goes on from there"
                assert said in client.text
        with (quiet.directory / "stopped.csv.part").open("a") as part:
            part.write("2024-02-30T00:00:00.000Z,torn")
        quiet.spoil(answer_delay=0)
        before = asked(quiet)
        done = history(quiet, stopped)
        assert done.returncode == 0, done.stderr
        assert asked(quiet) - before == DAYS - kept, "what was there is not asked for again"
    assert stopped.read_bytes() == whole.read_bytes()
    rows = list(csv.DictReader(whole.open()))
    assert len(rows) == DAYS * 288 - 12, "in spring an hour is missing"
    times = [row["time"] for row in rows]
    assert times == sorted(set(times))
    assert (times[0], times[-1]) == ("2024-03-24T23:00:00.000Z", "2024-04-03T21:55:00.000Z")
    assert max(float(row["ac_power"]) for row in rows) > 1000
    assert sorted(p.name for p in quiet.directory.glob("stopped*")) == ["stopped.csv"]


def test_without_a_gateway_it_asks_sems_itself(quiet):
    file = quiet.directory / "days.jsonl"
    done = history(quiet, file, "--step", "day")
    assert done.returncode == 0, done.stderr
    assert "No gateway runs with this configuration; asking SEMS." in done.stderr
    lines = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    assert len(lines) == DAYS
    assert lines[0].keys() == {"time", "energy_today"}
    done = history(quiet, file, "--step", "day")
    assert (done.returncode, "is there already" in done.stderr) == (2, True)
    done = finished("history", quiet.config, INVERTER[:-1], *PERIOD, "--out", quiet.directory / "x")
    assert done.returncode == 2
    assert f"there is no device '{INVERTER[:-1]}'; the nearest: {INVERTER}" in done.stderr
    assert not list(quiet.directory.glob("x*"))


def test_a_gateway_that_goes_away_leaves_what_is_whole(quiet):
    file = quiet.directory / "cut.csv"
    with sems_gateway("run", quiet.config) as gateway:
        gateway.line("bridge.*up|up.*bridge")
        eventually(lambda: finished("devices", quiet.config).returncode == 0)
        quiet.spoil(answer_delay=1)
        with sems_gateway("history", quiet.config, INVERTER, *PERIOD, "--out", file) as client:
            eventually(lambda: pages(file) >= 3)
            gateway.end(signal.SIGKILL)
            assert client.wait() == 1
    quiet.spoil(answer_delay=0)
    assert f"the gateway went away; {pages(file)} pages are in {file}.part" in client.text
    done = history(quiet, file)
    assert done.returncode == 0, done.stderr
    assert file.exists()


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("nothing", 3, f"nothing for {INVERTER} from 2024-03-24T23:00:00.000Z to before 2024-04-03T22:00:00.000Z"),
        ("elsewhere", 1, "with a list 'records', and none of 'nowhere'; where that is the series, set overrides: "),
        ("times", 1, "times can't be read, e.g. "),
    ],
)
def test_a_past_that_is_not_there_or_has_no_times_is_said(quiet, answer, code, says):
    """TRIALS S14."""
    quiet.configure(text=CONFIG + OVERRIDES[answer])
    if answer == "nothing":
        quiet.spoil(answers=[{"answer": "empty_lists", "interfaces": ["GetInverterHistory", "GetInverterPower"]}])
    file = quiet.directory / "nothing.csv"
    done = history(quiet, file)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert ("date_format" in done.stderr) == (answer == "times")
    assert file.exists() == (code == 3)
