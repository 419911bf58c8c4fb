"""From set messages to results."""

import asyncio
import json
from uuid import uuid4

import pytest
import structlog

import gateway.bridges.mqtt.commands as commands_module
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.replies import Replies
from gateway.bridges.mqtt.topics import Topics
from gateway.commands.requests import RequestError
from gateway.core.errors import NotSentError, RefusedError
from gateway.core.model import Range
from gateway.journal.journal import JournalError
from tests.bridges.mqtt.peer import mosquitto_pub, peer
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial
SET = f"sems/{SN}/set"
RESULT = f"sems/{SN}/result"


def sent(gateway):
    return [(c.setpoint, c.value) for c in gateway.controller.sent]


async def test_json_sets_and_every_step_is_told(plant):
    gateway, it = plant
    it.publish(SET, {"active_power_limit": 50, "id": "one", "ttl": 30, "revert_after": 300})
    await it.result(SN, "succeeded", id="one")
    steps = it.all(RESULT)
    assert [step["state"] for step in steps] == ["accepted", "sent", "succeeded"]
    assert steps[-1].pop("verified") is False
    for step in steps:
        assert step.pop("time").endswith("Z")
        step.pop("state")
        step.pop("detail")
        assert step == {
            "id": "one",
            "serial": SN,
            "setpoint": "active_power_limit",
            "value": 50.0,
            "reason": None,
            "origin": "mqtt",
        }
    (command,) = gateway.controller.sent
    assert (command.expires - command.created).total_seconds() == 30
    assert command.revert_after == 300
    state = await it.next(f"sems/{SN}", lambda m: "active_power_limit" in m)
    assert state["active_power_limit"] == 50.0


@pytest.mark.parametrize(
    ("setpoint", "payload", "value"),
    [
        ("active_power_limit", "50", 50.0),
        ("active_power_limit", " 050.5\n", 50.5),
        ("active_power_limit", '"50"', 50.0),
        ("active_power_limit", '{"value": 50, "id": "x", "ttl": 5, "revert_after": 9, "revert_value": 80}', 50.0),
        ("running", "off", False),
        ("running", "true", True),
        ("running", "1", True),
        ("battery_mode", "charge", "charge"),
        ("battery_mode", '"discharge"', "discharge"),
        ("battery_mode", "1", "charge"),
    ],
)
async def test_a_plain_value_sets_too(plant, setpoint, payload, value):
    gateway, it = plant
    it.publish(f"{SET}/{setpoint}", payload)
    await it.result(SN, "succeeded", setpoint=setpoint, value=value)
    assert sent(gateway) == [(setpoint, value)]


@pytest.mark.parametrize(
    ("payload", "reason", "says"),
    [
        ("\u0665\u0660", "bad_value", "takes a number"),
        ("\uff15\uff10", "bad_value", "takes a number"),
        ("5_0", "bad_value", "takes a number"),
        ('{"value": "\u0665\u0660"}', "bad_value", "takes a number"),
        ('{"value": 50, "value": 60}', "bad_request", "'value' stands there twice"),
        ('{"value": 50, "time": "9999-12-31T23:59:59Z"}', "bad_request", "ahead of the gateway's clock"),
    ],
)
async def test_what_may_mean_something_else_is_refused(plant, payload, reason, says):
    gateway, it = plant
    it.publish(f"{SET}/active_power_limit", payload)
    step = await it.result(SN, "rejected", setpoint="active_power_limit", reason=reason)
    assert says in step["detail"]
    assert sent(gateway) == []


async def test_mosquitto_pub_and_a_base_of_several_levels(broker, bench, protocol):
    async with bench() as gateway, peer(broker, protocol=protocol) as it:
        gateway.announce()
        gateway.connect(broker, base="site/7/sems", protocol=protocol)
        await gateway.up()
        await mosquitto_pub(broker, "-t", f"site/7/{SET}/running", "-m", "off", "-q", "1")
        await it.result(SN, "succeeded", base="site/7/sems", setpoint="running", value=False)


