"""Discovery of thousands of devices: work a device stays the same, and others on the loop get their turn."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

import msgspec

from gateway.bridges.mqtt.home_assistant import names
from gateway.bridges.mqtt.home_assistant.discovery import MADE_PER_TURN, Discovery
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import Topics
from gateway.core.model import Device, DeviceKind
from tests.kit.bench import Bench, Silent

MANY = 200


class Client:
    """Takes what is published, at once: it never gives others a turn. Knows in which turn of the loop it came."""

    def __init__(self):
        self.published = {}
        self.turn = 0

    async def publish(self, topic, *_):
        self.published[topic] = self.turn

    async def count_turns(self):
        while True:
            await asyncio.sleep(0)
            self.turn += 1


class NeverWalked(dict):
    """A table in which one thing may be looked up, and not all of them."""

    def _walk(self):
        raise AssertionError("all devices were looked at, for one")

    __iter__ = keys = values = items = _walk


@asynccontextmanager
async def fleet(tmp_path):
    async with Bench(tmp_path) as bench:
        for n in range(MANY):
            bench.announce(serial=f"SN{n}", plant="P", name=f"Inverter {n}")
            bench.publish(f"SN{n}", ac_power=1.0)
        settings, client = MqttSettings(host="127.0.0.1", home_assistant={"enabled": True}), Client()
        runner = bench.run(Silent, Silent.Settings(), "mqtt")
        discovery = Discovery(settings, runner, Topics("sems", (), ()), client, Outbox())
        yield bench, discovery, client


async def test_others_get_their_turn_while_all_configs_are_published(tmp_path):
    async with fleet(tmp_path) as (_, discovery, client):
        others = asyncio.create_task(client.count_turns())
        await discovery.begin()
        others.cancel()
        assert len(client.published) == MANY + 1
        assert max(Counter(client.published.values()).values()) <= MADE_PER_TURN
        kept = json.loads((tmp_path / "mqtt-home-assistant.json").read_text())
        assert len(kept) == MANY + 1


async def test_the_memory_grows_by_little_for_a_device_of_a_kind_that_is_there(tmp_path):
    """It is written whole for each device that is found: at 10,000 with all of each, 12 MB every other second."""
    file = tmp_path / "mqtt-home-assistant.json"
    async with fleet(tmp_path) as (bench, discovery, _):
        await discovery.begin()
        before = file.stat().st_size
        bench.announce(serial="NEW", plant="P", name="Inverter new")
        bench.publish("NEW", ac_power=1.0)
        discovery.show(bench.router.state("NEW"))
        await discovery._publish()
        assert "NEW" in file.read_text()
        components = len(json.dumps(discovery._entries[names.object_id("test-gateway", "NEW")].components))
        assert 0 < file.stat().st_size - before < components


async def test_the_memory_gives_back_what_was_written_whoever_went_meanwhile(tmp_path):
    async with fleet(tmp_path) as (bench, discovery, _):
        bench.publish("SN7", ac_power=1.0, pv_power=2.0)
        await discovery.begin()
        # The one that the others of its kind are written like.
        await discovery.clear("SN0")
        await discovery._save()
        wrote = discovery._entries
        anew = Discovery(discovery._settings, discovery._context, discovery._topics, Client(), Outbox())
        await anew._load()
        assert anew._entries == wrote
        assert all(entry.components for entry in wrote.values())


async def test_a_memory_of_an_earlier_version_is_read(tmp_path):
    async with fleet(tmp_path) as (_, discovery, _):
        await discovery.begin()
        old = discovery._entries
        (tmp_path / "mqtt-home-assistant.json").write_bytes(msgspec.json.encode(old))
        anew = Discovery(discovery._settings, discovery._context, discovery._topics, Client(), Outbox())
        await anew._load()
        assert anew._entries == old


async def test_what_devices_of_a_kind_have_in_common_is_kept_once(tmp_path):
    async with fleet(tmp_path) as (bench, discovery, _):
        await discovery.begin()
        assert len({id(entry.components) for entry in discovery._entries.values()}) == 2
        assert len({id(seen.kind) for seen in discovery._seen.values()}) == 1
        bench.publish("SN7", ac_power=1.0, pv_power=2.0)
        discovery.show(bench.router.state("SN7"))
        assert len({id(seen.kind) for seen in discovery._seen.values()}) == 2
        # After a restart as well.
        anew = Discovery(discovery._settings, discovery._context, discovery._topics, Client(), Outbox())
        await anew._load()
        assert len({id(entry.components) for entry in anew._entries.values()}) == 2


async def test_a_plant_that_comes_or_goes_looks_at_its_own_devices_alone(tmp_path):
    async with fleet(tmp_path) as (bench, discovery, _):
        bench.announce(serial="X", plant="other")
        bench.publish("X", ac_power=1.0)
        await discovery.begin()
        discovery._seen = NeverWalked(discovery._seen)
        bench.router.announce("scripted", Device(serial="P", kind=DeviceKind.PLANT))
        bench.publish("P", ac_power=1.0)
        discovery.show(bench.router.state("P"))
        assert set(discovery._dirty) == {"P", *(f"SN{n}" for n in range(MANY))}
        # One that has moved hangs on another plant now.
        bench.announce(serial="SN3", plant="other", name="Inverter 3")
        discovery.show(bench.router.state("SN3"))
        discovery._dirty.clear()
        await discovery.clear("P")
        assert set(discovery._dirty) == {f"SN{n}" for n in range(MANY)} - {"SN3"}
