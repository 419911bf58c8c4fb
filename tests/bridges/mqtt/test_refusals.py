"""What is refused, and how that is said. Nothing of it reaches a device."""

import json

import pytest

from gateway.commands.policy.policy import ControlSettings, Rule
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER

SN = INVERTER.serial


REFUSALS = [
    # topic below the device, payload, reason, words of the detail, other fields
    ("set", "", "bad_request", "empty", {"id": None}),
    ("set", "   \n", "bad_request", "empty", {}),
    ("set", "not json", "bad_request", "not JSON", {}),
    ("set", "50", "bad_request", "not a JSON object", {}),
    ("set", "[1]", "bad_request", "not a JSON object", {}),
    ("set", "{}", "bad_request", "names no setpoint", {}),
    ("set", '{"id": "a"}', "bad_request", "names no setpoint", {"id": "a"}),
    ("set", b"\xff\xfe{", "bad_request", "not UTF-8", {}),
    ("set", "[" * 50_000, "bad_request", "not JSON", {}),
    ("set", "x" * 65_537, "bad_request", "65537 bytes", {}),
    ("set", "x" * 1_000_000, "bad_request", "1000000 bytes", {}),
    (
        "set",
        '{"activ_power_limit": 5, "id": "b"}',
        "unknown_setpoint",
        "did you mean active_power_limit?",
        {"id": "b", "setpoint": "activ_power_limit"},
    ),
    ("set", '{"active_power_limit": 5, "tll": 5}', "unknown_setpoint", "did you mean ttl?", {"setpoint": "tll"}),
    ("set", '{"active_power_limit": 5, "zzz": 5}', "unknown_setpoint", "known: running", {}),
    ("set", '{"active_power_limit": 101, "id": "c"}', "out_of_range", "0 to 100", {"id": "c", "value": 101}),
    ("set", '{"active_power_limit": "much"}', "bad_value", "takes a number", {"value": "much"}),
    ("set", '{"active_power_limit": null}', "bad_value", "takes a number", {"value": None}),
    ("set", '{"active_power_limit": [1]}', "bad_value", "a list", {"setpoint": "active_power_limit"}),
    ("set", '{"active_power_limit": {"a": 1}, "id": "d"}', "bad_value", "an object", {"id": "d"}),
    ("set", '{"battery_mode": "%s"}' % ("x" * 201), "bad_value", "a text", {"setpoint": "battery_mode"}),
    ("set", '{"active_power_limit": 1%s}' % ("0" * 400), "bad_value", "takes a number", {}),
    ("set", '{"active_power_limit": 1%s}' % ("0" * 5000), "bad_request", "not JSON", {}),
    ("set", '{"active_power_limit": 5, "id": 7}', "bad_request", "id takes a text", {"id": None}),
    ("set", '{"active_power_limit": 5, "id": ""}', "bad_request", "id takes a text", {}),
    ("set", '{"active_power_limit": 5, "id": "a\\nb"}', "bad_request", "id takes a text", {}),
    ("set", '{"active_power_limit": 5, "id": "%s"}' % ("x" * 129), "bad_request", "id takes a text", {}),
    ("set", '{"active_power_limit": 5, "ttl": "5"}', "bad_request", "ttl takes a number", {}),
    ("set", '{"active_power_limit": 5, "ttl": true, "id": "e"}', "bad_request", "ttl takes a number", {"id": "e"}),
    ("set", '{"active_power_limit": 5, "ttl": 0}', "bad_request", "not 0", {}),
    ("set", '{"active_power_limit": 5, "ttl": 1%s}' % ("0" * 400), "bad_request", "at most 86400", {}),
    ("set", '{"active_power_limit": 5, "revert_after": -1}', "bad_request", "revert_after takes", {}),
    ("set", '{"active_power_limit": 5, "revert_value": 1}', "bad_request", "needs revert_after", {}),
    (
        "set",
        '{"active_power_limit": 5, "running": true, "revert_value": 1, "revert_after": 5}',
        "bad_request",
        "one setpoint",
        {},
    ),
    ("set", '{"active_power_limit": 5, "revert_value": 101, "revert_after": 5}', "out_of_range", "", {}),
    ("set", '{"export_limit": 5}', "unknown_setpoint", "does not take", {"setpoint": "export_limit"}),
    ("set/active_power_limit", "", "bad_request", "empty", {"setpoint": "active_power_limit"}),
    ("set/active_power_limit", "much", "bad_value", "takes a number", {}),
    ("set/active_power_limit", "NaN", "bad_value", "finite", {}),
    ("set/active_power_limit", "null", "bad_value", "takes a number", {}),
    ("set/active_power_limit", "-1", "out_of_range", "0 to 100", {}),
    ("set/active_power_limit", "5" * 201, "bad_value", "201 characters", {}),
    ("set/active_power_limit", "[5]", "bad_value", "a list", {}),
    ("set/active_power_limit", "{5}", "bad_request", "not JSON", {}),
    ("set/active_power_limit", '{"id": "f"}', "bad_request", 'no "value"', {"id": "f"}),
    ("set/active_power_limit", '{"value": 5, "revert": 5}', "bad_request", "did you mean revert_", {}),
    ("set/battery_mod", "charge", "unknown_setpoint", "did you mean battery_mode?", {"setpoint": "battery_mod"}),
    ("set/" + "x" * 1000, "1", "unknown_setpoint", "there is no setpoint", {"setpoint": "x" * 63 + "…"}),
    ("set/ac_power", "1", "unknown_setpoint", "there is no setpoint", {}),
    ("set/", "1", "unknown_setpoint", "there is no setpoint", {}),
]


@pytest.mark.parametrize(("below", "payload", "reason", "words", "fields"), REFUSALS)
async def test_what_is_wrong_is_refused_with_a_reason(plant, below, payload, reason, words, fields):
    gateway, it = plant
    it.publish(f"sems/{SN}/{below}", payload)
    result = await it.result(SN, "rejected", reason=reason, **fields)
    assert words in result["detail"]
    assert len(json.dumps(result)) < 2000
    assert result.keys() == {
        "id", "serial", "setpoint", "value", "state", "reason", "detail", "origin", "time",
    }  # fmt: skip
    assert result["serial"] == SN
    assert result["origin"] == "mqtt"
    assert gateway.controller.sent == []
    assert gateway.status.up


@pytest.mark.parametrize(
    "level", ["nobody", "a%2Fb", "%zz", "%39010KETU000W0001", "bridge", "$x", " ", "x" * 5000, "ümlaut"]
)
async def test_an_unknown_device_gets_an_answer_at_its_topic(plant, level):
    gateway, it = plant
    it.publish(f"sems/{level}/set", {"running": True, "id": "a"})
    result = await it.result(level, "rejected", reason="unknown_device", id="a")
    assert len(json.dumps(result)) < 2000
    assert gateway.controller.sent == []


async def test_a_read_only_gateway_says_so(broker, bench):
    async with bench(ControlSettings()) as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        it.publish(f"sems/{SN}/set", {"active_power_limit": 50})
        await it.result(SN, "rejected", reason="control_disabled")
        assert (await it.next(f"sems/{SN}/device"))["setpoints"] == {}


async def test_what_no_rule_permits_is_refused(broker, bench):
    control = ControlSettings(
        enabled=True, allow=[Rule(devices=["*"], setpoints=["active_power_limit"], origins=["modbus"])]
    )
    async with bench(control) as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        it.publish(f"sems/{SN}/set", {"active_power_limit": 50})
        await it.result(SN, "rejected", reason="not_permitted")
