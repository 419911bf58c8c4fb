"""A fleet command while the only bridge that would carry it is down: said before and after, told by the exit code."""

import json
import re
import urllib.request

import pytest

from tests.kit.ports import free_port
from tests.kit.process import eventually, finished, sems_gateway

pytestmark = pytest.mark.system

COUNT = 300
CONFIG = """\
gateway: {{data_dir: state}}
control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: [active_power_limit]}}]
bridges:
  web: {{type: web, port: {web}}}
  batch:
    type: batch
    connection: {{bootstrap_servers: "127.0.0.1:{kafka}"}}
    supplier: acme
    whitelist: [{devices}]
    announce: inverter
"""
METRIC = re.compile(r'^sems_gateway_commands_total\{bridge="(\w*)",state="(\w+)"\} (\S+)$', re.MULTILINE)


@pytest.fixture
def file(tmp_path):
    devices = ", ".join(f"9010KETU218W{n:04}" for n in range(COUNT))
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(web=free_port(), kafka=free_port(), devices=devices))
    return file


@pytest.fixture
def gateway(file):
    with sems_gateway("run", file) as process:
        process.line('"bridge": "batch".*"event": "down"')
        yield process


def send(file, *words):
    return finished("send", file, *words, timeout=90)


def counted(file):
    port = re.search(r"type: web, port: (\d+)", file.read_text())[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        return {(bridge, state): float(count) for bridge, state, count in METRIC.findall(answer.read().decode())}


def test_that_the_bridge_is_down_is_said_before_and_after_and_counted(file, gateway):
    asked = send(file, "--fleet", "active_power_limit", "60")
    assert asked.returncode == 2  # nobody can be asked here
    assert "by batch: it is down: " in asked.stderr
    assert f"by batch: {COUNT} devices" in asked.stdout
    assert counted(file) == {}

    taken = send(file, "--fleet", "active_power_limit", "60", "--yes", "--ttl", "2")
    assert taken.returncode == 1
    assert "by batch: it is down: " in taken.stderr
    assert f"{COUNT} devices have no other bridge" in taken.stderr
    assert f"{COUNT} accepted" in taken.stdout
    line = json.loads(gateway.line('"fleet command accepted"').string)
    assert (line["accepted"], line["rejected"], line["by"]) == (COUNT, 0, {"batch": COUNT})
    assert line["down"].keys() == {"batch"}
    line = json.loads(gateway.line('"fleet command ended"').string)
    assert line["expired"] == COUNT
    assert counted(file) == {("batch", "expired"): COUNT}

    followed = send(file, "--fleet", "active_power_limit", "160", "--yes", "--wait")
    assert (followed.returncode, f"{COUNT} rejected" in followed.stdout) == (1, True)
    eventually(lambda: gateway.text.count('"fleet command ended"') == 2)
    assert counted(file) == {("batch", "expired"): COUNT, ("", "rejected"): COUNT}
    assert gateway.text.count('"fleet command accepted"') == 2


def test_one_device(file, gateway):
    for ends, (words, end) in enumerate((((), "accepted"), (("--wait",), "expired")), start=1):
        sent = send(file, "9010KETU218W0000", "active_power_limit", "60", "--ttl", "1", *words)
        assert sent.returncode == 1
        assert "by batch: it is down: " in sent.stderr
        assert "1 device has no other bridge" in sent.stderr
        assert end in sent.stdout
        # While it has not expired, the next one would take its place.
        ended = {("batch", "expired"): ends}
        eventually(lambda ended=ended: counted(file) == ended, otherwise=lambda: str(counted(file)))
    assert gateway.code is None
