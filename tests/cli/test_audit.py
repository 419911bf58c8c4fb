"""`sems-gateway audit`: what it prints, and what it says of an audit that was changed."""

import csv
import io
import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from gateway.cli import app
from gateway.cli import audit as show_audit
from gateway.core.controller import Outcome
from gateway.core.model import CommandState, Reason
from gateway.journal.audit import AuditAction
from gateway.journal.chain import AuditReader
from gateway.journal.journal import Journal
from tests.kit.bench import Bench, until
from tests.kit.clock import NOON
from tests.kit.journal import event, note

CONFIG = """
gateway: {data_dir: data}
bridges:
  web: {type: web, port: 0}
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
async def journal(config):
    """A journal with a start, a command of alice, a refusal of somebody, and a command of a SCADA an hour later."""
    path = config.parent / "data" / "journal.sqlite"
    path.parent.mkdir()
    journal = Journal(path)
    await journal.open()
    make = Bench(config.parent).command
    first = make(id="id-1", serial="9010KETU218W0001", value=50.0, origin="mqtt/ops:alice@10.0.0.7")
    await journal.note(note(action=AuditAction.STARTED, origin="gateway", detail="version 1"))
    await journal.record(event(first), event(first, CommandState.SENT, "by sems"))
    await journal.record(event(first, CommandState.SUCCEEDED))
    bad = make(id="id-2\x1b[2J", serial="nobody", value="=1+1", origin="web:mallory")
    journal.refused(event(bad, CommandState.REJECTED, "not 0 to 100 %", reason=Reason.OUT_OF_RANGE))
    scada = make(
        id="id-3",
        serial="GW12000X01234567",
        setpoint="battery_power_target",
        value=-12000.0,
        origin="modbus:10.0.0.8:40122",
    )
    await journal.record(event(scada, time=NOON + timedelta(hours=1)))
    yield journal
    await journal.close()


def audit(config, *options):
    since = () if {"--since", "--verify"} & set(options) else ("--since", "2000-01-01")
    return CliRunner().invoke(app, ["audit", str(config), *since, *options])


async def test_without_more_words_it_is_the_last_day_and_what_is_before_is_not_read(config, journal, monkeypatch):
    now = datetime.now(UTC)
    for hours in (30, 25, 23, 1):
        await journal.note(note(action=AuditAction.DRIFTED, time=now - timedelta(hours=hours), detail=f"{hours} h"))
    read = []
    checked = AuditReader._checked
    monkeypatch.setattr(AuditReader, "_checked", lambda self, raw: read.append(raw[0]) or checked(self, raw))
    done = CliRunner().invoke(app, ["audit", str(config), "--format", "json"])
    assert [row["detail"] for row in json.loads(done.stdout)] == ["23 h", "1 h"]
    assert len(read) == 2
    assert "`--verify` proves all of it" in done.stderr
    monkeypatch.undo()
    rows = (await journal.head()).seq
    assert f"The audit is whole: {rows} rows" in audit(config, "--verify").stdout


async def test_the_table_says_what_happened_and_who_asked_within_80_columns(config, journal, monkeypatch):
    monkeypatch.setattr("gateway.cli.output.out.width", 80)
    done = audit(config)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "2026-06-21 (UTC)"
    assert lines[1] == "12:00:00 started"
    assert lines[2].strip() == "gateway · version 1"
    assert lines[7] == "12:00:00 succeeded (unverified)  9010KETU218W0001  active_power_limit = 50"
    assert lines[8] == "         mqtt/ops alice@10.0.0.7 · id-1"
    assert max(map(cell_len, lines)) <= 80
    assert "\x1b" not in done.stdout
    assert "id-2\\u001b[2J" in done.stdout
    assert "The audit is whole: 6 rows; head 6:" in done.stderr


async def test_csv_and_json_hold_every_column(config, journal):
    done = audit(config, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == show_audit.COLUMNS
    assert rows[1] | {"time": ""} == {
        "time": "", "serial": "9010KETU218W0001", "setpoint": "active_power_limit", "value": "50.0",
        "state": "accepted", "verified": "false", "correction": "false", "reason": "", "origin": "mqtt/ops",
        "from": "alice@10.0.0.7", "detail": "", "id": "id-1", "parent": "", "seq": "2",
    }  # fmt: skip
    assert rows[4]["value"] == "'=1+1", "a spreadsheet must not reckon what a stranger wrote"
    assert rows[5]["value"] == "-12000.0"
    found = json.loads(audit(config, "--format", "json").stdout)
    assert [row["state"] for row in found] == ["started", "accepted", "sent", "succeeded", "rejected", "accepted"]
    assert found[5]["value"] == -12000.0
    assert found[4]["reason"] == "out_of_range"
    assert json.loads(audit(config, "--device", "x", "--format", "json").stdout) == []


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (("--since", "2026-06-21T12:30Z"), [6]),
        (("--until", "2026-06-21T12:30"), [1, 2, 3, 4, 5]),
        (("--since", "2026-06-21", "--until", "2026-06-22"), [1, 2, 3, 4, 5, 6]),
        (("--since", "1m"), []),
        (("--device", "9010*"), [2, 3, 4]),
        (("--origin", "mqtt"), [2, 3, 4]),
        (("--origin", "mqtt/ops"), [2, 3, 4]),
        (("--origin", "*mallory"), [5]),
        (("--origin", "modbus", "--device", "9010*"), []),
    ],
)
async def test_rows_are_chosen_by_time_device_and_origin(config, journal, options, numbers):
    found = json.loads(audit(config, "--format", "json", *options).stdout)
    assert [row["seq"] for row in found] == numbers


async def test_a_time_that_is_none_says_what_to_write(config, journal):
    done = audit(config, "--since", "yesterday")
    assert done.exit_code == 2
    assert "write a date like" in done.stderr


async def test_verify_prints_one_line_with_the_head_to_note(config, journal):
    done = audit(config, "--verify")
    [line] = done.stdout.splitlines()
    assert done.exit_code == 0
    head = line.rpartition(" ")[2]
    assert audit(config, "--verify", "--noted", head).exit_code == 0
    done = audit(config, "--verify", "--noted", "6:" + "ab" * 32)
    assert done.exit_code == 1
    assert "is in none of its rows" in done.stderr


async def test_what_was_changed_is_named_and_the_exit_code_says_so(config, journal):
    db = sqlite3.connect(journal.path)
    db.execute("DROP TRIGGER audit_stands")
    db.execute("UPDATE audit SET value = '80.0' WHERE seq = 2")
    db.commit()
    db.close()
    done = audit(config)
    assert done.exit_code == 1
    assert "active_power_limit = 80" in done.stdout, "what is there is printed all the same"
    assert "The audit is broken in 1 place:" in done.stderr
    assert "row 2: its hash does not fit its content" in done.stderr


async def test_many_breaks_are_counted(config, journal):
    for _ in range(20):
        await journal.note(note())
    db = sqlite3.connect(journal.path)
    db.execute("DROP TRIGGER audit_stands")
    db.execute("UPDATE audit SET time = 'never', value = 'none' WHERE state = 'halted'")
    db.commit()
    db.close()
    done = audit(config, "--since", "2026-06-21T12:30Z", "--format", "json")
    assert len(json.loads(done.stdout)) == 21, "what can't be dated is printed"
    assert "broken in 20 places" in done.stderr
    assert "and 10 more" in done.stderr


def test_without_a_journal_it_says_so(config):
    done = audit(config)
    assert done.exit_code == 1
    assert "made when the gateway first runs" in done.stderr


def test_ago_is_reckoned_from_now():
    now = datetime(2026, 6, 21, 12, tzinfo=UTC)
    for text, ago in (
        ("90s", timedelta(seconds=90)), ("30m", timedelta(minutes=30)), ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)), ("0s", timedelta()), ("9999999s", timedelta(seconds=9_999_999)),
    ):  # fmt: skip
        assert show_audit.moment(text, now) == now - ago


@pytest.mark.parametrize("text", ["999999d", "9" * 30 + "s", "90 s", "-90s", "90S", "s", "1.5h"])
def test_what_is_no_time_says_what_is(config, text):
    done = audit(config, "--since", text)
    assert done.exit_code == 2, done.output
    assert "90s, 30m, 24h, 7d ago" in done.stderr


async def test_a_correction_and_a_cut_are_told(config, journal):
    late = Outcome(CommandState.SUCCEEDED, "said the cloud", verified=True)
    make = Bench(config.parent).command
    told = event(make(), late.state, late.detail)
    await journal.record(type(told)(**{**{f: getattr(told, f) for f in told.__struct_fields__}, "correction": True}))
    await journal.note(note(action=AuditAction.CUT, value=7, id="ab" * 32, detail="7 rows"))
    done = audit(config)
    assert "corrected: succeeded" in done.stdout
    assert "abab" not in done.stdout


async def test_every_step_and_refusal_of_a_running_gateway_is_in_it(config):
    data = config.parent / "data"
    data.mkdir()
    async with Bench(data) as gateway:
        gateway.announce()
        good, bad = gateway.command(), gateway.command(setpoint="nonsense")
        await gateway.dispatcher.submit(good)
        await gateway.dispatcher.submit(bad)

        def states():
            found = json.loads(audit(config, "--format", "json").stdout)
            return [(row["id"], row["state"]) for row in found if row["id"]]

        await until(lambda: (good.id, "succeeded") in states(), "the end is in the audit")
        assert [state for id_, state in states() if id_ == good.id] == ["accepted", "sent", "succeeded"]
        await until(lambda: (bad.id, "rejected") in states(), "a refusal is written a moment after it is given")
        assert audit(config, "--verify").exit_code == 0
