"""A turn of the loop that takes too long: measured, and logged with what held it up."""

import asyncio
import json
import time
from contextlib import contextmanager

import pytest
from prometheus_client.registry import REGISTRY

from gateway.run import loop_monitor
from gateway.run.logs import configure
from gateway.run.loop_monitor import LONG, LoopMonitor, watched_loop
from gateway.run.settings import LogSettings
from tests.kit.bench import until


@pytest.fixture
def lines(capsys):
    """Return what was logged of turns so far, when it is asked."""
    configure(LogSettings(format="json"))
    found = []

    def read():
        found.extend(json.loads(line) for line in capsys.readouterr().err.splitlines() if "held up" in line)
        return found

    return read


SEEN_WITHIN = 20.0
"""Seconds that the monitor has to see that the loop is held up: it takes a quarter of one."""


def hold_up_the_loop(monitor: LoopMonitor) -> None:
    """Block until the monitor has seen it."""
    end = time.monotonic() + SEEN_WITHIN
    while not monitor.stack and time.monotonic() < end:
        time.sleep(0.01)


async def hold_up(monitor):
    """Block, and return once the monitor is done with it."""
    await until(lambda: not monitor.stack)
    hold_up_the_loop(monitor)
    assert monitor.stack
    await until(lambda: not monitor.stack)


async def test_what_holds_up_the_loop_is_logged_with_its_stack_and_measured(lines):
    with watched_loop() as monitor:
        await hold_up(monitor)
        (line,) = await until(lines)
        assert line["level"] == "warning"
        assert line["seconds"] >= LONG
        assert line["cpu"] < line["seconds"]
        assert any("hold_up_the_loop" in frame and __file__ in frame for frame in line["at"][:3])
        assert REGISTRY.get_sample_value("sems_gateway_loop_stall_seconds") >= LONG
    assert REGISTRY.get_sample_value("sems_gateway_loop_stall_seconds") is None


async def test_a_terminal_shows_it_too(capsys):
    configure(LogSettings(format="console"))
    with watched_loop() as monitor:
        await hold_up(monitor)
        assert monitor._watcher.is_alive()
    assert "hold_up_the_loop" in capsys.readouterr().err


async def test_the_log_is_not_flooded_and_the_next_line_has_how_many_there_were(lines):
    with watched_loop() as monitor:
        for _ in range(3):
            await hold_up(monitor)
        assert len(lines()) == 1
        unlogged = monitor._unlogged
        assert unlogged >= 2
        monitor._next_line = 0.0
        await hold_up(monitor)
        assert len(lines()) == 2
        assert lines()[-1]["others_before"] >= unlogged


async def test_a_loop_that_never_turns_again_is_logged_all_the_same(lines, monkeypatch):
    monkeypatch.setattr(loop_monitor, "AT_LAST", 0.3)
    with watched_loop() as monitor:
        end = time.monotonic() + SEEN_WITHIN
        while not lines() and time.monotonic() < end:
            time.sleep(0.01)  # noqa: ASYNC251 - just this is tested
        assert lines()[0]["seconds"] >= 0.3
        await until(lambda: not monitor.stack)
        assert len(lines()) == 1


async def test_the_longest_is_shown_for_two_windows_at_most(monkeypatch):
    monitor = LoopMonitor()
    monitor._loop = asyncio.get_running_loop()
    monitor._cpu_clock = time.CLOCK_MONOTONIC

    @contextmanager
    def late(seconds):
        monitor._window_ends = time.monotonic() + 1000
        monitor._due = time.monotonic() - seconds
        yield
        monitor._beat()
        monitor._timer.cancel()

    with late(50):
        pass
    with late(7):
        pass
    assert 50 <= monitor.longest < 90
    with late(20):
        monitor._window_ends = 0.0
    assert monitor.longest >= 50
    with late(10):
        monitor._window_ends = 0.0
    assert 20 <= monitor.longest < 50
