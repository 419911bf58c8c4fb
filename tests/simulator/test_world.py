from datetime import UTC, datetime, timedelta

from gateway.simulator.fleet import DEFAULT_FLEET
from gateway.simulator.world import PhysicsClock, World
from tests.simulator.kit import NOON, HandClock


def test_physics_run_faster_from_a_chosen_start():
    clock = HandClock()
    start = datetime(2026, 6, 1, 8, 0, tzinfo=UTC)
    physics = PhysicsClock(clock, start, 60)
    assert physics.now() == start.timestamp()
    clock.advance(10)
    assert physics.now() == start.timestamp() + 600


def test_physics_begin_now_where_nothing_else_is_said():
    assert PhysicsClock(HandClock()).now() == NOON.timestamp()


def test_a_wall_clock_set_back_does_not_turn_the_sun_back():
    clock = HandClock()
    physics = PhysicsClock(clock, speed=2)
    physics.now()
    clock.advance(100)
    clock.set_wall(NOON - timedelta(hours=1))
    assert physics.now() == NOON.timestamp() + 200
    clock.advance(10)
    assert physics.now() == NOON.timestamp() + 220


def test_a_wall_clock_set_forward_is_followed():
    clock = HandClock()
    physics = PhysicsClock(clock)
    physics.now()
    clock.set_wall(NOON + timedelta(hours=8))
    assert physics.now() == (NOON + timedelta(hours=8)).timestamp()


def test_the_physics_time_of_a_wall_time_is_as_far_from_the_start():
    clock = HandClock()
    start = datetime(2026, 6, 1, 8, 0, tzinfo=UTC)
    physics = PhysicsClock(clock, start, 60)
    assert physics.at(NOON) == start
    clock.advance(30)
    assert physics.at(NOON + timedelta(seconds=20)) == start + timedelta(minutes=20)
    assert physics.wall(physics.at(NOON).timestamp()) == NOON


def test_reports_bear_the_wall_clocks_time_whatever_the_physics_do():
    clock = HandClock()
    world = World(DEFAULT_FLEET, clock, start=datetime(2025, 1, 1, tzinfo=UTC), speed=3600)
    clock.advance(5)
    report = world.report(DEFAULT_FLEET[0].id)
    assert report.time == clock.now()
    assert world.now < datetime(2025, 1, 2, tzinfo=UTC)


def test_a_plant_goes_silent_with_its_last_device():
    clock = HandClock()
    world = World(DEFAULT_FLEET, clock)
    plant = DEFAULT_FLEET[1]
    store, roof = (device.serial for device in plant.devices)
    world.silence(store, offline=True)
    assert world.report(plant.id).values["status"] != "offline"
    world.silence(roof, offline=True)
    world.silence(roof, offline=True)
    assert world.report(plant.id).values["status"] == "offline"
    world.silence(store, offline=False)
    assert world.report(plant.id).values["status"] != "offline"
    assert world.ailing == [roof]
