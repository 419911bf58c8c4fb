"""`sems-gateway doctor`: what it says of a gateway that runs, and of one that does not."""

import asyncio
import json
from datetime import timedelta

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from gateway.api.bridge import BridgeSettings
from gateway.bridges.local import LocalBridge, LocalSettings
from gateway.cli import app, doctor
from gateway.core import good_once
from gateway.core.balance import GRID, Flows
from gateway.core.findings import FindingCode
from gateway.core.model import GATEWAY, DeviceKind
from gateway.core.probe import Mark
from tests.core.test_balance import EXPORTS, IMPORTS, different, flipped
from tests.kit.bench import Bench, Silent, until
from tests.kit.clock import NOON

CONFIG = """
gateway: {data_dir: data}
bridges:
  web: {type: web, port: 0}
"""


class Patient:
    """A gateway with one plant, and what doctor says of it."""

    def __init__(self, bench, file):
        self.bench = bench
        self.file = file
        bench.announce(serial="P1", kind=DeviceKind.PLANT, name="House", plant="", time_zone="Europe/Berlin")
        self.source = bench.run(Silent, BridgeSettings(), "sems")
        bench.publish("P1", pv_power=1.0)

    async def said(self, code=0):
        """Run the command; return its lines by what they are about."""
        found = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", str(self.file), "--json"])
        assert found.exit_code == code, found.output
        report = json.loads(found.stdout)
        assert report["well"] is (code == 0)
        lines = {}
        for line in report["lines"]:
            lines.setdefault(line["about"], []).append(line)
        return lines

    def weigh(self, *measured, times=6):
        for n in range(times * len(measured)):
            values = different(measured[n % len(measured)], n)
            self.source.weigh(
                Flows(
                    serial="P1",
                    where="Flow",
                    time=NOON + timedelta(minutes=5 * n),
                    values=values,
                    turned=lambda point: {"bridges": {"sems": {"overrides": {point: "turned"}}}},
                )
            )


@pytest.fixture
def file(tmp_path):
    (tmp_path / "data").mkdir()
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


FLEET = """
control: {enabled: true, allow: [{devices: ["*"], setpoints: ["*"]}]}
fleets:
  rows: {members: {devices: [P1, NOBODY]}}
"""


@pytest.fixture
async def patient(file):
    async with Bench(file.parent / "data") as bench:
        patient = Patient(bench, file)
        bench.run(LocalBridge, LocalSettings(), "cli")
        await until(lambda: len([s for s in bench.router.bridges() if s.up]) == 2)
        yield patient


def marks(lines):
    return [line["mark"] for line in lines]


async def test_all_is_well(patient):
    patient.weigh(EXPORTS, IMPORTS)
    lines = await patient.said()
    assert marks(lines["bridge"]) == ["well", "well"]
    assert marks(lines["journal"]) == marks(lines["devices"]) == marks(lines["zone"]) == ["well"]
    (balance,) = lines["balance"]
    assert (balance["mark"], balance["subject"]) == ("well", "House")
    assert "seen both ways" in balance["text"]
    assert "control" not in lines


async def test_a_bridge_that_is_down_says_why(patient):
    patient.source.report(up=False, detail="SEMS says no")
    (down,) = [line for line in (await patient.said(1))["bridge"] if line["mark"] == "wrong"]
    assert down["subject"] == "sems"
    assert "SEMS says no" in down["text"]


async def test_a_journal_that_cannot_be_written_is_wrong(patient, monkeypatch):
    monkeypatch.setattr(type(patient.bench.dispatcher), "journal_trouble", "the disk is full")
    (journal,) = (await patient.said(1))["journal"]
    assert journal["mark"] == "wrong"
    assert "the disk is full" in journal["text"]


async def test_a_halt_is_shown_and_is_nothing_wrong(patient):
    await patient.bench.halting.halt(GATEWAY, "works on the roof")
    (halt,) = (await patient.said())["control"]
    assert halt["mark"] == "note"
    assert "works on the roof" in halt["text"]


