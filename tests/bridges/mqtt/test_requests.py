"""Whatever bytes arrive, reading them ends in a request or in a refusal that can be told."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.requests import TEXT_LIMIT, RequestError, parse
from gateway.core.points import SETPOINTS

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300)
FIELDS = st.sampled_from(["id", "ttl", "revert_after", "revert_value", "value", *SETPOINTS])
BODIES = st.dictionaries(FIELDS | st.text(max_size=100), VALUES | st.lists(VALUES, max_size=3), max_size=6)
PAYLOADS = st.binary() | st.text().map(str.encode) | BODIES.map(lambda body: json.dumps(body).encode())
NAMES = st.none() | st.sampled_from([*SETPOINTS]) | st.text()


def read(setpoint, payload):
    try:
        return parse(setpoint, payload)
    except RequestError as error:
        return error


@given(NAMES, PAYLOADS)
def test_whatever_comes_is_understood_or_refused(setpoint, payload):
    result = read(setpoint, payload)
    if isinstance(result, RequestError):
        assert 0 < len(result.detail) < 600
        msgspec.json.encode([result.id, result.setpoint, result.detail, result.reason])
    else:
        assert result.values
        assert result.values.keys() <= SETPOINTS.keys()
        assert setpoint is None or list(result.values) == [setpoint]
        assert all(not isinstance(value, str) or len(value) <= TEXT_LIMIT for value in result.values.values())
        assert result.ttl is None or 0 < result.ttl <= 86_400
        msgspec.json.encode(result)


@given(
    st.dictionaries(st.sampled_from([*SETPOINTS]), st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=128),
    st.floats(min_value=0.001, max_value=86_400),
)
def test_what_was_meant_is_what_is_read(values, id_, ttl):
    request = parse(None, json.dumps(values | {"id": id_, "ttl": ttl}).encode())
    assert (request.values, request.id, request.ttl) == (values, id_, ttl)
    ids = request.ids()
    assert ids == ([id_] if len(values) == 1 else [f"{id_}/{setpoint}" for setpoint in values])


@given(st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_plain_value_and_object_say_the_same(value):
    plain = parse("export_limit", json.dumps(value).encode())
    assert (
        plain.values == parse("export_limit", json.dumps({"value": value}).encode()).values == {"export_limit": value}
    )


def test_without_an_id_none_is_claimed():
    assert parse("running", b"1").ids() is None


@pytest.mark.parametrize("payload", [b'{"value": 5, "id": null, "ttl": null}', b"5"])
def test_null_means_not_given(payload):
    request = parse("export_limit", payload)
    assert (request.id, request.ttl, request.revert_after) == (None, None, None)


def test_the_id_is_known_of_a_request_refused_for_something_else():
    with pytest.raises(RequestError) as refused:
        parse(None, b'{"id": "mine", "runing": 1}')
    assert (refused.value.id, refused.value.setpoint) == ("mine", "runing")


@pytest.mark.parametrize("time", ["2026-06-21T12:00:00", "2026-06-21 12:00", "2026-06-21"])
def test_a_time_without_a_zone_is_told_so_with_what_to_write(time):
    error = read(None, json.dumps({"active_power_limit": 50, "time": time}).encode())
    assert isinstance(error, RequestError)
    assert "zone is missing" in error.detail
    example = error.detail.rpartition(" ")[2]
    taken = read(None, json.dumps({"active_power_limit": 50, "time": example}).encode())
    assert taken.time.isoformat().startswith(time[:10])