async def test_several_setpoints_go_together(plant):
    gateway, it = plant
    it.publish(SET, {"battery_mode": "charge", "battery_power_target": 3000, "id": "both"})
    await it.result(SN, "succeeded", id="both/battery_mode")
    await it.result(SN, "succeeded", id="both/battery_power_target", value=3000.0)
    assert sent(gateway) == [("battery_mode", "charge")], "one order, so one call"
    assert gateway.controller.in_force == [{"battery_power_target": 3000.0}]


async def test_of_several_setpoints_all_or_none_are_taken(plant):
    gateway, it = plant
    it.publish(SET, {"battery_mode": "charge", "battery_power_target": 9000, "id": "both"})
    await it.result(SN, "rejected", id="both/battery_power_target", reason="out_of_range")
    await it.result(SN, "rejected", id="both/battery_mode", reason="bad_request")
    assert sent(gateway) == []


@pytest.mark.parametrize(("serial", "level"), [("a/b+c", "a%2Fb%2Bc"), ("bridge", "%62ridge"), ("50%", "50%25")])
async def test_a_device_with_an_awkward_serial_number_takes_commands(plant, serial, level):
    gateway, it = plant
    gateway.announce(serial=serial)
    it.publish(f"sems/{level}/set/running", "off")
    await it.result(level, "succeeded", serial=serial, value=False)


async def test_failures_are_told(plant):
    gateway, it = plant
    gateway.controller.answers.append(RefusedError("the cloud says no"))
    it.publish(SET, {"active_power_limit": 50})
    result = await it.result(SN, "failed")
    assert result["detail"] == "the cloud says no"


async def test_commands_of_others_are_told_too(plant):
    gateway, it = plant
    await gateway.dispatcher.submit(gateway.command(id="from-elsewhere"))
    await it.result(SN, "succeeded", id="from-elsewhere", origin="test")


