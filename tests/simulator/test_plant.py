"""The physics of one plant, without a cloud."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.simulator import plant as plant_module
from gateway.simulator.flows import BATTERY_EFFICIENCY, INVERTER_EFFICIENCY, SOC_MAX, SOC_MIN
from gateway.simulator.plant import Plant
from gateway.simulator.report import device_values, plant_values
from gateway.simulator.sky import Climate
from gateway.simulator.specs import PlantSpec
from tests.simulator.kit import BAKERY, HOUSE, HOUSE_SERIAL, NOON, PARK

DAWN = datetime(2026, 6, 21, 3, 0, tzinfo=UTC)
HOUR = 3600.0


def start(spec, moment=NOON, seed=7):
    return Plant(spec, seed, moment.timestamp())


def walk(plant, moment, hours, step=300.0):
    """Readings every `step` seconds."""
    return [plant.at(moment.timestamp() + n * step) for n in range(1, int(hours * HOUR / step) + 1)]


def soc(spec, reading, position=0):
    return reading.devices[position].soc(spec.devices[position].model.battery)


def sunny(spec, moment=NOON):
    """A seed with a clear sky there and then."""
    return next(s for s in range(100) if Climate(spec, s).clearness(moment.timestamp()) > 0.99)


# Determinism


@given(
    st.lists(st.floats(0, 6 * HOUR), max_size=20),
    st.sampled_from([HOUSE, BAKERY, PARK]),
    st.floats(0, 86_400),
)
@settings(max_examples=25, deadline=None)
def test_a_plant_is_the_same_however_often_it_is_asked(questions, spec, offset):
    moment = DAWN.timestamp() + offset
    asked, left_alone = Plant(spec, 7, moment), Plant(spec, 7, moment)
    for question in sorted(questions):
        asked.at(moment + question)
    assert asked.at(moment + 6 * HOUR + 7) == left_alone.at(moment + 6 * HOUR + 7)


def test_a_plant_is_the_same_however_often_it_is_asked_when_commanded():
    asked, left_alone = start(HOUSE), start(HOUSE)
    moment = NOON.timestamp()
    walk(asked, NOON, 0.5, step=7)
    for plant in (asked, left_alone):
        plant.command(HOUSE_SERIAL, {"battery_mode": "discharge", "battery_power_target": 2000.0}, moment + 1900.5)
    assert asked.at(moment + 5000) == left_alone.at(moment + 5000)


def test_another_seed_is_another_day():
    assert start(HOUSE, seed=1).at(NOON.timestamp()) != start(HOUSE, seed=2).at(NOON.timestamp())


def test_time_does_not_go_back():
    plant = start(HOUSE)
    later = plant.at(NOON.timestamp() + 600)
    assert plant.at(NOON.timestamp()).time == later.time


# Balance and limits


@given(st.integers(0, 10_000), st.sampled_from([HOUSE, BAKERY, PARK]), st.floats(0, 86_400 * 365))
@settings(max_examples=60, deadline=None)
def test_pv_and_battery_and_grid_make_the_load(seed, spec, offset):
    reading = Plant(spec, seed, NOON.timestamp() + offset).at(NOON.timestamp() + offset)
    flow = reading.flow
    assert flow.pv + flow.battery + flow.grid == pytest.approx(flow.load, abs=0.01)
    assert flow.pv >= 0
    assert flow.load >= 0
    values = plant_values(spec, reading)
    parts = [values["pv_power"], values["battery_power"] or 0.0, values["grid_power"]]
    assert sum(parts) == pytest.approx(values["load_power"], abs=0.01)


@given(st.integers(0, 1000), st.sampled_from([HOUSE, BAKERY, PARK]))
@settings(max_examples=30, deadline=None)
def test_an_inverter_gives_at_most_its_rated_power(seed, spec):
    reading = start(spec, seed=seed).at(NOON.timestamp())
    for device, flow in zip(spec.devices, reading.flow.devices, strict=True):
        assert flow.ac <= device.model.rated_power * (1 + 1e-9)


def test_more_modules_than_the_inverter_takes_are_clipped_at_its_rated_power():
    greedy = msgspec.structs.replace(PARK.devices[0], peak_power=100_000)
    spec = PlantSpec(PARK.id, PARK.name, PARK.site, PARK.load, (greedy,))
    flow = start(spec, seed=sunny(spec)).at(NOON.timestamp()).flow.devices[0]
    assert flow.available > 60_000
    assert flow.ac == pytest.approx(50_000)


@pytest.mark.parametrize("limit", [0.0, 10.0, 30.0])
def test_the_commanded_limit_holds_and_the_strings_show_it(limit):
    seed = sunny(PARK)
    plant = start(PARK, seed=seed)
    before = device_values(PARK, 0, plant.at(NOON.timestamp()), seed)
    plant.command(PARK.devices[0].serial, {"active_power_limit": limit}, NOON.timestamp() + 10)
    reading = plant.at(NOON.timestamp() + 10)
    after = device_values(PARK, 0, reading, seed)
    assert after["ac_power"] == pytest.approx(500 * limit)
    assert after["pv1_voltage"] > before["pv1_voltage"]
    assert reading.flow.devices[1].ac > 25_000


def test_an_inverter_told_to_stand_still_gives_nothing_and_waits():
    plant = start(BAKERY)
    plant.command(BAKERY.devices[0].serial, {"running": False}, NOON.timestamp())
    reading = plant.at(NOON.timestamp())
    values = device_values(BAKERY, 0, reading, 7)
    assert (values["ac_power"], values["pv_power"], values["battery_power"]) == (0, 0, 0)
    assert (values["status"], values["running"]) == ("waiting", False)
    assert reading.flow.devices[1].ac > 0
    plant.command(BAKERY.devices[0].serial, {"running": True}, NOON.timestamp() + 60)
    assert plant.at(NOON.timestamp() + 60).flow.devices[0].ac > 0


def test_night_is_dark():
    midnight = datetime(2026, 6, 22, 0, 30, tzinfo=PARK.zone)
    plant = start(PARK, midnight)
    reading = plant.at(midnight.timestamp())
    values = device_values(PARK, 0, reading, 7)
    assert (values["pv_power"], values["ac_power"], values["pv1_voltage"], values["pv1_current"]) == (0, 0, 0, 0)
    assert values["status"] == "waiting"
    assert 220 < values["l1_voltage"] < 240
    assert reading.flow.grid == reading.flow.load > 0
    assert plant_values(PARK, reading)["status"] == "waiting"


def test_what_a_device_measures_fits_together():
    seed = sunny(HOUSE)
    reading = start(HOUSE, seed=seed).at(NOON.timestamp())
    values = device_values(HOUSE, 0, reading, seed)
    strings = sum(values[f"pv{n}_voltage"] * values[f"pv{n}_current"] for n in (1, 2))
    phases = sum(values[f"l{n}_voltage"] * values[f"l{n}_current"] for n in (1, 2, 3))
    assert strings == pytest.approx(values["pv_power"])
    assert phases == pytest.approx(values["ac_apparent_power"])
    assert abs(values["ac_power"]) < values["ac_apparent_power"] < abs(values["ac_power"]) * 1.001
    assert values["battery_voltage"] * values["battery_current"] == pytest.approx(values["battery_power"])
    assert "pv3_voltage" not in values
    assert 49.8 < values["l1_frequency"] == values["l2_frequency"] < 50.2
    assert 20 < values["temperature"] < 85
    dc = values["pv_power"] + values["battery_power"]
    assert values["ac_power"] == pytest.approx(dc * INVERTER_EFFICIENCY)


def test_one_plant_has_one_meter_and_a_device_without_it_knows_nothing_of_the_grid():
    reading = start(BAKERY).at(NOON.timestamp())
    assert device_values(BAKERY, 0, reading, 7)["grid_power"] == reading.flow.grid
    assert device_values(BAKERY, 1, reading, 7)["grid_power"] is None
    assert device_values(BAKERY, 1, reading, 7)["battery_power"] is None


# Battery


@given(
    st.integers(0, 1000),
    st.lists(
        st.tuples(
            st.sampled_from(["idle", "charge", "discharge"]), st.floats(0, 5000), st.floats(0, 100), st.floats(1, 8)
        ),
        max_size=6,
    ),
)
@settings(max_examples=25, deadline=None)
def test_the_state_of_charge_keeps_its_limits_whatever_is_commanded(seed, commands):
    plant, moment = start(HOUSE, seed=seed), NOON
    for mode, power, target, hours in commands:
        setpoints = {"battery_mode": mode, "battery_power_target": power, "battery_target_soc": target}
        plant.command(HOUSE_SERIAL, setpoints, moment.timestamp())
        for reading in walk(plant, moment, hours, step=1231.7):
            assert SOC_MIN - 1e-6 <= soc(HOUSE, reading) <= SOC_MAX + 1e-6
            assert abs(reading.flow.battery) <= 5000
        moment += timedelta(hours=hours)


def test_untold_the_battery_takes_the_surplus_and_covers_the_load():
    plant = start(HOUSE, DAWN - timedelta(hours=3))
    charging = discharging = 0
    for reading in walk(plant, DAWN - timedelta(hours=3), 48):
        flow = reading.flow
        if flow.battery < -1:
            charging += 1
            assert flow.pv > 0
            assert flow.grid < 1
        elif flow.battery > 1:
            discharging += 1
            assert flow.grid > -1
    assert charging > 10
    assert discharging > 10


def test_told_to_charge_it_charges_from_the_grid_by_night_up_to_its_target():
    night = datetime(2026, 12, 21, 22, 0, tzinfo=UTC)
    plant = start(HOUSE, night)
    setpoints = {"battery_mode": "charge", "battery_power_target": 4000.0, "battery_target_soc": 80.0}
    plant.command(HOUSE_SERIAL, setpoints, night.timestamp())
    first = plant.at(night.timestamp())
    assert first.flow.battery == -4000
    assert first.flow.grid > 4000
    assert first.flow.devices[0].ac == pytest.approx(-4000 / INVERTER_EFFICIENCY)
    last = walk(plant, night, 4)[-1]
    assert soc(HOUSE, last) == pytest.approx(80, abs=0.1)
    assert last.flow.battery == pytest.approx(0, abs=20)


def test_told_to_discharge_it_stops_at_its_target_and_at_ten_percent():
    plant, moment = start(HOUSE), NOON
    for target, reached in ((50.0, 50), (0.0, 10)):
        setpoints = {"battery_mode": "discharge", "battery_power_target": 5000.0, "battery_target_soc": target}
        plant.command(HOUSE_SERIAL, setpoints, moment.timestamp())
        assert plant.at(moment.timestamp()).flow.battery == 5000
        assert soc(HOUSE, walk(plant, moment, 3)[-1]) == pytest.approx(reached, abs=0.1)
        moment += timedelta(hours=3)


def test_idle_it_keeps_its_charge():
    plant = start(HOUSE)
    plant.command(HOUSE_SERIAL, {"battery_mode": "idle"}, NOON.timestamp())
    charges = {soc(HOUSE, reading) for reading in walk(plant, NOON, 24, step=HOUR)}
    assert len(charges) == 1


def test_a_round_trip_costs_what_it_costs():
    plant, moment = start(HOUSE), NOON.timestamp()
    moved = []
    for mode, target in (("discharge", 20.0), ("charge", 90.0), ("discharge", 20.0)):
        setpoints = {"battery_mode": mode, "battery_power_target": 5000.0, "battery_target_soc": target}
        plant.command(HOUSE_SERIAL, setpoints, moment)
        before, moment = plant.at(moment).devices[0], moment + 4 * HOUR
        after = plant.at(moment).devices[0]
        moved.append(after.charged.total - before.charged.total + after.discharged.total - before.discharged.total)
    assert moved[2] / moved[1] == pytest.approx(BATTERY_EFFICIENCY**2, abs=0.002)


# Counters


def totals(spec, reading):
    values = dict(plant_values(spec, reading))
    for position in range(len(spec.devices)):
        of_device = device_values(spec, position, reading, 7)
        values |= {f"{position}.{key}": value for key, value in of_device.items()}
    return {key: value for key, value in values.items() if key.endswith(("_total", "operating_hours"))}


@pytest.mark.parametrize("step", [37.0, 60.0, 1777.0, 86_000.0])
@pytest.mark.parametrize("spec", [HOUSE, BAKERY, PARK], ids=lambda spec: spec.name)
def test_totals_never_fall(spec, step):
    plant = start(spec)
    last = totals(spec, plant.at(NOON.timestamp()))
    for reading in walk(plant, NOON, min(step * 150, 86_400 * 10) / HOUR, step=step):
        now = totals(spec, reading)
        assert all(now[key] >= last[key] for key in now)
        last = now


def test_totals_do_not_fall_when_a_long_gap_follows_a_short_one():
    plant = start(BAKERY)
    moment, last = NOON.timestamp(), {}
    for gap in (59.9, 86_400.0, 33.3, 30 * 86_400.0, 0.1):
        moment += gap
        now = totals(BAKERY, plant.at(moment))
        assert all(now[key] >= last.get(key, 0) for key in now)
        last = now


def test_what_is_generated_is_power_over_time():
    plant = start(PARK)
    before = plant.at(NOON.timestamp())
    readings = walk(plant, NOON, 2, step=60)
    energy = sum(reading.flow.pv for reading in [before, *readings[:-1]]) / 1000 / 60
    grown = sum(d.generated.total for d in readings[-1].devices) - sum(d.generated.total for d in before.devices)
    assert grown == pytest.approx(energy, rel=1e-6)


@pytest.mark.parametrize("spec", [HOUSE, BAKERY, PARK], ids=lambda spec: spec.name)
def test_today_begins_at_local_midnight(spec):
    evening = datetime(2026, 6, 30, 21, 0, tzinfo=spec.zone)
    midnight = datetime(2026, 7, 1, 0, 0, tzinfo=spec.zone)
    plant = start(spec, evening)
    before = plant_values(spec, plant.at(midnight.timestamp() - 1))
    after = plant_values(spec, plant.at(midnight.timestamp()))
    assert before["energy_today"] > 1
    assert (after["energy_today"], after["energy_month"]) == (0, 0)
    assert after["energy_total"] == pytest.approx(before["energy_total"])
    assert after["load_energy_today"] == pytest.approx(0)


def test_a_day_of_the_same_month_keeps_the_month():
    midnight = datetime(2026, 6, 22, 0, 0, tzinfo=PARK.zone)
    reading = start(PARK, NOON).at(midnight.timestamp())
    values = plant_values(PARK, reading)
    assert values["energy_today"] == 0
    assert values["energy_month"] > 21 * 500


@pytest.mark.parametrize("day", [(3, 29), (10, 25)], ids=["23 hours", "25 hours"])
def test_a_day_with_a_change_of_clocks_has_its_own_length(day):
    morning = datetime(2026, *day, tzinfo=HOUSE.zone)
    following = morning + timedelta(days=1)  # by the calendar, as aware datetimes add
    length = following.timestamp() - morning.timestamp()
    assert length in {23 * HOUR, 25 * HOUR}
    plant = start(HOUSE, morning)
    assert plant.at(morning.timestamp() + length - 1).grid.consumed.today > 3
    assert plant.at(morning.timestamp() + length + 59).grid.consumed.today < 0.1


def test_a_plant_that_starts_at_noon_has_had_its_morning():
    begun, lived = start(HOUSE), start(HOUSE, NOON - timedelta(hours=11))
    now, then = begun.at(NOON.timestamp()).devices[0], lived.at(NOON.timestamp()).devices[0]
    assert now.generated.today == pytest.approx(then.generated.today, rel=0.1)
    assert now.generated.today > 3
    assert now.generated.total > 20_000


# Long gaps


def test_a_long_gap_costs_a_bounded_number_of_steps(monkeypatch):
    plant = start(BAKERY)
    solved = 0
    solve = plant_module.solve

    def counted(*args):
        nonlocal solved
        solved += 1
        return solve(*args)

    monkeypatch.setattr(plant_module, "solve", counted)
    for gap in (86_400, 3 * 86_400, 400 * 86_400):
        solved = 0
        plant.at(plant.time + gap)
        assert 100 < solved < 2 * plant_module.MAX_STEPS


def test_a_day_in_long_steps_is_near_a_day_in_short_ones():
    fine, coarse = start(HOUSE), start(HOUSE)
    walk(fine, NOON, 48, step=600)
    end = NOON.timestamp() + 48 * HOUR
    exact, rough = fine.at(end).devices[0], coarse.at(end).devices[0]
    assert rough.generated.total == pytest.approx(exact.generated.total, abs=2)
    assert rough.stored == pytest.approx(exact.stored, abs=1)


def test_time_left_out_leaves_the_counters_and_passes_the_months():
    plant = start(PARK)
    before = plant_values(PARK, plant.at(NOON.timestamp()))
    after = plant_values(PARK, plant.at(NOON.timestamp() + 40 * 86_400))
    week = after["energy_total"] - before["energy_total"]
    assert 3_000 < week < 20_000
    assert after["energy_month"] < before["energy_month"]


# Faults


def test_a_tripped_device_stands_still_and_says_why():
    plant = start(HOUSE)
    plant.trip(HOUSE_SERIAL, NOON.timestamp(), tripped=True)
    reading = plant.at(NOON.timestamp())
    values = device_values(HOUSE, 0, reading, 7)
    assert (values["status"], values["ac_power"]) == ("fault", 0)
    assert values["fault_code"]
    assert values["fault_text"]
    assert plant_values(HOUSE, reading)["status"] == "fault"
    plant.trip(HOUSE_SERIAL, NOON.timestamp() + 60, tripped=False)
    assert device_values(HOUSE, 0, plant.at(NOON.timestamp() + 60), 7)["status"] == "normal"
