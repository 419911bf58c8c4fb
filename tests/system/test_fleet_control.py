"""A fleet, commanded at the command line, through one classic account: every program as its user starts it."""

import json
from collections import Counter

import pytest

from gateway.core.model import CommandState
from tests.kit.process import eventually, finished, sems_gateway

pytestmark = pytest.mark.system

CONFIG = """\
gateway: {{id: fleet-test}}
log: {{format: json}}
bridges:
  sems:
    type: open_api
    account: demo
    password: {password}
    url: http://127.0.0.1:{sems}
control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: [active_power_limit]}}]
"""
LIMIT = "active_power_limit"
PLAIN = {"debug", "info"}
ENDS = {state.value for state in CommandState if state.final}


def levels(gateway):
    """Level → what was logged with it. What is no line of the log at all counts as an error: a traceback, mostly."""
    found = {}
    for line in list(gateway.lines):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = {"level": "error", "event": line}
        found.setdefault(entry["level"], []).append(entry)
    return found


def limits(plant):
    """Serial → limit, of what has one."""
    devices = [device for home in plant.ask_simulator("state")["plants"] for device in home["devices"]]
    return {d["serial"]: d["setpoints"][LIMIT] for d in devices if LIMIT in d.get("setpoints", {})}


@pytest.fixture
def served(plant):
    plant.configure(text=CONFIG)
    with sems_gateway("simulate", "--port", plant.sems) as simulator:
        simulator.line("ready")
        with plant.gateway() as gateway:
            plant.gateway_ = gateway
            eventually(lambda: finished("devices", plant.config).stdout.count("9010KETU218W0001"))
            yield plant


def audited(plant):
    """Rows of the audit."""
    return json.loads(finished("audit", plant.config, "--format", "json").stdout)


def send(plant, value, *options):
    return finished("send", plant.config, "--fleet", LIMIT, value, "--yes", "--wait", *options, timeout=120)


def test_one_order_after_the_other_succeeds_on_every_device(served):
    """TRIALS C1. The second comes while the first still makes room; on uvloop what is due at once is a bare handle."""
    for value, options in ((62, ()), (72, ("--ttl", 8))):
        done = send(served, value, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(limits(served).values()) == {value}
    ends = Counter(row["state"] for row in audited(served) if row["state"] in ENDS)
    assert set(ends) == {"succeeded"}, ends
    assert ends["succeeded"] >= 2 * len(limits(served)) > 0
    assert set(levels(served.gateway_)) <= PLAIN, levels(served.gateway_)
