"""What leaves where sequences are refused, left half-way or mixed, and where commands end late: each found by trying.

Over the real server; time passes when the test says so (see test_write_sequences.py).
"""

import asyncio
import itertools
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest

from gateway.bridges.modbus.maps.goodwe.panel import Panel, Sequence
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.clock import SystemClock
from gateway.core.controller import Outcome
from gateway.core.model import (
    Command,
    CommandEvent,
    CommandState,
    DeviceState,
    Origin,
    Quality,
    Range,
    new_command_id,
)
from gateway.core.points import SETPOINTS
from tests.bridges.modbus.client import ModbusError, RawClient
from tests.bridges.modbus.conftest import serving
from tests.bridges.modbus.test_sunspec_writes import ADDRESSES, ALL
from tests.bridges.modbus.test_write_sequences import (
    AUTO,
    IDLE,
    IN,
    LONG,
    MODE,
    OUT,
    TIMER,
    Field,
    charge,
    discharge,
    limit,
)
from tests.kit.bench import until

BUSY, VALUE = 6, 3
_WATTS = itertools.count()
LIMIT, ENABLE = "123.WMaxLimPct", "123.WMaxLim_Ena"


class Results:
    """Has each command end when the test says so, and how."""

    def __init__(self, bench):
        self.bench = bench
        self.waiting = []
        bench.controller.result = self._result

    async def _result(self, command, receipt):
        end = asyncio.get_running_loop().create_future()
        self.waiting.append((command, end))
        return await end

    async def end(self, state=CommandState.SUCCEEDED):
        """End the oldest that is under way, which may have come for several, and wait until that is known."""
        command, end = await until(lambda: next(iter(self.waiting), None))
        self.waiting.remove((command, end))
        end.set_result(Outcome(state, "so it was"))
        await until(lambda: command.id not in self.bench.dispatcher._open)
        return command


DEVICE = msgspec.structs.replace(
    ALL, setpoints={**ALL.setpoints, "export_limit": Range(0, 10_000), "work_mode": Range()}
)
CONTROL = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=list(DEVICE.setpoints))], max_per_minute=100_000
)


@asynccontextmanager
async def trial(tmp_path, map_):
    async with serving(tmp_path, devices=(DEVICE,), control=CONTROL, maps=(map_,), settle=LONG) as served:
        await served.publish(ac_power=next(_WATTS))
        async with served.client() as client:
            yield Field(served, client, map_)


@asynccontextmanager
async def another(here):
    client = await RawClient.connect(here.served.port)
    try:
        yield Field(here.served, client, here.map)
    finally:
        await client.close()


async def reads(here, *registers):
    found = []
    for register in registers:
        row = ADDRESSES[register].address if isinstance(register, str) else register
        found += await here.client.words(row)
    return [word - 0x10000 if word >= 0x8000 and isinstance(registers[0], str) else word for word in found]


async def refused(here, register, number):
    with pytest.raises(ModbusError) as caught:
        await here.write(register, number)
    return caught.value.code


async def pause(here):
    """Settle, and let the session be one that is over."""
    await here.settle()
    for target in here.served.bridge._writer._targets.values():
        if target.session:
            target.session.until = 0
    await until(lambda: not here.served.bench.dispatcher._open)
    await seen(here)


async def seen(here):
    """Wait until the registers show what has come until now."""
    await here.served.publish(ac_power=next(_WATTS))


def since(here):
    told, here.begun = here.told, len(here.served.bench.asked)
    return told


# the goodwe map


async def test_an_older_command_that_succeeds_does_not_bring_back_what_a_newer_one_replaces(tmp_path):
    async with trial(tmp_path, "goodwe") as here:
        results = Results(here.served.bench)
        await here.play(((47511, 11), (47512, 2000)))
        await here.settle()
        await here.play(((47512, 1000), (47511, 12)))
        await here.settle()
        assert here.told == (*charge(2000), *discharge(1000))
        await results.end()
        await seen(here)
        assert await reads(here, 47511, 47512) == [12, 1000]
        since(here)
        await here.write(47511, 11)
        assert await reads(here, 47511, 47512) == [11, 0]
        await here.settle()
        assert since(here) == IDLE


