"""What names say."""

import pytest

from gateway.learn.names import concepts, meanings


@pytest.mark.parametrize(
    ("point", "names"),
    [
        ("ac_power", ["pac", "P_ac", "OutputPower", "activePower"]),
        ("pv1_voltage", ["vpv1", "Vpv1", "dcVoltage1", "upv1", "mppt1_voltage"]),
        ("l2_current", ["iac2", "acCurrent2", "L2Current", "phase2_current"]),
        ("energy_today", ["eday", "dailyGeneration", "e_today", "generationToday"]),
        ("grid_export_total", ["esellTotal", "total_feed_in", "SellTotal"]),
        ("battery_soc", ["soc", "batterySoc", "bat_level"]),
        ("operating_hours", ["hour_total", "totalHours", "workHours"]),
        ("time", ["last_refresh_time", "refreshTime", "updateTime"]),
    ],
)
def test_words_for_the_same(point, names):
    assert all(concepts(name) in meanings(point, point) for name in names)


@pytest.mark.parametrize(
    ("point", "names"),
    [
        ("ac_power", ["maxPac", "pac2", "max_power_today", "ratedPower", "powerLimit", "reactivePower"]),
        ("l1_voltage", ["gridVoltageMax", "ratedVoltage", "busVoltage", "vac2", "vpv1"]),
        ("time", ["lastAlarmTime", "maxTime"]),
        ("energy_today", ["eday_last", "lastEday", "eday_previous", "edayForecast", "yesterdayEday"]),
        ("energy_year", ["last_year_energy", "yearEnergyLast"]),
        ("capacity", ["installed_capacity_last", "capacityLimit"]),
        ("battery_soc", ["lastSoc", "socMin", "soc_target", "socLast"]),
        ("operating_hours", ["last_hour_total"]),
        ("energy_total", ["lastTotalEnergy", "etotal_last", "energyToday", "totalImport", "co2Total", "totalPower"]),
        ("battery_power", ["batteryCount", "batteryCapacity", "pgrid"]),
        ("battery_charge_total", ["totalDischarge", "chargeToday"]),
    ],
)
def test_what_is_something_else(point, names):
    assert not any(concepts(name) in meanings(point, point) for name in names)
