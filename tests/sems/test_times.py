"""Which time a text means: formats, orders, zones, and clocks that are set."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.zones import zone_name, zone_named
from gateway.sems.catalogue import load
from gateway.sems.normalise import read, samples
from gateway.sems.times import AHEAD, Dates, Order, order_of, written
from gateway.sems.zones import odd_zone, said_zone

BY_SN = load("open_api").interface("GetInverterBySN")
POWER = load("open_api").interface("GetInverterPower")
DETAIL = load("open_api").interface("GetPlantDetail")
NOV_12 = datetime(2026, 11, 12, 9, 30, tzinfo=UTC)
FORMATS = {
    "dd{0}MM{0}yyyy": "%d{0}%m{0}%Y",
    "MM{0}dd{0}yyyy": "%m{0}%d{0}%Y",
    "yyyy{0}MM{0}dd": "%Y{0}%m{0}%d",
}
CLOCKS = ("%H:%M:%S", "%I:%M:%S %p", "%H:%M:%S.000", "%I:%M:%S%p")
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC+10:00", "GMT-3", "+05:45")


def said(text, now=NOV_12, zone=UTC, dates=None):
    return read(BY_SN, {"last_refresh_time": text}, zone, now, dates=dates)


# the order of day and month


def test_a_date_that_has_two_meanings_has_none_until_one_tells_the_order():
    dates = Dates()
    reading = said("05/11/2026 08:00:00", dates=dates)
    assert (reading.time, reading.unread) == (None, {"time": "05/11/2026 08:00:00"})
    assert said("13/10/2026 08:00:00", dates=dates).time == datetime(2026, 10, 13, 8, tzinfo=UTC)
    assert dates.order is Order.DAY_FIRST
    assert said("05/11/2026 08:00:00", dates=dates).time == datetime(2026, 11, 5, 8, tzinfo=UTC)


def test_a_date_that_would_be_from_the_future_in_the_other_order_tells_it():
    dates = Dates()
    assert said("12/11/2026 09:29:00", dates=dates).time == datetime(2026, 11, 12, 9, 29, tzinfo=UTC)
    assert dates.order is Order.DAY_FIRST


@pytest.mark.parametrize("text", ["11/12/2026 08:00:00", "05/11/2026 08:00:00", "11/12/2027 08:00:00"])
def test_what_proves_nothing_teaches_nothing(text):
    dates = Dates()
    assert said(text, dates=dates, now=datetime(2026, 11, 28, tzinfo=UTC)).time is None
    assert dates.order is None


@pytest.mark.parametrize("text", ["13/10/2026 08:00:00", "12/11/2026 08:00:00"])
def test_a_contradiction_corrects_what_was_learned(text):
    dates = Dates()
    said("10/13/2026 08:00:00", dates=dates)
    assert dates.order is Order.MONTH_FIRST
    assert said(text, dates=dates).time is not None
    assert dates.order is Order.DAY_FIRST


def test_a_date_without_sense_corrects_nothing():
    dates = Dates()
    said("10/13/2026 08:00:00", dates=dates)
    for text in ("13/13/2026 08:00:00", "32.10.2026", "31/12/2099 08:00:00", "00/00/2026"):
        said(text, dates=dates)
    assert dates.order is Order.MONTH_FIRST


def test_what_the_user_has_set_is_never_corrected():
    dates = Dates(order_of("dd/MM/yyyy"))
    assert said("10/13/2026 08:00:00", dates=dates).time is None
    assert said("05/11/2026 08:00:00", dates=dates).time == datetime(2026, 11, 5, 8, tzinfo=UTC)


def test_an_answer_that_names_the_format_tells_the_order_also_for_its_own_time():
    dates = Dates()
    answer = {"last_refresh_time": "05.11.2026 08:00", "date_format": "MM.dd.yyyy"}
    assert read(DETAIL, answer, UTC, NOV_12, dates=dates).time == datetime(2026, 5, 11, 8, tzinfo=UTC)
    said("13.10.2026 08:00:00", dates=dates)
    assert dates.order is Order.DAY_FIRST
    read(DETAIL, answer, UTC, NOV_12, dates=dates)
    assert dates.order is Order.DAY_FIRST, "the same again is no news"


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("dd/MM/yyyy", Order.DAY_FIRST),
        ("MM.dd.yyyy", Order.MONTH_FIRST),
        ("d-M-yyyy HH:mm:ss", Order.DAY_FIRST),
        ("yyyy/MM/dd", None),
    ],
)
def test_formats_that_can_be_set(text, order):
    assert order_of(text) is order


@pytest.mark.parametrize("text", ["", "dd/MM", "dd/MM/yy", "yyyy/dd/MM", "dd/MM-yyyy", "dd/dd/yyyy", "today"])
def test_what_is_no_format(text):
    with pytest.raises(ValueError, match="is no date format"):
        order_of(text)


@pytest.mark.parametrize(
    "text",
    ["yesterday", "13:61:00", "0:30:00 AM", "13:00 PM", "2026-02-30", "0001-01-01 00:00:00", 20261112, "13:05", [1]],
)
def test_a_time_that_is_there_and_cannot_be_read_is_no_missing_one(text):
    reading = said(text)
    assert (reading.time, reading.unread) == (None, {"time": str(text)})


@pytest.mark.parametrize("text", ["", " ", "--", None, 0, "0"])
def test_a_time_that_is_not_there_is_no_unreadable_one(text):
    reading = said(text)
    assert (reading.time, dict(reading.unread)) == (None, {})


def test_the_day_that_was_asked_for_tells_the_order_of_a_series():
    curve = [{"date": f"05/11/2026 0{hour}:00:00", "pac": hour} for hour in (8, 9)]
    for day, first in ((datetime(2026, 11, 5, 12), (11, 5)), (datetime(2026, 5, 11, 12), (5, 11))):  # noqa: DTZ001
        found = samples(POWER, curve, UTC, NOV_12, day)
        assert [(s.time.month, s.time.day) for s in found] == [first, first]


def test_a_series_whose_times_cannot_be_read_is_said():
    told = []
    dates = Dates()
    dates.on_unread = lambda interface, text: told.append((interface, text))
    day = datetime(2026, 11, 5, 12)  # noqa: DTZ001
    assert samples(POWER, [{"date": "noon", "pac": 5}], UTC, NOV_12, day, dates) == []
    assert told == [("GetInverterPower", "noon")]
    samples(POWER, [{"date": "2026-11-05 08:00", "pac": 5}], UTC, NOV_12, day, dates)
    assert told[1:] == [("GetInverterPower", "")]


# every format, in every zone, whatever is done to the clocks


def moments():
    """Any, and more of those around both changes of the clocks in each zone."""
    changes = [
        datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1),  # noqa: DTZ001 - Berlin
        datetime(2026, 3, 8, 7), datetime(2026, 11, 1, 6),  # noqa: DTZ001 - New York
        datetime(2026, 4, 4, 15), datetime(2026, 10, 3, 15, 30),  # noqa: DTZ001 - Lord Howe, by half an hour
    ]  # fmt: skip
    around = st.builds(
        lambda change, seconds: change + timedelta(seconds=seconds), st.sampled_from(changes), st.integers(-7200, 7200)
    )
    anywhere = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31))  # noqa: DTZ001
    return st.one_of(around, anywhere).map(lambda moment: moment.replace(tzinfo=UTC, microsecond=0))


@given(
    moment=moments(),
    form=st.sampled_from([*FORMATS]),
    mark=st.sampled_from("-/."),
    clock=st.sampled_from(CLOCKS),
    zone=st.sampled_from(ZONES),
    age=st.integers(0, 600),
    known=st.booleans(),
)
def test_a_time_is_read_as_it_was_written_or_not_at_all(moment, form, mark, clock, zone, age, known):
    local = moment.astimezone(zone_named(zone))
    text = f"{local:{FORMATS[form].format(mark)} {clock}}"
    dates = Dates(order_of(form.format(mark))) if known else Dates()
    reading = said(text, moment + timedelta(seconds=age), zone_named(zone), dates)
    if reading.time is None:
        assert not known
        assert local.day <= 12
        assert form[0] in "dM"
        return
    # The hour that comes twice is of its second pass, unless that is yet to come.
    meanings = {local.replace(tzinfo=None, fold=fold).replace(tzinfo=local.tzinfo).astimezone(UTC) for fold in (0, 1)}
    possible = [meaning for meaning in meanings if meaning <= moment + timedelta(seconds=age) + AHEAD]
    assert reading.time == max(possible)


@given(
    days=st.lists(st.dates(datetime(2025, 1, 1).date(), datetime(2026, 12, 31).date()), min_size=1, max_size=40),  # noqa: DTZ001
    form=st.sampled_from(["%d/%m/%Y", "%m/%d/%Y"]),
)
def test_whatever_is_learned_no_date_of_an_account_is_read_in_the_wrong_order(days, form):
    """Times of measurement come in order, each when it is new."""
    dates = Dates()
    for day in sorted(days):
        now = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        reading = said(f"{day:{form}} 11:59:00", now, dates=dates)
        assert reading.time in (None, now - timedelta(minutes=1))
        if day.day > 12:
            assert reading.time is not None


# zones


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("UTC+10:00", 10), ("UTC+10", 10), ("GMT-3", -3), ("+05:45", 5.75), ("-0330", -3.5), ("utc +1", 1),
        ("(UTC+01:00) Amsterdam, Berlin", 1), ("UTC\N{MINUS SIGN}05:00", -5), ("UTC", 0), ("Etc/GMT-10", 10),
        ("Asia/Kathmandu", 5.75), ("W. Europe Standard Time", 1), ("india standard time", 5.5), ("Z", 0),
    ],
)  # fmt: skip
def test_zones_by_name_and_by_offset(name, hours):
    zone = zone_named(name)
    assert zone.utcoffset(NOV_12.replace(tzinfo=None)) == timedelta(hours=hours)
    assert zone_named(zone_name(zone)) == zone


@pytest.mark.parametrize(
    "name", ["", "Mars/Base", "UTC+15:00", "UTC-13", "+05:99", "../../etc/passwd", "x" * 500, "+", "10"]
)
def test_what_is_no_zone(name):
    assert zone_named(name) is None


@pytest.mark.parametrize(
    ("said", "hours"),
    [
        ("-5:30", 5.5), ("-10.0 h", 10), (10, -10), (-5.5, 5.5), ("\N{MINUS SIGN}8", 8), ("+3", -3), ("Z", 0),
        ("-9,5 hours", 9.5), ("UTC+10:00", 10), ("Europe/Berlin", 1), ("480", None), (480, None), ("-0530", None),
        ("east", None), (True, None), ("", None),
    ],
)  # fmt: skip
def test_a_span_is_read_where_it_can_mean_one_thing_alone(said, hours):
    reading = read(DETAIL, {"time_span": said}, UTC, NOV_12)
    zone = said_zone(reading)
    assert (None if zone is None else zone.utcoffset(NOV_12.replace(tzinfo=None)) / timedelta(hours=1)) == hours
    assert (odd_zone(reading) in {str(said), "-530"}) or hours is not None or said in {True, ""}


def test_an_offset_within_the_time_itself_counts_more_than_the_plants_zone():
    for text in ("2026-11-12 10:00:00+02:00", "2026-11-12 10:00 +0200", "12.11.2026 08:00:00Z"):
        reading = said(text, zone=ZoneInfo("Asia/Tokyo"))
        assert (reading.time, reading.local) == (datetime(2026, 11, 12, 8, tzinfo=UTC), None)
        assert reading.time.tzinfo is not timezone(timedelta(hours=2))


def test_written_keeps_what_stands_there():
    time = written("21.06.2026 1:05 PM")
    assert (time.year, time.first, time.second, time.year_first) == (2026, 21, 6, False)
    assert time.on(Order.DAY_FIRST) == datetime(2026, 6, 21, 13, 5)  # noqa: DTZ001
    assert time.on(Order.MONTH_FIRST) is None


@pytest.mark.parametrize("raw", [1782043170, 1782043170000, "1782043170", "1782043170000", 1782043170.0])
@pytest.mark.parametrize("order", [*Order, None])
def test_a_count_since_1970_is_that_instant_whatever_the_zone_and_the_order(raw, order):
    interface = load("open_api").interface("GetInverterBySN")
    dates, noon = Dates(order), datetime(2026, 6, 21, 12, tzinfo=UTC)
    reading = read(interface, {"last_refresh_time": raw}, ZoneInfo("Europe/Berlin"), noon, None, None, dates)
    assert reading.time == datetime(2026, 6, 21, 11, 59, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "raw", [True, 20261128, "20261128", "20261128101010", 10**400, float("inf"), -1795904030, "٣" * 10]
)
def test_other_numbers_are_no_times(raw):
    assert written(raw) is None
