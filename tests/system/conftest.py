"""A plant's programs: mosquitto, the simulated SEMS, the gateway, each a process of its own."""

import subprocess
from contextlib import contextmanager

import httpx
import msgspec
import pytest

from tests.kit import acl
from tests.kit.mbpoll import poll_float
from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import eventually, running, sems_gateway

INVERTER = "9010KETU218W0001"
LIMIT, AC_POWER = 5502, 3020
"""Registers of the limit and the AC power as float32; tests/bridges/modbus freezes them."""
VERSION = "$SYS/broker/version"

CONFIG = """\
gateway: {{id: system-test}}
bridges:
  sems:
    type: open_api
    account: demo
    password: {password}
    url: http://127.0.0.1:{sems}
    poll_interval: 1
    calls_per_hour: 1000000
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}}}
  modbus: {{type: modbus, port: {modbus}}}
control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: [active_power_limit, running]}}]
"""


class Plant:
    def __init__(self, directory):
        self.directory = directory
        self.sems, self.mqtt, self.modbus = free_port(), free_port(), free_port()
        self.unit = None
        self.config = directory / "config.yaml"
        self.configure()

    def configure(self, password="demo", text=CONFIG):
        mqtt = str(self.mqtt)
        login = acl.login("sparkplug" if "payload: sparkplug" in text else "json")
        mqtt += "".join(f", {key}: {value}" for key, value in login.items())
        self.config.write_text(text.format(password=password, sems=self.sems, mqtt=mqtt, modbus=self.modbus))

    # programs

    @contextmanager
    def simulator(self):
        # 100 calls a second come out of a poll interval of a second.
        options = ("--start", "2026-06-21T10:00:00", "--calls-per-hour", 0)
        with sems_gateway("simulate", "--port", self.sems, *options) as simulator:
            simulator.line("ready")
            yield simulator

    @contextmanager
    def broker(self):
        config, log = self.directory / "mosquitto.conf", self.directory / "mosquitto.log"
        lines = [f"listener {self.mqtt} 127.0.0.1", "user root"]
        if acl.BOUND:
            bound = acl.binding(self.directory, acl.GATEWAYS, need("mosquitto_passwd"))
            lines += [*bound, f"log_dest file {log}", "log_dest stderr"]
        else:
            lines.append("allow_anonymous true")
        config.write_text("\n".join(lines) + "\n")
        with running(need("mosquitto"), "-c", str(config)) as process:
            yield process
        if acl.BOUND:
            assert not acl.refused(log.read_text(errors="replace")), "the rules of docs/mqtt.md are too narrow"

    def gateway(self, **options):
        return sems_gateway("run", self.config, **options)

    @contextmanager
    def everything(self):
        with self.broker(), self.simulator() as simulator, self.gateway() as gateway:
            self.wait_for_data()
            yield simulator, gateway

    # clients

    def subscribe(self, topic):
        """mosquitto_sub in the background; lines are `topic payload`."""
        return running(need("mosquitto_sub"), "-p", str(self.mqtt), "-t", topic, "-v")

    def publish(self, topic, payload, *options):
        command = [need("mosquitto_pub"), "-p", str(self.mqtt), "-q", "1", "-t", topic, "-m", str(payload), *options]
        subprocess.run(command, check=True, timeout=120)

    def clear(self, topic):
        """Take a retained message away."""
        subprocess.run([need("mosquitto_pub"), "-p", str(self.mqtt), "-t", topic, "-r", "-n"], check=True, timeout=120)

    def retained(self, topic):
        """A message that the broker keeps of a topic, or None. It keeps its version always, and sends it afterwards."""
        topics = ["-t", topic, "-t", VERSION]
        command = [need("mosquitto_sub"), "-p", str(self.mqtt), *topics, "-C", "1", "-W", "60", "-F", "%t %p"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        found, _, payload = done.stdout.strip().partition(" ")
        return payload if found not in ("", VERSION) else None

    def state(self, serial=INVERTER):
        text = self.retained(f"sems/{serial}")
        return msgspec.json.decode(text) if text else None

    def mbpoll(self, register, *write):
        return poll_float(self.modbus, register, *write, unit=self.unit or self.find_unit())

    def read_float(self, register):
        """A float32, or what mbpoll said went wrong."""
        done = self.mbpoll(register)
        return done.error or done.values[0]

    @property
    def power(self):
        """W that the inverter's registers show; None while they show none."""
        shown = self.read_float(AC_POWER)
        return shown if isinstance(shown, float) else None

    def find_unit(self):
        file = self.directory / "data" / "modbus-units.json"

        def unit():
            return file.exists() and msgspec.json.decode(file.read_bytes())["units"].get(INVERTER)

        self.unit = eventually(unit, otherwise="the inverter has got no unit")
        return self.unit

    # behind the cloud

    def ask_simulator(self, path):
        return httpx.get(f"http://127.0.0.1:{self.sems}/sim/{path}", timeout=120, trust_env=False).json()

    def spoil(self, **order):
        """Make things go wrong in the cloud, or well again."""
        httpx.post(
            f"http://127.0.0.1:{self.sems}/sim/faults", json=order, timeout=120, trust_env=False
        ).raise_for_status()

    def true_limit(self, serial=INVERTER):
        for plant in self.ask_simulator("state")["plants"]:
            for device in plant["devices"]:
                if device["serial"] == serial:
                    return device["setpoints"].get("active_power_limit")
        raise AssertionError(serial)

    def wait_for_data(self):
        eventually(lambda: (self.state() or {}).get("quality") == "good", otherwise="no data arrived over MQTT")


@pytest.fixture
def plant(tmp_path):
    return Plant(tmp_path)


class SharedPlant(Plant):
    """One that several tests use, so none may leave it changed in a way that matters to another."""

    def second_config(self):
        """A configuration for another gateway on the same broker and SEMS."""
        second = Plant(self.directory / "second")
        second.sems, second.mqtt = self.sems, self.mqtt
        second.configure()
        return second.config


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shared")
    (directory / "second").mkdir()
    plant = SharedPlant(directory)
    with plant.everything():
        yield plant
