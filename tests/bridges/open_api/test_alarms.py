"""Alarms as they come in answers: whose they are, since when, and which are over."""

import asyncio
from datetime import UTC, datetime

import pytest

from gateway.core.model import Severity
from tests.bridges.open_api.kit import World, fleet
from tests.kit.clock import virtual

RAISED = datetime(2026, 6, 21, 10, 0, tzinfo=UTC)
ALARM = {"serial": "device0", "alarm": "a1", "code": "E7", "text": "Isolation", "severity": "warning", "raised": RAISED}


def last(world, serial):
    return next(listed for told, listed in reversed(world.desk.told) if told == serial)


@pytest.mark.parametrize("api", ["open_api", "developer"])
@virtual
async def test_every_device_that_an_answer_covers_is_told_of(api):
    async with World(fleet(2, 4), api) as world:
        world.sems.alarms = [ALARM, ALARM, {**ALARM, "serial": "stranger"}]
        await asyncio.sleep(400)
        (alarm,) = last(world, "device0")
        assert (alarm.id, alarm.code, alarm.text, alarm.severity) == ("a1", "E7", "Isolation", Severity.WARNING)
        assert (alarm.raised, alarm.cleared) == (RAISED, None)
        assert last(world, "device1") == last(world, "device2") == []
        assert "stranger" not in {serial for serial, _ in world.desk.told}
        world.sems.alarms = [{**ALARM, "cleared": datetime(2026, 6, 21, 11, 0, tzinfo=UTC)}]
        await asyncio.sleep(400)
        assert last(world, "device0")[0].cleared == datetime(2026, 6, 21, 11, 0, tzinfo=UTC)
        world.sems.alarms = []
        await asyncio.sleep(400)
        assert last(world, "device0") == []


@virtual
async def test_an_alarm_without_id_time_or_severity_is_one_alarm_all_the_same():
    async with World(fleet(1, 1)) as world:
        world.sems.alarms = [{"serial": "device0", "code": "E9", "severity": "odd"}]
        await asyncio.sleep(400)
        (first,) = last(world, "device0")
        await asyncio.sleep(400)
        (again,) = last(world, "device0")
        assert first == again
        assert (first.id, first.severity) == ("E9", Severity.FAULT)


@virtual
async def test_a_fault_is_asked_about_at_once_by_the_devices_own_interface_or_else_its_plants():
    async with World(fleet(1, 2, ["inverter", "meter"])) as world:
        await asyncio.sleep(130)
        for serial, interface in (("device0", "GetInverterAlarms"), ("device1", "GetPlantAlarms")):
            before = len(world.calls(interface))
            world.sems.status[serial] = "fault"
            await asyncio.sleep(65)
            assert len(world.calls(interface)) == before + 1, interface
            await asyncio.sleep(120)
            world.sems.status[serial] = "normal"
            await asyncio.sleep(65)


@virtual
async def test_a_storm_of_faults_keeps_to_the_calls_that_are_left_for_it():
    async with World(fleet(40, 800)) as world:
        await asyncio.sleep(1200)
        for n in range(800):
            world.sems.status[f"device{n}"] = "fault"
        began = world.clock.monotonic()
        await asyncio.sleep(1800)
        assert 0 < len(world.calls("GetInverterAlarms", began)) <= world.poller.plan.soon
