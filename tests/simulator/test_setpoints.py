"""What inverters make of reactive power, export limits, work modes, and of a data logger's word."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.simulator.plant import Plant
from gateway.simulator.report import device_values
from gateway.simulator.setpoints import Setpoints
from tests.simulator.kit import BAKERY, HOUSE, HOUSE_SERIAL, NOON, PARK
from tests.simulator.test_plant import soc, start, sunny, walk

NOW = NOON.timestamp()
LOGGER = next(accessory.serial for accessory in PARK.accessories if accessory.type == "sec1000")
STORE, ROOF = (device.serial for device in BAKERY.devices)


def told(spec, serial, orders, moment=NOON, seed=7):
    """A plant whose device was told these, one after the other."""
    plant = start(spec, moment, seed)
    for order in orders if isinstance(orders, list) else [orders]:
        plant.command(serial, order, moment.timestamp())
    return plant


# Reactive power


@pytest.mark.parametrize(("percent", "sign"), [(30.0, 1), (-30.0, -1)])
def test_reactive_power_is_a_part_of_the_rated_power(percent, sign):
    flow = told(PARK, PARK.devices[0].serial, {"reactive_power": percent}).at(NOW).flow.devices[0]
    assert flow.reactive == sign * 15_000
    assert flow.ac > 30_000


@pytest.mark.parametrize("factor", [0.9, -0.9])
def test_a_power_factor_is_kept_and_its_sign_says_which_way(factor):
    plant = told(PARK, PARK.devices[0].serial, {"power_factor": factor})
    values = device_values(PARK, 0, plant.at(NOW), 7)
    assert values["ac_power_factor"] == pytest.approx(factor)
    assert (values["ac_reactive_power"] > 0) is (factor > 0)
    assert values["ac_power"] / values["ac_apparent_power"] == pytest.approx(0.9)


@given(st.floats(-100, 100), st.floats(-1, 1), st.booleans(), st.integers(0, 500), st.floats(0, 100))
@settings(max_examples=60, deadline=None)
def test_apparent_power_stays_within_the_rating(percent, factor, by_factor, seed, limit):
    order = {"power_factor": factor} if by_factor else {"reactive_power": percent}
    charge = {"battery_mode": "charge", "battery_power_target": 15_000.0}
    for serial, extra in ((STORE, charge), (STORE, {}), (ROOF, {})):
        plant = told(BAKERY, serial, [order | extra, {"active_power_limit": limit}], seed=seed)
        for device, flow in zip(BAKERY.devices, plant.at(NOW).flow.devices, strict=True):
            assert flow.apparent <= device.model.rated_power * 1.0003  # the filters' own, untold


def test_where_reactive_power_takes_the_room_active_power_gives_way():
    seed = sunny(PARK)
    free = start(PARK, seed=seed).at(NOW).flow.devices[0]
    bound = told(PARK, PARK.devices[0].serial, {"reactive_power": 80.0}, seed=seed).at(NOW).flow.devices[0]
    assert bound.ac == pytest.approx(30_000)
    assert free.ac > 40_000
    assert bound.pv < bound.available


def test_one_rule_for_reactive_power_ends_the_other():
    plant = told(PARK, PARK.devices[0].serial, [{"reactive_power": 30.0}, {"power_factor": 0.95}])
    setpoints = plant.setpoints(PARK.devices[0].serial)
    assert (setpoints.reactive_power, setpoints.power_factor) == (0.0, 0.95)
    plant.command(PARK.devices[0].serial, {"reactive_power": -10.0}, NOW)
    assert plant.setpoints(PARK.devices[0].serial).power_factor == 1.0


def test_by_night_there_is_no_reactive_power():
    midnight = datetime(2026, 6, 21, 23, 0, tzinfo=UTC)
    plant = told(PARK, PARK.devices[0].serial, {"reactive_power": 50.0}, midnight)
    assert plant.at(midnight.timestamp()).flow.devices[0].reactive == 0


# Export


@pytest.mark.parametrize("limit", [0.0, 3_000.0, 12_000.0])
@pytest.mark.parametrize("serial", [STORE, ROOF])
def test_no_more_is_fed_in_than_the_export_limit(limit, serial):
    plant = told(BAKERY, serial, {"export_limit": limit})
    readings = walk(plant, NOON, 6)
    assert min(reading.flow.grid for reading in readings) == pytest.approx(-limit, abs=0.01)
    for reading in readings:
        flow = reading.flow
        assert flow.grid >= -limit - 0.01
        assert flow.pv + flow.battery + flow.grid == pytest.approx(flow.load)


def test_the_inverter_that_was_told_gives_way_first():
    plant = told(BAKERY, ROOF, {"export_limit": 20_000.0})
    store, roof = plant.at(NOW).flow.devices
    assert store.pv == store.available
    assert roof.pv < roof.available


def test_a_battery_told_to_discharge_gives_way_after_the_modules():
    order = {"battery_mode": "discharge", "battery_power_target": 4_000.0, "export_limit": 500.0}
    flow = told(HOUSE, HOUSE_SERIAL, [order, {"battery_target_soc": 0.0}]).at(NOW).flow
    assert flow.grid == pytest.approx(-500)
    assert flow.battery == pytest.approx(4_000)
    assert flow.pv < flow.devices[0].available
    tighter = told(HOUSE, HOUSE_SERIAL, order | {"active_power_limit": 100.0})
    tighter.command(HOUSE.chargers[0].serial, {"charging": False}, NOW)
    flow = tighter.at(NOW).flow
    assert flow.grid == pytest.approx(-500)
    assert flow.battery < 4_000
    assert flow.pv == 0


def test_a_limit_does_not_stop_a_site_from_importing():
    evening = datetime(2026, 6, 21, 21, 0, tzinfo=UTC)
    plant = told(PARK, LOGGER, {"export_limit": 0.0}, evening)
    assert plant.at(evening.timestamp()).flow.grid > 0


# A data logger


def test_what_a_data_logger_is_told_holds_for_all_inverters_and_the_tighter_limit_counts():
    plant = told(PARK, LOGGER, {"active_power_limit": 30.0})
    plant.command(PARK.devices[1].serial, {"active_power_limit": 10.0}, NOW)
    plant.command(PARK.devices[2].serial, {"active_power_limit": 60.0}, NOW)
    powers = [flow.ac for flow in plant.at(NOW).flow.devices]
    assert powers == pytest.approx([15_000, 5_000, 15_000, 15_000, 15_000])
    assert plant.setpoints(LOGGER).active_power_limit == 30
    assert plant.setpoints(PARK.devices[0].serial).active_power_limit == 100


def test_a_data_loggers_word_on_reactive_power_goes_first():
    plant = told(PARK, PARK.devices[0].serial, {"reactive_power": 10.0})
    plant.command(LOGGER, {"power_factor": -0.95}, NOW)
    first, second = plant.at(NOW).flow.devices[:2]
    assert first.reactive == second.reactive < 0
    plant.command(LOGGER, {"power_factor": 1.0}, NOW)
    assert plant.at(NOW).flow.devices[0].reactive == 5_000


def test_a_data_loggers_export_limit_holds_at_the_grid_connection():
    flow = told(PARK, LOGGER, {"export_limit": 50_000.0}).at(NOW).flow
    assert flow.grid == pytest.approx(-50_000)


# Work modes


def test_backup_fills_the_battery_and_keeps_it_full():
    evening = datetime(2026, 6, 21, 20, 0, tzinfo=UTC)
    plant = told(HOUSE, HOUSE_SERIAL, {"work_mode": "backup"}, evening)
    assert plant.at(evening.timestamp()).flow.battery == -5_000
    charges = [soc(HOUSE, reading) for reading in walk(plant, evening, 24)]
    assert charges == sorted(charges)
    assert charges[-1] == pytest.approx(100)


def test_eco_charges_by_night_and_covers_the_load_by_day():
    night = datetime(2026, 6, 22, 1, 0, tzinfo=HOUSE.zone)
    plant = told(HOUSE, HOUSE_SERIAL, {"work_mode": "eco"}, night)
    assert plant.at(night.timestamp()).flow.battery == -5_000
    readings = walk(plant, night, 18)
    assert soc(HOUSE, readings[50]) == pytest.approx(100)
    assert min(soc(HOUSE, reading) for reading in readings[80:]) < 99


def test_peak_shaving_leaves_the_small_loads_to_the_grid():
    night = datetime(2026, 6, 20, 1, 10, tzinfo=BAKERY.zone)
    plain = told(BAKERY, STORE, {"work_mode": "self_use"}, night).at(night.timestamp()).flow
    shaved = told(BAKERY, STORE, {"work_mode": "peak_shaving"}, night).at(night.timestamp()).flow
    assert plain.grid == pytest.approx(0, abs=1)
    assert shaved.battery > 0
    assert shaved.battery == pytest.approx(plain.battery - 6_000)
    noon = told(BAKERY, STORE, {"work_mode": "peak_shaving"})
    assert noon.at(NOW).flow.battery <= 0


def test_off_grid_feeds_nothing_in():
    readings = walk(told(HOUSE, HOUSE_SERIAL, {"work_mode": "off_grid"}), NOON, 4)
    assert min(reading.flow.grid for reading in readings) > -0.01


@pytest.mark.parametrize("mode", ["general", "self_use"])
def test_a_work_mode_ends_a_dispatch_order(mode):
    evening = datetime(2026, 6, 21, 19, 0, tzinfo=UTC)
    plant = told(HOUSE, HOUSE_SERIAL, {"battery_mode": "idle"}, evening)
    assert plant.at(evening.timestamp()).flow.battery == 0
    plant.command(HOUSE_SERIAL, {"work_mode": mode}, evening.timestamp())
    assert plant.at(evening.timestamp()).flow.battery > 300
    assert plant.setpoints(HOUSE_SERIAL) == Setpoints(work_mode=mode)


def test_a_dispatch_order_goes_before_the_work_mode():
    plant = told(HOUSE, HOUSE_SERIAL, [{"work_mode": "backup"}, {"battery_mode": "idle"}])
    assert plant.at(NOW).flow.battery == 0
    assert plant.setpoints(HOUSE_SERIAL).work_mode == "backup"


def test_the_backup_output_feeds_a_part_of_the_site_unless_the_inverter_stands_still():
    plant = Plant(HOUSE, 7, NOW)
    values = device_values(HOUSE, 0, plant.at(NOW), 7)
    assert 50 < values["backup_power"] < values["load_power"]
    plant.command(HOUSE_SERIAL, {"running": False}, NOW)
    assert device_values(HOUSE, 0, plant.at(NOW), 7)["backup_power"] == 0
    assert device_values(BAKERY, 1, start(BAKERY).at(NOW), 7)["backup_power"] is None
