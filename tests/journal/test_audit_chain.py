"""The audit proves itself: whatever is changed, removed, added or reordered in it shows."""

import hashlib
import json
import shutil
import sqlite3
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.model import CommandState, Reason
from gateway.journal.audit import COLUMNS, canonical
from gateway.journal.chain import AuditReader
from gateway.journal.journal import Journal, JournalError
from gateway.journal.retention import Keep
from tests.kit.bench import Bench
from tests.kit.clock import NOON
from tests.kit.journal import event, note, rows

FIELDS = tuple(COLUMNS.split(", "))


@pytest.fixture
async def path(tmp_path):
    """A journal at rest with ten rows of every sort."""
    make = Bench(tmp_path).command
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.open()
    for n in range(3):
        command = make(value=f"5{n}", origin="mqtt/alice:10.0.0.7")
        await journal.record(event(command), event(command, CommandState.SENT, "by sems"))
        await journal.record(event(command, CommandState.SUCCEEDED, "ünïcode ✓"))
    journal.refused(event(make(), CommandState.REJECTED, "too much", reason=Reason.OUT_OF_RANGE))
    await journal.close()
    return tmp_path / "journal.sqlite"


def proved(path, noted=""):
    """Return the reader after a walk, and the rows."""
    with AuditReader(path) as reader:
        found = list(reader.walk(noted))
    return reader, found


def tampered(path, *statements):
    """Change the file behind the gateway's back, as one who may write it can."""
    db = sqlite3.connect(path, isolation_level=None)
    for trigger in ("audit_stands", "audit_stays"):
        db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
    for statement, *values in statements:
        db.execute(statement, values)
    db.close()
    return proved(path)[0]


async def test_a_whole_one_is_whole(path):
    reader, found = proved(path)
    assert reader.breaks == []
    assert (reader.rows, reader.head.seq, len(found)) == (10, 10, 10)
    assert found[2].detail == "ünïcode ✓"
    assert found[-1].reason == "out_of_range"


async def test_what_is_hashed_is_plain_json(path):
    _, found = proved(path)
    assert canonical(found[0]).startswith(b'[1,"2026-06-21T12:00:00.000000Z","accepted","')
    assert canonical(found[0]).endswith(f',"\\"50\\"","","mqtt/alice:10.0.0.7","","{found[0].id}",0,0]'.encode())


async def test_anybody_can_reckon_the_chain_with_what_every_language_has(path):
    db, before = sqlite3.connect(path), bytes(32)
    for *fields, digest in db.execute(f"SELECT {COLUMNS}, hash FROM audit ORDER BY seq"):
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
        before = hashlib.sha256(before + text.encode()).digest()
        assert before == digest
    db.close()


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_byte_of_any_field_of_any_row_counts(path_sync, data):
    seq = data.draw(st.integers(1, 10))
    field = data.draw(st.sampled_from([*FIELDS[1:], "hash"]))
    db = sqlite3.connect(path_sync, isolation_level=None)
    db.execute("DROP TRIGGER IF EXISTS audit_stands")
    db.execute("SAVEPOINT before")
    (before,) = db.execute(f"SELECT CAST({field} AS BLOB) FROM audit WHERE seq = ?", (seq,)).fetchone()
    if before:
        at = data.draw(st.integers(0, len(before) - 1))
        after = bytearray(before)
        after[at] ^= data.draw(st.integers(1, 255))
    else:
        after = data.draw(st.binary(min_size=1, max_size=3))
    kind = "BLOB" if field == "hash" else "INTEGER" if field in ("verified", "correction") else "TEXT"
    db.execute(f"UPDATE audit SET {field} = CAST(? AS {kind}) WHERE seq = ?", (bytes(after), seq))
    changed = db.execute(f"SELECT CAST({field} AS BLOB) FROM audit WHERE seq = ?", (seq,)).fetchone() != (before,)
    db.execute("RELEASE before")
    reader, _ = proved(path_sync)
    db.execute(f"UPDATE audit SET {field} = CAST(? AS {kind}) WHERE seq = ?", (before, seq))
    db.close()
    assert bool(reader.breaks) == changed
    if changed:
        assert {b.seq for b in reader.breaks} <= {0, seq, seq + 1}
    assert proved(path_sync)[0].breaks == []


@pytest.fixture
def path_sync(path):
    return path


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=st.integers(1, 10), count=st.integers(1, 10))
def test_rows_that_are_gone_are_missed(path_sync, tmp_path_factory, first, count):
    copy = tmp_path_factory.mktemp("copy") / "journal.sqlite"
    shutil.copy(path_sync, copy)
    shutil.copy(f"{path_sync}.head", f"{copy}.head")
    reader = tampered(copy, ("DELETE FROM audit WHERE seq BETWEEN ? AND ?", first, first + count - 1))
    assert reader.breaks
    assert "missing" in str(reader.breaks[0])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(order=st.permutations(range(1, 11)))
