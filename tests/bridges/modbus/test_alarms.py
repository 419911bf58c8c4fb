"""Alarm registers of a device's unit."""

from gateway.core.model import Alarm, Severity
from tests.kit.bench import INVERTER
from tests.kit.clock import NOON

ACTIVE, TIME, CODE, TEXT = 6200, 6202, 6204, 6220


async def shown(client):
    return [
        *await client.words(ACTIVE, 2),
        await client.number("I", TIME),
        await client.text(CODE, 16),
        await client.text(TEXT, 32),
    ]


async def test_they_show_how_many_how_bad_when_and_what(served, client):
    sn = INVERTER.serial
    assert await shown(client) == [0xFFFF, 0xFFFF, 0xFFFFFFFF, "", ""]
    alarm = Alarm(serial=sn, id="1", code="F12", text="Grid lost", severity=Severity.WARNING, raised=NOON)
    served.bench.router.alarms("scripted", sn, [alarm])
    await served.publish(ac_power=5.0)
    assert await shown(client) == [1, 2, int(NOON.timestamp()), "F12", "Grid lost"]
    assert await client.number("i", 1008) == 1
    assert await client.number("f", 3010) == 2
    served.bench.router.alarms("scripted", sn, [])
    await served.publish(ac_power=6.0)
    assert await shown(client) == [0, 0, 0xFFFFFFFF, "", ""]


async def test_they_are_shown_while_measurements_are_not(served, client):
    alarm = Alarm(serial=INVERTER.serial, id="1", code="F12", raised=NOON)
    served.bench.router.alarms("scripted", INVERTER.serial, [alarm])
    await served.publish(age=3600, ac_power=5.0)
    assert (await shown(client))[:2] == [1, 3]
