"""A large journal after a kill: nothing new is taken before all that was promised is held again."""

import asyncio
import shutil

import pytest

from gateway.commands.dispatch import TAKES_UP
from gateway.core.controller import Outcome
from gateway.core.model import CommandState, Reason
from gateway.journal import store
from gateway.journal.journal import Journal, JournalError
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual
from tests.steering.fleet.test_fleet import ALL, batteries
from tests.steering.fleet.world import World

LONG = 30.0
"""Seconds that it takes to read what was open: thousands of commands."""


@pytest.fixture
def long_read(monkeypatch):
    """Have each journal be large, and take its time over what was open."""
    read = Journal.open_commands

    async def slowly(self):
        await asyncio.sleep(LONG)
        return await read(self)

    def arm():
        monkeypatch.setattr(store, "LARGE", 1)
        monkeypatch.setattr(Journal, "open_commands", slowly)

    return arm


def killed(data_dir, to):
    """Copy the files as a kill would leave them now."""
    to.mkdir()
    for file in data_dir.iterdir():
        if file.is_file():
            shutil.copy(file, to / file.name)
    return to


async def reads_on(dispatcher):
    """Wait until the journal can be written, and what was open is still being read."""
    async with asyncio.timeout(300):
        while dispatcher.journal_trouble != TAKES_UP:
            await asyncio.sleep(0.1)


async def all_is_known(dispatcher):
    async with asyncio.timeout(300):
        while dispatcher.journal_trouble:
            await asyncio.sleep(0.1)


@virtual
async def test_nothing_passes_by_a_command_that_is_not_taken_up_yet(tmp_path, long_read):
    clock = FakeClock()
    (tmp_path / "a").mkdir()
    async with Bench(tmp_path / "a", clock=clock) as bench:
        device, other = bench.announce(), bench.announce(serial="SECOND")
        await bench.dispatcher.submit(
            bench.command("active_power_limit", 70, serial=other.serial, revert_after=60, revert_value=100)
        )
        await asyncio.sleep(1)
        bench.controller.gate.clear()
        old = bench.command("active_power_limit", 40, ttl=600)
        await bench.dispatcher.submit(old)
        await asyncio.sleep(1)
        copy = killed(tmp_path / "a", tmp_path / "b")
    await asyncio.sleep(60)  # the dead-man's timer runs out meanwhile
    long_read()
    async with Bench(copy, clock=clock) as bench:
        bench.controller.gate.clear()
        bench.announce(), bench.announce(serial="SECOND")
        await reads_on(bench.dispatcher)
        new = bench.command("active_power_limit", 60)
        (refused,) = await bench.dispatcher.submit(new)
        assert (refused.state, refused.reason, refused.detail) == (CommandState.REJECTED, Reason.NOT_STORED, TAKES_UP)
        (again,) = await bench.dispatcher.submit(old)
        assert again.state in (CommandState.ACCEPTED, CommandState.SENT), "one that came before is no new one"
        both = await bench.dispatcher.submit(bench.command("running", True), bench.command("reactive_power", 1))
        assert {event.reason for event in both} == {Reason.NOT_STORED}
        with pytest.raises(JournalError, match="taken up"):
            await bench.dispatcher.result_came(old.id, Outcome(CommandState.SUCCEEDED, "done"))
        with pytest.raises(JournalError, match="taken up"):
            await bench.dispatcher.cancel([old.id], old.origin)
        reverted = [(other.serial, 100)]
        assert [(c.serial, c.value) for c in bench.controller.sent] == reverted, "a dead-man's timer waits for nothing"
        await all_is_known(bench.dispatcher)
        assert [command.id for command in bench.dispatcher.underway(old.origin)] == [old.id]
        await bench.dispatcher.result_came(old.id, Outcome(CommandState.SUCCEEDED, "done"))
        bench.controller.gate.set()
        (accepted,) = await bench.dispatcher.submit(bench.command("active_power_limit", 60))
        assert accepted.state is CommandState.ACCEPTED
        await asyncio.sleep(5)
        ends = [step for step in await bench.dispatcher.steps(old.id) if step.state.final]
        assert [(end.state, end.correction) for end in ends] == [(CommandState.SUCCEEDED, False)]
        assert [(c.serial, c.value) for c in bench.controller.sent] == [*reverted, (device.serial, 60)]


class Patient(World):
    """Tells results once it may."""

    def __init__(self, *args):
        super().__init__(*args)
        self.may_tell = asyncio.Event()

    async def result(self, command, receipt):
        await self.may_tell.wait()
        return await super().result(command, receipt)


@virtual
async def test_a_fleet_knows_what_its_members_were_told_once_all_is_taken_up(tmp_path, long_read):
    """Of 10,000 a fifth seemed to do otherwise: what they had been told a moment before the kill was not known yet."""
    clock, machines = FakeClock(), batteries(8)
    (tmp_path / "a").mkdir()
    async with Patient(tmp_path / "a", clock, machines, ALL) as world:
        world.may_tell.set()
        assert (await world.end(await world.ask(16_000))).verified
        world.may_tell.clear()
        await world.ask(-24_000)
        await world.wait(3)
        copy, killed_at = killed(tmp_path / "a", tmp_path / "b"), clock.now()
        world.may_tell.set()
    long_read()
    async with Patient(copy, clock, machines, ALL) as world:
        world.may_tell.set()
        await all_is_known(world.bench.dispatcher)
        await world.wait(120)
        assert all(command.created < killed_at for command in world.told)
        assert [mate.contradictions for mate in world.fleet.crew.mates.values()] == [0] * 8
        assert world.power == pytest.approx(-24_000, rel=0.02)
