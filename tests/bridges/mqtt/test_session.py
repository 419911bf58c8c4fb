"""A kept session: what was sent while the gateway was away is carried out only while it is not too old."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial
SET = f"sems/{SN}/set/active_power_limit"


def now(**ago):
    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


def expiring(it, payload, seconds):
    properties = Properties(PacketTypes.PUBLISH)
    properties.MessageExpiryInterval = seconds
    it.client.publish(SET, json.dumps(payload), 1, properties=properties)


async def run(broker, bench, before=lambda _: None, **settings):
    """Have a session made, send sets while the gateway is away, and return what came of each, by id."""
    async with peer(broker) as it:
        async with bench() as gateway:
            gateway.announce()
            gateway.connect(broker, **settings)
            await gateway.up()
        before(it)
        # Else some of it might come when the gateway is back.
        await it.delivered()
        async with bench() as gateway:
            gateway.announce()
            gateway.connect(broker, **settings)
            await gateway.up()
            it.publish(SET, {"value": 1, "id": "live", "time": now()})
            await it.result(SN, "succeeded", id="live")
            it.publish(SET, {"value": 2, "id": "live-undated"})
            await it.result(SN, "succeeded", id="live-undated")
            return {m["id"]: m for m in it.all(f"sems/{SN}/result")}, gateway


def wishes(it):
    it.publish(SET, {"value": 10, "id": "undated"})
    it.publish(SET, {"value": 20, "id": "dated", "time": now()})
    it.publish(SET, {"value": 30, "id": "old", "time": now(minutes=5)})
    it.publish(SET, {"value": 35, "id": "old-but-meant", "time": now(minutes=5), "ttl": 3600})
    expiring(it, {"value": 40, "id": "expiring"}, 30)
    expiring(it, {"value": 45, "id": "old-and-expiring", "time": now(minutes=5)}, 30)
    it.publish("sems/bridge/request/restart", {"id": 1, "bridge": "mqtt"})


async def test_of_a_backlog_only_what_says_its_age_is_carried_out(broker, bench):
    results, gateway = await run(broker, bench, wishes, session_expiry=60, requests=["restart"])
    assert results["undated"]["reason"] == "expired"
    assert "message expiry interval" in results["undated"]["detail"]
    for id_ in ("old", "old-and-expiring"):
        assert results[id_]["reason"] == "expired", id_
    done = {command.id: command.value for command in gateway.controller.sent}
    assert "undated" not in done
    for id_ in ("dated", "old-but-meant", "expiring"):
        assert results[id_]["state"] in {"succeeded", "superseded"}, id_


async def test_a_request_of_a_backlog_is_not_carried_out(broker, bench):
    async with peer(broker) as it:
        for turn in range(2):
            async with bench() as gateway:
                gateway.connect(broker, session_expiry=60, requests=["restart", "health"])
                await gateway.up()
                if turn:
                    answer = await it.next("sems/bridge/response/restart")
                    assert answer["error"]["reason"] == "expired"
                    it.publish("sems/bridge/request/health", "")
                    assert (await it.next("sems/bridge/response/health"))["ok"]
            if not turn:
                it.publish("sems/bridge/request/restart", "mqtt")
                await it.delivered()


async def test_without_a_session_what_was_sent_meanwhile_is_lost(broker, bench):
    results, _ = await run(broker, bench, wishes)
    assert results.keys() == {"live", "live-undated"}


async def test_a_set_that_says_when_it_was_said_expires_by_that(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        it.publish(SET, {"value": 1, "id": "late", "time": now(seconds=61)})
        await it.result(SN, "rejected", id="late", reason="expired")
        it.publish(SET, {"value": 1, "id": "tomorrow", "time": now(days=-1)})
        await it.result(SN, "rejected", id="tomorrow", reason="bad_request")
        it.publish(SET, {"value": 1, "id": "a minute ahead", "time": now(seconds=-60)})
        await it.result(SN, "succeeded", id="a minute ahead")
        command = gateway.controller.sent[-1]
        assert (command.expires - command.created).total_seconds() == 60
        expiring(it, {"value": 3, "id": "short", "ttl": 3600}, 5)
        await it.result(SN, "succeeded", id="short")
        command = gateway.controller.sent[-1]
        assert (command.expires - command.created).total_seconds() <= 5


@pytest.mark.parametrize("time", ["yesterday", "2026-06-21T12:00:00", 7, "0001-01-01T00:00:00+14:00", "x" * 300])
async def test_a_time_that_is_none_is_refused(broker, bench, time):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        it.publish(SET, {"value": 1, "id": "x", "time": time})
        refused = await it.result(SN, "rejected", id="x", reason="bad_request")
        assert "2026-06-21T12:00:00Z" in refused["detail"], "an example"
        assert ("zone is missing" in refused["detail"]) == (time == "2026-06-21T12:00:00")


async def test_the_marker_of_another_time_ends_no_backlog(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, session_expiry=60)
        await gateway.up()
        client = gateway.runner.bridge._client
        client.backlog = True
        it.publish("sems/bridge/session", "somebody else's")
        it.publish(SET, {"value": 1, "id": "early"})
        await it.result(SN, "rejected", id="early", reason="expired")
        await gateway.runner.bridge._inbox.mark_backlog(client)
        await until(lambda: not client.backlog)
