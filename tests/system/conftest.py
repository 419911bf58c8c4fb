"""A plant's programs: mosquitto, the simulated SEMS, the gateway, each a process of its own."""

import subprocess
from contextlib import contextmanager

import httpx
import msgspec
import pytest

from tests.kit.mbpoll import need_mbpoll
from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import eventually, running, sems_gateway

INVERTER = "9010KETU218W0001"
LIMIT, AC_POWER = 5502, 3020
"""Registers of the limit and the AC power as float32; tests/bridges/modbus freezes them."""

CONFIG = """\
gateway: {{id: system-test}}
bridges:
  sems:
    type: open_api
    account: demo
    password: {password}
    url: http://127.0.0.1:{sems}
    poll_interval: 0.5
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
        self.config.write_text(text.format(password=password, sems=self.sems, mqtt=self.mqtt, modbus=self.modbus))

    # programs

    @contextmanager
    def simulator(self):
        # 200 calls a second come out of a poll interval of half a second.
        options = ("--start", "2026-06-21T10:00:00", "--calls-per-hour", 0)
        with sems_gateway("simulate", "--port", self.sems, *options) as simulator:
            simulator.line("ready")
            yield simulator

    def broker(self):
        config = self.directory / "mosquitto.conf"
        config.write_text(f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nuser root\n")
        return running(need("mosquitto"), "-c", str(config))

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
        subprocess.run(command, check=True, timeout=20)

    def clear(self, topic):
        """Take a retained message away."""
        subprocess.run([need("mosquitto_pub"), "-p", str(self.mqtt), "-t", topic, "-r", "-n"], check=True, timeout=20)

    def retained(self, topic):
        """The newest message of a topic, or None."""
        command = [need("mosquitto_sub"), "-p", str(self.mqtt), "-t", topic, "-C", "1", "-W", "3"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def state(self, serial=INVERTER):
        text = self.retained(f"sems/{serial}")
        return msgspec.json.decode(text) if text else None

    def mbpoll(self, register, *write, unit=None):
        need_mbpoll()
        command = ["mbpoll", "-m", "tcp", "-p", str(self.modbus), "-a", str(unit or self.unit or self.find_unit())]
        command += ["-0", "-r", str(register), "-t", "4:float", "-B", "-1", "-q", "127.0.0.1", *map(str, write)]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    def read_float(self, register):
        """A float32, or what mbpoll said went wrong."""
        done = self.mbpoll(register)
        if done.returncode:
            return done.stderr.strip()
        return float(done.stdout.split("]:")[1].split()[0])

    def find_unit(self):
        file = self.directory / "data" / "modbus-units.json"

        def unit():
            return file.exists() and msgspec.json.decode(file.read_bytes())["units"].get(INVERTER)

        self.unit = eventually(unit, otherwise="the inverter has got no unit")
        return self.unit

    # behind the cloud

    def ask_simulator(self, path):
        return httpx.get(f"http://127.0.0.1:{self.sems}/sim/{path}", timeout=10, trust_env=False).json()

    def spoil(self, **order):
        """Make things go wrong in the cloud, or well again."""
        httpx.post(
            f"http://127.0.0.1:{self.sems}/sim/faults", json=order, timeout=10, trust_env=False
        ).raise_for_status()

    def true_limit(self, serial=INVERTER):
        for plant in self.ask_simulator("state")["plants"]:
            for device in plant["devices"]:
                if device["serial"] == serial:
                    return device["setpoints"].get("active_power_limit")
        raise AssertionError(serial)

    def wait_for_data(self):
        eventually(lambda: (self.state() or {}).get("quality") == "good", 40, "no data arrived over MQTT")


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
