"""A flood of refusals is told of, and can't fill the disk."""

import asyncio

import pytest

from gateway.core.model import CommandState, Reason
from gateway.journal.journal import MAX_UNWRITTEN_ROWS, Journal
from gateway.journal.refusals import BURST, EVERY, KINDS, Refusals
from tests.kit.bench import Bench
from tests.kit.clock import FakeClock, virtual
from tests.kit.journal import DiskFull, event, rows_of


@pytest.fixture
def refusal(tmp_path):
    make = Bench(tmp_path).command

    def refusal(reason=Reason.NOT_PERMITTED, **fields):
        return event(make(**fields), CommandState.REJECTED, "no", reason=reason)

    return refusal


def test_a_burst_is_written_in_full_and_the_rest_of_a_flood_counted(refusal):
    refusals = Refusals()
    rows = [refusals.take(refusal(origin=f"mqtt:10.0.0.{n % 9}"), 0.0) for n in range(10_000)]
    assert sum(row is not None for row in rows) == BURST
    assert refusals.counted(EVERY - 1) == []
    assert refusals.due == EVERY
    [row] = refusals.counted(EVERY)
    assert (row.state, row.reason, row.origin, row.id) == ("rejected", "not_permitted", "mqtt", "")
    assert row.detail.startswith("and 9,940 more, from 2026-06-21T12:00:00.000000Z to ")
    assert refusals.due is None
    assert refusals.counted() == []


def test_a_flood_that_goes_on_takes_two_rows_each_five_minutes(refusal):
    refusals = Refusals()
    rows = 0
    for second in range(86_400 // 60):
        rows += refusals.take(refusal(), second * 60.0) is not None
        rows += refusals.take(refusal(), second * 60.0) is not None
        rows += len(refusals.counted(second * 60.0))
    assert rows <= BURST + 2 * 86_400 / EVERY


def test_another_bridge_role_or_reason_is_another_kind(refusal):
    refusals = Refusals()
    for _ in range(BURST + 1):
        refusals.take(refusal(origin="mqtt:a"), 0.0)
    assert refusals.take(refusal(origin="mqtt:b"), 0.0) is None
    assert refusals.take(refusal(origin="mqtt/ops:b"), 0.0) is not None
    assert refusals.take(refusal(origin="web:b"), 0.0) is not None
    assert refusals.take(refusal(Reason.BAD_VALUE, origin="mqtt:a"), 0.0) is not None


def test_what_is_kept_in_mind_is_bounded_and_forgotten_when_it_is_quiet(refusal):
    refusals = Refusals()
    for n in range(10 * KINDS):
        refusals.take(refusal(origin=f"mqtt/{n}"), 0.0)
    assert len(refusals._tallies) == KINDS + 1
    assert [row.origin for row in refusals.counted()] == ["others"]
    # An allowance of 60 is whole again a while after its last use.
    assert refusals.take(refusal(origin="mqtt/new"), 2 * EVERY).origin == "mqtt/new"
    assert len(refusals._tallies) <= 2


def test_what_was_refused_may_be_long_and_its_row_is_not(refusal):
    long = "ab" * 100_000
    event_ = refusal(id=long, serial=long, setpoint=long, value=long, origin=long)
    row = Refusals().take(event_, 0.0)
    assert max(map(len, (row.id, row.serial, row.setpoint, row.origin))) == 100
    assert len(row.value) < 120
    assert row.id.endswith("…")
    assert Refusals().take(refusal(value=10**5000), 0.0).value == '"a number of 16610 bits"'
    assert Refusals().take(refusal(value=7), 0.0).value == "7"


@virtual
async def test_a_flood_reaches_the_journal_as_a_burst_and_a_count(tmp_path):
    journal = Journal(tmp_path / "j.sqlite", clock=FakeClock())
    await journal.open()
    make = Bench(tmp_path).command
    refused = event(make(), CommandState.REJECTED, "no", reason=Reason.BAD_VALUE)
    journal.refused(*[refused] * 10_000)
    await journal.record(event(make()))
    assert len(await rows_of(journal)) == BURST + 1
    await asyncio.sleep(EVERY + 1)
    await journal.record(event(make()))
    details = [row.detail for row in await rows_of(journal)]
    assert next(d for d in details if d.startswith("and ")).startswith("and 9,940 more")
    await journal.close()


@virtual
async def test_what_was_counted_is_written_at_the_end(tmp_path):
    journal = Journal(tmp_path / "j.sqlite", clock=FakeClock())
    await journal.open()
    refused = event(Bench(tmp_path).command(), CommandState.REJECTED, "no", reason=Reason.BAD_VALUE)
    journal.refused(*[refused] * 100)
    await journal.close()
    again = Journal(tmp_path / "j.sqlite", clock=FakeClock())
    await again.open()
    assert [row.detail[:11] for row in (await rows_of(again))[BURST:]] == ["and 40 more"]
    await again.close()


@virtual
async def test_while_the_disk_is_full_refusals_are_counted_not_hoarded(tmp_path, refusal):
    journal = Journal(tmp_path / "j.sqlite", clock=FakeClock())
    await journal.open()
    full = DiskFull(journal._store)
    for n in range(KINDS):
        journal.refused(*[refusal(origin=f"mqtt/{n}")] * (2 * BURST))
    assert len(journal._unwritten) <= MAX_UNWRITTEN_ROWS
    full.over()
    await journal.close()
