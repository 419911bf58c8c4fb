"""One setpoint for a fleet at once, through both platforms, in the simulator's own time."""

import asyncio
import os
from bisect import bisect_left
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.bridges.open_api import OpenApiBridge, OpenApiSettings
from gateway.bridges.open_api.admission_queue import KEPT_EACH, UNDER_WAY
from gateway.bridges.open_api.batcher import WINDOW
from gateway.bridges.open_api.control import MAX_CONCURRENT_CALLS
from gateway.core.model import CommandState
from gateway.sems.budget import Priority
from tests.bridges.open_api.kit import CLASSIC, CONTROL, DEVELOPER, order, status
from tests.kit.bench import Bench, collected
from tests.kit.clock import FakeClock, virtual
from tests.kit.in_process import simulated

LIMIT = "active_power_limit"
TASK = "ControlTask.ActivePowerLimit"
CALLS = 3600
PART = int(os.environ.get("SEMS_GATEWAY_SOAK_FLEET", "500")) / 2000
"""Of 2,000 devices, and of classic's calls for them; `make soak` has them all."""
DEVICES = int(2000 * PART)
CONTROLS = ("SetActivePowerLimit", "GetControlResult", "GetControlParameters")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""What the disk takes is not the subject, and 2,000 commands wait for it often."""
POLLS = 4
"""Calls that polling and discovery have under way at a time, and one to spare."""


class Fleet:
    def __init__(self, bench, runner, simulator, line):
        self.bench, self.runner, self.simulator, self.line = bench, runner, simulator, line

    @property
    def serials(self):
        states = self.bench.router.announced()
        return [s.device.serial for s in states if s.device.kind in ("inverter", "storage")]

    def commands(self, serials, value=60.0, **changes):
        return [self.bench.command(LIMIT, value, serial=serial, **changes) for serial in serials]

    def called(self):
        return Counter(call.interface for call in self.simulator.cloud.calls)

    def most_in_an_hour(self):
        times = [call.time.timestamp() for call in self.simulator.cloud.calls]
        return max(n + 1 - bisect_left(times, time - 3600) for n, time in enumerate(times))

    async def passed(self, condition, pause=1.0):
        while not (result := condition()):
            await asyncio.sleep(pause)
        return result


@asynccontextmanager
async def connected(monkeypatch, login, devices=2000, *, settings=None, **simulator):
    clock = FakeClock()
    options = {"plants": max(3, devices // 4), "calls_per_hour": CALLS, "developer_calls_per_hour": CALLS,
               "calls_remembered": 100_000} | simulator  # fmt: skip
    with simulated(monkeypatch, clock, **options) as (cloud, line), TemporaryDirectory(dir=MEMORY) as directory:
        async with Bench(Path(directory), CONTROL, clock) as bench:
            fields = (
                {"url": "http://sems.test", "calls_per_hour": CALLS, "poll_interval": 3600} | (settings or {}) | login
            )
            runner = bench.run(OpenApiBridge, OpenApiSettings(**fields), "sems")
            bench.dispatcher.use({"sems": runner.bridge})
            fleet = Fleet(bench, runner, cloud, line)
            await fleet.passed(lambda: status(bench) and status(bench).up and len(fleet.serials) >= devices - 20)
            yield fleet


async def sent_to_all(fleet, commands, pause=1):
    async with collected(fleet.bench.router) as (events, _):
        began = fleet.bench.clock.monotonic()
        await asyncio.gather(*(fleet.bench.dispatcher.submit(command) for command in commands))
        ends, seen = {}, 0
        while len(ends) < len(commands):
            ends |= {e.command.id: e for e in events[seen:] if e.state.final}
            seen = len(events)
            await asyncio.sleep(pause)
        return [ends[command.id] for command in commands], events, fleet.bench.clock.monotonic() - began


@virtual(only="uvloop")  # many seconds
async def test_the_developer_platform_takes_a_fleet_by_hundreds(monkeypatch):
    async with connected(monkeypatch, DEVELOPER, DEVICES) as fleet:
        serials = fleet.serials
        assert DEVICES - 20 <= len(serials) <= DEVICES + 20
        least = -(-len(serials) // 100)
        call_estimate = fleet.bench.dispatcher.call_estimate(LIMIT, serials)["sems"]
        assert (call_estimate.devices, call_estimate.calls, call_estimate.seconds) == (len(serials), least, 0)
        before = fleet.called()
        ends, _, took = await sent_to_all(fleet, fleet.commands(serials))
        assert {e.state for e in ends} == {CommandState.SUCCEEDED}
        assert all(fleet.simulator.world.setpoints(s).active_power_limit == 60 for s in serials)
        calls = fleet.called() - before
        assert calls[TASK] in (least, least + 1)
        assert calls["ControlResult"] <= 4 * calls[TASK]
        assert took < 10
        assert fleet.line.most <= MAX_CONCURRENT_CALLS + POLLS


@virtual(only="virtual")  # many seconds
async def test_classic_spreads_a_fleet_over_the_hours_calls(monkeypatch):
    per_hour = int(CALLS * PART)
    options = {"settings": {"calls_per_hour": per_hour}, "calls_per_hour": per_hour}
    async with connected(monkeypatch, CLASSIC, DEVICES, **options) as fleet:
        serials = fleet.serials
        commands = fleet.commands(serials, ttl=3 * 3600)
        ends, events, took = await sent_to_all(fleet, commands, pause=20)
        assert Counter(e.state for e in ends) == {CommandState.SUCCEEDED: len(serials)}
        assert fleet.called()["SetActivePowerLimit"] == len(serials)
        assert fleet.called()["GetControlResult"] < 2 * len(serials)
        assert 3600 < took < 2 * 3600 + 600
        assert fleet.most_in_an_hour() <= per_hour
        assert fleet.line.most <= MAX_CONCURRENT_CALLS + POLLS
        assert all(e.time < e.command.expires for e in events if e.state is CommandState.SENT)


@virtual
async def test_what_has_no_turn_in_time_expires_unsent(monkeypatch):
    async with connected(monkeypatch, CLASSIC, 60, settings={"calls_per_hour": 200}) as fleet:
        commands = fleet.commands(fleet.serials, ttl=300)
        ends, _, took = await sent_to_all(fleet, commands)
        states = Counter(e.state for e in ends)
        assert states.keys() == {CommandState.SUCCEEDED, CommandState.EXPIRED}
        assert fleet.called()["SetActivePowerLimit"] == states[CommandState.SUCCEEDED]
        assert {e.detail for e in ends if e.state is CommandState.EXPIRED} == {"its turn did not come in time"}
        assert 300 <= took < 310


@virtual
async def test_each_device_has_its_own_end(monkeypatch):
    async with connected(monkeypatch, DEVELOPER, 60) as fleet:
        refusing, offline, *well = fleet.serials
        fleet.simulator.cloud.spoil(
            order({"devices": {refusing: {"obedience": "refuses"}, offline: {"offline": True}}})
        )
        commands = [fleet.bench.command(LIMIT, n % 100, serial=s) for n, s in enumerate(fleet.serials)]
        ends, _, _ = await sent_to_all(fleet, commands)
        told = {e.command.serial: (e.state, e.detail) for e in ends}
        assert told[refusing] == (CommandState.FAILED, "the device did not obey")
        assert told[offline] == (CommandState.FAILED, "the device is offline")
        assert {told[serial][0] for serial in well} == {CommandState.SUCCEEDED}
        assert fleet.called()[TASK] <= 2
        for command in commands[2:]:
            assert fleet.simulator.world.setpoints(command.serial).active_power_limit == command.value


@virtual
async def test_what_has_not_left_is_cancelled_and_what_has_comes_to_its_end(monkeypatch):
    async with connected(monkeypatch, CLASSIC, 200) as fleet:
        commands = fleet.commands(fleet.serials)
        sending = asyncio.create_task(sent_to_all(fleet, commands))
        await fleet.passed(lambda: fleet.called()["SetActivePowerLimit"] >= UNDER_WAY)
        count = await fleet.bench.dispatcher.cancel([c.id for c in commands], "cli:somebody")
        ends, _, _ = await sending
        states = Counter(e.state for e in ends)
        assert states == {CommandState.EXPIRED: count, CommandState.SUCCEEDED: len(commands) - count}
        assert fleet.called()["SetActivePowerLimit"] == len(commands) - count
        assert count >= len(commands) - 3 * UNDER_WAY
        assert {e.detail for e in ends if e.state is CommandState.EXPIRED} == {"cancelled by cli:somebody"}


@virtual(only="uvloop")  # many seconds
async def test_reverts_overtake_commands_that_wait_and_polling_waits_for_both(monkeypatch):
    settings = {"calls_per_hour": 600, "poll_interval": 30, "discovery_interval": 86_400}
    async with connected(monkeypatch, CLASSIC, 300, settings=settings) as fleet:
        falling, others = fleet.serials[:2], fleet.serials[2:]
        budget = fleet.runner.bridge._session.budget
        async with collected(fleet.bench.router) as (events, _):

            def sent(origin):
                return [e for e in events if e.state is CommandState.SENT and e.command.origin == origin]

            first = fleet.commands(falling, 50, revert_after=300, revert_value=90)
            for commands in (first, fleet.commands(others, ttl=4 * 3600)):
                await asyncio.gather(*(fleet.bench.dispatcher.submit(command) for command in commands))
            # Control uses what polling may not, and then waits; there are calls for reverts alone.
            await fleet.passed(lambda: budget.room(Priority.CONTROL) < KEPT_EACH)
            assert budget.room(Priority.POLLING) == 0
            polled, began = polls(fleet), fleet.bench.clock.monotonic()
            await fleet.passed(lambda: len(sent("revert")) == len(falling))
            assert fleet.bench.clock.monotonic() - began < 310
            assert len(sent("test")) < len(others)
            assert polls(fleet) == polled
            ended = len(falling) * 2 + len(others)
            await fleet.passed(lambda: sum(e.state.final for e in events) == ended, pause=60)
            assert all(e.state is CommandState.SUCCEEDED for e in events if e.state.final)
            assert {fleet.simulator.world.setpoints(s).active_power_limit for s in falling} == {90}


def polls(fleet):
    return sum(count for name, count in fleet.called().items() if name not in CONTROLS)


@virtual
async def test_one_command_alone_waits_for_nobody(monkeypatch):
    async with connected(monkeypatch, DEVELOPER, 60) as fleet:
        monkeypatch.setattr(fleet.bench.dispatcher, "may_leave", lambda *_: True)  # it is given none of these
        (sent,) = await asyncio.gather(left_after(fleet, fleet.serials[0]))
        assert sent == 0
        fleet.line.latency = 0.2
        first, second = await asyncio.gather(
            left_after(fleet, fleet.serials[1]), left_after(fleet, fleet.serials[2], 0.01)
        )
        assert (first, second) == (0, pytest.approx(WINDOW))


@virtual
async def test_sent_has_the_time_at_which_the_call_left_that_a_command_shared(monkeypatch):
    async with connected(monkeypatch, DEVELOPER, 60) as fleet:
        fleet.line.latency = 9.0
        clock = fleet.bench.clock
        began = clock.moment()
        commands = fleet.commands(fleet.serials)
        _, events, _ = await sent_to_all(fleet, commands)
        assert fleet.called()[TASK] < len(commands) / 2
        times = {e.command.serial: (e.time - began.wall).total_seconds() for e in events if e.state == "sent"}
        left = {serial: time - began.monotonic for serial, time in fleet.line.left.items()}
        assert times == pytest.approx(left, abs=0.001)


async def left_after(fleet, serial, pause=0.0):
    """Return how many seconds passed until the call left for a command."""
    await asyncio.sleep(pause)
    began, before = fleet.bench.clock.monotonic(), fleet.line.left.get(serial)
    assert before is None
    await fleet.runner.bridge.send(fleet.bench.command(LIMIT, 50, serial=serial), {}, 30)
    return fleet.line.left[serial] - began


@virtual
async def test_where_several_are_refused_they_are_sent_one_by_one_and_so_it_stays(monkeypatch):
    async with connected(monkeypatch, DEVELOPER, 60) as fleet:
        fleet.line.refuse_several = True
        ends, _, _ = await sent_to_all(fleet, fleet.commands(fleet.serials))
        assert {e.state for e in ends} == {CommandState.SUCCEEDED}
        refused = fleet.line.refused
        assert 1 <= refused <= 3
        ends, _, _ = await sent_to_all(fleet, fleet.commands(fleet.serials, 70))
        assert {e.state for e in ends} == {CommandState.SUCCEEDED}
        assert fleet.line.refused == refused
