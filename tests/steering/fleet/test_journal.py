"""What a fleet's command to members is called in the audit and in every answer: part of the fleet's own."""

import csv
import io
import json

from typer.testing import CliRunner

from gateway.bridges.kafka import schema
from gateway.bridges.mqtt import payloads
from gateway.cli import app
from tests.kit.clock import FakeClock, virtual
from tests.steering.fleet.test_fleet import ALL, inverters
from tests.steering.fleet.world import World


def audit(directory, *options):
    done = CliRunner().invoke(app, ["audit", "--data-dir", str(directory), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


@virtual
async def test_the_audit_prints_the_tree_of_a_fleets_command(tmp_path):
    async with World(tmp_path, FakeClock(), inverters(2), ALL) as world:
        first = await world.ask(6_000)
        await world.end(first)
        second = await world.ask(8_000)
        await world.end(second)
        for id_ in (first, second):
            rows = json.loads(audit(tmp_path, "--command", id_, "--format", "json"))
            assert [(row["serial"], row["parent"]) for row in rows if row["id"] == id_] == [("fleet:north", "")] * 3
            children = [row for row in rows if row["id"] != id_]
            assert {row["serial"] for row in children} == {"PV0", "PV1"}
            assert {(row["origin"], row["from"], row["parent"]) for row in children} == {("fleet/north", id_, id_)}
            lines = audit(tmp_path, "--command", id_).splitlines()
            assert sum("fleet:north" in line and line[0] != " " and line[9] != " " for line in lines) == 3
            of_members = [line for line in lines if "PV0" in line or "PV1" in line]
            assert len(of_members) == len(children)
            assert all(line[8:11] == " " * 3 and line[11] != " " for line in of_members)
        table = list(csv.DictReader(io.StringIO(audit(tmp_path, "--since", "2026-06-01", "--format", "csv"))))
        assert {row["parent"] for row in table} == {"", first, second}


@virtual
async def test_every_answer_about_a_member_names_the_fleets_command(tmp_path):
    async with World(tmp_path, FakeClock(), inverters(2), ALL) as world:
        id_ = await world.ask(6_000)
        await world.end(id_)
        (child, *_) = world.told
        steps = await world.bench.dispatcher.steps(child.id)
        for step in steps:
            assert json.loads(payloads.step(step))["parent"] == id_
            assert json.loads(schema.encode(schema.of_event("g", step)))["parent"] == id_
        (own, *_) = await world.bench.dispatcher.steps(id_)
        assert "parent" not in json.loads(payloads.step(own))
        assert json.loads(schema.encode(schema.of_event("g", own)))["parent"] == ""
