"""Timers over a fleet, and kills; `make punctual` does ten thousand and says how late they are. Here they all fire."""

import pytest

from tests.reliability.punctual import Fleet, punctual

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

TIMERS, KILLS = 24, 2


def test_timers_over_a_fleet_all_fire_across_kills_and_each_is_measured(tmp_path):
    report = punctual(tmp_path, seed=1, kills=KILLS, timers=TIMERS, fleet=Fleet(plants=1, devices=20), faults=False)
    told = "\n".join(report.lines())
    assert report.verdict.faults == [], told
    assert report.kills == KILLS
    assert len(report.lateness.timers) + report.lateness.replaced > TIMERS / 2, told
    assert all(timer.done is not None for timer in report.lateness.timers), told
    assert (tmp_path / "records.json").exists()
