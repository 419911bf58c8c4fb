"""Polling by the plan, on virtual time: evenly, within the budget, and less where somebody pushes."""

import asyncio
import os
from datetime import timedelta
from itertools import count, pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.core.model import Device, DeviceKind, Quality, Snapshot
from gateway.sems.budget import HOUR, Priority
from gateway.sems.catalogue import Use
from gateway.sems.errors import (
    BudgetSpentError,
    HttpStatusError,
    RateLimitedError,
    SemsRefusedError,
    TimedOutError,
    UnreachableError,
)
from gateway.sems.plan import Role
from gateway.sems.plants import PLANT
from gateway.sems.readings import MAX_CADENCE_SECONDS, Cadence
from gateway.sems.schedule import Job
from tests.bridges.open_api.kit import World, fleet, target
from tests.kit.clock import NOON, virtual, virtually

DEVICES = int(os.environ.get("SEMS_GATEWAY_SOAK_FLEET", "300"))
HOURS = int(os.environ.get("SEMS_GATEWAY_SOAK_FLEET", "600")) // 100
"""Of them and of random hours `make soak` has more."""


def most_in_an_hour(times):
    times = sorted(times)
    first = most = 0
    for last, time in enumerate(times):
        while times[first] <= time - HOUR:
            first += 1
        most = max(most, last - first + 1)
    return most


@virtual
async def test_five_devices_are_read_each_minute_and_evenly():
    async with World(fleet(1, 5)) as world:
        await asyncio.sleep(600)
        calls = world.calls("GetInverterBySN", since=world.clock.monotonic() - 300)
        assert len(calls) == pytest.approx(25, abs=1)
        gaps = [b - a for (a, _), (b, _) in pairwise(calls)]
        assert min(gaps) > 6, "not in one burst"
        snapshots = [s for _, s in world.desk.published if s.serial == "device0"]
        assert snapshots[-1].interval == 60
        assert world.desk.router.state("device0").quality is Quality.GOOD


@virtual
async def test_a_small_fleet_is_read_at_once_and_then_the_bridge_is_up():
    async with World(fleet(2, 6)) as world:
        assert (True, "") not in world.desk.reports
        await asyncio.sleep(10)
        assert (True, "") in world.desk.reports
        assert all(world.desk.router.state(t.serial).values for t in world.plants)


@virtual
async def test_an_empty_account_is_up_too():
    async with World([]) as world:
        assert world.desk.reports == [(True, "")]


