"""One account's calls: never more than so many in any hour, whoever makes them and whatever happens to the machine."""

import asyncio
import gc
import os
import tempfile
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
import structlog.testing
from hypothesis import example, given, settings

from gateway.core import files
from gateway.core.clock import SystemClock
from gateway.sems.budget import HOUR, LEASES_PER_HOUR, TRANSIT, Budget, Priority
from gateway.sems.errors import BudgetSpentError, RateLimitedError
from gateway.sems.ledger import LEASE_SECONDS, Ledger
from tests.kit.clock import NOON
from tests.sems.kit import Clock

AN_HOUR = HOUR + TRANSIT
HISTORY, POLLING, CONTROL, REVERT = Priority


class Machine:
    """True time, what the machine's clocks make of it, and processes that share an account's file."""

    def __init__(self, folder, per_hour):
        self.true = 0.0
        self.boot, self.booted_at = 0, -5000.0
        self.skew = 0.0
        self.path = Path(folder) / "budget.json"
        self.per_hour = per_hour
        self.calls = []
        self.budgets = {}

    def now(self):
        return NOON + timedelta(seconds=self.true + self.skew)

    def monotonic(self):
        return self.true - self.booted_at

    def budget(self, user):
        if user not in self.budgets:
            self.budgets[user] = Budget(self.per_hour, self, Ledger(self.path, f"boot {self.boot}"))
        return self.budgets[user]

    def crash(self, user):
        self.budgets.pop(user, None)

    async def stop(self, user):
        if user in self.budgets:
            await self.budgets.pop(user).settle()

    def reboot(self, off):
        self.budgets.clear()
        self.true += off
        self.boot += 1
        self.booted_at = self.true - 3

    async def call(self, user, priority):
        try:
            await self.budget(user).take(priority)
        except BudgetSpentError:
            return False
        self.calls.append(self.true)
        return True

    def most_in_an_hour(self):
        return max((sum(start <= call < start + HOUR for call in self.calls) for start in self.calls), default=0)


users = st.sampled_from(["gateway", "second"])
seconds = st.one_of(
    st.floats(0, 30),
    st.floats(0, 4000),
    st.sampled_from([60.0, LEASE_SECONDS - 1, LEASE_SECONDS, HOUR - LEASE_SECONDS, HOUR - 1, HOUR, AN_HOUR]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), users, st.sampled_from(Priority), st.integers(1, 6)),
        st.tuples(st.just("call"), users, st.just(REVERT), st.just(1000)),
        st.tuples(st.just("pass"), seconds),
        st.tuples(st.just("jump"), st.floats(-1e6, 1e6)),
        st.tuples(st.just("crash"), users),
        st.tuples(st.just("stop"), users),
        st.tuples(st.just("reboot"), st.one_of(st.just(0.0), seconds)),
    ),
    max_size=40,
)
ALL = ("call", "gateway", REVERT, 1000)
ONE = ("call", "gateway", REVERT, 1)
CRASH = ("crash", "gateway")
NEARLY = ("pass", HOUR - 1)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([4, 10, 25]))
@example([ALL, CRASH, NEARLY, ALL], 25)
@example([ALL, ("stop", "gateway"), NEARLY, ALL], 25)
@example([("pass", 40.0), ALL, ("stop", "gateway"), ("pass", HOUR - 30), ALL], 25)
@example([ALL, ("reboot", 0.0), NEARLY, ALL], 25)
@example([ALL, ("jump", 1e6), CRASH, ALL, ("reboot", 0.0), ("jump", 1e6), ALL], 25)
@example([ONE, ("pass", 250.0), ("call", "gateway", REVERT, 5), CRASH, ("pass", HOUR - 200), ALL], 25)
@example([ONE, ("pass", 3000.0), ("call", "gateway", REVERT, 5), CRASH, ("pass", 1000.0), ALL], 25)
@example([("call", "second", REVERT, 20), ALL, ("call", "second", REVERT, 1000)], 25)
def test_no_true_hour_ever_holds_more_calls_than_allowed(todo, per_hour):
    async def run(machine):
        for kind, *args in todo:
            match kind:
                case "call":
                    user, priority, times = args
                    while times and await machine.call(user, priority):
                        times -= 1
                case "pass":
                    machine.true += args[0]
                case "jump":
                    machine.skew += args[0]
                case "crash":
                    machine.crash(args[0])
                case "stop":
                    await machine.stop(args[0])
                case "reboot":
                    machine.reboot(args[0])

    # How long the disk takes is not the subject.
    # Larger leases and no slack make more of a mistake.
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(os, "fsync"),
        patch("gateway.sems.budget.LEASES_PER_HOUR", 4),
        patch("gateway.sems.budget.TRANSIT", 0.0),
    ):
        machine = Machine(folder, per_hour)
        asyncio.run(run(machine))
        assert machine.most_in_an_hour() <= per_hour


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(Priority), st.integers(1, 60), st.floats(0, 900)), max_size=30),
    st.integers(4, 100),
    st.floats(0, 120),
)
def test_whoever_is_more_urgent_can_still_go_when_others_cannot(todo, per_hour, planned):
    clock = Clock()
    budget = Budget(per_hour, clock)
    budget.plan("sems", planned)
    made = dict.fromkeys(Priority, 0)
    for priority, times, pause in todo:
        for _ in range(times):
            waits = {p: budget.wait(p) for p in Priority}
            if waits[REVERT]:
                assert all(waits.values())
            if waits[CONTROL]:
                assert waits[POLLING]
                assert waits[HISTORY]
            if not waits[priority]:
                budget.spend(priority)
                made[priority] += 1
        clock.pass_time(pause)
    assert budget.used <= per_hour


