"""Who commands one device beside a fleet waits behind few of it, in every queue on the way."""

import asyncio

import pytest

from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import CommandState
from gateway.core.places import FEW, LATELY, MANY
from tests.kit.bench import INVERTER, Bench, collected, until
from tests.kit.clock import FakeClock, virtual

COUNT = 5 * MANY
CONTROL = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=list(INVERTER.setpoints))], max_per_minute=100_000
)


class Held:
    """A controller that sends nothing until it is told to."""

    def __init__(self):
        self.asked = []
        self.go = asyncio.Event()

    def takes(self, serial, setpoint):
        return True

    async def send(self, command, in_force, timeout):
        self.asked.append(command.id)
        await self.go.wait()
        return "receipt"

    async def result(self, command, receipt):
        await asyncio.Event().wait()


@pytest.fixture
def held():
    return Held()


def fleet(bench, count=COUNT):
    serials = [bench.announce(serial=f"9010KETU{number:04}").serial for number in range(count)]
    return [bench.command(serial=serial, bulk=True) for serial in serials]


async def submit(bench, *commands):
    answers = await asyncio.gather(*map(bench.dispatcher.submit, commands))
    assert {event.state for (event,) in answers} == {CommandState.ACCEPTED}


@virtual
async def test_few_of_a_fleet_are_handed_over_at_a_time_and_one_of_none_at_once(tmp_path, held):
    async with Bench(tmp_path, CONTROL, FakeClock()) as bench:
        bench.dispatcher.use({"held": held})
        commands = fleet(bench)
        await submit(bench, *commands)
        await until(lambda: len(held.asked) >= MANY)
        alone = bench.command(serial=bench.announce().serial)
        await submit(bench, alone)
        await until(lambda: alone.id in held.asked)
        assert held.asked == [*(command.id for command in commands[:MANY]), alone.id]
        held.go.set()
        await until(lambda: len(held.asked) == COUNT + 1)
        assert held.asked[MANY + 1 :] == [command.id for command in commands[MANY:]]


@virtual
async def test_beside_others_fewer_of_a_fleet_are_handed_over_at_a_time(tmp_path, held):
    async with Bench(tmp_path, CONTROL, FakeClock()) as bench:
        bench.dispatcher.use({"held": held})
        alone = bench.command(serial=bench.announce().serial)
        await submit(bench, alone)
        await until(lambda: alone.id in held.asked)
        commands = fleet(bench)
        await submit(bench, *commands)
        await asyncio.sleep(LATELY / 2)
        assert held.asked == [alone.id, *(command.id for command in commands[:FEW])]


@virtual
async def test_one_for_a_device_of_the_fleet_takes_the_place_of_its_command_at_once(tmp_path, held):
    async with Bench(tmp_path, CONTROL, FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.dispatcher.use({"held": held})
        commands = fleet(bench)
        await submit(bench, *commands)
        newer = bench.command(serial=commands[-1].serial, value=20)
        await submit(bench, newer)
        await until(lambda: newer.id in held.asked)
        ended = {event.command.id: event for event in events if event.state.final}
        assert ended[commands[-1].id].state is CommandState.SUPERSEDED
        held.go.set()
        await until(lambda: len(held.asked) == COUNT)
        assert commands[-1].id not in held.asked


@virtual
async def test_what_waits_for_a_place_can_be_cancelled_and_expires(tmp_path, held):
    async with Bench(tmp_path, CONTROL, FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.dispatcher.use({"held": held})
        commands = fleet(bench)
        await submit(bench, *commands)
        await until(lambda: len(held.asked) >= MANY)
        some = [command.id for command in commands[: 2 * MANY]]
        assert await bench.dispatcher.cancel(some, "test") == MANY
        await until(lambda: len([e for e in events if e.state.final]) == COUNT, timeout=1_000)
        expired = {event.command.id for event in events if event.state is CommandState.EXPIRED}
        assert expired == {command.id for command in commands} - set(held.asked)


@virtual
async def test_nothing_more_of_a_fleet_leaves_while_it_is_cancelled(tmp_path, held):
    async with Bench(tmp_path, CONTROL, FakeClock()) as bench:
        bench.dispatcher.use({"held": held})
        commands = fleet(bench)
        await submit(bench, *commands)
        await until(lambda: len(held.asked) >= MANY)
        held.go.set()
        ids = [command.id for command in commands]
        assert await bench.dispatcher.cancel(ids, "test") == COUNT - MANY
        assert held.asked == ids[:MANY]


@virtual
async def test_a_halt_reaches_what_waits_for_a_place(tmp_path, held):
    async with Bench(tmp_path, CONTROL, FakeClock()) as bench, collected(bench.router) as (events, _):
        bench.dispatcher.use({"held": held})
        commands = fleet(bench)
        await submit(bench, *commands)
        await until(lambda: len(held.asked) >= MANY)
        await bench.halting.halt("test", "for a test")
        held.go.set()
        await until(lambda: len([e for e in events if e.state is CommandState.EXPIRED]) == COUNT - MANY)
        assert len(held.asked) == MANY


@virtual
async def test_after_a_restart_a_fleet_goes_on_few_at_a_time(tmp_path, held):
    clock = FakeClock()
    async with Bench(tmp_path, CONTROL, clock) as bench:
        bench.dispatcher.use({"held": held})
        commands = fleet(bench)
        await submit(bench, *commands)
        await until(lambda: len(held.asked) >= MANY)
    held.asked.clear()
    async with Bench(tmp_path, CONTROL, clock) as bench:
        fleet(bench)
        bench.dispatcher.use({"held": held})
        await until(lambda: len(held.asked) >= MANY)
        await asyncio.sleep(0.1)
        # Of those that were handed over before, the results are asked for.
        assert held.asked == [command.id for command in commands[MANY : 2 * MANY]]
