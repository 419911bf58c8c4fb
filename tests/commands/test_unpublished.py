"""What is published again after a crash: the last seconds' steps, and those of a life too short to have told them."""

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from gateway.core.model import Command, CommandEvent, CommandState, Reason
from gateway.journal.audit import AuditAction, Note
from gateway.journal.journal import Journal
from gateway.journal.unpublished import LAG
from tests.kit.clock import NOON, virtual

ACCEPTED, SENT, REJECTED = CommandState.ACCEPTED, CommandState.SENT, CommandState.REJECTED
SOON = LAG.total_seconds() / 2
LONG = LAG.total_seconds() * 2


class Book:
    def __init__(self, journal):
        self.journal = journal
        self.now = NOON

    async def step(self, id_, state, after=0.0, left=0.0):
        """Write a step down; of one that is `sent`, `left` is how many seconds before that it left."""
        self.now += timedelta(seconds=after)
        command = Command(
            id=id_, serial="s", setpoint="export_limit", value=1.0, origin="test", created=self.now,
            expires=self.now + timedelta(minutes=1),
        )  # fmt: skip
        reason = Reason.OUT_OF_RANGE if state is REJECTED else None
        time = self.now - timedelta(seconds=left)
        await self.journal.record(CommandEvent(command=command, state=state, time=time, reason=reason))

    async def note(self, action, after=0.0):
        self.now += timedelta(seconds=after)
        await self.journal.note(Note(action=action, time=self.now, origin="gateway"))

    async def unpublished(self):
        return [(event.command.id, event.state) for event in await self.journal.unpublished()]


@asynccontextmanager
async def book(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.open()
    try:
        yield Book(journal)
    finally:
        await journal.close()


@virtual
async def test_a_new_journal_has_nothing_untold(tmp_path):
    async with book(tmp_path) as it:
        assert await it.unpublished() == []


@virtual
async def test_the_steps_of_the_last_seconds_before_a_crash_are_told_again_in_order(tmp_path):
    async with book(tmp_path) as it:
        await it.note(AuditAction.STARTED)
        await it.step("old", ACCEPTED)
        await it.step("a", ACCEPTED, after=LONG)
        await it.step("b", ACCEPTED)
        await it.step("c", REJECTED)
        await it.step("a", SENT, after=SOON)
        assert await it.unpublished() == [("a", ACCEPTED), ("b", ACCEPTED), ("a", SENT)]


@virtual
async def test_after_a_stop_in_good_order_nothing_is(tmp_path):
    async with book(tmp_path) as it:
        await it.note(AuditAction.STARTED)
        await it.step("a", ACCEPTED)
        await it.note(AuditAction.STOPPED)
        assert await it.unpublished() == []
        await it.note(AuditAction.STARTED)
        await it.step("b", ACCEPTED)
        assert await it.unpublished() == [("b", ACCEPTED)]


@pytest.mark.parametrize(("life", "again"), [(SOON, ["a", "b"]), (LONG, ["b"])])
@virtual
async def test_a_life_that_was_too_short_to_tell_leaves_it_to_the_next(tmp_path, life, again):
    async with book(tmp_path) as it:
        await it.note(AuditAction.STARTED)
        await it.step("a", ACCEPTED)
        await it.note(AuditAction.STARTED, after=LONG)
        await it.step("b", ACCEPTED, after=life)
        assert await it.unpublished() == [(id_, ACCEPTED) for id_ in again]


@virtual
async def test_there_are_not_more_than_a_start_can_take(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.journal.unpublished.MAX_EVENTS", 3)
    async with book(tmp_path) as it:
        for number in range(5):
            await it.step(str(number), ACCEPTED)
        assert await it.unpublished() == [(str(number), ACCEPTED) for number in (2, 3, 4)]


@virtual
@pytest.mark.parametrize("newest", [True, False])
async def test_what_left_long_before_it_was_written_down_is_told_again(tmp_path, newest):
    async with book(tmp_path) as it:
        await it.note(AuditAction.STARTED)
        await it.step("old", ACCEPTED)
        await it.step("a", ACCEPTED, after=10 * LONG)
        await it.step("a", SENT, after=LONG, left=LONG - 1)
        if newest:
            assert await it.unpublished() == [("a", ACCEPTED), ("a", SENT)]
        else:
            await it.step("b", ACCEPTED)
            assert await it.unpublished() == [("a", SENT), ("b", ACCEPTED)]
