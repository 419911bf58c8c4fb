"""GoodWe's data transfer as a source, against Apache Kafka."""

import asyncio
import json
from datetime import timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
import structlog
from prometheus_client import REGISTRY

from gateway.bridges.kafka.settings import TelemetrySettings
from gateway.sems.account_times import AccountTimes
from gateway.sems.normalise import Reading
from gateway.sems.pushed.fleet import Fleet
from gateway.sems.pushed.message import Reader
from gateway.simulator.pushes import PushOrder
from gateway.simulator.server import Simulator
from gateway.simulator.settings import SimulatorSettings
from tests.bridges.kafka.conftest import gateway
from tests.kit.bench import INVERTER, Silent, until

SN = "9010KETU000W0001"


@pytest.fixture
async def ours(tmp_path):
    async with gateway(tmp_path / "ours", "ours") as found:
        yield found


@pytest.fixture
def topic(kafka):
    return kafka.topic("goodwe")


def run(ours, kafka, topic, **settings):
    settings = {"group": topic, "session_timeout": 1, "telemetry": {"topics": [topic], "interval": 60}} | settings
    return ours.run(kafka.plaintext, **settings)


def inverter(ours, pac, *, age=0.0, sn=SN):
    time = ours.bench.clock.now() - timedelta(seconds=age)
    data = {"last_refresh_time": f"{time:%Y-%m-%d %H:%M:%S}", "status": 1, "pac": pac}
    return {"interface": "GetInverterBySN", "sn": sn, "data": data}


def send(kafka, topic, *messages):
    kafka.send(topic, SN.encode(), *(m if isinstance(m, bytes) else json.dumps(m).encode() for m in messages))


def restarted(ours, **changes):
    """Stop the bridge; return what starts it again."""
    ours.bench.runners.remove(ours.runner)
    return ours.runner.stop()


async def test_a_message_is_taken_like_a_push_and_committed(ours, kafka, topic):
    send(kafka, topic, inverter(ours, 1500))
    run(ours, kafka, topic)
    await until(lambda: ours.value(SN, "ac_power") == 1500.0)
    await until(lambda: ours.archive.values("ac_power", SN) == [1500.0])
    await until(lambda: kafka.committed(topic, topic) == 1)


async def test_fifty_thousand_devices_are_taken(ours):
    """Beyond 20,000 every message was once refused."""
    settings = TelemetrySettings(topics=["goodwe"])
    context = ours.bench.run(Silent, Silent.Settings(), "silent").bridge.context
    fleet = Fleet(settings, settings.catalogue, context, AccountTimes(context))
    message = Reader(settings.catalogue).read(inverter(ours, 1500))
    for n in range(50_000):
        fleet.announce(f"SN{n:05}", message, Reading({}, {}))
    assert ours.state("SN49999").device.serial == "SN49999"


async def test_the_zone_of_a_plant_is_given_to_its_devices_without_a_look_at_all_others(ours, monkeypatch):
    """Of 50,000 devices each of 12,500 plants once took 0.2 s of the loop."""
    settings = TelemetrySettings(topics=["goodwe"])
    context = ours.bench.run(Silent, Silent.Settings(), "silent").bridge.context
    times = AccountTimes(context)
    fleet = Fleet(settings, settings.catalogue, context, times)
    message = Reader(settings.catalogue).read(inverter(ours, 1500))
    serials = [f"SN{n:05}" for n in range(1000)]
    for n, serial in enumerate(serials):
        fleet.announce(serial, message, Reading({}, {}))
        # Another bridge says where it is.
        ours.bench.router.announce("other", msgspec.structs.replace(INVERTER, serial=serial, plant=f"plant-{n // 4}"))
        fleet.device(serial, "")
    monkeypatch.setattr(times, "inferred", lambda plant: (ZoneInfo("Europe/Berlin"), "Europe/Berlin"))
    looked = []
    monkeypatch.setattr(fleet, "device", lambda *names, device=fleet.device: looked.append(names) or device(*names))
    fleet._move("plant-0")
    assert [fleet._devices[serials[n]].time_zone for n in (0, 3, 4, 999)] == ["Europe/Berlin"] * 2 + [""] * 2
    assert len(looked) <= 4


async def test_what_came_while_it_was_away_is_read_and_goes_to_the_history_in_order(ours, kafka, topic):
    run(ours, kafka, topic)
    send(kafka, topic, inverter(ours, 1, age=50))
    await until(lambda: ours.archive.values("ac_power", SN) == [1.0])
    await restarted(ours)
    send(kafka, topic, *(inverter(ours, n, age=50 - n) for n in range(2, 20)))
    run(ours, kafka, topic)
    await until(lambda: ours.archive.values("ac_power", SN) == [float(n) for n in range(1, 20)])
    assert ours.value(SN, "ac_power") == 19.0


