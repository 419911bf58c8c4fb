"""A limit while control is halted: nothing leaves, what is shown is true, and after it what holds is written soon."""

import pytest

from gateway.core.findings import FindingCode
from gateway.core.model import CommandState
from tests.kit.clock import FakeClock, virtual
from tests.steering.limits.test_draw import Home
from tests.steering.limits.test_limit import ALL, House, Park, inverters, limited
from tests.steering.limits.test_put_back import somebody


def found(house):
    return [f for s in house.bench.router.bridges() for f in s.findings if f.code is FindingCode.LIMIT_NOT_HELD]


@virtual
async def test_a_failsafe_that_begins_while_halted_is_said_not_to_hold_and_written_after(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        await house.bench.halting.halt("cli", "lunch")
        await house.wait(60)
        assert not found(house), "what holds is in force"
        await house.wait(1_000)
        assert house.state == "failsafe"
        assert house.sent == [("export_limit", 3_000)]
        (finding,) = found(house)
        assert [f.code for s in house.bench.router.bridges() for f in s.findings] == [finding.code], "nothing is tried"
        assert finding.text == "INV stands at export_limit 3000.0, and 1500 W are permitted; control is halted"
        assert finding.remedy == "sems-gateway resume CONFIG"
        await house.bench.halting.resume("cli")
        await house.wait(3)
        assert house.sent[-1] == ("export_limit", 1_500)
        assert not found(house)


@virtual
async def test_a_failsafe_of_more_than_what_is_in_force_is_held_while_halted(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(1_000))
        await house.bench.halting.halt("cli")
        await house.wait(200)
        assert house.state == "failsafe"
        assert not found(house)


@virtual
async def test_what_is_loosened_right_before_a_halt_is_told_and_put_back_after(tmp_path):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        house.bench.controller.gate.clear()
        await somebody(house, "export_limit", 9_999)
        await house.wait(1)
        await house.bench.halting.halt("cli")
        house.bench.controller.gate.set()
        await house.wait(3)
        assert house.sent[-1] == ("export_limit", 9_999)
        (finding,) = found(house)
        assert finding.text.startswith("INV stands at export_limit 9999.0, and 3000 W are permitted")
        await house.bench.halting.resume("cli")
        await house.wait(3)
        assert house.sent[-1] == ("export_limit", 3_000)


@virtual
async def test_a_refusal_because_of_a_halt_is_no_reason_to_wait_after_it(tmp_path):
    async with House(tmp_path) as house:
        house.bench.controller.gate.clear()
        id_ = await house.ask(3_000)
        await house.wait(5)
        second = await house.ask(2_000)
        await house.wait(1)
        await house.bench.halting.halt("cli")
        await house.wait(30)
        house.bench.controller.gate.set()
        await house.wait(300)
        assert (await house.end(id_)).state is CommandState.FAILED
        end = await house.end(second)
        assert (end.state, "halted" in end.detail) == (CommandState.FAILED, True)
        await house.bench.halting.resume("cli")
        await house.wait(4)
        assert house.sent[-1] == ("export_limit", 1_500)


@virtual
async def test_a_limit_waits_for_a_journal_that_cannot_be_written_as_for_a_halt(tmp_path, monkeypatch):
    async with House(tmp_path) as house:
        await house.end(await house.ask(3_000))
        trouble = ["the disk is full"]
        monkeypatch.setattr(type(house.bench.dispatcher), "journal_trouble", property(lambda _: trouble[0]))
        await house.wait(900)
        (finding,) = found(house)
        assert finding.text.endswith("1500 W are permitted; control is closed: the disk is full")
        trouble[0] = ""
        await house.wait(3)
        assert house.sent[-1] == ("export_limit", 1_500)


@virtual
@pytest.mark.parametrize("halted", [True, False])
async def test_what_is_drawn_beyond_a_limit_while_halted_is_said_and_dealt_with_after(tmp_path, halted):
    async with Home(tmp_path) as home:
        await home.end(await home.ask(4_200))
        home.car = 0.0
        if halted:
            await home.bench.halting.halt("cli")
        home.load = 6_000.0
        await home.wait(200)
        if halted:
            (finding,) = found(home)
            assert finding.text == "1800 W more are drawn than it permits; control is halted"
            assert home.sent == []
            await home.bench.halting.resume("cli")
            await home.wait(12)
        assert home.draw <= 4_200
        assert not found(home)
        assert {serial for serial, _, _ in home.sent} == {"INV"}, "the charger need not wait"


@virtual
async def test_a_limit_on_its_way_when_control_is_halted_counts_as_what_the_device_stands_at(tmp_path):
    machines = inverters(4)
    async with Park(tmp_path, FakeClock(), machines, ALL) as park:
        await park.end(await limited(park, 4_000))
        machines[0].delay = 1_000.0
        id_ = await limited(park, 20_000)
        await park.wait(5)
        await park.bench.halting.halt("cli")
        await park.wait(130)
        assert park.bench.router.state("limit:grid").values["limit_state"] == "failsafe"
        (finding,) = found(park)
        assert "fleet:north stands at active_power_limit 50.0, and 4000 W are permitted" in finding.text
        end = await park.end(id_)
        assert end.state is CommandState.FAILED, "it is the failsafe that holds"
        await park.bench.halting.resume("cli")
        await park.wait(30)
        assert park.bench.router.state("limit:grid").values["export_limit"] == 4_000
