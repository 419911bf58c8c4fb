"""Home Assistant finds the devices, follows them and forgets them."""

import json

import pytest
from jinja2 import Environment

import gateway.bridges.mqtt.home_assistant.discovery as discovery_module
import gateway.bridges.mqtt.retained as retained_module
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import Device, DeviceKind, Range
from tests.bridges.mqtt.homeassistant import check, configs, entity
from tests.bridges.mqtt.peer import peer, retained
from tests.kit.bench import EVERYTHING, INVERTER, until

SN = INVERTER.serial
PLANT = Device(serial="plant-1", kind=DeviceKind.PLANT, name="Sunny Höhe", time_zone="Europe/Berlin")
HOUSE, GATEWAY = f"test-gateway_{SN}", "test-gateway"
CONFIG = f"homeassistant/device/{HOUSE}/config"
STATUS = "homeassistant/status"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(discovery_module, "SETTLE", 0.05)
    monkeypatch.setattr(discovery_module, "BIRTH_JITTER", (0.01, 0.02))
    monkeypatch.setattr(discovery_module, "STATES_AFTER", 0.05)


async def config(it, object_id=HOUSE, matches=lambda _: True):
    def found():
        body = configs(it).get(object_id)
        return body if body and matches(body) else None

    return await until(found, f"a config of {object_id}")


def has(*keys):
    return lambda body: body["components"].keys() >= set(keys)


def rendered(template, **variables):
    return Environment().from_string(template).render(**variables)