async def test_the_limit_stays_through_a_quick_on_and_off(tmp_path):
    async with trial(tmp_path, "goodwe") as here:
        results = Results(here.served.bench)
        await here.play(((47510, 5000), (47509, 1)))
        await here.settle()
        await here.write(47509, 0)
        await here.settle()
        for _ in range(2):
            await results.end()
            await seen(here)
            assert await reads(here, 47509, 47510) == [0, 5000]
        await here.write(47509, 1)
        await here.settle()
        assert here.told[-1] == ("export_limit", 5000)


async def test_a_work_mode_reads_as_the_newest_write_until_that_has_failed(tmp_path):
    async with trial(tmp_path, "goodwe") as here:
        results = Results(here.served.bench)
        for mode in (2, 5):
            await here.write(47000, mode)
            await here.settle()
        await results.end()
        await seen(here)
        assert await reads(here, 47000) == [5]
        await results.end(CommandState.FAILED)
        while await reads(here, 47000) != [2]:
            await seen(here)


async def test_a_hand_back_that_failed_shows_the_order_that_runs_on(tmp_path):
    async with trial(tmp_path, "goodwe") as here:
        results = Results(here.served.bench)
        await here.write(47511, (11, 2000))
        await here.settle()
        await results.end()
        await here.write(47511, (1, 0))
        await here.settle()
        await results.end(CommandState.FAILED)
        while await reads(here, 47511, 47512) != [11, 2000]:
            await seen(here)


@pytest.mark.parametrize(("first", "then", "told"), [(11, 12, IDLE), (12, 2, IDLE), (11, 2, charge(2000))])
async def test_the_power_of_an_order_is_not_that_of_one_in_the_other_direction(tmp_path, first, then, told):
    """Its client may have died before it wrote the power."""
    async with trial(tmp_path, "goodwe") as here:
        await here.play(((47511, first), (47512, 2000)))
        await pause(here)
        since(here)
        await here.write(47511, then)
        await pause(here)
        assert since(here) == told
        await here.write(47511, 1)
        assert await reads(here, 47511, 47512) == [1, 0]


async def test_a_power_that_is_written_by_itself_is_that_of_any_mode(tmp_path):
    """Home Assistant has the mode and its power as two entities, each written by itself."""
    async with trial(tmp_path, "goodwe") as here:
        await here.write(47512, 3000)
        await pause(here)
        for mode, told in ((11, charge(3000)), (12, discharge(3000)), (1, AUTO), (2, charge(3000))):
            await here.write(47511, mode)
            await pause(here)
            assert since(here) == told


@pytest.mark.parametrize("register", [47510, 47512])
async def test_a_power_below_zero_is_none(tmp_path, register):
    async with trial(tmp_path, "goodwe") as here:
        before = await reads(here, register)
        for number in (-2, -32_768):
            assert await refused(here, register, number) == VALUE
        assert await reads(here, register) == before
        await here.settle()
        assert here.told == ()


@pytest.mark.parametrize("settles", [False, True])
async def test_a_mode_does_not_act_by_the_power_before_a_refused_one(tmp_path, settles):
    async with trial(tmp_path, "goodwe") as here:
        await here.write(47512, 2000)
        if settles:
            await pause(here)
        assert await refused(here, 47512, -100) == VALUE
        assert await reads(here, 47511, 47512) == [1, 0]
        await here.write(47511, 11)
        await pause(here)
        assert since(here) == IDLE


async def test_who_changes_its_mind_within_a_sequence_writes_the_power_anew(tmp_path):
    async with trial(tmp_path, "goodwe") as here:
        await here.play(((47511, 12), (47512, 2000), (47511, 11)))
        assert await reads(here, 47511, 47512) == [11, 0]
        await here.settle()
        assert here.told == IDLE
        await pause(here)
        since(here)
        await here.play(((47511, 12), (47512, 2000), (47511, 11), (47512, 300)))
        await here.settle()
        assert here.told == charge(300)


