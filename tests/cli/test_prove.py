"""`sems-gateway prove`: what a fleet was told and gave; a file that says otherwise than the audit is found."""

import asyncio
import json
import sqlite3
from datetime import timedelta

import pytest
import structlog
from typer.testing import CliRunner

from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.cli import app
from gateway.core.model import CommandState, HistoryPlan, Page, Sample
from gateway.steering.fleet.record import Given, Record
from tests.kit.bench import INVERTER, Bench, until
from tests.kit.clock import NOON
from tests.kit.journal import event

SN, SILENT = INVERTER.serial, "9010KETU000W0002"
CONFIG = """
gateway: {data_dir: .}
bridges:
  web: {type: web}
fleets:
  north: {members: {devices: ["9010*"]}}
"""


def at(minutes):
    return NOON + timedelta(minutes=minutes)


class Past:
    """Of one device a sample every five minutes, until a gap; of the other nothing."""

    def keeps(self, serial):
        return True

    def history_plan(self, serial, start, end, resolution):
        return HistoryPlan(1, ("ac_power",))

    async def history(self, serial, start, end, resolution):
        samples = [Sample(at(n), {"ac_power": 1_000.0 + n}) for n in range(0, 20, 5)] if serial == SN else []
        yield Page(start, end, samples)


async def told(bench, id_, value, minute, *, parent="", state=CommandState.SUCCEEDED, **changes):
    """Have a command and its end in the journal."""
    changes = {"serial": "fleet:north", "setpoint": "power_target", "origin": "mqtt"} | changes
    command = bench.command(id=id_, value=value, **changes)
    await bench.journal.record(event(command, time=at(minute)))
    await bench.journal.record(event(command, CommandState.SENT, time=at(minute)))
    await bench.journal.record(event(command, state, f"end of {id_}", time=at(minute + 1)))


