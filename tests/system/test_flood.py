"""Connections to every door, more than there are descriptors: the cloud, the broker and health work all the same."""

import re
import resource
import socket
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.kit.ports import free_port
from tests.kit.process import eventually, finished
from tests.system.conftest import INVERTER

pytestmark = pytest.mark.system
DESCRIPTORS = 256
CONFIG = """\
gateway: {{id: flood-test}}
bridges:
  sems: {{type: open_api, account: demo, password: {password}, url: 'http://127.0.0.1:{sems}', poll_interval: 0.5}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}}}
  modbus: {{type: modbus, port: {modbus}}}
  web: {{type: web, port: WEB}}
"""


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS // 2, DESCRIPTORS))


@contextmanager
def silent(port, count, sources):
    """Connections that say nothing, from these addresses in turn, open until the end."""
    with ExitStack() as stack:
        for n in range(count):
            client = stack.enter_context(socket.socket())
            client.bind((sources[n % len(sources)], 0))
            client.settimeout(120)
            client.connect(("127.0.0.1", port))
        yield


def get(plant, path, source="127.0.0.1"):
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=120) as client:
        return client.get(f"http://127.0.0.1:{plant.web}{path}")


@pytest.fixture
def gateway(plant):
    """With few descriptors, and neither cloud nor broker yet."""
    plant.web = free_port()
    plant.configure(text=CONFIG.replace("WEB", str(plant.web)))
    with plant.gateway(preexec_fn=few_descriptors) as gateway:
        gateway.line(r'"bridge": "web".*"event": "listening"')
        gateway.line(r'"bridge": "modbus".*"event": "listening"')
        yield gateway


def test_a_flood_of_connections_leaves_what_the_gateway_needs_for_itself(plant, gateway):
    """TRIALS D2: what is opened by the gateway is opened after the flood."""
    (told,) = [line for line in gateway.lines if "too few descriptors" in line]
    assert f"only {DESCRIPTORS} files and sockets" in told, "the soft limit is not raised to the hard one"
    hosts = [f"127.0.0.{n}" for n in range(10, 60)]
    with silent(plant.modbus, 300, hosts), silent(plant.web, 300, ["127.0.0.9"]):
        assert get(plant, "/healthz").text == "ok\n"
        with plant.broker() as broker, plant.simulator() as simulator, silent(plant.web, 300, hosts):
            broker.line("running")
            simulator.line("ready")
            eventually(
                lambda: re.search(r'"bridge": "mqtt".*"event": "up"', gateway.text), otherwise=lambda: gateway.text
            )
            eventually(lambda: plant.retained(f"sems/{INVERTER}"), otherwise=lambda: gateway.text)
            # Silent ones are cut off in time, so that all of them are served again.
            eventually(lambda: cut_off(plant) > 40, otherwise=lambda: gateway.text)
            assert map_version(plant) == 1
    metrics = get(plant, "/metrics").text
    assert closed(metrics, "max_connections_per_address") > 200
    assert closed(metrics, "descriptors") > 100
    assert 0 < len([line for line in gateway.lines if "closed at once" in line]) < 10
    assert "Too many open files" not in gateway.text


def cut_off(plant):
    try:
        return closed(get(plant, "/metrics").text, "head_timeout")
    except httpx.HTTPError:
        time.sleep(0.5)
        return 0


def map_version(plant):
    """Register 0 of the gateway's own unit."""
    with socket.create_connection(("127.0.0.1", plant.modbus), timeout=60) as client:
        client.sendall(bytes.fromhex("0001 0000 0006 ff 03 0000 0001"))
        return client.recv(100)[-1]


def closed(metrics, reason):
    name = "sems_gateway_http_connections_closed_total"
    return float(re.search(rf'^{name}{{bridge="web",reason="{reason}"}} (\S+)$', metrics, re.MULTILINE)[1])


def test_check_says_where_the_limit_is_too_low(plant):
    plant.configure(text=CONFIG.replace("WEB", str(free_port())))
    told = finished("check", plant.config, preexec_fn=few_descriptors)
    assert told.returncode == 0
    assert f"only {DESCRIPTORS} files and sockets may be open here, 128 of them by listeners" in told.stderr
    assert "accept 456 connections" in told.stderr
    assert "warning" not in finished("check", plant.config).stderr
