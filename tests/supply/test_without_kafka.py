"""Who has no Kafka need not install its library: all else works, and what needs it says how to get it."""

import os

import pytest

from tests.kit.ports import free_port
from tests.kit.process import finished, sems_gateway

pytestmark = pytest.mark.system

HIDES = """
import sys

class Hides:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "confluent_kafka":
            raise ModuleNotFoundError("No module named 'confluent_kafka'", name="confluent_kafka")

sys.meta_path.insert(0, Hides())
"""
BATCH = "  b: {type: batch, supplier: me, whitelist: '*', connection: {bootstrap_servers: 'localhost:9092'}}\n"


@pytest.fixture
def without(tmp_path):
    """The environment of a machine that has not got it."""
    (tmp_path / "sitecustomize.py").write_text(HIDES)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def test_a_bridge_that_needs_it_says_what_to_install(tmp_path, without):
    config = tmp_path / "config.yaml"
    config.write_text(f"bridges:\n{BATCH}")
    done = finished("check", config, env=without, fresh=True)
    assert done.returncode == 2
    assert "'batch'" in done.stderr
    assert "install sems-gateway[kafka]" in done.stderr
    assert "config.yaml:2: bridges.b.type" in done.stderr
    listed = finished("plugins", env=without, fresh=True)
    assert all(name in listed.stdout + listed.stderr for name in ("sems-gateway[kafka]", "sems-gateway-kafka"))


def test_the_demo_says_what_to_install(without):
    done = finished("demo", env=without, fresh=True)
    assert done.returncode == 1
    # What one who has neither pip nor a checkout installs is named too.
    assert all(name in done.stderr.replace("\n", " ") for name in ("sems-gateway[demo]", "sems-gateway-kafka"))


def test_a_gateway_and_the_simulator_work(tmp_path, without):
    config, port = tmp_path / "config.yaml", free_port()
    with sems_gateway("simulate", "--port", "0", env=without, fresh=True) as cloud:
        url = cloud.line(r"ready sems=(\S+)")[1]
        config.write_text(
            f"bridges:\n  sems: {{type: open_api, account: demo, password: demo, url: '{url}'}}\n"
            f"  modbus: {{type: modbus, port: {port}}}\n"
        )
        config.chmod(0o600)
        assert finished("check", config, env=without, fresh=True).returncode == 0
        assert '"const": "batch"' not in finished("schema", env=without, fresh=True).stdout
        with sems_gateway("run", config, env=without, fresh=True) as gateway:
            gateway.line("up.*bridge=sems|bridge.*sems.*up")
