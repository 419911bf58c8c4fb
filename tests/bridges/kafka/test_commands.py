"""What another gateway asks for by topic: judged here like any other wish, and never carried out late."""

import asyncio
import json
import uuid
from datetime import timedelta

import pytest
import structlog

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import CommandState, iso, new_command_id
from tests.bridges.kafka.conftest import gateway
from tests.kit.bench import INVERTER, collected, until

SN = INVERTER.serial
ONLY_MQTT = ControlSettings(
    enabled=True,
    allow=[Rule(devices=["*"], setpoints=["active_power_limit"], origins=["kafka-poller/mqtt"])],
    max_per_minute=1000,
)


@pytest.fixture
def prefix(kafka):
    prefix = f"p{uuid.uuid4().hex[:8]}"
    kafka.make(f"{prefix}.commands", message_timestamp_type="LogAppendTime")
    return prefix


@pytest.fixture
async def poller(tmp_path, kafka, prefix):
    async with gateway(tmp_path / "poller", "poller") as found:
        run(found, kafka, prefix)
        yield found


def run(found, kafka, prefix):
    publish = {"topics": {"prefix": prefix}, "create": {"partitions": 1}, "commands": True, "max_ttl": 100}
    found.run(kafka.plaintext, group=prefix, session_timeout=1, publish=publish)


def wish(poller, value=50, *, ttl=60.0, age=0.0, **changes):
    now = poller.bench.clock.now()
    fields = {
        "v": 1, "gateway": "far", "id": new_command_id(), "serial": SN, "setpoint": "active_power_limit",
        "value": value, "origin": "mqtt/user:alice", "created": iso(now - timedelta(seconds=age)),
        "expires": iso(now + timedelta(seconds=ttl - age)),
    }  # fmt: skip
    return fields | changes


def ask(kafka, prefix, *wishes, key=SN):
    kafka.send(
        f"{prefix}.commands", key.encode(), *(w if isinstance(w, bytes) else json.dumps(w).encode() for w in wishes)
    )


async def test_the_same_command_twice_is_carried_out_once(poller, kafka, prefix):
    poller.bench.announce()
    first = wish(poller)
    async with collected(poller.bench.router) as (events, _):
        ask(kafka, prefix, first, first, wish(poller, 60))
        await until(lambda: [e for e in events if e.state is CommandState.SUCCEEDED and e.command.value == 60])
    assert len([c for c in poller.bench.controller.sent if c.id == first["id"]]) <= 1
    assert len({(e.command.id, e.state) for e in events}) == len(events)


async def test_one_that_has_expired_is_refused_and_nothing_is_carried_out(poller, kafka, prefix):
    poller.bench.announce()
    async with collected(poller.bench.router) as (events, _):
        ask(kafka, prefix, wish(poller, age=100))
        await until(lambda: events)
    assert (events[0].state, events[0].reason) == (CommandState.REJECTED, "expired")
    assert not poller.bench.controller.sent


async def test_a_far_clock_that_is_ahead_gives_no_more_time(poller, kafka, prefix):
    poller.bench.announce()
    async with collected(poller.bench.router) as (events, _):
        ask(kafka, prefix, wish(poller, age=-3600, ttl=30), wish(poller, 60, age=-3600, ttl=9000))
        await until(lambda: len({e.command.id for e in events}) == 2)
    now = poller.bench.clock.now()
    bounds = {e.command.value: e.command.expires - now for e in events}
    assert bounds[50] <= timedelta(seconds=30)
    assert bounds[60] <= timedelta(seconds=100)


@pytest.mark.usefixtures("look_often")
async def test_a_topic_made_anew_is_read_from_its_beginning_and_each_command_executed_once(poller, kafka, prefix):
    poller.bench.announce()
    await until(lambda: poller.is_up)
    sent = poller.bench.controller.sent
    first = [wish(poller, value) for value in (1, 2, 3)]
    for command in first:
        ask(kafka, prefix, command)
        await until(lambda command=command: sent and sent[-1].value == command["value"])
    group = f"{prefix}.poller.kafka-poller.commands"
    await until(lambda: kafka.committed(group, f"{prefix}.commands") == 3)
    await asyncio.to_thread(kafka.make_again, f"{prefix}.commands")
    # The old ones among them, as somebody has it who copies a topic.
    ask(kafka, prefix, *first, wish(poller, 4))
    await until(lambda: kafka.committed(group, f"{prefix}.commands") == 4)
    await until(lambda: sent[-1].value == 4)
    assert [command.value for command in sent] == [1, 2, 3, 4]