def test_rows_in_another_order_do_not_fit(path_sync, tmp_path_factory, order):
    copy = tmp_path_factory.mktemp("copy") / "journal.sqlite"
    shutil.copy(path_sync, copy)
    reader = tampered(
        copy,
        ("UPDATE audit SET seq = -seq",),
        *(("UPDATE audit SET seq = ? WHERE seq = ?", new, -old) for old, new in enumerate(order, 1)),
    )
    assert bool(reader.breaks) == (order != list(range(1, 11)))


async def test_a_row_put_in_between_does_not_fit(path):
    insert = f"INSERT INTO audit SELECT 6, {', '.join(FIELDS[1:])}, hash FROM audit WHERE seq = 4"
    reader = tampered(path, *(("UPDATE audit SET seq = seq + 1 WHERE seq = ?", n) for n in range(10, 5, -1)), (insert,))
    assert reader.breaks[0].seq == 6
    assert "not what was written" in reader.breaks[0].what


async def test_a_row_put_at_the_end_does_not_fit(path):
    insert = f"INSERT INTO audit SELECT 11, {', '.join(FIELDS[1:])}, hash FROM audit WHERE seq = 10"
    assert [b.seq for b in tampered(path, (insert,)).breaks] == [11]


async def test_a_field_of_another_type_or_no_text_shows(path):
    assert [b.seq for b in tampered(path, ("UPDATE audit SET detail = x'00' WHERE seq = 3",)).breaks] == [3]
    reader = tampered(path, ("UPDATE audit SET detail = CAST(x'ff' AS TEXT) WHERE seq = 3",))
    assert [b.seq for b in reader.breaks] == [3]


async def test_all_rows_gone_with_a_made_up_cut_shows(path):
    reader = tampered(path, ("UPDATE audit_cut SET seq = 3, hash = x'00'",), ("DELETE FROM audit WHERE seq <= 3",))
    assert [b.seq for b in reader.breaks] == [4, 0]
    assert "no row of the audit says that they were cut" in str(reader.breaks[1])


async def test_the_file_itself_keeps_its_rows(path):
    db = sqlite3.connect(path)
    for statement in ("UPDATE audit SET detail = ''", "DELETE FROM audit WHERE seq = 1", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    db.close()


async def test_a_head_that_was_noted_is_found_or_missed(path):
    head = proved(path)[0].head
    for noted in (str(head), head.hash.hex(), f" {head} "):
        assert proved(path, noted)[0].breaks == []
    for noted in (f"9:{head.hash.hex()}", "ab" * 32):
        assert "that was noted" in str(proved(path, noted)[0].breaks[0])


async def test_it_is_read_beside_a_gateway_that_goes_on_writing(tmp_path):
    make = Bench(tmp_path).command
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.open()
    await journal.record(event(make()))
    with AuditReader(journal.path) as reader:
        walk = reader.walk()
        first = next(walk)
        await journal.record(event(make()))
        assert [first.seq, *(row.seq for row in walk)] == [1, 2]
    assert reader.breaks == []
    await journal.close()


async def test_rows_cut_while_they_are_read_break_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.journal.chain.CHUNK", 2)
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.open()
    for n in range(8):
        await journal.note(note(time=NOON + timedelta(days=n)))
    with AuditReader(journal.path) as reader:
        walk = reader.walk()
        seen = [next(walk).seq, next(walk).seq]
        keep = Keep(NOON + timedelta(days=6), 100, NOON)
        journal._store.commit([], [], keep)
        seen += [row.seq for row in walk]
    assert (seen, reader.breaks) == ([1, 2, 7, 8, 9], [])
    await journal.close()


async def test_where_nothing_may_be_written_it_is_read_all_the_same(path, monkeypatch):
    connect, uris = sqlite3.connect, []

    def no_log(name, **kwargs):
        uris.append(name)
        return connect(name if "immutable" in name else "file:/nowhere/at/all?mode=ro", **kwargs)

    monkeypatch.setattr("gateway.journal.chain.sqlite3.connect", no_log)
    assert (proved(path)[0].breaks, len(uris)) == ([], 2)


async def test_what_cannot_be_read_says_what_to_do(tmp_path):
    with pytest.raises(JournalError, match="made when the gateway first runs"):
        proved(tmp_path / "journal.sqlite")
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(JournalError, match="it is no journal"):
        proved(tmp_path / "text")
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(JournalError, match="older gateway"):
        proved(tmp_path / "old")
    with pytest.raises(JournalError, match="not open"):
        list(AuditReader(tmp_path / "old").walk())


async def test_a_number_json_does_not_have_is_kept_as_text(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    await journal.open()
    journal.refused(event(Bench(tmp_path).command(value=float("nan")), CommandState.REJECTED))
    await journal.close()
    assert [row.plain_value for row in rows(journal.path)] == ["nan"]
