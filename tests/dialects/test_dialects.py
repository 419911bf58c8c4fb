"""What docs/reference/dialects.md prints, in small; and the whole way once, with programs."""

import json
import re

import httpx
import pytest

from gateway.sems.catalogue import load
from gateway.simulator.dialect import Dialect
from gateway.simulator.fleet import DEFAULT_FLEET
from tests.dialects.__main__ import BEGIN, DOCUMENT, END, SHARE
from tests.dialects.changes import changes_of
from tests.dialects.evaluate import evaluate, failures, table
from tests.dialects.program import gateway, values
from tests.kit.process import sems_gateway
from tests.simulator.kit import HOUSE_SERIAL

UNSEEN = 2000
"""Seeds that nobody looked at while the inference was made, and that are not in the printed table either."""
SHOWN = (
    "ac_power",
    "pv_power",
    "l1_voltage",
    "l1_current",
    "l1_frequency",
    "pv1_voltage",
    "energy_total",
    "temperature",
)
"""Points of an inverter that hardly change in a minute at noon, or not at all."""
STEADY = {"l1_voltage": 0.05, "l1_frequency": 0.01, "energy_total": 0.001, "temperature": 0.1, "pv1_voltage": 0.1}
"""Of those, how far apart two looks may be. The rest must be of the right size and sign."""


@pytest.mark.parametrize(("api", "count"), [("open_api", 6), ("developer", 3), ("realtime", 2)])
def test_dialects_are_restored_and_nothing_wrong_is_activated(api, count):
    results = evaluate(3, [(api, UNSEEN + n) for n in range(count)])
    found = table(results)["all"]
    assert found["wrong"] == 0, list(failures(results))
    assert found["share"] >= SHARE, list(failures(results))
    assert found["identifiable"] > 50 * count


def test_the_printed_table_holds_what_is_promised():
    printed = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    rows = re.findall(r"^\| all \|(.*)\|$", printed, re.MULTILINE)
    assert len(rows) == 3
    assert printed.count("200 dialects") == 3
    for row in rows:
        *_, share, wrong = (cell.strip() for cell in row.split("|"))
        assert float(share) >= SHARE
        assert wrong == "0"


def seeds_with(*kinds):
    """A dialect in which the House's inverter shows all these changes."""
    for seed in range(UNSEEN, UNSEEN + 500):
        dialect = Dialect(seed, load("open_api"), lambda: None)
        lines = [line for line in dialect.lines if line.interface == "GetInverterBySN" and line.after is not None]
        points = {line.before.point for line in lines}
        changes = {change.name for line in lines if line.before.point in SHOWN for change in changes_of(dialect, line)}
        if set(kinds) <= changes and set(SHOWN) <= points:
            return seed
    raise AssertionError(kinds)


@pytest.mark.parametrize("kinds", [("RENAME", "SCALE"), ("RENAME", "UNIT", "SCALE")], ids="-".join)
def test_what_was_learned_makes_a_gateway_right(tmp_path, kinds):
    """`simulate --dialect`, `learn`, `check`, `run`: each as a program, over HTTP."""
    seed = seeds_with(*kinds)
    options = ("--port", 0, "--dialect", seed, "--start", "2026-06-21T10:00", "--seed", 3)
    with sems_gateway("simulate", *options) as simulator:
        sems = simulator.line(r"ready sems=(\S+)")[1]
        config = tmp_path / "plain.yaml"
        config.write_text(
            f"gateway: {{data_dir: {tmp_path}/learning}}\n"
            f"bridges:\n  sems: {{type: open_api, url: {sems}, account: demo, password: demo}}\n"
        )
        with sems_gateway("learn", config, "--into", tmp_path, "--wait", 0) as learn:
            assert learn.wait(120) == 0, learn.text
        with gateway(tmp_path, sems, "    overrides: learned-sems.yaml\n") as (config, http):
            with sems_gateway("check", config) as check:
                assert check.wait(60) == 0, check.text
            shown = values(http, HOUSE_SERIAL, SHOWN)
            state = httpx.get(f"{sems}/sim/state?plant={DEFAULT_FLEET[0].id}", trust_env=False).json()
    [truth] = [one["values"] for one in state["plants"][0]["devices"] if one["serial"] == HOUSE_SERIAL]
    for point in SHOWN:
        apart = STEADY.get(point, 0.5)
        assert shown[point] == pytest.approx(truth[point], rel=apart, abs=0.5), (point, json.dumps(shown))