async def test_an_unsent_command_expires_by_the_bridges_own_ttl(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.controller.answers += [NotSentError("no way through")] * 100
        gateway.connect(broker, ttl=0.3)
        await gateway.up()
        it.publish(SET, {"active_power_limit": 50})
        await it.result(SN, "expired", detail="no way through")


async def test_a_retained_set_is_ignored(broker, bench, protocol, caplog):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        it.publish(SET, {"active_power_limit": 50}, retain=True)
        it.publish(f"{SET}/running", "off", retain=True)
        await it.next(SET)
        gateway.connect(broker, protocol=protocol)
        await gateway.up()
        it.publish(f"{SET}/battery_mode", "charge")
        await it.result(SN, "succeeded", setpoint="battery_mode")
        assert sent(gateway) == [("battery_mode", "charge")]
        assert {result["setpoint"] for result in it.all(RESULT)} == {"battery_mode"}


async def test_a_set_published_retained_while_we_listen_is_ignored_too(plant, capsys):
    gateway, it = plant
    for _ in range(3):
        it.publish(SET, {"active_power_limit": 50}, retain=True)
    it.publish(SET, {"running": True})
    await it.result(SN, "succeeded", setpoint="running")
    assert sent(gateway) == [("running", True)]
    assert capsys.readouterr().out.count("a retained set message is ignored") == 1


async def test_topics_told_of_retained_messages_are_bounded(plant, monkeypatch, capsys):
    monkeypatch.setattr(commands_module, "MAX_LOGGED", 2)
    _, it = plant
    for n in range(5):
        it.publish(f"sems/SN{n}/set", "x", retain=True)
    it.publish(SET, {"running": True})
    await it.result(SN, "succeeded", setpoint="running")
    assert capsys.readouterr().out.count("a retained set message is ignored") == 2


async def test_mqtt_5_requester_gets_every_step_at_its_response_topic(plant):
    _, it = plant
    it.publish(SET, {"active_power_limit": 50}, reply="sems/response/me", correlation=b"\x00c")
    await it.next("sems/response/me", lambda m: m["state"] == "succeeded")
    replies = [m for m in it.messages if m.topic == "sems/response/me"]
    assert [json.loads(m.payload)["state"] for m in replies] == ["accepted", "sent", "succeeded"]
    assert all(m.properties.CorrelationData == b"\x00c" for m in replies)
    assert [m["state"] for m in it.all(RESULT)] == ["accepted", "sent", "succeeded"]


async def test_mqtt_5_requester_without_correlation_data(plant):
    _, it = plant
    it.publish(f"{SET}/battery_mod", "charge", reply="sems/response/me")
    await it.next("sems/response/me", lambda m: m["reason"] == "unknown_setpoint")
    it.publish(SET, {"active_power_limit": 500}, reply="sems/response/me")
    await it.next("sems/response/me", lambda m: m["reason"] == "out_of_range")
    assert not hasattr(it.messages[-1].properties, "CorrelationData")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        # What others listen to: TRIALS D5 opened a door with this one.
        ("zigbee2mqtt/door/set", "not_permitted"),
        ("homeassistant/device/x/config", "not_permitted"),
        ("$SYS/x", "not_permitted"),
        # What is the gateway's own: commands, states, results, births.
        (f"{SET}/running", "not_permitted"),
        ("sems/response/set", "not_permitted"),
        ("sems/response/set/running", "not_permitted"),
        (f"sems/{SN}", "not_permitted"),
        ("sems/bridge/state", "not_permitted"),
        ("sems/bridge/request/halt", "not_permitted"),
        ("sems", "not_permitted"),
        ("sems/response", "not_permitted"),
        ("sems/responses/x", "not_permitted"),
        ("sems/as/alice/response/x", "not_permitted"),
        # No topics at all.
        ("sems/response/", "bad_request"),
        ("sems/response//x", "bad_request"),
        ("/sems/response/x", "bad_request"),
        # On such ones, brokers hang up: mosquitto on the last.
        ("sems/response" + 31 * "/a", "bad_request"),
        ("sems/response/" + 122 * "ä", "bad_request"),
        ("sems/response" + 220 * "/a", "bad_request"),
    ],
)
async def test_answers_go_where_the_configuration_permits_them_alone(plant, reply, reason):
    gateway, it = plant
    it.publish(SET, {"active_power_limit": 50, "id": "a"}, reply=reply)
    it.publish(SET, {"active_power_limit": 50, "id": "after"})
    await it.result(SN, "succeeded", id="after")
    steps = [m for m in it.all(RESULT) if m["id"] != "after"]
    assert [(m["id"], m["state"], m["reason"]) for m in steps] == [("a", "rejected", reason)]
    assert len(sent(gateway)) == 1, "it is not executed"
    assert not [m for m in it.messages if m.topic == reply and b"rejected" in m.payload]


@pytest.mark.parametrize("reply", ["sems/response" + 30 * "/a", "sems/response/" + 121 * "ä"])
async def test_a_response_topic_may_be_as_long_as_its_limits_say(plant, reply):
    _, it = plant
    it.publish(SET, {"active_power_limit": 50}, reply=reply)
    await it.next(reply, lambda m: m["state"] == "succeeded")


@pytest.mark.parametrize("reply", ["sems/response/+", "#", "", *(f"sems/response/{c}" for c in "#\x7f\ud800\0\uffff")])
def test_a_response_topic_that_no_broker_lets_through_is_refused_too(reply):
    replies = Replies(Topics("sems"), structlog.get_logger())
    with pytest.raises(RequestError) as refused:
        replies.of(Message(topic=SET, payload=b"", response_topic=reply), "")
    assert refused.value.reason == "bad_request"


async def test_correlation_data_have_a_limit(plant):
    gateway, it = plant
    it.publish(SET, {"active_power_limit": 50}, reply="sems/response/me", correlation=b"x" * 1025)
    result = await it.result(SN, "rejected", reason="bad_request")
    assert "1025 bytes" in result["detail"]
    assert sent(gateway) == []
    assert not it.all("sems/response/me")


