"""No query on the way of a command, or of a start, grows with the past: each is asked for its plan on a long journal.

What reads the whole past is a person's: `audit`, and the check after a crash.
"""

import re
import sqlite3
from contextlib import closing

import pytest

from gateway.core.model import CommandState
from gateway.journal import retention
from gateway.journal.journal import Journal
from tests.kit.bench import Bench, until
from tests.kit.clock import FakeClock, virtual
from tests.kit.journal import event

PAST = 400
OF_THE_PAST = re.compile(r"\bSCAN (command|audit)\b(?!.*USING (COVERING )?INDEX command_open)|^SEARCH (command|audit)$")
"""The second is how a min or a max is looked for along the key, past all that does not fit."""
ENDS_BY_ITSELF = re.compile(r"ORDER BY seq( DESC)?( LIMIT \d+)?$")
"""Walks along the key from one end, and whoever asks stops after a bounded number of rows."""


@pytest.fixture
def said(monkeypatch):
    """All that SQLite is told, by whoever connects."""
    statements = []
    connect = sqlite3.connect

    def traced(*args, **options):
        database = connect(*args, **options)
        database.set_trace_callback(statements.append)
        return database

    monkeypatch.setattr(sqlite3, "connect", traced)
    return statements


async def lives(tmp_path):
    """A gateway's core with a long past starts, carries commands out, cuts its audit, and stops."""
    async with Bench(tmp_path, clock=FakeClock()) as bench:
        bench.announce()
        await bench.dispatcher.submit(bench.command(ttl=60, revert_after=3600, revert_value=100.0))
        await until(lambda: bench.controller.sent, "it is sent")
        await bench.journal.commands_by_receipt(["r"])
        await bench.journal.head()


@virtual
async def test_no_query_of_a_start_or_a_command_walks_through_the_past(tmp_path, said, monkeypatch):
    monkeypatch.setattr(retention, "FIRST", 0.0)
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    await journal.open()
    async with Bench(tmp_path / "other") as bench:
        for _ in range(PAST):
            command = bench.command()
            await journal.record(event(command), event(command, CommandState.EXPIRED))
    await journal.close()
    said.clear()
    await lives(tmp_path)
    asked = {statement for statement in said if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))}
    with closing(sqlite3.connect(path)) as database:
        database.set_trace_callback(None)
        assert any("FROM command" in one for one in asked)
        assert any("DELETE FROM audit" in one or "FROM audit ORDER BY seq LIMIT" in one for one in asked), "it was cut"
        growing = []
        for statement in asked:
            plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")]
            if any(map(OF_THE_PAST.search, plan)) and not ENDS_BY_ITSELF.search(statement):
                growing.append((statement, plan))
        assert not growing
        plan = [row[3] for row in database.execute("EXPLAIN QUERY PLAN SELECT * FROM audit WHERE detail = 'x'")]
        assert OF_THE_PAST.search(plan[0]), "the test would see one"


async def test_the_halt_in_force_is_found_by_its_index_also_in_a_journal_made_before_there_was_one(tmp_path, said):
    path = tmp_path / "journal.sqlite"
    for _ in range(2):
        journal = Journal(path)
        await journal.open()
        assert await journal.halt_in_force() is None
        await journal.close()
        with closing(sqlite3.connect(path)) as db:
            (asked,) = {statement for statement in said if "'resumed'" in statement and "SELECT" in statement}
            ((*_, plan),) = db.execute(f"EXPLAIN QUERY PLAN {asked}").fetchall()
            assert "USING INDEX audit_halts" in plan
            db.execute("DROP INDEX audit_halts")
        said.clear()
