"""The wall clock of a live gateway jumps by an hour, either way: nothing is killed, revived, fired early or put off."""

import time
from datetime import datetime
from itertools import count

import pytest

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
BY_ITS_OWN_CLOCK = {"reverted too early", "expired too early", "late"}
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


def test_a_jump_forward_kills_no_command_and_fires_no_timer(rig, clock):
    rig.set(ROOF, 1.0, revert_after=600, revert_value=2.0)
    eventually(lambda: rig.ended(ROOF, 1.0) == "succeeded")
    rig.spoil(device_delay=2)
    rig.set(STORE, 3.0)
    rig.set(STORE, 4.0, ttl=30)
    jumped(rig, clock, HOUR)
    assert rig.ended(STORE, 4.0) is None
    assert eventually(lambda: rig.ended(STORE, 4.0)) == "succeeded"
    assert rig.ended(ROOF, 2.0) is None
    assert not [command for command in rig.commands() if command.origin == "revert"]
    check(rig)


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
    assert [deed.value for deed in told if deed.lane == STORE] == [3.0]


def check(rig):
    records = rig.records()
    verdict = reconcile(records, over=False)
    assert not verdict.kinds - BY_ITS_OWN_CLOCK, verdict.faults
    return records