async def test_users_have_answers_at_topics_of_their_own_and_all_where_the_settings_say(broker, bench, capsys):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker, users=["alice", "bob"], response_topics=["answers/#", "one"])
        await gateway.up()

        async def answered(user, reply):
            id_ = uuid4().hex
            it.publish(f"sems/as/{user}/{SN}/set", {"running": True, "id": id_}, reply=reply)
            return (await it.next(RESULT, lambda m: m["id"] == id_))["state"] == "accepted"

        assert await answered("alice", "sems/as/alice/response/x")
        assert await answered("alice", "answers/x/y")
        assert await answered("alice", "one")
        await it.next("answers/x/y", lambda m: m["state"] == "succeeded")
        await it.next("sems/as/alice/response/x", lambda m: m["state"] == "succeeded")
        for elsewhere in (
            "sems/as/bob/response/x", "sems/as/alice/x", f"sems/as/alice/{SN}/set/running", "one/x", "answer",
            "sems/as/alice/response/set", "sems/response/x",
        ):  # fmt: skip
            assert not await answered("alice", elsewhere), elsewhere
        assert not await answered("bob", "sems/as/alice/response/x")
        it.publish("sems/as/alice/bridge/request/health", "", reply="sems/as/bob/response/x")
        refused = await it.next("sems/bridge/response/health")
        assert refused["error"]["reason"] == "not_permitted"
        it.publish("sems/as/alice/bridge/request/halt", "", reply="elsewhere")
        assert (await it.next("sems/bridge/response/halt"))["ok"], "a halt is carried out whatever it asks for besides"
        assert not it.all("elsewhere")
        log = [line for line in capsys.readouterr().out.splitlines() if "does not answer at its response topic" in line]
        assert len(log) <= 3, "told once for each user and kind, not each time"
        assert any("sems/as/bob/response/x" in line for line in log)


async def test_a_message_delivered_twice_is_executed_once(plant):
    gateway, it = plant
    gateway.controller.gate.clear()
    wish = {"active_power_limit": 50, "id": "same"}
    it.publish(SET, wish)
    await it.result(SN, "sent", id="same")
    it.publish(SET, wish, reply="sems/response/me", correlation=b"2")
    answer = await it.next("sems/response/me")
    assert answer["state"] == "sent"
    gateway.controller.gate.set()
    await it.next("sems/response/me", lambda m: m["state"] == "succeeded")
    it.publish(SET, wish, reply="sems/response/later")
    assert (await it.next("sems/response/later"))["state"] == "succeeded"
    assert len(sent(gateway)) == 1
    assert [m["state"] for m in it.all(RESULT)] == ["accepted", "sent", "sent", "succeeded", "succeeded"]


async def test_an_id_of_another_wish_is_refused_and_does_not_take_over_its_replies(plant):
    gateway, it = plant
    gateway.controller.gate.clear()
    it.publish(SET, {"active_power_limit": 50, "id": "same"}, reply="sems/response/first")
    await it.next("sems/response/first", lambda m: m["state"] == "sent")
    it.publish(SET, {"active_power_limit": 60, "id": "same"}, reply="sems/response/second")
    refused = await it.next("sems/response/second")
    assert (refused["state"], refused["reason"]) == ("rejected", "duplicate")
    gateway.controller.gate.set()
    await it.next("sems/response/first", lambda m: m["state"] == "succeeded")
    assert len(it.all("sems/response/second")) == 1


async def test_open_replies_are_bounded(plant, monkeypatch):
    monkeypatch.setattr(commands_module, "REPLY_BACKLOG", 1)
    gateway, it = plant
    gateway.controller.gate.clear()
    it.publish(SET, {"active_power_limit": 50}, reply="sems/response/first")
    await it.next("sems/response/first", lambda m: m["state"] == "sent")
    it.publish(SET, {"running": True}, reply="sems/response/second")
    await it.next("sems/response/second", lambda m: m["state"] == "sent")
    gateway.controller.gate.set()
    await it.next("sems/response/second", lambda m: m["state"] == "succeeded")
    assert "succeeded" not in [m["state"] for m in it.all("sems/response/first")]


