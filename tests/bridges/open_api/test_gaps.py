"""What was missed is read again: each sample once, oldest first, within history's share, and never as live."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from gateway.bridges.open_api.gaps import filler as filler_module
from gateway.bridges.open_api.gaps.filler import CHUNK
from gateway.sems.budget import Priority
from tests.bridges.open_api.gaps import Kept, away, fives, gateway
from tests.bridges.open_api.kit import HOUSE
from tests.kit.clock import FakeClock, virtual
from tests.kit.in_process import simulated

MINUTE, HOUR = 60.0, 3600.0
BERLIN = ZoneInfo("Europe/Berlin")
SERIES = {"GetInverterHistory", "GetInverterPower", "GetPlantPower"}


def filler(bench):
    return next(r for r in bench.runners if r.name == "sems").bridge._filler


async def filled(bench):
    """Wait until there was something to fill, and it is."""
    while not filler(bench).samples:
        await asyncio.sleep(10)
    while filler(bench).waiting:
        await asyncio.sleep(10)
    await asyncio.sleep(1)


def missed(live, serial):
    """The longest time between two live measurements of a device."""
    times = sorted(live.times[serial])
    return max(pairwise(times), key=lambda pair: pair[1] - pair[0])


@virtual
async def test_after_an_outage_of_the_cloud_each_missed_sample_comes_once_in_order(tmp_path, monkeypatch):
    clock, kept = FakeClock(), Kept()
    with simulated(monkeypatch, clock) as (_, line), capture_logs() as log:
        async with gateway(tmp_path, clock, kept) as (bench, live):
            await asyncio.sleep(10 * MINUTE)
            with away(line):
                await asyncio.sleep(HOUR)
            await asyncio.sleep(2 * MINUTE)
            await filled(bench)
            await asyncio.sleep(3 * MINUTE)
            begins, ends = missed(live, HOUSE)
            assert ends - begins > timedelta(minutes=55)
            recorded = [s for s in live.recorded if s.serial == HOUSE]
            assert [s.time for s in recorded] == fives(begins, ends.replace(second=0, microsecond=0))
            assert len(recorded) >= 11
            assert {s.source for s in recorded} == {"sems"}
            assert all(s.values["ac_power"] is not None for s in recorded)
            assert not {s.time for s in recorded} & live.times[HOUSE]
            assert bench.router.state(HOUSE).time > ends - timedelta(seconds=1), "none was shown as live"
            assert [t for t in kept.times(HOUSE) if begins < t < ends] == [s.time for s in recorded]
    said = [e for e in log if "what was missed" in e["event"]]
    assert [e["event"] for e in said] == ["reads again what was missed", "has read again what was missed"]
    assert said[1]["calls"] == len({s.serial for s in live.recorded}) > 5
    assert (said[1]["samples"], said[1]["given_up"], said[1]["waiting"]) == (len(live.recorded), 0, 0)


@virtual
async def test_after_an_outage_of_the_gateway_and_not_again_after_the_next_start(tmp_path, monkeypatch):
    clock, kept = FakeClock(), Kept()
    with simulated(monkeypatch, clock) as (simulator, _):
        async with gateway(tmp_path, clock, kept) as (_, before):
            await asyncio.sleep(10 * MINUTE)
        await asyncio.sleep(HOUR)
        async with gateway(tmp_path, clock, kept) as (bench, after):
            await asyncio.sleep(2 * MINUTE)
            await filled(bench)
            begins, ends = max(before.times[HOUSE]), min(after.times[HOUSE])
            expected = fives(begins, ends.replace(second=0, microsecond=0))
            assert [s.time for s in after.recorded if s.serial == HOUSE] == expected
        calls = len(simulator.cloud.calls)
        async with gateway(tmp_path, clock, kept) as (_, later):
            await asyncio.sleep(10 * MINUTE)
            assert not later.recorded
        assert not [c for c in list(simulator.cloud.calls)[calls:] if c.interface in SERIES]
    assert [time for time in kept.times(HOUSE) if begins < time < ends] == expected


@virtual(only="virtual")  # many seconds
async def test_a_stop_in_the_middle_of_a_fill_loses_nothing_and_repeats_nothing(tmp_path, monkeypatch):
    clock, kept = FakeClock(), Kept()
    monkeypatch.setattr(filler_module, "CHUNK", 4)
    with simulated(monkeypatch, clock, latency=2.0, plants=1):
        async with gateway(tmp_path, clock, kept) as (_, before):
            await asyncio.sleep(10 * MINUTE)
        await asyncio.sleep(10 * HOUR)
        async with gateway(tmp_path, clock, kept) as (bench, live):
            lives = [before, live]
            await asyncio.sleep(50)
            assert filler(bench).waiting
        kept.delay = 0.4
        middle = 0
        while filler(bench).waiting:
            async with gateway(tmp_path, clock, kept) as (bench, live):
                lives.append(live)
                await asyncio.sleep(0.4 * len(lives))
                middle += bool(live.recorded) and filler(bench).waiting > 0
            assert len(lives) < 40
        assert middle > 2
    begins = max(before.times[HOUSE])
    ends = min(time for live in lives[1:] for time in live.times[HOUSE])
    expected = fives(begins, ends.replace(second=0, microsecond=0))
    assert len(expected) > 115
    recorded = [time for time in kept.times(HOUSE) if begins < time < ends]
    assert recorded == expected
    for serial in {s.serial for s in kept.snapshots}:
        again = [s.time for live in lives for s in live.recorded if s.serial == serial]
        assert len(again) == len(set(again))
        assert not any(live.times[serial] & set(again) for live in lives)
        assert [time for time in kept.times(serial) if time in set(again)] == again, "all that was given is stored"


@virtual(only="virtual")
@pytest.mark.parametrize("stored", [True, False])
async def test_a_crash_in_the_middle_loses_nothing_and_repeats_a_chunk_of_one_device_at_most(
    tmp_path, monkeypatch, stored
):
    clock, kept = FakeClock(), Kept()
    with simulated(monkeypatch, clock):
        async with gateway(tmp_path, clock, kept) as (_, before):
            await asyncio.sleep(10 * MINUTE)
        await asyncio.sleep(5 * HOUR)
        async with gateway(tmp_path, clock, kept) as (bench, first):
            kept.gate = asyncio.Event()
            while not first.recorded:
                await asyncio.sleep(1)
            await asyncio.sleep(60)
            assert filler(bench).waiting
            assert len(first.recorded) == CHUNK
            # What the file says now is what a crash leaves, whether the sink has just stored it or not.
            left, before_it = (tmp_path / "sems-gaps.jsonl").read_bytes(), len(kept.snapshots)
            kept.gate.set()
        if not stored:
            del kept.snapshots[before_it:]
        (tmp_path / "sems-gaps.jsonl").write_bytes(left + b'["d","torn')
        async with gateway(tmp_path, clock, kept) as (bench, second):
            await asyncio.sleep(3 * MINUTE)
            await filled(bench)
    serial = first.recorded[0].serial
    times = [time for time in kept.times(serial) if time > max(before.times[serial])]
    expected = fives(max(before.times[serial]), min(first.times[serial]).replace(second=0, microsecond=0))
    assert set(expected) <= set(times)
    assert sum(times.count(time) - 1 for time in expected) <= CHUNK
    again = [(s.serial, s.time) for s in second.recorded if s.serial != serial]
    assert len(again) == len(set(again)) > 50


@virtual(only="virtual")  # many seconds
async def test_days_of_all_devices_are_filled_oldest_first_a_call_each(tmp_path, monkeypatch):
    clock, kept = FakeClock(), Kept()
    with simulated(monkeypatch, clock) as (simulator, line):
        async with gateway(tmp_path, clock, kept) as (bench, live):
            await asyncio.sleep(10 * MINUTE)
            with away(line):
                await asyncio.sleep(24 * HOUR)
            calls = len(simulator.cloud.calls)
            await asyncio.sleep(2 * MINUTE)
            await filled(bench)
            assert live.recorded
            made = [c for c in list(simulator.cloud.calls)[calls:] if c.interface in SERIES]
            days = [s.time.astimezone(BERLIN).date() for s in live.recorded]
            assert days == sorted(days)
            assert len(set(days)) == 2
            devices = {s.serial for s in live.recorded}
            assert len(made) == 2 * len(devices)
            for serial in devices:
                times = [s.time for s in live.recorded if s.serial == serial]
                assert times == sorted(set(times))
            begins, ends = missed(live, HOUSE)
            expected = fives(begins, ends.replace(second=0, microsecond=0))
            assert [s.time for s in live.recorded if s.serial == HOUSE] == expected


@virtual(only="virtual")  # many seconds
async def test_it_keeps_to_the_share_of_history_and_polling_goes_on(tmp_path, monkeypatch):
    clock, kept = FakeClock(), Kept()
    with simulated(monkeypatch, clock, calls_per_hour=0, plants=13) as (simulator, line):
        async with gateway(tmp_path, clock, kept, calls_per_hour=800) as (bench, live):
            await asyncio.sleep(HOUR)
            with away(line):
                await asyncio.sleep(2 * HOUR)
            since = clock.now()
            await asyncio.sleep(HOUR)
            calls = [c.interface for c in simulator.cloud.calls if c.time >= since]
            of_history = sum(name in SERIES for name in calls)
            budget = next(r for r in bench.runners if r.name == "sems").bridge._session.budget
            assert 10 < of_history <= budget.most(Priority.HISTORY)
            assert filler(bench).waiting, "it takes longer than an hour"
            assert len(calls) <= 800
            interval = bench.runners[-1].bridge._poller.plan.interval
            longest = max(
                (b - a).total_seconds()
                for times in live.times.values()
                for a, b in pairwise(sorted(t for t in times if t > since))
            )
            assert longest < 2 * interval + 30, "no device waits for its turn any longer than without a fill"


@virtual(only="virtual")  # many seconds
async def test_without_a_sink_that_keeps_history_no_call_is_made_for_it(tmp_path, monkeypatch):
    clock = FakeClock()
    with simulated(monkeypatch, clock) as (simulator, line):
        async with gateway(tmp_path, clock) as (_, live):
            await asyncio.sleep(10 * MINUTE)
            with away(line):
                await asyncio.sleep(HOUR)
            await asyncio.sleep(10 * MINUTE)
            assert not live.recorded
            assert not {c.interface for c in simulator.cloud.calls} & SERIES
    assert not (tmp_path / "sems-gaps.jsonl").exists()


@virtual(only="virtual")  # many seconds
async def test_it_can_be_switched_off(tmp_path, monkeypatch):
    clock, kept = FakeClock(), Kept()
    with simulated(monkeypatch, clock) as (_, line):
        async with gateway(tmp_path, clock, kept, fill_gaps_within=0) as (_, live):
            await asyncio.sleep(10 * MINUTE)
            with away(line):
                await asyncio.sleep(HOUR)
            await asyncio.sleep(10 * MINUTE)
            assert not live.recorded
