"""Batch commands whose devices take their time: results come as devices are done, late ones late, and all are told."""

import asyncio
import json

import pytest

from gateway.kafka import KafkaConnection
from gateway.sems.catalogue import load
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.batch import EXPIRED, BatchSettings
from gateway.simulator.controls import Obedience
from gateway.simulator.shares import Delays, Late
from tests.kit.bench import until
from tests.kit.kafka import mock_kafka
from tests.simulator.kit import NOON, HandClock

COMMANDS, RESULTS = "goodwe.demo.active_power.command", "goodwe.demo.active_power.result"
DONE, NOT_DONE = "00000", "R0305"


class WallStands(HandClock):
    """Seconds pass, and the wall clock stands: what expires does so by the devices' delays alone."""

    def monotonic(self):
        return asyncio.get_running_loop().time()


@pytest.fixture(scope="module")
def cluster():
    with mock_kafka() as cluster:
        batch = load("batch")
        names = {"prefix": "goodwe", "supplier": "demo"}
        for interface in batch.interfaces:
            cluster.make(interface.path.format(**names), interface.answers.format(**names))
        yield cluster


@pytest.fixture
async def cloud(cluster):
    connection = KafkaConnection(bootstrap_servers=[cluster.plaintext], options={"fetch.wait.max.ms": 20})
    settings = SimulatorSettings(port=0, plants=20, devices_per_plant=1, device_delay=0.1)
    simulator = Simulator(settings, WallStands(), batch=BatchSettings(connection=connection))
    await simulator.start()
    yield simulator
    await simulator.stop()


async def test_late_results_come_late_and_a_late_device_obeys_though_its_command_has_expired(cloud, cluster):
    good, refuses, lies, late, later = cloud.world.inverters[8:13]
    tasks = cloud.cloud.tasks
    tasks.obedience |= {refuses: Obedience.REFUSES, lies: Obedience.LIES}
    tasks.late |= {late: Late(seconds=(2.0, 2.5)), later: Late(seconds=(3.0, 3.5), result_only=True)}
    items = [{"sn": serial, "data": {"ActivePowerLimit": 30}} for serial in (good, refuses, lies, late, later)]
    order = {"requestId": "r1", "timestamp": 0, "expires": round(1000 * (NOON.timestamp() + 1.5)), "items": items}
    await asyncio.to_thread(cluster.send, COMMANDS, b"key", json.dumps(order).encode())
    await until(lambda: cloud.batch.messages)
    sent = {serial: tasks._last_due[serial] for serial in (good, late, later)}
    messages = [json.loads(m.value()) for m in await asyncio.to_thread(cluster.messages, RESULTS, 3, 15)]
    assert [message["requestId"] for message in messages] == ["r1"] * 3
    said = [{entry["sn"]: entry["code"] for entry in message["results"]} for message in messages]
    assert said == [{good: DONE, refuses: NOT_DONE, lies: DONE}, {late: DONE}, {later: DONE}]
    # One obeyed late, and of the other only the result was late.
    assert sent[late] - sent[good] > 1.5
    assert sent[later] - sent[good] < 0.1
    assert {control.serial for control in cloud.cloud.controls} == {good, late, later}


async def test_a_device_that_would_obey_after_the_expiry_does_not(cloud, cluster):
    serials = cloud.world.inverters[14:16]
    cloud.cloud.tasks.delay = Delays(median=100, p95=100)
    order = {"requestId": "r2", "timestamp": 0, "expires": round(1000 * (NOON.timestamp() + 1.5))}
    items = [{"sn": serial, "data": {"ActivePowerLimit": 30}} for serial in serials]
    await asyncio.to_thread(cluster.send, COMMANDS, b"key", json.dumps({**order, "items": items}).encode())
    messages = [json.loads(m.value()) for m in await asyncio.to_thread(cluster.messages, RESULTS, 4)]
    [said] = [message["results"] for message in messages if message["requestId"] == "r2"]
    assert {entry["code"] for entry in said} == {EXPIRED}
    assert not cloud.cloud.controls