async def test_a_flood_of_sets_all_get_an_answer_and_the_loop_lives(plant):
    gateway, it = plant
    gateway.controller.gate.clear()
    for n in range(2000):
        it.publish(SET, {"active_power_limit": n % 100, "id": f"flood-{n}"}, qos=0)
    # Of each either `accepted` or `rejected`; of the accepted ones one is under way and one waits.
    await until(lambda: len(it.all(RESULT)) >= 2000)
    gateway.controller.gate.set()
    ends = {"superseded", "succeeded", "rejected"}
    await until(lambda: len([m for m in it.all(RESULT) if m["state"] in ends]) == 2000)
    assert {m["id"] for m in it.all(RESULT) if m["state"] in ends} == {f"flood-{n}" for n in range(2000)}
    assert {m["reason"] for m in it.all(RESULT) if m["state"] == "rejected"} <= {"rate_limited"}
    assert len(gateway.controller.sent) <= 3
    assert gateway.status.up


async def test_what_does_not_fit_into_the_queue_is_rate_limited(broker, bench, monkeypatch):
    monkeypatch.setattr(commands_module, "REQUEST_BACKLOG", 10)
    monkeypatch.setattr(commands_module, "TOGETHER", 1)
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        submit, gate = gateway.dispatcher.submit, asyncio.Event()

        async def slow(*commands):
            await gate.wait()
            return await submit(*commands)

        monkeypatch.setattr(gateway.dispatcher, "submit", slow)
        # One is in hand, ten wait, the rest does not fit.
        it.publish(f"{SET}/active_power_limit", {"value": 5, "id": "in hand"})
        for n in range(15):
            it.publish(f"{SET}/active_power_limit", {"value": 5, "id": f"n-{n}"})
        refused = await it.result(SN, "rejected", reason="rate_limited", id="n-14")
        assert "10 requests wait" in refused["detail"]
        gate.set()
        await it.result(SN, "accepted", id="n-8")


async def test_requests_get_an_answer_while_the_journal_fails(plant, monkeypatch):
    gateway, it = plant

    async def broken(*_):
        raise JournalError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.dispatcher, "submit", broken)
        it.publish(SET, {"active_power_limit": 50, "id": "a"}, reply="sems/response/me")
        it.publish(SET, {"active_power_limit": 50, "id": "b"})
        await it.result(SN, "rejected", id="b", reason="not_stored")
        assert "the disk is gone" in (await it.next("sems/response/me"))["detail"]
    it.publish(SET, {"active_power_limit": 50, "id": "c"})
    await it.result(SN, "succeeded", id="c")


async def test_an_exception_while_receiving_ends_nothing(plant, monkeypatch):
    gateway, it = plant
    with monkeypatch.context() as patch:
        patch.setattr(commands_module, "parse", lambda *_: 1 / 0)
        it.publish(SET, {"active_power_limit": 50, "id": "a"})
        it.publish("sems/marker", "x")
        await it.next("sems/marker")
        it.publish(f"sems/{SN}/set", {"running": True}, retain=True)
        await until(lambda: gateway.runner.bridge._commands._told)
    it.publish(SET, {"active_power_limit": 50, "id": "b"})
    await it.result(SN, "succeeded", id="b")


async def test_an_answer_whose_topic_would_be_too_long_harms_no_other(plant):
    _, it = plant
    it.publish(f"sems/{'x' * 65_525}/set", "1")
    it.publish(f"{SET}/running", "on")
    await it.result(SN, "succeeded", setpoint="running")


async def test_a_setpoint_without_range_is_taken(plant):
    gateway, it = plant
    gateway.announce(serial="charger", setpoints={"running": Range()})
    it.publish("sems/charger/set/running", "on")
    await it.result("charger", "succeeded", value=True)
