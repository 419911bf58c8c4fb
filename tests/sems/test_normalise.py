"""SEMS's answers, odd as they are, become points."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.points import POINTS, Type
from gateway.sems.catalogue import load
from gateway.sems.normalise import entries, read

BY_SN = load("open_api").interface("GetInverterBySN")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 6, 21, 12, 0, tzinfo=UTC)

ANSWER = {  # written from the fields that SEMS.md names as seen
    "sn": "9010KETU218W0001",
    "status": "1",
    "pac": "5234.5",
    "eday": 12.3,
    "daily_generation": "99",
    "etotal": "12345.6",
    "hour_total": 100,
    "tempperature": 41.5,
    "vpv1": 612.3,
    "vpv4": 6553.5,
    "ipv1": None,
    "vac1": 230.1,
    "fac3": 655.35,
    "soc": "87",
    "something_new": {"a": 1},
    "last_refresh_time": "2026-06-21 13:59:30",
}


def test_strings_nulls_sentinels_unknown_fields_and_the_odd_spelling():
    reading = read(BY_SN, ANSWER, BERLIN, NOW)
    assert reading.values == {
        "status": "normal",
        "ac_power": 5234.5,
        "energy_today": 12.3,
        "energy_total": 12345.6,
        "operating_hours": 100.0,
        "temperature": 41.5,
        "pv1_voltage": 612.3,
        "pv4_voltage": None,
        "pv1_current": None,
        "l1_voltage": 230.1,
        "l3_frequency": None,
        "battery_soc": 87.0,
    }
    assert reading.time == datetime(2026, 6, 21, 11, 59, 30, tzinfo=UTC)


@pytest.mark.parametrize("raw", ["", "abc", "nan", "inf", "1e999", [], {}, True, None, -1e9, 10**400])
def test_nonsense_is_not_there(raw):
    assert read(BY_SN, {"soc": raw}, BERLIN, NOW).values == {"battery_soc": None}


@pytest.mark.parametrize(("raw", "status"), [(-1, "offline"), ("0", "waiting"), (2.0, "fault"), (7, None), ("?", None)])
def test_codes_become_words(raw, status):
    assert read(BY_SN, {"status": raw}, BERLIN, NOW).values == {"status": status}


def test_a_whole_number_point_takes_a_number_with_a_fraction():
    assert read(BY_SN, {"rssi": "-61.4"}, BERLIN, NOW).values == {"signal_strength": -61}


@pytest.mark.parametrize(
    ("raw", "zone", "now", "utc"),
    [
        ("06/21/2026 08:00:00", "America/New_York", "2026-06-21T12:00", "2026-06-21T12:00"),
        ("2026-06-21T08:00:00", "UTC", "2026-06-21T08:00", "2026-06-21T08:00"),
        # The hour that comes twice: 02:30 is 00:30 UTC first and 01:30 UTC again.
        ("2026-10-25 02:30:00", "Europe/Berlin", "2026-10-25T00:31", "2026-10-25T00:30"),
        ("2026-10-25 02:30:00", "Europe/Berlin", "2026-10-25T01:31", "2026-10-25T01:30"),
    ],
)
def test_plant_local_time(raw, zone, now, utc):
    reading = read(BY_SN, {"last_refresh_time": raw}, ZoneInfo(zone), datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert reading.time == datetime.fromisoformat(utc).replace(tzinfo=UTC)


@pytest.mark.parametrize("raw", ["yesterday", 5, None, ""])
def test_no_time_is_none(raw):
    assert read(BY_SN, {"last_refresh_time": raw}, BERLIN, NOW).time is None


def test_a_list_an_object_or_neither():
    plants = load("open_api").interface("GetUserPlantList")
    assert entries(plants, {"list": [{"a": 1}, "no object"]}) == [{"a": 1}]
    assert entries(plants, [{"a": 1}]) == [{"a": 1}]
    assert entries(plants, None) == []
    assert entries(BY_SN, {"a": 1}) == [{"a": 1}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([row.field for row in BY_SN.response]), JSON))
def test_whatever_comes_values_fit_their_points(answer):
    for point, value in read(BY_SN, answer, BERLIN, NOW).values.items():
        if value is not None and POINTS[point].type is not Type.TEXT:
            assert POINTS[point].parse(value) == value
