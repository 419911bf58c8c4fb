from datetime import UTC, datetime
from math import asin, degrees

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator.fleet import AMSTERDAM, MADRID, MUNICH, SITES
from gateway.simulator.noise import smooth
from gateway.simulator.sky import Climate, irradiance, sun
from gateway.simulator.specs import Site
from tests.simulator.kit import BAKERY, HOUSE, NOON

TIMES = st.floats(min_value=1.5e9, max_value=2.2e9)
SOUTH = Site(-33.87, 151.21, "Australia/Sydney")


def elevation(site, *moment):
    return degrees(asin(sun(site, datetime(*moment, tzinfo=UTC).timestamp()).sin_elevation))


def highest(site, month, day):
    return max(elevation(site, 2026, month, day, hour, minute) for hour in range(24) for minute in (0, 15, 30, 45))


@pytest.mark.parametrize("site", SITES)
def test_the_sun_stands_as_high_at_the_solstices_as_the_latitude_says(site):
    assert highest(site, 6, 21) == pytest.approx(90 - site.latitude + 23.44, abs=0.3)
    assert highest(site, 12, 21) == pytest.approx(90 - site.latitude - 23.44, abs=0.3)


def test_the_sun_is_highest_when_the_longitude_says():
    # Munich, 2026-06-21: solar noon at 13:15:40 CEST (NOAA).
    noon = datetime(2026, 6, 21, 11, 15, 40, tzinfo=UTC).timestamp()
    before, highest, after = (sun(MUNICH, noon + seconds).sin_elevation for seconds in (-600, 0, 600))
    assert highest > max(before, after)


def test_south_of_the_equator_seasons_and_modules_are_turned_round():
    assert highest(SOUTH, 12, 21) > highest(SOUTH, 6, 21)
    midday = datetime(2026, 12, 21, 2, tzinfo=UTC).timestamp()
    assert irradiance(sun(SOUTH, midday), 1) > 900


@given(TIMES, st.sampled_from(SITES), st.floats(0.08, 1))
def test_irradiance_is_none_by_night_and_never_more_than_the_sun_has(time, site, clearness):
    light = irradiance(sun(site, time), clearness)
    assert 0 <= light < 1250
    if sun(site, time).sin_elevation <= 0:
        assert light == 0


@given(TIMES)
def test_weather_is_smooth(time):
    climate = Climate(HOUSE, 1)
    now, soon = climate.sky(time), climate.sky(time + 1)
    assert abs(now.irradiance - soon.irradiance) < 30
    assert abs(now.ambient - soon.ambient) < 0.01
    assert -30 < now.ambient < 48


def test_weather_is_the_seeds():
    times = [NOON.timestamp() + 600 * n for n in range(50)]
    assert [Climate(HOUSE, 1).sky(t) for t in times] == [Climate(HOUSE, 1).sky(t) for t in times]
    assert [Climate(HOUSE, 1).sky(t) for t in times] != [Climate(HOUSE, 2).sky(t) for t in times]


def test_there_are_clear_and_overcast_hours():
    clearness = [Climate(HOUSE, 1).clearness(NOON.timestamp() + 900 * n) for n in range(4 * 24 * 30)]
    assert max(clearness) == 1
    assert min(clearness) < 0.2
    assert 0.4 < sum(clearness) / len(clearness) < 0.85


def test_summer_is_warmer_than_winter_and_madrid_than_amsterdam():
    july, january = (datetime(2026, month, 20, 12, tzinfo=UTC).timestamp() for month in (7, 1))
    assert Climate(HOUSE, 1).ambient(july) > Climate(HOUSE, 1).ambient(january) + 8
    assert abs(MADRID.latitude) < abs(AMSTERDAM.latitude)


def test_a_bakery_works_by_night_by_its_own_clock():
    def mean(plant, hour):
        days = (datetime(2026, 6, day, hour, minute, tzinfo=plant.zone) for day in range(1, 29) for minute in (10, 40))
        return sum(Climate(plant, 1).load(day.timestamp()) for day in days) / 56

    assert mean(BAKERY, 4) > 3 * mean(BAKERY, 20)
    assert mean(HOUSE, 19) > 2 * mean(HOUSE, 3)


@given(st.integers(0, 2**64 - 1), st.floats(-1e9, 1e9))
def test_noise_keeps_its_range(seed, x):
    assert 0 <= smooth(seed, x) <= 1
