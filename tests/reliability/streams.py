"""Who commands: MQTT, Modbus, the local socket and HTTP at once, each from a thread of its own with dice of its own.

What a client was promised is kept in `promised`. A gateway that is away for a moment is nothing special here.
"""

import json
import random
import socket
import struct
import threading
import time
import uuid
from collections import deque
from datetime import UTC, datetime

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from gateway.bridges.local.protocol import socket_path
from tests.reliability.records import Promised

BUSY = [
    (serial, setpoint)
    for serial in ("9010KETU218W0001", "9020KETT221W0001", "9020KDTU219W0001", "9050KMTU220W0001")
    for setpoint in ("export_limit", "active_power_limit")
]
GUARDED = [
    (serial, setpoint)
    for serial in ("9050KMTU220W0004", "9050KMTU220W0005")
    for setpoint in ("export_limit", "active_power_limit")
]
"""Devices whose commands all have a dead-man's timer."""
LANES = [*BUSY, *GUARDED]
DEVICES = {serial for serial, _ in LANES}
REGISTERS = {"active_power_limit": 5502, "export_limit": 5508}
"""float32; tests/bridges/modbus freezes them."""
STEPS, STRIDE = 12_800, 7_911
"""Limits are multiples of 1/128 %, so as float32 they are the same number. The stride is a golden section of them all:
what is said one after the other lies farther apart than SEMS's rounding, for which the gateway makes allowance."""


class Values:
    """Numbers that never come twice for the same setpoint of the same device."""

    def __init__(self):
        self._lock = threading.Lock()
        self._given = dict.fromkeys(LANES, 0)

    def next(self, lane):
        with self._lock:
            self._given[lane] += 1
            given = self._given[lane]
        if lane[1] == "export_limit":
            return float(given)
        assert given < STEPS, "all values of a limit are used up"
        return given * STRIDE % STEPS / (STEPS / 100)


class Stream(threading.Thread):
    """Says things at `rate` a second until it is told to stop. A subclass says one in `say`."""

    def __init__(self, rig, values, seed, rate):
        super().__init__(name=type(self).__name__, daemon=True)
        self.rig, self.values, self.rate = rig, values, rate
        self.random = random.Random(f"{seed} {self.name}")
        self.promised = []
        self.said = 0
        self._over = threading.Event()
        self.failure = None

    def run(self):
        try:
            self.open()
            while not self._over.wait(self.random.expovariate(self.rate)):
                self.say()
        except BaseException as failure:  # noqa: BLE001 - told to whoever ends the stream
            self.failure = failure
        finally:
            self.close()

    def end(self):
        self._over.set()
        self.join(60)
        if self.failure is not None:
            raise self.failure

    def promise(self, lane, value, id_=None):
        self.promised.append(Promised(self.name, *lane, value, id_))

    def ttl(self):
        """Seconds: some are too short for a gateway that is down to be up again in time."""
        return self.random.choice((0.7, 2.0, 5.0, 20.0, 60.0))

    def new_id(self):
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def open(self):
        pass

    def close(self):
        pass


class Mqtt(Stream):
    """Some messages come twice, and at times an id is used again for something else."""

    lanes = BUSY

    def open(self):
        self._sent = deque(maxlen=30)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self.name, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", self.rig.mqtt)
        self._client.loop_start()

    def say(self):
        dice = self.random.random()
        if dice < 0.1 and self._sent:
            self._publish(*self.random.choice(self._sent))
            return
        lane = self.random.choice(self.lanes)
        body = {"value": self.values.next(lane), "id": self.new_id()} | self.more(lane)
        if dice < 0.13 and self._sent:
            body["id"] = self.random.choice(self._sent)[1]["id"]
        else:
            self._sent.append((lane, body))
        self._publish(lane, body)

    def more(self, lane):
        return {"ttl": self.ttl()}

    def command(self, lane, value, **more):
        """Say one thing that is no matter of dice."""
        self._publish(lane, {"value": value, "id": str(uuid.uuid4())} | more)

    def _publish(self, lane, body):
        said = body | {"time": datetime.now(UTC).isoformat()}
        self.said += 1
        self._client.publish(f"sems/{lane[0]}/set/{lane[1]}", json.dumps(said), qos=1)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


