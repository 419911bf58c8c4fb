"""Three gateways as processes, joined by Kafka: one polls, two serve MQTT and Modbus; one of those is killed."""

import signal
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from tests.kit.mbpoll import poll_float
from tests.kit.ports import free_port
from tests.kit.process import eventually, sems_gateway
from tests.system.conftest import AC_POWER, INVERTER, Plant

pytestmark = pytest.mark.system

CONNECTION = "connection: {{bootstrap_servers: ['{kafka}']}}"
POLLER = f"""\
gateway: {{{{id: poller}}}}
bridges:
  sems:
    type: open_api
    account: demo
    password: demo
    url: http://127.0.0.1:{{sems}}
    poll_interval: 1
    calls_per_hour: 1000000
  links:
    type: kafka
    {CONNECTION}
    session_timeout: 2
    publish: {{{{create: {{{{partitions: 6}}}}, commands: true}}}}
control:
  enabled: true
  allow: [{{{{devices: ["*"], setpoints: [active_power_limit], origins: [links]}}}}]
"""
MEMBER = f"""\
gateway: {{{{id: {{name}}}}}}
bridges:
  poller:
    type: kafka
    {CONNECTION}
    session_timeout: 2
    join: {{{{commands: true}}}}
  mqtt: {{{{type: mqtt, host: 127.0.0.1, port: {{mqtt}}, base: {{name}}}}}}
  modbus: {{{{type: modbus, port: {{modbus}}}}}}
control:
  enabled: true
  allow: [{{{{devices: ["*"], setpoints: [active_power_limit], origins: [mqtt]}}}}]
"""


class Member:
    """A gateway that serves a part of the devices."""

    def __init__(self, directory, name, plant, kafka):
        self.name = name
        self.modbus = free_port()
        self.directory = directory / name
        self.directory.mkdir()
        self.config = self.directory / "config.yaml"
        text = MEMBER.format(name=name, kafka=kafka.plaintext, mqtt=plant.mqtt, modbus=self.modbus)
        self.config.write_text(text)

    def read_power(self):
        """The inverter's AC power over Modbus, or None."""
        units = self.directory / "data" / "modbus-units.json"
        unit = units.exists() and msgspec.json.decode(units.read_bytes())["units"].get(INVERTER)
        if not unit:
            return None
        done = poll_float(self.modbus, AC_POWER, unit=unit)
        return None if done.error else done.values[0]


class Watcher:
    """What stands in the members' topics."""

    def __init__(self, process):
        self._process = process

    def messages(self, topic):
        """Payloads of one topic, oldest first."""
        start = f"{topic} "
        return [_decoded(line[len(start) :]) for line in list(self._process.lines) if line.startswith(start)]

    def served(self, name):
        """Serial numbers of the devices that a member has good data of."""
        found = {}
        for line in list(self._process.lines):
            topic, _, payload = line.partition(" ")
            if topic.startswith(f"{name}/") and topic.count("/") == 1:
                found[topic.partition("/")[2]] = _decoded(payload)
        return {serial for serial, state in found.items() if state.get("quality") == "good"}


def _decoded(payload):
    # mosquitto_sub has a word for a retained message that was taken away.
    return {} if payload in ("", "(null)") else msgspec.json.decode(payload)


@contextmanager
def joined(directory, kafka):
    plant = Plant(directory)
    plant.configure(text=POLLER.replace("{kafka}", kafka.plaintext))
    members = [Member(directory, name, plant, kafka) for name in ("one", "two")]
    with ExitStack() as stack:
        stack.enter_context(plant.broker())
        stack.enter_context(plant.simulator())
        watcher = Watcher(stack.enter_context(plant.subscribe("#")))
        stack.enter_context(plant.gateway())
        processes = {m.name: stack.enter_context(sems_gateway("run", m.config)) for m in members}
        yield plant, members, processes, watcher


def test_a_member_that_is_killed_is_replaced_by_the_other_and_commands_reach_the_inverter(tmp_path, kafka):
    with joined(tmp_path, kafka) as (plant, members, processes, watcher):
        one, two = (member.name for member in members)
        fleet = {d["serial"] for p in plant.ask_simulator("state")["plants"] for d in p["devices"]}

        def shared():
            first, second = watcher.served(one), watcher.served(two)
            return first and second and not first & second and first | second >= fleet

        eventually(shared, otherwise=lambda: f"{watcher.served(one)} and {watcher.served(two)} of {fleet}")
        victim, other = members if INVERTER in watcher.served(one) else reversed(members)
        eventually(lambda: victim.read_power() is not None)  # each bridge shows it in its own time
        assert other.read_power() is None

        processes[victim.name].end(signal.SIGKILL)
        eventually(lambda: watcher.served(other.name) >= fleet, 40, "its devices are not taken over")
        eventually(lambda: len({s["time"] for s in watcher.messages(f"{other.name}/{INVERTER}") if "time" in s}) >= 3)
        eventually(lambda: other.read_power() is not None)

        plant.publish(f"{other.name}/{INVERTER}/set/active_power_limit", 25)
        result = f"{other.name}/{INVERTER}/result"
        eventually(lambda: [r["state"] for r in watcher.messages(result)] == ["accepted", "sent", "succeeded"])
        assert plant.true_limit() == 25.0
        eventually(lambda: watcher.messages(f"{other.name}/{INVERTER}")[-1]["active_power_limit"] == 25.0)
