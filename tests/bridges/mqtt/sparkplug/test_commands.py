"""DCMD: what hosts write, and where they see what became of it."""

import pytest

import gateway.bridges.mqtt.sparkplug.commands as commands_module
from gateway.bridges.mqtt.sparkplug.schema import DataType, Payload
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.controller import Outcome
from gateway.core.model import CommandState
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER, until
from tests.kit.sparkplug import metrics_of

SN = INVERTER.serial
LIMIT = {"name": "active_power_limit", "type": "DOUBLE", "value": 50.0}


def states(host, setpoint="active_power_limit"):
    name = f"command/{setpoint}/state"
    return [v[name] for v in host.values("DDATA", SN) if name in v]


async def test_a_write_is_a_command_and_its_steps_are_seen_as_they_happen(plant):
    gateway, host = plant
    host.write(SN, LIMIT)
    await host.told(SN, "command/active_power_limit/state", "succeeded")
    assert states(host) == ["accepted", "sent", "succeeded"]
    (command,) = gateway.controller.sent
    assert (command.serial, command.setpoint, command.value) == (SN, "active_power_limit", 50.0)
    assert command.origin == "mqtt:dcmd"
    assert (command.expires - command.created).total_seconds() == 60
    await host.told(SN, "active_power_limit", 50.0)
    await host.told(SN, "command/active_power_limit/id", command.id)
    await host.told(SN, "command/active_power_limit/detail", "confirmed")


async def test_a_write_by_alias_as_pysparkplug_and_ignition_do_it(plant):
    gateway, host = plant
    birth = metrics_of(await host.count(1, "DBIRTH", SN))
    host.write(SN, {"alias": int(birth["running"]["alias"]), "type": "BOOLEAN", "value": False})
    host.write(SN, {"alias": int(birth["battery_mode"]["alias"]), "type": "STRING", "value": "charge"}, types=True)
    await host.told(SN, "command/running/state", "succeeded")
    await host.told(SN, "command/battery_mode/state", "succeeded")
    assert {c.setpoint: c.value for c in gateway.controller.sent} == {"running": False, "battery_mode": "charge"}


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [("INT32", 40, 40.0), ("INT64", 40, 40.0), ("UINT8", 40, 40.0), ("FLOAT", 40.5, 40.5), ("STRING", "40", 40.0)],
)
async def test_a_number_may_come_in_any_type(plant, type_, value, expected):
    gateway, host = plant
    host.write(SN, {"name": "active_power_limit", "type": type_, "value": value}, types=True)
    await host.told(SN, "command/active_power_limit/state", "succeeded")
    assert gateway.controller.sent[0].value == expected


async def test_several_metrics_of_one_command_are_set_all_or_none(plant):
    gateway, host = plant
    both = [
        {"name": "battery_mode", "type": "STRING", "value": "charge"},
        {"name": "battery_power_target", "type": "DOUBLE", "value": 9e9},
    ]
    host.write(SN, *both)
    await host.told(SN, "command/battery_mode/state", "rejected")
    await host.told(SN, "command/battery_power_target/reason", "out_of_range")
    both[1]["value"] = 3000.0
    host.write(SN, *both)
    await host.told(SN, "command/battery_power_target/state", "succeeded")
    assert [c.setpoint for c in gateway.controller.sent] == ["battery_mode"], "one order, so one call"
    assert gateway.controller.in_force == [{"battery_power_target": 3000.0}]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ({"value": 101.0}, "out_of_range"),
        ({"value": -1, "type": "INT32"}, "out_of_range"),
        ({"value": -1, "type": "INT64"}, "out_of_range"),
        ({"value": float("nan")}, "bad_value"),
        ({"value": "much", "type": "STRING"}, "bad_value"),
        ({"value": None}, "bad_value"),
        ({"value": True, "type": "BOOLEAN"}, "bad_value"),
    ],
)
async def test_a_wrong_value_is_rejected_with_a_reason_a_host_can_show(plant, metric, reason):
    gateway, host = plant
    host.write(SN, LIMIT | metric, types=True)
    await host.told(SN, "command/active_power_limit/state", "rejected")
    await host.told(SN, "command/active_power_limit/reason", reason)
    assert not gateway.controller.sent


async def test_a_failure_is_seen_and_so_is_a_command_from_elsewhere(plant):
    gateway, host = plant
    gateway.controller.outcomes = [Outcome(CommandState.FAILED, "the inverter said no")]
    await gateway.dispatcher.submit(gateway.command(id="from-modbus", value=70))
    await host.told(SN, "command/active_power_limit/state", "failed")
    await host.told(SN, "command/active_power_limit/detail", "the inverter said no")
    await host.told(SN, "command/active_power_limit/id", "from-modbus")
    # The next birth says it again.
    gateway.announce(model="other")
    birth = metrics_of(await host.count(2, "DBIRTH", SN))
    assert birth["command/active_power_limit/state"]["string_value"] == "failed"


