"""SEMS's answers, odd as they are, become points."""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.points import POINTS, Type
from gateway.sems.catalogue import load
from gateway.sems.normalise import entries, read, samples
from gateway.sems.unknown_fields import UnknownFields
from tests.sems.kit import Notes

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
@example({"power_factor_set": 0})
@example({"power_factor_set": 0.5})
def test_whatever_comes_values_fit_their_points(answer):
    for point, value in read(BY_SN, answer, BERLIN, NOW).values.items():
        if value is not None and POINTS[point].type is not Type.TEXT:
            assert POINTS[point].parse(value) == value


POWER = load("open_api").interface("GetInverterPower")
STATIONS = load("developer").interface("DeviceTelemetry")
DAY = datetime(2026, 10, 25, 12, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("raw", "utc"),
    [
        ("2026-06-21", "2026-06-20T22:00"),
        ("2026-06", "2026-05-31T22:00"),
        ("06/21/2026", "2026-06-20T22:00"),
        ("6/1/2026 7:05", None),  # in January or in June: this alone does not tell
        ("2026-06-21 13:05", "2026-06-21T11:05"),
        (" 2026-06-21 13:05:09.123 ", "2026-06-21T11:05:09"),
        ("2026-06-21 24:00", "2026-06-21T22:00"),
        ("2026-06-21T13:05:00Z", "2026-06-21T13:05"),
        ("2026-06-21T13:05:00+0300", "2026-06-21T10:05"),
        ("2026-06-21 24:01", None),
        ("2026-06-21 13:60", None),
        ("2026-02-30", None),
        ("2026-13-01", None),
        ("9999-12-31 24:00", None),
        ("0001-01-01", None),
        ("13:05", None),  # on no day
        ("2026-06-2113:05", None),
        (" ", None),
        ("\u0662026-06-21", None),
        # The hour that does not come: as if clocks had not been set forward yet.
        ("2026-03-29 02:30:00", "2026-03-29T01:30"),
    ],
)
def test_the_ways_to_write_a_time(raw, utc):
    reading = read(BY_SN, {"last_refresh_time": raw}, BERLIN, NOW)
    assert reading.time == (utc and datetime.fromisoformat(utc).replace(tzinfo=UTC))


