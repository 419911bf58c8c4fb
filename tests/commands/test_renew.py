"""Orders that go on are renewed before their window is over; the others end with it."""

import asyncio
from types import SimpleNamespace

import pytest

from gateway.commands.renew import Renewal
from gateway.core.clock import Moment
from gateway.core.model import GATEWAY, Command
from tests.simulator.kit import HandClock


class Memory:
    """What Renewal asks of the memory of setpoints."""

    def __init__(self):
        self.is_on = True
        self.until = None
        self.settings = {"battery_mode": SimpleNamespace(value="charge")}

    def runs(self, serial, group):
        return self.is_on

    def of(self, serial):
        return self.settings

    def window(self, command, until):
        self.until = until


class Bench:
    def __init__(self):
        self.clock = HandClock()
        self.memory, self.is_halted, self.armed, self.sent = Memory(), False, None, []
        self.renewal = Renewal(self.memory, lambda *_: self.armed, self.send, lambda: self.is_halted, self.clock, 3600)

    def moment(self):
        return Moment(self.clock.monotonic(), self.clock.monotonic(), self.clock.now())

    async def send(self, command, deadline):
        self.sent.append(command)
        self.renewal.sent(command, self.moment())

    def leaves(self, revert_after=None):
        now = self.clock.now()
        command = Command(id="a", serial="SN1", setpoint="battery_mode", value="charge", origin="mqtt", created=now,
                          expires=now, revert_after=revert_after)  # fmt: skip
        self.renewal.sent(command, self.moment())

    async def after(self, seconds):
        """Let so much time pass, and look; return how many renewals have left."""
        self.clock.advance(seconds)
        self.renewal.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(self.sent)


@pytest.fixture
def bench():
    return Bench()


async def test_an_order_without_a_timer_is_renewed_at_three_quarters_of_each_window(bench):
    bench.leaves()
    assert [await bench.after(s) for s in (2699, 2, 2698, 3)] == [0, 1, 1, 2]
    assert {(c.setpoint, c.value, c.origin, c.revert_after) for c in bench.sent} == {
        ("battery_mode", "charge", GATEWAY, None)
    }


async def test_an_order_ends_with_its_timer_unless_that_is_refreshed_and_then_holds_as_long_as_any(bench):
    bench.leaves(100)
    bench.armed = 25
    assert await bench.after(76) == 0
    bench.armed = 99
    assert await bench.after(1) == 1
    assert bench.sent[0].revert_after is None, "a short window anew each time would wear the memory out"
    assert bench.memory.until.left(bench.moment()) == 3600
    assert await bench.after(2000) == 1


async def test_an_order_that_has_ended_is_never_begun_anew(bench):
    bench.leaves()
    bench.is_halted = True
    assert await bench.after(3601) == 0
    bench.is_halted = False
    assert [await bench.after(s) for s in (1, 1000, 3600)] == [0, 0, 0]


@pytest.mark.parametrize("how", ["halted", "not running"])
async def test_what_is_halted_or_does_not_run_is_not_renewed(bench, how):
    bench.leaves()
    bench.is_halted, bench.memory.is_on = how == "halted", how == "halted"
    assert [await bench.after(s) for s in (2701, 600, 600)] == [0, 0, 0]
