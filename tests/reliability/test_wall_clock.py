"""A live gateway whose clocks do what users' clocks do: set either way, asleep, paused, and wrong after a power cut.

A deadline is over as soon as one clock says so. Not to send, and to set back early, is the safe side where a clock was
wrong; nothing is ever sent late, and a clock that is set back revives nothing.
"""

import time
from datetime import datetime
from itertools import count

import pytest

from gateway.commands.timers import UNKNOWN_TIME
from tests.kit.process import eventually
from tests.kit.wall_clock import WallClock
from tests.reliability.checker import reconcile
from tests.reliability.rig import Rig

pytestmark = pytest.mark.system

HOUR = 3600
STORE, ROOF, ROW_1, ROW_2 = (
    (serial, "export_limit")
    for serial in ("9020KETT221W0001", "9020KDTU219W0001", "9050KMTU220W0001", "9050KMTU220W0002")
)
BY_ITS_OWN_CLOCK = {"reverted too early", "not reverted in time", "expired too early", "late"}
"""What the checker reckons by the gateway's wall clock, which is what jumps here."""


@pytest.fixture
def clock(tmp_path):
    return WallClock(tmp_path)


@pytest.fixture
def rig(tmp_path, clock):
    rig = Rig(tmp_path, environment=clock.environment)
    with rig.surroundings(), rig.running():
        yield rig


def jumped(rig, clock, offset):
    """Set the clock, and see that the gateway has it."""
    clock.jump(offset)

    def shown():
        (command,) = rig.set(ROW_2, float(next(numbers))).json()["commands"]
        return datetime.fromisoformat(command["time"]).timestamp() - time.time()

    numbers = count(1)
    eventually(lambda: abs(shown() - offset) < 60, otherwise=lambda: f"its clock is {shown()} s from ours")


def waiting_and_armed(rig, ttl=60):
    """Two commands that wait behind one whose device takes its time, and a timer of ten minutes."""
    rig.set(ROOF, 1.0, revert_after=600, revert_value=2.0)
    eventually(lambda: rig.ended(ROOF, 1.0) == "succeeded")
    rig.spoil(device_delay=15)
    for lane in (STORE, ROW_1):
        rig.set(lane, 3.0)
        rig.set(lane, 4.0, ttl=ttl)
    eventually(lambda: len(rig.unended()) == 4, otherwise=lambda: str(rig.unended()))


def nothing_was_late(rig):
    eventually(
        lambda: rig.ended(STORE, 4.0) == rig.ended(ROW_1, 4.0) == "expired", otherwise=lambda: str(rig.unended())
    )
    eventually(lambda: rig.ended(ROOF, 2.0), 30, "the timer is overdue")
    executed = check(rig).executed
    assert [action.value for action in executed if action.value == 4.0] == []
    assert [action.value for action in executed if action.lane == ROOF] == [1.0, 2.0]


@pytest.mark.parametrize("clocks", ["a machine that sleeps", "a machine that is paused, or its clock set"])
def test_after_two_hours_that_the_loop_did_not_count_nothing_is_sent_and_timers_fire(rig, clock, clocks):
    waiting_and_armed(rig)
    clock.sleep(2 * HOUR) if "sleeps" in clocks else clock.jump(2 * HOUR)
    rig.spoil(clear=True, device_delay=0)
    nothing_was_late(rig)


def test_a_command_in_the_middle_of_its_call_is_not_sent_after_a_sleep(rig, clock):
    """It waits for a connection, with its deadline looked at already, when the machine falls asleep."""
    rig.spoil(answer_delay=6)
    for number in range(12):  # more than there are slots for calls at a time
        rig.set((f"90{50 if number % 2 else 20}", "export_limit"), 1.0)  # unknown ones are refused, and cost nothing
    for lane in (STORE, ROOF, ROW_1, ROW_2):
        rig.set(lane, 5.0, ttl=20)
    clock.sleep(2 * HOUR)
    rig.spoil(clear=True, answer_delay=0)
    eventually(lambda: not rig.unended(), otherwise=lambda: str(rig.unended()))
    late = [call for call in rig.records().executed if call.value == 5.0 and rig.ended(call.lane, 5.0) == "expired"]
    assert late == []


def test_a_jump_back_revives_no_command_and_puts_off_no_timer(rig, clock):
    rig.spoil(device_delay=2)
    rig.set(STORE, 3.0)
    rig.set(STORE, 4.0, ttl=1)
    rig.spoil(device_delay=0)
    rig.set(ROW_1, 5.0, revert_after=1.5, revert_value=6.0)
    eventually(lambda: rig.ended(ROW_1, 5.0) == "succeeded")
    jumped(rig, clock, -HOUR)
    assert eventually(lambda: rig.ended(STORE, 4.0)) == "expired"
    assert eventually(lambda: rig.ended(ROW_1, 6.0)) == "succeeded"
    told = check(rig).executed
    assert [action.value for action in told if action.lane == STORE] == [3.0]


@pytest.mark.parametrize("set_when", ["before its end", "never"])
def test_a_box_without_a_clock_sends_nothing_old_after_a_power_cut(tmp_path, clock, set_when):
    hasty = {} if set_when == "before its end" else {"gateway.commands.timers.UNKNOWN_TIME": UNKNOWN_TIME / 3}
    rig = Rig(tmp_path, environment=clock.environment, log="info", hasty=hasty)
    with rig.surroundings():
        rig.start()
        rig.wait_until_ready()
        waiting_and_armed(rig, ttl=10)
        rig.kill()
        over = time.monotonic() + 10
        eventually(lambda: time.monotonic() > over)  # by the time that is right they have expired
        clock.reboot()
        clock.jump(-3 * HOUR)
        rig.spoil(clear=True, device_delay=0)
        rig.start()
        rig.gateway.line("command taken up")
        if set_when == "before its end":
            rig.gateway.line('"event": *"up", *"bridge": *"sems"|"bridge": *"sems".*"event": *"up"')
            clock.jump(0)
            eventually(lambda: rig.ended(STORE, 4.0) == rig.ended(ROW_1, 4.0) == "expired")
            over = time.monotonic() + UNKNOWN_TIME + 2
            eventually(lambda: time.monotonic() > over)
            assert rig.ended(ROOF, 2.0) is None, "its time is known again, and has not come"
            assert len(rig.timers()) == 1
        else:
            # The devices are known by now, so the commands could leave; the timer's time can't be known, so it fires.
            eventually(lambda: rig.ended(ROOF, 2.0) == "succeeded")
            eventually(lambda: rig.ended(STORE, 4.0) == rig.ended(ROW_1, 4.0) == "expired")
        assert [action for action in rig.records().executed if action.value == 4.0] == []
        rig.stop()


def check(rig):
    records = rig.records()
    verdict = reconcile(records, over=False)
    assert not verdict.kinds - BY_ITS_OWN_CLOCK, verdict.faults
    return records
