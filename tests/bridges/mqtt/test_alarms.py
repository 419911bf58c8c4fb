"""Alarms at `<base>/<sn>/alarm`: each raise and each clear once, whatever the broker does."""

from datetime import timedelta

from gateway.core.model import Alarm, Severity
from tests.bridges.mqtt.peer import peer, retained
from tests.kit.bench import INVERTER, until
from tests.kit.clock import NOON

SN = INVERTER.serial
TOPIC = f"sems/{SN}/alarm"


def alarm(id_, cleared=None):
    return Alarm(
        serial=SN, id=id_, code=f"F{id_}", text="Grid lost", severity=Severity.WARNING, raised=NOON, cleared=cleared
    )


async def test_every_raise_and_every_clear_is_published_and_not_retained(plant, broker):
    gateway, it = plant
    gateway.router.alarms("scripted", SN, [alarm("1")])
    raised = await it.next(TOPIC)
    assert raised.pop("time").endswith("Z")
    assert raised == {
        "state": "raised",
        "id": "1",
        "serial": SN,
        "code": "F1",
        "text": "Grid lost",
        "severity": "warning",
        "raised": "2026-06-21T12:00:00.000Z",
        "cleared": None,
    }
    gateway.router.alarms("scripted", SN, [alarm("1", NOON + timedelta(minutes=5))])
    cleared = await it.next(TOPIC, lambda m: m["state"] == "cleared")
    assert (cleared["id"], cleared["cleared"]) == ("1", "2026-06-21T12:05:00.000Z")
    assert all(m.qos == 1 and not m.retain for m in it.messages if m.topic == TOPIC)
    assert TOPIC not in await retained(broker)


async def test_the_state_says_what_is_active(plant):
    gateway, it = plant
    gateway.router.alarms("scripted", SN, [alarm("1"), alarm("2")])
    state = await it.next(f"sems/{SN}", lambda m: m.get("alarms_active") == 2)
    assert (state["alarm_severity"], state["alarm_text"], state["ac_power"]) == ("warning", "Grid lost", 1234.5)


async def test_info_says_where_they_are(plant):
    _, it = plant
    info = await it.next("sems/bridge/info", lambda m: "topics" in m)
    assert info["topics"]["alarm"] == "sems/<device>/alarm"


async def test_none_is_lost_while_the_broker_is_away_or_before_it_was_there(broker, bench):
    async with bench() as gateway:
        gateway.announce()
        await broker.stop()
        gateway.connect(broker)
        gateway.router.alarms("scripted", SN, [alarm("1")])
        await gateway.down()
        gateway.router.alarms("scripted", SN, [alarm("1"), alarm("2")])
        gateway.router.alarms("scripted", SN, [alarm("2")])
        await broker.start()
        async with peer(broker) as it:
            await until(lambda: len(it.all(TOPIC)) == 3)
            assert [(m["state"], m["id"]) for m in it.all(TOPIC)] == [
                ("raised", "1"),
                ("raised", "2"),
                ("cleared", "1"),
            ]
