"""Last values, quality and mailboxes."""

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from gateway.core.good_once import FILE
from gateway.core.mailbox import EVENT_BACKLOG
from gateway.core.model import BridgeStatus, Device, DeviceKind, Quality, Range, Snapshot
from gateway.core.router import Router
from tests.kit.bench import INVERTER, Bench
from tests.kit.clock import FakeClock, virtual

SN = INVERTER.serial


def snapshot(clock, *, source="a", age=0.0, interval=60.0, **values):
    return Snapshot(
        serial=SN, time=clock.now() - timedelta(seconds=age), source=source, interval=interval, values=values
    )


def known(clock):
    router = Router(clock)
    router.good_once.add(SN, clock.now())
    router.announce("a", INVERTER)
    return router


@virtual
async def test_announced_without_data_is_stale():
    state = known(FakeClock()).state(SN)
    assert (state.quality, state.time, state.values) == (Quality.STALE, None, {})


@virtual
async def test_fresh_data_are_good_and_age_into_stale():
    clock = FakeClock()
    router = known(clock)
    router.publish(snapshot(clock, ac_power=5.0))
    mailbox = router.attach("sink")
    await mailbox.take()
    await asyncio.sleep(180)
    router.age()
    assert router.state(SN).quality is Quality.GOOD
    await asyncio.sleep(1)
    router.age()
    assert (await mailbox.take()).states[SN].quality is Quality.STALE


@virtual
async def test_data_that_were_old_when_they_came_are_stale_at_once():
    clock = FakeClock()
    router = known(clock)
    router.publish(snapshot(clock, age=181, ac_power=5.0))
    assert router.state(SN).quality is Quality.STALE


@virtual
async def test_what_the_cloud_calls_offline_is_offline():
    clock = FakeClock()
    router = known(clock)
    router.publish(snapshot(clock, status="offline"))
    assert router.state(SN).quality is Quality.OFFLINE


@virtual
async def test_older_than_what_is_known_changes_nothing():
    clock = FakeClock()
    router = known(clock)
    router.publish(snapshot(clock, ac_power=5.0))
    router.publish(snapshot(clock, age=10, ac_power=4.0))
    assert router.state(SN).values["ac_power"] == 5.0


@virtual
async def test_a_measurement_from_the_future_counts_as_made_now():
    clock = FakeClock()
    router = known(clock)
    router.publish(snapshot(clock, age=-3600, ac_power=5.0))
    assert router.state(SN).time == clock.now()


@virtual
async def test_two_sources_add_up_and_a_silent_one_adds_nothing():
    clock = FakeClock()
    router = known(clock)
    router.announce("b", Device(serial=SN, kind=DeviceKind.STORAGE, setpoints={"charging": Range()}))
    assert set(router.state(SN).device.setpoints) == {*INVERTER.setpoints, "charging"}
    router.publish(snapshot(clock, source="a", ac_power=1.0, pv_power=2.0))
    await asyncio.sleep(1)
    router.publish(snapshot(clock, source="b", ac_power=3.0))
    assert router.state(SN).values == {"ac_power": 3.0, "pv_power": 2.0}
    await asyncio.sleep(200)
    router.publish(snapshot(clock, source="b", ac_power=4.0))
    assert router.state(SN).values == {"ac_power": 4.0}


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
@virtual
async def test_a_device_is_heard_elsewhere_for_as_long_as_the_source_that_is_fresh_longest(order):
    clock = FakeClock()
    router = known(clock)
    router.announce("b", INVERTER)
    intervals = {"a": 60.0, "b": 300.0}
    for source in order:
        router.publish(snapshot(clock, source=source, interval=intervals[source], ac_power=1.0))
    now = clock.now()
    assert router.heard(SN, but="me") == now + timedelta(seconds=3 * 300)
    assert router.heard(SN, but="b") == now + timedelta(seconds=3 * 60)
    await asyncio.sleep(200)
    assert router.heard(SN, but="b") is None
    assert router.heard(SN, but="a") == now + timedelta(seconds=3 * 300)


@virtual
async def test_a_device_goes_when_its_last_source_lets_go():
    clock = FakeClock()
    router = known(clock)
    router.announce("b", INVERTER)
    mailbox = router.attach("sink")
    router.withdraw("a", SN)
    router.withdraw("nobody", SN)
    assert router.state(SN) is not None
    router.withdraw("b", SN)
    updates = await mailbox.take()
    assert (updates.removed, updates.states) == ({SN}, {})
    router.publish(snapshot(clock, ac_power=1.0))
    router.refresh(SN)
    assert router.state(SN) is None
    router.announce("a", INVERTER)
    updates = await mailbox.take()
    assert (updates.removed, list(updates.states)) == (set(), [SN])


