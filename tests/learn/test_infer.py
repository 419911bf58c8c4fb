"""What is inferred from answers: what is sure, and what must not be."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.learn import infer
from gateway.learn.markdown import markdown
from gateway.learn.overrides_file import render
from gateway.learn.report import Called, Kind, State
from gateway.sems.catalogue import load
from gateway.sems.overrides import CatalogueOverrides, overridden
from gateway.sems.recording import Answer
from tests.learn.kit import PLANT, SERIAL, answer, lists, renamed, twice

CATALOGUE = load("open_api")


def line(report, field, interface="GetInverterBySN"):
    return next(one for one in report.lines if (one.interface, one.key) == (interface, field))


def active(report, interface="GetInverterBySN"):
    return report.overrides.get("interfaces", {}).get(interface, {})


def test_an_answer_as_the_catalogue_has_it_is_confirmed():
    report = infer(CATALOGUE, twice(lambda entry: entry))
    assert {line(report, field).state for field in ("pac", "vac1", "eday", "soc", "last_refresh_time")} == {
        State.CONFIRMED
    }
    assert line(report, "qac").state is State.ABSENT
    assert active(report) == {}
    assert {one.name: one.called for one in report.interfaces}["SetInverterSwitch"] is Called.NOT_ASKED


def test_another_name_and_another_unit_are_sure_where_arithmetic_says_so():
    report = infer(CATALOGUE, twice(lambda entry: renamed(entry, pac="OutputPower") | {
        "OutputPower": entry["pac"] / 1000, "ppv": entry["ppv"] / 1000, "pbattery": entry["pbattery"] / 1000,
        "pmeter": entry["pmeter"] / 1000, "pload": entry["pload"] / 1000,
    }))  # fmt: skip
    assert active(report)["fields"]["pac"] == {"field": "OutputPower", "scale": 1000}
    assert active(report)["fields"]["ppv"] == {"scale": 1000}
    assert {one.kind for one in line(report, "pac").evidence} >= {Kind.NAME, Kind.ARITHMETIC}


@pytest.mark.parametrize(
    ("scaled", "fields"),
    [(0.1, ("vac1", "vac2", "vac3", "vpv1", "vpv2", "vbattery")), (0.1, ("iac1", "iac2", "iac3", "ipv1", "ipv2"))],
)
def test_tenths_are_known_by_range_and_power(scaled, fields):
    report = infer(CATALOGUE, twice(lambda entry: entry | {field: round(entry[field] / scaled) for field in fields}))
    assert all(active(report)["fields"][field] == {"scale": scaled} for field in fields)


def test_wh_are_known_by_what_grew():
    report = infer(
        CATALOGUE, twice(lambda e: e | {"eday": round(e["eday"] * 1000), "etotal": round(e["etotal"] * 1000)})
    )
    assert active(report)["fields"] == {"eday": {"scale": 0.001}, "etotal": {"scale": 0.001}}


def test_a_sign_is_known_by_the_balance_seen_twice():
    report = infer(
        CATALOGUE,
        twice(
            lambda entry: (
                entry | {"pmeter": -entry["pmeter"], "pbattery": -entry["pbattery"], "ibattery": -entry["ibattery"]}
            )
        ),
    )
    assert active(report)["fields"] == {"pmeter": {"scale": 1}, "pbattery": {"scale": -1}, "ibattery": {"scale": -1}}


def test_a_sign_that_was_seen_once_is_not_sure():
    once = twice(lambda entry: renamed(entry, pmeter="gridPower") | {"gridPower": -entry["pmeter"]})[:-1]
    assert not line(infer(CATALOGUE, once), "pmeter").sure


def test_a_name_alone_is_not_enough():
    """The unit of a charge that never moves, with nothing to compare it with, is anybody's guess."""
    said = {"evChargerTotalEnergy": 1234000, "status": 1}
    report = infer(CATALOGUE, [*lists(), *(answer("GetEvChargerBySN", said, turn, chargersn="X1") for turn in (0, 1))])
    assert line(report, "evChargerCharge", "GetEvChargerBySN").override == {"field": "evChargerTotalEnergy"}
    assert not line(report, "evChargerCharge", "GetEvChargerBySN").sure


