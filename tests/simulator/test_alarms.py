"""Alarms: of trips, by hand, and those that come by themselves."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.model import Severity
from gateway.simulator.alarms import RULES, troubles
from gateway.simulator.fleet import DEFAULT_FLEET
from gateway.simulator.report import FAULT_CODE, FAULT_TEXT
from gateway.simulator.sky import Climate
from gateway.simulator.world import World
from tests.simulator.kit import BAKERY, HOUSE, HOUSE_SERIAL, NOON, PARK, ROOF_SERIAL, HandClock


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def world(clock):
    return World(DEFAULT_FLEET, clock, seed=1)


def test_a_trip_raises_an_alarm_and_repair_clears_it(world, clock):
    assert world.alarms(HOUSE_SERIAL) == []
    world.trip(HOUSE_SERIAL, tripped=True)
    [alarm] = world.alarms(HOUSE_SERIAL)
    assert (alarm.serial, alarm.code, alarm.text) == (HOUSE_SERIAL, str(FAULT_CODE), FAULT_TEXT)
    assert (alarm.severity, alarm.raised, alarm.cleared) == (Severity.FAULT, NOON, None)
    clock.advance(60)
    world.trip(HOUSE_SERIAL, tripped=True)
    world.trip(HOUSE_SERIAL, tripped=False)
    [cleared] = world.alarms(HOUSE_SERIAL)
    assert (cleared.id, cleared.raised, cleared.cleared) == (alarm.id, NOON, NOON + timedelta(seconds=60))
    world.trip(HOUSE_SERIAL, tripped=True)
    first, second = world.alarms(HOUSE_SERIAL)
    assert first == cleared
    assert second.id != first.id


def test_a_cleared_alarm_is_forgotten_after_a_day_and_an_active_one_is_not(world, clock):
    kept = world.raise_alarm(HOUSE_SERIAL, "7", "Fan", Severity.WARNING)
    gone = world.raise_alarm(HOUSE_SERIAL, "8", "Fan", Severity.INFO)
    world.clear_alarm(HOUSE_SERIAL, gone.id)
    clock.advance(86_399)
    assert {kept.id, gone.id} <= {alarm.id for alarm in world.alarms(HOUSE_SERIAL)}
    clock.advance(2)
    listed = {alarm.id for alarm in world.alarms(HOUSE_SERIAL)}
    assert kept.id in listed
    assert gone.id not in listed


def test_a_plants_alarms_are_those_of_all_its_devices(world):
    meter = BAKERY.accessories[1].serial
    world.raise_alarm(meter, "1", "CT reversed")
    world.raise_alarm(ROOF_SERIAL, "2", "Fan", Severity.WARNING)
    assert [alarm.serial for alarm in world.alarms(BAKERY.id)] == sorted([meter, ROOF_SERIAL])
    assert world.alarms(HOUSE.id) == []
    assert [alarm.text for alarm in world.alarms(meter)] == ["CT reversed"]


def test_what_is_not_there_can_neither_have_nor_lose_an_alarm(world):
    for question in (
        lambda: world.alarms("nobody"),
        lambda: world.raise_alarm("nobody", "1", ""),
        lambda: world.clear_alarm(HOUSE_SERIAL, "x"),
    ):
        with pytest.raises(KeyError):
            question()
    alarm = world.raise_alarm(HOUSE_SERIAL, "1", "")
    world.clear_alarm(HOUSE_SERIAL, alarm.id)
    with pytest.raises(KeyError):
        world.clear_alarm(HOUSE_SERIAL, alarm.id)


def year(plant, seed=1):
    begin = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    return list(troubles(plant, Climate(plant, seed), seed, begin, begin + 365 * 86_400))


def test_troubles_come_by_themselves_but_rarely_and_in_the_right_weather():
    found = [trouble for plant in (HOUSE, BAKERY, PARK) for trouble in year(plant)]
    assert {trouble.rule for trouble in found} == set(RULES)
    assert len(found) < 8 * 20
    assert found == [trouble for plant in (HOUSE, BAKERY, PARK) for trouble in year(plant)]
    for trouble in found:
        plant = next(p for p in DEFAULT_FLEET if trouble.serial in p.by_serial or trouble.serial in p.extras)
        local = datetime.fromtimestamp(trouble.begins, plant.zone)
        assert trouble.rule.from_hour <= local.hour + local.minute / 60 <= trouble.rule.until_hour
        assert 300 <= trouble.ends - trouble.begins <= 2400


def test_a_trouble_is_listed_as_it_begins_and_ends_with_times_that_do_not_change():
    trouble = next(t for t in year(PARK) if t.rule.text == "Grid Overvoltage")
    clock = HandClock(datetime.fromtimestamp(trouble.begins - 60, UTC))
    world = World(DEFAULT_FLEET, clock, seed=1)
    assert world.alarms(trouble.serial) == []
    clock.advance(120)
    [active] = world.alarms(trouble.serial)
    assert active.cleared is None
    assert active.raised == datetime.fromtimestamp(trouble.begins, UTC)
    clock.advance(7.3)
    assert active in world.alarms(PARK.id)
    clock.advance(2400)
    [ended] = world.alarms(trouble.serial)
    assert (ended.id, ended.raised) == (active.id, active.raised)
    assert ended.cleared == datetime.fromtimestamp(trouble.ends, UTC)
    clock.advance(86_400)
    assert ended.id not in {alarm.id for alarm in world.alarms(trouble.serial)}


def test_when_physics_run_fast_alarms_bear_the_wall_clocks_time():
    trouble = next(t for t in year(PARK) if t.rule.text == "Grid Overvoltage")
    clock = HandClock()
    start = datetime.fromtimestamp(trouble.begins - 600, UTC)
    world = World(DEFAULT_FLEET, clock, seed=1, start=start, speed=60)
    world.start()
    clock.advance(11)
    [alarm] = world.alarms(trouble.serial)
    assert alarm.raised == NOON + timedelta(seconds=10)


def test_the_demos_day_is_calm():
    clock = HandClock(datetime(2026, 6, 21, 8, tzinfo=UTC))
    world = World(DEFAULT_FLEET, clock, seed=1)
    world.start()
    clock.advance(12 * 3600)
    assert [alarm for plant in world for alarm in world.alarms(plant.id)] == []