@virtual
async def test_a_slow_sink_gets_the_newest_state_of_each_device_once():
    clock = FakeClock()
    router = known(clock)
    mailbox = router.attach("slow")
    for power in range(1000):
        router.publish(snapshot(clock, ac_power=float(power)))
    updates = await mailbox.take()
    assert updates.states[SN].values == {"ac_power": 999.0}


@virtual
async def test_command_steps_are_bounded_and_what_is_dropped_is_counted(tmp_path):
    clock = FakeClock()
    router = known(clock)
    mailbox = router.attach("dead")
    async with Bench(tmp_path, clock=clock) as bench:
        event = bench.dispatcher._reject(bench.command(), None)
    for _ in range(EVENT_BACKLOG + 5):
        router.command_step(event)
    assert mailbox.dropped["events"] == 5
    assert len((await mailbox.take()).events) == EVENT_BACKLOG


@virtual
async def test_a_new_sink_begins_with_all_that_is_known():
    clock = FakeClock()
    router = known(clock)
    router.bridge_status(BridgeStatus(name="sems", type="open_api", up=True, since=clock.now()))
    updates = await router.attach("late").take()
    assert (list(updates.states), list(updates.bridges)) == ([SN], ["sems"])


@virtual
async def test_a_device_is_shown_once_it_has_given_a_value():
    clock = FakeClock()
    router = Router(clock)
    mailbox = router.attach("sink")
    router.announce("a", INVERTER)
    router.bridge_status(BridgeStatus(name="a", type="open_api", up=True, since=clock.now()))
    router.publish(snapshot(clock, ac_power=None))
    assert router.state(SN).quality is Quality.STALE, "it can be commanded"
    assert not router.states()
    assert [state.device.serial for state in router.announced()] == [SN]
    assert not (await mailbox.take()).states
    router.publish(snapshot(clock, ac_power=None, status="offline"))
    assert list((await mailbox.take()).states) == [SN]
    assert [state.device.serial for state in router.states()] == [SN]


@virtual
async def test_a_ghost_that_vanishes_leaves_nothing_behind():
    clock = FakeClock()
    router = Router(clock)
    mailbox = router.attach("sink")
    router.announce("a", INVERTER)
    router.withdraw("a", SN)
    router.bridge_status(BridgeStatus(name="a", type="open_api", up=True, since=clock.now()))
    updates = await mailbox.take()
    assert (updates.states, updates.removed) == ({}, set())
    assert SN not in router.good_once


async def test_what_was_good_in_an_earlier_run_is_shown_at_once(tmp_path):
    clock = FakeClock()
    first = Router(clock)
    first.good_once.restore(tmp_path)
    first.announce("a", INVERTER)
    first.publish(snapshot(clock, ac_power=5.0))
    await first.good_once.save()
    again = Router(clock)
    again.good_once.restore(tmp_path)
    again.announce("a", INVERTER)
    assert [(state.device.serial, state.quality) for state in again.states()] == [(SN, Quality.STALE)]
    (tmp_path / FILE).write_text("{")
    damaged = Router(clock)
    with capture_logs() as logs:
        damaged.good_once.restore(tmp_path)
    assert [entry["log_level"] for entry in logs] == ["warning"]
    damaged.announce("a", INVERTER)
    assert not damaged.states()


@virtual
async def test_a_snapshot_without_a_single_value_is_none():
    clock = FakeClock()
    router = known(clock)
    router.publish(snapshot(clock, ac_power=5.0))
    before = router.published
    clock_later = snapshot(clock, age=-60, ac_power=None, status=None)
    assert router.publish(clock_later) == router.record(clock_later) == before
    assert router.state(SN).values == {"ac_power": 5.0}


@pytest.mark.parametrize("repeat", [1, 2])
@virtual
async def test_the_same_announcement_again_is_no_news(repeat):
    router = known(FakeClock())
    mailbox = router.attach("sink")
    await mailbox.take()
    for _ in range(repeat):
        router.announce("a", INVERTER)
    assert not mailbox._mail.is_set()


@virtual
async def test_what_the_configuration_names_is_no_ghost():
    clock = FakeClock()
    router = Router(clock)
    mailbox = router.attach("sink")
    router.announce("batch", INVERTER, named=True)
    router.announce("list", INVERTER)
    assert [state.device.serial for state in router.states()] == [SN]
    assert list((await mailbox.take()).states) == [SN]
    router.withdraw("batch", SN)
    assert not router.states(), "now only a list has it, and it has never given a value"
    assert (await mailbox.take()).removed == {SN}
