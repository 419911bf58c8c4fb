"""Settings, and the schema of messages."""

import json
import re
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from gateway.bridges.kafka import KafkaSettings, schema
from gateway.core.model import Snapshot
from tests.kit.bench import INVERTER
from tests.kit.process import ROOT

CONNECTION = {"bootstrap_servers": ["kafka:9092"]}
SN = INVERTER.serial
NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)


def refused(**settings):
    with pytest.raises(ValidationError) as caught:
        KafkaSettings.model_validate({"connection": CONNECTION} | settings)
    return str(caught.value)


def test_a_bridge_that_would_do_nothing_is_refused():
    assert "add telemetry, publish or join" in refused()


def test_a_gateway_does_not_talk_to_itself():
    assert "talk to itself" in refused(publish={}, join={})
    assert "talk to itself" in refused(publish={}, join={"topics": {"prefix": "other", "events": "sems.events"}})
    KafkaSettings.model_validate({"connection": CONNECTION, "publish": {}, "join": {"topics": {"prefix": "other"}}})


def test_telemetry_and_join_are_two_bridges():
    assert "write two bridges" in refused(telemetry={"topics": ["t"]}, join={})


@pytest.mark.parametrize("name", ["a b", "", "x" * 250, "..", "ä"])
def test_names_that_kafka_does_not_take_are_refused(name):
    assert "no topic's name" in refused(telemetry={"topics": [name]})


def test_two_topics_of_one_name_are_refused():
    assert "two topics have the same name" in refused(publish={"topics": {"events": "x", "alarms": "x"}})


UNKNOWN = {"interfaces": {"Nothing": {"method": "GET"}}}


def test_zones_and_overrides_are_checked():
    assert "is no time zone" in refused(telemetry={"topics": ["t"], "time_zone": "Mars/Base"})
    assert "Nothing" in refused(
        telemetry={"topics": ["t"], "overrides": {"interfaces": {"Nothing": {"method": "GET"}}}}
    )


def snapshot(**changes):
    fields = {
        "serial": SN,
        "time": NOON,
        "source": "sems",
        "interval": 60.0,
        "values": {"pv_power": 1.5, "status": None},
    }
    return schema.of_snapshot("here", Snapshot(**(fields | changes)))


def test_a_message_reads_as_it_was_written():
    message = snapshot()
    assert schema.decode(schema.SnapshotMessage, schema.encode(message), SN) == message
    assert json.loads(schema.encode(message)) == {
        "v": 1, "gateway": "here", "serial": SN, "time": "2026-06-21T12:00:00Z", "source": "sems", "interval": 60.0,
        "values": {"pv_power": 1.5},
    }  # fmt: skip


def spoilt(**changes):
    return json.dumps(json.loads(schema.encode(snapshot())) | changes).encode()


@pytest.mark.parametrize(
    ("raw", "key", "said"),
    [
        (b"{", SN, "no message of version 1"),
        (b"\xff\xfe", SN, "no message of version 1"),
        (b"[" * 100_000, SN, "no message of version 1"),
        (b"[]", SN, "no message of version 1"),
        (spoilt(v=2), SN, "its version is 2"),
        (spoilt(time="yesterday"), SN, "no message of version 1"),
        (spoilt(time="2026-06-21T12:00:00"), SN, "no zone"),
        (spoilt(values={"pv_power": {}}), SN, "no message of version 1"),
        (spoilt(values=5), SN, "no message of version 1"),
        (spoilt(), "another", "its key is not the serial number"),
        (spoilt(serial="x" * 100), "x" * 100, "its key is not the serial number"),
        (spoilt(serial="a\nb"), "a\nb", "its key is not the serial number"),
    ],
)
def test_what_is_no_message_is_refused(raw, key, said):
    with pytest.raises(schema.BadMessageError, match=said):
        schema.decode(schema.SnapshotMessage, raw, key)


def test_fields_of_a_later_time_are_left_out():
    assert schema.decode(schema.SnapshotMessage, spoilt(more=1), SN) == snapshot()


def test_who_asks_over_a_topic_has_a_role_of_the_far_side():
    assert KafkaSettings(connection=CONNECTION, publish={"commands": True}).roles is None
    assert KafkaSettings(connection=CONNECTION, publish={}).roles == frozenset()


def test_the_messages_that_the_docs_have_of_fleets_are_such():
    page = (ROOT / "docs" / "fleet.md").read_text()
    asked, told = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    wish = schema.decode(schema.CommandMessage, asked.encode(), "fleet:north")
    step = schema.decode(schema.EventMessage, told.encode(), "fleet:north")
    assert (wish.id, wish.setpoint, wish.value) == (step.id, step.setpoint, step.value)
    assert json.loads(told).keys() == json.loads(schema.encode(step)).keys()