async def test_a_power_is_of_its_own_mode_whatever_somebody_else_has_under_way(tmp_path):
    async with trial(tmp_path, "goodwe") as here:
        await here.write(47511, (11, 2000))
        await pause(here)
        Results(here.served.bench)
        bench = here.served.bench
        await bench.dispatcher.submit(bench.command("battery_mode", "idle"))
        since(here)
        await here.write(47512, 1000)
        await here.settle()
        assert since(here) == charge(1000)


def of(family, setpoint, value, *states):
    """Have a family hear of these steps of a command."""
    now = SystemClock().now()
    command = Command(
        id=new_command_id(), serial=DEVICE.serial, setpoint=setpoint, value=value, origin=Origin("else"), created=now,
        expires=now + timedelta(seconds=60),
    )  # fmt: skip
    for state in states:
        family.note(CommandEvent(command=command, state=state, time=now))
    return command


def test_an_order_that_has_passed_at_once_leaves_what_is_in_force():
    """The bridge hears of all that has happened meanwhile in one go."""
    panel = Panel()
    auto = DeviceState(device=DEVICE, quality=Quality.GOOD, time=None, source="it", values={"battery_mode": "auto"})
    panel.learn(auto)
    panel.keep(Sequence().then({47511: 11, 47512: 500}))
    for setpoint, value in (*charge(500), *AUTO):
        of(panel, setpoint, value, CommandState.ACCEPTED, CommandState.SUCCEEDED)
    panel.learn(auto)
    assert (panel.reads[47511], panel.reads[47512]) == (1, 0)


def test_an_older_order_that_failed_does_not_take_back_a_newer_hand_back():
    """A hand-back has no power, so the newest power is that of the older order."""
    panel = Panel()
    panel.learn(
        DeviceState(device=DEVICE, quality=Quality.GOOD, time=None, source="it", values={"battery_mode": "auto"})
    )
    older = [of(panel, setpoint, value, CommandState.ACCEPTED) for setpoint, value in charge(500)]
    of(panel, "battery_mode", "idle", CommandState.ACCEPTED)
    panel.keep(Sequence().then({47511: 8}))
    for command in older:
        panel.note(CommandEvent(command=command, state=CommandState.FAILED, time=command.created))
    assert panel.reads[47511] == 8


# model 124


