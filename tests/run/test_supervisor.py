"""No bridge's failure reaches another; what dies is started again."""

import asyncio
from typing import ClassVar

import pytest
from prometheus_client import REGISTRY

from gateway.api.bridge import BridgeSettings
from gateway.core.mailbox import EVENT_BACKLOG
from gateway.core.model import Alarm
from tests.kit.bench import INVERTER, Bench
from tests.kit.clock import NOON, FakeClock, virtual


class Scripted:
    """A bridge whose every move is told by the test."""

    Settings: ClassVar = BridgeSettings
    starts = 0

    def __init__(self, settings, context):
        self.context = context
        self.log = []

    async def start(self):
        self.log.append("start")
        await self.on_start(len([x for x in self.log if x == "start"]))

    async def on_start(self, count):
        pass

    async def stop(self):
        self.log.append("stop")


class Sinking(Scripted):
    async def deliver(self, updates):
        self.log.append(sorted(updates.states))
        if self.log.count("start") == 1:
            raise ValueError("can't digest this")


def status(bench):
    return {s.name: (s.up, s.detail) for s in bench.router.bridges()}


@virtual
async def test_up_when_started_and_stopped_once(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(Scripted, BridgeSettings())
        await asyncio.sleep(1)
        assert status(bench) == {"under-test": (True, "")}
        await runner.stop()
        assert runner.bridge.log == ["start", "stop"]


@virtual
async def test_one_that_cannot_start_is_down_with_the_reason_and_tried_again(tmp_path):
    class PortTaken(Scripted):
        async def on_start(self, count):
            if count < 4:
                raise OSError("port 5020 is in use")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(PortTaken, BridgeSettings())
        await asyncio.sleep(0.1)
        assert status(bench) == {"under-test": (False, "port 5020 is in use")}
        await asyncio.sleep(60)
        assert status(bench) == {"under-test": (True, "")}
        assert runner.bridge.log == ["start", "stop"] * 3 + ["start"]


@virtual
async def test_a_task_that_dies_restarts_the_bridge(tmp_path):
    class Dying(Scripted):
        async def on_start(self, count):
            self.context.spawn(self.work(count), "work")

        async def work(self, count):
            await asyncio.sleep(100)
            if count == 1:
                raise RuntimeError("a bug")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(Dying, BridgeSettings())
        await asyncio.sleep(100.001)
        assert status(bench) == {"under-test": (False, "RuntimeError: a bug")}
        await asyncio.sleep(500)
        assert status(bench) == {"under-test": (True, "")}
        assert runner.bridge.log == ["start", "stop", "start"]


@virtual
async def test_a_sink_that_chokes_is_restarted_with_all_that_is_known_and_the_others_go_on(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        choking = bench.run(Sinking, BridgeSettings(), "choking")
        healthy = bench.run(Sinking, BridgeSettings(), "healthy")
        healthy.bridge.log.append("start")
        await asyncio.sleep(10)
        assert choking.bridge.log[:5] == ["start", [INVERTER.serial], "stop", "start", [INVERTER.serial]]
        assert "stop" not in healthy.bridge.log


@virtual
async def test_a_sink_misses_no_alarm_while_it_starts_or_is_down(tmp_path):
    class Slow(Scripted):
        async def on_start(self, count):
            await asyncio.sleep(30)

        async def deliver(self, updates):
            self.log += [alarm.id for alarm in updates.alarms]
            if "1" in self.log and "2" not in self.log:
                raise ValueError("can't digest this")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        runner = bench.run(Slow, BridgeSettings())
        for id_ in "12":
            alarm = Alarm(serial=INVERTER.serial, id=id_, raised=bench.clock.now())
            bench.router.alarms("scripted", INVERTER.serial, [*bench.router.alarm_book, alarm])
            await asyncio.sleep(30.01)
        await asyncio.sleep(200)
        assert runner.bridge.log == ["start", "1", "stop", "start", "2"]


@virtual
async def test_restarts_become_seldom_and_quick_again_after_a_healthy_time(tmp_path):
    class Failing(Scripted):
        async def on_start(self, count):
            raise OSError("no")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(Failing, BridgeSettings())
        await asyncio.sleep(3600)
        assert 3600 / 60 - 5 <= runner.bridge.log.count("start") <= 3600 / 30 + 10


@virtual
async def test_one_that_does_not_stop_is_left_behind(tmp_path):
    class Stuck(Scripted):
        async def stop(self):
            await asyncio.sleep(1e6)

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(Stuck, BridgeSettings())
        await asyncio.sleep(1)
        await asyncio.wait_for(runner.stop(), 120)


@virtual
async def test_its_own_word_counts(tmp_path):
    class Reporting(Scripted):
        async def on_start(self, count):
            self.context.report(up=False, detail="broker away")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(Reporting, BridgeSettings())
        await asyncio.sleep(1)
        (before,) = bench.router.bridges()
        runner.report(up=False, detail="broker still away")
        (after,) = bench.router.bridges()
        assert (after.up, after.detail, after.since) == (False, "broker still away", before.since)
        await asyncio.sleep(1)
        runner.report(up=True)
        (up,) = bench.router.bridges()
        assert up.since > before.since


@pytest.mark.parametrize("method", ["announce", "withdraw", "state", "states", "bridges", "permitted"])
def test_the_runner_is_the_whole_context(method, tmp_path):
    from gateway.run.supervisor import Runner

    assert callable(getattr(Runner, method))


@virtual
async def test_a_restart_that_is_asked_for_comes_at_once_and_is_no_failure(tmp_path):
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        one, other = bench.run(Scripted, BridgeSettings(), "one"), bench.run(Scripted, BridgeSettings(), "other")
        await asyncio.sleep(100)
        other.restart("one")
        one.restart("one")
        await asyncio.sleep(0.1)
        assert one.bridge.log == ["start", "stop", "start"]
        assert other.bridge.log == ["start"]
        assert status(bench) == {"one": (True, ""), "other": (True, "")}
        with pytest.raises(LookupError):
            one.restart("none")


@virtual
async def test_a_restart_ends_the_pause_before_the_next_try(tmp_path):
    class Failing(Scripted):
        async def on_start(self, count):
            raise OSError("not yet")

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(Failing, BridgeSettings())
        await asyncio.sleep(600)
        runner.restart("under-test")
        tries = runner.bridge.log.count("start")
        await asyncio.sleep(0.1)
        assert runner.bridge.log.count("start") == tries + 1


async def test_what_a_sink_does_not_take_in_time_is_counted_where_prometheus_reads(tmp_path):
    class Sleeper(Scripted):
        async def deliver(self, _):
            await asyncio.Event().wait()

    def lost():
        return REGISTRY.get_sample_value("sems_gateway_dropped_total", {"bridge": "sleepy", "what": "alarms"}) or 0

    async with Bench(tmp_path) as bench:
        bench.announce()
        bench.run(Sleeper, BridgeSettings(), "sleepy")
        await asyncio.sleep(0)
        for n in range(EVENT_BACKLOG + 100):
            bench.router.alarms("test", INVERTER.serial, [Alarm(serial=INVERTER.serial, id=str(n), raised=NOON)])
        assert lost() >= 100
    assert lost() == 0, "it is shown no more"


@virtual
async def test_a_bridge_is_down_until_it_has_started(tmp_path):
    class Slow(Scripted):
        async def on_start(self, _):
            await asyncio.sleep(10)

    async with Bench(tmp_path, clock=FakeClock()) as bench:
        runner = bench.run(Slow, BridgeSettings())
        runner.is_to_start()
        await asyncio.sleep(1)
        assert status(bench)[runner.name] == (False, "starting")
        await asyncio.sleep(10)
        assert status(bench)[runner.name] == (True, "")
