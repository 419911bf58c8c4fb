"""What a start loads: no more than it needs, for each library is tenths of a second on a small machine."""

import subprocess
import sys

import pytest

from tests.kit.process import ROOT

LARGE = {"confluent_kafka", "cryptography", "google", "httpx", "openpyxl", "paho", "pymodbus", "starlette", "uvicorn"}
"""Libraries that take long to load."""
OWN = ("gateway.bridges.", "gateway.demo", "gateway.learn", "gateway.sems", "gateway.simulator")
CONFIG = """\
bridges:
  sems: {{type: open_api, account: a, password: b}}
  {name}: {settings}
"""
BRIDGES = {
    "mqtt": "{type: mqtt, host: 127.0.0.1}",
    "modbus": "{type: modbus, port: 0}",
    "web": "{type: web, port: 0}",
}


def ran(*arguments, before=""):
    """Run a command in a process of its own; what it ends with is the modules that it had loaded."""
    code = f"""
import atexit, sys
{before}
atexit.register(lambda: print(*(n for n, m in sys.modules.items() if m), file=sys.stderr))
sys.argv = {["sems-gateway", *map(str, arguments)]!r}
from gateway.cli import main
main()
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def loaded(*arguments):
    """Run a command in a process of its own; returns the modules that it had loaded at its end."""
    done = ran(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stderr.split())


def large(modules):
    return {module.partition(".")[0] for module in modules} & LARGE


def bridges(modules):
    return {module.split(".")[2] for module in modules if module.startswith("gateway.bridges.")} - {"local"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_what_needs_no_command_loads_none(arguments):
    modules = loaded(*arguments)
    assert not large(modules)
    assert not {module for module in modules if module.startswith(OWN)}
    assert not {"asyncio", "pydantic", "structlog", "yaml"} & modules


@pytest.mark.parametrize("name", BRIDGES)
def test_a_check_loads_the_settings_of_the_bridges_it_is_about_and_no_bridge(tmp_path, name):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(name=name, settings=BRIDGES[name]))
    modules = loaded("check", file)
    assert bridges(modules) == {"open_api", name}
    assert not [module for module in modules if module.endswith(".bridge") and module.startswith(OWN)]
    assert not large(modules)
    assert not {"pygments", "rich.traceback", "gateway.steering.fleet.fleet"} & modules


@pytest.mark.parametrize(
    "settings",
    [
        '{type: kafka, connection: {bootstrap_servers: ["127.0.0.1:9"]}, states: {topic: a}}',
        '{type: batch, connection: {bootstrap_servers: ["127.0.0.1:9"]}, supplier: a, whitelist: "*"}',
    ],
)
def test_a_check_finds_that_the_library_of_a_bridge_is_not_installed(tmp_path, settings):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(name="other", settings=settings))
    done = ran("check", file, before="sys.modules['confluent_kafka'] = None")
    assert done.returncode == 2
    assert "bridges.other.type" in done.stderr
    assert "install sems-gateway[kafka]" in done.stderr


def test_a_command_does_not_look_for_garbage_among_what_it_loads(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(name="mqtt", settings=BRIDGES["mqtt"]))
    code = f"""
import atexit, gc, sys
atexit.register(lambda: print(gc.get_stats()[2]["collections"], gc.get_freeze_count(), len(gc.get_objects())))
sys.argv = ["sems-gateway", "check", {str(file)!r}]
from gateway.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    collections, frozen, left = map(int, done.stdout.splitlines()[-1].split())
    assert collections == 0
    assert frozen > 10 * left


def test_a_gateway_is_loaded_without_what_no_bridge_of_it_needs(tmp_path):
    modules = loaded("run", "--help")
    assert "gateway.run.app" in modules
    assert not large(modules)
    assert not bridges(modules)


def test_the_simulator_needs_no_bridge_and_no_client():
    modules = loaded("simulate", "--help")
    assert "gateway.simulator.server" in modules
    assert not bridges(modules)
    assert not large(modules) - {"starlette", "uvicorn"}


@pytest.mark.parametrize("name", ["send", "devices", "audit", "halt", "history", "explain"])
def test_what_asks_a_running_gateway_loads_no_bridge(name):
    modules = loaded(name, "--help")
    assert not large(modules)
    assert not bridges(modules)
    assert name in {"devices", "history"} or "gateway.run.app" not in modules
