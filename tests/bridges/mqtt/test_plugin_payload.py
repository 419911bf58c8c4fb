"""A payload format that a package of a stranger brings."""

import re
from importlib.metadata import EntryPoint

import msgspec
import pytest
from pydantic import ValidationError

from gateway.bridges.mqtt import formats
from gateway.bridges.mqtt.settings import MqttSettings
from tests.bridges.mqtt.peer import peer
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial


class Packed:
    """MessagePack; fails at what it is not made for."""

    api_version = "1.0"

    def state(self, state):
        if state.values.get("fault_text"):
            raise RuntimeError("not made for words")
        return msgspec.msgpack.encode(dict(state.values))

    def point(self, value):
        return repr(value)  # no bytes


class Half:
    api_version = "1.0"

    def state(self, state):
        return b""


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    for name in ("Packed", "Half"):
        entry = EntryPoint(name.lower(), f"{__name__}:{name}", formats.PAYLOAD.group)
        monkeypatch.setitem(formats.installed()._found, name.lower(), [entry])


async def test_values_are_in_it_all_else_is_as_ever_and_what_it_fails_at_ends_nothing(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=7.0, fault_text="x")
        gateway.connect(broker, payload="packed", points=True)
        await gateway.up()
        await it.next(f"sems/{SN}/device")
        gateway.publish(ac_power=8.0, fault_text=None)
        await until(lambda: gateway.status.up and [m for m in it.messages if m.topic == f"sems/{SN}"])
        (state,) = [m.payload for m in it.messages if m.topic == f"sems/{SN}"]
        assert msgspec.msgpack.decode(state) == {"ac_power": 8.0, "fault_text": None}
        assert it.last(f"sems/{SN}/device")["serial"] == SN
        assert it.all("sems/bridge/state") == ["online"], "the bridge never ended"


def test_what_it_returns_is_looked_at():
    with pytest.raises(ValueError, match="returns str, not bytes"):
        formats.format_of("packed").point(1.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"payload": "jsn"}, "there is no payload format 'jsn'; did you mean 'json'?"),
        ({"payload": "half"}, "has no point"),
        ({"payload": "packed", "home_assistant": True}, "home_assistant needs payload: json"),
        ({"payload": "packed", "store": {"enabled": True}}, "store needs payload: json"),
    ],
)
def test_what_can_not_be_says_what_to_do(settings, says):
    with pytest.raises(ValidationError, match=re.escape(says)):
        MqttSettings(host="x", **settings)
