"""A battery order is one thing: what waits leaves by one call, half of it never, and it is over when it has ended."""

import asyncio

from gateway.commands.policy.policy import ControlSettings
from gateway.core.errors import NotSentError, UnsureError
from gateway.core.model import CommandState
from tests.kit.bench import EVERYTHING, INVERTER, Bench, collected
from tests.kit.clock import FakeClock, virtual

MODE, POWER, TARGET = "battery_mode", "battery_power_target", "battery_target_soc"
SHORT = ControlSettings(**(EVERYTHING.model_dump() | {"battery_window": 60}))


async def ask(bench, seconds=1.0, **values):
    more = {key: values.pop(key) for key in ("revert_after", "ttl") if key in values}
    names = {"mode": MODE, "power": POWER, "target": TARGET}
    commands = [bench.command(names[name], value, **more) for name, value in values.items()]
    events = await bench.dispatcher.submit(*commands)
    await asyncio.sleep(seconds)
    assert all(event.state is CommandState.ACCEPTED for event in events), events
    return commands


def calls(bench):
    """What each call said: the command's own value, and what it carried."""
    return [
        {command.setpoint: command.value} | carried
        for command, carried in zip(bench.controller.sent, bench.controller.in_force, strict=True)
    ]


async def ready(bench):
    bench.announce()
    bench.publish(interval=100_000)
    await asyncio.sleep(1)


@virtual
async def test_a_newer_setting_goes_into_the_one_call_of_the_order_that_waits(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await ready(bench)
        bench.controller.gate.clear()
        await ask(bench, mode="idle")
        await ask(bench, mode="charge", power=500)
        await ask(bench, power=700)
        bench.controller.gate.set()
        await asyncio.sleep(5)
        assert calls(bench) == [{MODE: "idle"}, {MODE: "charge", POWER: 700.0}]


@virtual
async def test_who_cancels_half_an_order_cancels_it_whole(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench, collected(bench.router) as (events, _):
        await ready(bench)
        bench.controller.gate.clear()
        await ask(bench, mode="idle")
        mode, power = await ask(bench, mode="discharge", power=500)
        assert await bench.dispatcher.cancel([power.id], "test") == 2
        bench.controller.gate.set()
        await asyncio.sleep(5)
        assert calls(bench) == [{MODE: "idle"}]
        ends = {event.command.id: event.state for event in events}
        assert (ends[mode.id], ends[power.id]) == (CommandState.EXPIRED, CommandState.EXPIRED)


@virtual
async def test_after_a_restart_an_order_of_which_nothing_is_known_is_sent_again_whole(tmp_path):
    from gateway.core.controller import Outcome

    clock = FakeClock()
    async with Bench(tmp_path, clock=clock) as bench:
        await ready(bench)
        bench.controller.answers = [UnsureError("HTTP 503")]
        bench.controller.gate.clear()
        await ask(bench, mode="charge", power=500)
    async with Bench(tmp_path, clock=clock) as bench:
        bench.controller.outcomes = [Outcome(CommandState.UNKNOWN, "never heard of it")]
        await ready(bench)
        await asyncio.sleep(5)
        assert calls(bench) == [{MODE: "charge", POWER: 500.0}]


@virtual
async def test_a_command_that_never_left_makes_nobody_forget_the_order_that_runs(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await ready(bench)
        await ask(bench, mode="charge", power=2000)
        bench.controller.answers = [NotSentError("away")] * 10
        await ask(bench, 10, mode="discharge", ttl=2.0)
        bench.controller.answers = []
        await ask(bench, power=700)
        assert calls(bench)[-1] == {MODE: "charge", POWER: 700.0}


@virtual
async def test_an_order_that_has_ended_is_over_shown_so_and_sent_when_asked_for_again(tmp_path):
    clock = FakeClock()
    async with Bench(tmp_path, SHORT, clock) as bench:
        await ready(bench)
        await ask(bench, mode="charge", power=2000)
        assert bench.router.state(INVERTER.serial).values[MODE] == "charge"
        await bench.halting.halt("cli:me")
    await asyncio.sleep(70)
    async with Bench(tmp_path, SHORT, clock) as bench:
        await ready(bench)
        bench.halting._current = None
        bench.dispatcher.look_at_clock()
        await asyncio.sleep(5)
        assert calls(bench) == [], "a dead order was begun anew"
        assert bench.router.state(INVERTER.serial).values[MODE] == "auto"
        await ask(bench, power=900)
        assert calls(bench) == []
        await ask(bench, mode="charge")
        assert calls(bench) == [{MODE: "charge", POWER: 900.0}]


@virtual
async def test_a_timer_is_postponed_by_no_other_setting_and_waits_for_none(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await ready(bench)
        await ask(bench, mode="charge", revert_after=15.0)
        await ask(bench, power=1000, revert_after=300.0)
        bench.controller.gate.clear()
        await ask(bench, target=80)
        assert bench.controller.sent[-1].revert_after < 15, "the order holds no longer than its timer"
        await asyncio.sleep(13)
        assert calls(bench)[-1][MODE] == "auto"
        bench.controller.gate.set()
        await asyncio.sleep(400)
        assert [c.value for c in bench.controller.sent].count("auto") == 1
        assert await bench.journal.reverts() == []


@virtual
async def test_a_newer_setting_without_a_timer_takes_the_place_of_the_one_before(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        await ready(bench)
        await ask(bench, mode="charge")
        await ask(bench, power=3000, revert_after=20.0)
        await ask(bench, power=2000)
        await asyncio.sleep(60)
        assert "auto" not in [c.value for c in bench.controller.sent]