async def test_a_rate_that_waits_is_nobodys_once_the_bridge_is_started_again(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        await here.write(OUT, -5000)
        await pause(here)
        here.served.bridge._writer._targets.clear()  # as a new writer has none
        await here.write(MODE, 2)
        await pause(here)
        assert set(here.told) <= set(AUTO)


async def test_what_a_refused_sequence_wrote_acts_no_more(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        await here.play(((IN, -5000), (OUT, -5000)))
        assert await refused(here, MODE, 3) == VALUE
        assert await reads(here, MODE, IN, OUT) == [0, 10_000, 10_000]
        for mode in (1, 2, 3):
            await here.write(MODE, mode)
            await pause(here)
        assert set(here.told) <= set(AUTO)


@pytest.mark.parametrize("settles", [False, True])
async def test_a_mode_does_not_act_by_the_rate_before_a_refused_one(tmp_path, settles):
    async with trial(tmp_path, "sunspec") as here:
        await here.write(OUT, -2000)
        if settles:
            await pause(here)
        assert await refused(here, OUT, -15_000) == VALUE
        await here.write(MODE, 2)
        await pause(here)
        assert set(here.told) <= set(AUTO)


async def test_a_hand_back_stays_where_what_follows_is_refused(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        await here.play(((OUT, -5000), (MODE, 2)))
        await pause(here)
        assert since(here) == charge(2500)
        await here.play(((MODE, 0), (OUT, -1000)))
        assert await refused(here, IN, -15_000) == VALUE
        assert await reads(here, MODE, IN, OUT) == [0, 10_000, 10_000]
        await pause(here)
        assert since(here) == AUTO


@pytest.mark.parametrize("hand_back", [True, False])
@pytest.mark.parametrize("mode", [1, 2, 3])
async def test_a_rate_does_not_outlive_its_order(tmp_path, hand_back, mode):
    async with trial(tmp_path, "sunspec") as here:
        await here.play(((OUT, -5000), (MODE, 2)))
        await pause(here)
        if hand_back:
            await here.write(MODE, 0)
            assert await reads(here, IN, OUT) == [10_000, 10_000]
        else:
            await here.play(((IN, -2000), (MODE, 1)))
        await pause(here)
        since(here)
        await here.write(MODE, 2 if not hand_back else mode)
        await pause(here)
        assert since(here) == AUTO


async def test_a_rate_after_the_mode_of_0_waits_for_the_next_mode(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        await here.play(((MODE, 0), (OUT, -5000)))
        await here.settle()
        since(here)
        await here.write(MODE, 2)
        await here.settle()
        assert since(here) == charge(2500)


@pytest.mark.parametrize("map_", ["sunspec", {"map": "sunspec", "hold": "idle"}])
async def test_a_rate_of_less_than_a_watt_forces_nothing(tmp_path, map_):
    async with trial(tmp_path, map_) as here:
        await here.write(OUT, -1)
        if map_ == "sunspec":
            assert await refused(here, MODE, 2) == VALUE
        else:
            await here.write(MODE, 2)
        await here.settle()
        assert here.told == (() if map_ == "sunspec" else IDLE)


async def test_a_hand_back_has_no_end(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        for writes in (
            ((TIMER, 3), (MODE, 0)),
            (("123.WMaxLimPct_RvrtTms", 3), (ENABLE, 0)),
            (("704.WMaxLimPctRvrtTms", (0, 3)), ("704.WMaxLimPctEna", 0)),
            (("704.PFWInjRvrtTms", (0, 3)), ("704.PFWInjEna", 0)),
            (("704.VarSetRvrtTms", (0, 3)), ("704.VarSetEna", 0)),
        ):
            await here.play(writes)
            await pause(here)
        assert len(here.commands) == 5
        assert {command.revert_after for command in here.commands} == {None}


# two clients


async def test_another_client_waits_while_one_is_in_the_midst_of_a_sequence(tmp_path):
    async with trial(tmp_path, "sunspec") as here, another(here) as other:
        await here.write(IN, -4000)
        assert await refused(other, OUT, -6000) == BUSY
        await here.write(MODE, 1)
        await other.write(OUT, -6000)
        assert since(here) == discharge(2000)
        assert await refused(here, MODE, 1) == BUSY
        await other.write(MODE, 2)
        await here.settle()
        assert since(here) == charge(3000)
        assert {command.origin.rpartition(":")[2] for command in here.served.bench.asked[-2:]} == {
            other.client.name.rpartition(":")[2]
        }


async def test_half_a_sequence_does_not_become_whole_by_another_client(tmp_path):
    async with trial(tmp_path, "goodwe") as here, another(here) as other:
        await here.write(47511, 11)
        assert await refused(other, 47512, 3000) == BUSY
        await here.write(47512, 1000)
        await other.write(47511, 1)
        await here.settle()
        assert here.told[:2] == charge(1000)
        assert here.told[2:] in {(), AUTO}


async def test_a_rate_that_waits_is_not_that_of_another_clients_mode(tmp_path):
    async with trial(tmp_path, "sunspec") as here, another(here) as other:
        await here.write(OUT, -5000)
        await pause(here)
        await other.write(MODE, 2)
        assert await reads(here, OUT) == [10_000]
        await pause(here)
        assert set(here.told) <= set(AUTO)


async def test_who_writes_a_limit_all_the_time_keeps_nobody_from_the_battery(tmp_path):
    async with trial(tmp_path, "sunspec") as here, another(here) as other:
        await here.play(((ENABLE, 1), (LIMIT, 5000)))
        await other.play(((OUT, -5000), (MODE, 2)))
        await here.write(LIMIT, 4000)
        await pause(here)
        assert here.told == (*limit(50.0), *charge(2500), *limit(40.0))


async def test_who_never_ends_a_sequence_does_not_keep_others_out_for_ever(tmp_path):
    async with trial(tmp_path, "sunspec") as here, another(here) as other:
        await here.write(MODE, 2)
        assert await refused(other, MODE, 0) == BUSY
        (target,) = here.served.bridge._writer._targets.values()
        target.session.since -= 10 * LONG
        await here.write(MODE, 2)
        await other.write(MODE, 0)
        await here.settle()
        assert here.told == AUTO


async def test_a_client_that_connects_for_each_write_is_one(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        for register, number in ((MODE, 2), (OUT, -5000)):
            async with another(here) as other:
                await other.write(register, number)
            await until(lambda: len(here.served.bridge.listeners[0].connections) == 1)
        await here.settle()
        assert here.told == charge(2500)


# other doors


async def ordered(here, setpoint, value, **more):
    """Have something ordered through another door, and the bridge hear of it."""
    bench = here.served.bench
    command = bench.command(setpoint, value, **more)
    lane, given = (command.serial, SETPOINTS[setpoint].group or setpoint), here.served.bridge._writer._given
    before = given.get(lane)
    await bench.dispatcher.submit(command)
    await until(lambda: given.get(lane) != before)


OVERTAKEN = [
    ("sunspec", ((OUT, -5000), (MODE, 2)), ("battery_mode", "idle")),
    ("sunspec", ((MODE, 0),), ("battery_mode", "idle")),
    ("sunspec", ((LIMIT, 30), (ENABLE, 1)), ("active_power_limit", 80)),
    ("goodwe", ((47512, 1500), (47511, 11)), ("battery_mode", "idle")),
    ("goodwe", ((47510, 3000), (47509, 1)), ("export_limit", 6000)),
]


@pytest.mark.parametrize(("map_", "writes", "order"), OVERTAKEN)
async def test_what_waits_does_not_undo_what_was_ordered_through_another_door_meanwhile(tmp_path, map_, writes, order):
    async with trial(tmp_path, map_) as here:
        await here.play(writes)
        await ordered(here, *order)
        await here.settle()
        await until(lambda: not here.served.bench.dispatcher._open)
        assert here.told == (order,)


@pytest.mark.parametrize(("map_", "writes", "order"), OVERTAKEN)
async def test_what_is_written_after_an_order_through_another_door_leaves(tmp_path, map_, writes, order):
    async with trial(tmp_path, map_) as here:
        await ordered(here, *order)
        await until(lambda: not here.served.bench.dispatcher._open)
        await here.play(writes)
        await here.settle()
        await until(lambda: not here.served.bench.dispatcher._open)
        assert len(here.told) > 1
        assert here.told[0] == order


async def test_another_setpoint_that_is_ordered_meanwhile_keeps_nothing_back(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        await here.play(((LIMIT, 30), (ENABLE, 1)))
        await ordered(here, "battery_mode", "idle")
        await here.settle()
        await until(lambda: [setpoint for setpoint, _ in here.told] == ["battery_mode", "active_power_limit"])


async def test_a_timer_that_fires_meanwhile_does_not_keep_back_who_refreshes_it(tmp_path):
    async with trial(tmp_path, "sunspec") as here:
        writer, bench = here.served.bridge._writer, here.served.bench
        await here.play(((LIMIT, 30), (ENABLE, 1)))
        command = msgspec.structs.replace(bench.command("active_power_limit", 100), is_revert=True)
        writer.note(CommandEvent(command=command, state=CommandState.ACCEPTED, time=bench.clock.now()))
        await here.settle()
        await until(lambda: [setpoint for setpoint, _ in here.told] == ["active_power_limit"])
