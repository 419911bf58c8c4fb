"""What a broker may throw at the gateway: nothing of it stops the loop, or stays."""

import asyncio
import contextlib
import os
import socket
from collections import Counter

import pytest

import gateway.bridges.mqtt.client as client_module
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial
SET = f"sems/{SN}/set"
RESULT = f"sems/{SN}/result"

SETS = int(os.environ.get("SEMS_GATEWAY_SOAK_SETS", "1000"))
"""`make soak` has 10,000."""


async def still_works(gateway, it):
    it.publish(SET, {"running": True, "id": "after"})
    await it.result(SN, "succeeded", id="after")
    assert gateway.status.up


@pytest.mark.parametrize(("sets", "named"), [(SETS, True), (1_000, False)])
async def test_thousands_of_sets_on_one_setpoint_are_one_call(plant, sets, named):
    gateway, it = plant
    # The first is under way all the time, so none of the flood but the last can be sent.
    gateway.controller.gate.clear()
    it.publish(SET, {"active_power_limit": 99, "id": "first"})
    await it.result(SN, "sent", id="first")

    def flood():
        for n in range(sets):
            name = {"id": f"flood-{n}"} if named else {}
            it.publish(SET, {"active_power_limit": n % 50 if n < sets - 1 else 77} | name, qos=1)

    await asyncio.to_thread(flood)
    await until(lambda: len([m for m in it.all(RESULT) if m["state"] == "accepted"]) == sets + 1)
    gateway.controller.gate.set()
    await until(lambda: len([m for m in it.all(RESULT) if m["state"] == "superseded"]) == sets - 1)
    await it.result(SN, "succeeded", value=77.0)
    assert [c.value for c in gateway.controller.sent] == [99.0, 77.0]
    steps = {}
    for message in it.all(RESULT):
        steps.setdefault(message["id"], []).append(message["state"])
    assert Counter(map(tuple, steps.values())) == {
        ("accepted", "superseded"): sets - 1,
        ("accepted", "sent", "succeeded"): 2,
    }
    assert gateway.runner.bridge._outbox.dropped_results == 0
    await still_works(gateway, it)


async def test_a_wrong_value_supersedes_no_right_one(plant):
    gateway, it = plant
    gateway.controller.gate.clear()
    it.publish(SET, {"active_power_limit": 99, "id": "first"})
    await it.result(SN, "sent", id="first")
    for n in range(50):
        it.publish(SET, {"active_power_limit": n, "id": f"right-{n}"})
    it.publish(SET, {"active_power_limit": 500, "id": "wrong"})
    await it.result(SN, "rejected", id="wrong")
    gateway.controller.gate.set()
    await it.result(SN, "succeeded", id="right-49")
    assert [c.value for c in gateway.controller.sent] == [99.0, 49.0]


async def test_one_message_in_a_flood_that_comes_twice_is_executed_once(plant):
    gateway, it = plant
    for _ in range(20):
        it.publish(SET, {"active_power_limit": 5, "id": "same"})
    it.publish(SET, {"active_power_limit": 6, "id": "end"})
    await it.result(SN, "succeeded", id="end")
    assert "rejected" not in {m["state"] for m in it.all(RESULT)}
    assert [c.id for c in gateway.controller.sent if c.id == "same"] in ([], ["same"])


async def test_sets_of_several_setpoints_stay_in_order_among_others(plant):
    gateway, it = plant
    for n in range(100):
        it.publish(SET, {"battery_mode": "charge", "battery_power_target": n, "id": f"both-{n}"})
        it.publish(SET, {"battery_power_target": 1000 + n, "id": f"one-{n}"})
    await it.result(SN, "succeeded", id="one-99")
    accepted = [m["id"].partition("/")[0] for m in it.all(RESULT) if m["state"] == "accepted"]
    assert list(dict.fromkeys(accepted)) == [f"{kind}-{n}" for n in range(100) for kind in ("both", "one")]
    assert gateway.controller.sent[-1].value == 1099.0


