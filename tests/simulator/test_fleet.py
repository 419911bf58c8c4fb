from gateway.core.model import DeviceKind
from gateway.simulator.fleet import DEFAULT_FLEET, make_fleet
from gateway.simulator.world import World
from tests.simulator.kit import HandClock


def test_the_default_fleet():
    shown = [(plant.name, plant.site.zone, [device.model.name for device in plant.devices]) for plant in DEFAULT_FLEET]
    assert shown == [
        ("House", "Europe/Berlin", ["GW10K-ET"]),
        ("Bakery", "Europe/Madrid", ["GW20K-ET", "GW20K-DT"]),
        ("Solar park", "Europe/Amsterdam", ["GW50K-MT"] * 5),
    ]
    assert DEFAULT_FLEET[0].devices[0].serial == "9010KETU218W0001"


def test_a_fleet_is_its_seeds_and_begins_like_a_larger_one():
    assert make_fleet(2) == DEFAULT_FLEET[:2]
    assert make_fleet(40, seed=3) == make_fleet(90, seed=3)[:40]
    assert make_fleet(40, seed=3) != make_fleet(40, seed=4)


def test_thousands_of_devices_have_names_of_their_own():
    fleet = make_fleet(5000, devices_per_plant=5)
    serials = [device.serial for plant in fleet for device in plant.devices]
    assert len(serials) == len(set(serials)) == 8 + 4997 * 5
    assert {len(serial) for serial in serials} == {16}
    assert len({plant.id for plant in fleet}) == 5000


def test_a_made_up_fleet_has_all_sorts():
    devices = [device.model for plant in make_fleet(200) for device in plant.devices]
    assert {model.kind for model in devices} == {DeviceKind.INVERTER, DeviceKind.STORAGE}
    assert {model.phases for model in devices} == {1, 3}
    assert {model.strings for model in devices} == {2, 3, 4}


def test_plants_come_to_life_when_asked_for():
    clock = HandClock()
    world = World(make_fleet(1000), clock)
    plants = list(world)
    assert world._plants == {}
    world.report(plants[500].id)
    assert list(world._plants) == [plants[500].id]


def test_a_plant_first_asked_for_late_is_the_same_as_one_watched():
    reports = []
    for watched in (True, False):
        clock = HandClock()
        world = World(DEFAULT_FLEET, clock)
        world.start()
        for _ in range(10):
            clock.advance(100)
            if watched:
                world.report(DEFAULT_FLEET[0].id)
        reports.append(world.report(DEFAULT_FLEET[0].id))
    assert reports[0] == reports[1]