async def test_after_retention_it_goes_on_at_what_is_left_and_executes_nothing_late(poller, kafka, prefix):
    poller.bench.announce()
    await until(lambda: poller.is_up)
    poller.bench.runners.remove(poller.runner)
    await poller.runner.stop()
    topic, group = f"{prefix}.commands", f"{prefix}.poller.kafka-poller.commands"
    kafka.place(group, topic, 0)
    ask(kafka, prefix, *(wish(poller, value) for value in (1, 2, 3)), wish(poller, 4, age=100), wish(poller, 5))
    await asyncio.to_thread(kafka.delete_before, topic, 3)
    with structlog.testing.capture_logs() as logs:
        async with collected(poller.bench.router) as (events, _):
            run(poller, kafka, prefix)
            await until(lambda: any(e.state is CommandState.SUCCEEDED for e in events))
            await until(lambda: kafka.committed(group, topic) == 5)
    assert [command.value for command in poller.bench.controller.sent] == [5]
    assert [e.reason for e in events if e.command.value == 4] == ["expired"]
    assert [entry["count"] for entry in logs if "retention" in entry["event"]] == [3]


async def test_policy_of_the_polling_side_judges_the_far_bridge(tmp_path, kafka, prefix):
    async with gateway(tmp_path / "poller", "poller", control=ONLY_MQTT) as poller:
        run(poller, kafka, prefix)
        poller.bench.announce()
        async with collected(poller.bench.router) as (events, _):
            ask(kafka, prefix, wish(poller, origin="modbus/operator:1.2.3.4"), wish(poller, 60))
            await until(lambda: any(e.state is CommandState.SUCCEEDED for e in events))
        refused = next(e for e in events if e.state is CommandState.REJECTED)
        assert refused.reason == "not_permitted"
        assert refused.command.origin == "kafka-poller/modbus:far modbus/operator:1.2.3.4"
        assert [c.value for c in poller.bench.controller.sent] == [60]


async def test_one_that_comes_before_its_device_was_found_waits_for_it(poller, kafka, prefix):
    ask(kafka, prefix, wish(poller))
    await until(lambda: poller.runner.bridge._answering._early)
    poller.bench.announce()
    await until(lambda: poller.bench.controller.sent)


async def test_rubbish_is_passed_over(poller, kafka, prefix):
    poller.bench.announce()
    twice = json.dumps(wish(poller)).replace('"value": 50', '"value": 50, "value": 60').encode()
    odd = [
        b"{",
        twice,
        wish(poller, serial="other"),
        wish(poller, v=9),
        wish(poller, value=[1]),
        wish(poller, created="now"),
    ]
    async with collected(poller.bench.router) as (events, _):
        ask(kafka, prefix, *odd, b"", wish(poller, value="all"), wish(poller, setpoint="warp"), wish(poller, 70))
        await until(lambda: any(e.state is CommandState.SUCCEEDED for e in events))
    assert [c.value for c in poller.bench.controller.sent] == [70]
    assert poller.runner.bridge._skipped.counts[f"{prefix}.commands"] == 7
    assert {e.reason for e in events if e.state is CommandState.REJECTED} >= {"bad_value", "unknown_setpoint"}


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("mqtt:sems/x/set", "links/mqtt:far mqtt:sems/x/set"),
        ("cli", "links/cli:far cli"),
        ("../../web:x", "links/unnamed:far ../../web:x"),
        ("", "links/unnamed:far "),
    ],
)
def test_an_origin_keeps_who_asked_and_gains_no_other_role(origin, ours):
    from gateway.bridges.kafka.commands import _asked_by, _origin
    from gateway.bridges.kafka.schema import CommandMessage

    raw = {
        "v": 1, "gateway": "far", "id": "1", "serial": SN, "setpoint": "running", "value": True, "origin": origin,
        "created": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    import msgspec

    made = _origin("links", msgspec.convert(raw, CommandMessage))
    assert made == ours
    assert _asked_by(made) == "far"
