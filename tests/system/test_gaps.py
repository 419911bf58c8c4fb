"""The gateway was off for an hour: its MQTT history gets what was missed, once each, and no state is older than now."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tests.kit.process import environment, eventually, sems_gateway
from tests.kit.wall_clock import WallClock
from tests.system.conftest import INVERTER

pytestmark = pytest.mark.system
CONFIG = """\
gateway: {{id: gaps-test}}
bridges:
  sems:
    type: open_api
    account: demo
    password: {password}
    url: http://127.0.0.1:{sems}
    poll_interval: 0.5
    calls_per_hour: 1000000
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, store: {{enabled: true}}}}
"""
HOUR = 3600


@pytest.fixture
def clock(tmp_path):
    return WallClock(tmp_path)


@pytest.fixture
def site(plant, clock):
    """Simulator and gateway by a clock of the test's, and a broker."""
    plant.configure(text=CONFIG)
    clocks = environment(**clock.environment)

    @contextmanager
    def run():
        with (
            sems_gateway("simulate", "--port", plant.sems, "--calls-per-hour", 0, env=clocks) as simulator,
            plant.gateway(env=clocks) as gateway,
        ):
            simulator.line("ready")
            gateway.line('"sems".*"event": "up"')
            yield gateway

    plant.run = run
    with plant.broker() as broker:
        broker.line("running")
        yield plant


def messages(client, topic):
    """Times that came at a topic, in order."""
    lines = [line.split(" ", 1) for line in list(client.lines)]
    bodies = [msgspec.json.decode(body) for where, body in lines if where == topic]
    return [datetime.fromisoformat(body["time"]) for body in bodies if body["time"]]


def test_an_hour_without_the_gateway_is_filled_and_not_again_at_the_next_start(site, clock):
    state, history = f"sems/{INVERTER}", f"sems/{INVERTER}/history"
    with site.subscribe("sems/#") as client:
        with site.run():
            eventually(lambda: len(messages(client, state)) > 5)
        begins = max(messages(client, state) + messages(client, history))
        before = len(messages(client, state))
        clock.jump(HOUR)
        with site.run():
            eventually(lambda: len(messages(client, state)) > before + 2)
            ends = min(time for time in messages(client, state) if time > begins)
            assert timedelta(seconds=HOUR) - timedelta(minutes=1) < ends - begins
            first = int(begins.timestamp()) // 300 * 300 + 300
            last = int(ends.timestamp()) // 60 * 60
            expected = [datetime.fromtimestamp(at, UTC) for at in range(first, last, 300)]
            assert len(expected) >= 11

            def filled():
                return [time for time in messages(client, history) if begins < time < ends]

            eventually(lambda: len(filled()) >= len(expected), otherwise=lambda: f"{filled()} of {expected}")
            assert filled() == expected, "once each, oldest first"
            assert not [time for time in messages(client, state) if begins < time < ends], "and never as live"
        states = len(messages(client, state))
        with site.run():
            eventually(lambda: len(messages(client, state)) > states + 25)
        assert filled() == expected
