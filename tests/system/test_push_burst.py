"""A burst of pushes from a hundred devices and more (`make soak`: 2,000), with all mischief, on to a real broker."""

import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest

from gateway.sems.catalogue import load
from gateway.sems.normalise import entries, read
from tests.kit.ports import free_port
from tests.kit.process import eventually, sems_gateway

pytestmark = pytest.mark.system

SECRET = "a-secret-that-is-hard-to-guess"
PLANTS = int(os.environ.get("SEMS_GATEWAY_SOAK_PLANTS", "33"))
DEVICES = 8 + 10 + (PLANTS - 3) * 4 - 1
"""All but the EV charger, whose telemetry is an interface of its own."""
TELEMETRY = load("developer").interface("DeviceTelemetry")
CONFIG = """\
gateway: {{id: burst}}
bridges:
  push: {{type: push, port: PORT, platform: developer, secret: SECRET, interval: 60, announce: true,
          announce_most: 20000}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}}}
"""
MISCHIEF = {"duplicates": 0.1, "disorder": 0.1, "echoes": 0.1}


class Burst:
    """The simulator's side of it, and what the broker has of each device."""

    def __init__(self, plant):
        self.plant = plant
        self.push = free_port()
        plant.configure(text=CONFIG.replace("PORT", str(self.push)).replace("SECRET", SECRET))
        self.seen = {}
        self._read = 0
        # One connection: a client of its own for every question would take more time than the burst.
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{plant.sems}/sim/", timeout=60, trust_env=False)

    @contextmanager
    def running(self):
        simulator = sems_gateway(
            "simulate", "--port", self.plant.sems, "--start", "2026-06-21T10:00:00", "--plants", PLANTS, "--speed", 60
        )
        with self.plant.broker(), simulator as cloud:
            cloud.line("^ready")
            with self.plant.subscribe("sems/+") as self.watcher:
                yield

    def begin(self, **order):
        fields = {
            "url": f"http://127.0.0.1:{self.push}/push/{SECRET}", "api": "developer", "interfaces": ["DeviceTelemetry"],
            "rounds": 2, "interval": 0, "connections": 100, "retries": 200, "pause": 0.2, "timeout": 30,
        }  # fmt: skip
        answer = self.client.post("pushes", json=fields | MISCHIEF | order)
        assert answer.status_code == 200, answer.text

    @property
    def report(self):
        return self.client.get("pushes", params={"limit": 0}).json()["orders"][0]

    def done(self):
        eventually(lambda: not self.report["under_way"], otherwise=lambda: f"the burst does not end: {self.report}")
        return self.report

    def record(self):
        """Every push that was sent, in order; for when the burst is over."""
        return self.client.get("pushes", params={"limit": 1_000_000}).json()["pushes"]

    def newest(self):
        """Serial → what was measured last and pushed, as a reader of the catalogue understands it."""
        last = {}
        for push in self.record():
            if push["serial"] not in last or push["measured"] > last[push["serial"]]["measured"]:
                last[push["serial"]] = push
        return {serial: self._values(push["data"]) for serial, push in last.items()}

    @staticmethod
    def _values(data):
        [entry] = entries(TELEMETRY, data)
        reading = read(TELEMETRY, entry, UTC, datetime.now(UTC) + timedelta(days=1))
        # A lifetime total that begins with 0 is not believed before it has stood, see core/totals.py.
        begins = {point for point, value in reading.values.items() if point.endswith("_total") and not value}
        return {point: value for point, value in reading.values.items() if value is not None and point not in begins}

    def shown(self):
        """Serial → newest state at the broker."""
        lines = self.watcher.lines
        for line in lines[self._read :]:
            topic, _, payload = line.partition(" ")
            self._read += 1
            if payload.startswith("{"):
                self.seen[topic.removeprefix("sems/")] = msgspec.json.decode(payload)
        return self.seen

    def arrives(self):
        """Wait until the broker has of every device what was pushed last."""
        newest = self.newest()

        def differing():
            shown = self.shown()
            return {
                serial: (point, value, shown.get(serial, {}).get(point))
                for serial, values in newest.items()
                for point, value in values.items()
                if shown.get(serial, {}).get(point) != value
            }

        eventually(lambda: not differing(), otherwise=lambda: f"not at the broker: {list(differing().items())[:5]}")
        assert len(newest) == DEVICES


@pytest.fixture
def burst(plant):
    burst = Burst(plant)
    with burst.client:
        yield burst


def test_of_a_burst_the_newest_value_of_every_device_is_at_the_broker(burst):
    with burst.running(), burst.plant.gateway():
        burst.begin()
        report = burst.done()
        assert report["given_up"] == 0
        assert report["acknowledged"] == report["pushes"] > 2 * DEVICES * 1.1
        record = burst.record()
        assert len({push["serial"] for push in record}) == DEVICES
        assert any(push["copy"] for push in record)
        arrival = {}
        for push in record:
            arrival.setdefault(push["serial"], []).append(push["round"])
        assert sum(rounds != sorted(rounds) for rounds in arrival.values()) > DEVICES / 20
        burst.arrives()


def test_a_gateway_killed_in_the_middle_of_it_loses_nothing_that_is_sent_again(burst):
    with burst.running():
        with burst.plant.gateway() as gateway:
            burst.begin(interval=10)
            eventually(lambda: burst.report["acknowledged"] > DEVICES / 4)
            gateway.send_signal(9)
            gateway.wait()
        told = burst.report["acknowledged"]
        assert told < 2 * DEVICES
        # Some come while nobody is there.
        eventually(lambda: (at := burst.report)["attempts"] > at["acknowledged"])
        with burst.plant.gateway():
            report = burst.done()
            assert report["given_up"] == 0
            assert report["acknowledged"] == report["pushes"]
            assert report["attempts"] > report["pushes"]
            burst.arrives()
