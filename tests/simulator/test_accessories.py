"""Batteries, meters, data loggers, weather stations and chargers: they tell of the same physics as the inverters."""

from datetime import UTC, datetime

import pytest

from gateway.core.points import POINTS, Type
from gateway.sems.catalogue import Use, load
from gateway.simulator.fleet import DEFAULT_FLEET, make_fleet
from gateway.simulator.sky import Climate
from gateway.simulator.world import World
from tests.simulator.kit import BAKERY, HOUSE, HOUSE_SERIAL, NOON, PARK, HandClock

TYPES = ("inverter", "storage", "battery", "meter", "ev_charger", "sec1000", "homekit", "weather_station", "plant")
STORED = {
    "battery_power", "battery_soc", "battery_soh", "battery_voltage", "battery_current", "battery_temperature",
    "battery_charge_today", "battery_charge_total", "battery_discharge_today", "battery_discharge_total",
    "battery_mode", "battery_power_target", "battery_target_soc", "work_mode", "backup_power",
}  # fmt: skip
METERED = {
    "load_power", "grid_power", "load_energy_today", "load_energy_total",
    "grid_import_today", "grid_import_total", "grid_export_today", "grid_export_total",
}  # fmt: skip
PHASES = {f"l{n}_{what}" for n in (1, 2, 3) for what in ("voltage", "current", "frequency")}
LACKING = {
    "inverter": STORED | METERED,
    # No hybrid inverter of the default fleet has four strings, and none has been dispatched.
    "storage": {"pv4_voltage", "pv4_current", "battery_power_target", "battery_target_soc"},
    # GetSEC1000 tells of its meters too.
    "sec1000": METERED | PHASES | {"ac_reactive_power", "ac_power_factor"},
    "meter": {"signal_strength", "ac_power", "active_power_limit", "reactive_power", "power_factor", "export_limit"},
}
"""Type → points of its interfaces that it has no hardware for."""


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def world(clock):
    return World(DEFAULT_FLEET, clock, seed=7)


def of(plant, type_):
    return next(accessory.serial for accessory in plant.accessories if accessory.type == type_)


def test_the_default_fleet_has_one_of_each_type_and_serials_of_their_own(world):
    serials = [device.serial for plant in world for device in plant.everything]
    assert len(serials) == len(set(serials)) == 18
    assert {len(serial) for serial in serials} == {16}
    assert {world.type_of(serial) for serial in serials} | {"plant"} == set(TYPES)
    assert world.type_of(HOUSE.id) == "plant"
    assert world.type_of("nobody") is None
    assert world.home(of(HOUSE, "battery")) is HOUSE
    assert world.accessory(of(HOUSE, "meter")).type == "meter"
    assert world.accessory(HOUSE_SERIAL) is world.device(of(HOUSE, "meter")) is None


def test_made_up_plants_have_inverters_alone():
    assert all(not plant.accessories for plant in make_fleet(50)[3:])


@pytest.mark.parametrize("type_", TYPES)
def test_every_point_that_an_interface_brings_has_a_value_its_point_takes(world, type_):
    brought = {
        point
        for interface in load("open_api").interfaces
        if interface.use in {Use.LIVE, Use.DETAIL} and type_ in (*interface.of, *interface.covers)
        for point in interface.points
    }
    things = [thing for plant in world for thing in (plant.id, *(device.serial for device in plant.everything))]
    told = {}
    for serial in (thing for thing in things if world.type_of(thing) == type_):
        told |= {point: value for point, value in world.report(serial).values.items() if value is not None}
    assert brought - told.keys() == brought & LACKING.get(type_, set())
    for point, value in told.items():
        row = POINTS[point]
        if row.type is Type.TEXT:
            assert isinstance(value, str)
        else:
            assert row.parse(value) == value


def test_pv_battery_grid_and_load_are_the_same_wherever_they_are_read(world):
    plant, inverter = world.report(HOUSE.id).values, world.report(HOUSE_SERIAL).values
    battery, meter = world.report(of(HOUSE, "battery")).values, world.report(of(HOUSE, "meter")).values
    homekit, charger = world.report(of(HOUSE, "homekit")).values, world.report(of(HOUSE, "ev_charger")).values
    assert battery["battery_power"] == inverter["battery_power"] == plant["battery_power"]
    assert battery["battery_soc"] == inverter["battery_soc"]
    assert meter["grid_power"] == homekit["grid_power"] == inverter["grid_power"] == plant["grid_power"]
    assert homekit["load_power"] == plant["load_power"]
    assert plant["ev_power"] == charger["ev_power"] > 0
    assert plant["load_power"] > charger["ev_power"]
    balance = inverter["pv_power"] + battery["battery_power"] + meter["grid_power"]
    assert balance == pytest.approx(homekit["load_power"], abs=0.01)


