"""What was retained is taken back, whatever made it a leftover."""

import json
import threading

import pytest

import gateway.bridges.mqtt.home_assistant.discovery as discovery_module
import gateway.bridges.mqtt.retained as retained_module
from gateway.bridges.mqtt.retained import Memory
from tests.bridges.mqtt.peer import peer, retained
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial
EVERYTHING = {"points": True, "home_assistant": True, "delivery": {"result": {"retain": True}}}
FILE = "mqtt-retained.json"
CONFIG = f"homeassistant/device/test-gateway_{SN}/config"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(discovery_module, "SETTLE", 0.05)
    monkeypatch.setattr(retained_module, "SAVE_AFTER", 0.05)
    monkeypatch.setattr(retained_module, "OFFLINE_AFTER", 0.05)


async def run(bench, broker, *, devices=(SN,), **settings):
    """Have a gateway publish all it has, clear what has no place any more, and stop; returns where its files are."""
    settings = {"host": broker.host} | settings
    async with bench() as gateway, peer(broker) as it:
        for serial in devices:
            gateway.announce(serial=serial)
            gateway.publish(serial, ac_power=1.0, energy_today=2.0)
        gateway.connect(broker, **settings)
        await gateway.up()
        if settings.get("payload") != "sparkplug":
            base = settings.get("base", "sems")
            for serial in devices:
                # News of this run, not what the broker kept of the last.
                topic = f"{base}/{serial}/availability"
                await until(lambda topic=topic: any(m.topic == topic and not m.retain for m in it.messages), topic)
            if settings.get("home_assistant"):
                await until(lambda: gateway.runner.bridge._inbox._discovery._dirty == {})
        clearing = gateway.runner.bridge._retained
        await until(lambda: clearing._began and not clearing._waiting, "all is cleared")
        await until(lambda: not gateway.runner.bridge._client._under_way, "the broker has all")
        await until((gateway.data_dir / FILE).exists)
        return gateway.data_dir


CHANGES = {
    "base": ({"base": "home/sems"}, "sems/"),
    "base, shorter": ({"base": "se"}, "sems/"),
    "points": ({"points": False}, f"sems/{SN}/ac_power"),
    "retain": ({"retain": False}, f"sems/{SN}/energy_today"),
    "device": ({"delivery": {"device": {"retain": False}}}, f"sems/{SN}/device"),
    "prefix": ({"home_assistant": {"enabled": True, "prefix": "ha"}}, "homeassistant/"),
    "discovery": ({"home_assistant": False}, "homeassistant/"),
    "payload": ({"payload": "sparkplug", "home_assistant": False, "points": False, "delivery": {}}, ""),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_the_settings_leave_no_place_for_is_cleared(broker, bench, change):
    settings, leftover = CHANGES[change]
    await run(bench, broker, **EVERYTHING)
    before = await retained(broker)
    assert [topic for topic in before if topic.startswith(leftover)]
    await run(bench, broker, **(EVERYTHING | settings))
    kept = await retained(broker)
    assert not [topic for topic in kept if topic.startswith(leftover)]
    if change in ("points", "discovery"):
        assert f"sems/{SN}" in kept, "and nothing else is"
    if change == "points":
        assert CONFIG in kept


@pytest.mark.parametrize("settings", [{}, {"points": True}, EVERYTHING], ids=["plain", "points", "everything"])
async def test_a_device_that_went_while_the_gateway_was_away_is_offline_and_then_cleared(
    broker, bench, monkeypatch, settings
):
    await run(bench, broker, devices=(SN, "gone"), **settings)
    monkeypatch.setattr(discovery_module, "LEFTOVERS_AFTER", 0.1)
    assert (await retained(broker))["sems/gone/availability"] == "online"
    async with bench() as gateway, peer(broker) as it:
        source = gateway.status_of("cloud", up=False)
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker, **settings)
        await gateway.up()
        assert (await retained(broker))["sems/gone/availability"] == "online", "it may yet come"
        source(up=True)
        await it.next("sems/gone/availability", lambda m: m == "offline")
        assert (await retained(broker))["sems/gone/availability"] == "offline"
        monkeypatch.setattr(retained_module, "GONE_AFTER", 0.1)
        gateway.status_of("another", up=True)
        await until(lambda: it.last("sems/gone") == "")
        memory = gateway.data_dir / FILE
        await until(lambda: "gone" not in memory.read_text())
    kept = await retained(broker)
    assert not [topic for topic in kept if "gone" in topic]
    assert kept[f"sems/{SN}/availability"] == "online"
    assert memory.stat().st_mode & 0o777 == 0o600