def test_the_hour_that_comes_twice_is_not_yet_to_come():
    """Measured at 02:10 summer time, asked for at 02:45 summer time: 02:10 winter time lies ahead."""
    now = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
    reading = read(BY_SN, {"last_refresh_time": "2026-10-25 02:10:00"}, BERLIN, now)
    assert reading.time == datetime(2026, 10, 25, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize("date", ["2026-10-25", "2026-03-29", "2026-06-21"])
@pytest.mark.parametrize("newest_first", [False, True])
def test_a_daylight_saving_hour_never_makes_a_total_fall(date, newest_first):
    day = datetime.fromisoformat(date).replace(tzinfo=BERLIN)
    history = load("open_api").interface("GetInverterHistory")
    begin, end = day.astimezone(UTC), (day + timedelta(days=1)).astimezone(UTC)
    times = [begin + timedelta(minutes=5 * n) for n in range(int((end - begin) / timedelta(minutes=5)))]
    records = [
        {"time": time.astimezone(BERLIN).strftime("%Y-%m-%d %H:%M:%S"), "etotal": str(100 + n)}
        for n, time in enumerate(times)
    ]
    found = samples(history, {"records": records[::-1] if newest_first else records}, BERLIN, NOW, day)
    assert [sample.time for sample in found] == times
    assert [sample.values["energy_total"] for sample in found] == [100.0 + n for n in range(len(times))]


def test_hours_are_of_the_day_that_was_asked_for():
    (sample,) = samples(POWER, {"pv": [{"x": "02:15", "y": 5}]}, BERLIN, NOW, datetime(2026, 3, 30, 12, tzinfo=BERLIN))
    assert sample.time == datetime(2026, 3, 30, 0, 15, tzinfo=UTC)


def test_a_time_that_comes_twice_is_one_sample():
    found = samples(POWER, {"pv": [{"x": "12:00", "y": 5}, {"x": "12:00", "y": 6}]}, BERLIN, NOW, DAY)
    assert [dict(sample.values) for sample in found] == [{"ac_power": 6.0}]


def test_the_first_shape_that_has_entries_counts():
    generation = load("open_api").interface("GetInverterGeneration")
    full, other = [{"x": "2026-10-01", "y": 1}], [{"time": "2026-10-01", "pv": 2}]
    assert entries(generation, {"pv": full, "records": other}) == full
    assert entries(generation, {"pv": [], "records": other}) == other
    assert entries(generation, {"pv": None, "records": other}) == other
    assert entries(generation, {"pv": [], "records": []}) == []
    assert entries(POWER, {"pv": []}) == [], "what holds the empty list is no entry"
    assert entries(POWER, []) == []
    assert entries(POWER, [[{"pac": 1}]]) == [], "a list of lists is nobody's shape"


def test_objects_on_the_way_lend_their_plain_fields():
    data = {"deviceData": [{"sn": "A"}], "plantId": "P", "more": {"x": 1}}
    assert entries(STATIONS, data) == [{"plantId": "P", "sn": "A"}]


def test_a_text_is_cut_and_a_reading_gives_words_and_numbers():
    plants = load("open_api").interface("GetInverterList")
    reading = read(plants, {"sn": "x" * 1000, "capacity": "10.5", "name": True}, BERLIN, NOW)
    assert reading.text("serial") == "", "cut short it might be another's"
    assert reading.number("rated_power") == 10500
    assert (reading.text("rated_power"), reading.number("serial"), reading.text("nothing")) == ("", None, "")


@pytest.mark.parametrize(("raw", "value"), [("1_000", None), ("१", 1.0), (" 5 ", 5.0), ("5,5", 5.5), ("0x10", None)])
def test_what_is_a_number(raw, value):
    assert read(BY_SN, {"pac": raw}, BERLIN, NOW).values == {"ac_power": value}


@pytest.mark.parametrize(
    ("raw", "time"),
    [(1782043170000, "2026-06-21T11:59:30"), ("1782043170000", "2026-06-21T11:59:30"), (0, None), (1e300, None),
     (True, None), ("soon", None)],
)  # fmt: skip
def test_unix_times(raw, time):
    reading = read(STATIONS, {"refreshTime": raw}, BERLIN, NOW)
    assert reading.time == (time and datetime.fromisoformat(time).replace(tzinfo=UTC))


@given(st.dictionaries(st.sampled_from([row.field for row in BY_SN.response]), st.floats() | st.text(max_size=30)))
def test_nothing_hostile_raises_or_is_no_number(answer):
    reading = read(BY_SN, answer, BERLIN, NOW)
    assert all(math.isfinite(value) for value in reading.values.values() if isinstance(value, float))


TIMES = st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(Z|[+-][0-9]{4})?", fullmatch=True)
ENTRY = st.dictionaries(st.sampled_from(["pv", "x", "y", "date", "pac", "time"]), TIMES | JSON, max_size=4)


@given(JSON | st.lists(ENTRY, max_size=5) | st.fixed_dictionaries({"pv": st.lists(ENTRY, max_size=5) | JSON}))
def test_a_series_of_whatever_is_in_order(data):
    for interface in (POWER, load("open_api").interface("GetPlantGeneration"), STATIONS):
        found = samples(interface, data, BERLIN, NOW, DAY)
        assert [s.time for s in found] == sorted({s.time for s in found})
        UnknownFields(Notes()).look(interface, data)


def test_a_hostile_answer_is_not_kept_aside_without_bound():
    aside = UnknownFields(Notes())
    aside.look(BY_SN, {f"{n:05}" + "x" * 500: 1 for n in range(1000)})
    aside.look(BY_SN, {f"more{n}": 1 for n in range(1000)})
    assert len(aside.fields["GetInverterBySN"]) == 100
    assert max(map(len, aside.fields["GetInverterBySN"])) == 64


@pytest.mark.parametrize(
    "answer",
    [
        {"pac": None, "status": None, "eday": "--", "fault_code": "", "fault_message": ""},
        {"status": "", "pac": "--", "fault_code": "--"},
        {"firmware_version": "V1.23"},
        {"fault_message": " "},
        {"pac": 4294967295, "etotal": "4294967295", "hour_total": 4294967295.0, "eday": 429496729.5, "vpv1": 65535},
    ],
)
def test_words_and_ones_all_over_are_no_measurement(answer):
    """SEMS.md: success with nothing in it, and sentinels, are never a value."""
    reading = read(BY_SN, answer, BERLIN, NOW)
    assert reading.empty
    assert set(reading.values.values()) <= {None, "V1.23"}


def test_a_power_may_well_be_a_number_of_sixteen_bits():
    assert read(BY_SN, {"pac": 65535}, BERLIN, NOW).values == {"ac_power": 65535.0}
