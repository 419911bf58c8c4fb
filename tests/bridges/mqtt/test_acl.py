"""The access rules of docs/mqtt.md: every feature works with exactly that text, and there is no line too many."""

import json
import re
import time
from contextlib import AsyncExitStack
from datetime import timedelta

from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.commands.policy.rules import Rule
from gateway.core.model import Alarm, Severity, Snapshot
from gateway.core.points import POINTS
from tests.bridges.mqtt.peer import peer
from tests.kit import acl
from tests.kit.bench import EVERYTHING, INVERTER, until
from tests.kit.mosquitto import mosquitto

SN = INVERTER.serial
CLIENTS = {"gateway": "house", "sparkplug": "house-sparkplug"}
"""User → client id; of all others the user is the id."""
_LINE = re.compile(r"(Received|Sending) PUBLISH (?:from|to) (\S+) \([^']*'([^']+)'")


def used(log):
    """Return what each client has published and received: (access, client id, topic)."""
    access = {"Received": "write", "Sending": "read"}
    return {(access[way], client, topic) for way, client, topic in _LINE.findall(log)}


def idle(rules, done):
    """Return the rules that nothing needed: what they permit was not done, or is permitted by an earlier one."""
    left = []
    for user, lines in rules.items():
        needed = set()
        for way, client, topic in done:
            if client == CLIENTS.get(user, user):
                for number, (access, filter_) in enumerate(lines):
                    if access in {way, "readwrite"} and acl.matches(filter_, topic):
                        needed.add((number, way))
                        break
        for number, (access, filter_) in enumerate(lines):
            ways = {"read", "write"} if access == "readwrite" else {access}
            left += [(user, access, filter_) for way in ways if (number, way) not in needed]
    return left


def test_what_a_filter_takes():
    assert acl.matches("a/+/c", "a/b/c")
    assert acl.matches("a/#", "a/b/c")
    assert acl.matches("a/#", "a")
    assert not acl.matches("a/+", "a/b/c")
    assert not acl.matches("a/+/c", "a/b")


def test_a_rule_that_nothing_needs_is_found():
    rules = {"reader": [("read", "a/+"), ("read", "a/b"), ("readwrite", "c"), ("write", "d")]}
    done = {("read", "reader", "a/b"), ("read", "reader", "c"), ("write", "other", "d")}
    assert idle(rules, done) == [("reader", "read", "a/b"), ("reader", "readwrite", "c"), ("reader", "write", "d")]


