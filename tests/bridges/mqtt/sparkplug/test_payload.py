"""Payloads as bytes: what can be read, and what can't."""

import math
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.sparkplug import payload
from gateway.bridges.mqtt.sparkplug.payload import CommandError, Metric, Written, read_command
from gateway.bridges.mqtt.sparkplug.schema import DataType, Payload
from gateway.bridges.mqtt.sparkplug.topics import SparkplugTopics, device_id, serial_of

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)


def dcmd(name, **fields):
    raw = Payload()
    raw.metrics.add(name=name, **fields or {"boolean_value": True})
    return Message(topic="", payload=raw.SerializeToString())


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw):
    with suppress(CommandError):
        assert all(isinstance(each, Written) for each in read_command(raw))


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"int_value": 2**32 - 1, "datatype": 3}, -1),
        ({"int_value": 2**32 - 1}, 2**32 - 1),
        ({"int_value": 2**32 - 1, "datatype": 7}, 2**32 - 1),
        ({"long_value": 2**64 - 5, "datatype": 4}, -5),
        ({"long_value": 2**63}, 2**63),
        ({"float_value": 0.5}, 0.5),
        ({"string_value": "charge"}, "charge"),
        ({"is_null": True, "double_value": 5.0}, None),
        ({}, None),
    ],
)
def test_a_value_of_a_command(fields, value):
    raw = Payload()
    raw.metrics.add(name="x", alias=7, **fields)
    assert read_command(raw.SerializeToString()) == [Written("x", 7, value)]


def test_bytes_are_no_value():
    with pytest.raises(CommandError, match="bytes"):
        read_command(dcmd("x", bytes_value=b"1").payload)


@pytest.mark.parametrize(
    ("datatype", "value", "field", "expected"),
    [
        (DataType.DOUBLE, 5, "double_value", 5.0),
        (DataType.DOUBLE, "text", None, None),
        (DataType.INT64, -1, "long_value", 2**64 - 1),
        (DataType.INT64, math.inf, None, None),
        (DataType.INT32, -1, "int_value", 2**32 - 1),
        (DataType.STRING, 5, "string_value", "5"),
        (DataType.BOOLEAN, 1, "boolean_value", True),
        (DataType.BOOLEAN, None, None, None),
    ],
)
def test_a_value_in_its_type_is_null_where_the_type_can_not_hold_it(datatype, value, field, expected):
    raw = payload.data(NOON, 1, [Metric("x", datatype, value, NOON)], {"x": 3}.get)
    (metric,) = Payload.FromString(raw).metrics
    assert metric.WhichOneof("value") == field
    assert metric.is_null is (field is None)
    assert field is None or getattr(metric, field) == expected


def test_times_are_milliseconds_utc():
    raw = Payload.FromString(payload.device_death(NOON, 9))
    assert (raw.timestamp, raw.seq) == (1_782_043_200_000, 9)


@given(st.text(min_size=1))
def test_any_serial_number_makes_an_id_that_leads_back(serial):
    id_ = device_id(serial)
    assert not set(id_) & set("+#/")
    back = serial_of(id_)
    assert back == serial or any("\ud800" <= char <= "\udfff" for char in serial)


@pytest.mark.parametrize("id_", ["a%2fb", "a%", "%41", "a%2"])
def test_an_id_that_we_never_made_leads_nowhere_else(id_):
    assert serial_of(id_) is None


def test_topics_of_others_are_not_ours():
    topics = SparkplugTopics("g", "n", "h")
    assert topics.parse_command("spBv1.0/g/NCMD/n").device is None
    assert topics.parse_command("spBv1.0/g/DCMD/n/d").device == "d"
    for topic in ("spBv1.0/g/NCMD/m", "spBv1.0/g/DCMD/n", "spBv1.0/g/DCMD/n/d/e", "spBv1.0/g/DDATA/n/d", "x"):
        assert topics.parse_command(topic) is None
