"""Halting over MQTT, and users with topics of their own, which the broker's access rules keep for them."""

import asyncio

import pytest
from pydantic import ValidationError

from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import RequestTopic, SetTopic, Topics
from gateway.commands.policy.policy import Rule
from gateway.core import files
from gateway.core.model import CommandState
from tests.bridges.mqtt.peer import mosquitto_pub, peer
from tests.kit.bench import EVERYTHING, INVERTER, until
from tests.kit.mosquitto import mosquitto

SN = INVERTER.serial
ACL = """\
user gateway
topic readwrite #

pattern write sems/as/%u/#
pattern read sems/#
"""


@pytest.fixture
async def asked(broker, bench):
    """A gateway and a peer, and how to ask."""
    async with peer(broker) as it, bench(EVERYTHING.model_copy(update={"resume": ["mqtt/alice"]})) as gateway:
        gateway.announce()
        gateway.connect(broker, users=["alice"])
        await gateway.up()

        async def ask(name, payload="", prefix="sems"):
            topic = f"sems/bridge/response/{name}"
            count = len(it.all(topic))
            it.publish(f"{prefix}/bridge/request/{name}", payload)
            return (await until(lambda: it.all(topic)[count:], topic))[0]

        ask.peer, ask.gateway = it, gateway
        yield ask


async def test_a_request_halts_and_one_who_may_resumes(asked):
    answer = await asked("halt", {"id": 7, "reason": "fire"})
    halted = asked.gateway.halting.current
    assert (halted.by, halted.reason) == ("mqtt", "fire")
    assert answer["ok"]
    assert (answer["id"], answer["data"]["halted"]["by"], answer["data"]["halted"]["reason"]) == (7, "mqtt", "fire")
    info = await asked.peer.next("sems/bridge/info", lambda m: m["halted"])
    assert info["halted"] == answer["data"]["halted"]

    asked.peer.publish(f"sems/{SN}/set/active_power_limit", "50")
    refused = await asked.peer.result(SN, "rejected")
    assert refused["reason"] == "halted"
    assert refused["detail"].startswith("halted by mqtt at ")

    refused = await asked("resume")
    assert refused["error"]["reason"] == "not_permitted"
    assert "control.resume" in refused["error"]["detail"]
    assert asked.gateway.halting.current
    assert (await asked("resume", prefix="sems/as/alice"))["data"] == {"halted": None}
    await asked.peer.next("sems/bridge/info", lambda m: m["halted"] is None)
    assert asked.gateway.halting.current is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [("", ""), ("fire", "fire"), ('{"resaon": 1}', ""), (b"\xff\xfe", ""), ("{", ""), ("[1]", "[1]")],
)
async def test_a_halt_never_fails_for_its_wording(asked, payload, reason):
    assert (await asked("halt", payload, prefix="sems/as/alice"))["ok"]
    assert (asked.gateway.halting.current.by, asked.gateway.halting.current.reason) == ("mqtt/alice", reason)


async def test_a_resume_is_read_with_care(asked):
    await asked("halt")
    assert (await asked("resume", {"now": True}, prefix="sems/as/alice"))["error"]["reason"] == "bad_request"
    assert asked.gateway.halting.current


