"""What stands in a message and can't be used, without a cluster."""

import json

import pytest

from gateway.bridges.kafka.schema import BadMessageError, CommandMessage, decode

SAID = {
    "v": 1, "gateway": "my-system", "id": "slot-40", "serial": "fleet:north", "setpoint": "power_target",
    "value": 16_000, "origin": "dispatch", "created": "2026-06-21T10:00:00Z", "expires": "2026-06-21T10:01:00Z",
}  # fmt: skip


def read(**changes):
    return decode(CommandMessage, json.dumps(SAID | changes).encode(), "fleet:north")


@pytest.mark.parametrize("id_", ["slot-40", "x" * 128])
def test_an_id_is_the_senders_own(id_):
    assert read(id=id_).id == id_


@pytest.mark.parametrize("id_", ["", " ", " slot", "a\nb", "x" * 129])
def test_what_is_no_id_is_refused_and_it_is_said_what_one_is(id_):
    with pytest.raises(BadMessageError, match="its id is no text of 1 to 128 printable characters"):
        read(id=id_)


@pytest.mark.parametrize("gateway", ["", "x" * 129])
def test_who_has_no_name_is_refused(gateway):
    with pytest.raises(BadMessageError, match="no name"):
        read(gateway=gateway)
