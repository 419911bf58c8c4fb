"""The EV charger: when the car is there, what it takes, and whether it obeys."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gateway.simulator.charger import Garage
from gateway.simulator.fleet import DEFAULT_FLEET
from gateway.simulator.plant import Plant
from gateway.simulator.world import World
from tests.simulator.kit import HOUSE, NOON, HandClock

CHARGER = HOUSE.chargers[0]
MONDAY = datetime(2026, 6, 15, tzinfo=HOUSE.zone)
HOUR = 3600.0


def garage(seed=7):
    return Garage(CHARGER.serial, CHARGER.charger, HOUSE.zone, seed)


def charged(world):
    return world.report(CHARGER.serial).values


@pytest.mark.parametrize("seed", range(20))
def test_on_a_weekday_it_leaves_in_the_morning_and_comes_home_in_the_evening(seed):
    car = garage(seed)
    for day in range(5):
        hours = [car.stay((MONDAY + timedelta(days=day, hours=hour)).timestamp()).plugged for hour in range(24)]
        assert all(hours[:6])
        assert not any(hours[9:17])
        assert all(hours[19:])


def test_by_the_local_clock_on_both_sides_of_a_change():
    car = garage()
    for month in (1, 7):
        day = datetime(2026, month, 6, 12, tzinfo=HOUSE.zone)
        assert not car.stay(day.timestamp()).plugged
        assert car.stay(day.replace(hour=20).timestamp()).plugged


def test_each_homecoming_is_a_session_of_its_own():
    car = garage()
    stays = [car.stay((MONDAY + timedelta(hours=n)).timestamp()) for n in range(24 * 14)]
    arrivals = [stay.arrival for stay in stays if stay.plugged]
    assert arrivals == sorted(arrivals)
    assert len(set(arrivals)) == 13  # two weeks: one homecoming a day but on Saturdays, and the one before
    assert all(stay.uses > 5 for stay in stays if stay.plugged)


def test_a_session_fills_the_car_and_then_stops():
    plant = Plant(HOUSE, 7, MONDAY.timestamp())
    readings = [plant.at(MONDAY.timestamp() + n * 300) for n in range(1, 12 * 24)]
    states = [reading.chargers[0] for reading in readings]
    powers = [reading.flow.chargers[0] for reading in readings]
    evening = [n for n, power in enumerate(powers) if power]
    assert evening
    assert evening == list(range(evening[0], evening[-1] + 1))
    last = states[-1]
    uses = garage().stay(MONDAY.timestamp() + 23 * HOUR).uses
    assert last.session == pytest.approx(uses)
    assert last.lacks == pytest.approx(0)
    assert last.total - states[0].total == pytest.approx(uses)
    assert last.session / last.hours == pytest.approx(CHARGER.charger.power / 1000, rel=0.02)
    assert all(later.total >= earlier.total for earlier, later in pairwise(states))


def test_its_power_is_part_of_the_load():
    plant = Plant(HOUSE, 7, NOON.timestamp())
    with_car = plant.at(NOON.timestamp()).flow
    plant.command(CHARGER.serial, {"charging": False}, NOON.timestamp())
    without = plant.at(NOON.timestamp()).flow
    assert with_car.chargers == (4140,)
    assert without.chargers == (0,)
    assert with_car.load - without.load == pytest.approx(4140, abs=200)  # the inverter's losses differ
    for flow in (with_car, without):
        assert flow.pv + flow.battery + flow.grid == pytest.approx(flow.load)


def test_told_to_wait_it_waits_and_told_to_charge_it_goes_on_in_the_same_session():
    clock = HandClock()
    world = World(DEFAULT_FLEET, clock, seed=7)
    assert charged(world)["charging"] is True
    before = charged(world)
    world.command(CHARGER.serial, {"charging": False}, world.physics.now())
    assert world.setpoints(CHARGER.serial).charging is False
    clock.advance(HOUR)
    waiting = charged(world)
    assert (waiting["ev_status"], waiting["ev_power"], waiting["charging"]) == ("plugged", 0, False)
    assert waiting["ev_session_energy"] == pytest.approx(before["ev_session_energy"], abs=0.1)
    world.command(CHARGER.serial, {"charging": True}, world.physics.now())
    clock.advance(HOUR)
    again = charged(world)
    assert again["ev_status"] == "charging"
    assert again["ev_session_energy"] - waiting["ev_session_energy"] == pytest.approx(4.14)
    assert again["ev_session_time"] - waiting["ev_session_time"] == pytest.approx(1)


def test_told_to_charge_with_no_car_there_nothing_happens():
    clock = HandClock(datetime(2026, 6, 16, 10, tzinfo=UTC))
    world = World(DEFAULT_FLEET, clock, seed=7)
    world.command(CHARGER.serial, {"charging": True}, world.physics.now())
    assert (charged(world)["ev_status"], charged(world)["ev_power"]) == ("unplugged", 0)


@pytest.mark.parametrize("seed", [1, 7])
def test_on_the_demos_day_a_car_charges_from_its_beginning_past_noon(seed):
    clock = HandClock(datetime(2026, 6, 21, 8, tzinfo=UTC))
    world = World(DEFAULT_FLEET, clock, seed=seed)
    for _ in range(6):
        assert charged(world)["ev_status"] == "charging"
        assert charged(world)["ev_power"] == 4140
        clock.advance(HOUR)


def test_time_left_out_does_not_leave_the_car_behind():
    plant = Plant(HOUSE, 7, MONDAY.timestamp())
    reading = plant.at((MONDAY + timedelta(days=40, hours=12)).timestamp())
    assert not reading.chargers[0].plugged
    assert reading.flow.chargers == (0,)
