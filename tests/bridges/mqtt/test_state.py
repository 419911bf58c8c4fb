"""What a subscriber sees of devices."""

import json

import msgspec
import pytest

from gateway import __version__
from gateway.bridges.mqtt.topics import ALARM, AVAILABILITY, DEVICE, RESULT, SET
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import DeviceKind, Range
from gateway.core.points import POINTS
from tests.bridges.mqtt.peer import mosquitto_sub, peer, retained
from tests.kit.bench import INVERTER, until

SN = INVERTER.serial
STATE = f"sems/{SN}"
AVAILABLE = f"sems/{SN}/availability"


async def test_state_is_retained_and_flat(broker, bench, protocol):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.publish(ac_power=1234.5, status="normal", battery_soc=None)
        gateway.connect(broker, protocol=protocol)
        await it.next(AVAILABLE)
        kept = await retained(broker)
    state = kept[STATE]
    time = state.pop("time")
    assert time.endswith("Z")
    assert state == {
        "quality": "good",
        "source": "scripted",
        "ac_power": 1234.5,
        "status": "normal",
        "battery_soc": None,
    }
    assert kept[AVAILABLE] == "online"


async def test_mosquitto_sub_reads_it(broker, bench):
    async with bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=7.0)
        gateway.connect(broker)
        printed = await mosquitto_sub(broker, "-t", STATE, "-C", "1")
    assert json.loads(printed)["ac_power"] == 7.0


async def test_the_device_says_what_it_is_and_what_may_be_set(broker, bench):
    control = ControlSettings(
        enabled=True,
        allow=[
            Rule(devices=["*"], setpoints=["active_power_limit"], origins=["mqtt"], max=80),
            Rule(devices=["*"], setpoints=["battery_mode", "running"], origins=["*"]),
            Rule(devices=["*"], setpoints=["battery_target_soc"], origins=["modbus"]),
        ],
    )
    async with bench(control) as gateway, peer(broker) as it:
        gateway.announce(setpoints=dict(INVERTER.setpoints) | {"export_limit": Range()})
        gateway.connect(broker)
        device = await it.next(f"{STATE}/device")
        assert device == {
            "serial": SN,
            "name": "House",
            "model": "GW10K-ET",
            "kind": "storage",
            "plant": "plant-1",
            "rated_power": 10000.0,
            "setpoints": {
                "running": {"type": "boolean", "unit": ""},
                "active_power_limit": {"type": "float", "unit": "%", "min": 0, "max": 80.0},
                "battery_mode": {"type": "enum", "unit": "", "options": ["idle", "charge", "discharge", "auto"]},
            },
        }
        gateway.announce(name="Barn")
        await it.next(f"{STATE}/device", lambda m: m["name"] == "Barn")
        assert len(it.all(f"{STATE}/device")) == 2


async def test_an_open_ended_range_has_no_bound(broker, bench):
    control = ControlSettings(enabled=True, allow=[Rule(devices=["*"], setpoints=["export_limit"])])
    async with bench(control) as gateway, peer(broker) as it:
        gateway.announce(setpoints={"export_limit": Range()})
        gateway.connect(broker)
        device = await it.next(f"{STATE}/device")
        assert device["setpoints"] == {"export_limit": {"type": "float", "unit": "W", "none": True, "min": 0}}


async def test_stale_data_make_the_device_unavailable_until_news_come(plant):
    gateway, it = plant
    await it.next(AVAILABLE, lambda m: m == "online")
    gateway.publish(interval=0.01, ac_power=5.0)
    await until(lambda: gateway.router.age() or gateway.router.state(SN).quality == "stale")
    await it.next(AVAILABLE, lambda m: m == "offline")
    await it.next(STATE, lambda m: m["quality"] == "stale" and m["ac_power"] == 5.0)
    gateway.publish(ac_power=6.0)
    await until(lambda: it.all(AVAILABLE) == ["online", "offline", "online"])
    await it.next(STATE, lambda m: m["quality"] == "good" and m["ac_power"] == 6.0)


async def test_a_device_that_the_cloud_does_not_hear_is_unavailable(plant):
    gateway, it = plant
    gateway.publish(status="offline")
    await it.next(STATE, lambda m: m["quality"] == "offline")
    await it.next(AVAILABLE, lambda m: m == "offline")


async def test_a_device_without_data_has_a_state_without_time(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker)
        assert await it.next(STATE) == {"time": None, "quality": "stale", "source": "scripted"}
        assert await it.next(AVAILABLE) == "offline"