@pytest.mark.parametrize(
    "payload", [b"\xff\xfe\x80", b'{"active_power_limit": "\xc3\x28"}', b"\xed\xa0\x80", b"\0" * 9]
)
async def test_payloads_that_are_no_utf8(plant, payload):
    gateway, it = plant
    it.publish(SET, payload)
    it.publish(f"{SET}/active_power_limit", payload)
    await until(lambda: len([m for m in it.all(RESULT) if m["state"] == "rejected"]) == 2)
    await still_works(gateway, it)
    assert [c.setpoint for c in gateway.controller.sent] == ["running"]


async def test_payloads_of_a_megabyte(plant):
    gateway, it = plant
    for _ in range(20):
        it.publish(SET, b"[" * 1_000_000)
        it.publish("sems/bridge/request/health", b"{" + b" " * 1_000_000)
    await until(lambda: len([m for m in it.all(RESULT) if m["state"] == "rejected"]) == 20)
    await until(lambda: len(it.all("sems/bridge/response/health")) == 20)
    assert all(len(str(m)) < 2_000 for m in it.all(RESULT))
    await still_works(gateway, it)


async def test_a_flood_is_not_read_by_more_and_more_at_a_time(plant, monkeypatch):
    gateway, it = plant
    client = gateway.runner.bridge._client
    monkeypatch.setattr(client_module, "READS_PER_TURN", 2)
    loop, read = asyncio.get_running_loop(), client._read
    most = reads = 0

    def counted(paho):
        nonlocal reads
        reads += 1
        read(paho)

    def turn():
        nonlocal most, reads, handle
        most, reads = max(most, reads), 0
        handle = loop.call_soon(turn)

    # What the loop calls when the socket has something.
    loop.add_reader(client._fd, client._guarded, counted)
    client._read = counted
    handle = loop.call_soon(turn)
    await asyncio.to_thread(lambda: [it.publish("sems/bridge/request/none", "x" * 100, qos=0) for _ in range(5_000)])
    await still_works(gateway, it)
    handle.cancel()
    assert most in {1, 2}, "the socket's, and the one that reads on"


@pytest.mark.parametrize("level", ["a b", "Ünïcode", "\u202e", "😀", "%", "%2", "%ff", "..", "'; DROP TABLE", "-"])
async def test_topics_with_odd_characters(plant, level):
    gateway, it = plant
    it.publish(f"sems/{level}/set", {"running": True, "id": "odd"})
    it.publish(f"{SET}/{level}", "1")
    it.publish(f"sems/bridge/request/{level}", "1")
    await it.result(level, "rejected", id="odd", reason="unknown_device")
    await it.result(SN, "rejected", reason="unknown_setpoint")
    await still_works(gateway, it)


async def test_topics_that_are_no_utf8_end_nothing(plant, broker):
    gateway, it = plant
    # The broker is the first to judge this one, with whatever it does to who sends it.
    connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"
    topic = b"sems/\xff\xfe/set"
    publish = bytes([0x30, 2 + len(topic) + 1]) + len(topic).to_bytes(2) + topic + b"1"

    def send():
        with socket.create_connection((broker.host, broker.port), timeout=60) as raw:
            raw.sendall(connect)
            raw.recv(4)
            raw.sendall(publish)
            raw.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                raw.recv(1)

    await asyncio.to_thread(send)
    await still_works(gateway, it)


async def test_a_thousand_retained_sets_are_ignored(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        for n in range(1000):
            it.publish(f"sems/{SN}-{n}/set", {"running": False}, retain=True)
        it.publish(SET, {"running": False}, retain=True)
        await it.next(SET)
        gateway.connect(broker)
        await gateway.up()
        await still_works(gateway, it)
        assert [c.value for c in gateway.controller.sent] == [True]
        assert len(it.all(RESULT)) == 3