class Guarded(Mqtt):
    """Commands with a dead-man's timer, some of which are taken over by the next before their time.

    They come while a gateway is up. What waited for a start would hold each timer that ran out before it, and a gateway
    that forgets timers could not be told from one that does not.
    """

    lanes = GUARDED

    def say(self):
        if self.rig.is_up:
            super().say()

    def more(self, lane):
        return {"ttl": 20.0, "revert_after": self.random.uniform(0.5, 4.0), "revert_value": self.values.next(lane)}


class Modbus(Stream):
    def open(self):
        self._client = ModbusTcpClient("127.0.0.1", port=self.rig.modbus, timeout=60, retries=0)
        self._units = {}

    def say(self):
        if not self._units:
            file = self.rig.data_dir / "modbus-units.json"
            self._units = json.loads(file.read_text())["units"] if file.exists() else {}
            if not self._units.keys() >= DEVICES:
                self._units = {}
                return
        lane = self.random.choice(BUSY)
        value = self.values.next(lane)
        words = list(struct.unpack(">2H", struct.pack(">f", value)))
        self.said += 1
        try:
            if not self._client.connected and not self._client.connect():
                return
            answer = self._client.write_registers(REGISTERS[lane[1]], words, device_id=self._units[lane[0]])
        except (ModbusException, OSError):
            self._client.close()
            return
        if not answer.isError():
            self.promise(lane, value)

    def close(self):
        self._client.close()


class Local(Stream):
    """As `sems-gateway send` does."""

    def say(self):
        lane = self.random.choice(BUSY)
        requested = {
            "type": "send", "serial": lane[0], "setpoint": lane[1], "value": self.values.next(lane), "user": "tester",
            "ttl": self.ttl(), "id": self.new_id(),
        }  # fmt: skip
        self.said += 1
        try:
            with socket.socket(socket.AF_UNIX) as door, socket_path(self.rig.data_dir) as path:
                door.settimeout(60)
                door.connect(path)
                door.sendall(json.dumps(requested).encode() + b"\n")
                with door.makefile() as answers:
                    line = answers.readline()
        except OSError:
            return
        told = json.loads(line) if line.endswith("\n") else {}
        if told.get("type") == "step" and told["event"]["state"] in ("accepted", "sent", "succeeded"):
            self.promise(lane, requested["value"], requested["id"])


class Http(Stream):
    """By the web bridge's API."""

    def open(self):
        headers = {"Authorization": f"Bearer {self.rig.token}"}
        url = f"http://127.0.0.1:{self.rig.web}"
        self._client = httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False)

    def say(self):
        lane = self.random.choice(BUSY)
        body = {lane[1]: self.values.next(lane), "id": self.new_id(),
                "ttl": self.ttl()}  # fmt: skip
        self.said += 1
        try:
            answer = self._client.post(f"/api/v1/devices/{lane[0]}/set", json=body)
        except httpx.HTTPError:
            return
        if answer.is_success:
            self.promise(lane, body[lane[1]], body["id"])

    def close(self):
        self._client.close()


def all_of(rig, seed, rates=(25, 10, 3, 2, 3)):
    """Streams over one set of values, not yet begun; the first is the MQTT one."""
    values = Values()
    kinds = [Mqtt, Modbus, Local, Guarded, Http]
    return [kind(rig, values, seed, rate) for kind, rate in zip(kinds, rates, strict=True)]


def wait(seconds):
    """Let a run go on: the moment of a kill is a matter of dice, not of something that could be waited for."""
    time.sleep(seconds)