@virtual(only="uvloop")  # many seconds
async def test_a_fleet_an_hour_long():
    async with World(fleet(DEVICES // 20, DEVICES)) as world:
        await asyncio.sleep(1.5 * HOUR)
        times = [at for at, *_ in world.sems.calls]
        assert most_in_an_hour(times) <= world.sems.budget.for_polling
        # Little of what there is remains unused.
        assert most_in_an_hour(times) > 0.95 * world.sems.budget.for_polling
        states = [world.desk.router.state(t.serial) for t in world.plants]
        assert len(states) == DEVICES + DEVICES // 20
        assert all(state.quality is Quality.GOOD for state in states)
        assert world.poller.troubled == 0


@virtual
async def test_slow_values_stay_beside_the_fast_ones_and_vanish_when_too_old():
    async with World(fleet(1, 1)) as world:
        await asyncio.sleep(120)
        values = world.desk.router.state("device0").values
        assert values["pv_power"] == 1000
        assert values["energy_month"] == 5
        world.sems.spoil = lambda interface, _: TimedOutError("no") if interface.name == "GetInverterDetail" else None
        await asyncio.sleep(4 * 300)
        values = world.desk.router.state("device0").values
        assert values["pv_power"] == 1000
        assert "energy_month" not in values


# answers with nothing in them

NOTHING = [{}, [], {"sn": "device0"}, {"pac": None, "vpv1": 6553.5, "status": ""}]


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
@virtual
async def test_an_answer_without_a_value_is_no_measurement(nothing):
    async with World(fleet(1, 3)) as world:
        await asyncio.sleep(60)
        began, before = world.clock.now(), len(world.desk.published)
        world.sems.spoil = lambda i, a: (
            nothing if i.name in {"GetInverterBySN", "GetInverterDetail"} and a["serial"] == "device0" else None
        )
        await asyncio.sleep(400)
        world.desk.router.age()
        state = world.desk.router.state("device0")
        assert state.quality is Quality.STALE
        assert state.time <= began
        assert not [s for _, s in world.desk.published[before:] if s.serial == "device0" and s.time > began]
        assert world.poller.troubled == 1
        assert world.desk.found("no_data") == {"device0"}
        assert world.desk.router.state("device1").quality is Quality.GOOD
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(120)
        assert world.desk.router.state("device0").quality is Quality.GOOD
        assert not world.desk.found("no_data")
        assert world.poller.troubled == 0


@virtual
async def test_a_cloud_that_answers_everything_with_nothing_is_down_and_takes_nothing_away():
    async with World(fleet(2, 6)) as world:
        await asyncio.sleep(60)
        world.sems.spoil = lambda *_: {}
        await asyncio.sleep(400)
        assert world.desk.reports[-1][0] is False
        assert len(world.plants) == 8
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(120)
        assert world.desk.reports[-1] == (True, "")
        assert not world.desk.findings


@virtual
async def test_what_lists_alarms_or_is_beside_the_point_may_be_empty():
    async with World(fleet(1, 3)) as world:
        sides = {"GetPlantAlarms", "GetInverterAlarms", "GetPlantWeather", "GetPlantIncome", "GetInverterDetail"}
        world.sems.spoil = lambda i, a: {} if i.name in sides else None
        await asyncio.sleep(1200)
        assert world.poller.troubled == 0
        assert not world.desk.found("no_data")
        assert world.desk.router.state("device0").quality is Quality.GOOD


@virtual
async def test_a_batch_without_a_value_for_one_is_that_ones_trouble():
    async with World(fleet(1, 4), "developer") as world:
        await asyncio.sleep(60)
        world.sems.spoil = lambda i, a: (
            {"deviceData": [{"sn": "device0", "parameters": {}}, *({"sn": f"device{n}", "parameters": {"pvPower": 1}}
                                                                    for n in (1, 2, 3))]}
            if i.name == "DeviceTelemetry" else None
        )  # fmt: skip
        await asyncio.sleep(300)
        assert world.desk.found("no_data") == {"device0"}
        world.desk.router.age()
        assert world.desk.router.state("device0").quality is Quality.STALE
        assert world.desk.router.state("device1").quality is Quality.GOOD
        began = world.clock.monotonic()
        world.sems.spoil = lambda i, a: {"deviceData": []} if i.name == "DeviceTelemetry" else None
        await asyncio.sleep(300)
        assert world.desk.found("no_data") == {f"device{n}" for n in range(4)}
        assert len(world.calls("DeviceTelemetry", began)) <= 6, "one call a minute: to ask in halves is no help"


# pushes


def push(world, serials, interval=60.0, source="push"):
    for serial in serials:
        device = Device(serial=serial, kind=DeviceKind.INVERTER)
        world.desk.router.announce(source, device)
        world.desk.router.publish(
            Snapshot(serial=serial, time=world.clock.now(), source=source, interval=interval, values={"pv_power": 1.0})
        )


async def pushing(world, serials, seconds, every=20.0):
    for _ in range(int(seconds / every)):
        push(world, serials)
        await asyncio.sleep(every)


@virtual
async def test_a_device_with_pushes_is_read_less_and_as_before_when_they_stop():
    async with World(fleet(1, 4)) as world:
        world.desk.names["push"] = "push"
        await pushing(world, ["device0"], 600)
        began = world.clock.monotonic()
        await pushing(world, ["device0"], 1800)
        of_pushed = [at for at, args in world.calls("GetInverterBySN", began) if args["serial"] == "device0"]
        others = [at for at, args in world.calls("GetInverterBySN", began) if args["serial"] == "device1"]
        assert len(of_pushed) == 2
        assert len(others) == pytest.approx(30, abs=1)
        stopped = world.clock.monotonic()  # fresh for three intervals of 60 s, less the 20 s since the last
        await asyncio.sleep(600)
        again = [at - stopped for at, args in world.calls("GetInverterBySN", stopped) if args["serial"] == "device0"]
        assert 160 <= again[0] <= 175
        assert len(again) == pytest.approx(8, abs=1)


@virtual
async def test_of_two_accounts_that_poll_a_device_the_first_by_name_goes_on():
    for name, other, polls in (("b", "a", 1), ("a", "b", 10)):
        async with World(fleet(1, 1), name=name) as world:
            world.desk.names[other] = "open_api"
            for _ in range(60):
                push(world, ["device0"], source=other)
                await asyncio.sleep(20)
            since = world.clock.monotonic() - 590
            assert len(world.calls("GetInverterBySN", since)) == pytest.approx(polls, abs=1), name


@virtual
async def test_a_device_known_elsewhere_that_falls_silent_while_it_is_withdrawn_is_forgotten():
    async with World(fleet(1, 3)) as world:
        world.desk.names["push"] = "push"
        await pushing(world, ["device0"], 300)
        assert world.poller._overlap.serials
        del world.sems.targets["device0"]
        await world.discovery.round()
        await asyncio.sleep(600)
        assert not world.poller._overlap.serials
        assert world.plants.get("device0") is None


# trouble


@virtual
async def test_one_device_that_cannot_be_read_is_its_own_trouble_and_said_once():
    async with World(fleet(1, 3)) as world:
        await asyncio.sleep(60)
        with capture_logs() as logs:
            world.sems.spoil = lambda i, a: (
                TimedOutError("gone") if i.name == "GetInverterBySN" and a["serial"] == "device1" else None
            )
            await asyncio.sleep(300)
            assert world.poller.troubled == 1
            assert world.desk.reports[-1] == (True, "")
            world.sems.spoil = lambda *_: None
            await asyncio.sleep(120)
        said = [entry["event"] for entry in logs if entry.get("serial") == "device1"]
        assert said == ["device can't be read", "device can be read again"]
        assert world.poller.troubled == 0


@virtual
async def test_when_nothing_can_be_read_the_bridge_is_down():
    async with World(fleet(1, 2)) as world:
        await asyncio.sleep(60)
        world.sems.spoil = lambda *_: TimedOutError("gone")
        await asyncio.sleep(120)
        assert world.desk.reports[-1] == (False, "no device can be read; the last one: gone")
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(60)
        assert world.desk.reports[-1] == (True, "")


@virtual
async def test_while_sems_is_away_it_is_asked_ever_more_seldom():
    async with World(fleet(1, 5), interval=1.0) as world:
        await asyncio.sleep(60)
        world.sems.spoil = lambda *_: UnreachableError("SEMS can't be reached")
        began = world.clock.monotonic()
        await asyncio.sleep(600)
        tries = [at for at, *_ in world.sems.calls if at > began]
        assert len(tries) < 60
        assert world.desk.reports[-1] == (False, "SEMS can't be reached; trying again")
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(70)
        assert world.desk.reports[-1] == (True, "")


@virtual
async def test_sems_own_limit_is_waited_out():
    async with World(fleet(1, 5)) as world:
        await asyncio.sleep(60)
        began = world.clock.monotonic()
        world.sems.spoil = lambda *_: RateLimitedError("SEMS limits this account's calls", 300.0)
        await asyncio.sleep(20)
        world.sems.spoil = lambda *_: None
        assert world.desk.reports[-1][0] is False
        await asyncio.sleep(240)
        assert len([at for at, *_ in world.sems.calls if at > began]) <= 4
        await asyncio.sleep(120)
        assert world.desk.reports[-1] == (True, "")


@virtual
async def test_calls_taken_by_others_stretch_the_polling_and_nobody_is_told_it_is_down():
    async with World(fleet(20, 400), per_hour=1000) as world:
        await asyncio.sleep(600)
        spent = 0
        while not world.sems.budget.wait(Priority.CONTROL):
            world.sems.budget.spend(Priority.CONTROL)
            spent += 1
        assert spent > 100
        world.sems.spoil = lambda *_: BudgetSpentError("used up", 1.0)
        await asyncio.sleep(1800)
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(HOUR)
        assert not [detail for up, detail in world.desk.reports if up is False]
        assert all(world.desk.router.state(t.serial).values for t in world.plants)


@virtual(only="uvloop")  # many seconds
async def test_what_sems_never_answers_is_not_asked_for_a_day():
    async with World(fleet(1, 3), per_hour=360) as world:
        world.sems.spoil = lambda i, _: (
            SemsRefusedError("100006", "not supported") if i.name == "GetInverterDetail" else None
        )
        with capture_logs() as logs:
            await asyncio.sleep(HOUR)
        assert len(world.calls("GetInverterDetail")) == 3
        assert [e["event"] for e in logs if e.get("interface") == "GetInverterDetail"] == [
            "SEMS does not answer an interface; it is not asked for a day"
        ]
        assert world.desk.router.state("device2").values["pv_power"] == 1000
        world.sems.spoil = lambda *_: None
        await asyncio.sleep(25 * HOUR)
        assert len(world.calls("GetInverterDetail")) > 10


@virtual
async def test_a_refusal_of_what_has_answered_before_is_no_reason_to_stop_asking():
    async with World(fleet(1, 3)) as world:
        await asyncio.sleep(600)
        world.sems.spoil = lambda i, _: SemsRefusedError("1", "busy") if i.name == "GetPlantStatistics" else None
        asked = len(world.calls("GetPlantStatistics"))
        await asyncio.sleep(HOUR)
        assert len(world.calls("GetPlantStatistics")) - asked == pytest.approx(12, abs=1)


@virtual
async def test_a_types_only_interface_goes_on_being_asked_and_a_list_stands_in_where_there_is_one():
    targets = [*fleet(1, 2), target("m", "meter", "plant0")]
    async with World(targets) as world:
        world.sems.spoil = lambda i, _: (
            HttpStatusError("404", 404) if i.name in {"GetMeterBySN", "GetInverterBySN"} else None
        )
        await asyncio.sleep(1200)
        assert len(world.calls("GetMeterBySN")) == pytest.approx(20, abs=2)
        assert len(world.calls("GetInverterBySN")) == 3
        assert {row.interface for row in world.poller.plan.rows if row.role is Role.LIVE} >= {"GetInverterList"}
        assert world.desk.router.state("device0").quality is Quality.GOOD
        assert world.desk.router.state("device0").values["ac_power"] == 1000


@virtual
async def test_one_device_does_not_spoil_a_batch():
    async with World(fleet(1, 50), api="developer") as world:
        await asyncio.sleep(120)
        world.sems.spoil = lambda i, a: (
            SemsRefusedError("R1", "bad sn") if i.name == "DeviceTelemetry" and "device17" in a["serials"] else None
        )
        await asyncio.sleep(1200)
        assert world.poller.troubled == 1
        late = {s.serial for at, s in world.desk.published if at > world.clock.monotonic() - 130}
        assert len(late) == 50, "all but one, and the plant"
        since = world.clock.monotonic()
        await asyncio.sleep(600)
        assert len(world.calls("DeviceTelemetry", since)) < 40


@virtual
async def test_what_a_batch_leaves_out_is_in_trouble():
    async with World(fleet(1, 3), api="developer") as world:
        await asyncio.sleep(60)
        gone = world.sems.targets.pop("device2")
        await asyncio.sleep(120)
        assert world.poller.troubled == 1
        world.sems.targets["device2"] = gone
        await asyncio.sleep(120)
        assert world.poller.troubled == 0


@virtual
async def test_entries_of_others_in_an_answer_are_not_believed():
    async with World([*fleet(2, 4)]) as world:
        await asyncio.sleep(60)
        asked = "device0"
        world.sems.spoil = lambda i, a: (
            {"status": 2, "sn": "device1", "pac": 9.0, "nothing": {}} if i.name == "GetInverterBySN" else None
        )
        await asyncio.sleep(120)
        # This interface's entries bear no serial number of their own, so it is the one asked about that is told of.
        assert world.desk.router.state(asked).values["status"] == "fault"
        world.sems.spoil = lambda i, a: (
            {"list": [{"sn": "device1", "pac": 777.0}, {"sn": 5}, "x", {"sn": "device0", "pac": "12"}]}
            if i.name == "GetInverterList" else None
        )  # fmt: skip
        poller = world.poller
        interface = world.sems.catalogue.interface("GetInverterList")
        await poller._make(Job(interface, ("plant0",)))
        assert world.desk.router.state("device1").values["ac_power"] != 777
        assert world.desk.router.state("device0").values["ac_power"] == 12


# budgets, fleets, clocks


@settings(
    max_examples=HOURS, deadline=None, suppress_health_check=list(HealthCheck), phases=set(Phase) - {Phase.shrink}
)
@given(
    plants=st.integers(1, 12),
    devices=st.integers(0, 120),
    per_hour=st.integers(10, 4000),
    interval=st.floats(1, 600),
    api=st.sampled_from(["open_api", "developer"]),
    latency=st.floats(0, 20),
    controls=st.integers(0, 400),
    jumps=st.lists(st.floats(-7200, 7200), max_size=3),
    pushed=st.booleans(),
)
def test_an_hour_never_spends_more_than_there_is(
    plants, devices, per_hour, interval, api, latency, controls, jumps, pushed
):
    types = ["inverter", "storage", "meter", "battery", "ev_charger"]

    @virtually
    async def hour():
        world = World(fleet(plants, devices, types), api, per_hour, interval)
        world.sems.latency = latency
        world.desk.names["push"] = "push"
        planned = []

        async def control():
            for n in range(controls):
                await asyncio.sleep(2 * HOUR / controls)
                planned.append((world.poller.plan.per_hour, world.sems.budget.planned))
                if n < len(jumps):
                    world.clock.jump(jumps[n])
                if pushed:
                    push(world, [f"device{k}" for k in range(0, devices, 2)], interval=300)
                if not world.sems.budget.wait(Priority.CONTROL):
                    switch = next(world.sems.catalogue.using(Use.CONTROL)).name
                    args = {"serial": "device0", "running": True}
                    await world.sems.call(switch, args, priority=Priority.CONTROL)

        async def discover():
            await world.discovery.round()
            world.poller.discovered()

        tasks = [asyncio.create_task(work) for work in (discover(), world.poller.run(), control())]
        await asyncio.sleep(2 * HOUR)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [error for task in tasks if not task.cancelled() and (error := task.exception())] == []
        times = [at for at, *_ in world.sems.calls]
        assert most_in_an_hour(times) <= per_hour
        polls = [at for at, _, _, priority in world.sems.calls if priority is Priority.POLLING]
        assert most_in_an_hour(polls) <= 0.9 * per_hour
        assert all(total <= world.sems.budget.for_polling * (1 + 1e-9) for total, _ in planned)
        assert all(total == said for total, said in planned if said)

    hour()


def test_a_device_is_stale_after_three_of_its_own_intervals():
    cadence = Cadence()
    assert cadence.interval(60) == 60
    asked = count(0, 60)

    def uploads(*minutes):
        for at in asked:
            newest = max(m for m in minutes if m * 60 <= at)
            cadence.add(NOON + timedelta(minutes=newest), at, 60)
            if newest == minutes[-1]:
                return

    uploads(0, 5, 10, 15)
    assert cadence.interval(60) == 300
    uploads(15, 320, 325, 330, 635, 640)
    assert cadence.interval(60) == 300, "nights do not make a device seldom"
    uploads(*range(640, 680, 4))
    assert cadence.interval(60) == 240, "it may become quicker"
    uploads(*range(676, 800, 10))
    assert cadence.interval(60) == 600, "or slower"
    uploads(*range(796, 960, 20))
    assert cadence.interval(60) == MAX_CADENCE_SECONDS


@virtual
async def test_a_logger_that_uploads_every_five_minutes_is_no_reason_to_call_its_device_stale():
    async with World(fleet(1, 1)) as world:
        clock = world.clock
        real = clock.now

        def uploaded():
            now = real()
            return now - timedelta(minutes=now.minute % 5, seconds=now.second, microseconds=now.microsecond)

        world.sems.clock = type("Logger", (), {"now": staticmethod(uploaded), "monotonic": clock.monotonic})()
        world.sems.budget._clock = clock
        await asyncio.sleep(1800)
        newest = [s for _, s in world.desk.published if s.serial == "device0"][-1]
        assert newest.interval == 300
        assert world.desk.router.state("device0").quality is Quality.GOOD
        assert world.plants.get("plant0").type == PLANT
