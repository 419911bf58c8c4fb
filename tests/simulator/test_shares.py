"""Faults, delays and owners over a whole fleet, drawn from a seed."""

from collections import Counter

import pytest

from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.shares import Delays, Late, Shares
from tests.simulator.kit import HandClock, SimulatedCloud

SHARES = {"offline": 0.05, "refuse": 0.04, "contradict": 0.03, "late": {"share": 0.02, "seconds": [30, 60]}}
COUNTS = {"offline": 10, "refuse": 8, "contradict": 6, "late": 4}
LIMIT = {"active_power_limit": 40.0}


def of(fleet, fault):
    return next(serial for serial, has in fleet.evidence.faulty.items() if has == fault)


@pytest.fixture
async def fleet(clock):
    """200 inverters: the 8 of the default plants, and 192."""
    settings = {"plants": 195, "devices_per_plant": 1, "faults": {"shares": SHARES}, "calls_per_hour": 0}
    async with SimulatedCloud(clock, **settings) as cloud:
        await cloud.log_in()
        yield cloud


async def test_as_many_inverters_have_each_fault_as_the_shares_say_and_can_be_asked_for(fleet):
    assert Counter(fleet.evidence.faulty.values()) == COUNTS
    shown = (await fleet.http.get("/sim/fleet")).json()
    assert shown["devices"] == 200
    assert {fault: len(serials) for fault, serials in shown["faults"].items()} == COUNTS
    assert {serial for serials in shown["faults"].values() for serial in serials} == set(fleet.evidence.faulty)


async def test_they_do_what_their_fault_says(fleet, clock):
    receipts = {
        fault: await fleet.control("SetActivePowerLimit", of(fleet, fault), **LIMIT) for fault in (*COUNTS, "offline")
    }
    clock.advance(2)
    results = {fault: (await fleet.result(receipt))[0] for fault, receipt in receipts.items()}
    assert results == {"offline": "failed", "refuse": "failed", "contradict": "succeeded", "late": "pending"}
    clock.advance(28)
    assert (await fleet.result(receipts["late"]))[0] == "pending"
    clock.advance(30)
    assert (await fleet.result(receipts["late"]))[0] == "succeeded"
    limits = {fault: fleet.simulator.world.setpoints(of(fleet, fault)).active_power_limit for fault in COUNTS}
    assert limits == {"offline": 100, "refuse": 100, "contradict": 100, "late": 40}


async def test_what_is_offline_says_what_it_said_last_though_nobody_had_asked_before(fleet, clock):
    serial = of(fleet, "offline")
    begun = clock.now()
    clock.advance(3600)
    report = fleet.simulator.world.report(serial)
    assert report.time == begun
    assert report.values["status"] == "offline"
    other = Simulator(SimulatorSettings(plants=195, devices_per_plant=1, seed=7), HandClock())
    assert {**report.values, "status": "normal"} == {**other.world.report(serial).values, "status": "normal"}


async def test_shares_are_given_anew_and_taken_back(fleet, clock):
    before = dict(fleet.evidence.faulty)
    shown = await fleet.break_(shares={"offline": 0.1})
    assert shown["shares"]["offline"] == 0.1
    assert Counter(fleet.evidence.faulty.values()) == {"offline": 20}
    assert {s for s, fault in before.items() if fault == "offline"} < set(fleet.evidence.faulty)
    assert not fleet.evidence.tasks.obedience
    assert not fleet.evidence.tasks.late
    assert (await fleet.break_(clear=True))["devices"] == {}
    assert fleet.evidence.faulty == {}


async def test_shares_beyond_all_are_refused(fleet):
    answer = await fleet.http.post("/sim/faults", json={"shares": {"offline": 0.6, "refuse": 0.6}})
    assert answer.status_code == 400
    assert "more than 1" in answer.text


def test_who_has_a_fault_is_the_seeds():
    serials = [f"S{n}" for n in range(1000)]
    shares = Shares(offline=0.1, late=Late(share=0.1))
    assert shares.choose(serials, 1) == shares.choose(serials, 1) != shares.choose(serials, 2)
    assert Shares(offline=0.1, seed=1).choose(serials, 2) == Shares(offline=0.1).choose(serials, 1)
    assert len(shares.choose(serials, 1)) == 200