async def test_a_halt_that_cannot_be_stored_is_told(asked, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", full)
    answer = await asked("halt")
    assert answer["error"]["reason"] == "not_stored"
    assert "control is halted, but" in answer["error"]["detail"]
    assert asked.gateway.halting.current


async def test_a_halt_is_taken_in_a_flood_and_whatever_its_age(asked):
    gateway = asked.gateway
    receive = gateway.runner.bridge._inbox._requests.receive
    gateway.runner.bridge._outbox.results.extend([Message(topic="sems/x/result", payload=b"")] * 2_000)
    receive(RequestTopic("halt"), Message(topic="x", payload=b"", backlog=True))
    await until(lambda: gateway.halting.current)


async def test_a_retained_halt_and_one_that_is_not_allowed_are_none(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        it.publish("sems/bridge/request/halt", "old", retain=True)
        await it.next("sems/bridge/request/halt")
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        gateway.runner.bridge._inbox._requests.receive(
            RequestTopic("halt"), Message(topic="x", payload=b"", retain=True)
        )
        await asyncio.sleep(0)
        assert not gateway.halting.current
    async with peer(broker) as it, bench() as gateway:
        gateway.connect(broker, requests=["health"])
        await gateway.up()
        it.publish("sems/bridge/request/halt", "")
        answer = await it.next("sems/bridge/response/halt")
        assert answer["error"]["reason"] == "not_permitted"
        assert not gateway.halting.current


async def test_a_user_commands_by_a_topic_that_the_broker_keeps_for_them(tmp_path, bench):
    (tmp_path / "acl").write_text(ACL)
    users = {"gateway": "g", "alice": "a", "bob": "b"}
    rules = [Rule(devices=["*"], setpoints=["active_power_limit"], origins=["mqtt/alice"], min=20)]
    async with (
        mosquitto(tmp_path, users=users, extra=[f"acl_file {tmp_path / 'acl'}"]) as broker,
        peer(broker, users=("alice", "a")) as alice,
        peer(broker, users=("bob", "b")) as bob,
        bench(EVERYTHING.model_copy(update={"allow": rules})) as gateway,
    ):
        gateway.announce()
        gateway.connect(broker, username="gateway", password="g", users=["alice", "bob"])
        await gateway.up()
        bob.publish(f"sems/as/bob/{SN}/set/active_power_limit", "30")
        refused = await bob.result(SN, "rejected")
        for prefix in ("sems", "sems/as/alice"):
            topic = f"{prefix}/{SN}/set/active_power_limit"
            await mosquitto_pub(broker, "-u", "bob", "-P", "b", "-q", "1", "-t", topic, "-m", "30")
        alice.publish(f"sems/as/alice/{SN}/set/active_power_limit", "30")
        done = await alice.result(SN, "succeeded")
        assert done["origin"] == "mqtt/alice"
        assert (refused["origin"], refused["reason"]) == ("mqtt/bob", "not_permitted")
        assert [c.origin for c in gateway.controller.sent] == ["mqtt/alice"], "what bob says as alice does not arrive"
        alice.publish(f"sems/as/alice/{SN}/set", "nonsense")
        last = await alice.next(f"sems/{SN}/result", lambda m: m["reason"] == "bad_request")
        assert (last["origin"], last["state"]) == ("mqtt/alice", CommandState.REJECTED)


def test_topics_of_users():
    topics = Topics("sems", ["alice"])
    assert topics.sets == ("sems/+/set", "sems/+/set/+", "sems/as/alice/+/set", "sems/as/alice/+/set/+")
    assert topics.requests == ("sems/bridge/request/+", "sems/as/alice/bridge/request/+")
    assert topics.parse_set("sems/as/alice/SN/set/running") == SetTopic("sems/SN", "SN", "running", "alice")
    assert topics.parse_set("sems/as/alice/SN/set") == SetTopic("sems/SN", "SN", None, "alice")
    assert topics.parse_set("sems/as/bob/SN/set") is None
    assert topics.parse_set("sems/as/set/running") == SetTopic("sems/as", "as", "running"), "a device called as"
    assert topics.parse_request("sems/as/alice/bridge/request/halt") == RequestTopic("halt", "alice")
    assert topics.parse_request("sems/bridge/request/") is None
    assert topics.parse_request("sems/as/bob/bridge/request/halt") is None


@pytest.mark.parametrize("users", [["a/b"], ["a+"], [""], ["a b"]])
def test_a_user_is_one_level_of_a_topic(users):
    with pytest.raises(ValidationError, match="pattern"):
        MqttSettings(host="x", users=users)


def test_sparkplug_names_no_user():
    with pytest.raises(ValidationError, match="name no user"):
        MqttSettings(host="x", users=["a"], payload="sparkplug")
