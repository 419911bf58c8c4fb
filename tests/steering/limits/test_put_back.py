"""A limit that somebody else has loosened: it is put back, soon, and without a storm of writes."""

import asyncio

import pytest

from gateway.core.findings import FindingCode
from gateway.core.model import CommandState, Range
from tests.kit.clock import FakeClock, virtual
from tests.steering.limits.test_limit import ALL, House, Park, inverters, limited

OWN = {"export_limit": Range(0, 10_000)}
BY_POWER = {"active_power_limit": Range(0, 100)}


async def somebody(house, setpoint, value, serial="INV", **changes):
    command = house.bench.command(setpoint, value, serial=serial, **changes)
    (event,) = await house.bench.dispatcher.submit(command)
    assert event.state is CommandState.ACCEPTED, event


async def beats(house, value, seconds, every=8):
    for _ in range(seconds // every):
        await house.ask(value)
        await house.wait(every)


@virtual
@pytest.mark.parametrize(
    ("takes", "told", "loose"), [(OWN, 3_000, 9_999), (OWN, 0, "none"), (BY_POWER, 30.0, 100.0), (BY_POWER, 30.0, 31.5)]
)
async def test_what_somebody_else_loosens_is_put_back_within_seconds(tmp_path, takes, told, loose):
    async with House(tmp_path, **takes) as house:
        (setpoint,) = takes
        limit = told if takes is OWN else 3_000
        await house.end(await house.ask(limit))
        await beats(house, limit, 40)
        await somebody(house, setpoint, loose)
        await house.wait(3)
        assert house.sent[-2:] == [(setpoint, loose), (setpoint, told)]
        await beats(house, limit, 240)
        assert house.sent[-1] == (setpoint, told)
        assert len(house.sent) == 3


@virtual
async def test_a_revert_of_somebody_elses_order_does_not_end_a_limit(tmp_path):
    async with House(tmp_path, **BY_POWER) as house:
        await house.end(await house.ask(3_000))
        await somebody(house, "active_power_limit", 10.0, revert_after=25)
        await beats(house, 3_000, 16)
        assert house.sent[-1] == ("active_power_limit", 10.0), "a stricter setting stays"
        await beats(house, 3_000, 16)
        assert house.sent[-2:] == [("active_power_limit", 100.0), ("active_power_limit", 30.0)]


@virtual
async def test_the_failsafe_is_put_back_too_and_after_a_restart(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        await house.wait(130)
        assert house.sent[-1] == ("export_limit", 1_500)
        await somebody(house, "export_limit", 5_000)
        await house.wait(3)
        assert house.sent[-1] == ("export_limit", 1_500)
        await house.runner.stop()
        await somebody(house, "export_limit", "none")
        await house.wait(1)
        house.runner.start()
        await house.wait(15)
        assert house.sent[-2:] == [("export_limit", "none"), ("export_limit", 1_500)]


@virtual
async def test_where_there_is_no_limit_what_somebody_sets_stays(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask("none"))
        await somebody(house, "export_limit", 5_000)
        await beats(house, "none", 80)
        assert house.sent[-1] == ("export_limit", 5_000)


@virtual
async def test_what_is_set_past_the_gateway_is_put_back_once_it_is_read(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        house.bench.publish("INV", export_limit=10_000.0)
        await house.wait(10)
        assert len(house.sent) == 1, "it may be from before"
        await beats(house, 3_000, 128)
        house.bench.publish("INV", export_limit=3_000.4)
        await house.wait(3)
        assert len(house.sent) == 1, "rounded"
        await house.ask(3_000)
        house.bench.publish("INV", export_limit=10_000.0)
        await house.wait(3)
        assert house.sent == [("export_limit", 3_000)] * 2


@virtual
@pytest.mark.parametrize("late", [0, 130])
async def test_a_device_that_says_done_and_reads_otherwise_is_told_again_less_and_less_often(tmp_path, late):
    """At once, so that the command fails, or after a while."""
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        sent, at = 0, 0.0
        for _ in range(12 * 60):
            await house.ask(3_000)
            if len(house.sent) != sent:
                sent, at = len(house.sent), house.bench.clock.monotonic()
            loose = house.bench.clock.monotonic() - at >= late
            house.bench.publish("INV", export_limit=10_000.0 if loose else 3_000.0)
            await house.wait(60)
        assert 20 < sent < 100


@virtual
async def test_two_that_set_one_device_in_turns_do_not_make_a_storm(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        for _ in range(60):
            await somebody(house, "export_limit", 9_000)
            await house.ask(3_000)
            await house.wait(1)
        await house.wait(11)
        ours = [value for _, value in house.sent if value == 3_000]
        assert 5 <= len(ours) <= 9
        assert house.sent[-1] == ("export_limit", 3_000)


@virtual
@pytest.mark.parametrize("late", [0.0, 90.0])
async def test_a_fleet_that_somebody_lets_go_is_limited_again(tmp_path, late):
    machines = inverters(4)
    async with Park(tmp_path, FakeClock(), machines, ALL) as park:
        await park.end(await limited(park, 20_000))
        await park.wait(30)
        machines[0].delay = late
        await park.ask(100.0, "active_power_limit")
        for _ in range(4):
            await park.wait(5)
            await limited(park, 20_000)
        assert park.state().values["active_power_limit"] == 50.0
        await park.wait(late)
        for _ in range(10):
            await limited(park, 20_000)
            await park.wait(20)
            assert park.power <= 20_400
        assert not [f for s in park.bench.router.bridges() for f in s.findings if f.code is FindingCode.NOT_STEERABLE]


@virtual
async def test_a_fleet_that_is_let_go_again_and_again_is_limited_most_of_the_time(tmp_path):
    async with Park(tmp_path, FakeClock(), inverters(4), ALL) as park:
        await park.end(await limited(park, 20_000))
        held = 0
        for _ in range(40):
            await park.ask(100.0, "active_power_limit")
            await limited(park, 20_000)
            for _ in range(15):
                await asyncio.sleep(1)
                held += park.power <= 20_400
        assert held > 300, "of 600 s"


@virtual
async def test_a_stricter_setting_that_overtakes_a_limit_stays_and_is_no_refusal(tmp_path):
    machines = inverters(4)
    async with Park(tmp_path, FakeClock(), machines, ALL) as park:
        machines[0].delay = 100.0
        await limited(park, 20_000)
        await park.wait(20)
        await park.ask(10.0, "active_power_limit")
        for _ in range(30):
            await park.wait(10)
            await limited(park, 20_000)
            assert not [f for s in park.bench.router.bridges() for f in s.findings]
        assert park.state().values["active_power_limit"] == 10.0
        assert park.power <= 4_100