async def test_what_check_warns_of_is_told_of_a_running_gateway_too(patient, file):
    good_once.write(file.parent / "data", {"P1": NOON})
    file.write_text(CONFIG + FLEET)
    (warned,) = (await patient.said())["configuration"]
    assert warned["mark"] == "note"
    assert "fleets.rows.members: no device 'NOBODY' has been seen" in warned["text"]


async def test_a_file_that_the_next_start_would_refuse_is_told_and_is_no_trouble_of_the_running_one(patient, file):
    file.write_text(CONFIG.replace("port: 0", "prot: 0"))
    told = (await patient.said())["configuration"]
    assert marks(told) == ["note"] * len(told)
    assert any("unknown key 'prot'" in line["text"] for line in told)
    assert "goes on with what it had" in told[0]["remedy"]


async def test_a_doubtful_sign_comes_with_the_override_to_paste(patient):
    patient.weigh(flipped(EXPORTS), flipped(IMPORTS))
    lines = await patient.said(1)
    (doubt,) = lines["sign_doubtful"]
    assert yaml.safe_load(doubt["remedy"]) == {"bridges": {"sems": {"overrides": {GRID: "turned"}}}}
    assert marks(lines["balance"]) == ["wrong"]


async def test_what_was_found_out_is_told_and_is_nothing_wrong(patient):
    patient.source.find(FindingCode.ZONE_INFERRED, "P1", "its times are those of UTC+02:00")
    lines = await patient.said()
    assert marks(lines["zone_inferred"]) == ["note"]
    assert "found out from its times" in lines["zone"][0]["text"]


async def test_a_plant_without_a_zone_is_named_with_the_setting_that_helps(patient):
    patient.bench.announce(serial="P1", kind=DeviceKind.PLANT, name="House", plant="", time_zone="")
    (zone,) = (await patient.said())["zone"]
    assert zone["mark"] == "note"
    assert "time_zone" in zone["remedy"]


async def test_every_remedy_stands_below_its_line_on_a_terminal(patient):
    patient.source.find(FindingCode.LIST_DOUBTED, "P1", "2 of 9 devices are left", "one\ntwo")
    found = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", str(patient.file)])
    assert found.exit_code == 1
    rows = found.stdout.splitlines()
    row = next(n for n, row in enumerate(rows) if "2 of 9 devices are left" in row)
    assert rows[row].startswith("✗ sems, P1")
    assert rows[row + 1 : row + 3] == ["    one", "    two"]


def test_of_many_plants_a_terminal_shows_those_that_need_it(capsys):
    lines = [doctor.Line(doctor.Mark.WELL, "balance", f"plant {n}", "fits") for n in range(100)]
    lines += [doctor.Line(doctor.Mark.WRONG, "balance", "the bad one", "does not")]
    doctor.show(doctor.Console(width=100), lines)
    shown = capsys.readouterr().out
    assert "the bad one" in shown
    assert "plant 7" not in shown
    assert "100 well, 0 to know, 1 wrong" in shown


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [(CONFIG, 0, "no gateway runs"), (CONFIG.replace("port: 0", "prot: 0"), 1, "unknown key 'prot'")],
)
def test_without_a_running_gateway_it_says_so_and_looks_at_what_one_would_need(file, text, code, says):
    file.write_text(text)
    file.chmod(0o600)
    found = CliRunner().invoke(app, ["doctor", str(file)])
    assert found.exit_code == code
    assert says in found.stdout


def test_what_a_bridge_finds_alike_is_said_once(capsys):
    def found(interface, field="ext", bridge="sems"):
        text = f"SEMS answers {interface} with fields nobody knows: {field} (fields_unknown, since {interface})"
        return doctor.Line(Mark.NOTE, FindingCode.FIELDS_UNKNOWN, f"{bridge}, {interface}", text, f"use: {interface}")

    lines = [found("A"), found("B"), found("C", field="new"), found("A", bridge="other"), found("D")]
    doctor.show(Console(width=200), lines)
    shown = capsys.readouterr().out.splitlines()
    assert [row.strip() for row in shown if "the same of" in row] == ["the same of B, D"]
    assert sum(row.startswith("!") for row in shown) == 3
    assert "5 to know" in shown[-1], "the count is of all"