async def test_a_removed_device_leaves_nothing_behind(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.announce(serial="other")
        gateway.publish(ac_power=1.0)
        gateway.connect(broker, points=True)
        await it.next(AVAILABLE)
        await it.next("sems/other/availability")
        gateway.router.withdraw("scripted", SN)
        await it.next(f"{STATE}/ac_power", lambda m: not m)
        await until(lambda: not it.last(AVAILABLE))
        assert it.all(AVAILABLE) == ["online", "offline", ""]
        await it.next("sems/bridge/health", lambda m: m["devices"]["total"] == 1)
        kept = await retained(broker)
        assert not [topic for topic in kept if SN in topic]
        assert "sems/other" in kept


async def test_a_device_removed_while_the_broker_was_away_leaves_nothing_behind(broker, bench, tmp_path):
    async with bench() as gateway:
        gateway.announce()
        gateway.connect(broker)
        await gateway.up()
        await broker.stop()
        await gateway.down()
        gateway.router.withdraw("scripted", SN)
        await broker.start()
        async with peer(broker) as it:
            # What another gateway, or a broker that keeps its store, may have left there.
            it.publish(STATE, "old", retain=True)
            await it.next(STATE, lambda m: m == "")


async def test_points_have_topics_of_their_own_where_asked_for(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.publish(ac_power=1.5, status="normal", fault_code=3, battery_soc=None, running=True)
        gateway.connect(broker, points=True)
        await it.next(AVAILABLE)
        kept = await retained(broker)
        points = {topic.removeprefix(f"{STATE}/"): value for topic, value in kept.items() if topic.startswith(STATE)}
        points = {name: value for name, value in points.items() if name in POINTS}
        assert points == {"ac_power": "1.5", "status": "normal", "fault_code": "3", "running": "true"}
        gateway.publish(ac_power=2.5, status="normal")
        await it.next(f"{STATE}/ac_power", lambda m: m == "2.5")
        await it.next(f"{STATE}/fault_code", lambda m: m == "")
        await until(lambda: len(it.all(STATE)) == 2)
        assert it.all(f"{STATE}/status") == ["normal"]


async def test_no_point_is_named_like_a_topic_or_field_of_the_bridge():
    assert not POINTS.keys() & {ALARM, AVAILABILITY, DEVICE, RESULT, SET, "time", "quality", "source"}


async def test_states_are_not_retained_where_not_wanted(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce()
        gateway.connect(broker, retain=False, qos=0, base="home/pv")
        await it.next(f"home/pv/{SN}/availability")
        kept = await retained(broker)
        assert f"home/pv/{SN}" not in kept
        assert kept[f"home/pv/{SN}/availability"] == "offline"
        assert it.last(f"home/pv/{SN}")["quality"] == "stale"


@pytest.mark.parametrize("serial", ["a/b", "+", "#", "a b", "bridge", "100%", "é\x00\x9f", "\ud800x", "$SYS", "日本"])
async def test_awkward_serial_numbers_are_served(broker, bench, serial):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce(serial=serial, kind=DeviceKind.METER)
        gateway.announce(serial="plain")
        gateway.connect(broker)
        await it.next("sems/plain/availability")
        shown = [m.topic for m in it.messages if m.topic.endswith("/device") and "plain" not in m.topic]
        assert len(shown) == (0 if "\ud800" in serial else 1)
        assert all(topic.count("/") == 2 for topic in shown)
        assert gateway.status.up


async def test_a_serial_too_long_for_a_topic_harms_no_other(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        gateway.announce(serial="x" * 70_000)
        gateway.announce()
        gateway.connect(broker)
        await it.next(AVAILABLE)
        gateway.router.withdraw("scripted", "x" * 70_000)
        await it.next("sems/bridge/health", lambda m: m["devices"]["total"] == 1)
        assert gateway.status.up


async def test_the_bridge_introduces_itself(broker, bench):
    async with bench() as gateway:
        gateway.announce()
        gateway.announce(serial="second")
        gateway.publish(ac_power=1.0)
        gateway.connect(broker)
        async with peer(broker) as it:
            await it.next("sems/bridge/health", lambda m: m["devices"]["total"] == 2 and m["up"])
        kept = await retained(broker)
    assert kept["sems/bridge/state"] == "online"
    info = kept["sems/bridge/info"]
    assert (info["version"], info["gateway"]) == (__version__, "test-gateway")
    assert info["topics"]["base"] == "sems"
    health = kept["sems/bridge/health"]
    assert health["devices"] == {"total": 2, "good": 1, "stale": 1, "offline": 0}
    assert health["bridges"]["mqtt"]["up"] is True
    assert health["dropped_results"] == 0


async def test_health_tells_of_other_bridges(plant):
    gateway, it = plant
    other = msgspec.structs.replace(gateway.status, name="cloud", type="open_api", up=False, detail="no answer")
    gateway.router.bridge_status(other)
    health = await it.next("sems/bridge/health", lambda m: "cloud" in m["bridges"])
    assert health["up"] is False
    assert health["bridges"]["cloud"]["detail"] == "no answer"


async def test_a_thousand_devices_are_all_shown(broker, bench):
    async with bench() as gateway, peer(broker) as it:
        for n in range(1000):
            gateway.announce(serial=f"SN{n}")
            gateway.publish(f"SN{n}", ac_power=float(n))
        gateway.connect(broker)
        await it.next("sems/bridge/health", lambda m: m["devices"]["good"] == 1000)
        await until(lambda: it.last("sems/SN999"))
        assert it.last("sems/SN500")["ac_power"] == 500.0