async def test_every_feature_works_with_the_rules_of_the_docs_and_each_rule_is_needed(tmp_path, bench):
    rules = acl.rules()
    alices = Rule(devices=["*"], setpoints=list(INVERTER.setpoints), origins=["mqtt/alice", "mqtt", "spark"])
    control = EVERYTHING.model_copy(update={"allow": [alices], "resume": ["mqtt/alice"]})
    settings = {
        "username": "gateway", "password": acl.PASSWORD, "client_id": CLIENTS["gateway"], "users": ["alice"],
        "session_expiry": 60, "store": {"enabled": True}, "points": True, "home_assistant": True,
        "requests": ["devices", "health", "restart", "halt", "resume"],
    }  # fmt: skip
    spark = {
        "username": "sparkplug", "password": acl.PASSWORD, "client_id": CLIENTS["sparkplug"], "payload": "sparkplug",
        "sparkplug": {"group": "sems", "node": "house", "primary_host": "scada"},
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(mosquitto(tmp_path, acl_of=rules))
        all_of = {
            name: await stack.enter_async_context(peer(broker, client_id=name, users=(name, acl.PASSWORD)))
            for name in ("alice", "scada", "reader", "homeassistant")
        }
        alice, scada, reader, home = all_of.values()
        it = await stack.enter_async_context(peer(broker))
        gateway = await stack.enter_async_context(bench(control))
        gateway.announce()
        gateway.publish(ac_power=1.0, energy_month=5.0, status="normal")
        it.publish(
            "spBv1.0/STATE/scada", json.dumps({"online": True, "timestamp": int(time.time() * 1000)}), retain=True
        )
        gateway.connect(broker, **settings)
        gateway.run(MqttBridge, MqttSettings(host=broker.host, port=broker.port, **spark), "spark")
        await gateway.up()

        # What is read.
        await reader.next(f"sems/{SN}", lambda m: m["ac_power"] == 1.0)
        for topic in (f"{SN}/device", f"{SN}/availability", "bridge/state", "bridge/info", "bridge/health"):
            await reader.next(f"sems/{topic}")
        await home.next(f"sems/{SN}")
        await it.next(f"sems/{SN}/ac_power")
        await until(lambda: any(m.topic.startswith("homeassistant/device/") for m in home.messages), "discovery")
        home.publish("homeassistant/status", "online")
        raised = Alarm(
            serial=SN, id="1", code="F1", text="Grid lost", severity=Severity.WARNING, raised=gateway.clock.now(),
            cleared=None,
        )  # fmt: skip
        gateway.router.alarms("scripted", SN, [raised])
        await reader.next(f"sems/{SN}/alarm")
        await until(lambda: gateway.runner.bridge._history._connected, "the history is connected")
        for n in range(20):
            at = gateway.clock.now() - timedelta(minutes=30 - n)
            values = {"ac_power": float(n)}
            gateway.router.publish(Snapshot(serial=SN, time=at, source="scripted", interval=60, values=values))
        await reader.next(f"sems/{SN}/history")

        # What is asked for, and where it is answered.
        for who, base, reply in ((alice, "sems/as/alice", "sems/as/alice/response/1"),
                                 (scada, "sems", "sems/response/scada/1")):  # fmt: skip
            who.publish(f"{base}/{SN}/set", {"active_power_limit": 50}, reply=reply)
            await who.next(reply, lambda m: m["state"] == "succeeded")
            await who.result(SN, "succeeded")
            who.publish(f"{base}/{SN}/set/active_power_limit", "40")
            await who.result(SN, "succeeded", value=40.0)
            who.publish(f"{base}/bridge/request/health", "")
            await who.next("sems/bridge/response/health")
        home.publish(f"sems/{SN}/set/active_power_limit", "45")
        await it.result(SN, "succeeded", value=45.0)
        scada.publish("sems/bridge/request/halt", "")
        await it.next("sems/bridge/response/halt", lambda m: m["ok"])
        alice.publish("sems/as/alice/bridge/request/resume", "")
        await it.next("sems/bridge/response/resume", lambda m: m["ok"])

        # Sparkplug.
        def born(kind):
            return any(m.topic.startswith(f"spBv1.0/sems/{kind}/house") for m in it.messages)

        await until(lambda: born("DBIRTH"), "the device is born")
        gateway.publish(ac_power=2.0)
        await until(lambda: born("DDATA"), "its data")
        for topic in ("NCMD/house", f"DCMD/house/{SN}"):
            it.publish(f"spBv1.0/sems/{topic}", b"nonsense")

        # The session goes on, a device goes, and the gateways go.
        home.publish("sems/bridge/request/restart", "mqtt")
        await until(lambda: it.all("sems/bridge/state")[-2:] == ["offline", "online"], "it is back")
        await it.next("sems/bridge/session")
        gateway.router.withdraw("scripted", SN)
        await it.next(f"sems/{SN}", lambda m: m == "")
        await until(lambda: born("DDEATH"), "its death")
        await until(lambda: born("NDATA"), "data of the node")

        # Nobody may do more.
        reader.publish(f"sems/{SN}/set/active_power_limit", "10")
        scada.publish(f"sems/as/alice/{SN}/set/active_power_limit", "10")
        alice.publish(f"sems/{SN}/set/active_power_limit", "10")
        await it.delivered()
        for who in (reader, scada, alice):
            assert not any("/set" in m.topic for m in who.messages), "what others set is not theirs"
        for runner in gateway.runners:
            await runner.stop()
        await reader.next("sems/bridge/state", lambda m: m == "offline")
        await until(lambda: born("NDEATH"), "the node's death")
        log = broker.log
        assert not [line for line in acl.refused(log) if any(f"from {id_} " in line for id_ in CLIENTS.values())]
        assert not [c for c in gateway.controller.sent if c.value == 10.0]
        done = used(log)
        assert idle(rules, done) == []
        # The wide rule of `points` must not be what lets anything else through, for not everybody has it.
        others = [filter_ for _, filter_ in rules["gateway"] if filter_ != "sems/+/+"]
        published = {topic for way, client, topic in done if (way, client) == ("write", CLIENTS["gateway"])}
        by_points = {topic for topic in published if not any(acl.matches(filter_, topic) for filter_ in others)}
        assert {topic.rpartition("/")[2] for topic in by_points} <= set(POINTS)