async def test_a_device_that_is_withdrawn_is_offline_at_once_and_leaves_nothing(broker, bench):
    await run(bench, broker, **EVERYTHING)
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker)
        await it.next(f"sems/{SN}/availability")
        gateway.router.withdraw("scripted", SN)
        await it.next(f"sems/{SN}/availability", lambda m: m == "offline")
        await until(lambda: it.last(f"sems/{SN}/device") == "")
    assert not [topic for topic in await retained(broker) if SN in topic]


async def test_at_another_broker_nothing_is_cleared_and_back_at_the_first_it_is(broker, bench, capsys):
    directory = await run(bench, broker)
    # The same broker by another name: nobody can tell.
    await run(bench, broker, host="localhost", base="other")
    assert f"sems/{SN}" in await retained(broker)
    assert "another broker" in capsys.readouterr().out
    assert len(json.loads((directory / FILE).read_text())["brokers"]) == 2
    await run(bench, broker, base="other")
    assert f"sems/{SN}" not in await retained(broker)


async def test_what_a_bridge_retained_under_another_name_is_taken_over(broker, bench, monkeypatch):
    directory = await run(bench, broker)
    (directory / FILE).rename(directory / "old-name-retained.json")
    monkeypatch.setattr(retained_module, "GONE_AFTER", 0.1)
    async with bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker, base="new")
        await gateway.up()
        await until(lambda: not (directory / "old-name-retained.json").exists())
        await until(lambda: '"sems/' not in (directory / FILE).read_text())
    kept = await retained(broker)
    assert not [topic for topic in kept if topic.startswith("sems/")]
    assert f"new/{SN}" in kept


async def test_what_an_earlier_version_retained_for_home_assistant_is_cleared(broker, bench):
    async with bench() as gateway:
        old = {
            "root": f"sems/{SN}",
            "serial": SN,
            "entity": "house",
            "topic": CONFIG,
            "components": {},
            "points": False,
        }
        (gateway.data_dir / "mqtt-home-assistant.json").write_text(json.dumps({f"test-gateway_{SN}": old}))
    async with peer(broker) as it:
        it.publish(f"sems/{SN}/totals", "{}", retain=True)
        await it.next(f"sems/{SN}/totals")
    await run(bench, broker, home_assistant=True)
    kept = await retained(broker)
    assert f"sems/{SN}/totals" not in kept
    assert {f"sems/{SN}", CONFIG} <= kept.keys()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version":9,"brokers":{}}', '{"version":1,"brokers":{"a":{"topics":{"x":7}}}}']
)
async def test_a_file_that_cannot_be_read_hinders_nobody(broker, bench, content):
    async with bench() as gateway:
        (gateway.data_dir / FILE).write_text(content)
    directory = await run(bench, broker)
    assert f"sems/{SN}" in (directory / FILE).read_text()


def test_ten_thousand_devices_are_remembered_compactly():
    memory = Memory()
    points = [f"point_{n}" for n in range(50)]
    for n in range(10_000):
        for rest in ("", "device", "availability", *points):
            memory.add(f"sems/9010KETU{n:08}", rest)
    assert len(memory) == 530_000
    stored = retained_module.msgspec.json.encode(memory.stored())
    assert len(stored) < 400_000
    again = Memory(retained_module.msgspec.json.decode(stored, type=retained_module._Broker))
    assert sorted(again) == sorted(memory)


async def test_what_is_remembered_is_gone_through_and_written_on_a_thread(broker, bench, monkeypatch):
    """Of 10,000 devices there are 20,000 topics, for each change of one."""
    threads, stored = set(), Memory.stored
    monkeypatch.setattr(Memory, "stored", lambda self: threads.add(threading.get_ident()) or stored(self))
    file = await run(bench, broker) / FILE
    assert f'"sems/{SN}"' in file.read_text()
    assert threads
    assert threading.get_ident() not in threads