def test_of_two_that_it_may_be_neither_is_sure():
    report = infer(CATALOGUE, twice(lambda e: renamed(e, pac="acPower") | {"outputPower": 4100}))
    assert "pac" not in active(report).get("fields", {})
    assert [one.field for one in line(report, "pac").candidates][:2] == ["acPower", "outputPower"]


@pytest.mark.parametrize("name", ["maxPowerToday", "pacMax", "powerLimit", "ratedPower", "pac_set"])
def test_what_only_looks_like_it_is_never_active(name):
    report = infer(CATALOGUE, twice(lambda entry: renamed(entry, pac=name)))
    assert "pac" not in active(report).get("fields", {})


# What an entry may have in place of the catalogue's field: the value of the same field, under a name that says more.
_TURNED = ["last_{}", "{}_last", "{}Previous", "{}_yesterday", "{}Max", "{}_min", "{}Avg", "{}_forecast", "{}_target"]


@pytest.mark.parametrize("name", _TURNED)
def test_what_was_before_or_is_hoped_for_is_never_active(name):
    """Each value fits, also to the others: that another year's, or day's, is like it is just what is the matter."""
    rows = [row.field for row in CATALOGUE.interface("GetInverterBySN").response if row.point]
    other = {field: name.format(field) for field in rows}
    report = infer(CATALOGUE, twice(lambda entry: renamed(entry, **other)))
    assert not active(report).get("fields")
    detail = {
        "time_zone": "UTC", "plant_name": "House", "last_year_energy": 5123.25, "socLast": 44,
        "lastTotalEnergy": 99.25, "installed_capacity_last": 10.25,
    }  # fmt: skip
    report = infer(CATALOGUE, [*lists(), answer("GetPlantDetail", detail, plant_id=PLANT)])
    assert not active(report, "GetPlantDetail").get("fields")


@pytest.mark.parametrize("above", ["yesterday", "last_month", "forecast", "lastYear.kpi"])
def test_a_group_of_what_was_before_is_none_of_now(above):
    def moved(entry):
        group = {field: entry.pop(field) for field in ("eday", "pac", "soc", "tempperature")}
        for part in reversed(above.split(".")):
            group = {part: group}
        return entry | group

    assert active(infer(CATALOGUE, twice(moved))) == {}
    whole = infer(CATALOGUE, twice(lambda entry: {above.split(".", maxsplit=1)[0]: entry}))
    assert active(whole) == {}


def test_decimals_or_a_range_alone_make_no_line_active():
    """Other lines of the answer have to be sure by more."""
    detail = {"day_energy": 21.5, "battery_level": 44, "total_energy": 99.25}
    report = infer(CATALOGUE, [*lists(), answer("GetPlantDetail", detail, plant_id=PLANT)])
    assert not active(report, "GetPlantDetail").get("fields")
    report = infer(CATALOGUE, twice(lambda entry: renamed(entry, soc="batteryLevel")))
    assert active(report)["fields"] == {"soc": {"field": "batteryLevel"}}


def test_a_value_against_it_keeps_a_line_from_being_active():
    report = infer(CATALOGUE, twice(lambda entry: renamed(entry, fac1="acFrequency1", soc="batteryLevel") | {
        "acFrequency1": 7.5, "batteryLevel": 536,
    }))  # fmt: skip
    assert not active(report).get("fields", {}).keys() & {"fac1", "soc"}


def test_a_field_that_the_catalogue_does_not_know_has_candidates():
    report = infer(CATALOGUE, twice(lambda entry: entry | {"batteryDischargeTotal": 812.5, "thd": 2.1}))
    assert [one.override for one in line(report, "batteryDischargeTotal").candidates] == [
        {"point": "battery_discharge_total"}
    ]
    assert (line(report, "thd").state, line(report, "thd").candidates) == (State.UNKNOWN, ())
    assert active(report) == {}


