"""The command's side of a history: what goes into the file, and what a person is told meanwhile."""

import io
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
from rich.console import Console

from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.bridges.local.protocol import History
from gateway.cli.history import HistoryFailedError, HistoryRefusedError, export
from gateway.cli.history_file import FileInTheWayError, Format, HistoryFile
from gateway.core.clock import SystemClock
from gateway.core.errors import UnsureError
from gateway.core.model import HistoryPlan, Page, RateLimitWait, Sample
from tests.kit.bench import INVERTER, Bench, until

SN = INVERTER.serial


class Past:
    """Tells two days, and waits in between."""

    def __init__(self):
        self.pause = timedelta(minutes=4, seconds=10)
        self.trouble = None
        self.points = ("ac_power",)

    def keeps(self, serial):
        return True

    def history_plan(self, serial, start, end, resolution):
        return HistoryPlan(2, self.points)

    async def history(self, serial, start, end, resolution):
        middle = start + timedelta(days=1)
        yield Page(start, middle, [Sample(start, {"ac_power": 1.0})])
        yield RateLimitWait(SystemClock().now() + self.pause, "the calls [of this hour] are used up")
        if self.trouble:
            raise self.trouble
        yield Page(middle, end, [Sample(middle, {"ac_power": 2.0})])


@asynccontextmanager
async def asked(tmp_path, console, **wanted):
    """What `export` needs: a running gateway, and an open file."""
    async with Bench(tmp_path) as bench:
        past = bench.services.historians["past"] = Past()
        bench.announce()
        bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: any(s.up for s in bench.router.bridges()))
        request = History(**({"serial": SN, "start": "2024-06-01", "end": "2024-06-02"} | wanted))
        file = HistoryFile(tmp_path / "out.csv", Format.CSV, {"serial": request.serial})
        file.open()
        try:
            yield past, lambda: export(SimpleNamespace(data_dir=tmp_path), request, file, console)
        finally:
            file.close()


def console(*, terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=160, legacy_windows=False)


@pytest.mark.parametrize("terminal", [False, True])
async def test_it_is_written_and_a_person_is_told_what_it_waits_for(tmp_path, terminal):
    screen = console(terminal=terminal)
    async with asked(tmp_path, screen) as (_, go):
        await go()
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "time,ac_power", "2024-06-01T00:00:00.000Z,1", "2024-06-02T00:00:00.000Z,2"
    ]  # fmt: skip
    shown = screen.file.getvalue()
    assert SN in shown
    assert "2/2" in shown
    assert terminal or "waiting 4 min: the calls [of this hour] are used up" in shown


async def test_a_short_wait_is_told_in_seconds(tmp_path):
    screen = console()
    async with asked(tmp_path, screen) as (past, go):
        past.pause = timedelta(seconds=-1)
        await go()
    assert "waiting 0 s: " in screen.file.getvalue()


async def test_what_breaks_off_is_kept(tmp_path):
    async with asked(tmp_path, console()) as (past, go):
        past.trouble = UnsureError("SEMS answers nothing")
        with pytest.raises(HistoryFailedError, match="SEMS answers nothing"):
            await go()
    assert (tmp_path / "out.csv.part").read_text().splitlines()[1:] == ["2024-06-01T00:00:00.000Z,1"]


async def test_what_there_is_not_is_refused(tmp_path):
    async with asked(tmp_path, console(), serial="nobody") as (_, go):
        with pytest.raises(HistoryRefusedError, match="there is no device 'nobody'"):
            await go()


async def test_other_columns_than_before(tmp_path):
    async with asked(tmp_path, console()) as (past, go):
        past.trouble = UnsureError("enough")
        with pytest.raises(HistoryFailedError):
            await go()
        past.points = ("ac_power", "pv_power")
        with pytest.raises(FileInTheWayError, match="other columns"):
            await go()


async def test_a_gateway_that_closes_the_door(tmp_path):
    async with asked(tmp_path, console()) as (past, go):
        past.trouble = KeyError("a defect")
        with pytest.raises(HistoryFailedError, match="the gateway went away"):
            await go()