async def test_plants_devices_and_gateway_are_found_as_a_tree(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce(PLANT)
        gateway.announce()
        gateway.publish(ac_power=1.0, status="normal", firmware="V1.2")
        gateway.publish("plant-1", energy_today=3.5)
        gateway.connect(broker, home_assistant=True)
        house = await config(it, matches=has("ac_power"))
        assert house["device"] == {
            "identifiers": [HOUSE],
            "name": "House",
            "manufacturer": "GoodWe",
            "model": "GW10K-ET",
            "serial_number": SN,
            "sw_version": "V1.2",
            "via_device": "test-gateway_plant-1",
        }
        plant = await config(it, "test-gateway_plant-1")
        assert plant["device"]["via_device"] == GATEWAY
        assert "via_device" not in (await config(it, GATEWAY))["device"]
        assert plant["components"]["energy_today"]["default_entity_id"] == "sensor.sunny_hohe_energy_today"
        assert house["availability"] == [
            {"topic": topic, "payload_available": "online", "payload_not_available": "offline"}
            for topic in ("sems/bridge/state", f"sems/{SN}/availability")
        ]
    kept = await retained(broker)
    assert kept[CONFIG]["origin"]["name"] == "sems-gateway"


async def test_what_an_entity_shows_is_what_the_device_said(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=4210.5, running=False, status="fault", battery_soc=None, active_power_limit=60.0)
        gateway.connect(broker, home_assistant=True)
        body = await config(it, matches=has("ac_power"))
        state = await it.next(f"sems/{SN}")

        def shown(key):
            it_is = entity(body, key)
            assert it_is["state_topic"] == f"sems/{SN}"
            return rendered(it_is["value_template"], value_json=state)

        assert "battery_soc" not in body["components"]
        assert shown("ac_power") == "4210.5"
        assert shown("fault") == "ON"
        assert shown("data") == "OFF"
        assert shown("set_running") == "false"
        assert shown("set_active_power_limit") == "60.0"
        assert shown("set_battery_mode") == "None"
        assert rendered(body["components"]["fault"]["value_template"], value_json={}) == "OFF"
        assert rendered(body["components"]["set_running"]["value_template"], value_json={}) == "None"
        assert rendered(body["components"]["data"]["value_template"], value_json={"quality": "stale"}) == "ON"


async def test_an_entity_of_the_data_is_there_while_the_device_is_not(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        data = entity(await config(it), "data")
    assert [a["topic"] for a in data["availability"]] == ["sems/bridge/state"]


LIMITED = ControlSettings(
    enabled=True,
    max_per_minute=10_000,
    allow=[
        Rule(devices=["*"], setpoints=["active_power_limit"], min=20, max=80),
        Rule(devices=["*"], setpoints=["battery_mode", "running", "export_limit", "power_factor"]),
    ],
)


async def test_only_permitted_setpoints_have_controls_with_the_tighter_range(broker, bench):
    async with peer(broker) as it, bench(LIMITED) as gateway:
        taken = dict(INVERTER.setpoints) | {"export_limit": Range(), "power_factor": Range(-1, 1)}
        gateway.announce(setpoints=taken)
        gateway.publish(active_power_limit=100.0, battery_target_soc=20.0, export_limit=5.0)
        gateway.connect(broker, home_assistant=True)
        components = (await config(it, matches=has("battery_target_soc")))["components"]
        controls = {key: c["platform"] for key, c in components.items() if "command_topic" in c}
        assert controls == {
            "set_running": "switch",
            "set_active_power_limit": "number",
            "set_battery_mode": "select",
            "set_export_limit": "number",
            "set_power_factor": "number",
            "reset_power_factor": "button",
            "reset_export_limit": "button",
        }
        assert components["set_export_limit"]["default_entity_id"] == "number.house_export_limit"
        limit = components["set_active_power_limit"]
        assert (limit["min"], limit["max"], limit["optimistic"], limit["retain"]) == (20, 80, False, False)
        # 100 % is what the device has; the number can't show it, so a sensor does.
        assert rendered(limit["value_template"], value_json={"active_power_limit": 100.0}) == "None"
        assert components["active_power_limit"]["platform"] == "sensor"
        assert components["set_battery_mode"]["options"] == ["idle", "charge", "discharge", "auto"]
        button = components["reset_export_limit"]
        pressed = rendered(button["command_template"], value=button["payload_press"])
        assert (button["name"], json.loads(pressed)["value"]) == ("No export limit", "none")
        assert rendered(components["set_export_limit"]["value_template"], value_json={"export_limit": "none"}) == "None"
        assert components["battery_target_soc"]["platform"] == "sensor"
        assert "set_battery_target_soc" not in components


async def test_read_only_has_no_controls_and_a_switch_becomes_a_binary_sensor(broker, bench):
    async with peer(broker) as it, bench(ControlSettings()) as gateway:
        gateway.announce()
        gateway.publish(running=True, battery_mode="idle")
        gateway.connect(broker, home_assistant=True)
        body = await config(it, matches=has("running"))
        assert not [key for key, c in body["components"].items() if "command_topic" in c]
        assert body["components"]["running"]["platform"] == "binary_sensor"
        assert body["components"]["battery_mode"]["device_class"] == "enum"


@pytest.mark.parametrize(
    ("key", "value", "setpoint", "meant"),
    [
        ("set_active_power_limit", 50, "active_power_limit", 50.0),
        ("set_running", "false", "running", False),
        ("set_battery_mode", "charge", "battery_mode", "charge"),
        ("reset_active_power_limit", None, "active_power_limit", 100.0),
    ],
)
async def test_a_control_works(broker, bench, key, value, setpoint, meant):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0)
        gateway.connect(broker, home_assistant=True)
        control = (await config(it))["components"][key]
        value = control["payload_press"] if value is None else value
        if "payload_off" in control:
            assert control["payload_off"] == value
        payload = Environment().from_string(control["command_template"]).render(value=value)
        it.publish(control["command_topic"], payload)
        done = await it.result(SN, "succeeded", setpoint=setpoint)
        assert done["value"] == meant
        # Not optimistic: the new value comes with the state.
        await it.next(f"sems/{SN}", lambda m: m.get(setpoint) == meant)


async def test_the_config_grows_with_the_device_and_does_not_shrink_over_a_restart(broker, bench):
    async with peer(broker) as it:
        async with bench() as gateway:
            gateway.announce()
            gateway.publish(ac_power=1.0)
            gateway.connect(broker, home_assistant=True)
            before = await config(it, matches=has("ac_power"))
            gateway.publish(ac_power=2.0, status="normal")
            gateway.publish(ac_power=2.0, battery_soc=50.0, status="normal")
            grown = await config(it, matches=has("battery_soc", "fault"))
            assert grown["components"].keys() > before["components"].keys()
            gateway.publish(ac_power=3.0)
            await it.next(f"sems/{SN}", lambda m: m.get("ac_power") == 3.0)
        count = len(it.all(CONFIG))
        assert count <= 3
        async with bench() as gateway:
            gateway.announce()
            gateway.connect(broker, home_assistant=True)
            await until(lambda: len(it.all(CONFIG)) > count)
            assert it.last(CONFIG)["components"].keys() == grown["components"].keys()


async def test_a_control_that_is_no_longer_permitted_is_taken_away(broker, bench):
    async with peer(broker) as it:
        for control, keys in ((EVERYTHING, {"set_running"}), (ControlSettings(), {"running"})):
            async with bench(control) as gateway:
                gateway.announce()
                gateway.publish(running=True)
                gateway.connect(broker, home_assistant=True)
                await config(it, matches=lambda b: {"running", "set_running"} & set(b["components"]) == keys)  # noqa: B023
        took_away = [b for b in map(json.loads, payloads(it, CONFIG)) if b["components"].get("set_running") == {
            "platform": "switch"}]  # fmt: skip
        assert len(took_away) == 1
        check(took_away[0])


def payloads(it, topic):
    return [m.payload for m in it.messages if m.topic == topic and m.payload]


async def test_two_devices_of_one_name_have_different_entity_ids(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.announce(serial="B/2")
        gateway.connect(broker, home_assistant=True)
        ids = set()
        for object_id in (HOUSE, "test-gateway_B_2F2"):
            body = await config(it, object_id)
            ids |= {c["default_entity_id"] for c in body["components"].values()}
        assert {"sensor.house_measured", "sensor.house_b_2_measured"} <= ids
        await until(lambda: it.all("sems/B%2F2/device"))


async def test_a_new_name_is_told(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        await config(it)
        gateway.announce(name="Barn")
        gateway.publish(firmware="V2")
        body = await config(it, matches=lambda b: b["device"].get("sw_version") == "V2")
        assert body["device"]["name"] == "Barn"
        assert body["components"]["data"]["default_entity_id"] == "binary_sensor.house_data"


@pytest.mark.parametrize("settings", [{}, {"retain": False}])
async def test_after_home_assistants_birth_configs_come_anew_and_then_states(broker, bench, protocol, settings):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(ac_power=1.0, energy_today=2.0)
        gateway.connect(broker, home_assistant=True, protocol=protocol, **settings)
        await config(it, matches=has("energy_today"))
        # Without retained states they are shown again at once, so that Home Assistant gets any.
        await until(lambda: len(it.all(f"sems/{SN}/availability")) == (2 if settings else 1))
        it.messages.clear()
        it._decoded.clear()
        it.publish(STATUS, "offline")
        it.publish(STATUS, "online")
        await it.next(f"sems/{SN}/availability", lambda m: m == "online")
        order = [m.topic for m in it.messages]
        for topic in (f"sems/{SN}", f"sems/{SN}/availability"):
            assert order.index(CONFIG) < order.index(topic)
        assert it.all("sems/bridge/state") == ["online"]
        assert len(it.all(CONFIG)) == 1


async def test_a_retained_birth_is_old_news_and_a_live_one_that_is_retained_is_not(broker, bench, protocol):
    async with peer(broker) as it, bench() as gateway:
        it.publish(STATUS, "online", retain=True)
        await it.next(STATUS)
        gateway.announce()
        gateway.publish(running=True)
        gateway.connect(broker, home_assistant=True, protocol=protocol)
        await config(it)
        it.publish(f"sems/{SN}/set/running", "on")
        await it.result(SN, "sent")
        assert len(it.all(CONFIG)) == 1
        it.publish(STATUS, "online", retain=True)
        await until(lambda: len(it.all(CONFIG)) == 2)
    it.publish(STATUS, "", retain=True)


async def test_after_an_outage_of_the_broker_configs_are_there_again(broker, bench):
    async with bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        await gateway.up()
        await broker.stop()
        await gateway.down()
        await broker.start()
        async with peer(broker) as it:
            await config(it)
            await config(it, GATEWAY)


async def test_a_device_that_goes_takes_its_config_along(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(energy_today=1.0)
        gateway.connect(broker, home_assistant=True)
        await it.next(f"sems/{SN}")
        await config(it)
        gateway.router.withdraw("scripted", SN)
        await until(lambda: it.last(CONFIG) == "")
        await until(lambda: it.last(f"sems/{SN}") == "")
        order = [m.topic for m in it.messages if not m.payload]
        assert order[0] == CONFIG
        memory = gateway.data_dir / "mqtt-home-assistant.json"
        await until(lambda: SN not in memory.read_text())
    kept = await retained(broker)
    assert not [topic for topic in kept if SN in topic]


async def test_a_device_that_went_while_the_gateway_was_away_is_cleared_once_all_is_up(broker, bench, monkeypatch):
    async with bench() as gateway:
        gateway.announce()
        gateway.announce(serial="gone", name="Gone")
        gateway.publish("gone", energy_today=1.0)
        gateway.connect(broker, home_assistant=True, points=True)
        async with peer(broker) as it:
            await it.next("sems/gone/energy_today")
            await config(it, "test-gateway_gone")
    monkeypatch.setattr(discovery_module, "LEFTOVERS_AFTER", 0.1)
    monkeypatch.setattr(retained_module, "GONE_AFTER", 0.1)
    async with bench() as gateway, peer(broker) as it:
        source = gateway.status_of("cloud", up=False)
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        await config(it)
        assert (await retained(broker))["homeassistant/device/test-gateway_gone/config"]
        source(up=True)
        await until(lambda: it.last("homeassistant/device/test-gateway_gone/config") == "")
        await until(lambda: it.last("sems/gone/energy_today") == "")
        await until(lambda: it.last("sems/gone") == it.last("sems/gone/device") == "")
        memory = gateway.data_dir / "mqtt-home-assistant.json"
        await until(lambda: "gone" not in memory.read_text())
        assert it.last(CONFIG)
        # Only now is a bridge that does not say how it does one that is no more.
        await until(lambda: len(it.all(f"homeassistant/device/{GATEWAY}/config")) > 1)
    assert not [topic for topic in await retained(broker) if "gone" in topic]


@pytest.mark.parametrize(
    ("changed", "gone", "stays"),
    [
        ({"home_assistant": False}, "homeassistant/", f"sems/{SN}"),
        ({"home_assistant": {"enabled": True, "prefix": "ha"}}, "homeassistant/", f"sems/{SN}"),
        ({"home_assistant": True, "base": "home/sems"}, "sems/9010", CONFIG),
    ],
)
async def test_what_stood_elsewhere_is_cleared(broker, bench, changed, gone, stays):
    for settings in ({"home_assistant": True}, changed):
        async with bench() as gateway:
            gateway.announce()
            gateway.publish(energy_today=1.0)
            gateway.connect(broker, **settings)
            await gateway.up()
            async with peer(broker) as it:
                base = settings.get("base", "sems")
                await it.next(f"{base}/{SN}/availability")
    kept = await retained(broker)
    assert not [topic for topic in kept if topic.startswith(gone)]
    assert stays in kept


async def test_a_broken_memory_is_told_and_begun_anew(broker, bench, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mqtt-home-assistant.json").write_text("{nonsense")
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        await config(it)
        assert "is forgotten" in capsys.readouterr().out
        memory = json.loads((gateway.data_dir / "mqtt-home-assistant.json").read_text())
        assert memory[HOUSE]["topic"] == CONFIG


async def test_a_memory_that_cannot_be_written_is_told_and_hinders_nobody(broker, bench, monkeypatch, capsys):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("gateway.core.files.replace", full)
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        await config(it)
        assert "no space left" in capsys.readouterr().out


async def test_the_gateway_shows_its_bridges_and_restarts_them_where_that_is_allowed(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True, requests=["restart"])
        body = await config(it, GATEWAY, has("bridge_mqtt"))
        button = body["components"]["restart_mqtt"]
        gateway.status_of("cloud-2", up=False)
        body = await config(it, GATEWAY, has("bridge_cloud-2"))
        health = await it.next("sems/bridge/health", lambda m: "cloud-2" in m["bridges"])
        for name, shown in (("mqtt", "ON"), ("cloud-2", "OFF")):
            it_is = entity(body, f"bridge_{name}")
            assert it_is["state_topic"] == "sems/bridge/health"
            assert rendered(it_is["value_template"], value_json=health) == shown
        it.publish(button["command_topic"], button["payload_press"])
        await until(lambda: it.all("sems/bridge/state")[-2:] == ["offline", "online"])


async def test_a_total_is_the_states_own_which_does_not_fall(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(energy_today=5.0, ac_power=1.0)
        gateway.connect(broker, home_assistant=True)
        await it.next(f"sems/{SN}")
        gateway.publish(energy_today=4.9, ac_power=2.0)
        gateway.publish(energy_today=0.0, ac_power=3.0)
        await it.next(f"sems/{SN}", lambda m: m["ac_power"] == 3.0)
        assert {m["energy_today"] for m in it.all(f"sems/{SN}")} == {5.0}
        sensor = entity(await config(it, matches=has("energy_today")), "energy_today")
        assert sensor["state_topic"] == f"sems/{SN}"
        assert (sensor["state_class"], sensor["device_class"]) == ("total_increasing", "energy")


async def test_off_nothing_is_published(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.publish(energy_today=5.0)
        gateway.connect(broker)
        await it.next(f"sems/{SN}/availability")
        it.publish(STATUS, "online")
        it.publish(f"sems/{SN}/set/running", "on")
        await it.result(SN, "succeeded")
    assert not configs(it)
    assert not (gateway.data_dir / "mqtt-home-assistant.json").exists()


async def test_a_plant_that_comes_late_or_goes_is_what_its_devices_hang_on_or_not(broker, bench):
    async with peer(broker) as it, bench() as gateway:
        gateway.announce()
        gateway.connect(broker, home_assistant=True)
        assert (await config(it))["device"]["via_device"] == GATEWAY
        gateway.announce(PLANT)
        await config(it, matches=lambda b: b["device"]["via_device"] == "test-gateway_plant-1")
        gateway.router.withdraw("scripted", "plant-1")
        await config(it, matches=lambda b: b["device"]["via_device"] == GATEWAY)


async def test_a_leftover_is_not_looked_for_while_a_bridge_is_down(broker, bench, monkeypatch):
    monkeypatch.setattr(discovery_module, "LEFTOVERS_AFTER", 0.05)
    async with peer(broker) as it:
        async with bench() as gateway:
            gateway.announce()
            gateway.connect(broker, home_assistant=True)
            await config(it)
        async with bench() as gateway:
            source = gateway.status_of("cloud", up=True)
            source(up=False)
            gateway.connect(broker, home_assistant=True)
            await gateway.up()
            discovery = gateway.runner.bridge._inbox._discovery
            looked = []
            original = discovery._look_for_leftovers

            async def look():
                looked.append(1)
                await original()

            discovery._due.clear()
            discovery._look_for_leftovers = look
            discovery._plan(look, 0)
            await until(lambda: len(looked) > 3)
            assert it.last(CONFIG) != ""
            source(up=True)
            await until(lambda: it.last(CONFIG) == "")
