"""The past: curves, days and months, as they fit together."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gateway.simulator.fleet import DEFAULT_FLEET
from gateway.simulator.world import World
from tests.simulator.kit import BAKERY, HOUSE, HOUSE_SERIAL, NOON, PARK, ROOF_SERIAL, HandClock

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 6, 21, tzinfo=HOUSE.zone)
"""Of the day on which the simulation begins, at Munich, Madrid and Amsterdam alike."""


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def world(clock):
    return World(DEFAULT_FLEET, clock, seed=7)


def curve(world, serial, day=MIDNIGHT - 3 * DAY):
    return world.series(serial, day, day + DAY, "minutes")


def energy(samples, point):
    """kWh of a curve."""
    return sum(sample.values[point] for sample in samples) / 12 / 1000


@pytest.mark.parametrize("back", [1, 3, 40, 400])
@pytest.mark.parametrize(("plant", "serial"), [(HOUSE, HOUSE_SERIAL), (BAKERY, ROOF_SERIAL), (PARK, PARK.id)])
def test_a_days_curve_comes_to_the_days_energy(world, plant, serial, back):
    day = MIDNIGHT - back * DAY
    samples = curve(world, serial, day)
    assert len(samples) == 288
    assert all(later.time - earlier.time == timedelta(minutes=5) for earlier, later in pairwise(samples))
    assert samples[0].time == day
    [whole] = world.series(serial, day, day + DAY, "day")
    assert whole.time == day
    assert energy(samples, "pv_power") == pytest.approx(whole.values["energy_today"], rel=0.03)
    assert samples[-1].values["energy_today"] == pytest.approx(whole.values["energy_today"], rel=0.03)
    assert whole.values["energy_today"] > 5


def test_a_plants_day_balances(world):
    [day] = world.series(HOUSE.id, MIDNIGHT - 3 * DAY, MIDNIGHT - 2 * DAY, "day")
    samples = curve(world, HOUSE.id)
    bought = sum(max(sample.values["grid_power"], 0) for sample in samples) / 12_000
    assert day.values["load_energy_today"] == pytest.approx(energy(samples, "load_power"), rel=0.05)
    assert day.values["grid_import_today"] == pytest.approx(bought, rel=0.1, abs=0.3)
    for sample in samples:
        values = sample.values
        assert values["pv_power"] + values["battery_power"] + values["grid_power"] == pytest.approx(
            values["load_power"]
        )


@pytest.mark.parametrize("serial", [HOUSE_SERIAL, HOUSE.id, PARK.id])
def test_todays_curve_agrees_with_the_live_totals_and_ends_now(world, clock, serial):
    clock.advance(3700)
    samples = curve(world, serial, MIDNIGHT)
    now = clock.now()
    assert now - timedelta(minutes=5) < samples[-1].time <= now
    live = world.report(serial).values
    for point in ("energy_today", "load_energy_today", "energy_total"):
        assert samples[-1].values[point] == pytest.approx(live[point], rel=0.04)
    [today] = world.series(serial, MIDNIGHT, MIDNIGHT + DAY, "day")
    assert today.values["energy_today"] == live["energy_today"]
    assert world.series(serial, now + timedelta(seconds=1), now + DAY, "minutes") == []


def test_what_was_done_today_is_to_be_seen_in_its_curve(world, clock):
    world.start()
    clock.advance(1800)
    world.command(ROOF_SERIAL, {"active_power_limit": 10.0}, world.physics.now())
    clock.advance(1800)
    world.trip(ROOF_SERIAL, tripped=True)
    clock.advance(1800)
    world.trip(ROOF_SERIAL, tripped=False)
    world.command(ROOF_SERIAL, {"active_power_limit": 100.0}, world.physics.now())
    clock.advance(1800)
    half_hours = [
        world.series(ROOF_SERIAL, NOON + n * timedelta(minutes=30), NOON + (n + 1) * timedelta(minutes=30), "minutes")
        for n in range(4)
    ]
    free, limited, broken, free_again = ([s.values["ac_power"] for s in half] for half in half_hours)
    assert max(limited) <= 2000 < min(free)
    assert set(broken) == {0}
    assert half_hours[2][0].values["status"] == "fault"
    assert min(free_again) > 2000
    clock.advance(86_400)
    yesterday = world.series(ROOF_SERIAL, NOON, NOON + timedelta(hours=2), "minutes")
    assert [s.values["ac_power"] for s in yesterday] == [*free, *limited, *broken, *free_again]


def test_a_day_that_was_lived_through_keeps_the_energy_it_had(world, clock):
    world.start()
    clock.advance(9 * 3600)
    before_midnight = world.report(HOUSE_SERIAL).values["energy_today"]
    clock.advance(12 * 3600)
    first, second = world.series(HOUSE_SERIAL, MIDNIGHT, MIDNIGHT + 2 * DAY, "day")
    assert first.values["energy_today"] == pytest.approx(before_midnight, rel=0.01)
    assert second.values["energy_today"] == world.report(HOUSE_SERIAL).values["energy_today"]
    assert curve(world, HOUSE_SERIAL, MIDNIGHT)[-1].values["energy_today"] == pytest.approx(before_midnight, rel=0.04)


def test_the_past_is_the_seeds_whenever_it_is_asked_for(clock):
    one, other = World(DEFAULT_FLEET, clock, seed=7), World(DEFAULT_FLEET, clock, seed=7)
    another = World(DEFAULT_FLEET, clock, seed=8)
    one.series(HOUSE.id, MIDNIGHT - 20 * DAY, MIDNIGHT, "day")
    told = curve(one, HOUSE_SERIAL)
    assert told == curve(other, HOUSE_SERIAL) == curve(one, HOUSE_SERIAL)
    assert told != curve(another, HOUSE_SERIAL)


def test_totals_go_on_over_midnights_up_to_now(world):
    samples = world.series(HOUSE_SERIAL, MIDNIGHT - 3 * DAY, MIDNIGHT + DAY, "minutes")
    totals = [sample.values["energy_total"] for sample in samples]
    assert len(totals) == 3 * 288 + 14 * 12 + 1
    assert all(later > earlier - 1e-6 for earlier, later in pairwise(totals))
    assert totals[-1] == pytest.approx(world.report(HOUSE_SERIAL).values["energy_total"], abs=2)
    assert totals[-1] - totals[0] > 100


def test_a_month_is_its_days_and_the_running_one_the_live_counter(world):
    months = world.series(HOUSE_SERIAL, MIDNIGHT.replace(month=4, day=1), MIDNIGHT + DAY, "month")
    assert [sample.time.astimezone(HOUSE.zone).month for sample in months] == [4, 5, 6]
    days = world.series(HOUSE_SERIAL, MIDNIGHT.replace(month=5, day=1), MIDNIGHT.replace(day=1), "day")
    assert len(days) == 31
    assert months[1].values["energy_month"] == pytest.approx(sum(day.values["energy_today"] for day in days))
    live = world.report(HOUSE_SERIAL).values
    assert months[2].values["energy_month"] == pytest.approx(live["energy_month"], rel=0.04)
    assert live["energy_month"] < sum(m.values["energy_month"] for m in months) < live["energy_year"]


@pytest.mark.parametrize("day", [(3, 29), (10, 25)], ids=["23 hours", "25 hours"])
def test_a_day_with_a_change_of_clocks_has_its_own_number_of_samples(world, day):
    begin = datetime(2025, 10, 26, tzinfo=HOUSE.zone) if day == (10, 25) else datetime(2026, 3, 29, tzinfo=HOUSE.zone)
    end = begin + DAY
    samples = world.series(HOUSE_SERIAL, begin, end, "minutes")
    assert len(samples) == (end.timestamp() - begin.timestamp()) / 300 != 288


def test_before_a_device_was_put_up_there_is_nothing(world):
    bought = MIDNIGHT - timedelta(days=365.25 * BAKERY.devices[0].age)
    store = BAKERY.devices[0].serial
    assert world.series(store, bought - 30 * DAY, bought - 3 * DAY, "day") == []
    assert len(world.series(store, bought - 30 * DAY, bought + 10 * DAY, "day")) in range(8, 12)
    assert len(world.series(ROOF_SERIAL, bought - 30 * DAY, bought - 3 * DAY, "day")) == 27
    assert world.series(store, MIDNIGHT, MIDNIGHT - DAY, "day") == []


def test_old_counters_are_not_made_up(world):
    old = curve(world, HOUSE.id, MIDNIGHT - 400 * DAY)[100].values
    assert not {"energy_total", "energy_year", "grid_import_total", "income_total"} & old.keys()
    assert {"energy_today", "energy_month", "pv_power", "ambient_temperature"} <= old.keys()


@pytest.mark.parametrize("accessory", [*HOUSE.accessories, *PARK.accessories], ids=lambda accessory: accessory.name)
def test_every_device_has_a_past(world, accessory):
    home = world.home(accessory.serial)
    samples = world.series(accessory.serial, MIDNIGHT - DAY, MIDNIGHT, "minutes")
    plant = world.series(home.id, MIDNIGHT - DAY, MIDNIGHT, "minutes")
    assert len(samples) == len(plant) == 288
    for point in {"battery_power", "load_power", "ev_power", "ambient_temperature"} & samples[0].values.keys():
        assert [s.values[point] for s in samples] == [s.values[point] for s in plant]
    [day] = world.series(accessory.serial, MIDNIGHT - DAY, MIDNIGHT, "day")
    assert all(name.endswith("_today") for name in day.values)


def test_a_month_is_lived_once_for_all_inverters_of_a_plant(monkeypatch):
    world = World(DEFAULT_FLEET, HandClock(), seed=7)
    world.report(PARK.id)
    first = world.series(PARK.devices[0].serial, MIDNIGHT - 31 * DAY, MIDNIGHT, "day")
    monkeypatch.setattr("gateway.simulator.series.InitialState", None)  # nothing is left to live through
    second = world.series(PARK.devices[1].serial, MIDNIGHT - 31 * DAY, MIDNIGHT, "day")
    assert len(first) == len(second) == 31


def test_it_forgets_what_is_too_much_to_keep(world, clock):
    world.start()
    for _ in range(12):
        clock.advance(86_400)
        world.report(HOUSE_SERIAL)
    plant = world._live(HOUSE)
    assert len(plant.dawns) == len(plant.changes) == 8
    early = world.series(HOUSE_SERIAL, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY, "minutes")
    assert len(early) == 288
    assert UTC is early[0].time.tzinfo