@pytest.mark.parametrize("per_hour", [4, 10, 100, 3600])
def test_each_priority_leaves_what_those_above_it_may_need(per_hour):
    budget = Budget(per_hour, Clock())
    budget.plan("sems", budget.for_polling)
    made = {}
    for priority in (POLLING, HISTORY, CONTROL, REVERT):
        made[priority] = 0
        while not budget.wait(priority):
            budget.spend(priority)
            made[priority] += 1
        with pytest.raises(BudgetSpentError):
            budget.spend(priority)
    assert all(made.values())
    assert sum(made.values()) == per_hour == budget.used
    assert made[POLLING] <= 0.9 * per_hour
    assert budget.for_polling <= made[POLLING]


def test_history_takes_what_the_plan_leaves_but_at_least_its_least():
    def most(planned):
        budget = Budget(3600, Clock())
        budget.plan("sems", planned)
        while not budget.wait(HISTORY):
            budget.spend(HISTORY)
        return budget.used

    # An hour of the plan, that SEMS may see as 61 minutes of it.
    assert [most(planned) for planned in (0, 1200, 3060, 3600, 1e9)] == [3240, 2020, 129, 72, 72]


def test_polling_at_the_planned_rate_never_waits_though_history_takes_all_it_can():
    clock = Clock()
    budget = Budget(360, clock)
    budget.plan("sems", budget.for_polling)
    for step in range(3 * 360):
        for _ in range((step + 1) * budget.for_polling // 360 - step * budget.for_polling // 360):
            assert not budget.wait(POLLING)
            budget.spend(POLLING)
        if not budget.wait(HISTORY):
            budget.spend(HISTORY)
        clock.pass_time(10)


def test_a_wait_is_just_as_long_as_told():
    clock = Clock()
    budget = Budget(100, clock)
    for _ in range(100):
        for priority in (HISTORY, POLLING, CONTROL):
            if not budget.wait(priority):
                budget.spend(priority)
        clock.pass_time(7)
    for priority in Priority:
        while not budget.wait(priority):
            budget.spend(priority)
        wait = budget.wait(priority)
        clock.pass_time(wait - 0.01)
        assert budget.wait(priority) == pytest.approx(0.01)
        clock.pass_time(0.01 + 1e-6)
        assert budget.wait(priority) == 0


def test_a_tiny_budget_still_lets_something_through():
    for per_hour in (1, 2, 3):
        budget = Budget(per_hour, Clock())
        budget.plan("sems", 5)
        assert budget.wait(HISTORY) >= 0
        assert budget.for_polling == 1
        for _ in range(per_hour):
            budget.spend(REVERT)
        assert all(budget.wait(priority) == AN_HOUR for priority in Priority)


async def test_sems_can_hold_everybody():
    clock = Clock()
    budget = Budget(100, clock)
    budget.hold(300)
    budget.hold(10)
    assert budget.wait(REVERT) == 300
    with pytest.raises(RateLimitedError) as caught:
        await budget.take(REVERT)
    assert type(caught.value) is RateLimitedError
    clock.pass_time(300)
    await budget.take(REVERT)


# Over restarts


@asynccontextmanager
async def writes():
    """How often the disk is written."""
    with patch.object(files, "replace", side_effect=files.replace) as replace:
        yield replace


async def test_calls_are_written_a_lease_at_a_time(tmp_path):
    clock = Clock()
    budget = Budget.shared(tmp_path / "b.json", 3600, clock)
    async with writes() as replace:
        for _ in range(600):
            await budget.take(POLLING)
            clock.pass_time(1)
        assert replace.call_count == 600 * LEASES_PER_HOUR / 3600
    async with writes() as replace:
        for _ in range(60):
            await budget.take(POLLING)
            clock.pass_time(60)
        assert replace.call_count == pytest.approx(3600 / LEASE_SECONDS, abs=1)
    assert (tmp_path / "b.json").stat().st_mode & 0o077 == 0


async def test_a_restart_counts_exactly_and_a_crash_a_lease_more(tmp_path):
    machine = Machine(tmp_path, 100)
    for user, end in (("gateway", machine.stop), ("gateway", None)):
        for _ in range(3):
            assert await machine.call(user, POLLING)
        if end:
            await end(user)
    machine.crash("gateway")
    again = machine.budget("gateway")
    await again.settle()
    assert again.used == 3 + 3
    for _ in range(10):
        await machine.call("gateway", POLLING)
        machine.crash("gateway")
    again = machine.budget("gateway")
    await again.settle()
    assert again.used == 6 + 10


async def test_a_crash_counts_the_whole_lease(tmp_path):
    machine = Machine(tmp_path, 600)
    await machine.call("gateway", POLLING)
    machine.crash("gateway")
    again = machine.budget("gateway")
    await again.settle()
    assert again.used == 10
    machine.true += AN_HOUR + LEASE_SECONDS - 1
    assert again.used == 10
    machine.true += 1
    assert again.used == 0


async def test_time_that_the_machine_was_off_does_not_count(tmp_path):
    machine = Machine(tmp_path, 100)
    for _ in range(100):
        await machine.call("gateway", REVERT)
    machine.true += 1000
    await machine.stop("gateway")
    machine.skew = 1e8
    machine.reboot(0)
    assert not await machine.call("gateway", REVERT)
    machine.true += AN_HOUR - 1000 + 60
    assert await machine.call("gateway", REVERT)


async def test_without_a_boot_id_a_restart_is_a_reboot(tmp_path):
    machine = Machine(tmp_path, 100)
    machine.budgets["gateway"] = Budget(100, machine, Ledger(machine.path, ""))
    for _ in range(100):
        await machine.call("gateway", REVERT)
    machine.true += 10_000
    machine.budgets["gateway"] = Budget(100, machine, Ledger(machine.path, ""))
    assert not await machine.call("gateway", REVERT)


async def test_two_processes_share_the_hour(tmp_path):
    machine = Machine(tmp_path, 100)
    while await machine.call("gateway", POLLING) | await machine.call("second", POLLING):
        machine.true += 1
    assert len(machine.calls) == 90
    assert await machine.call("second", CONTROL)


async def test_sessions_of_one_account_in_one_process_share_one_budget_and_the_smaller_limit(tmp_path):
    clock = Clock()
    one = Budget.shared(tmp_path / "b.json", 100, clock)
    assert Budget.shared(tmp_path / "x" / ".." / "b.json", 50, clock) is not one  # paths are compared as they are
    assert Budget.shared(tmp_path / "b.json", 50, clock) is one
    assert one.per_hour == 50
    assert Budget.shared(tmp_path / "c.json", 50, clock) is not one
    await one.take(POLLING)
    del one
    gc.collect()
    again = Budget.shared(tmp_path / "b.json", 100, clock)
    assert again.per_hour == 100
    assert again.used == 0
    await again.settle()
    assert again.used == 1


async def test_many_at_once_lease_once(tmp_path):
    budget = Budget.shared(tmp_path / "b.json", 3600, Clock())
    async with writes() as replace:
        await asyncio.gather(*(budget.take(POLLING) for _ in range(60)))
        assert replace.call_count == 1
    assert budget.used == 60


async def test_many_at_once_do_not_overrun(tmp_path):
    budget = Budget.shared(tmp_path / "b.json", 30, Clock())
    found = await asyncio.gather(*(budget.take(REVERT) for _ in range(50)), return_exceptions=True)
    assert sum(error is None for error in found) == 30 == budget.used


async def test_whoever_gives_up_waiting_does_not_stop_the_writing(tmp_path):
    budget = Budget.shared(tmp_path / "b.json", 3600, Clock())
    with patch.object(files, "replace", side_effect=files.replace):
        impatient = asyncio.create_task(budget.take(POLLING))
        await asyncio.sleep(0)
        impatient.cancel()
        await budget.take(POLLING)
    assert budget.used == 1


async def test_an_unwritable_disk_is_said_once_and_counting_goes_on(tmp_path):
    clock = Clock()
    file = tmp_path / "no folder"
    file.write_text("")
    budget = Budget.shared(file / "b.json", 20, clock)
    with structlog.testing.capture_logs() as log:
        for _ in range(20):
            await budget.take(REVERT)
        with pytest.raises(BudgetSpentError):
            await budget.take(REVERT)
        assert [entry["log_level"] for entry in log] == ["warning"]
        file.unlink()
        clock.pass_time(AN_HOUR)
        await budget.take(REVERT)
        assert [entry["event"] for entry in log[1:]] == ["calls to SEMS are counted on disk again"]


@pytest.mark.parametrize("kept", [b"", b"{}", b'{"boot": 5}'])
async def test_a_file_that_cannot_be_read_is_said_and_counts_as_nothing(tmp_path, kept):
    (tmp_path / "b.json").write_bytes(kept)
    with structlog.testing.capture_logs() as log:
        budget = Budget.shared(tmp_path / "b.json", 20, Clock())
        for _ in range(3):
            await budget.take(POLLING)
    assert [entry["log_level"] for entry in log] == ["warning"]


async def test_on_a_real_machine(tmp_path):
    clock = SystemClock()
    one = Budget(100, clock, Ledger(tmp_path / "b.json"))
    await one.take(POLLING)
    await one.settle()
    other = Budget(100, clock, Ledger(tmp_path / "b.json"))
    await other.settle()
    assert other.used == 1
    with patch("gateway.core.clock.BOOT_ID", tmp_path / "none"):
        third = Budget(100, clock, Ledger(tmp_path / "b.json"))
    await third.settle()
    assert third.used == 1