async def test_an_older_measurement_is_for_histories_alone(ours, kafka, topic):
    send(kafka, topic, inverter(ours, 2), inverter(ours, 1, age=40))
    run(ours, kafka, topic)
    await until(lambda: sorted(ours.archive.values("ac_power", SN)) == [1.0, 2.0])
    assert ours.value(SN, "ac_power") == 2.0


async def test_nothing_is_committed_before_it_is_stored_and_others_see_it_all_the_same(ours, kafka, topic):
    ours.archive.open.clear()
    run(ours, kafka, topic)
    send(kafka, topic, inverter(ours, 7))
    await until(lambda: ours.value(SN, "ac_power") == 7.0)
    await asyncio.sleep(0)
    await restarted(ours)
    assert kafka.committed(topic, topic) is None
    ours.archive.open.set()
    run(ours, kafka, topic)
    await until(lambda: kafka.committed(topic, topic) == 1)
    assert set(ours.archive.values("ac_power", SN)) == {7.0}


async def test_bad_messages_are_counted_said_once_and_passed_over(ours, kafka, topic):
    with structlog.testing.capture_logs() as logs:
        run(ours, kafka, topic, max_bytes=2000)
        bad = [b"\xff", b"{", b"[" * 900, b"x" * 3000, b'{"interface": "Nothing"}', b"[]", b"7", b'{"interface": 5}']
        send(kafka, topic, *bad, *bad, inverter(ours, 9))
        await until(lambda: ours.value(SN, "ac_power") == 9.0)
    told = [entry for entry in logs if entry["event"].startswith("a message can't be used")]
    assert 3 <= len(told) <= 6
    labels = {"bridge": ours.runner.name}
    assert REGISTRY.get_sample_value("sems_gateway_kafka_skipped_total", labels | {"topic": topic}) == 14
    assert REGISTRY.get_sample_value("sems_gateway_kafka_telemetry_total", labels | {"outcome": "taken"}) == 1
    assert REGISTRY.get_sample_value("sems_gateway_kafka_received_total", labels | {"client": "telemetry"}) == 17
    await until(lambda: kafka.committed(topic, topic) == 17)


async def test_the_simulated_cloud_sends_telemetry_to_a_topic(ours, kafka, topic):
    simulator = Simulator(SimulatorSettings(port=0))
    await simulator.start()
    try:
        order = PushOrder(url=f"kafka://{kafka.plaintext}/{topic}", duplicates=0.3, disorder=0.2)
        report = simulator.pusher.begin(order)
        run(ours, kafka, topic)
        done = await simulator.pusher.done(report.order)
        assert done.given_up == 0
        assert done.acknowledged == done.pushes > 20
        everything = {push.serial for push in simulator.pusher.pushes}
        await until(lambda: everything <= {s.device.serial for s in ours.bench.router.states()})
    finally:
        await simulator.stop()


async def test_what_a_history_has_dropped_is_read_again_once_it_takes_anything(ours, kafka, topic):
    ours.archive.open.clear()
    run(ours, kafka, topic)
    # More than the archive has room for.
    ours.bench.router._mailboxes[ours.archive_name].backlog = 5
    send(kafka, topic, *(inverter(ours, n, age=50 - n) for n in range(20)))
    await until(lambda: ours.value(SN, "ac_power") == 19.0)
    ours.bench.router._mailboxes[ours.archive_name].backlog = 5_000
    ours.archive.open.set()
    await until(lambda: set(ours.archive.values("ac_power", SN)) == {float(n) for n in range(20)})
    await until(lambda: kafka.committed(topic, topic) == 20)


@pytest.mark.usefixtures("look_often")
async def test_a_topic_made_anew_brings_all_that_it_holds(ours, kafka, topic):
    run(ours, kafka, topic, options={"topic.metadata.refresh.interval.ms": 500})
    send(kafka, topic, *(inverter(ours, n, age=100 - n) for n in range(1, 6)))
    await until(lambda: kafka.committed(topic, topic) == 5)
    await asyncio.to_thread(kafka.make_again, topic)
    # More than stood in the old one: the place in it would be one in the new one, too.
    send(kafka, topic, *(inverter(ours, n, age=100 - n) for n in range(50, 70)))
    await until(lambda: {float(n) for n in range(50, 70)} <= set(ours.archive.values("ac_power", SN)))
    await until(lambda: kafka.committed(topic, topic) == 20)


async def test_what_retention_deleted_is_said_once_and_the_rest_is_stored(ours, kafka, topic):
    kafka.place(topic, topic, 1)
    send(kafka, topic, *(inverter(ours, n, age=50 - n) for n in range(10)))
    await asyncio.to_thread(kafka.delete_before, topic, 6)
    with structlog.testing.capture_logs() as logs:
        run(ours, kafka, topic)
        await until(lambda: ours.archive.values("ac_power", SN) == [6.0, 7.0, 8.0, 9.0])
    assert [entry["count"] for entry in logs if "retention" in entry["event"]] == [5]