def test_entries_that_lie_elsewhere_are_found():
    plants = answer(
        "GetUserPlantList", {"page": {"rows": [{"stationId": PLANT, "stationName": "House"}]}}, page_index=1
    )
    report = infer(CATALOGUE, [plants, *twice(lambda entry: {"info": renamed(entry, pac="Pac")})[1:]])
    assert active(report) == {"lists": ["info"], "fields": {"pac": {"field": "Pac"}}}
    detail = answer("GetPlantDetail", {"plant_name": "House"}, plant_id=PLANT)
    report = infer(CATALOGUE, [plants, detail])
    assert active(report, "GetUserPlantList") == {
        "lists": ["page.rows"], "fields": {"plant_id": {"field": "stationId"}, "plant_name": {"field": "stationName"}},
    }  # fmt: skip


def test_times_are_of_the_type_they_are():
    def unix(entry):
        return entry | {"last_refresh_time": 1782036030000}

    assert active(infer(CATALOGUE, twice(unix)))["fields"] == {"last_refresh_time": {"type": "unix_milliseconds"}}
    report = infer(CATALOGUE, twice(lambda entry: entry | {"last_refresh_time": "21/06/2026 12:00:30"}))
    assert report.date_format == "dd/MM/yyyy"
    assert infer(CATALOGUE, twice(lambda e: e | {"last_refresh_time": "soon"})).date_format == ""


def test_a_refusal_is_reported_in_its_own_words():
    refused = Answer(
        "GetPlantDetail", {}, datetime(2026, 6, 21, tzinfo=UTC), 200, {"code": "P0214", "msg": "no plantId"}
    )
    one = next(each for each in infer(CATALOGUE, [refused]).interfaces if each.name == "GetPlantDetail")
    assert (one.called, one.detail) == (Called.REFUSED, "P0214 no plantId")


def test_the_same_answers_give_the_same_report():
    said = twice(lambda entry: renamed(entry, pac="Pac"))
    assert render(infer(CATALOGUE, said)) == render(infer(CATALOGUE, said))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["sn", "pac", "Pac", "list", "data", "vac1", "last_refresh_time", "plant_id", "a.b", ""])
        | st.text(max_size=8), inner, max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([i.name for i in CATALOGUE.interfaces]), JSON), max_size=6))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_the_file_can_be_used(said):
    """Answers are untrusted: no shape of them breaks the inference, or gets anything but overrides into the file."""
    answers = [answer(name, data, turn, invertersn=SERIAL) for turn in (0, 1) for name, data in said]
    answers += [Answer(name, {}, datetime(2026, 6, 21, tzinfo=UTC), 200, data) for name, data in said]
    report = infer(CATALOGUE, answers)
    overridden(CATALOGUE, CatalogueOverrides.model_validate(report.overrides))
    assert markdown(report)


def test_another_envelope_is_found_by_answers_that_are_wrapped_alike():
    def wrapped(one):
        return Answer(
            one.interface, one.args, one.time, 200, {"resultCode": 200, "info": "ok", "result": one.body["data"]}
        )

    said = [wrapped(one) for one in twice(lambda entry: renamed(entry, pac="Pac"))]
    report = infer(CATALOGUE, said)
    assert report.overrides["envelope"] == {"code": "resultCode", "data": "result"}
    assert report.overrides["success"] == ["200", "0"]
    assert active(report)["fields"] == {"pac": {"field": "Pac"}}
    learned = overridden(CATALOGUE, CatalogueOverrides.model_validate(report.overrides))
    assert (learned.envelope.data, learned.success) == ("result", ("200", "0"))
    assert "envelope" not in infer(CATALOGUE, said[:2]).overrides, "two are not enough"


def test_a_known_refusal_is_never_taken_for_success():
    said = [Answer(name, {}, one.time, 200, {"code": "100002", "data": {"x": 1}}) for one in lists() for name in
            ("GetUserPlantList", "GetPlantDetail", "GetInverterList")]  # fmt: skip
    assert infer(CATALOGUE, said).overrides == {}
