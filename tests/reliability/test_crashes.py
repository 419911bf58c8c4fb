"""Killed under load, a few times; `make reliability` does it two hundred times."""

import pytest

from tests.reliability.crashes import crash
from tests.reliability.rig import Rig

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

KILLS = 5


def test_killed_again_and_again_under_commands_from_everywhere_nothing_is_lost_late_or_stale(tmp_path):
    rig = Rig(tmp_path)
    with rig.surroundings():
        report = crash(rig, seed=20260621, kills=KILLS, faults=False)
    told = "\n".join(report.lines())
    assert report.verdict.faults == [], told
    assert report.kills == KILLS
    assert report.verdict.figures["commands"] > 50, told
    assert report.verdict.figures["executions"] > 10, told
    assert report.verdict.figures["reverts"] > 0, told
    for source in ("Modbus", "Local", "Http"):
        assert report.verdict.figures[f"promised by {source}"] > 0, told