def test_volts_times_amperes_are_volt_amperes_at_a_meter(world):
    meter = world.report(of(BAKERY, "meter")).values
    apparent = sum(meter[f"l{n}_voltage"] * meter[f"l{n}_current"] for n in (1, 2, 3))
    assert apparent == pytest.approx((meter["grid_power"] ** 2 + meter["ac_reactive_power"] ** 2) ** 0.5)
    assert abs(meter["grid_power"]) / apparent == pytest.approx(abs(meter["ac_power_factor"]))


def test_a_meters_counters_are_the_plants_and_those_of_generation_what_the_inverters_gave(world):
    plant = world.report(PARK.id).values
    connection, generation = (
        world.report(accessory.serial).values for accessory in PARK.accessories if accessory.type == "meter"
    )
    assert connection["grid_export_today"] == plant["grid_export_today"]
    assert generation["grid_export_today"] > connection["grid_export_today"] > 100
    assert generation["grid_export_total"] > connection["grid_export_total"] > connection["grid_import_total"]
    logger = world.report(of(PARK, "sec1000")).values
    inverters = [world.report(device.serial).values["ac_power"] for device in PARK.devices]
    assert logger["ac_power"] == pytest.approx(sum(inverters)) == -generation["grid_power"]


def test_a_weather_station_feels_the_sun_that_drives_the_inverters(clock):
    world = World(DEFAULT_FLEET, clock, seed=7)
    station, inverter = of(PARK, "weather_station"), PARK.devices[0]
    pairs = []
    for _ in range(24):
        clock.advance(3600)
        weather = world.report(station).values
        pairs.append((weather["irradiance"], world.report(inverter.serial).values["pv_power"]))
        assert weather["module_temperature"] >= weather["ambient_temperature"]
        assert 15 <= weather["humidity"] <= 100
        assert 0 <= weather["wind_speed"] < 30
    assert min(pairs)[1] == 0
    bright = [power / light for light, power in pairs if 100 < light < 600]
    assert max(bright) < 1.25 * min(bright)


def test_wind_is_smooth_deterministic_and_comes_from_everywhere():
    climate = Climate(PARK, 7)
    times = [NOON.timestamp() + 600 * n for n in range(144 * 60)]
    winds = [climate.weather(time, climate.sky(time)) for time in times]
    assert {int(wind.wind_direction // 10) for wind in winds} == set(range(36))
    assert max(wind.wind_speed for wind in winds) > 9
    assert min(wind.wind_speed for wind in winds) < 1
    for time in times[::500]:
        now, soon = (climate.weather(t, climate.sky(t)) for t in (time, time + 1))
        turned = abs(now.wind_direction - soon.wind_direction)
        assert min(turned, 360 - turned) < 1
        assert abs(now.wind_speed - soon.wind_speed) < 1


def test_an_accessory_that_is_offline_keeps_its_last_word_and_its_plant_goes_on(world, clock):
    station = of(PARK, "weather_station")
    before = world.report(station).values
    world.silence(station, offline=True)
    clock.advance(3600)
    assert world.report(station).values == {**before, "status": "offline"}
    assert world.report(PARK.id).values["status"] == "normal"
    world.silence(station, offline=False)
    assert world.report(station).values["irradiance"] != before["irradiance"]


def test_a_tripped_charger_stands_still_and_says_why(world):
    charger = of(HOUSE, "ev_charger")
    world.trip(charger, tripped=True)
    values = world.report(charger).values
    assert (values["status"], values["ev_power"], values["ev_status"]) == ("fault", 0, "plugged")
    assert values["fault_code"]
    assert world.ailing == [charger]
    world.trip(charger, tripped=False)
    assert world.report(charger).values["ev_status"] == "charging"


def test_what_takes_no_commands_says_so(world):
    now = world.physics.now()
    with pytest.raises(ValueError, match="weather_station takes no commands"):
        world.command(of(PARK, "weather_station"), {"running": False}, now)
    with pytest.raises(KeyError):
        world.command("nobody", {"running": False}, now)
    assert world.setpoints(of(PARK, "weather_station")) == world.setpoints(of(HOUSE, "meter"))


def test_a_year_of_energy_is_not_less_than_a_month_nor_more_than_a_lifetime(world):
    for plant in world:
        for device in plant.devices:
            values = world.report(device.serial).values
            assert values["energy_today"] <= values["energy_month"] <= values["energy_year"] <= values["energy_total"]


def test_on_the_first_of_january_the_year_begins_anew():
    eve = HandClock(datetime(2026, 12, 31, 22, 50, tzinfo=UTC))
    world = World(DEFAULT_FLEET, eve, seed=7)
    assert world.report(HOUSE_SERIAL).values["energy_year"] > 1000
    eve.advance(900)
    values = world.report(HOUSE_SERIAL).values
    assert values["energy_year"] == values["energy_month"] == 0


def test_income_is_the_yields_worth_and_only_where_there_is_a_tariff():
    clock = HandClock()
    world = World(make_fleet(4), clock)
    values = world.report(HOUSE.id).values
    assert values["income_today"] == pytest.approx(0.12 * values["energy_today"])
    assert values["income_total"] > values["income_today"]
    made_up = list(world)[3]
    assert "income_today" not in world.report(made_up.id).values
