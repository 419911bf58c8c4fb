"""The example plug-in as a stranger has it: its wheel in a venv of its own, the kit, a gateway that runs with it."""

import ast
import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from line_protocol_parser import parse_line

from gateway.core.model import Snapshot
from tests.kit.bench import until
from tests.kit.process import Process

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
SERIAL = "9010KETU000W0001"
CONFIG = """\
gateway: {{data_dir: data}}
bridges:
  meter:
    type: rest
    url: http://127.0.0.1:{port}/data
    token: not-to-be-seen
    interval: 0.1
    devices:
      {serial}:
        kind: storage
        points: {{pv_power: inverters.0.power, battery_soc: inverters.0.soc, load_power: inverters.0.odd}}
  influx: {{type: influx, url: "http://127.0.0.1:{port}", org: home, bucket: plant, token: not-to-be-seen}}
"""


def done(*command, **options):
    env = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "COVERAGE_PROCESS_CONFIG"}}
    result = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=env,
        **options,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """A clean venv: the gateway of this tree and what it needs by a path file, the example by its wheel."""
    directory = tmp_path_factory.mktemp("plugin")
    source = directory / "source"
    done("cp", "-r", EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    code, said = done(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, source)
    assert code == 0, said
    (wheel,) = directory.glob("*.whl")
    venv = directory / "venv"
    assert done(sys.executable, "-m", "venv", "--without-pip", venv)[0] == 0
    (site,) = venv.glob("lib/python*/site-packages")
    ours = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    # Through `site`, so that what is installed editable here is found there.
    (site / "ours.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
    code, said = done(*pip, "--python", venv / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    assert code == 0, said
    return venv / "bin" / "python"


@pytest.fixture
async def server():
    spec = importlib.util.spec_from_file_location("server_of_the_example", EXAMPLE / "tests" / "server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with module.Server() as server:
        yield server


def test_it_is_short():
    lines = [line for file in (EXAMPLE / "sems_gateway_example").glob("*.py") for line in file.read_text().splitlines()]
    assert len([line for line in lines if line.strip()]) < 150


def test_it_is_listed_whence_and_whether_it_fits(venv):
    code, said = done(venv, "-m", "gateway", "plugins", "--json")
    assert code == 0, said
    found = {each["name"]: each for each in json.loads(said)["plugins"]}
    assert found["influx"] == {
        "name": "influx",
        "kind": "bridge",
        "package": "sems-gateway-example",
        "version": "1.0.0",
        "entry_point": "sems_gateway_example.influx:InfluxBridge",
        "api_version": "1.0",
        "error": "",
    }
    assert not found["rest"]["error"]


def test_its_bridges_pass_the_kit(venv):
    code, said = done(
        venv,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        EXAMPLE,
        "tests",
        cwd=EXAMPLE,
    )
    assert code == 0, said
    assert "22 passed" in said


async def test_a_gateway_runs_with_it(venv, server, tmp_path):
    server.busy = 1
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(port=server.port, serial=SERIAL))
    code, said = await asyncio.to_thread(done, venv, "-m", "gateway", "check", file)
    assert code == 0, said
    assert "not-to-be-seen" not in said
    gateway = Process([str(venv), "-m", "gateway", "run", str(file)])
    try:
        await until(lambda: len(server.lines) > 3 or gateway.code is not None, "lines are written")
        assert gateway.code is None, gateway.text
    finally:
        gateway.send_signal(signal.SIGTERM)
        await asyncio.to_thread(gateway.wait)
    lines = [parse_line(line) for line in server.lines]
    assert {line["measurement"] for line in lines} == {"sems"}
    assert all(line["tags"] == {"serial": SERIAL, "source": "meter"} for line in lines)
    # What is no number is not there.
    assert all(line["fields"] == {"pv_power": 1234.5, "battery_soc": 55.0} for line in lines)
    times = [line["time"] for line in lines]
    assert times == sorted(set(times)), "the batch that was refused at first is written again, once, in order"
    written = [head for head in server.heads if head.startswith("POST")]
    assert all(head.startswith("POST /api/v2/write?org=home&bucket=plant&precision=ms ") for head in written)
    assert all("authorization: token not-to-be-seen" in head.lower() for head in written)
    assert "not-to-be-seen" not in gateway.text


def test_lines_are_read_as_they_were_meant():
    sys.path.insert(0, str(EXAMPLE))
    try:
        from sems_gateway_example.influx import line_of
    finally:
        sys.path.remove(str(EXAMPLE))
    time = datetime(2026, 6, 21, 12, 0, 0, 250_000, tzinfo=UTC)
    values = {
        "pv_power": 5, "running": True, "signal_strength": 3, "pv_power_x": None, "fault_text": 'a "b", \\ c=d',
    }  # fmt: skip
    line = line_of(Snapshot(serial=SERIAL, time=time, source="the meter, left=1", interval=1, values=values))
    assert parse_line(line) == {
        "measurement": "sems",
        "tags": {"serial": SERIAL, "source": "the meter, left=1"},
        "fields": {"pv_power": 5.0, "running": True, "signal_strength": 3, "fault_text": 'a "b", \\ c=d'},
        "time": 1782043200250,
    }
    assert line_of(Snapshot(serial=SERIAL, time=time, source="x", interval=1, values={"pv_power": None})) == ""


def test_it_imports_the_api_alone():
    files = (EXAMPLE / "sems_gateway_example").glob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    taken = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith("gateway")}
    assert taken == {"gateway.api"}
