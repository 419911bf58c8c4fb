"""The hour's plan: what fits, what stands in, and that the sum never exceeds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bridges.open_api.planner import discovery_calls, plan
from gateway.sems.catalogue import load
from gateway.sems.discovery import PAGE_SIZE
from gateway.sems.plan import PollIntervals, Role
from gateway.sems.plants import PLANT
from tests.bridges.open_api.kit import fleet, target

CLASSIC, DEVELOPER = load("open_api"), load("developer")
FOR_POLLING = 3060
TYPES = ["inverter", "storage", "battery", "meter", "ev_charger", "sec1000", "homekit", "weather_station"]


def rows(plan_, interface):
    return [row for row in plan_.rows if row.interface == interface]


def reached(plan_, role=Role.LIVE):
    """Serials that live rows keep fresh, by call or by coming along."""
    found = set()
    for row in plan_.rows:
        if row.role is role:
            for unit in row.units:
                found |= set(unit)
    return found


@pytest.mark.parametrize("catalogue", [CLASSIC, DEVELOPER], ids=["classic", "developer"])
def test_five_devices_are_polled_each_minute(catalogue):
    made = plan(fleet(1, 5), catalogue, FOR_POLLING, PollIntervals())
    assert made.interval == 60
    assert {row.interval for row in made.rows if row.role is Role.LIVE} == {60}
    assert not [row for row in made.rows if row.role is Role.DETAIL]
    assert made.at_once


def test_2000_devices_in_100_plants_are_read_by_the_plants_lists():
    made = plan(fleet(100, 2000), CLASSIC, FOR_POLLING, PollIntervals())
    (by_list,) = rows(made, "GetInverterList")
    assert (by_list.calls, by_list.reaches) == (100, 2000)
    assert by_list.interval == made.interval < 600
    (own,) = rows(made, "GetInverterBySN")
    assert own.role is Role.DETAIL
    assert own.calls == 2000
    assert 3600 < own.interval < 6 * 3600
    assert made.per_hour <= FOR_POLLING
    # The interval is as short as the calls for it allow, or they would be left over.
    assert made.per_hour == pytest.approx(FOR_POLLING)


def test_2000_devices_of_the_developer_platform_need_not_wait_a_minute_longer():
    made = plan(fleet(100, 2000, TYPES), DEVELOPER, FOR_POLLING, PollIntervals())
    assert made.interval == 60
    assert made.per_hour <= FOR_POLLING


@pytest.mark.parametrize("plants", [100, 500, 2000])
def test_10000_devices_fit(plants):
    made = plan(fleet(plants, 10_000), CLASSIC, FOR_POLLING, PollIntervals())
    assert made.per_hour <= FOR_POLLING * (1 + 1e-9)
    assert made.discovery_interval > 3600 or plants == 100
    assert rows(made, "GetInverterList")[0].reaches == 10_000


def test_a_plant_with_one_inverter_is_no_cheaper_by_its_list():
    made = plan(fleet(600, 600), CLASSIC, FOR_POLLING, PollIntervals())
    assert not rows(made, "GetInverterList")
    assert rows(made, "GetInverterBySN")[0].role is Role.LIVE
    assert made.interval > 60


def test_slow_interfaces_take_part_in_every_so_manieth_round():
    made = plan(fleet(1, 2), CLASSIC, FOR_POLLING, PollIntervals(interval=30))
    by_name = {row.interface: row.interval for row in made.rows}
    assert by_name["GetPlantPowerFlow"] == 30
    assert by_name["GetPlantStatistics"] == by_name["GetPlantAlarms"] == by_name["GetPlantDetail"] == 150
    assert by_name["GetPlantIncome"] == 450


def test_alarms_are_asked_by_plant_where_there_is_such_an_interface_and_else_by_batches_of_one_type():
    assert not rows(plan(fleet(1, 3), CLASSIC, FOR_POLLING, PollIntervals()), "GetInverterAlarms")
    alarms = rows(plan(fleet(2, 250, ["inverter", "meter"]), DEVELOPER, FOR_POLLING, PollIntervals()), "DeviceAlarms")
    assert sorted(row.calls for row in alarms) == [2, 2]
    assert len({row.type for row in alarms}) == len(alarms)
    assert all(len(unit) <= 100 for row in alarms for unit in row.units)


def test_devices_with_pushes_are_read_at_their_own_interval():
    targets = fleet(2, 10)
    made = plan(targets, CLASSIC, FOR_POLLING, PollIntervals(), pushed={"device0", "device1", "plant0"})
    slow = [row for row in rows(made, "GetInverterBySN") if row.pushed]
    assert [(row.calls, row.interval) for row in slow] == [(2, 900)]
    assert [row.calls for row in rows(made, "GetInverterBySN") if not row.pushed] == [8]
    assert {row.calls for row in rows(made, "GetPlantPowerFlow")} == {1}


def test_pushes_make_room_for_the_others():
    targets = fleet(100, 2000)
    pushed = {t.serial for t in targets if t.plant < "plant5"}
    without, with_ = (plan(targets, CLASSIC, FOR_POLLING, PollIntervals(), p) for p in ((), pushed))
    assert with_.interval < without.interval


def test_a_list_whose_plant_has_all_its_devices_pushed_is_asked_less():
    targets = fleet(100, 2000)
    pushed = {t.serial for t in targets if t.plant == "plant7" and t.type != PLANT}
    made = plan(targets, CLASSIC, FOR_POLLING, PollIntervals(pushed_interval=3000), pushed)
    slow = [row for row in rows(made, "GetInverterList") if row.pushed]
    assert [(row.calls, row.interval) for row in slow] == [(1, 3000)]


def test_what_comes_along_in_anothers_answer_needs_no_call_of_its_own():
    targets = [*fleet(1, 1), target("logger", "sec1000", "plant0"), target("m", "meter", "plant0", carrier="logger")]
    made = plan(targets, CLASSIC, FOR_POLLING, PollIntervals())
    assert not rows(made, "GetMeterBySN")
    assert rows(made, "GetSEC1000")[0].reaches == 2


def test_an_interface_that_is_shelved_is_not_planned_and_another_stands_in():
    shelved = {("GetInverterBySN", "inverter"), ("GetInverterDetail", "inverter"), ("GetPlantAlarms", "plant"),
               ("GetPlantDetail", "plant")}  # fmt: skip
    made = plan(fleet(1, 2), CLASSIC, FOR_POLLING, PollIntervals(), (), shelved)
    names = {row.interface for row in made.rows}
    assert not names & {name for name, _ in shelved}
    assert {"GetInverterList", "GetInverterAlarms"} <= names
    assert rows(made, "GetInverterList")[0].role is Role.LIVE
    assert not made.unreached


def test_what_nothing_reads_is_said():
    made = plan(fleet(1, 1, ["meter"]), CLASSIC, FOR_POLLING, PollIntervals(), (), {("GetMeterBySN", "meter")})
    assert made.unreached == {"meter"}


def test_discovery_is_part_of_the_plan_and_stretched_where_it_would_cost_too_much():
    targets = fleet(100, 2000)
    assert discovery_calls(targets, CLASSIC) == 1 + 1 + 3 * 100
    assert discovery_calls(targets, DEVELOPER) == 1 + 1 + 1 + 1 + 2000 // PAGE_SIZE + 1
    assert plan(targets, CLASSIC, FOR_POLLING, PollIntervals(discovery_interval=3600)).discovery_interval == 3600
    hasty = plan(targets, CLASSIC, FOR_POLLING, PollIntervals(discovery_interval=60))
    assert hasty.discovery_interval == pytest.approx(302 * 3600 / 306)


def test_nothing_known_yet_is_a_plan_too():
    made = plan([], CLASSIC, FOR_POLLING, PollIntervals())
    assert not made.rows
    assert made.oldest == 60


@st.composite
def fleets(draw):
    plants = draw(st.integers(1, 40))
    targets = [target(f"plant{n}", PLANT) for n in range(plants)]
    for n in range(draw(st.integers(0, 400))):
        type_ = draw(st.sampled_from(TYPES))
        targets.append(target(f"device{n}", type_, f"plant{draw(st.integers(0, plants - 1))}"))
    loggers = [t for t in targets if t.type == "sec1000"]
    for n in range(draw(st.integers(0, 5)) if loggers else 0):
        logger = draw(st.sampled_from(loggers))
        targets.append(target(f"carried{n}", "meter", logger.plant, logger.serial))
    return targets


@settings(max_examples=60, deadline=None)
@given(
    targets=fleets(),
    catalogue=st.sampled_from([CLASSIC, DEVELOPER]),
    limit=st.integers(1, 20_000),
    interval=st.floats(0.1, 3600),
    pushed_interval=st.floats(1, 86_400),
    discovery_interval=st.floats(10, 1e6),
    luck=st.randoms(use_true_random=False),
)
def test_no_plan_exceeds_and_every_device_is_kept_fresh(
    targets, catalogue, limit, interval, pushed_interval, discovery_interval, luck
):
    pushed = {t.serial for t in targets if luck.random() < luck.choice([0, 0.3, 1])}
    wishes = PollIntervals(interval, pushed_interval, discovery_interval)
    made = plan(targets, catalogue, limit, wishes, pushed)
    assert made.per_hour <= limit * (1 + 1e-9)
    assert made.interval >= interval
    assert made.discovery_interval >= discovery_interval
    assert not made.unreached
    for row in made.rows:
        assert row.interval >= interval * (1 - 1e-9)
        interface = catalogue.interface(row.interface)
        assert all(1 <= len(unit) <= interface.batch for unit in row.units)
        if row.pushed:
            assert row.interval >= pushed_interval
    fresh = reached(made)
    listed = {unit[0] for row in made.rows for unit in row.units if row.interface == "GetInverterList"}
    for t in targets:
        by_own = t.serial in fresh
        by_list = t.plant in listed and t.type in {"inverter", "storage"}
        assert by_own or by_list or t.carrier in fresh, t
