"""What the gateway itself may be asked for."""

import json

import pytest

import gateway.bridges.mqtt.bridge_requests as requests_module
from gateway.bridges.mqtt.message import Message
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER, until

EVERY = ["devices", "health", "restart", "log_level"]


@pytest.fixture
async def asked(broker, bench):
    """Ask, and return the answer."""
    async with peer(broker) as it, bench() as gateway:
        gateway.levels = []
        gateway.services = gateway.services.__class__(
            *(getattr(gateway.services, name) for name in gateway.services.__struct_fields__[:6]),
            set_log_level=gateway.levels.append,
        )
        gateway.announce()
        gateway.announce(serial="a/b", name="")
        gateway.publish(ac_power=1.0)
        gateway.connect(broker, requests=EVERY)
        await gateway.up()
        count = 0

        async def ask(name, payload="", **options):
            nonlocal count
            topic = f"sems/bridge/response/{name}"
            count = len(it.all(topic))
            it.publish(f"sems/bridge/request/{name}", payload, **options)
            return (await until(lambda: it.all(topic)[count:], topic))[0]

        ask.peer, ask.gateway = it, gateway
        yield ask


async def test_devices(asked):
    answer = await asked("devices", {"id": "a"})
    assert (answer["id"], answer["ok"], answer["data"]["total"]) == ("a", True, 2)
    first, second = answer["data"]["devices"]
    assert first == {
        "serial": INVERTER.serial, "topic": f"sems/{INVERTER.serial}", "name": "House", "kind": "storage",
        "model": "GW10K-ET", "plant": "plant-1", "quality": "good", "time": first["time"],
    }  # fmt: skip
    assert (second["topic"], second["time"]) == ("sems/a%2Fb", None)


async def test_devices_come_in_pages(asked):
    answer = await asked("devices", {"offset": 1, "limit": 1})
    assert [d["serial"] for d in answer["data"]["devices"]] == ["a/b"]
    assert (answer["data"]["total"], answer["data"]["offset"], answer["id"]) == (2, 1, None)


async def test_health_is_what_the_health_topic_says(asked):
    answer = await asked("health")
    assert answer["data"]["devices"] == {"total": 2, "good": 1, "stale": 1, "offline": 0}
    assert answer["data"]["bridges"]["mqtt"]["up"]


@pytest.mark.parametrize("payload", ["mqtt", '"mqtt"', {"bridge": "mqtt", "id": {"n": [1]}}])
async def test_a_bridge_is_restarted_this_one_too(asked, payload):
    answer = await asked("restart", payload)
    assert (answer["ok"], answer["data"]) == (True, {"bridge": "mqtt"})
    if isinstance(payload, dict):
        assert answer["id"] == {"n": [1]}
    await until(lambda: asked.peer.all("sems/bridge/state")[-2:] == ["offline", "online"])
    assert (await asked("health"))["ok"]


@pytest.mark.parametrize("payload", ["debug", {"level": "debug"}])
async def test_log_level(asked, payload):
    answer = await asked("log_level", payload)
    assert answer["data"] == {"level": "debug"}
    assert asked.gateway.levels == ["debug"]


@pytest.mark.parametrize(
    ("name", "payload", "reason", "words"),
    [
        ("device", "", "bad_request", "there is no request 'device'; did you mean devices?"),
        ("coffee", "", "bad_request", "known: devices, health, restart, log_level"),
        ("devices", "please", "bad_request", "send nothing, or a JSON object"),
        ("devices", "[1]", "bad_request", "send nothing, or a JSON object"),
        ("devices", "{nonsense", "bad_request", "not JSON"),
        ("devices", b"\xff", "bad_request", "not UTF-8"),
        ("devices", b"x" * 70_000, "bad_request", "at most 65536"),
        ("devices", {"limt": 1}, "bad_request", "there is no key 'limt'; did you mean limit?"),
        ("devices", {"limit": 0}, "bad_value", "limit takes a whole number, 1 to 5000"),
        ("devices", {"offset": True}, "bad_value", "offset takes a whole number"),
        ("devices", {"id": "x" * 2000}, "bad_request", "id has more than 1024 bytes"),
        ("health", {"x": 1}, "bad_request", "there is no key 'x'"),
        ("restart", "", "bad_request", "say which bridge"),
        ("restart", {"bridge": 7}, "bad_request", "say which bridge"),
        ("restart", "mqqt", "bad_request", "there is no bridge 'mqqt'; did you mean mqtt?"),
        ("log_level", "loud", "bad_value", "debug, info, warning, error"),
        ("log_level", {"level": ["debug"]}, "bad_value", "debug, info, warning, error"),
    ],
)
async def test_what_is_wrong_is_said(asked, name, payload, reason, words):
    answer = await asked(name, payload)
    assert not answer["ok"]
    assert answer["error"]["reason"] == reason
    assert words in answer["error"]["detail"]


async def test_a_wrong_request_keeps_its_id(asked):
    answer = await asked("restart", {"id": 17, "bridge": "none"})
    assert (answer["id"], answer["ok"]) == (17, False)


async def test_only_what_is_allowed(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.connect(broker)
        await gateway.up()
        it.publish("sems/bridge/request/restart", "mqtt")
        answer = await it.next("sems/bridge/response/restart")
        assert answer["error"] == {
            "reason": "not_permitted",
            "detail": "restart is not allowed; add it to requests: of the bridge mqtt",
        }


async def test_nothing_allowed_nothing_heard(broker, bench):
    async with bench() as gateway:
        gateway.connect(broker, requests=[])
        await gateway.up()
        assert gateway.runner.bridge._inbox.filters == ("sems/+/set", "sems/+/set/+")


async def test_response_topic_and_correlation_data_are_honoured(asked):
    asked.peer.publish("sems/bridge/request/devices", {"id": 1}, reply="sems/response/me", correlation=b"c-1")
    answer = await asked.peer.next("sems/response/me")
    assert answer["id"] == 1
    (message,) = [m for m in asked.peer.messages if m.topic == "sems/response/me"]
    assert message.properties.CorrelationData == b"c-1"
    refusal = await asked("devices", {"id": 2}, reply="sems/x", correlation=b"c")
    assert refusal["error"]["reason"] == "not_permitted"


async def test_a_retained_request_is_ignored(asked):
    asked.peer.publish("sems/bridge/request/restart", "mqtt", retain=True)
    await asked.peer.next("sems/bridge/request/restart")
    assert (await asked("health"))["ok"]
    assert not asked.peer.all("sems/bridge/response/restart")
    asked.peer.publish("sems/bridge/request/restart", "", retain=True)


async def test_a_flood_of_requests_does_not_crowd_out_results(asked, monkeypatch):
    monkeypatch.setattr(requests_module, "BUSY", 10)
    monkeypatch.setattr(requests_module, "FLOOD", 20)
    bridge = asked.gateway.runner.bridge
    for n in range(1000):
        payload = json.dumps({"id": n}).encode()
        bridge._inbox.receive(Message(topic="sems/bridge/request/devices", payload=payload))
    waiting = list(bridge._outbox.results)
    assert len(waiting) == 20
    answers = [json.loads(m.payload) for m in waiting]
    assert [a["ok"] for a in answers] == [True] * 10 + [False] * 10
    assert answers[-1]["error"]["reason"] == "rate_limited"