async def test_delays_have_the_median_and_the_tail_that_was_asked_for_and_are_the_seeds(clock):
    def drawn(seed):
        simulator = Simulator(SimulatorSettings(plants=500, devices_per_plant=4, seed=seed), clock)
        simulator.cloud.tasks.delay = Delays(median=4, p95=20, most=60)
        return [simulator.cloud.tasks.draw(serial)[0] for serial in simulator.world.inverters]

    delays = sorted(drawn(1))
    assert delays[len(delays) // 2] == pytest.approx(4, rel=0.1)
    assert delays[len(delays) * 95 // 100] == pytest.approx(20, rel=0.15)
    assert max(delays) <= 60
    assert drawn(1) == drawn(1) != drawn(2)


async def test_each_device_obeys_after_its_own_delay_and_none_overtakes_itself(clock):
    delays = {"median": 5, "p95": 30}
    async with SimulatedCloud(clock, calls_per_hour=0, faults={"device_delay": delays}) as cloud:
        await cloud.log_in()
        for limit in range(20):
            await cloud.control("SetActivePowerLimit", active_power_limit=float(limit))
        for _ in range(600):
            clock.advance(1)
            cloud.evidence.tasks.settle()
        limits = [control.setpoints["active_power_limit"] for control in cloud.evidence.controls]
        assert limits == [float(limit) for limit in range(20)]
        assert len({control.time for control in cloud.evidence.controls}) > 3


async def test_owners_change_things_about_as_often_as_they_are_said_to_and_as_the_seed_says(clock):
    def changes(seed, steps):
        hand = HandClock()
        simulator = Simulator(SimulatorSettings(plants=50, seed=seed), hand)
        simulator.world.start()
        simulator.cloud.tasks.owners.per_hour = 60
        for _ in range(steps):
            hand.advance(8 * 3600 / steps)
            simulator.cloud.tasks.settle()
        done = simulator.cloud.controls
        assert {control.api for control in done} == {"owner"}
        last = {control.serial: control.setpoints for control in done}
        for serial, setpoints in last.items():
            known = simulator.world.setpoints(serial).said()
            assert {name: known[name] for name in setpoints} == setpoints
        return [(control.serial, control.setpoints) for control in done]

    assert 400 < len(changes(1, 1)) < 560
    assert changes(1, 1) == changes(1, 7) != changes(2, 1)


async def test_owners_end_an_order_for_a_battery(clock):
    async with SimulatedCloud(clock, plants=1, faults={"owner_changes": 100}) as cloud:
        await cloud.log_in()
        await cloud.control(
            "SetBatteryChargeDischarge", battery_mode="discharge", battery_power_target=3000, battery_target_soc=20
        )
        for _ in range(60):
            clock.advance(60)
            cloud.evidence.tasks.settle()
        modes = [c.setpoints for c in cloud.evidence.controls if "work_mode" in c.setpoints]
        assert modes
        assert cloud.simulator.world.setpoints(cloud.simulator.world.inverters[0]).battery_mode == "auto"


async def test_writes_are_counted_by_device_and_setpoint_and_refused_ones_are_not(fleet, clock):
    good = next(s for s in fleet.simulator.world.inverters if s not in fleet.evidence.faulty)
    for _ in range(3):
        await fleet.control("SetActivePowerLimit", good, **LIMIT)
    await fleet.control("SetInverterSwitch", good, running=True)
    await fleet.control("SetActivePowerLimit", of(fleet, "refuse"), **LIMIT)
    await fleet.control("SetActivePowerLimit", of(fleet, "contradict"), **LIMIT)
    clock.advance(2)
    shown = (await fleet.http.get("/sim/fleet/writes")).json()
    assert shown["writes"] == {
        good: {"active_power_limit": {"total": 3, "today": 3}, "running": {"total": 1, "today": 1}}
    }
    assert shown["total"] == 4
    clock.advance(86_400)
    await fleet.log_in()
    await fleet.control("SetActivePowerLimit", good, **LIMIT)
    clock.advance(2)
    shown = (await fleet.http.get("/sim/fleet/writes", params={"devices": good})).json()
    assert shown["writes"][good] == {
        "active_power_limit": {"total": 4, "today": 1}, "running": {"total": 1, "today": 0}
    }  # fmt: skip
    assert shown["most_today"] == 1