async def test_what_is_not_permitted_is_not_there_and_a_write_changes_nothing(broker, host, node):
    rule = Rule(devices=["*"], setpoints=["running"])
    async with node(ControlSettings(enabled=True, allow=[rule])) as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0, active_power_limit=100.0)
        gateway.connect(broker)
        assert "command/active_power_limit/state" not in metrics_of(await host.count(1, "DBIRTH", SN))
        host.write(SN, LIMIT)
        host.write(SN, {"name": "running", "type": "BOOLEAN", "value": False})
        await host.told(SN, "command/running/state", "succeeded")
        assert [c.setpoint for c in gateway.controller.sent] == ["running"]
        assert not states(host)


async def test_what_can_not_be_answered_is_logged_once_and_nothing_is_sent(plant, broker):
    gateway, host = plant
    told = gateway.edge._commands._told
    for _ in range(3):
        host.write(SN, {"name": "ac_power", "type": "DOUBLE", "value": 1.0})
        host.write("nobody", LIMIT)
        host.write(SN, LIMIT, retain=True)
    host.write(SN, LIMIT, {"name": "warp", "type": "DOUBLE", "value": 1.0})
    await until(lambda: len(told) == 4, "all told")
    unknown = Payload()
    unknown.metrics.add(alias=9_999, datatype=DataType.DOUBLE, double_value=1.0)
    async with peer(broker) as it:
        # The host can't send this: it hears itself, and what it doesn't know ends it.
        for _ in range(3):
            it.publish(f"spBv1.0/sems/DCMD/test-gateway/{SN}", unknown.SerializeToString())
        await until(lambda: len(told) == 5, "all told")
        assert not gateway.controller.sent
        it.publish(f"spBv1.0/sems/DCMD/test-gateway/{SN}", b"", retain=True)


async def test_garbage_of_every_kind_stops_nothing(broker, node):
    # Without the host that we did not write: garbage ends it.
    dcmd = f"spBv1.0/sems/DCMD/test-gateway/{SN}"
    async with peer(broker) as it, node() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker)
        await it.next(f"spBv1.0/sems/DBIRTH/test-gateway/{SN}")
        for payload in (
            b"", b"\xff" * 50, b"x" * 1_000_000, b"\x12\x00" * 101, b"\x12\x04\x0a\x02\xff\xff",
            bytes.fromhex("1207 0a0172 82010178".replace(" ", "")), b'{"value": 1}',
        ):  # fmt: skip
            it.publish(dcmd, payload)
        it.publish(f"{dcmd}/deeper", b"\x12\x00")
        it.publish("spBv1.0/sems/DCMD/test-gateway/", b"\x12\x00")
        it.publish(dcmd, bytes.fromhex("120b 0a0772756e6e696e67 7000".replace(" ", "")))
        await until(lambda: gateway.controller.sent)
        assert gateway.controller.sent[0].value is False
        assert 3 <= len(gateway.edge._commands._told) <= 8


async def test_a_flood_of_writes_is_bounded_and_the_newest_counts(plant, monkeypatch):
    gateway, host = plant
    monkeypatch.setattr(commands_module, "REQUEST_BACKLOG", 5)
    gateway.edge._commands._waiting._maxsize = 5
    for n in range(300):
        host.write(SN, LIMIT | {"value": float(n % 100)})
    await host.count(300, "DCMD", SN)
    await until(gateway.edge._commands._waiting.empty)
    host.write(SN, LIMIT | {"value": 42.0})
    await host.told(SN, "active_power_limit", 42.0)
    assert gateway.controller.sent[-1].value == 42.0


async def test_a_journal_that_fails_is_a_rejection(plant, monkeypatch):
    gateway, host = plant

    async def broken(*_):
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(gateway.dispatcher, "submit", broken)
    host.write(SN, LIMIT)
    host.write(SN, LIMIT)
    await host.told(SN, "command/active_power_limit/reason", "not_stored")
    monkeypatch.undo()
    host.write(SN, LIMIT)
    await host.told(SN, "command/active_power_limit/state", "succeeded")


async def test_when_too_many_wait_the_rest_is_refused(plant):
    gateway, host = plant
    waiting = gateway.edge._commands._waiting
    while not waiting.full():
        waiting.put_nowait(commands_module._Asked("nobody", {"running": True}, gateway.clock.now()))
    from tests.bridges.mqtt.sparkplug.test_payload import dcmd

    gateway.edge._commands.receive(SN, dcmd("running"))
    await host.told(SN, "command/running/reason", "rate_limited")