@pytest.fixture
async def prove(tmp_path):
    """Run the command beside a gateway that has a fleet's commands in its journal."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    async with Bench(tmp_path) as bench:
        bench.services.historians["past"] = Past()
        bench.announce()
        bench.announce(serial=SILENT)
        bench.announce(serial="another")
        bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: any(s.up for s in bench.router.bridges()))
        await told(bench, "before", 3_000.0, -60)
        await told(bench, "first", 5_000.0, 10)
        child = {"setpoint": "active_power_limit", "origin": "fleet/north:first"}
        await told(bench, "child-1", 50.0, 10, serial=SN, **child)
        await told(bench, "child-2", 50.0, 10, serial=SILENT, state=CommandState.FAILED, **child)
        await told(bench, "others", 20.0, 10, serial=SN, setpoint="active_power_limit")
        await told(bench, "let-go", "none", 20)

        async def run(*words):
            arguments = ["prove", str(tmp_path / "config.yaml"), *words]
            return await asyncio.to_thread(CliRunner().invoke, app, arguments)

        yield run


PERIOD = ("--from", "2026-06-21T12:00Z", "--to", "2026-06-21T12:30Z")


async def test_it_says_what_was_asked_what_was_given_and_what_is_not_known(prove, tmp_path):
    file = tmp_path / "proof.json"
    done = await prove("fleet:north", *PERIOD, "--out", str(file))
    assert done.exit_code == 0, done.output
    assert "3 commands, 2 members, 30 minutes, 35.0% of the power is known" in done.output
    assert f"no power of {SILENT}: the cloud has nothing of this time" in done.output
    found = json.loads(file.read_text())
    assert [(each["id"], each["value"], each["detail"]) for each in found["targets"]] == [
        ("before", 3_000.0, ""),
        ("first", 5_000.0, "end of first"),
        ("let-go", "none", "end of let-go"),
    ]
    assert [(m["serial"], m["ends"], m["minutes"]) for m in found["members"]] == [
        (SN, {"succeeded": 1}, 21),
        (SILENT, {"failed": 1}, 0),
    ]
    minutes = [dict(zip(found["minute_columns"], minute, strict=True)) for minute in found["minutes"]]
    assert len(minutes) == 30
    assert [minutes[n]["target"] for n in (0, 9, 10, 19, 20)] == [3_000, 3_000, 5_000, 5_000, None]
    assert [minutes[n]["power"] for n in (0, 4, 5, 20, 21)] == [1_000, 1_000, 1_005, 1_015, None]
    assert [minutes[n]["known"] for n in (20, 21)] == [1, 0]
    assert "others" not in {row["row"][9] for row in found["rows"]}
    checked = await prove("--check", str(file))
    assert checked.exit_code == 0, checked.output
    assert "as the audit has it" in checked.output


def _target(found):
    found["targets"][1]["value"] = 4_000.0


def _end(found):
    found["members"][1]["ends"] = {"succeeded": 1}


def _asked(found):
    found["minutes"][12][1] = 1_000.0


def _known(found):
    found["completeness"] = 1.0


def _row(found):
    found["rows"][3]["row"][8] = "otherwise"


def _left_out(found):
    del found["rows"][3]


def _added(found):
    row = json.loads(json.dumps(found["rows"][3]))
    row["row"][0] = 999
    found["rows"].append(row)


def _head(found):
    found["head"] = f"3:{'0' * 64}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_target, "targets: they are not what follows"),
        (_end, "members: their ends are not what follows"),
        (_asked, "minutes: time, target or limit are not what follows"),
        (_known, "completeness: it is not what follows"),
        (_row, "rows not as in the audit: "),
        (_left_out, "rows left out: "),
        (_added, "rows not in the audit: 999"),
        (_head, "the audit: the hash that was noted"),
    ],
)
async def test_a_file_that_was_changed_is_found(prove, tmp_path, change, said):
    file = tmp_path / "proof.json"
    await prove("fleet:north", *PERIOD, "--out", str(file))
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    checked = await prove("--check", str(file))
    assert checked.exit_code == 1
    assert said in checked.output


async def test_what_the_gateway_has_measured_itself_is_asked_of_no_cloud(prove, tmp_path, monkeypatch):
    record = Record(tmp_path, "fleet:north", structlog.get_logger())
    for n in range(40):
        record.take(at(n), Given(2_000.0 + n, 2 if n != 7 else 1, 2))
    await record.write(all_=True)
    file = tmp_path / "proof.json"
    done = await prove("fleet:north", *PERIOD, "--out", str(file))
    assert "98.3% of the power is known" in done.output
    minutes = json.loads(file.read_text())["minutes"]
    assert minutes[6][3:] == [2_006.0, 2, "gateway"]
    assert minutes[7][3:] == [2_007.0, 1, "gateway"]  # no less than the cloud has
    monkeypatch.setattr(Past, "history", None)
    later = ("--from", "2026-06-21T12:08Z", "--to", "2026-06-21T12:30Z")
    done = await prove("fleet:north", *later, "--out", str(file))
    assert "100.0% of the power is known" in done.output
    assert (await prove("--check", str(file))).exit_code == 0


async def test_an_audit_that_was_changed_proves_nothing(prove, tmp_path):
    file = tmp_path / "proof.json"
    await prove("fleet:north", *PERIOD, "--out", str(file))
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("DROP TRIGGER audit_stands")
        db.execute("UPDATE audit SET value = '9000.0' WHERE id = 'first'")
    db.close()
    checked = await prove("--check", str(file))
    assert checked.exit_code == 1
    assert "its hash does not fit" in checked.output
    again = await prove("fleet:north", *PERIOD, "--out", str(tmp_path / "again.json"))
    assert again.exit_code == 1
    assert not (tmp_path / "again.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fleet:south", *PERIOD, "--out", "x.json"), "there is no fleet:south under fleets:"),
        (("fleet:north", "--from", "2026-06-21"), "prove CONFIG fleet:NAME --from TIME"),
        (("fleet:north", "--from", "noon", "--to", "1h", "--out", "x.json"), "'noon' is no time"),
        (("fleet:north", "--from", "1h", "--to", "2h", "--out", "x.json"), "--from has to be before --to"),
        (("fleet:north", *PERIOD, "--out", "."), ". is a directory; name a file in it"),
        (("fleet:north", *PERIOD, "--out", "none/x.json"), "there is no directory none; make it first"),
        (("--check", "config.yaml"), "is no proof"),
        (("--check", "."), ". is a directory; name a file in it"),
        (("--check", "none.json"), "there is no file none.json"),
    ],
)
async def test_what_can_not_be_proved_says_why(prove, tmp_path, words, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = await prove(*words)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Errno" not in done.output
